"""Convolution of few channels with few features: a tile of neighbouring outputs as so many features.

Where channels do not mix (depthwise convolution), w is one row of numbers for each channel, and a product with
one row reads every number of its patches for a single multiplication. So let a window be wide enough for
m outputs that lie side by side, and let w have a column for each of them:

    y[m t + i] = sum_j x[stride * m t + j] band[j, i]          band[stride * i + dilation * l, i] = w[l]

A patch of k + m - 1 pixels then gives m outputs. It is copied as it lies, in one run, and its product with the band
is m numbers of y as they lie. Most of the band is zero; those multiplications cost less than the copies that they
save. The gradient of w is that of the band, summed along its diagonals.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from math import prod

from ..backend import Array, array_module
from .columns import add_columns, windows
from .lowering import frames_of
from .products import divisors, matmul
from .windows import Geometry, Pads, Sizes

TILES = range(8, 17)  # outputs side by side
SMALL_IMAGE = 64  # positions below which copies are too short to pay
FEW = 2  # channels and features of a group up to which tiles pay


class Tiled:
    """im2col with larger windows, a tile of m outputs each: `lowering.Lowering` tells what the methods do.

    J = pixels of a window on the last axis, K' = taps of the others, R = C / groups * prod(K') * J. Here weights
    and their gradients are bands (G, F / G, R, m), columns have the windows first, and y's positions fall into
    tiles.
    """

    room = 1
    around: Pads | None = None

    def __init__(self, geometry: Geometry, w_shape: Sizes, groups: int) -> None:
        self.m, self.groups, self.kernel = tile(geometry.out[-1]), groups, geometry.kernel
        self.multiple = self.m if len(geometry.out) == 1 else 1
        self.stride, self.dilation = geometry.stride[-1], geometry.dilation[-1]
        whole = widened(geometry, self.m)
        self.pads, self.width = whole.pads, whole.kernel[-1]
        self.size, self.work = w_shape[0] * w_shape[1] * whole.taps * self.m, self.width / geometry.kernel[-1]
        self.numbers = w_shape[1] * groups * whole.taps // self.m + 1
        self.features = w_shape[0]
        self.back = self

    def diagonals(self, band: Array) -> list[Array]:
        """For each of the m outputs the view (..., k) of a band (..., J, m) where w stands."""
        reach = self.dilation * (self.kernel[-1] - 1) + 1
        begins = ((i, i * self.stride) for i in range(self.m))
        return [band[..., begin : begin + reach : self.dilation, i] for i, begin in begins]

    def weights(self, w: Array) -> Array:
        """The bands of w (F, C / G, *K)."""
        band = array_module(w).zeros((*w.shape[:-1], self.width, self.m), dtype=w.dtype)
        for diagonal in self.diagonals(band):
            diagonal[...] = w
        return band.reshape(self.groups, w.shape[0] // self.groups, -1, self.m)

    def weights_adjoint(self, dweights: Array) -> Array:
        """dw (T, F, C / G, *K): a tap's gradient is the sum of its diagonal."""
        steps, groups, features = dweights.shape[:3]
        band = dweights.reshape(steps, groups * features, -1, *self.kernel[:-1], self.width, self.m)
        return reduce(array_module(band).add, self.diagonals(band))

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """Patches (p / m, R) times a band (R, m)."""
        cols, (*lead, _), across = self.patches(x[None], strip)[0], y.shape, strip.out[-1]
        if across % self.m:  # the last tile hangs over
            found = matmul(cols[:, :, None], weights).reshape(
                *lead, -1, widened(strip, self.m).out[-1] * self.m
            )
            y.reshape(*lead, -1, across)[...] = found[..., :across]
        else:
            matmul(cols[:, :, None], weights, out=y.reshape(*lead, -1, self.m))
        if plus is not None:
            y += plus

    def backward_x(self, weights: Array, dy: Array, strip: Geometry, dx: Array, fresh: bool) -> None:
        """dx += col2im(sum_f dy_f band_f^T)."""
        whole, dy = widened(strip, self.m), self.spread(dy, strip)
        cols = matmul(dy, weights.swapaxes(2, 3)).sum(axis=2)  # (n, G, p / m, R)
        cols = cols.reshape(*cols.shape[:2], whole.positions, -1).swapaxes(2, 3)
        add_columns(dx, cols.reshape(len(dx), -1, whole.positions), whole, fresh)

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """Patches^T dy, the samples side by side."""
        steps, _, groups, features, _ = dy.shape
        cols = self.patches(x, strip).swapaxes(1, 2)  # (T, G, n, p / m, R)
        dy = self.spread(dy.transpose(0, 2, 3, 1, 4), strip)
        dy = dy.reshape(steps, groups, features, -1, self.m)
        cols = cols.reshape(steps, groups, 1, dy.shape[3], -1)
        return matmul(cols.swapaxes(3, 4), dy)

    def held(self, strip: Geometry, samples: int) -> int:
        """The patches of the tiles, and dy side by side."""
        return samples * (self.numbers + self.features) * strip.positions

    def patches(self, x: Array, strip: Geometry) -> Array:
        """(T, n, G, p / m, R) of padded frames (T, n, C, ...)."""
        view = windows(frames_of(x), widened(strip, self.m))  # (T * n, C, *K', J, *tiles)
        view = view.reshape(*x.shape[:2], self.groups, -1, *view.shape[2:])
        axes = len(strip.out)
        view = view.transpose(0, 1, 2, *range(4 + axes, 4 + 2 * axes), 3, *range(4, 4 + axes))
        return view.reshape(*x.shape[:2], self.groups, prod(view.shape[3 : 3 + axes]), -1)

    def spread(self, dy: Array, strip: Geometry) -> Array:
        """dy (..., p) as (..., p / m, m), with zeros where the last tile hangs over."""
        lead, across = dy.shape[:-1], strip.out[-1]
        if across % self.m:
            dy = dy.reshape(*lead, -1, across)
            room = array_module(dy).zeros(
                (*dy.shape[:-1], widened(strip, self.m).out[-1] * self.m), dtype=dy.dtype
            )
            room[..., :across] = dy
            dy = room
        return dy.reshape(*lead, -1, self.m)


@lru_cache(maxsize=64)
def tile(across: int) -> int:
    """m: the largest tile that fills a row of so many outputs, else one whose last hangs over."""
    return max((m for m in divisors(across) if m in TILES), default=min(across, TILES[-1]))


@lru_cache(maxsize=256)
def widened(geometry: Geometry, m: int) -> Geometry:
    """The windows of m neighbouring outputs on the last axis."""
    k, stride, dilation = (f[-1] for f in (geometry.kernel, geometry.stride, geometry.dilation))
    width, tiles = stride * (m - 1) + dilation * (k - 1) + 1, -(-geometry.out[-1] // m)
    (before, after), size = geometry.pads[-1], geometry.sizes[-1]
    lacking = stride * m * (tiles - 1) + width - before - size
    return geometry._replace(
        kernel=(*geometry.kernel[:-1], width),
        stride=(*geometry.stride[:-1], stride * m),
        dilation=(*geometry.dilation[:-1], 1),
        pads=(*geometry.pads[:-1], (before, max(after, lacking))),
        out=(*geometry.out[:-1], tiles),
    )
