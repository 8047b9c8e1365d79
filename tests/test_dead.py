"""Dead weights are found exactly where a model has them, and nowhere in the zoo's cells."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend
from tinyconvlstm.cells import CandidateLSTMCell, ConvLSTMCell, GRUCell
from tinyconvlstm.dead import DeadReport, DeadRow, dead_in_case, dead_weights
from tinyconvlstm.gradcheck import zoo
from tinyconvlstm.gradcheck.cells import cell_case
from tinyconvlstm.layers import Activation, Conv, Dense, Dropout, Embedding, Recurrent, Sequential
from tinyconvlstm.models import OpenSTLForecaster, openstl_2023
from tinyconvlstm.models.openstl import openstl_counts

F64 = {"dtype": np.float64}
# What is truly dead in cases of the zoo, as a share of the array. Cases with dropout are left out: there the mask
# is a constant, and what it drops is dead.
ALONE = "attention over a single position is 1, whatever its weights say"
LINKS = "links from fast to slow modules are forbidden"
WORDS = "words that never come"
TAPS = "taps that never reach the frame"
DEAD: dict[str, tuple[str, dict[str, float]]] = {
    r"variant/input attention 0d": (ALONE, dict.fromkeys(("w_xa", "w_ha", "b_a", "w_z"), 1.0)),
    r"variant/attention for [io] 0d": (ALONE, {"w_x": 0.5, "b": 0.5, "w_h": 0.5, "w_z": 1.0}),
    r"variant/self-attention 0d": (ALONE, dict.fromkeys(("w_q", "w_kh", "w_km"), 1.0)),
    r"variant/clockwork \w+ \dd": (LINKS, {"w_h": 1 / 3}),
    r"variant/clockwork .*(reverse|truncated|checkpointed)": (LINKS, {"w_h": 1 / 4}),
    r"variant/clock stack .*other cells.*": (LINKS, {"1.w_h": 1 / 4}),
    r"model/caption.*": (WORDS, {"embedding.w": 1 / 3, "decoder.embedding.w": 1 / 3}),
    r"variant/deformable 2d strided, dilated, peephole": (TAPS, {"w_qh": 2 / 3}),
    r"model/forecaster 3d": (TAPS, {"w_x": 24 / 27, "w_h": 24 / 27}),
    r"model/three streams, score-average": ("a ReLU that is shut for both clips", {"flow.conv.1.w": 1 / 12}),
}
INPUTS = re.compile(
    r"xs?|h\.\d|rgb|flow|audio|(.*\.)?[a-z]0"
)  # some lie beyond a clip's length, or are missing
CASES = {
    case.name: case
    for case in zoo()
    if case.name.startswith(("cell/", "variant/", "layer/", "model/")) and "dropout" not in case.name
}


@pytest.mark.parametrize("name", CASES)
def test_only_what_is_unused_is_dead_in_the_zoo(name):
    shares = next((shares for pattern, (_, shares) in DEAD.items() if re.fullmatch(pattern, name)), {})
    for row in dead_in_case(CASES[name]).rows:
        if INPUTS.fullmatch(row.name):
            continue
        last = row.name.rpartition(".")[2] if name == "model/forecaster 3d" else row.name
        share = 1.0 if row.name.startswith("unused.") else shares.get(last, 0.0)
        if row.name == "forecaster.0.w_x":
            share = 0.0  # of a fed forecaster, whose first layer has it
        assert row.dead == round(share * row.size), row


def test_candidates_read_no_h(rng):
    """The misprinted cell whose gates recur on the candidate: nothing that h holds reaches anything."""
    cell = CandidateLSTMCell(2, 3, (3,), **F64)
    found = {
        row.name: row.dead
        for row in dead_in_case(cell_case("c", cell, rng.standard_normal((4, 2, 2, 5)))).rows
    }
    assert found.pop("h0") == 2 * 3 * 5
    assert set(found.values()) == {0}


@pytest.mark.parametrize("features", [(3, 2), (2,)])
def test_openstl_at_a_small_size(features, backend, rng):
    settings = {"size": (6, 6), "patch": 2, "kernel": 3, "channels": 2}
    model = OpenSTLForecaster(features, **settings).to_backend(backend)
    x = to_backend(rng.random((3, 2, 2, 6, 6)).astype(np.float32), backend)
    found = dead_weights(model, x, horizon=3)
    total, live = openstl_counts(features, **settings)
    assert (found.size, found.dead) == (total, total - live)
    assert all(row.dead == (row.size if row.name.startswith("unused.") else 0) for row in found.rows)


def test_openstl_has_3407872_dead_weights(rng):
    """ConvLSTM-S as published, on frames of 12 x 12: its states are 3 x 3, and every tap of 5 x 5 is reached."""
    model = openstl_2023("ConvLSTM-S-mmnist", size=(12, 12))
    found = dead_weights(model, rng.random((3, 1, 1, 12, 12)).astype(np.float32), horizon=2, trials=2)
    assert (found.dead, found.size) == (3_407_872, 15_083_520)
    assert str(found).splitlines()[0] == "unused.0.w_o: 819,200 of 819,200 dead (100.0%)"
    assert str(found).splitlines()[-1] == "3,407,872 of 15,083,520 parameters are dead (22.6%)"
    assert len(str(found).splitlines()) == 9


def test_outer_taps_are_dead_on_small_frames(rng):
    """A 5 x 3 kernel on 2 x 4 pixels reaches 3 of its 5 rows and all columns."""
    found = dead_weights(Sequential(Conv(2, 3, (5, 3))), rng.standard_normal((2, 2, 2, 4)).astype(np.float32))
    assert found.rows == (DeadRow("0.w", 2 * 3 * 2 * 3, 90), DeadRow("0.b", 0, 3))


def test_the_state_map_and_the_forget_gate_are_dead_for_one_step(rng):
    """At rest h = 0 and c = 0: w_h and the forget gate's quarter of w_x and b meet nothing."""
    cell = ConvLSTMCell(2, 3, (3,), **F64)
    xs = rng.standard_normal((2, 2, 2, 5))
    one, two = (dead_weights(Recurrent(cell), xs[:steps]) for steps in (1, 2))
    assert {row.name: row.dead for row in one.rows} == {"w_x": 72 // 4, "w_h": 108, "b": 12 // 4}
    assert two.dead == 0


def test_weights_that_start_at_zero_are_not_dead(rng):
    """Behind a weight of zero no gradient passes; moved in every trial, it lets one through."""
    model = Sequential(Dense(3, 2, **F64), Dense(2, 2, **F64))
    model = model.bind({**model.params, "1.w": np.zeros((2, 2))})
    x = rng.standard_normal((4, 3))
    assert dead_weights(model, x).dead == 0
    assert dead_weights(model, x, spread=0.0).dead == 8  # "0.w" and "0.b"


def test_dropout_and_relu_kill_nothing_for_good(rng):
    model = Sequential(Dense(3, 4, **F64), Dropout(0.8), Activation("relu"), Dense(4, 2, **F64))
    x = rng.standard_normal((8, 3))
    assert dead_weights(model, x, trials=20, spread=0.5, train=True).dead == 0


def test_words_that_never_come_are_dead():
    model = Sequential(Embedding(5, 2, **F64), Recurrent(GRUCell(2, 3, **F64)))
    found = {row.name: row.dead for row in dead_weights(model, np.array([[0, 3], [1, 3], [1, 1]])).rows}
    assert found.pop("0.w") == 2 * 2  # words 2 and 4
    assert not any(found.values())


def test_the_report_of_nothing():
    assert str(DeadReport(())) == "0 of 0 parameters are dead (0.0%)"
