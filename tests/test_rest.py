"""A scan that begins at rest: zeros that maps skip, known without being read."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import (
    GRUCell,
    LSTMCell,
    ResetBeforeGRUCell,
    RNNCell,
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
    to_backend,
)
from tinyconvlstm.backend import map_arrays, to_numpy
from tinyconvlstm.cells import SeparableLSTMCell
from tinyconvlstm.cells.maps import at_rest, rest

from . import standin

READS = ("__bool__", "__float__", "__int__", "__complex__", "get", "item", "tolist", "tobytes")
CELLS = [RNNCell, LSTMCell, GRUCell, ResetBeforeGRUCell, SeparableLSTMCell]


def passes(cell: Any, xs: Any, state: Any = None) -> list[Any]:
    """Outputs and weight gradients of the three ways through time."""
    ys, _, tape = scan(cell, xs, state)
    found = [ys, scan_backward(cell, ys, None, tape)[::2]]
    found.append(scan_truncated_backward(cell, ys, None, tape, k1=1, k2=2)[::2])
    ys, _, kept = scan_checkpointed(cell, xs, state, every=2)
    return [*found, ys, scan_checkpointed_backward(cell, ys, None, kept)[::2]]


@pytest.mark.parametrize("kernel", [(), (3, 3)], ids=["dense", "convolutional"])
@pytest.mark.parametrize("build", CELLS)
def test_no_scan_reads_a_number_from_the_gpu(build, kernel, cupy_standin, monkeypatch, rng):
    cell = build(2, 3, kernel)
    xs = rng.standard_normal((4, 2, 2, *(5, 4)[: len(kernel)])).astype(np.float32)
    expected = passes(cell, xs)

    def refuse(self: Any, *args: Any) -> Any:
        raise AssertionError("a number was read from the GPU")

    cell, xs = cell.to_backend("cupy"), to_backend(xs, "cupy")
    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(standin.ndarray, name, refuse)
        found = passes(cell, xs)
    map_arrays(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), to_numpy(found), expected)


def test_rest_is_known_with_its_parts_and_nothing_else_is(backend):
    x = to_backend(np.ones((4, 3, 2), np.float32), backend)
    h = rest(x)
    assert (h.shape, h.dtype) == (x.shape, x.dtype)
    assert not to_numpy(h).any()
    assert all(at_rest(part) for part in (h, h[1:3], h[:, :1], h.reshape(4, 6), h.swapaxes(0, 1), h[0, 0]))
    assert not at_rest(rest(x[:1, :1, :1]))  # one number alone: nothing to save
    zero = 0 * x
    assert not any(at_rest(other) for other in (x, zero, zero[1:], zero[:1, :1, :1], h + 0, h.copy()))
    assert not at_rest(map_arrays(copy.deepcopy, h))  # not known, which costs time and no more


def test_a_users_own_repeated_zero_is_an_array_like_any_other(backend, rng):
    """As a first frame it counts in the bias's gradient, as a first state it has a gradient."""
    cell = GRUCell(2, 3, (3,), dtype=np.float64).to_backend(backend)
    zero = to_backend(np.zeros(()), backend)
    xp = __import__(backend)
    xs, h = xp.broadcast_to(zero, (3, 2, 2, 5)), xp.broadcast_to(zero, (2, 3, 5))
    state = cell.initial_state(xs[0])
    found, expected = [], []
    for into, frames, first in ((found, xs, state._replace(h=h)), (expected, xs.copy(), state)):
        ys, _, tape = scan(cell, frames, first)
        into += [ys, *scan_backward(cell, to_backend(np.ones((3, 2, 3, 5)), backend), None, tape)]
    map_arrays(np.testing.assert_array_equal, to_numpy(found), to_numpy(expected))
