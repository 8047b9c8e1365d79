"""Attention: its pairs against naive loops, and the identities that tie each to something known."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend

from . import oracles_attention as naive
from .oracles import DTYPES, assert_pair_agrees, random, run_pair

SOFTMAX = (ops.masked_softmax_forward, ops.masked_softmax_backward)
PEAK = (ops.peak_softmax_forward, ops.peak_softmax_backward)
ATTEND = (ops.attend_forward, ops.attend_backward)
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


def bad(message: str, kind: type[Exception] = ValueError) -> Any:
    return pytest.raises(kind, match=message)


def some_mask(shape: tuple[int, ...], axis: int, seed: int = 3) -> np.ndarray:
    """Random, with one place at least in every row along an axis."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) > 0.5
    mask.swapaxes(0, axis)[rng.integers(shape[axis])] = True
    return mask


# --- the pairs ---


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_masked_softmax_equals_naive_loops(axis, backend):
    x, mask = 3 * random(1, (4, 3, 5)), some_mask((4, 3, 5), axis)
    for given in (None, mask):
        y, _, _ = run_pair(SOFTMAX, x, backend=backend, mask=given, axis=axis)
        np.testing.assert_allclose(y, naive.masked_softmax(x, given, axis), **CLOSE)
        assert_pair_agrees(SOFTMAX, x, backend=backend, mask=given, axis=axis)


def test_what_is_masked_is_exactly_zero_and_never_read():
    x, mask = random(1, (4, 3)), some_mask((4, 3), 0)
    y, _, dx = run_pair(SOFTMAX, x, mask=mask, axis=0)
    assert not y[~mask].any()
    assert not dx[~mask].any()
    np.testing.assert_allclose(y.sum(axis=0), 1, rtol=1e-14)
    for worst in (np.nan, np.inf, 1e300):
        other, _, dother = run_pair(SOFTMAX, np.where(mask, x, worst), mask=mask, axis=0)
        np.testing.assert_array_equal(other, y)
        np.testing.assert_array_equal(dother, dx)


def test_a_masked_row_is_the_softmax_of_what_is_left():
    x = random(1, (2, 6))
    mask = np.array([True, False, True, True, False, True])
    y, dy, dx = run_pair(SOFTMAX, x, mask=mask)
    saved = ops.softmax_forward(x[:, mask])
    np.testing.assert_allclose(y[:, mask], saved[0], **CLOSE)
    np.testing.assert_allclose(dx[:, mask], ops.softmax_backward(dy[:, mask], saved[1]), **CLOSE)


def test_large_numbers_do_not_overflow():
    x = np.array([[1e4, 1e4 + 1, -1e4]])
    y, _ = ops.masked_softmax_forward(x, mask=np.array([True, True, True]))
    np.testing.assert_allclose(y, [[1 / (1 + np.e), np.e / (1 + np.e), 0]], rtol=1e-12)
    peak, _ = ops.peak_softmax_forward(x[:, None])
    np.testing.assert_allclose(peak, [[[np.exp(-1), 1, 0]]], rtol=1e-12)


def test_a_wholly_masked_row_is_refused(backend):
    mask = np.array([[True, False], [False, False], [False, False]])
    x = to_backend(np.ones((3, 2)), backend)
    with bad("mask leaves nothing in 2 rows along axis 1, expected at least one True in each"):
        ops.masked_softmax_forward(x, mask=to_backend(mask, backend))
    with bad("mask leaves nothing in 1 rows along axis 0"):
        ops.masked_softmax_forward(x, mask=to_backend(mask, backend), axis=0)
    with bad("mask has dtype float64, expected booleans"):
        ops.masked_softmax_forward(x, mask=x)


def test_a_wholly_masked_row_is_never_a_row_of_nan():
    y = None
    with np.errstate(invalid="ignore"), contextlib.suppress(ValueError):
        y, _ = ops.masked_softmax_forward(np.ones((2, 3)), mask=np.array([[True], [False]]))
    assert y is None


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 5), (2, 3, 4, 3)])
def test_peak_softmax_equals_naive_loops(shape, backend):
    x = 2 * random(1, shape)
    y, _, _ = run_pair(PEAK, x, backend=backend)
    np.testing.assert_allclose(y, naive.peak_softmax(x), **CLOSE)
    assert_pair_agrees(PEAK, x, backend=backend)


def test_peak_softmax_is_softmax_by_its_largest_value():
    x = random(1, (2, 3, 7))
    y, _ = ops.peak_softmax_forward(x)
    plain, _ = ops.softmax_forward(x, axis=2)
    np.testing.assert_allclose(y, plain / plain.max(axis=2, keepdims=True), **CLOSE)
    assert (y.max(axis=2) == 1).all()
    _, _, dx = run_pair(PEAK, x)
    np.testing.assert_allclose(dx.sum(axis=2), 0, atol=1e-14)  # a constant more in x changes nothing


@pytest.mark.parametrize("scale", [1.0, 3**-0.5])
def test_attend_equals_naive_loops(scale, backend):
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    for mask in (None, some_mask((2, 5, 4), 2), some_mask((1, 1, 4), 2)):
        y, _, _ = run_pair(ATTEND, q, k, v, backend=backend, scale=scale, mask=mask)
        np.testing.assert_allclose(y, naive.attend(q, k, v, scale, mask), **CLOSE)
        assert_pair_agrees(ATTEND, q, k, v, backend=backend, scale=scale, mask=mask)


def test_equal_scores_attend_to_the_mean():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    y, saved = ops.attend_forward(0 * q, k, v)
    np.testing.assert_allclose(y, np.broadcast_to(v.mean(axis=2, keepdims=True), y.shape), **CLOSE)
    np.testing.assert_allclose(saved.weights.y, 0.25, rtol=1e-15)


def test_one_place_to_look_at_is_copied():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    mask = np.arange(4) == 2
    y, dy, (dq, dk, dv) = run_pair(ATTEND, q, k, v, mask=mask)
    np.testing.assert_allclose(y, np.broadcast_to(v[:, :, 2:3], y.shape), **CLOSE)
    np.testing.assert_allclose(dv[:, :, 2], dy.sum(axis=2), **CLOSE)
    assert not dv[:, :, ~mask].any()
    np.testing.assert_allclose(dq, 0, atol=1e-15)
    np.testing.assert_allclose(dk, 0, atol=1e-15)


def test_permuting_the_places_looked_at_changes_nothing():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    order = [2, 0, 3, 1]
    y, _ = ops.attend_forward(q, k, v)
    np.testing.assert_allclose(ops.attend_forward(q, k[..., order], v[..., order])[0], y, **CLOSE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_stay(dtype, backend):
    q, k, v = (
        random(s, shape).astype(dtype) for s, shape in ((1, (2, 3, 5)), (2, (2, 3, 4)), (3, (2, 6, 4)))
    )
    mask = np.arange(4) < 3
    for pair, arrays, settings in (
        (ATTEND, (q, k, v), {"scale": 3**-0.5, "mask": mask}),
        (PEAK, (q,), {}),
        (SOFTMAX, (k,), {"mask": mask, "axis": 2}),
    ):
        y, _, grads = run_pair(pair, *arrays, backend=backend, **settings)
        assert y.dtype == dtype
        assert all(g.dtype == dtype for g in (grads if isinstance(grads, tuple) else (grads,)))


def test_shapes_that_do_not_fit_are_refused():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    for wrong in ((q[:, :2], k, v), (q, k, v[..., 1:]), (q[0], k, v), (q[:1], k, v)):
        with bad(r"expected \(N, D, P\), \(N, D, R\) and \(N, E, R\)"):
            ops.attend_forward(*wrong)
    with bad("dtypes differ", TypeError):
        ops.attend_forward(q.astype(np.float32), k, v)
