"""Pooling against loops over every window; ties, NaN, divisors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.ops import (
    Window,
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
    max_pool_backward,
    max_pool_forward,
    pooling,
)

from .oracles import (
    DTYPES,
    Layout,
    assert_pair_agrees,
    layouts,
    naive_avg_pool,
    naive_max_pool,
    random,
    run_pair,
    scattered,
)

MAX = (max_pool_forward, max_pool_backward)
AVG = (avg_pool_forward, avg_pool_backward)
GLOBAL_MAX = (global_max_pool_forward, global_max_pool_backward)
GLOBAL_AVG = (global_avg_pool_forward, global_avg_pool_backward)


@settings(max_examples=240)
@given(layouts(pooling=True), st.sampled_from([np.float32, np.float64]))
def test_max_pool_is_its_definition_and_the_first_of_equals_wins(
    backend: str, layout: Layout, dtype: Any
) -> None:
    x = np.round(2 * random(1, layout.shape)).astype(dtype) - 5  # many ties; padding of 0 would win
    y, dy, dx = run_pair(MAX, x, backend=backend, window=layout.window)
    expected_y, expected_dx = naive_max_pool(x, dy, layout)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-6 if dtype == np.float32 else 1e-14)
    assert y.dtype == dx.dtype == dtype


@settings(max_examples=240)
@given(layouts(pooling=True), st.sampled_from(DTYPES), st.booleans())
def test_avg_pool_is_its_definition(backend: str, layout: Layout, dtype: Any, count: bool) -> None:
    x = random(1, layout.shape, dtype)
    y, _, _ = run_pair(AVG, x, backend=backend, window=layout.window, count_include_pad=count)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(y, naive_avg_pool(x, layout, count), atol=tolerance)
    assert y.dtype == dtype


@settings(max_examples=180)
@given(layouts(pooling=True), st.booleans())
def test_avg_pools_gradient_is_its_adjoint(backend: str, layout: Layout, count: bool) -> None:
    x, v = random(1, layout.shape), random(2, layout.shape)
    settings: Any = {"window": layout.window, "count_include_pad": count}
    _, dy, dx = run_pair(AVG, x, backend=backend, **settings)
    along = avg_pool_forward(v, **settings)[0]
    assert np.vdot(along, dy) == pytest.approx(np.vdot(v, dx), abs=1e-12)


@settings(max_examples=90)
@given(layouts(pooling=True))
def test_max_pool_works_axis_by_axis(layout: Layout) -> None:
    y = x = random(1, layout.shape)
    for axis in range(layout.rank):
        alone: list[Any] = [
            tuple(value[axis] if k == axis else default for k in range(layout.rank))
            for value, default in [
                (layout.kernel, 1),
                (layout.stride, 1),
                (layout.pads, 0),
                (layout.dilation, 1),
            ]
        ]
        y = max_pool_forward(y, window=Window(*alone, ceil=layout.ceil))[0]
    np.testing.assert_array_equal(y, max_pool_forward(x, window=layout.window)[0])


def test_the_first_pixel_in_row_major_order_gets_the_gradient(backend: str) -> None:
    x = np.array([[[[1.0, 7.0, 2.0], [7.0, 7.0, 7.0]]]])
    _, saved = max_pool_forward(to_backend(x, backend), window=Window((2, 3)))
    dx = to_numpy(max_pool_backward(to_backend(np.full((1, 1, 1, 1), 3.0), backend), saved))
    np.testing.assert_array_equal(dx, [[[[0, 3, 0], [0, 0, 0]]]])


def test_a_pixel_that_wins_twice_gets_both_gradients(backend: str) -> None:
    x, dy = np.array([[[1.0, 5.0, 2.0, 3.0]]]), np.array([[[2.0, 10.0, 100.0]]])
    _, saved = max_pool_forward(to_backend(x, backend), window=Window(2))
    np.testing.assert_array_equal(
        to_numpy(max_pool_backward(to_backend(dy, backend), saved)), [[[0, 12, 0, 100]]]
    )


def test_nan_is_seen(backend: str) -> None:
    x = np.array([[[1.0, 9.0, np.nan, 3.0, 2.0, 8.0]]])
    y, dy, dx = run_pair(MAX, x, backend=backend, window=Window(3, 3))
    np.testing.assert_array_equal(y, [[[np.nan, 8]]])
    np.testing.assert_array_equal(dx, [[[0, 0, dy[0, 0, 0], 0, 0, dy[0, 0, 1]]]])
    assert np.isnan(run_pair(AVG, x, backend=backend, window=Window(3, 3))[0][0, 0, 0])
    assert np.isnan(run_pair(GLOBAL_MAX, x, backend=backend)[0]).all()


def test_a_gradient_that_is_no_number_stays_with_its_winner(backend: str) -> None:
    x, dy = np.array([[[1.0, 9.0, 4.0, 3.0]]]), np.array([[[np.inf, np.nan]]])
    for dtype in DTYPES:
        _, saved = max_pool_forward(to_backend(x.astype(dtype), backend), window=Window(2, 2))
        dx = to_numpy(max_pool_backward(to_backend(dy.astype(dtype), backend), saved))
        np.testing.assert_array_equal(dx, [[[0, np.inf, np.nan, 0]]])


@pytest.mark.parametrize("pair", [MAX, AVG])
def test_planes_in_blocks_are_planes_at_once(pair: Any) -> None:
    x, window = random(1, (2, 5, 7, 6)), Window(3, 2, 1)
    whole = run_pair(pair, x, window=window)
    for planes in (1, 3):
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(pooling.BLOCK_BYTES, "numpy", planes * 9 * 4 * 3 * 8)
            found = run_pair(pair, x, window=window)
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_window_of_many_taps(backend: str) -> None:
    """More taps than a byte counts."""
    x, window = random(1, (2, 2, 300)), Window(290, 10)
    y, dy, dx = run_pair(MAX, x, backend=backend, window=window)
    layout = Layout(x.shape, (290,), (10,), (1,), ((0, 0),), ((0, 0),))
    for found, expected in zip((y, dx), naive_max_pool(x, dy, layout), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_minus_infinity_pixels_pass(backend: str) -> None:
    x = np.full((1, 1, 4), -np.inf)
    np.testing.assert_array_equal(
        run_pair(MAX, x, backend=backend, window=Window(2, 2))[0], [[[-np.inf] * 2]]
    )


def test_divisors_at_the_borders() -> None:
    """Kernel 3, stride 2, padding 1 over four ones, ceil: the last window hangs one pixel over."""
    x, window = np.ones((1, 1, 4)), Window(3, 2, 1, ceil=True)
    np.testing.assert_allclose(avg_pool_forward(x, window=window)[0], [[[2 / 3, 1, 1 / 2]]])
    without = avg_pool_forward(x, window=window, count_include_pad=False)[0]
    np.testing.assert_array_equal(without, np.ones((1, 1, 3)))


def test_complex_max_compares_the_real_part() -> None:
    x = np.array([[[1 + 9j, 2 - 3j, 0 + 1j]]])
    np.testing.assert_array_equal(max_pool_forward(x, window=Window(3))[0], [[[2 - 3j]]])
    np.testing.assert_array_equal(global_max_pool_forward(x)[0], [[2 - 3j]])


def test_every_backend_gives_numpys_numbers(backend: str) -> None:
    x, window = random(1, (2, 3, 7, 6)), Window((3, 2), (2, 3), (1, 0), ceil=True)
    assert_pair_agrees(MAX, x, backend=backend, window=window)
    assert_pair_agrees(AVG, x, backend=backend, window=window)
    assert_pair_agrees(GLOBAL_MAX, x, backend=backend)
    assert_pair_agrees(GLOBAL_AVG, x, backend=backend)


@pytest.mark.parametrize("sizes", [(), (5,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_global_pools(backend: str, sizes: tuple[int, ...], dtype: Any) -> None:
    x = np.round(2 * random(1, (2, 3, *sizes))).astype(dtype)
    axes = tuple(range(2, x.ndim))
    y, dy, dx = run_pair(GLOBAL_MAX, x, backend=backend)
    np.testing.assert_array_equal(y, x.max(axis=axes))
    for n, c in np.ndindex(2, 3):
        first = int(x[n, c].reshape(-1).argmax())
        expected = np.zeros(x[n, c].size)
        expected[first] = dy[n, c]
        np.testing.assert_array_equal(dx[n, c].reshape(-1), expected)
    assert y.dtype == dx.dtype == dtype
    y, dy, dx = run_pair(GLOBAL_AVG, x, backend=backend)
    np.testing.assert_allclose(y, x.mean(axis=axes), rtol=1e-6)
    expected_dx = np.broadcast_to(
        (dy / max(int(np.prod(sizes)), 1)).reshape(2, 3, *(1,) * len(sizes)), x.shape
    )
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-6)
    assert y.dtype == dx.dtype == dtype


def test_arrays_need_not_be_contiguous() -> None:
    x, window = random(1, (2, 3, 6, 5)), Window((3, 2), 2, 1)
    for pair, options in [
        (MAX, {"window": window}),
        (AVG, {"window": window}),
        (GLOBAL_MAX, {}),
        (GLOBAL_AVG, {}),
    ]:
        y, _, dx = run_pair(pair, x, **options)
        y2, _, dx2 = run_pair(pair, scattered(x), **options)
        np.testing.assert_allclose(y2, y, atol=1e-15)
        np.testing.assert_allclose(dx2, dx, atol=1e-15)


@pytest.mark.parametrize("forward", [max_pool_forward, avg_pool_forward])
def test_what_does_not_fit_is_refused(forward: Any) -> None:
    with pytest.raises(ValueError, match=r"x.shape is \(4,\), expected \(N, C, \*S\)"):
        forward(np.zeros(4), window=Window(2))
    with pytest.raises(ValueError, match="kernel is larger than the padded input on spatial axis 0"):
        forward(np.zeros((1, 1, 3)), window=Window(4))
    with pytest.raises(ValueError, match=r"padding \(2, 2\) on spatial axis 0 is so wide that a window"):
        forward(np.zeros((1, 1, 3)), window=Window(2, padding=2))


@pytest.mark.parametrize("forward", [global_max_pool_forward, global_avg_pool_forward])
def test_global_pools_need_a_pixel(forward: Any) -> None:
    with pytest.raises(ValueError, match=r"x.shape is \(2, 3, 0\), expected .* at least one pixel"):
        forward(np.zeros((2, 3, 0)))
