"""On a real GPU: every kernel against the plain lines, in the same memory."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm import kernels, nonfinite
from tinyconvlstm.backend import to_numpy
from tinyconvlstm.ops import col2im, im2col
from tinyconvlstm.ops.gates import (
    LSTMState,
    gru_gates_backward,
    gru_gates_forward,
    lstm_gates_backward,
    lstm_gates_forward,
)

from .test_kernels import GEOMETRIES, close

pytestmark = pytest.mark.gpu


def both_ways(monkeypatch, function, *arrays):
    """What the kernels give, and what the plain lines give on the same GPU."""
    assert kernels.usable(*arrays)
    fast = to_numpy(function(*arrays))
    monkeypatch.setenv("TINYCONVLSTM_KERNELS", "0")
    assert not kernels.usable(*arrays)
    plain = to_numpy(function(*arrays))
    monkeypatch.delenv("TINYCONVLSTM_KERNELS")
    return zip(leaves(fast), leaves(plain), strict=True)


def leaves(tree):
    return [a for _, a in nonfinite.leaves(tree)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("peephole", [None, "channel", "map"])
@pytest.mark.parametrize("sizes", [(), (5,), (33, 47), (3, 5, 7)])
def test_gates_on_a_gpu(real_cupy, monkeypatch, rng, sizes, peephole, dtype):
    def normal(*shape):
        return real_cupy.asarray(rng.standard_normal(shape).astype(dtype))

    def lstm(z, c_prev, dh, dc, w_c=None):
        state, saved = lstm_gates_forward(z, c_prev, w_c)
        return [*state, *(g for g in lstm_gates_backward(LSTMState(dh, dc), saved) if g is not None)]

    def gru(z_x, z_h, h_prev, dh):
        h, saved = gru_gates_forward(z_x, z_h, h_prev)
        return [h, *gru_gates_backward(dh, saved)]

    states = [normal(5, 9, *sizes) for _ in range(3)]
    w_c = () if peephole is None else (normal(3, 9, *(sizes if peephole == "map" else ())),)
    for fast, plain in both_ways(monkeypatch, lstm, normal(5, 36, *sizes), *states, *w_c):
        close(fast, plain)
    thirds = [normal(5, 27, *sizes) for _ in range(2)]
    for fast, plain in both_ways(monkeypatch, gru, *thirds, *states[:2]):
        close(fast, plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("sizes", "window"), GEOMETRIES)
def test_columns_on_a_gpu(real_cupy, monkeypatch, rng, sizes, window, dtype):
    geometry = window.over(sizes)
    x = real_cupy.asarray(rng.standard_normal((5, 7, *sizes)).astype(dtype))
    cols = im2col(x, geometry)
    for fast, plain in both_ways(monkeypatch, lambda x: [im2col(x, geometry)], x):
        np.testing.assert_array_equal(fast, plain)
    for fast, plain in both_ways(monkeypatch, lambda cols: [col2im(cols, geometry)], cols):
        close(fast, plain)
    np.testing.assert_array_equal(to_numpy(col2im(cols, geometry)), to_numpy(col2im(cols, geometry)))
