"""im2col and col2im: windows copied into the columns of a matrix, and added back to where they came from.

`im2col` copies every window into a column, so that a convolution becomes a matrix product; `col2im` is
its adjoint (its transpose as a linear map). Read `windows.py` first.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from ..backend import Array, array_module
from .windows import Geometry, Sizes, pad, spans


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
    x = array_module(cols).empty(lead + geometry.sizes, dtype=cols.dtype)
    add_columns(x, cols, geometry, fresh=True)
    return x


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


def add_columns(x: Array, cols: Array, geometry: Geometry, fresh: bool = False) -> None:
    """Add cols (N, C * prod(K), prod(S_out)) to where they were read in x (N, C, *S), which has no padding.

    What was read from the padding goes nowhere. A `fresh` x may hold anything: it is written, not added to. One
    axis after the other, which takes sum(K) strided additions where tap by tap takes prod(K); first the axis that
    makes cols shrink most:

        (N, C, K1, K2, n1, n2)  ->  (N, C, K2, S1, n2)  ->  (N, C, S1, S2)
    """
    if kernels.usable(x, cols):
        if fresh:
            x[...] = 0
        kernels.add_columns(x, cols, geometry)
        return
    sizes, read, axes = additions(geometry, fresh)
    cols = cols.reshape(x.shape[:2] + sizes)[read]
    for room, cleared, taps in axes:
        target = x if room is None else array_module(cols).empty(x.shape[:2] + room, dtype=cols.dtype)
        for rest in cleared:
            target[rest] = 0
        for where, tap, meets in taps:
            if meets:
                there = target[where]
                there += cols[tap]
            else:
                target[where] = cols[tap]
        cols = target


Index = tuple[Any, ...]


class Reach(NamedTuple):
    """What one tap of an axis reads of an x without padding."""

    tap: int
    pixels: slice
    windows: slice  # those in which it reads them


class Addition(NamedTuple):
    """How `add_columns` adds up one axis: that of its taps goes, and that of its windows becomes one of pixels."""

    room: Sizes | None  # sizes of the sum, behind (N, C); None where it is x itself
    cleared: list[Index]  # pixels that are written by no tap
    taps: list[tuple[Index, Index, bool]]  # (pixels, column, whether it meets what is already there)


@lru_cache(maxsize=256)
def additions(geometry: Geometry, fresh: bool) -> tuple[Sizes, Index, list[Addition]]:
    """What `add_columns` does: the sizes of cols behind (N, C), what is read of them, and axis by axis."""
    axes, reads = range(len(geometry.sizes)), reaches(geometry)
    # an axis of a single tap that fills x is read as it lies
    plain = [
        axis for axis in axes if len(reads[axis]) == geometry.kernel[axis] == 1 and not gaps(geometry, axis)
    ]
    left = [axis for axis in axes if axis not in plain]
    sizes = list(geometry.out)  # of windows; of pixels once the taps of an axis are added
    begin = (*(geometry.kernel[axis] for axis in left), *sizes)
    read = (
        *all_of(2 + len(left)),
        *(reads[axis][0].windows if axis in plain else slice(None) for axis in axes),
    )
    for axis in plain:
        sizes[axis] = geometry.sizes[axis]

    def shrinks(axis: int) -> float:
        return geometry.kernel[axis] * geometry.out[axis] / max(1, geometry.sizes[axis])

    found = []
    for axis in sorted(left, key=shrinks, reverse=True):
        lead = all_of(2 + left.index(axis))  # of cols: N, C and the taps of the axes before
        left.remove(axis)
        sizes[axis] = geometry.sizes[axis]
        there = all_of(2 + len(left) + axis)
        between = all_of(len(there) - len(lead))
        alone, rest = (writers(geometry, axis), gaps(geometry, axis)) if left or fresh else ([], [])
        found.append(
            Addition(
                (*(geometry.kernel[other] for other in left), *sizes) if left else None,
                [(*there, pixels) for pixels in rest],
                [
                    ((*there, reach.pixels), (*lead, reach.tap, *between, reach.windows), reach not in alone)
                    for reach in (*alone, *(reach for reach in reads[axis] if reach not in alone))
                ],
            )
        )
    if not found:
        found.append(Addition(None, [], [((...,), (...,), not fresh)]))
    return begin, read, found


@lru_cache(maxsize=256)
def reaches(geometry: Geometry) -> list[list[Reach]]:
    """For every axis: what its taps read. Those that read nothing but padding are left out."""
    found: list[list[Reach]] = []
    for size, (before, _), k, s, d, n in zip(
        geometry.sizes,
        geometry.pads,
        geometry.kernel,
        geometry.stride,
        geometry.dilation,
        geometry.out,
        strict=True,
    ):
        found.append([])
        for tap in range(k):
            first = d * tap - before  # the pixel in window 0; in window p it is s * p further on
            low, high = max(0, -(first // s)), min(n, (size - 1 - first) // s + 1)
            if low < high:
                pixels = slice(first + s * low, first + s * (high - 1) + 1, s)
                found[-1].append(Reach(tap, pixels, slice(low, high)))
    return found


def writers(geometry: Geometry, axis: int) -> list[Reach]:
    """Taps that never meet, which write where the others add: of those a stride apart, the one that reads most."""
    found: dict[int, Reach] = {}
    for reach in sorted(reaches(geometry)[axis], key=lambda reach: reach.windows.start - reach.windows.stop):
        found.setdefault(reach.pixels.start % geometry.stride[axis], reach)
    return list(found.values())


def gaps(geometry: Geometry, axis: int) -> list[slice]:
    """Pixels that the `writers` leave out."""
    written = np.zeros(geometry.sizes[axis] + 2, dtype=bool)  # with one more at both ends
    written[[0, -1]] = True
    for reach in writers(geometry, axis):
        written[1:-1][reach.pixels] = True
    edges = np.flatnonzero(np.diff(written)).tolist()
    return [slice(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]


def all_of(axes: int) -> tuple[slice, ...]:
    """An index that takes all of so many axes."""
    return (slice(None),) * axes
