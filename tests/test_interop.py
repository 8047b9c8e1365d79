"""Layouts of other frameworks: there and back again is bit for bit; what does not fit is named."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell, RNNCell
from tinyconvlstm.interop import layout
from tinyconvlstm.layers import Bidirectional, Conv, Dense, Recurrent, Sequential

C, F = 3, 5
F64: dict[str, Any] = {"dtype": np.float64}


def shaken(part: Any, rng: np.random.Generator) -> Any:
    """A cell or layer with every parameter random, biases too: no two blocks are alike."""
    return part.bind({name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in part.params.items()})


def random(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random arrays by name."""
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """The same names, dtypes and bits."""
    assert set(found) == set(expected)
    for name, a in expected.items():
        assert found[name].dtype == a.dtype
        np.testing.assert_array_equal(found[name], a, err_msg=str(name))


# --- layouts ---


def test_reorder_moves_whole_blocks():
    z = np.arange(12).reshape(6, 2)
    found = layout.reorder(z, "abc", "cab")
    np.testing.assert_array_equal(found, [[8, 9], [10, 11], [0, 1], [2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(layout.reorder(found, "cab", "abc"), z)
    np.testing.assert_array_equal(layout.reorder(z.T, "abc", "cab", axis=1), found.T)


@pytest.mark.parametrize(("source", "rows"), [("iff", 6), ("ifo", 6), ("ifgox", 20)])
def test_reorder_refuses_other_letters(source, rows):
    with pytest.raises(ValueError, match=f"order is '{source}', expected the letters of 'ifgo'"):
        layout.reorder(np.zeros((rows, 2)), source, "ifgo")


def test_reorder_refuses_a_size_that_does_not_divide():
    with pytest.raises(ValueError, match=r"axis 0 of shape \(7, 2\) does not divide into the 4 gates 'iofg'"):
        layout.reorder(np.zeros((7, 2)), "iofg", "ifgo")


def test_axes_come_back(rng):
    kernel, xs = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5, 6))
    w = layout.channels_first(kernel)
    assert w.shape == (5, 4, 2, 3)
    assert w[1, 2, 0, 1] == kernel[0, 1, 2, 1]
    np.testing.assert_array_equal(layout.channels_last(w), kernel)
    assert interop.batch_first(xs).shape == (3, 2, 5, 6, 4)
    assert interop.batch_first(xs)[1, 0, 2, 3, 1] == xs[0, 1, 1, 2, 3]
    np.testing.assert_array_equal(interop.time_first(interop.batch_first(xs)), xs)
    np.testing.assert_array_equal(layout.channels_last(layout.channels_first(kernel[0, 0])), kernel[0, 0])


# --- PyTorch ---


def stacks(kind: Any, rng: np.random.Generator) -> dict[str, Sequential]:
    """Chains of layers of a kind, by name."""

    def cell(channels: int) -> Any:
        return shaken(kind(channels, F, **F64), rng)

    return {
        "one": Sequential(Recurrent(cell(C))),
        "two": Sequential(Recurrent(cell(C)), Recurrent(cell(F))),
        "both ways": Sequential(Bidirectional(cell(C), cell(C)), Bidirectional(cell(2 * F), cell(2 * F))),
    }


PYTORCH = {
    "LSTM": (LSTMCell, interop.lstm_from_pytorch, interop.lstm_to_pytorch),
    "GRU": (GRUCell, interop.gru_from_pytorch, interop.gru_to_pytorch),
}


@pytest.mark.parametrize("kind", PYTORCH)
@pytest.mark.parametrize("name", ["one", "two", "both ways"])
def test_pytorch_round_trip(kind, name, rng):
    build, read, write = PYTORCH[kind]
    model = stacks(build, rng)[name]
    state = write(model)
    back = read(state)
    assert_equal(back.params, model.params)
    assert_equal(write(back), state)
    assert_equal(
        read(
            {f"net.{k}": a for k, a in state.items()} | {"head.w": state["bias_ih_l0"]}, prefix="net."
        ).params,
        model.params,
    )
    xs = rng.standard_normal((4, 2, C))
    np.testing.assert_array_equal(back(xs), model(xs))


def test_pytorch_adds_its_two_biases(rng):
    state = random(
        rng, {"weight_ih_l0": (20, C), "weight_hh_l0": (20, F), "bias_ih_l0": (20,), "bias_hh_l0": (20,)}
    )
    found = interop.lstm_from_pytorch(state).params
    np.testing.assert_array_equal(found["0.b"], state["bias_ih_l0"] + state["bias_hh_l0"])
    del state["bias_ih_l0"], state["bias_hh_l0"]
    np.testing.assert_array_equal(interop.lstm_from_pytorch(state).params["0.b"], np.zeros(20))


def test_pytorch_gru_keeps_the_bias_inside_the_reset_gate(rng):
    state = random(
        rng, {"weight_ih_l0": (15, C), "weight_hh_l0": (15, F), "bias_ih_l0": (15,), "bias_hh_l0": (15,)}
    )
    found = interop.gru_from_pytorch(state).params
    first, second = state["bias_ih_l0"], state["bias_hh_l0"]
    np.testing.assert_array_equal(found["0.b"][:10], first[:10] + second[:10])
    np.testing.assert_array_equal(found["0.b"][10:], first[10:])
    np.testing.assert_array_equal(found["0.b_hn"], second[10:])


def test_what_is_read_shares_no_memory(rng):
    state = random(rng, {"weight_ih_l0": (20, C), "weight_hh_l0": (20, F)})
    kept = {k: a.copy() for k, a in state.items()}
    model = interop.lstm_from_pytorch(state)
    for a in model.params.values():
        a += 1
    assert_equal(state, kept)
    written = interop.lstm_to_pytorch(model)
    for a in written.values():
        a += 1
    np.testing.assert_array_equal(model.params["0.w_x"], kept["weight_ih_l0"] + 1)


SHAPES = {"weight_ih_l0": (20, C), "weight_hh_l0": (20, F), "bias_ih_l0": (20,), "bias_hh_l0": (20,)}
MISTAKES = {
    "missing": ({"weight_hh_l0": None}, r"key 'weight_hh_l0' is missing: expected shape \(\*, \*\), received keys \['bias_hh_l0'"),
    "missing bias": ({"bias_hh_l0": None}, r"key 'bias_hh_l0' is missing: expected shape \(20\), received keys"),
    "unknown": ({"weight_xx_l0": (20, 5)}, r"key 'weight_xx_l0' is unknown: expected only \['bias_hh_l0'"),
    "a layer left out": ({"weight_ih_l2": (20, 5)}, "key 'weight_ih_l2' is unknown"),
    "wrong rows": ({"weight_ih_l0": (16, C)}, r"weight_ih_l0 has shape \(16, 3\), expected \(20, \*\)"),
    "wrong bias": ({"bias_ih_l0": (5,)}, r"bias_ih_l0 has shape \(5,\), expected \(20\)"),
    "not four gates": ({"weight_hh_l0": (19, 5)}, r"weight_hh_l0 has shape \(19, 5\), expected \(20, 5, ...\), 4 gates"),
    "a wrong rank": ({"weight_ih_l0": (20, C, 1)}, r"weight_ih_l0 has shape \(20, 3, 1\), expected \(20, \*\)"),
    "projected": ({"weight_hr_l0": (2, 5)}, "key 'weight_hr_l0' is unknown: an LSTM with proj_size"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_named(mistake, rng):
    change, message = MISTAKES[mistake]
    shapes = {k: s for k, s in {**SHAPES, **change}.items() if s is not None}
    with pytest.raises(ValueError, match=message) as caught:
        interop.lstm_from_pytorch(random(rng, shapes))
    assert "\n" not in str(caught.value)


def test_dtypes_must_agree_and_stay(rng):
    state = {k: a.astype(np.float32) for k, a in random(rng, SHAPES).items()}
    assert {a.dtype for a in interop.lstm_from_pytorch(state).params.values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="bias_hh_l0 has dtype float64, expected float32"):
        interop.lstm_from_pytorch(state | {"bias_hh_l0": np.zeros(20)})
    with pytest.raises(ValueError, match="weight_hh_l0 has dtype int64, expected float32 or float64"):
        interop.lstm_from_pytorch(state | {"weight_hh_l0": np.zeros((20, 5), np.int64)})


REFUSED = {
    "a convolution": (ConvLSTMCell(C, F, (3,)), r"cell is a ConvLSTMCell, expected LSTMCell: PyTorch"),
    "a convolution called LSTM": (LSTMCell(C, F, (3,)), r"cell has kernel \(3,\), expected \(\)"),
    "peepholes": (LSTMCell(C, F, peephole="channel"), r"cell has peepholes w_c \(3, 5\): PyTorch has no peepholes"),
    "another cell": (GRUCell(C, F), "cell is a GRUCell, expected LSTMCell"),
    "no input": (LSTMCell(0, F), "cell has 0 channels, expected an input"),
    "backwards alone": (Recurrent(LSTMCell(C, F), reverse=True), "layer reads backwards only"),
    "summed": (Bidirectional(LSTMCell(C, F), LSTMCell(C, F), merge="sum"), "merge is 'sum', expected 'concat'"),
    "other sizes": (Sequential(Recurrent(LSTMCell(C, F)), Recurrent(LSTMCell(F, 4))), r"layers have \(directions, features\)"),
    "no recurrence": (Sequential(Dense(C, F)), "layer is a Dense, expected Recurrent"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_pytorch_has_no_such_lstm(what):
    layer, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        interop.lstm_to_pytorch(layer)


@pytest.mark.parametrize("cell", [ResetBeforeGRUCell(C, F), RNNCell(C, F)])
def test_pytorch_has_no_such_gru(cell):
    with pytest.raises(ValueError, match=f"cell is a {type(cell).__name__}, expected GRUCell"):
        interop.gru_to_pytorch(cell)


def test_linear_round_trip(rng):
    for bias in (True, False):
        layer = shaken(Dense(C, F, bias=bias, **F64), rng)
        assert_equal(interop.dense_from_pytorch(interop.dense_to_pytorch(layer)).params, layer.params)


CONVS: dict[str, dict[str, Any]] = {
    "1d": {"kernel": (3,)},
    "2d same, even": {"kernel": (2, 3), "padding": "same", "dilation": (3, 1)},
    "2d strided": {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 0)},
    "2d groups": {"kernel": (3, 1), "groups": 2, "padding": ((1, 1), (0, 0)), "bias": False},
    "3d": {"kernel": (1, 2, 3), "padding": "valid"},
    "3d dilated": {"kernel": (2, 2, 2), "padding": 1, "dilation": 2},
}


@pytest.mark.parametrize("name", CONVS)
def test_pytorch_conv_round_trip(name, rng):
    layer = shaken(Conv(4, 6, **CONVS[name], **F64), rng)
    state, settings = interop.conv_to_pytorch(layer)
    back = interop.conv_from_pytorch(state, **settings)
    assert_equal(back.params, layer.params)
    x = rng.standard_normal((2, 4, 5, 6, 4)[: 2 + len(CONVS[name]["kernel"])])
    np.testing.assert_array_equal(back(x), layer(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": ((0, 1), (1, 1))}, "expected the same at both ends"),
        ({"padding": "same", "stride": 2}, "PyTorch has no strided 'same'"),
        ({"padding": "same_lower", "kernel": (2, 3)}, "'same' pads the other end more"),
        ({"kernel": ()}, "w has 0 spatial axes, expected 1 to 3"),
    ],
)
def test_pytorch_has_no_such_convolution(settings, message):
    with pytest.raises(ValueError, match=message):
        interop.conv_to_pytorch(Conv(2, 3, **{"kernel": (3, 3), **settings}))


def test_a_pytorch_convolution_with_same_padding_has_no_stride(rng):
    with pytest.raises(ValueError, match=r"stride is \(1, 2\) with padding='same', expected 1"):
        interop.conv_from_pytorch({"weight": np.zeros((2, 2, 3, 3))}, padding="same", stride=(1, 2))
