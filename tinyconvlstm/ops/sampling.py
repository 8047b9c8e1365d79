"""Sampling a frame between its pixels: linear along every spatial axis, so bilinear over two.

What warps a frame by a flow, and what lets the taps of a convolution leave their grid. Beyond the frame there
is zero: the value fades linearly from the border pixel to 0 one pixel outside, and stays 0.

Source: Jaderberg, Simonyan, Zisserman, Kavukcuoglu 2015, "Spatial transformer networks", arXiv 1506.02025,
equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import product
from math import prod
from operator import mul
from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from .windows import crop, pad


class SampleSaved(NamedTuple):
    """The arguments; the corners' pixels are gathered again in backward."""

    x: Array  # (N, C, *S)
    at: Array  # (N, r, *P)


class Corner(NamedTuple):
    """One of the 2^r pixels around every place."""

    sides: tuple[int, ...]  # on each axis: 0 for the pixel below, 1 for the one above
    index: Array  # (N, 1, P) where it lies in the padded frame, counted in row-major order
    factors: list[Array]  # on each axis: (N, P), 1 - a or a, where a is the way from the pixel below


def sample_forward(x: Array, at: Array) -> tuple[Array, SampleSaved]:
    """Read x at places between its pixels.

        low = floor(at);   a = at - low
        y[n, c, p] = sum_{s in {0, 1}^r}  prod_j (a_j if s_j else 1 - a_j) * x[n, c, low + s]

    with x = 0 outside the frame. At whole numbers it is x itself, exactly.

    Args:
        x: (N, C, *S) with r spatial axes.
        at: (N, r, *P), coordinates in pixels along each axis of S (rows, then columns), 0 being the centre
            of the first pixel; one set for all channels.
    Returns:
        y (N, C, *P) and what `sample_backward` needs.
    Raises:
        ValueError: the coordinates do not fit the frames.
    Source: Jaderberg et al. 2015, equation 5, the bilinear kernel.
    """
    xp = array_module(x=x, at=at)
    rank = x.ndim - 2
    if rank < 1 or at.ndim < 2 or at.shape[:2] != (x.shape[0], rank):
        raise ValueError(
            f"at.shape is {tuple(at.shape)} for x of shape {tuple(x.shape)}, expected (N, r, *P) with a "
            "coordinate for each of the r >= 1 spatial axes"
        )
    check_dtypes(x=x, at=at)
    pixels, rows = padded_pixels(x)
    y = xp.zeros((*x.shape[:2], prod(at.shape[2:])), dtype=xp.result_type(x, at))
    for _, index, factors in corners(at, x.shape[2:]):
        y += reduce(mul, factors)[:, None] * pixels.take(rows + index)
    return y.reshape(*x.shape[:2], *at.shape[2:]), SampleSaved(x, at)


def sample_backward(dy: Array, saved: SampleSaved) -> tuple[Array, Array]:
    """Gradients of `sample_forward`: y is linear in x, and in each coordinate by itself.

        dx[n, c, low + s] += weight_s * dy[n, c, p]                          every corner gets its share
        dat_j = sum_c dy * sum_s (1 if s_j else -1) * prod_{i != j} (a_i if s_i else 1 - a_i) * x[low + s]

    At a whole number the slope jumps; what is returned there is the slope towards larger coordinates.

    Args:
        dy: (N, C, *P).
        saved: from `sample_forward`.
    Returns:
        dx (N, C, *S), dat (N, r, *P).
    """
    x, at = saved
    xp, kind = array_module(dy=dy, x=x), array_module(dy).result_type(dy, x)
    pixels, rows = padded_pixels(x)
    dpixels = xp.zeros(pixels.shape, dtype=kind)
    dat = xp.zeros((*at.shape[:2], prod(at.shape[2:])), dtype=kind)
    dy = dy.reshape(*x.shape[:2], -1)  # (N, C, P)
    for sides, index, factors in corners(at, x.shape[2:]):
        where = rows + index  # (N, C, P)
        xp.add.at(dpixels, where.reshape(-1), (reduce(mul, factors)[:, None] * dy).reshape(-1))
        dweight = (dy * pixels.take(where)).sum(axis=1)  # (N, P)
        for axis, side in enumerate(sides):
            slope = reduce(mul, factors[:axis] + factors[axis + 1 :], dweight)
            dat[:, axis] += slope if side else -slope
    padded = tuple(n + 2 for n in x.shape[2:])
    return crop(dpixels.reshape(*x.shape[:2], *padded), ((1, 1),) * len(padded)), dat.reshape(at.shape)


def corners(at: Array, sizes: tuple[int, ...]) -> Iterator[Corner]:
    """The corners around places `at` (N, r, *P) in a frame of spatial `sizes`, padded by one pixel."""
    xp = array_module(at)
    at = at.reshape(*at.shape[:2], -1)
    low = xp.floor(at.real)
    above = at - low  # (N, r, P), from 0 to 1
    for sides in product((0, 1), repeat=len(sizes)):
        index: Array = 0
        for axis, (side, size) in enumerate(zip(sides, sizes, strict=True)):
            pixel = xp.clip(low[:, axis] + side, -1, size) + 1  # beyond the frame: its padding
            index = index * (size + 2) + xp.nan_to_num(pixel).astype(xp.int64)
        yield Corner(
            sides, index[:, None], [above[:, j] if s else 1 - above[:, j] for j, s in enumerate(sides)]
        )


def padded_pixels(x: Array) -> tuple[Array, Array]:
    """All pixels of x (N, C, *S) in a row, each frame with one of zero around it; and where frames begin, (N, C, 1)."""
    padded = pad(x, ((1, 1),) * (x.ndim - 2))
    N, C, *sizes = padded.shape
    return padded.reshape(-1), (array_module(x).arange(N * C) * prod(sizes)).reshape(N, C, 1)
