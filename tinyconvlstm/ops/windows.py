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
from math import prod
from typing import NamedTuple

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
    xp = array_module(x)
    x = pad(x, geometry.pads, fill)
    lead, steps = x.shape[:2], x.strides[2:]
    taps = tuple(d * step for d, step in zip(geometry.dilation, steps, strict=True))
    moves = tuple(s * step for s, step in zip(geometry.stride, steps, strict=True))
    windows = xp.lib.stride_tricks.as_strided(
        x, lead + geometry.kernel + geometry.out, x.strides[:2] + taps + moves
    )  # (N, C, *K, *S_out), a view: nothing copied yet
    return windows.reshape(lead[0], lead[1] * geometry.taps, geometry.positions)


def col2im(cols: Array, geometry: Geometry) -> Array:
    """Add every column back to the window it was copied from: the adjoint of `im2col`.

        x_padded[n, c, stride * p + dilation * k] += cols[n, (c, k), p]

    so that <im2col(x), cols> = <x, col2im(cols)> for all x and cols. One strided addition a tap:
    the same lines on CPU and GPU, and a fixed order of summation on both.

    Args:
        cols: (N, C * prod(K), prod(S_out)).
        geometry: that of the `im2col` call.
    Returns:
        (N, C, *S).
    """
    xp = array_module(cols)
    lead = (cols.shape[0], cols.shape[1] // geometry.taps)
    cols = cols.reshape(lead + geometry.kernel + geometry.out)
    padded = tuple(
        n + before + after for n, (before, after) in zip(geometry.sizes, geometry.pads, strict=True)
    )
    x = xp.zeros(lead + padded, dtype=cols.dtype)
    for tap, where in taps(geometry):
        x[(..., *where)] += cols[(slice(None), slice(None), *tap)]
    return crop(x, geometry.pads)


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
    padded = xp.full(x.shape[:2] + sizes, fill, dtype=x.dtype)
    crop(padded, pads)[...] = x
    return padded


def crop(x: Array, pads: Pads) -> Array:
    """The view of x (N, C, *S) without its padding."""
    inner = tuple(slice(before, n - after) for n, (before, after) in zip(x.shape[2:], pads, strict=True))
    return x[(..., *inner)]
