"""Convolution whose patches share their rows: windows that overlap in memory instead of being copied.

im2col copies every pixel prod(K) times. Unfold all axes but the first, and give each row of the image a block
of what was unfolded:

    blocks[h, (c, k'), p'] = x[c, h, stride * p' + dilation * k']      k', p': taps and windows of the other axes

The patches of output row p are then the blocks p * stride, ..., p * stride + K_1 - 1: one matrix of K_1 C prod(K')
rows that lies in memory as it is, and the next row's begins `stride` blocks further on. What is copied shrinks
by K_1. The price is a product for every row of the output, with as many columns as that row has positions.

The gradient of w needs no further copy either. With the rows beside each other,

    beside[(c, k'), n, h, p']

the patches of tap k_1 of the first axis are those of tap 0, read k_1 rows later, for all samples at once: dy gets
rows of zeros where one sample's rows meet the next one's.

Source: Cho & Brand 2017, "MEC: memory-efficient convolution for deep neural network", arXiv 1706.06873, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod

from ..backend import Array, array_module
from .columns import copied_first, patches, strided, windows
from .lowering import Im2col, frames_of
from .products import LARGEST, cost, divisors, dots, small_kernels, terms_at_once
from .windows import Geometry, Sizes, spans

NARROW = 16  # positions of a row below which products of its own are slow
MANY = 128  # features beyond which the products are nearly all of the time


class Overlapping(Im2col):
    """Im2col with the first axis left folded: `lowering.Lowering` tells what the methods do.

    R = K_1 * C / groups * prod(K')        B = groups

    col2im adds whole columns, so that im2col itself goes back to x.
    """

    def __init__(self, geometry: Geometry, w_shape: Sizes, groups: int = 1) -> None:
        super().__init__(geometry, w_shape, groups)
        self.back, rank = Im2col(geometry, w_shape, groups), len(geometry.kernel)
        # axes of `unfolded` (n, G, C / G, *K', h, *out') as blocks hold them: (n, G, h, C / G, *K', *out')
        self.row_first = (0, 1, 2 + rank, *range(2, 2 + rank), *range(3 + rank, 2 + 2 * rank))
        # and, given T, side by side: (T, G, C / G, *K', n, h, *out')
        self.row_last = (0, *range(2, 3 + rank), 1, *range(3 + rank, 3 + 2 * rank))
        if geometry.stride[0] == 1:
            self.numbers //= geometry.kernel[0]

    def weights(self, w: Array) -> Array:
        """(G, F / G, R), the taps of the first axis slowest."""
        features, channels, first = w.shape[:3]
        w = w.reshape(self.groups, features // self.groups, channels, first, -1).swapaxes(2, 3)
        return w.reshape(*w.shape[:2], -1)

    def weights_adjoint(self, dweights: Array) -> Array:
        """(T, G, R, F / G) -> (T, F, C / G, *K)."""
        steps, groups, _, features = dweights.shape
        first, *others = self.kernel
        dw = dweights.reshape(steps, groups, first, -1, prod(others), features)
        return dw.transpose(0, 1, 5, 3, 2, 4).reshape(steps, groups * features, -1, *self.kernel)

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """For every row of the output (m, R) @ (R, columns), m features and so many columns at a time."""
        xp, (groups, features, size) = array_module(x), weights.shape
        height, across = strip.out[0], prod(strip.out[1:])
        blocks = xp.ascontiguousarray(unfolded(x, strip, groups).transpose(self.row_first))
        blocks = blocks.reshape(*blocks.shape[:3], -1, across)  # (n, G, h, C / G * prod(K'), across)
        m, columns = piece(features, size, across)
        sample, group, row, line, item = blocks.strides
        cols = strided(
            blocks,
            (len(x), groups, height, 1, across // columns, size, columns),
            (sample, group, strip.stride[0] * row, 0, columns * item, line, item),
        )
        pieces = y.reshape(len(x), groups, features // m, m, height, across // columns, columns)
        w = weights.reshape(groups, 1, features // m, 1, m, size)
        xp.matmul(w, cols, out=pieces.transpose(0, 1, 4, 2, 5, 3, 6))
        if plus is not None:
            y += plus

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """A product for every tap of the first axis, with rows that begin so much later."""
        xp, (steps, samples, groups, features, positions) = array_module(x), dy.shape
        first, across, rank = self.kernel[0], prod(strip.out[1:]), len(strip.out)
        if strip.stride[0] > 1:  # two taps read different rows: all are copied
            dw = super().backward_w(dy, x, strip)
            taps_last = dw.reshape(steps, groups, -1, first, prod(self.kernel[1:]), features)
            return taps_last.swapaxes(2, 3).reshape(dw.shape)
        view = unfolded(frames_of(x), strip, groups)
        view = view.reshape(steps, samples, *view.shape[1:])  # (T, n, G, C / G, *K', h, *out')
        beside = xp.ascontiguousarray(view.transpose(self.row_last))  # (T, G, C / G, *K', n, h, *out')
        one = beside.shape[3 + rank] * across  # numbers of a sample
        beside = beside.reshape(steps, groups, -1, samples * one)
        width = (samples - 1) * one + positions
        step, group, line, item = beside.strides
        rows = strided(
            beside,
            (steps, groups, first, beside.shape[2], width),
            (step, group, across * item, line, item),
        )
        if samples > 1:
            apart = xp.zeros((steps, groups, features, samples, one), dtype=dy.dtype)
            apart[..., :positions] = dy.transpose(0, 2, 3, 1, 4)
            dy = apart.reshape(steps, 1, groups, features, -1)[..., :width]
        found = dots(rows, dy.swapaxes(1, 2))  # (T, G, K_1, C / G * prod(K'), F / G)
        return found.reshape(steps, groups, -1, features)

    def held(self, strip: Geometry, samples: int) -> int:
        """The rows beside each other, dy with zeros between samples, and of a sum in pieces one to add."""
        if strip.stride[0] > 1:
            return max(super().held(strip, samples), self.size)
        every, apart = every_row(strip)[0], self.features if samples > 1 else 0
        rows = (self.numbers + apart) * every.positions + self.channels * copied_first(every)
        terms = samples * every.positions
        high = self.channels // self.groups * prod(self.kernel[1:])
        cut = terms_at_once(high, self.features // self.groups, terms) < terms
        return samples * rows + (self.size if cut else 0)


def unfolded(x: Array, strip: Geometry, groups: int) -> Array:
    """The windows of the other axes in every row of a padded x: (n, G, C / G, *K', h, *out'), a view."""
    every, unfold = every_row(strip)
    view = unfold(x, every)
    return view.reshape(len(x), groups, -1, *view.shape[3:])


@lru_cache(maxsize=256)
def every_row(strip: Geometry) -> tuple[Geometry, Callable[[Array, Geometry], Array]]:
    """A strip's geometry with a single tap on the first axis, which takes every row; and how to unfold the others."""
    every = strip._replace(
        kernel=(1, *strip.kernel[1:]),
        stride=(1, *strip.stride[1:]),
        out=(spans(strip)[0], *strip.out[1:]),
    )
    return every, patches if sum(k > 1 for k in every.kernel) > 1 else windows


@lru_cache(maxsize=256)
def piece(features: int, size: int, across: int) -> tuple[int, int]:
    """(m, columns) of a small product: m of the features, so many positions of a row."""
    fit = [(m, n) for m in divisors(features) for n in divisors(across) if m * n * size <= LARGEST]
    return min(fit, key=lambda found: cost(*found), default=(features, across))


def pays(geometry: Geometry, features: int, channels: int) -> bool:
    """Whether the copies that are saved count, and rows are wide enough for products of their own; measured."""
    if len(geometry.out) < 2 or geometry.kernel[0] < 2 or geometry.dilation[0] > 1 or not small_kernels():
        return False
    m, columns = piece(features, channels * geometry.taps, prod(geometry.out[1:]))
    return features <= MANY and columns >= NARROW and m >= min(features, 8)
