"""Keras's and ONNX's layouts, and the convolution of [x, h]: there and back again, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell
from tinyconvlstm.layers import Bidirectional, Conv, Dense, Recurrent, Sequential
from tinyconvlstm.models import OpenSTLForecaster

from .test_interop import F64, C, F, assert_equal, random, shaken

SIZES = {0: (), 1: (5,), 2: (3, 4), 3: (2, 3, 2)}


def assert_lists_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    assert_equal(dict(enumerate(found)), dict(enumerate(expected)))


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


# --- Keras ---


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


# --- ONNX ---


def onnx_layers(build: Any, rng: np.random.Generator, **settings: Any) -> dict[str, Any]:
    def cell() -> Any:
        return shaken(build(C, F, **F64, **settings), rng)

    return {
        "forward": Recurrent(cell()),
        "reverse": Recurrent(cell(), reverse=True),
        "bidirectional": Bidirectional(cell(), cell()),
    }


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("build", "settings"),
    [(LSTMCell, {}), (LSTMCell, {"peephole": "channel"}), (GRUCell, {}), (ResetBeforeGRUCell, {})],
)
def test_onnx_round_trip(build, settings, direction, rng):
    layer = onnx_layers(build, rng, **settings)[direction]
    lstm = build is LSTMCell
    read, write = (
        (interop.lstm_from_onnx, interop.lstm_to_onnx)
        if lstm
        else (interop.gru_from_onnx, interop.gru_to_onnx)
    )
    tensors, attributes = write(layer)
    assert attributes["direction"] == direction
    assert attributes["hidden_size"] == F
    assert attributes.get("linear_before_reset") == (None if lstm else int(build is GRUCell))
    back = read(tensors, **attributes)
    assert_equal(back.params, layer.params)
    xs = rng.standard_normal((4, 2, C))
    np.testing.assert_array_equal(back(xs), layer(xs))


def test_onnx_blocks_lie_where_the_specification_says(rng):
    cell = shaken(LSTMCell(C, F, peephole="channel", **F64), rng)
    tensors, _ = interop.lstm_to_onnx(cell)
    i, f, g, o = np.split(cell.params["w_x"], 4)
    np.testing.assert_array_equal(tensors["W"][0], np.concatenate([i, o, f, g]))
    np.testing.assert_array_equal(tensors["P"][0], cell.params["w_c"][[0, 2, 1]].ravel())
    assert not tensors["B"][0, 4 * F :].any()
    cell = shaken(GRUCell(C, F, **F64), rng)
    tensors, _ = interop.gru_to_onnx(cell)
    r, u, n = np.split(cell.params["w_h"], 3)
    np.testing.assert_array_equal(tensors["R"][0], np.concatenate([u, r, n]))
    np.testing.assert_array_equal(tensors["B"][0, -F:], cell.params["b_hn"])


@pytest.mark.parametrize("reset", [0, 1])
def test_onnx_adds_its_two_biases(reset, rng):
    tensors = random(rng, {"W": (1, 15, C), "R": (1, 15, F), "B": (1, 30)})
    params = interop.gru_from_onnx(tensors, linear_before_reset=reset).params
    z, r, h = np.split(tensors["B"][0, :15], 3)
    z2, r2, h2 = np.split(tensors["B"][0, 15:], 3)
    np.testing.assert_array_equal(params["b"], np.concatenate([r + r2, z + z2, h if reset else h + h2]))
    if reset:
        np.testing.assert_array_equal(params["b_hn"], h2)


ONNX_CONVS: dict[str, dict[str, Any]] = {
    "1d": {"kernel": (3,), "padding": 1, "stride": 2},
    "2d uneven": {"kernel": (2, 3), "padding": ((0, 1), (2, 1)), "dilation": (2, 1)},
    "2d groups": {"kernel": (4, 3), "padding": "same_lower", "groups": 2, "bias": False},
    "3d": {"kernel": (2, 1, 3), "padding": "same", "stride": (1, 2, 2)},
    "3d valid": {"kernel": (2, 1, 3), "padding": "valid"},
}


@pytest.mark.parametrize("name", ONNX_CONVS)
def test_onnx_conv_round_trip(name, rng):
    layer = shaken(Conv(4, 6, **ONNX_CONVS[name], **F64), rng)
    tensors, attributes = interop.conv_to_onnx(layer)
    back = interop.conv_from_onnx(tensors, **attributes)
    assert_equal(back.params, layer.params)
    x = rng.standard_normal((2, 4, 6, 7, 5)[: 2 + len(ONNX_CONVS[name]["kernel"])])
    np.testing.assert_array_equal(back(x), layer(x))


L = {"W": (1, 20, 3), "R": (1, 20, 5)}


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        ({**L, "X": (2,)}, {}, "key 'X' is unknown"),
        ({"W": (1, 20, 3)}, {}, r"key 'R' is missing: expected shape \(1, \*, \*\)"),
        (L, {"direction": "bidirectional"}, r"R has shape \(1, 20, 5\), expected \(2, \*, \*\)"),
        (L, {"direction": "both"}, "direction is 'both', expected one of"),
        ({**L, "R": (1, 15, 5)}, {}, r"R has shape \(1, 15, 5\), expected \(1, 20, 5\)"),
        ({**L, "P": (1, 20)}, {}, r"P has shape \(1, 20\), expected \(1, 15\)"),
        (L, {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "activations is .'HardSigmoid'"),
        (L, {"clip": 3.0}, "clip is 3.0, expected 0.0"),
        (L, {"layout": 1}, "layout is 1, expected 0"),
        (L, {"hidden_size": 4}, "hidden_size is 4, expected 5"),
        (L, {"input_forget": 1}, "input_forget is 1, expected 0"),
        (L, {"linear_before_reset": 1}, "attribute 'linear_before_reset' is unknown"),
    ],
)
def test_onnx_nodes_that_do_not_fit(shapes, attributes, message, rng):
    with pytest.raises(ValueError, match=message):
        interop.lstm_from_onnx(random(rng, shapes), **attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"pads": [1, 1]}, "pads has 2 entries, expected 4"),
        ({"auto_pad": "SAME"}, "auto_pad is 'SAME', expected one of"),
        ({"kernel_shape": [3, 3]}, r"kernel_shape is \[3, 3\], expected \(3, 2\)"),
        ({"groups": 2}, "attribute 'groups' is unknown"),
    ],
)
def test_onnx_convolutions_that_do_not_fit(attributes, message):
    with pytest.raises(ValueError, match=message):
        interop.conv_from_onnx({"W": np.zeros((4, 3, 3, 2))}, **attributes)


def lstm(channels: int = 2, **settings: Any) -> LSTMCell:
    return LSTMCell(channels, 3, **settings)


@pytest.mark.parametrize(
    ("write", "layer", "message"),
    [
        (interop.lstm_to_onnx, Sequential(Recurrent(lstm()), Recurrent(lstm(3))), "layer is a chain of 2"),
        (interop.lstm_to_onnx, lstm(kernel=(3,)), r"cell has kernel \(3,\), expected \(\)"),
        (
            interop.lstm_to_onnx,
            Bidirectional(lstm(peephole="channel"), lstm()),
            "one direction has peepholes",
        ),
        (interop.lstm_to_onnx, Bidirectional(lstm(), LSTMCell(2, 4)), "the two directions differ in size"),
        (interop.lstm_to_onnx, GRUCell(2, 3), "cell is a GRUCell, expected LSTMCell: ONNX"),
        (
            interop.gru_to_onnx,
            Bidirectional(GRUCell(2, 3), ResetBeforeGRUCell(2, 3)),
            "expected two of a kind",
        ),
        (interop.conv_to_onnx, Conv(2, 3, ()), "w has 0 spatial axes"),
    ],
)
def test_onnx_has_no_such_node(write, layer, message):
    with pytest.raises(ValueError, match=message):
        write(layer)


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
