"""im2col and col2im: windows copied into the columns of a matrix, and added back to where they came from.

`im2col` copies every window into a column, so that a convolution becomes a matrix product; `col2im` is
its adjoint (its transpose as a linear map). Read `windows.py` first.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from .. import kernels
from ..backend import Array, array_module
from .windows import Geometry, Sizes, crop, pad, padded_sizes, spans


def im2col(x: Array, geometry: Geometry, *, fill: float = 0.0) -> Array:
    """Copy every window of x into a column.

        cols[n, (c, k), p] = x_padded[n, c, stride * p + dilation * k]      k in *K, p in *S_out

    Args:
        x: (N, C, *S).
        geometry: `Window(...).over(S)`.
        fill: value of the padding.
    Returns:
        (N, C * prod(K), prod(S_out)), columns in row-major order of the windows. A kernel of one tap
        at stride 1 without padding copies nothing and returns a view.
    """
    return columns(pad(x, geometry.pads, fill), geometry)


def col2im(cols: Array, geometry: Geometry) -> Array:
    """Add every column back to the window it was copied from: the adjoint of `im2col`.

        x_padded[n, c, stride * p + dilation * k] += cols[n, (c, k), p]

    so that <im2col(x), cols> = <x, col2im(cols)> for all x and cols. Strided additions, one axis after
    the other, in a fixed order.

    Args:
        cols: (N, C * prod(K), prod(S_out)).
        geometry: that of the `im2col` call.
    Returns:
        (N, C, *S).
    """
    lead = (cols.shape[0], cols.shape[1] // geometry.taps)
    x = array_module(cols).zeros(lead + padded_sizes(geometry), dtype=cols.dtype)
    add_columns(x, cols, geometry)
    return crop(x, geometry.pads)


def columns(padded: Array, geometry: Geometry) -> Array:
    """(N, C * prod(K), prod(S_out)): every window of a padded x (N, C, ...), copied into a column."""
    if kernels.usable(padded):
        return kernels.im2col(padded, geometry)
    return patches(padded, geometry).reshape(len(padded), padded.shape[1] * geometry.taps, geometry.positions)


def windows(padded: Array, geometry: Geometry) -> Array:
    """The windows of a padded x (N, C, ...) as a view (N, C, *K, *S_out): nothing is copied yet."""
    return strided(padded, *as_windows(padded.shape, padded.strides, geometry))


@lru_cache(maxsize=1024)
def as_windows(shape: Sizes, strides: Sizes, geometry: Geometry) -> tuple[Sizes, Sizes]:
    """Shape and strides of the `windows` of an array (N, C, ...) of `shape` and `strides`."""
    taps = tuple(d * step for d, step in zip(geometry.dilation, strides[2:], strict=True))
    moves = tuple(s * step for s, step in zip(geometry.stride, strides[2:], strict=True))
    return shape[:2] + geometry.kernel + geometry.out, strides[:2] + taps + moves


def patches(padded: Array, geometry: Geometry) -> Array:
    """`windows`, laid out so that they are copied in long runs.

    With several axes, the taps of the last one are copied out first, (N, C, K_last, ..., n_last). Of the
    other axes' windows, the rows then follow one another without a gap.
    """
    rank, (n, c) = len(geometry.kernel), padded.shape[:2]
    if rank < 2 or geometry.kernel[-1] == 1:
        return windows(padded, geometry)
    *kernel, k = geometry.kernel
    *out, width = geometry.out
    *heights, _ = spans(geometry)
    batch, channel, *rows, step = padded.strides
    tap, move = geometry.dilation[-1] * step, geometry.stride[-1] * step
    wide = strided(padded, (n, c, k, *heights, width), (batch, channel, tap, *rows, move)).copy()
    batch, channel, tap, *rows, step = wide.strides
    taps = [d * row for d, row in zip(geometry.dilation, rows, strict=False)]
    moves = [s * row for s, row in zip(geometry.stride, rows, strict=False)]
    return strided(wide, (n, c, *kernel, k, *out, width), (batch, channel, *taps, tap, *moves, step))


def copied_first(geometry: Geometry, samples: int = 1) -> int:
    """Numbers of a sample's channel that `patches` copies, where a view of them will not do for the columns."""
    alone = samples == 1 and spans(geometry)[:-1] == geometry.out[:-1]
    if geometry.kernel[-1] == 1 or len(geometry.kernel) < 2 or alone:
        return 0
    return geometry.kernel[-1] * prod(spans(geometry)[:-1]) * geometry.out[-1]


def strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """A view of x with another shape and other strides, in bytes."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous and x.size:
        # a tenth of the time of `as_strided`, and an error where the view would leave x
        return np.ndarray(shape, x.dtype, x, 0, strides)
    view: Array = array_module(x).lib.stride_tricks.as_strided(x, shape, strides)
    return view


def add_columns(padded: Array, cols: Array, geometry: Geometry) -> None:
    """Add cols (N, C * prod(K), prod(S_out)) to where they were read in a padded x (N, C, ...).

    One axis after the other, which takes sum(K) strided additions where tap by tap takes prod(K); first
    the axis that makes cols shrink most:

        (N, C, K1, K2, n1, n2)  ->  (N, C, K2, p1, n2)  ->  (N, C, p1, p2)
    """
    if kernels.usable(padded, cols):
        kernels.add_columns(padded, cols, geometry, spans(geometry))
        return
    sizes, covered, axes = additions(geometry)
    cols = cols.reshape(padded.shape[:2] + sizes)
    for room, rest, taps in axes:
        if room is None:
            target = padded[covered]
        else:
            target = array_module(cols).empty(padded.shape[:2] + room, dtype=cols.dtype)
            target[rest] = 0
        for where, tap, meets in taps:
            if meets:
                there = target[where]
                there += cols[tap]
            else:
                target[where] = cols[tap]
        cols = target


Index = tuple[slice | int, ...]


class Addition(NamedTuple):
    """How `add_columns` adds up one axis: that of its taps goes, and that of its windows becomes one of pixels."""

    room: Sizes | None  # sizes of the sum, behind (N, C); None where it is x itself
    rest: Index | None  # what no tap writes
    taps: tuple[tuple[Index, Index, bool], ...]  # (pixels, column, whether it meets what is already there)


@lru_cache(maxsize=256)
def additions(geometry: Geometry) -> tuple[Sizes, Index, tuple[Addition, ...]]:
    """What `add_columns` does: the sizes of cols behind (N, C), the pixels of x that are covered, and axis by axis."""
    pixels = spans(geometry)
    shrink = [k * n / p for k, n, p in zip(geometry.kernel, geometry.out, pixels, strict=True)]
    left = [
        axis
        for axis, (k, s) in enumerate(zip(geometry.kernel, geometry.stride, strict=True))
        if (k, s) != (1, 1)
    ]
    whole, sizes, axes = (slice(None), slice(None)), list(geometry.out), []  # sizes: p or n of every axis
    begin = (*(geometry.kernel[axis] for axis in left), *sizes)
    for axis in sorted(left, key=lambda axis: -shrink[axis]):
        k, s, d, n = (f[axis] for f in (geometry.kernel, geometry.stride, geometry.dilation, geometry.out))
        column = (*whole, *(slice(None),) * left.index(axis))
        left.remove(axis)
        sizes[axis] = pixels[axis]
        before = (*whole, *(slice(None),) * (len(left) + axis))
        room, rest, apart = None, None, 0  # `apart` taps, of which no two meet, write; the others add
        if left:
            room = (*(geometry.kernel[other] for other in left), *sizes)
            apart = min(k, s) if 1 in (s, d) else 0
            rest = (*before, slice(s * n if apart == s else 0, None))
        axes.append(
            Addition(
                room,
                rest,
                tuple(
                    ((*before, slice(d * tap, d * tap + s * (n - 1) + 1, s)), (*column, tap), tap >= apart)
                    for tap in range(k)
                ),
            )
        )
    if not axes:  # a single tap: cols lie as x does
        axes.append(Addition(None, None, ((whole, whole, True),)))
    return begin, (*whole, *map(slice, pixels)), tuple(axes)
