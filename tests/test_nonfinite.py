"""Where a forward pass went wrong: layer, time step and gate of a NaN that was planted."""

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend
from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell, GRUCell
from tinyconvlstm.gradcheck.zoo import zoo
from tinyconvlstm.layers import Bidirectional, Dense, Sequential
from tinyconvlstm.models import Forecaster
from tinyconvlstm.models.objective import forecast_loss_forward
from tinyconvlstm.nonfinite import Where, first_nonfinite, leaves

T, GATES = 6, ("i", "f", "g", "o")


def saved_of(place="numpy", *, spoil=None, feed=False):
    """What the loss of a small two-layer forecaster saves; `spoil` changes its parameters first."""
    model = Forecaster((3, 2), size=(6, 4), patch=2, kernel=3, feed=feed, rng=5)
    if spoil:
        spoil(model.params)
    frames = np.random.default_rng(3).random((T, 2, 1, 6, 4)).astype(np.float32)
    _, saved = forecast_loss_forward(
        model.to_backend(place), to_backend(frames, place), observed=4, truth_rate=float(feed)
    )
    return saved


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", [*GATES, "c", "tanh_c"])
def test_a_planted_value_is_found_by_layer_step_and_gate(backend, field, value):
    for stack, layer, step in (
        ("encoder", 0, 3),
        ("encoder", 1, 1),
        ("forecaster", 0, 1),
        ("forecaster", 1, 0),
    ):
        saved = saved_of(backend)
        assert first_nonfinite(saved) is None
        name = f"{stack}.{layer}"
        getattr(getattr(saved.forecaster, stack)[name].steps[step].gates, field)[1, 0, 2, 1] = value
        assert first_nonfinite(saved) == Where(name, step, field)


def test_a_value_in_a_fed_forecaster_is_found(backend):
    for step, layer, field in ((0, 0, "f"), (1, 1, "o"), (1, 0, "g")):
        saved = saved_of(backend, feed=True)
        assert first_nonfinite(saved) is None
        tape = saved.forecaster.forecaster.tape
        getattr(tape.steps[step].steps[layer].gates, field)[0, 1, 1, 1] = np.nan
        assert first_nonfinite(saved) == Where(f"forecaster.{layer}", step, field)


@pytest.mark.parametrize("feed", [False, True])
@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("name", ["encoder.0.w_x", "encoder.1.w_h", "forecaster.0.w_h", "forecaster.1.w_x"])
def test_a_spoiled_weight_shows_in_the_first_gate_it_feeds(feed, gate, name):
    def spoil(params):
        rows = len(params[name]) // 4
        params[name][gate * rows + 1] = np.nan

    layer = name.rpartition(".")[0]
    first = 1 if name == "encoder.1.w_h" else 0  # before the encoder's first step there is no h to multiply
    assert first_nonfinite(saved_of(spoil=spoil, feed=feed)) == Where(layer, first, GATES[gate])


def test_of_several_values_the_first_computed_counts():
    saved = saved_of()
    tape = saved.forecaster.encoder
    tape["encoder.1"].steps[0].gates.i[...] = np.nan
    tape["encoder.0"].steps[2].gates.o[...] = np.nan
    assert first_nonfinite(saved) == Where("encoder.0", 2, "o")
    tape["encoder.0"].steps[2].gates.g[...] = np.inf
    assert first_nonfinite(saved) == Where("encoder.0", 2, "g")
    tape["encoder.0"].steps[1].gates.tanh_c[...] = np.nan
    assert first_nonfinite(saved) == Where("encoder.0", 1, "tanh_c")


def test_what_a_step_reads_comes_before_its_gates():
    saved = saved_of()
    tape = saved.forecaster.encoder["encoder.1"]
    tape.steps[2].gates.i[...] = np.nan
    tape.steps[2].state_map.x[...] = np.nan
    assert first_nonfinite(saved) == Where("encoder.1", 2, "x")


def test_steps_of_a_reversed_scan_are_counted_as_they_were_read(rng):
    cell = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64)
    _, _, tape = scan(cell, rng.standard_normal((5, 1, 2, 4, 5)), reverse=True)
    tape.steps[1].gates.f[0, 2, 1, 1] = np.nan
    found = first_nonfinite(tape)
    assert found == Where("", 1, "f", reverse=True)
    assert str(found) == "the model, time step 1 of the reading order, last frame first, gate f"


def test_paths_of_nested_layers_are_those_of_their_parameters(rng):
    net = Sequential(Dense(2, 3), Bidirectional(GRUCell(3, 4), GRUCell(3, 4)))
    _, saved = net.forward(rng.standard_normal((3, 2, 2)).astype(np.float32))
    path = next(path for path, array in leaves(saved) if "steps reversed" in path and path[-1] == "n")
    layer = ".".join(path[:2])
    assert any(name.startswith(f"{layer}.") for name in net.params)
    _, tape = list(saved["1"].items())[1]
    tape.tape.steps[2].gates.n[...] = np.nan
    assert first_nonfinite(saved) == Where(layer, 2, "n", reverse=True)


def test_words():
    assert str(Where("encoder.0", 3, "g")) == "layer encoder.0, time step 3, gate g"
    assert str(Where("head", None, "x")) == "layer head, x"


def test_nothing_is_found_in_finite_passes_of_the_whole_zoo():
    seen = 0
    for case in zoo():
        _, saved = case.forward(case.arrays)
        assert first_nonfinite(saved) is None, case.name
        seen += any(True for _ in leaves(saved))
    assert seen > 100
