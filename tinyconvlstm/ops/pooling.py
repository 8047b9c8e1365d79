"""Pooling over 0 to 3 spatial axes: the largest or the mean pixel of every window.

Read `windows.py` first. Both loop over the taps of the window and work on all windows at once: the
slice that a tap reads in the forward pass is the slice it is added back to in the backward pass.
Nothing is scattered. Every channel of every sample is a plane of its own, and the planes are taken in
blocks that stay in the processor's cache, since every pixel is read several times.

Source: Riesenhuber & Poggio 1999 (max pooling); LeCun et al. 1998, section II (averages).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import inf, prod
from typing import Any, NamedTuple

from ..backend import Array, array_module, backend_name
from ..parallel import cuts, run_parts, shares
from .windows import Geometry, Pads, Sizes, Window, crop, pad, padded_sizes, taps

PASSES = 30  # multiply-accumulates that take as long as a pixel's pooling
# bytes of windows at a time: most stay in a processor's cache; enough for a GPU
BLOCK_BYTES = {"numpy": 4 << 20, "cupy": 256 << 20}


class MaxPoolSaved(NamedTuple):
    """Which tap won in every window, numbered as `taps` counts them, and where the windows lie."""

    winner: Array  # (N, C, *S_out)
    geometry: Geometry


class AvgPoolSaved(NamedTuple):
    """By how many pixels every window was divided, and where the windows lie."""

    divisor: Array  # (*S_out)
    geometry: Geometry


class GlobalMaxPoolSaved(NamedTuple):
    """Which pixel won, counted in row-major order, and the spatial sizes."""

    winner: Array  # (N, C)
    sizes: Sizes


class GlobalAvgPoolSaved(NamedTuple):
    """The spatial sizes."""

    sizes: Sizes


def max_pool_forward(x: Array, *, window: Window) -> tuple[Array, MaxPoolSaved]:
    """The largest pixel of every window.

        y[n, c, p] = max_k x[n, c, stride * p + dilation * k - before]

    The padding is minus infinity, so it never wins against a number. Among equal pixels the first, in
    row-major order of the window, wins. NaN wins against everything, so it is seen in y.

    Args:
        x: (N, C, *S).
        window: kernel, stride, padding, dilation, ceil.
    Returns:
        y (N, C, *S_out) and what `max_pool_backward` needs.
    Raises:
        ValueError: the window does not fit x, or one window would see padding only.
    """
    xp = array_module(x)
    geometry = check_pool(x, window)
    y = xp.empty(x.shape[:2] + geometry.out, dtype=x.dtype)
    winner = xp.empty(y.shape, dtype=xp.uint8 if geometry.taps <= 256 else xp.int32)

    def work(x: Array, best: Array, first: Array) -> None:
        padded = pad(x, geometry.pads, -inf)
        values = [padded[(..., *where)].copy() for _, where in taps(geometry)]  # a tap in all windows
        best[...] = values[0]
        for value in values[1:]:
            xp.maximum(best, value, out=best)  # NaN, once met, stays
        first[...] = 0
        lost: Array = True  # all taps so far; the winner's number is how often that holds
        for value in values[:-1]:
            lost = lost & (value != best) & (value == value)
            first += lost

    by_planes(geometry, work, x, y, winner)
    return y, MaxPoolSaved(winner, geometry)


def max_pool_backward(dy: Array, saved: MaxPoolSaved) -> Array:
    """dx (N, C, *S) from dy (N, C, *S_out): every winner gets the gradient of its window.

    dx[n, c, stride * p + dilation * k - before] += dy[n, c, p] where tap k won window p
    """
    winner, geometry = saved
    xp = array_module(dy=dy, winner=winner)
    dx = xp.empty(dy.shape[:2] + geometry.sizes, dtype=dy.dtype)

    def work(dx: Array, dy: Array, winner: Array) -> None:
        spread(dx, geometry, lambda number: kept(winner == number, dy))

    by_planes(geometry, work, dx, dy, winner)
    return dx


def avg_pool_forward(
    x: Array, *, window: Window, count_include_pad: bool = True
) -> tuple[Array, AvgPoolSaved]:
    """The mean pixel of every window.

        y[n, c, p] = sum_k x[n, c, stride * p + dilation * k - before] / divisor[p]

    Args:
        x: (N, C, *S).
        window: kernel, stride, padding, dilation, ceil.
        count_include_pad: whether the divisor counts the zeros of the padding. What hangs over the end
            in ceil mode never counts.
    Returns:
        y (N, C, *S_out) and what `avg_pool_backward` needs.
    Raises:
        ValueError: the window does not fit x, or one window would see padding only.
    """
    xp = array_module(x)
    geometry = check_pool(x, window)
    none: Pads = ((0, 0),) * len(geometry.sizes)
    counted = replace(window, ceil=False).over(geometry.sizes).pads if count_include_pad else none
    divisor = xp.asarray(1.0, dtype=x.real.dtype)
    for count in tap_counts(geometry, counted):  # the taps of a window that count, axis by axis
        divisor = divisor[..., None] * xp.asarray(count, dtype=x.real.dtype)
    y = xp.empty(x.shape[:2] + geometry.out, dtype=x.dtype)

    def work(x: Array, mean: Array) -> None:
        total = pad(x, geometry.pads)
        for axis in axes_of(geometry):  # a window's sum is the sum of its rows' sums
            first, *others = (total[where] for where in axis.taps)
            total = first + others.pop(0) if others else first
            for other in others:
                total += other
        xp.divide(total, divisor, out=mean)

    by_planes(geometry, work, x, y)
    return y, AvgPoolSaved(divisor, geometry)


def avg_pool_backward(dy: Array, saved: AvgPoolSaved) -> Array:
    """dx (N, C, *S) from dy (N, C, *S_out): every pixel of a window gets an equal share.

    dx[n, c, stride * p + dilation * k - before] += dy[n, c, p] / divisor[p] for every tap k
    """
    divisor, geometry = saved
    xp = array_module(dy=dy, divisor=divisor)
    dx = xp.empty(dy.shape[:2] + geometry.sizes, dtype=dy.dtype)

    def work(dx: Array, dy: Array) -> None:
        share = dy / divisor
        for axis in reversed(axes_of(geometry)):
            wide = xp.zeros((len(dy), 1, *axis.sizes), dtype=dy.dtype)
            for where in axis.taps:
                if axis.apart:
                    wide[where] = share
                else:
                    wide[where] += share
            share = wide
        dx[...] = crop(share, geometry.pads)

    by_planes(geometry, work, dx, dy)
    return dx


def global_max_pool_forward(x: Array) -> tuple[Array, GlobalMaxPoolSaved]:
    """y[n, c] = max_p x[n, c, p], from x (N, C, *S) to (N, C); the first pixel wins ties."""
    xp = array_module(x)
    flat, sizes = flatten(x)
    winner = flat.real.argmax(axis=2)
    y = xp.take_along_axis(flat, winner[..., None], axis=2)[..., 0]
    return y, GlobalMaxPoolSaved(winner, sizes)


def global_max_pool_backward(dy: Array, saved: GlobalMaxPoolSaved) -> Array:
    """dx (N, C, *S) from dy (N, C): the winner gets the gradient."""
    winner, sizes = saved
    xp = array_module(dy=dy, winner=winner)
    dx = xp.where(xp.arange(prod(sizes)) == winner[..., None], dy[..., None], 0)
    return dx.reshape(*dy.shape, *sizes)


def global_avg_pool_forward(x: Array) -> tuple[Array, GlobalAvgPoolSaved]:
    """y[n, c] = mean_p x[n, c, p], from x (N, C, *S) to (N, C)."""
    flat, sizes = flatten(x)
    return flat.mean(axis=2), GlobalAvgPoolSaved(sizes)


def global_avg_pool_backward(dy: Array, saved: GlobalAvgPoolSaved) -> Array:
    """dx (N, C, *S) from dy (N, C): every pixel gets an equal share."""
    sizes = saved.sizes
    share = (dy / prod(sizes)).reshape(*dy.shape, *(1,) * len(sizes))
    return share + array_module(dy).zeros(sizes, dtype=dy.dtype)


def by_planes(geometry: Geometry, work: Callable[..., None], *arrays: Array) -> None:
    """work(...) on blocks of planes, (P, 1, *S) each, of arrays (N, C, *S); a block's windows fill BLOCK_BYTES.

    The arrays to write to are contiguous, so that their blocks are views.
    """
    planes = [a.reshape(a.shape[0] * a.shape[1], 1, *a.shape[2:]) for a in arrays]
    plane = geometry.taps * geometry.positions * arrays[0].dtype.itemsize  # bytes
    size = max(1, BLOCK_BYTES[backend_name(arrays[0]) or "numpy"] // plane)

    def part(share: slice) -> None:
        for block in cuts(share, size):
            work(*(a[block] for a in planes))

    run_parts(part, shares(planes[0], PASSES * arrays[0].size))


def spread(dx: Array, geometry: Geometry, share: Callable[[int], Array]) -> None:
    """Write dx (P, 1, *S): a pixel that a window read as tap k gets that window's entry of share(k)."""
    bare = not any(map(any, geometry.pads))
    padded = dx if bare else array_module(dx).empty((*dx.shape[:2], *padded_sizes(geometry)), dtype=dx.dtype)
    padded[...] = 0
    apart = all(
        s > d * (k - 1) for k, s, d in zip(geometry.kernel, geometry.stride, geometry.dilation, strict=True)
    )
    for number, (_, where) in enumerate(taps(geometry)):
        if apart:  # no pixel is read twice, and writing takes half the time of adding
            padded[(..., *where)] = share(number)
        else:
            padded[(..., *where)] += share(number)
    if not bare:
        dx[...] = crop(padded, geometry.pads)


def kept(mask: Array, x: Array) -> Array:
    """x where the mask holds, exactly 0 elsewhere, also where x is infinite or NaN.

    A number's bits, read as an integer, times 1 or 0: that is four times as fast as NumPy's `where`.
    """
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        return array_module(x).where(mask, x, x.dtype.type(0))
    return (x.view(f"u{x.dtype.itemsize}") * mask).view(x.dtype)


def flatten(x: Array) -> tuple[Array, Sizes]:
    """x (N, C, *S) as (N, C, prod(S)), and S; a ValueError where there is no pixel."""
    if x.ndim < 2 or prod(x.shape[2:]) == 0:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S) with at least one pixel")
    return x.reshape(*x.shape[:2], -1), x.shape[2:]


class Axis(NamedTuple):
    """One axis of a window, those before it already summed up."""

    sizes: Sizes  # of what is summed
    taps: tuple[tuple[Any, ...], ...]  # where each tap reads
    apart: bool  # whether no pixel is read twice


@lru_cache(maxsize=64)
def axes_of(geometry: Geometry) -> tuple[Axis, ...]:
    """The sum over a window as sums along one axis after another: sum(K) additions in place of prod(K)."""
    found, sizes = [], list(padded_sizes(geometry))
    settings = zip(geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strict=True)
    for axis, (k, s, d, n) in enumerate(settings):
        behind = (slice(None),) * (len(sizes) - axis - 1)
        taps = tuple((..., slice(d * t, d * t + s * (n - 1) + 1, s), *behind) for t in range(k))
        found.append(Axis(tuple(sizes), taps, s > d * (k - 1)))
        sizes[axis] = n
    return tuple(found)


@lru_cache(maxsize=64)
def tap_counts(geometry: Geometry, pads: Pads) -> tuple[tuple[int, ...], ...]:
    """For every axis and every window on it: how many taps fall on the input or on these `pads` of it."""
    counts = []
    for size, kernel, stride, (before, _), dilation, out, (low, high) in zip(*geometry, pads, strict=True):
        starts = range(-before, stride * out - before, stride)
        reads = (range(start, start + dilation * kernel, dilation) for start in starts)
        counts.append(tuple(sum(-low <= pixel < size + high for pixel in read) for read in reads))
    return tuple(counts)


def check_pool(x: Array, window: Any) -> Geometry:
    """The geometry of a pooling, or a ValueError saying what does not fit."""
    if x.ndim < 2:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S)")
    geometry: Geometry = window.over(x.shape[2:])
    for axis, count in enumerate(tap_counts(geometry, ((0, 0),) * len(geometry.sizes))):
        if min(count) == 0:
            raise ValueError(
                f"padding {geometry.pads[axis]} on spatial axis {axis} is so wide that a window of "
                f"kernel {geometry.kernel[axis]} sees padding only"
            )
    return geometry
