"""Sliding windows over 0 to 3 spatial axes: where they lie.

`Window` is what a user chooses (kernel, stride, padding, dilation); `Geometry` is what follows from
it for an input of known size. What is done with the windows stands in `columns.py` (im2col and col2im)
and `pooling.py`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

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


def spans(geometry: Geometry) -> Sizes:
    """How many pixels of the padded input the windows cover together, on each axis."""
    return tuple(
        s * (n - 1) + d * (k - 1) + 1
        for k, s, d, n in zip(geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strict=True)
    )


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


def placed(strip: Geometry, where: tuple[slice, ...]) -> Geometry:
    """A strip that begins at `where` in a padded input, laid over the whole input: its padding may be negative."""
    begin = where[-1].start if where else 0
    if not begin:
        return strip
    (before, after), *others = strip.pads
    return strip._replace(pads=((before - begin, after), *others))


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
    shape, inner = frame(x.shape, pads)
    if shape == x.shape:
        return x
    xp = array_module(x)
    padded = xp.full(shape, fill, dtype=x.dtype) if fill else xp.zeros(shape, dtype=x.dtype)
    padded[inner] = x
    return padded


def crop(x: Array, pads: Pads) -> Array:
    """The view of x (N, C, *S) without its padding."""
    return x[inside(x.shape, pads)] if any(map(any, pads)) else x


@lru_cache(maxsize=1024)
def frame(shape: Sizes, pads: Pads) -> tuple[Sizes, tuple[Any, ...]]:
    """The shape of an x of `shape` (N, C, *S) with its padding around it, and where x lies in there."""
    sizes = (n + before + after for n, (before, after) in zip(shape[2:], pads, strict=True))
    around = (*shape[:2], *sizes)
    return around, inside(around, pads)


@lru_cache(maxsize=1024)
def inside(shape: Sizes, pads: Pads) -> tuple[Any, ...]:
    """Where an array of `shape` (N, C, *S) has no padding."""
    return (..., *(slice(before, n - after) for n, (before, after) in zip(shape[2:], pads, strict=True)))
