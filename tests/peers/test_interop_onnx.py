"""Nodes written for ONNX compute what our layers do, in ONNX Runtime and in ONNX's own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import GRUCell, LSTMCell, ResetBeforeGRUCell
from tinyconvlstm.layers import Bidirectional, Conv, Recurrent

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install onnx")

T, N, C, F = 5, 3, 4, 6
TYPES = {np.dtype(np.float32): 1, np.dtype(np.float64): 11}  # onnx.TensorProto.FLOAT, DOUBLE


def model(kind: str, inputs: list[str], tensors: dict[str, np.ndarray], attributes: dict[str, Any]) -> Any:
    """A graph of one node: x -> y, the tensors held in the graph; a "" among the inputs is left out."""
    node = onnx.helper.make_node(kind, ["x", *inputs], ["y"], **attributes)
    held = [onnx.numpy_helper.from_array(a, name) for name, a in tensors.items()]
    code = TYPES[next(iter(tensors.values())).dtype]
    rank = 3 if kind != "Conv" else tensors["W"].ndim
    x = onnx.helper.make_tensor_value_info("x", code, [None] * rank)
    y = onnx.helper.make_tensor_value_info("y", code, [None] * (rank + (kind != "Conv")))
    graph = onnx.helper.make_graph([node], "one", [x], [y], held)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def runtime(made: Any, x: np.ndarray) -> np.ndarray:
    """y by ONNX Runtime."""
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y: np.ndarray = session.run(["y"], {"x": x})[0]
    return y


def reference(made: Any, x: np.ndarray) -> np.ndarray:
    """y by the reference evaluator, which has one direction only."""
    from onnx.reference import ReferenceEvaluator

    y: np.ndarray = ReferenceEvaluator(made).run(["y"], {"x": x})[0]
    return y


def randomised(cell: Any, dtype: Any, rng: np.random.Generator) -> Any:
    return cell.bind({name: rng.uniform(-0.5, 0.5, a.shape).astype(dtype) for name, a in cell.params.items()})


def layers(build: Any, rng: np.random.Generator, dtype: Any, **settings: Any) -> dict[str, Any]:
    def cell() -> Any:
        return randomised(build(C, F, dtype=dtype, **settings), dtype, rng)

    return {
        "forward": Recurrent(cell()),
        "reverse": Recurrent(cell(), reverse=True),
        "bidirectional": Bidirectional(cell(), cell()),
    }


CASES = [(LSTMCell, {}), (LSTMCell, {"peephole": "channel"}), (GRUCell, {}), (ResetBeforeGRUCell, {})]


def node_of(layer: Any, build: Any) -> Any:
    """The model of a layer."""
    write = interop.lstm_to_onnx if build is LSTMCell else interop.gru_to_onnx
    tensors, attributes = write(layer)
    inputs = ["W", "R", "B"] + (["", "", "", "P"] if "P" in tensors else [])
    return model("LSTM" if build is LSTMCell else "GRU", inputs, tensors, attributes)


def ours(layer: Any, xs: np.ndarray) -> np.ndarray:
    """Our output as Y (T, D, N, F)."""
    ys = layer(xs)
    return np.stack(np.split(ys, ys.shape[2] // F, axis=2), axis=1)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("build", "settings"), CASES)
def test_recurrent_in_the_runtime(build, settings, direction, rng):
    layer = layers(build, rng, np.float32, **settings)[direction]
    xs = rng.standard_normal((T, N, C)).astype(np.float32)
    found = runtime(node_of(layer, build), xs)
    np.testing.assert_allclose(ours(layer, xs), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("build", "settings"), CASES)
def test_recurrent_in_the_reference(build, settings, rng):
    layer = layers(build, rng, np.float64, **settings)["forward"]
    xs = rng.standard_normal((T, N, C))
    found = reference(node_of(layer, build), xs)
    np.testing.assert_allclose(ours(layer, xs), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_nodes_with_two_biases_are_read(kind, linear_before_reset, rng):
    """Written nodes have zeros for the second bias; here both are full."""
    blocks = {"LSTM": 4, "GRU": 3}[kind]
    shapes = {"W": (2, blocks * F, C), "R": (2, blocks * F, F), "B": (2, 2 * blocks * F)}
    tensors = {name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    attributes = {"direction": "bidirectional", "hidden_size": F}
    if kind == "GRU":
        attributes["linear_before_reset"] = linear_before_reset
    read = {"LSTM": interop.lstm_from_onnx, "GRU": interop.gru_from_onnx}[kind]
    xs = rng.standard_normal((T, N, C)).astype(np.float32)
    found = runtime(model(kind, ["W", "R", "B"], tensors, attributes), xs)
    np.testing.assert_allclose(ours(read(tensors, **attributes), xs), found, rtol=0, atol=1e-6)


CONVS: dict[str, dict[str, Any]] = {
    "1d": {"kernel": (4,), "padding": 1, "stride": 3},
    "2d uneven": {"kernel": (2, 3), "padding": ((0, 1), (2, 1)), "dilation": (2, 1)},
    "2d same": {"kernel": (4, 3), "padding": "same", "stride": (3, 2)},
    "2d same_lower": {"kernel": (4, 3), "padding": "same_lower", "stride": (3, 2)},
    "2d groups": {"kernel": (3, 3), "padding": "valid", "groups": 2, "bias": False},
    "3d": {"kernel": (2, 1, 3), "padding": (1, 0, 2), "stride": (1, 2, 2)},
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("engine", [runtime, reference])
def test_convolution(engine, name, rng):
    dtype = np.float32
    layer = randomised(Conv(4, 6, **CONVS[name]), dtype, rng)
    x = rng.standard_normal((N, 4, 8, 9, 6)[: 2 + len(CONVS[name]["kernel"])]).astype(dtype)
    tensors, attributes = interop.conv_to_onnx(layer)
    found = engine(model("Conv", list(tensors), tensors, attributes), x)
    assert found.shape == layer(x).shape
    np.testing.assert_allclose(layer(x), found, rtol=0, atol=2e-6)
    again = interop.conv_from_onnx(tensors, **attributes)
    np.testing.assert_array_equal(again(x), layer(x))
