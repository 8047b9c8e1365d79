"""Weights read from Keras layers give Keras's outputs, and written ones load into layers built as told."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell
from tinyconvlstm.layers import Conv, Recurrent

pytest.importorskip("torch", reason="PyTorch, on which Keras runs here, is not installed: pip install torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Keras's own dependencies
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")

LIMITS = {"float64": 1e-12, "float32": 1e-6}
DTYPES = pytest.mark.parametrize("dtype", LIMITS)
N, T, C, F = 2, 4, 3, 5

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


def run(layer: Any, x: np.ndarray) -> np.ndarray:
    """What a Keras layer returns."""
    found: np.ndarray = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(x)))
    return found


def built(layer: Any, x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Build a Keras layer for x, and give it random weights, biases too."""
    run(layer, x)
    weights = [rng.uniform(-0.5, 0.5, w.shape).astype(x.dtype) for w in layer.get_weights()]
    layer.set_weights(weights)
    return weights


def close(found: np.ndarray, expected: np.ndarray, dtype: str, limit: float | None = None) -> None:
    limit = limit or LIMITS[dtype]
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


@DTYPES
@pytest.mark.parametrize("bias", [True, False])
def test_lstm(bias, dtype, rng):
    theirs = keras.layers.LSTM(F, return_sequences=True, use_bias=bias, dtype=dtype)
    x = drawn(rng, (N, T, C), dtype)
    weights = built(theirs, x, rng)
    cell = interop.lstm_from_keras(weights)
    ours = Recurrent(cell)(interop.time_first(x))
    close(interop.batch_first(ours), run(theirs, x), dtype)
    written = interop.lstm_to_keras(cell)
    for a, b in zip(written, weights, strict=False):
        np.testing.assert_array_equal(a, b)


@DTYPES
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gru(bias, reset_after, dtype, rng):
    theirs = keras.layers.GRU(F, return_sequences=True, use_bias=bias, reset_after=reset_after, dtype=dtype)
    x = drawn(rng, (N, T, C), dtype)
    weights = built(theirs, x, rng)
    cell = interop.gru_from_keras(weights, reset_after=reset_after)
    found = interop.batch_first(Recurrent(cell)(interop.time_first(x)))
    limit = None if reset_after else 1e-6  # on PyTorch, Keras's own products of float64 are made in float32
    close(found, run(theirs, x), dtype, limit)
    np.testing.assert_allclose(found, gru(x, weights, reset_after), rtol=LIMITS[dtype], atol=LIMITS[dtype])

    written, settings = interop.gru_to_keras(cell)
    other = keras.layers.GRU(F, return_sequences=True, dtype=dtype, **settings)
    built(other, x, rng)
    other.set_weights(written)
    close(run(other, x), run(theirs, x), dtype, limit)


def gru(x: np.ndarray, weights: list[np.ndarray], reset_after: bool) -> np.ndarray:
    """Keras's equations: update z, reset r, candidate hh; x is (N, T, C)."""
    kernel, recurrent, *biases = weights
    b = biases[0] if biases else np.zeros((2, 3 * F) if reset_after else 3 * F)
    b_x, b_h = b if reset_after else (b, 0 * b)
    h, ys = np.zeros((len(x), F)), []
    for t in range(x.shape[1]):
        x_z, x_r, x_h = np.split(x[:, t] @ kernel + b_x, 3, axis=1)
        h_z, h_r, h_h = np.split(h @ recurrent + b_h, 3, axis=1)
        z, r = 1 / (1 + np.exp(-x_z - h_z)), 1 / (1 + np.exp(-x_r - h_r))
        hh = np.tanh(x_h + (r * h_h if reset_after else (r * h) @ recurrent[:, 2 * F :]))
        h = z * h + (1 - z) * hh
        ys.append(h)
    return np.stack(ys, axis=1)


CELLS: dict[str, tuple[int, dict[str, Any]]] = {
    "1d": (1, {"kernel_size": 3, "padding": "same"}),
    "1d even, strided": (1, {"kernel_size": 4, "padding": "same", "strides": 3}),
    "2d": (2, {"kernel_size": (3, 5), "padding": "same", "use_bias": False}),
    "2d even, strided": (2, {"kernel_size": (2, 4), "padding": "same", "strides": (2, 1)}),
    "2d valid, even": (2, {"kernel_size": (2, 3)}),
    "2d dilated": (2, {"kernel_size": (2, 3), "padding": "same", "dilation_rate": (2, 3)}),
    "3d": (3, {"kernel_size": (1, 2, 3), "padding": "same", "strides": (1, 2, 2)}),
}


@DTYPES
@pytest.mark.parametrize("name", CELLS)
def test_convlstm(name, dtype, rng):
    rank, settings = CELLS[name]
    kind = getattr(keras.layers, f"ConvLSTM{rank}D")
    theirs = kind(F, return_sequences=True, dtype=dtype, **settings)
    x = drawn(rng, (N, T, *(7, 8, 5)[:rank], C), dtype)
    weights = built(theirs, x, rng)
    own = {k: v for k, v in settings.items() if k in ("strides", "padding", "dilation_rate")}
    cell = interop.convlstm_from_keras(weights, **own)
    expected = run(theirs, x)
    close(interop.batch_first(Recurrent(cell)(interop.time_first(x))), expected, dtype)

    written, back = interop.convlstm_to_keras(cell)
    other = kind(return_sequences=True, dtype=dtype, **back)
    built(other, x, rng)
    other.set_weights(written)
    close(run(other, x), expected, dtype)


CONVS: dict[str, tuple[int, dict[str, Any]]] = {
    "1d causal": (1, {"kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    "1d even, strided": (1, {"kernel_size": 4, "padding": "same", "strides": 3}),
    "2d": (2, {"kernel_size": (3, 2), "padding": "same", "dilation_rate": (1, 3)}),
    "2d strided": (2, {"kernel_size": (2, 5), "padding": "same", "strides": 2, "use_bias": False}),
    "2d groups": (2, {"kernel_size": 3, "groups": 2}),
    "3d": (3, {"kernel_size": (2, 3, 1), "padding": "same", "strides": (2, 1, 1)}),
}


@DTYPES
@pytest.mark.parametrize("name", CONVS)
def test_convolution(name, dtype, rng):
    rank, settings = CONVS[name]
    kind = getattr(keras.layers, f"Conv{rank}D")
    theirs = kind(6, dtype=dtype, **settings)
    x = drawn(rng, (N, *(7, 8, 5)[:rank], 4), dtype)
    weights = built(theirs, x, rng)
    own = {k: v for k, v in settings.items() if k in ("strides", "padding", "dilation_rate", "groups")}
    layer = interop.conv_from_keras(weights, **own)
    expected = run(theirs, x)
    close(np.moveaxis(layer(np.moveaxis(x, -1, 1).copy()), 1, -1), expected, dtype)

    written, back = interop.conv_to_keras(layer)
    other = kind(dtype=dtype, **back)
    built(other, x, rng)
    other.set_weights(written)
    close(run(other, x), expected, dtype)


def test_bidirectional_weights_come_one_direction_after_the_other(rng):
    inner = keras.layers.LSTM(F, return_sequences=True, dtype="float64")
    theirs = keras.layers.Bidirectional(inner, dtype="float64")
    x = drawn(rng, (N, T, C), "float64")
    weights = built(theirs, x, rng)
    forward, backward = (
        Recurrent(interop.lstm_from_keras(w), reverse=r)
        for w, r in ((weights[:3], False), (weights[3:], True))
    )
    xs = interop.time_first(x)
    close(interop.batch_first(np.concatenate([forward(xs), backward(xs)], axis=2)), run(theirs, x), "float64")


def test_counts_of_known_layers(rng):
    """ConvLSTM2D 64 -> 64, 64 -> 32, 32 -> 64 with kernel 3 have 295,168, 110,720 and 221,440 parameters."""
    for c, f, count in ((64, 64, 295_168), (64, 32, 110_720), (32, 64, 221_440)):
        theirs = keras.layers.ConvLSTM2D(f, 3, padding="same")
        theirs.build((1, 2, 4, 4, c))
        assert theirs.count_params() == count == ConvLSTMCell(c, f, (3, 3)).count
        assert interop.convlstm_from_keras(theirs.get_weights(), padding="same").count == count


def test_a_convolution_of_ours_in_keras(rng):
    layer = Conv(4, 6, (4, 3), stride=(3, 2), dtype=np.float64)
    weights, settings = interop.conv_to_keras(layer)
    theirs = keras.layers.Conv2D(dtype="float64", **settings)
    x = drawn(rng, (N, 7, 8, 4), "float64")
    built(theirs, x, rng)
    theirs.set_weights(weights)
    close(np.moveaxis(layer(np.moveaxis(x, -1, 1).copy()), 1, -1), run(theirs, x), "float64")
