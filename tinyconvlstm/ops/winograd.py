"""Convolution with fewer multiplications: larger windows, and three small matrices.

Two windows of 3 pixels that lie side by side share 2 of them; im2col copies and multiplies these twice.
Toom and Cook's view: a convolution is a product of polynomials, and a product of degree J - 1 is known
from its values at J points. Evaluate both factors at the points, multiply value by value, interpolate.
Transposed, the same three maps give m neighbouring outputs of a correlation with k taps, from the
J = m + k - 1 pixels under them, by J multiplications instead of m k:

    y = A^T [ (G w) . (B^T d) ]         d: J pixels     w: k taps     y: m outputs

    A^T[i, j] = p_j^i       G[j, i] = p_j^i / N_j       N_j = prod_{l != j} (p_j - p_l)
    B^T[j, :] = coefficients of prod_{l != j} (x - p_l), lowest first

for finite points p_j. The point at infinity reads the highest coefficient: its row of G and its column
of A^T have a single 1, at the end, and its row of B^T holds the coefficients of prod_l (x - p_l).

So a tile of m outputs is a window of J pixels, one every m; its J values take the place of taps, each
with a matrix product of its own. Several axes are transformed one after the other. On the others, im2col.

Six points, 0, +-3/4, +-3/2 and infinity, serve kernels of 2 to 5 taps, by 6 products in place of 10 or 12.
Points near 1 keep their powers small, and the rounding with them: in float32, root mean square errors are
1.5 to 4 times those of im2col. A^T and B^T are exact in binary. (On the choice of points: Barabasz,
Anderson, Soodhalter, Gregg 2020, arXiv 1803.10986.) A tile's outputs are computed together: a pixel that
is not finite spoils all of them, and one that an output does not read may move its last bits.

Sources: Winograd 1980, "Arithmetic complexity of computations", chapter V; Lavin & Gray 2016,
arXiv 1509.09308, equations 7 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np

from ..backend import Array, array_module
from .columns import add_columns, copied_first, patches, windows
from .lowering import frames_of
from .products import matmul
from .windows import Geometry, Pads, Sizes, spans

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
VALUES = len(POINTS) + 1  # J
TAPS = range(2, 6)  # kernels that the points serve
WORTH = 40  # multiplications to save for every number that the transforms move; measured
PIECE = 1 << 14  # columns of a product with one of the small matrices
SMALL_IMAGE = 64  # positions below which copies are too short to pay


def outputs_at_once(k: int) -> int:
    """m, outputs that J values give with k taps."""
    return VALUES + 1 - k


@lru_cache(maxsize=64)
def toom_cook(k: int, dtype: str = "d") -> dict[str, Array]:
    """The matrices of one axis with k taps: A^T (m, J), B^T (J, J), G (J, k), and their transposes."""
    m, points = outputs_at_once(k), np.array(POINTS)
    others = [np.delete(points, j) for j in range(len(points))]
    scale = np.array([np.prod(p - rest) for p, rest in zip(points, others, strict=True)])  # N_j
    a_t, b_t, g = np.zeros((m, VALUES)), np.zeros((VALUES, VALUES)), np.zeros((VALUES, k))
    a_t[:, :-1], a_t[-1, -1] = points ** np.arange(m)[:, None], 1
    g[:-1], g[-1, -1] = points[:, None] ** np.arange(k) / scale[:, None], 1
    for row, roots in zip(b_t, [*others, points], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    found = {"a_t": a_t, "a": a_t.T, "b_t": b_t, "b": b_t.T, "g": g, "g_t": g.T}
    return {name: np.ascontiguousarray(matrix, dtype=dtype) for name, matrix in found.items()}


def transformed_axes(geometry: Geometry, features: int, channels: int) -> Sizes:
    """The axes to transform: those that can be, where enough products are saved; else none.

    Never the last axis: its pixels lie side by side in memory, and are copied in long runs.
    """
    axes = tuple(
        axis
        for axis, k in enumerate(geometry.kernel[:-1])
        if k in TAPS and geometry.stride[axis] == geometry.dilation[axis] == 1
    )
    if not axes or geometry.positions < SMALL_IMAGE:
        return ()
    taps = prod(geometry.kernel[axis] for axis in axes)
    others = geometry.taps // taps
    values = prod(  # computed for every output
        VALUES * -(-geometry.out[axis] // outputs_at_once(geometry.kernel[axis])) / geometry.out[axis]
        for axis in axes
    )
    saved = features * channels * others * (taps - values)
    moved = (channels * others + features) * values
    return axes if saved >= WORTH * moved else ()


class Winograd:
    """J^a matrices, a = the number of axes transformed: `lowering.Lowering` tells what the methods do.

        R = C * prod(K of the other axes)       B = J^a

    Args:
        geometry: of the convolution; stride and dilation 1 on the axes.
        features, channels: F and C.
        axes: spatial axes to transform, each with a kernel of TAPS.
    """

    room, work = 4, 1.0
    around: Pads | None = None

    def __init__(self, geometry: Geometry, features: int, channels: int, axes: Sizes) -> None:
        rank = len(geometry.kernel)
        others = tuple(axis for axis in range(rank) if axis not in axes)
        self.kernel, self.features, self.channels, self.axes = geometry.kernel, features, channels, axes
        self.transformed = tuple(geometry.kernel[axis] for axis in axes)
        self.values = VALUES ** len(axes)
        self.rows = channels * prod(geometry.kernel[axis] for axis in others)
        self.m = tuple(outputs_at_once(k) if axis in axes else 1 for axis, k in enumerate(geometry.kernel))
        self.multiple = self.m[0]
        self.pads = tuple(  # the last tile may hang over
            (before, after + -n % m)
            for (before, after), n, m in zip(geometry.pads, geometry.out, self.m, strict=True)
        )
        self.numbers = (self.rows + features) * self.values // prod(self.m)
        self.size = self.values * features * self.rows
        self.back = self
        # axes of w (F, C, *K) as G reads them: (K.., F, C, the other K..)
        self.w_order = (*(2 + axis for axis in axes), 0, 1, *(2 + axis for axis in others))
        # axes of windows (T, n, C, *J, *tiles) as B^T reads them: (T, J.., C, n, *tiles)
        self.x_order = (0, *range(3, 3 + rank), 2, 1, *range(3 + rank, 3 + 2 * rank))
        # axes of outputs (T, *m, F, n, *tiles) as y holds them: (T, n, F, tile, m, tile, m, ...)
        pairs = (i for axis in range(rank) for i in (rank + 3 + axis, 1 + axis))
        self.y_order = (0, rank + 2, rank + 1, *pairs)

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array) -> None:
        """y = A^T [(G w) (B^T d)], every sample by products of its own, whatever batch it stands in."""
        values = matmul(weights, self.evaluated(x[:, None], strip))  # (n, J^a, F, tiles)
        self.put(self.along_axes("a_t", values), y.reshape(len(y), -1, *strip.out))

    def backward_x(self, weights: Array, dy: Array, strip: Geometry, dx: Array, fresh: bool) -> None:
        """dx += the windows B (G w)^T A dy, added back."""
        xp, dvalues = array_module(dy), self.spread(dy.reshape(len(dy), 1, -1, *strip.out))
        dcols = matmul(weights.swapaxes(1, 2), dvalues)  # (n, J^a, R, tiles)
        tiles, inner = tiled(strip, self.m, 1)
        room = (len(dx) * self.values, self.channels, *inner.sizes)
        dvalues = xp.empty(room, dtype=dcols.dtype)
        add_columns(dvalues, dcols, inner, fresh=True)
        dpixels = self.along_axes("b", dvalues.reshape(len(dx), self.values, -1))
        sizes = (len(dx), 1, dx.shape[1], *tiles.kernel, *tiles.out)
        dpixels = dpixels.reshape([sizes[axis] for axis in self.x_order])
        add_columns(dx, dpixels.transpose(inverse(self.x_order)), tiles, fresh)

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """(B^T d) (A dy)^T, several samples side by side."""
        dvalues = self.spread(dy.reshape(*dy.shape[:2], -1, *strip.out))
        return matmul(self.evaluated(x, strip), dvalues.swapaxes(2, 3))

    def held(self, strip: Geometry, samples: int) -> int:
        """A dy and what it is made of; or, beside it, B^T d and what that is made of, or its columns."""
        tiles, inner = tiled(strip, self.m, samples)
        pixels: int = self.channels * samples * tiles.positions
        columns = self.rows * inner.positions if inner.taps > 1 else 0
        made = pixels + max(pixels, columns + self.channels * copied_first(inner))
        hanging = prod(self.m) if any(n % m for n, m in zip(strip.out, self.m, strict=True)) else 0
        spread: int = self.features * inner.positions * (self.values // VALUES * max(self.m) + hanging)
        held: int = self.values * self.features * inner.positions + max(spread, self.values * made)
        return held

    def weights(self, w: Array) -> Array:
        """G w, (J^a, F, R)."""
        taps = w.transpose(self.w_order).reshape(1, prod(self.transformed), -1)
        return self.along_axes("g", taps).reshape(self.values, len(w), self.rows)

    def weights_adjoint(self, dweights: Array) -> Array:
        """G^T dweights, (T, F, C, *K)."""
        steps, _, _, features = dweights.shape
        taps = self.along_axes("g_t", dweights)
        sizes, lie = (features, self.channels, *self.kernel), [axis for axis in self.w_order if axis]
        taps = taps.reshape(steps, *(sizes[axis] for axis in lie), features)  # (T, K.., C, the other K.., F)
        return taps.transpose(0, *(1 + axis for axis in inverse((*lie, 0))))

    def along_axes(self, name: str, x: Array) -> Array:
        """One of `toom_cook`'s matrices on x (T, axes in turn, ...), along every transformed axis."""
        lead = steps = len(x)
        for k in self.transformed:
            matrix = toom_cook(k, x.real.dtype.char)[name]
            x = product(matrix, x.reshape(lead, matrix.shape[1], -1))
            lead *= len(matrix)
        return x.reshape(steps, lead // steps, -1)

    def evaluated(self, x: Array, strip: Geometry) -> Array:
        """B^T d, and im2col on the other axes: (T, J^a, R, n * tiles), of padded frames (T, n, C, ...)."""
        steps, samples = x.shape[:2]
        tiles, inner = tiled(strip, self.m, samples)
        pixels = windows(frames_of(x), tiles)  # (T * n, C, *J, *tiles), a view
        pixels = pixels.reshape(steps, samples, *pixels.shape[1:]).transpose(self.x_order)
        values = self.along_axes("b_t", pixels.reshape(steps, self.values, -1))
        values = values.reshape(steps * self.values, self.channels, *inner.sizes)
        return patches(values, inner).reshape(steps, self.values, self.rows, -1)

    def put(self, outputs: Array, y: Array) -> None:
        """Write outputs (n, m^a, F * tiles) into y (n, F, *out), tile beside tile."""
        samples, features, *out = y.shape
        tiles, whole = self.cover(out)
        outputs = outputs.reshape(samples, *self.m, features, 1, *tiles).transpose(self.y_order)
        if whole == out:
            y.reshape(outputs.shape)[...] = outputs
        else:  # the last tiles hang over
            y[...] = outputs.reshape(samples, features, *whole)[(..., *map(slice, out))]

    def spread(self, dy: Array) -> Array:
        """A dy, (T, J^a, F, n * tiles), of dy (T, n, F, *out): the adjoint of A^T and `put`."""
        steps, samples, features, *out = dy.shape
        tiles, whole = self.cover(out)
        if whole != out:
            hanging = array_module(dy).zeros((steps, samples, features, *whole), dtype=dy.dtype)
            hanging[(..., *map(slice, out))] = dy
            dy = hanging
        pairs = (size for pair in zip(tiles, self.m, strict=True) for size in pair)
        parts = dy.reshape(steps, samples, features, *pairs).transpose(inverse(self.y_order))
        values = self.along_axes("a", parts.reshape(steps, prod(self.m), -1))
        return values.reshape(steps, self.values, features, -1)

    def cover(self, out: list[int]) -> tuple[list[int], list[int]]:
        """How many tiles a strip of so many outputs takes on every axis, and how many outputs those hold."""
        tiles = [-(-size // m) for size, m in zip(out, self.m, strict=True)]
        return tiles, [size * m for size, m in zip(tiles, self.m, strict=True)]


def product(matrix: Array, x: Array) -> Array:
    """matrix (I, J) @ x (T, J, n); a large n in pieces: else BLAS copies x, which takes as long as the product."""
    n, pieces = x.shape[2], 1
    while n // pieces > PIECE and n % (2 * pieces) == 0:
        pieces *= 2
    if pieces == 1:
        return matrix @ x
    xp = array_module(x)
    y = xp.empty((len(x), len(matrix), n), dtype=xp.result_type(matrix, x))
    x, out = (a.reshape(*a.shape[:2], pieces, -1).swapaxes(1, 2) for a in (x, y))
    xp.matmul(matrix, x, out=out)
    return y


@lru_cache(maxsize=256)
def tiled(strip: Geometry, m: Sizes, samples: int) -> tuple[Geometry, Geometry]:
    """What Winograd makes of a strip: windows of J pixels, one every m, and im2col on the other axes.

    Of the other axes, the first geometry takes every pixel. The second one finds (n, *tiles) as its
    spatial axes: the samples of a strip, too, lie side by side.
    """
    ones = (1,) * len(m)
    tiles = strip._replace(
        kernel=tuple(VALUES if size > 1 else 1 for size in m),
        stride=m,
        dilation=ones,
        out=tuple(
            -(-n // size) if size > 1 else pixels
            for n, size, pixels in zip(strip.out, m, spans(strip), strict=True)
        ),
    )

    def beside(others: Sizes, transformed: Sizes = ones, first: int = 1) -> Sizes:
        pairs = zip(m, transformed, others, strict=True)
        return (first, *(own if size > 1 else other for size, own, other in pairs))

    inner = Geometry(
        sizes=(samples, *tiles.out),
        kernel=beside(strip.kernel),
        stride=beside(strip.stride),
        pads=((0, 0),) * (len(m) + 1),
        dilation=beside(strip.dilation),
        out=beside(strip.out, tiles.out, samples),
    )
    return tiles, inner


@lru_cache(maxsize=64)
def inverse(order: Sequence[int]) -> Sizes:
    """The order of axes that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
