"""Windows: sizes, paddings, im2col against its index definition, col2im as its adjoint."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconvlstm.backend import array_module, to_backend, to_numpy
from tinyconvlstm.ops import Window, col2im, columns, im2col
from tinyconvlstm.ops.windows import pad, taps

from .oracles import DTYPES, Layout, layouts, naive_im2col, random, scattered


@settings(max_examples=300)
@given(layouts(), st.sampled_from(DTYPES), st.sampled_from([0.0, -1.5]))
def test_im2col_is_its_index_definition(backend: str, layout: Layout, dtype: Any, fill: float) -> None:
    x = random(1, layout.shape, dtype)
    geometry = layout.window.over(layout.shape[2:])
    assert geometry.out == layout.out
    assert geometry.pads == layout.pads
    cols = to_numpy(im2col(to_backend(x, backend), geometry, fill=fill))
    expected = naive_im2col(x, layout, fill)
    np.testing.assert_array_equal(cols, expected.reshape(cols.shape))
    assert cols.dtype == dtype


@settings(max_examples=300)
@given(layouts(), st.sampled_from([np.float64, np.complex128]))
def test_col2im_is_the_adjoint(backend: str, layout: Layout, dtype: Any) -> None:
    geometry = layout.window.over(layout.shape[2:])
    x = random(2, layout.shape, dtype)
    cols = random(3, (x.shape[0], x.shape[1] * geometry.taps, geometry.positions), dtype)
    unfolded = to_numpy(im2col(to_backend(x, backend), geometry))
    folded = to_numpy(col2im(to_backend(cols, backend), geometry))
    assert folded.shape == x.shape
    assert folded.dtype == dtype
    assert np.vdot(unfolded, cols) == pytest.approx(np.vdot(x, folded), abs=1e-11)


@settings(max_examples=160)
@given(layouts(pooling=True))
def test_ceil_mode_keeps_the_window_that_hangs_over(layout: Layout) -> None:
    geometry = layout.window.over(layout.shape[2:])
    assert geometry.out == layout.out
    axes = zip(geometry.sizes, geometry.kernel, geometry.stride, geometry.dilation, strict=True)
    for (size, k, s, d), out, (before, after) in zip(axes, geometry.out, geometry.pads, strict=True):
        last = s * (out - 1) - before
        assert last + d * (k - 1) < size + after  # the padding holds all windows
        assert out == 1 or last < size


def test_ceil_mode_drops_a_window_that_starts_in_the_padding_after_the_input() -> None:
    assert Window(2, 3, 1, ceil=True).over((5,)).out == (2,)  # a third would start at pixel 5
    assert Window(2, 3, 1, ceil=True).over((6,)).out == (3,)
    assert Window(2, 3, 1).over((6,)).out == (3,)
    assert Window(3, 2, ceil=True).over((6,)).out == (3,)
    assert Window(3, 2).over((6,)).out == (2,)


@settings(max_examples=100)
@given(layouts())
def test_arrays_need_not_be_contiguous(layout: Layout) -> None:
    geometry = layout.window.over(layout.shape[2:])
    x = random(4, layout.shape)
    cols = im2col(x, geometry)
    np.testing.assert_array_equal(im2col(scattered(x), geometry), cols)
    np.testing.assert_array_equal(col2im(scattered(cols), geometry), col2im(cols, geometry))


@settings(max_examples=100)
@given(layouts())
def test_taps_read_the_rows_of_im2col(layout: Layout) -> None:
    geometry = layout.window.over(layout.shape[2:])
    x = random(5, layout.shape)
    cols = im2col(x, geometry).reshape(*x.shape[:2], *geometry.kernel, *geometry.out)
    padded = pad(x, geometry.pads)
    seen = [tap for tap, _ in taps(geometry)]
    assert seen == layout.taps()
    for tap, where in taps(geometry):
        np.testing.assert_array_equal(padded[(..., *where)], cols[(slice(None), slice(None), *tap)])


def test_arguments_are_not_changed(backend: str) -> None:
    geometry = Window(3, 2, 1).over((5, 4))
    x, cols = random(6, (2, 3, 5, 4)), random(7, (2, 27, 6))
    x_there, cols_there = to_backend((x.copy(), cols.copy()), backend)
    im2col(x_there, geometry)
    col2im(cols_there, geometry)
    np.testing.assert_array_equal(to_numpy(x_there), x)
    np.testing.assert_array_equal(to_numpy(cols_there), cols)


def test_a_single_tap_copies_nothing() -> None:
    x = random(8, (2, 3, 4, 5))
    assert np.shares_memory(im2col(x, Window((1, 1)).over((4, 5))), x)
    assert not np.shares_memory(im2col(x, Window((2, 1)).over((4, 5))), x)


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "dilation", "pads", "out"),
    [
        ("same", 3, 1, 1, (1, 1), 7),
        ("same", 2, 1, 1, (0, 1), 7),
        ("same_upper", 4, 1, 1, (1, 2), 7),
        ("same_lower", 4, 1, 1, (2, 1), 7),
        ("same", 2, 1, 2, (1, 1), 7),
        ("same", 3, 2, 1, (1, 1), 4),
        ("same", 2, 2, 1, (0, 1), 4),
        ("same", 1, 3, 1, (0, 0), 3),
        ("valid", 3, 2, 1, (0, 0), 3),
    ],
)
def test_named_paddings_of_seven_pixels(
    name: str, kernel: int, stride: int, dilation: int, pads: tuple[int, int], out: int
) -> None:
    geometry = Window(kernel, stride, name, dilation).over((7,))
    assert (geometry.pads, geometry.out) == ((pads,), (out,))


@pytest.mark.parametrize(
    ("window", "sizes", "message"),
    [
        (Window(3), (2,), r"kernel is larger than the padded input on spatial axis 0: it spans 3 pixels"),
        (Window((1, 3), dilation=2), (9, 4), r"spatial axis 1: it spans 5 pixels \(kernel 3, dilation 2\)"),
        (Window((3, 3)), (9,), r"kernel is \(3, 3\), expected an int or one for each of 1 spatial axes"),
        (Window(3, (1, 2, 1)), (9, 9), r"stride is \(1, 2, 1\), expected an int or one for each of 2"),
        (Window(3, 0), (9,), r"stride is 0, expected at least 1"),
        (Window(0), (9,), r"kernel is 0, expected at least 1"),
        (Window(3, dilation=1.5), (9,), r"dilation is 1.5, expected an integer"),  # type: ignore[arg-type]
        (Window(3, padding=-1), (9,), r"padding is -1, expected at least 0"),
        (Window(3, padding=(1, 2)), (9,), r"padding has 2 entries, expected one for each of 1 spatial axes"),
        (Window(3, padding=((1, 2, 3),)), (9,), r"padding entry is \(1, 2, 3\), expected an int or a"),  # type: ignore[arg-type]
        (Window(3, padding="full"), (9,), r"padding is 'full', expected one of \('valid', 'same'"),
    ],
)
def test_bad_windows_are_refused(window: Window, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window.over(sizes)


def test_col2im_clears_what_it_does_not_write() -> None:
    """Kernels narrower and wider than the stride, dilated or not, in room that holds anything but zeros."""

    class Soiled:
        def __getattr__(self, name: str) -> Any:
            return getattr(array_module(np.zeros(0)), name)

        def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            return np.full(shape, np.nan, dtype)

    for kernel, stride, dilation in itertools.product((1, 2, 3, 5), (1, 2, 3, 4), (1, 2, 3)):
        geometry = Window((kernel, 2), (stride, 3), padding=1, dilation=(dilation, 1)).over((13, 4))
        x = random(1, (2, 3, 13, 4))
        cols = im2col(x, geometry)
        other = random(2, cols.shape)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(columns, "array_module", lambda *_: Soiled())
            back = col2im(other, geometry)
        assert np.vdot(cols, other) == pytest.approx(np.vdot(x, back), abs=1e-10)


def test_taps_that_fill_x_leave_nothing_to_clear() -> None:
    """A "same" kernel's middle tap reads all of x: the others are added to it, and no zeros are written first."""
    for kernel, stride in ((3, 1), (5, 1), (3, 2), (4, 3)):
        geometry = Window(kernel, stride, "same").over((12,))
        ((_, cleared, taps),) = columns.additions(geometry, True)[2]
        assert not cleared
        assert [meets for *_, meets in taps] == [False] * stride + [True] * (kernel - stride)


def test_col2im_of_an_axis_with_one_tap_and_padding() -> None:
    geometry = Window((1, 2), padding=((1, 2), 0)).over((3, 4))
    x, cols = random(1, (2, 3, 3, 4)), random(2, (2, 6, geometry.positions))
    assert np.vdot(im2col(x, geometry), cols) == pytest.approx(np.vdot(x, col2im(cols, geometry)), abs=1e-12)


def test_columns_are_added_to_what_is_there() -> None:
    geometry = Window(3, 2, 1).over((5, 4))
    cols, x = random(1, (2, 27, 6)), random(2, (2, 3, 5, 4))
    there = x.copy()
    columns.add_columns(there, cols, geometry)
    np.testing.assert_allclose(there, x + col2im(cols, geometry), rtol=1e-14)
