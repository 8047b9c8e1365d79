"""ONNX's tensors and attributes: there and back again, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import GRUCell, LSTMCell, ResetBeforeGRUCell
from tinyconvlstm.layers import Bidirectional, Conv, Recurrent, Sequential

from .test_interop import F64, C, F, assert_equal, random, shaken


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
