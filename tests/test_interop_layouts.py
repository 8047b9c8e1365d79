"""The convolution of [x, h], OpenSTL's checkpoints, and weights that come from another backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell
from tinyconvlstm.layers import Bidirectional, Conv, Dense, Recurrent, Sequential
from tinyconvlstm.models import OpenSTLForecaster

from .test_interop import F64, C, F, assert_equal, random, shaken

SIZES = {0: (), 1: (5,), 2: (3, 4), 3: (2, 3, 2)}


# --- one convolution of [x, h] ---


@pytest.mark.parametrize("concat", ["xh", "hx"])
@pytest.mark.parametrize("order", ["ifog", "ifgo", "gifo", "fiog"])
@pytest.mark.parametrize("kernel", [(), (3,), (3, 5), (1, 3, 1)])
def test_concatenated_kernel_is_two_convolutions(kernel, order, concat, rng):
    """z = weight * [x, h], computed as one, equals the cell's two maps, gate by gate."""
    w = rng.standard_normal((4 * F, C + F, *kernel))
    state = {"conv.weight": w, "conv.bias": rng.standard_normal(4 * F)}
    model = interop.convlstm_from_pytorch(state, prefix="conv.", order=order, concat=concat)
    cell = model.parts["0"].cell
    x, h = rng.standard_normal((2, C, *SIZES[len(kernel)])), rng.standard_normal((2, F, *SIZES[len(kernel)]))
    whole = shaken(Conv(C + F, 4 * F, kernel, **F64), rng).bind({"w": w, "b": state["conv.bias"]})
    z = dict(
        zip(
            order,
            np.split(whole(np.concatenate([x, h] if concat == "xh" else [h, x], axis=1)), 4, axis=1),
            strict=True,
        )
    )
    start = cell.initial_state(x)._replace(h=h, c=0.7 * h)
    new, _ = cell.step(cell.project(x[None])[0][0], start)
    i, f, o = (1 / (1 + np.exp(-z[gate])) for gate in "ifo")
    c = f * start.c + i * np.tanh(z["g"])
    np.testing.assert_allclose(new.c, c, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(new.h, o * np.tanh(c), rtol=1e-12, atol=1e-12)
    assert_equal(interop.convlstm_to_pytorch(model, prefix="conv.", order=order, concat=concat), state)


def test_stack_of_concatenating_cells(rng):
    model = Sequential(
        *(
            Recurrent(shaken(ConvLSTMCell(c, f, k, **F64), rng))
            for c, f, k in ((2, 3, (3, 1)), (3, 4, (1, 3)))
        )
    )
    state = interop.convlstm_to_pytorch(model)
    assert {k: a.shape for k, a in state.items()} == {
        "cell_list.0.conv.weight": (12, 5, 3, 1),
        "cell_list.0.conv.bias": (12,),
        "cell_list.1.conv.weight": (16, 7, 1, 3),
        "cell_list.1.conv.bias": (16,),
    }
    assert_equal(interop.convlstm_from_pytorch(state).params, model.params)
    del state["cell_list.1.conv.bias"]
    np.testing.assert_array_equal(interop.convlstm_from_pytorch(state).params["1.b"], np.zeros(16))


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        ({"weight": (8, 5, 3, 2)}, {}, r"kernel is \(3, 2\), expected odd sizes"),
        ({"weight": (7, 5, 3, 3)}, {}, r"weight has shape \(7, 5, 3, 3\), expected \(4 F, C \+ F, \*K\)"),
        ({"weight": (8, 2, 3, 3)}, {}, "with C at least 1"),
        ({"weight": (8, 5, 3, 3), "bias": (4,)}, {}, r"bias has shape \(4,\), expected \(8\)"),
        ({"weight": (8, 5, 3, 3), "b": (8,)}, {}, "key 'b' is unknown"),
        ({"bias": (8,)}, {}, r"key 'weight' is missing: expected shape \(\*, \*\)"),
        ({"weight": (8, 5, 3, 3)}, {"order": "ifoc"}, "order is 'ifoc', expected the letters of 'ifgo'"),
        ({"weight": (8, 5, 3, 3)}, {"concat": "x,h"}, "concat is 'x,h', expected 'xh' or 'hx'"),
    ],
)
def test_concatenated_kernels_that_do_not_fit(shapes, settings, message, rng):
    with pytest.raises(ValueError, match=message):
        interop.convlstm_from_pytorch(random(rng, shapes), prefix="", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": (2, 3)}, "expected odd sizes"),
        ({"stride": 2}, r"stride, padding, dilation are 2, 'same', 1, expected 1, 'same', 1"),
        ({"padding": 0}, r"stride, padding, dilation are 1, 0, 1"),
        ({"dilation": 2}, r"stride, padding, dilation are 1, 'same', 2"),
        ({"state_kernel": (1, 1)}, r"state_kernel is \(1, 1\), expected \(3, 3\)"),
        ({"state_dilation": 2}, "state_dilation is 2, expected 1"),
        ({"peephole": "channel"}, "cell has peepholes"),
    ],
)
def test_cells_that_are_no_concatenation(settings, message):
    cell = ConvLSTMCell(2, 3, **{"kernel": (3, 3), **settings})
    with pytest.raises(ValueError, match=message):
        interop.convlstm_to_pytorch(cell)


def test_padding_in_pixels_may_be_same(rng):
    cell = shaken(ConvLSTMCell(2, 3, (3, 5), padding=(1, 2), **F64), rng)
    back = interop.convlstm_from_pytorch(interop.convlstm_to_pytorch(cell))
    assert_equal(back.parts["0"].cell.params, cell.params)


def test_concatenating_cells_read_forwards_and_layers_are_numbered():
    with pytest.raises(ValueError, match="layer reads backwards"):
        interop.convlstm_to_pytorch(Recurrent(ConvLSTMCell(2, 3, (3,)), reverse=True))
    two = Sequential(*(Recurrent(ConvLSTMCell(2, 2, (3,))) for _ in range(2)))
    with pytest.raises(ValueError, match=r"prefix is 'conv.', expected {} in it for the numbers of 2 layers"):
        interop.convlstm_to_pytorch(two, prefix="conv.")


# --- from another backend ---

WRITERS: dict[str, tuple[Any, Any]] = {
    "PyTorch LSTM": (interop.lstm_to_pytorch, Bidirectional(LSTMCell(C, F), LSTMCell(C, F))),
    "PyTorch GRU": (interop.gru_to_pytorch, Sequential(Recurrent(GRUCell(C, F)))),
    "PyTorch Linear": (interop.dense_to_pytorch, Dense(C, F)),
    "PyTorch Conv": (interop.conv_to_pytorch, Conv(2, 3, 3)),
    "[x, h]": (interop.convlstm_to_pytorch, ConvLSTMCell(2, 3, (3,))),
    "Keras LSTM": (interop.lstm_to_keras, LSTMCell(C, F)),
    "Keras GRU": (interop.gru_to_keras, GRUCell(C, F)),
    "Keras ConvLSTM": (interop.convlstm_to_keras, ConvLSTMCell(2, 3, (3,))),
    "Keras Conv": (interop.conv_to_keras, Conv(2, 3, 3)),
    "ONNX LSTM": (interop.lstm_to_onnx, LSTMCell(C, F, peephole="channel")),
    "ONNX GRU": (interop.gru_to_onnx, Recurrent(GRUCell(C, F))),
    "ONNX Conv": (interop.conv_to_onnx, Conv(2, 3, 3)),
    "OpenSTL": (interop.openstl_to_pytorch, OpenSTLForecaster((3,), size=(4, 4), patch=2, kernel=3)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_weights_leave_as_numpy_arrays(name, backend, rng):
    write, part = WRITERS[name]
    part = shaken(part, rng)
    found, expected = write(part.to_backend(backend)), write(part)
    if isinstance(expected, tuple):
        assert found[1] == expected[1]
        found, expected = found[0], expected[0]
    if isinstance(expected, list):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    assert {type(a) for a in found.values()} == {np.ndarray}
    assert_equal(found, expected)


# --- OpenSTL ---


def test_openstl_round_trip(rng):
    model = shaken(OpenSTLForecaster((3, 4), channels=2, size=(4, 6), patch=2, kernel=(3, 1), **F64), rng)
    state = interop.openstl_to_pytorch(model)
    assert state["cell_list.0.conv_x.0.weight"].shape == (12, 8, 3, 1)
    theirs, ours = state["conv_last.weight"], model.params["head.w"]
    np.testing.assert_array_equal(theirs[[0, 1, 2, 7]], ours[[0, 4, 1, 7]])  # pixel 0 of both channels first
    back = interop.openstl_from_pytorch(
        {f"model.{k}": a for k, a in state.items()}, size=(4, 6), patch=2, prefix="model."
    )
    assert_equal(back.params, model.params)
    x = rng.random((2, 1, 2, 4, 6))
    np.testing.assert_array_equal(back(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell_list.0.conv_x.1.weight": (12, 2, 3)}, "key 'cell_list.0.conv_x.1.weight' is unknown"),
        ({"conv_last.weight": None}, r"key 'conv_last.weight' is missing: expected shape \(8, 4, 1, 1\)"),
        (
            {"cell_list.1.conv_h.0.weight": (16, 4, 3, 3)},
            r"conv_h.0.weight has shape \(16, 4, 3, 3\), expected \(\*, \*, 3, 1\)",
        ),
        ({"cell_list.1.conv_x.0.weight": (16, 4, 3, 1)}, r"expected \(16, 3, 3, 1\)"),
    ],
)
def test_openstl_checkpoints_that_do_not_fit(change, message, rng):
    state = interop.openstl_to_pytorch(
        OpenSTLForecaster((3, 4), channels=2, size=(4, 6), patch=2, kernel=(3, 1), **F64)
    )
    for key, shape in change.items():
        state.pop(key, None)
        state |= {} if shape is None else {key: np.zeros(shape)}
    with pytest.raises(ValueError, match=message):
        interop.openstl_from_pytorch(state, size=(4, 6), patch=2)


def test_an_openstl_patch_must_divide_the_channels():
    state = interop.openstl_to_pytorch(OpenSTLForecaster((3,), channels=2, size=(4, 6), patch=2, kernel=3))
    with pytest.raises(ValueError, match="patch is 3, expected one whose 2-d area divides the 8 channels"):
        interop.openstl_from_pytorch(state, size=(6, 6), patch=3)
