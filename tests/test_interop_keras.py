"""Keras's lists of weights: there and back again, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell
from tinyconvlstm.layers import Conv, Recurrent

from .test_interop import F64, C, F, assert_equal, random, shaken


def assert_lists_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    assert_equal(dict(enumerate(found)), dict(enumerate(expected)))


def test_keras_lstm_round_trip(rng):
    weights = list(random(rng, {"k": (C, 4 * F), "r": (F, 4 * F), "b": (4 * F,)}).values())
    cell = interop.lstm_from_keras(weights)
    assert cell.params["w_x"][F + 2, 1] == weights[0][1, F + 2]
    assert_lists_equal(interop.lstm_to_keras(cell), weights)
    np.testing.assert_array_equal(interop.lstm_from_keras(weights[:2]).params["b"], np.zeros(4 * F))


def test_keras_gru_round_trips(rng):
    for kind in (GRUCell, ResetBeforeGRUCell):
        cell = shaken(kind(C, F, **F64), rng)
        weights, settings = interop.gru_to_keras(cell)
        assert settings == {"reset_after": kind is GRUCell}
        assert [w.shape for w in weights] == [(C, 15), (F, 15), (2, 15) if kind is GRUCell else (15,)]
        np.testing.assert_array_equal(weights[0][:, :F], cell.params["w_x"][F : 2 * F].T)  # u comes first
        back = interop.gru_from_keras(weights, **settings)
        assert type(back) is kind
        assert_equal(back.params, cell.params)
        no_bias = interop.gru_from_keras(weights[:2], **settings)
        assert not any(no_bias.params[name].any() for name in no_bias.params if name.startswith("b"))


KERAS_CELLS: dict[str, dict[str, Any]] = {
    "1d": {"kernel": (4,), "padding": "same", "stride": 2},
    "2d": {"kernel": (2, 3), "padding": "valid", "dilation": (1, 2)},
    "2d, no pixels": {"kernel": (2, 3), "padding": 0},
    "3d": {"kernel": (2, 1, 3), "padding": "same_upper"},
}


@pytest.mark.parametrize("name", KERAS_CELLS)
def test_keras_convlstm_round_trip(name, rng):
    cell = shaken(ConvLSTMCell(C, F, **KERAS_CELLS[name], **F64), rng)
    weights, settings = interop.convlstm_to_keras(cell)
    assert [w.shape for w in weights] == [(*cell.kernel, C, 4 * F), (*cell.kernel, F, 4 * F), (4 * F,)]
    own = {k: settings[k] for k in ("strides", "padding", "dilation_rate")}
    back = interop.convlstm_from_keras(weights, **own)
    assert_equal(back.params, cell.params)
    xs = rng.standard_normal((3, 2, C, *(6, 7, 5)[: len(cell.kernel)]))
    np.testing.assert_array_equal(Recurrent(back)(xs), Recurrent(cell)(xs))


KERAS_CONVS: dict[str, dict[str, Any]] = {
    "1d causal": {"kernel": (3,), "padding": ((4, 0),), "dilation": 2},
    "1d": {"kernel": (4,), "padding": "same", "stride": 3},
    "2d groups": {"kernel": (2, 3), "padding": 0, "groups": 2, "bias": False},
    "3d": {"kernel": (2, 1, 3), "padding": "same"},
}


@pytest.mark.parametrize("name", KERAS_CONVS)
def test_keras_conv_round_trip(name, rng):
    layer = shaken(Conv(4, 6, **KERAS_CONVS[name], **F64), rng)
    weights, settings = interop.conv_to_keras(layer)
    assert settings["use_bias"] == ("b" in layer.params)
    assert settings["filters"] == 6
    assert settings["padding"] == (
        "causal" if "causal" in name else {0: "valid"}.get(KERAS_CONVS[name]["padding"], "same")
    )
    own = {k: settings[k] for k in ("strides", "padding", "dilation_rate", "groups")}
    back = interop.conv_from_keras(weights, **own)
    assert_equal(back.params, layer.params)
    x = rng.standard_normal((2, 4, 6, 7, 5)[: 2 + len(KERAS_CONVS[name]["kernel"])])
    np.testing.assert_array_equal(back(x), layer(x))


@pytest.mark.parametrize(
    ("write", "part", "message"),
    [
        (interop.lstm_to_keras, LSTMCell(2, 3, peephole="channel"), "cell has peepholes w_c"),
        (interop.lstm_to_keras, LSTMCell(2, 3, (3,)), r"cell has kernel \(3,\), expected \(\)"),
        (interop.gru_to_keras, LSTMCell(2, 3), "cell is a LSTMCell, expected GRUCell or ResetBeforeGRUCell"),
        (interop.gru_to_keras, GRUCell(2, 3, (3,)), r"cell has kernel \(3,\)"),
        (interop.convlstm_to_keras, LSTMCell(2, 3), r"cell has kernel \(\), expected 1 to 3 axes"),
        (
            interop.convlstm_to_keras,
            ConvLSTMCell(2, 3, (3,), padding=1),
            "padding is 1, expected 'valid' or 'same'",
        ),
        (
            interop.convlstm_to_keras,
            ConvLSTMCell(2, 3, (3,), padding="same_lower"),
            "padding is 'same_lower'",
        ),
        (interop.convlstm_to_keras, ConvLSTMCell(2, 3, (3,), state_kernel=(5,)), r"state_kernel is \(5,\)"),
        (interop.convlstm_to_keras, ConvLSTMCell(2, 3, (3,), state_dilation=2), "state_dilation is 2"),
        (interop.convlstm_to_keras, ConvLSTMCell(2, 3, (3,), stride=2, dilation=2), "Keras has not both"),
        (
            interop.convlstm_to_keras,
            ConvLSTMCell(2, 3, (3,), padding=((2, 0),)),
            "expected 'valid' or 'same'",
        ),
        (interop.conv_to_keras, Conv(2, 3, (3, 3), padding=((2, 0), (2, 0))), "expected 'valid' or 'same'"),
        (interop.conv_to_keras, Conv(2, 3, ()), "w has 0 spatial axes"),
    ],
)
def test_keras_has_no_such_layer(write, part, message):
    with pytest.raises(ValueError, match=message):
        write(part)


@pytest.mark.parametrize(
    ("read", "shapes", "settings", "message"),
    [
        (
            interop.lstm_from_keras,
            [(3, 20)],
            {},
            r"key 'recurrent_kernel' is missing: expected shape \(\*, \*\)",
        ),
        (
            interop.lstm_from_keras,
            [(3, 20), (5, 16)],
            {},
            r"recurrent_kernel has shape \(5, 16\), expected \(5, 20\)",
        ),
        (interop.lstm_from_keras, [(3, 16), (5, 20)], {}, r"kernel has shape \(3, 16\), expected \(\*, 20\)"),
        (
            interop.lstm_from_keras,
            [(3, 20), (5, 20), (20,), (2,)],
            {},
            "weights has 4 arrays, expected at most 3",
        ),
        (
            interop.gru_from_keras,
            [(3, 15), (5, 15), (15,)],
            {},
            r"bias has shape \(15,\), expected \(2, 15\)",
        ),
        (interop.gru_from_keras, [(3, 15), (5, 15), (2, 15)], {"reset_after": False}, r"expected \(15\)"),
        (
            interop.convlstm_from_keras,
            [(3, 3, 2, 20), (3, 1, 5, 20)],
            {},
            r"kernel has shape \(3, 3, 2, 20\), expected \(3, 1, \*, 20\)",
        ),
        (interop.convlstm_from_keras, [(3, 2, 20), (3, 5, 20)], {"padding": "causal"}, "padding is 'causal'"),
        (
            interop.conv_from_keras,
            [(3, 3, 2, 4)],
            {"padding": "causal"},
            "padding is 'causal', expected one of",
        ),
    ],
)
def test_keras_weights_that_do_not_fit(read, shapes, settings, message, rng):
    with pytest.raises(ValueError, match=message):
        read([rng.standard_normal(shape) for shape in shapes], **settings)
