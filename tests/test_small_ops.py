"""Linear, embedding, dropout and patches; and the public names of ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend, to_numpy

from .oracles import DTYPES, assert_pair_agrees, random, run_pair, scattered

LINEAR = (ops.linear_forward, ops.linear_backward)
EMBEDDING = (ops.embedding_forward, ops.embedding_backward)
DROPOUT = (ops.dropout_forward, ops.dropout_backward)
FOLD = (ops.space_to_depth_forward, ops.space_to_depth_backward)
UNFOLD = (ops.depth_to_space_forward, ops.depth_to_space_backward)


def test_every_public_name_of_ops_exists() -> None:
    assert all(hasattr(ops, name) for name in ops.__all__)
    forwards = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    assert forwards == {name.removesuffix("_backward") for name in ops.__all__ if name.endswith("_backward")}


# --- linear ---


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_by_its_definition(backend: str, lead: tuple[int, ...], dtype: Any) -> None:
    x, w, b = random(1, (*lead, 4), dtype), random(2, (6, 4), dtype), random(3, (6,), dtype)
    y, dy, (dx, dw, db) = run_pair(LINEAR, x, w, b, backend=backend)
    expected: list[np.ndarray] = [
        np.zeros((*lead, 6), dtype),
        np.zeros_like(x),
        np.zeros_like(w),
        np.zeros_like(b),
    ]
    for n in np.ndindex(*lead):
        for f in range(6):
            expected[0][(*n, f)] = b[f] + sum(w[f, c] * x[(*n, c)] for c in range(4))
            expected[3][f] += dy[(*n, f)]
            for c in range(4):
                expected[1][(*n, c)] += dy[(*n, f)] * w[f, c]
                expected[2][f, c] += dy[(*n, f)] * x[(*n, c)]
    for got, wanted in zip([y, dx, dw, db], expected, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, atol=1e-5 if dtype == np.float32 else 1e-13)
    assert run_pair(LINEAR, x, w, backend=backend)[2][2] is None


def test_linear_takes_arrays_that_are_not_contiguous() -> None:
    arrays = random(1, (2, 3, 4)), random(2, (6, 4)), random(3, (6,))
    y, _, grads = run_pair(LINEAR, *arrays)
    y2, _, grads2 = run_pair(LINEAR, *map(scattered, arrays))
    for got, expected in zip([y2, *grads2], [y, *grads], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_linear_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"w.shape is \(4,\), expected \(F, C\)"):
        ops.linear_forward(np.zeros((2, 4)), np.zeros(4))
    with pytest.raises(ValueError, match=r"x.shape is \(2, 3\), expected \(..., 4\) \(w.shape == \(6, 4\)\)"):
        ops.linear_forward(np.zeros((2, 3)), np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"b.shape is \(4,\), expected \(6,\), one entry a row of w"):
        ops.linear_forward(np.zeros((2, 4)), np.zeros((6, 4)), np.zeros(4))
    with pytest.raises(TypeError, match="x is float32 and w is float64"):
        ops.linear_forward(np.zeros((2, 4), np.float32), np.zeros((6, 4)))


# --- embedding ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_looks_up_rows_and_adds_up_repeats(backend: str, dtype: Any) -> None:
    indices, w = np.array([[4, 0, 4], [1, 4, 0]]), random(1, (5, 3), dtype)
    y, dy, dw = run_pair(EMBEDDING, indices, w, backend=backend)
    expected = np.zeros_like(w)
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(y[place], w[indices[place]])
        expected[indices[place]] += dy[place]
    np.testing.assert_allclose(dw, expected, rtol=1e-6 if dtype == np.float32 else 1e-14)
    assert y.dtype == dw.dtype == dtype
    assert not dw[[2, 3]].any()


@pytest.mark.parametrize("wrong", [5, -1, 1000])
def test_embedding_refuses_indices_that_would_wrap(backend: str, wrong: int) -> None:
    indices, w = to_backend((np.array([0, wrong, 4]), random(1, (5, 3))), backend)
    with pytest.raises(ValueError, match=rf"indices hold {wrong}, expected integers from 0 to 4 \(w.shape"):
        ops.embedding_forward(indices, w)


def test_embedding_refuses_what_is_no_table_or_no_index() -> None:
    with pytest.raises(ValueError, match=r"w.shape is \(5,\), expected \(V, D\)"):
        ops.embedding_forward(np.array([0]), np.zeros(5))
    with pytest.raises(ValueError, match=r"indices have dtype float64, expected integers"):
        ops.embedding_forward(np.array([0.0]), np.zeros((5, 3)))
    assert ops.embedding_forward(np.zeros((0, 2), int), np.zeros((5, 3)))[0].shape == (0, 2, 3)


# --- dropout ---


def test_one_seed_gives_one_mask_in_every_dtype_and_place(backend: str) -> None:
    masks = [
        ops.dropout_mask(np.random.default_rng(3), (40, 30), 0.3, dtype, backend)
        for dtype in (np.float32, np.float64, np.complex128)
    ]
    for mask, dtype in zip(masks, (np.float32, np.float64, np.complex128), strict=True):
        assert mask.dtype == dtype
        np.testing.assert_allclose(to_numpy(mask), to_numpy(masks[1]), rtol=1e-6)
    other = ops.dropout_mask(np.random.default_rng(4), (40, 30), 0.3, np.float64, backend)
    assert not np.array_equal(to_numpy(other), to_numpy(masks[1]))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
def test_a_mask_drops_its_share_and_has_mean_one(rate: float) -> None:
    mask = ops.dropout_mask(np.random.default_rng(5), (400, 500), rate, np.float64)
    assert set(np.unique(mask)) <= {0.0, 1 / (1 - rate)}
    assert (mask == 0).mean() == pytest.approx(rate, abs=0.005)
    assert mask.mean() == pytest.approx(1, abs=0.02)


def test_dropout_multiplies_both_ways(backend: str) -> None:
    x = random(1, (3, 4, 5))
    mask = ops.dropout_mask(np.random.default_rng(6), (3, 4, 1), 0.4, np.float64)  # whole rows at once
    y, dy, dx = run_pair(DROPOUT, x, mask, backend=backend)
    np.testing.assert_array_equal(y, x * mask)
    np.testing.assert_array_equal(dx, dy * mask)
    assert 0 < (mask == 0).sum() < mask.size


def test_dropout_refuses_what_does_not_fit() -> None:
    for rate in (1.0, -0.1, float("nan")):
        with pytest.raises(
            ValueError, match=rf"rate is {rate}, expected a number from 0 up to but not including 1"
        ):
            ops.dropout_mask(np.random.default_rng(0), (2,), rate)
    with pytest.raises(
        ValueError, match=r"mask.shape is \(2, 3\), expected a shape that broadcasts to \(3,\)"
    ):
        ops.dropout_forward(np.zeros(3), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"mask.shape is \(3,\), expected a shape that broadcasts to \(1,\)"):
        ops.dropout_forward(np.zeros(1), np.ones(3))


# --- patches ---


@pytest.mark.parametrize(
    ("sizes", "patch"), [((), ()), ((6,), 3), ((4, 6), (2, 3)), ((4, 2, 6), (2, 1, 3)), ((3, 5), 1)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_patches_by_their_definition(backend: str, sizes: tuple[int, ...], patch: Any, dtype: Any) -> None:
    x = random(1, (2, 3, *sizes), dtype)
    steps = patch if isinstance(patch, tuple) else (patch,) * len(sizes)
    y, _, _ = run_pair(FOLD, x, backend=backend, patch=patch)
    taps = list(np.ndindex(*steps))
    assert y.shape == (2, 3 * len(taps), *(n // k for n, k in zip(sizes, steps, strict=True)))
    for n, c, *p in np.ndindex(*x.shape):
        place, tap = (
            zip(*(divmod(i, k) for i, k in zip(p, steps, strict=True)), strict=True) if p else ((), ())
        )
        assert y[(n, c * len(taps) + taps.index(tap), *place)] == x[(n, c, *p)]
    back, _, _ = run_pair(UNFOLD, y, backend=backend, patch=patch)
    np.testing.assert_array_equal(back, x)
    assert y.dtype == back.dtype == dtype


def test_each_patch_map_is_the_others_backward(backend: str) -> None:
    x, y = random(1, (2, 3, 4, 6)), random(2, (2, 18, 2, 2))
    _, dy, dx = run_pair(FOLD, x, backend=backend, patch=(2, 3))
    np.testing.assert_array_equal(dx, ops.depth_to_space_forward(dy, patch=(2, 3))[0])
    _, dx2, dy2 = run_pair(UNFOLD, y, backend=backend, patch=(2, 3))
    np.testing.assert_array_equal(dy2, ops.space_to_depth_forward(dx2, patch=(2, 3))[0])
    assert_pair_agrees(FOLD, scattered(x), backend=backend, patch=(2, 3))


def test_patches_refuse_what_does_not_divide() -> None:
    with pytest.raises(
        ValueError, match=r"x has spatial sizes \(4, 5\), expected multiples of the patch \(2, 2\)"
    ):
        ops.space_to_depth_forward(np.zeros((1, 1, 4, 5)), patch=2)
    with pytest.raises(ValueError, match=r"x has 6 channels, expected a multiple of prod\(patch\) = 4"):
        ops.depth_to_space_forward(np.zeros((1, 6, 2, 2)), patch=2)
    with pytest.raises(ValueError, match=r"patch is 0, expected at least 1"):
        ops.space_to_depth_forward(np.zeros((1, 1, 4, 5)), patch=0)
    for forward in (FOLD[0], UNFOLD[0]):
        with pytest.raises(ValueError, match=r"x.shape is \(4,\), expected \(N, C, \*S\)"):
            forward(np.zeros(4), patch=2)
