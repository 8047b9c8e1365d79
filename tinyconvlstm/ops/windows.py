"""Sliding windows over 0 to 3 spatial axes: where they lie, and the copy that lines them up.

`Window` is what a user chooses (kernel, stride, padding, dilation); `Geometry` is what follows from
it for an input of known size. `im2col` copies every window into a column, so that a convolution
becomes a matrix product; `col2im` is its adjoint (its transpose as a linear map): it adds every
column back to where it came from.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from .. import kernels
from ..backend import Array, array_module

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
Padding = int | str | tuple[int | tuple[int, int], ...]

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower")


class Geometry(NamedTuple):
    """A window laid over an input of known size. Every field has one entry a spatial axis.

    out = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    """

    sizes: Sizes  # S: pixels of the input
    kernel: Sizes  # K: taps
    stride: Sizes  # pixels between neighbouring windows
    pads: Pads  # (before, after): pixels added at each end
    dilation: Sizes  # pixels between neighbouring taps
    out: Sizes  # S_out: number of windows

    @property
    def taps(self) -> int:
        """Number of taps of one window, the product of the kernel sizes."""
        return prod(self.kernel)

    @property
    def positions(self) -> int:
        """Number of windows, the product of the output sizes."""
        return prod(self.out)


@dataclass(frozen=True)
class Window:
    """Shape and step of a sliding window; a single number stands for every spatial axis.

    Args:
        kernel: taps per axis, an int or one int an axis.
        stride: step between windows, in pixels.
        padding: pixels added around the input: an int, one int an axis, one (before, after) pair an
            axis, or a name: "valid" (none); "same" = "same_upper" (out = ceil(size / stride), an odd
            pixel goes after the end); "same_lower" (the odd pixel goes before the start).
        dilation: pixels between neighbouring taps; 1 is the ordinary, dense kernel.
        ceil: keep a last window that hangs over the end (pooling's "ceil mode"), provided that it
            starts inside the input or in the padding before it.
    """

    kernel: int | Sizes
    stride: int | Sizes = 1
    padding: Padding = 0
    dilation: int | Sizes = 1
    ceil: bool = False

    def over(self, sizes: Sizes) -> Geometry:
        """Lay the window over an input with spatial `sizes`.

        Raises:
            ValueError: a setting has the wrong number of axes or a value out of range, or the
                kernel is larger than the padded input.
        """
        rank = len(sizes)
        kernel = per_axis(self.kernel, rank, "kernel")
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        pads = self._pads(sizes, span, stride)
        out = []
        for axis, (size, k, s, (before, after)) in enumerate(zip(sizes, span, stride, pads, strict=True)):
            room = size + before + after - k
            if room < 0:
                raise ValueError(
                    f"kernel is larger than the padded input on spatial axis {axis}: it spans {k} pixels "
                    f"(kernel {kernel[axis]}, dilation {dilation[axis]}), the input has {size} "
                    f"plus padding {before} + {after} = {size + before + after}"
                )
            n = room // s + 1
            if self.ceil and room % s and n * s < size + before:
                n += 1  # the window hangs over: widen the padding to hold it
                after += (n - 1) * s - room
                pads = (*pads[:axis], (before, after), *pads[axis + 1 :])
            out.append(n)
        return Geometry(tuple(sizes), kernel, stride, pads, dilation, tuple(out))

    def _pads(self, sizes: Sizes, span: Sizes, stride: Sizes) -> Pads:
        rank = len(sizes)
        if isinstance(self.padding, str):
            if self.padding not in PADDING_NAMES:
                raise ValueError(
                    f"padding is {self.padding!r}, expected one of {PADDING_NAMES}, ints or pairs"
                )
            if self.padding == "valid":
                return ((0, 0),) * rank
            totals = [
                max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, span, stride, strict=True)
            ]
            if self.padding == "same_lower":
                return tuple((t - t // 2, t // 2) for t in totals)
            return tuple((t // 2, t - t // 2) for t in totals)
        entries = self.padding if isinstance(self.padding, tuple | list) else (self.padding,) * rank
        if len(entries) != rank:
            raise ValueError(
                f"padding has {len(entries)} entries, expected one for each of {rank} spatial axes"
            )
        pads = []
        for entry in entries:
            pair = entry if isinstance(entry, tuple | list) else (entry, entry)
            if len(pair) != 2:
                raise ValueError(f"padding entry is {entry!r}, expected an int or a (before, after) pair")
            pads.append((as_int(pair[0], "padding", 0), as_int(pair[1], "padding", 0)))
        return tuple(pads)


def per_axis(value: int | Sizes, rank: int, name: str, smallest: int = 1) -> Sizes:
    """One int an axis from an int or a tuple; a ValueError that names the argument otherwise."""
    entries = tuple(value) if isinstance(value, tuple | list) else (value,) * rank
    if len(entries) != rank:
        raise ValueError(f"{name} is {value!r}, expected an int or one for each of {rank} spatial axes")
    return tuple(as_int(entry, name, smallest) for entry in entries)


def as_int(value: object, name: str, smallest: int = 1) -> int:
    """A Python int of at least `smallest`; a ValueError that names the argument otherwise."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} is {value!r}, expected an integer") from None
    if number < smallest:
        raise ValueError(f"{name} is {number}, expected at least {smallest}")
    return number


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
    steps = padded.strides[2:]
    taps = tuple(d * step for d, step in zip(geometry.dilation, steps, strict=True))
    moves = tuple(s * step for s, step in zip(geometry.stride, steps, strict=True))
    shape = padded.shape[:2] + geometry.kernel + geometry.out
    return strided(padded, shape, padded.strides[:2] + taps + moves)


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


def strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """A view of x with another shape and other strides, in bytes."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous and x.size:
        # a tenth of the time of `as_strided`, and an error where the view would leave x
        return np.ndarray(shape, x.dtype, x, 0, strides)
    view: Array = array_module(x).lib.stride_tricks.as_strided(x, shape, strides)
    return view


def spans(geometry: Geometry) -> Sizes:
    """How many pixels of the padded input the windows cover together, on each axis."""
    return tuple(
        s * (n - 1) + d * (k - 1) + 1
        for k, s, d, n in zip(geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strict=True)
    )


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


def padded_sizes(geometry: Geometry) -> Sizes:
    """Spatial sizes of the padded input."""
    return tuple(n + a + b for n, (a, b) in zip(geometry.sizes, geometry.pads, strict=True))


Strip = tuple[Geometry, tuple[slice, ...], slice]


@lru_cache(maxsize=256)
def strips(geometry: Geometry, rows: int) -> tuple[Strip, ...]:
    """Cut the windows into strips of so many rows of the first output axis.

    For every strip: its own geometry; the index of the part of a padded input (N, C, ...) that begins
    where the strip does; and its positions among all prod(S_out).
    """
    if not geometry.out:
        return ((geometry, (), slice(0, 1)),)
    first, *rest = geometry.out
    found = []
    for begin in range(0, first, rows):
        end = min(begin + rows, first)
        where = (slice(None), slice(None), slice(begin * geometry.stride[0], None))
        positions = slice(begin * prod(rest), end * prod(rest))
        found.append((geometry._replace(out=(end - begin, *rest)), where, positions))
    return tuple(found)


def taps(geometry: Geometry) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
    """For every tap k: k itself, and the slices of the padded input that it reads in all windows."""
    for tap in itertools.product(*map(range, geometry.kernel)):
        yield (
            tap,
            tuple(
                slice(d * k, d * k + s * (n - 1) + 1, s)
                for k, d, s, n in zip(tap, geometry.dilation, geometry.stride, geometry.out, strict=True)
            ),
        )


def pad(x: Array, pads: Pads, fill: float = 0.0) -> Array:
    """x (N, C, *S) with `fill` around it; x itself where there is nothing to add."""
    if not any(map(any, pads)):
        return x
    xp = array_module(x)
    sizes = tuple(n + before + after for n, (before, after) in zip(x.shape[2:], pads, strict=True))
    shape = x.shape[:2] + sizes
    padded = xp.full(shape, fill, dtype=x.dtype) if fill else xp.zeros(shape, dtype=x.dtype)
    crop(padded, pads)[...] = x
    return padded


def crop(x: Array, pads: Pads) -> Array:
    """The view of x (N, C, *S) without its padding."""
    if not any(map(any, pads)):
        return x
    inner = tuple(slice(before, n - after) for n, (before, after) in zip(x.shape[2:], pads, strict=True))
    return x[(..., *inner)]
