"""Convolution with fewer multiplications: tiles of outputs, and three small matrices.

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

A tile has J values on every axis, and each is a sum over channels of its own. So prod(J) matrix products over
channels take the place of im2col's one over channels and taps: 36 multiplications for 16 outputs of a 3 x 3
kernel, not 144. In between, arrays have channels last: one axis after the other meets its small matrix, in
products with long rows. A dilation of d makes d interleaved images of an axis, with tiles of their own.

Six points, 0, +-3/4, +-3/2 and infinity, serve kernels of 2 to 4 taps; eight, 0, +-1/2, +-1, +-2 and infinity,
those of 5. Points near 1 keep their powers small, and the rounding with them: in float32, root mean square errors
are some 3 times those of im2col for 3 x 3 taps, 5 for 3 x 3 x 3, 12 for 5 x 5; what has more does without. A^T and
B^T are exact in binary. (On the choice of points: Barabasz, Anderson, Soodhalter, Gregg 2020, arXiv 1803.10986.)
Neighbouring outputs are computed together: a pixel that is not finite spoils its tile and those beside it in a row,
and one that an output does not read may move its last bits.

Sources: Winograd 1980, "Arithmetic complexity of computations", chapter V; Lavin & Gray 2016,
arXiv 1509.09308, equations 7, 8 and, for two axes, 9.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..parallel import cuts, run_parts, shares
from .columns import strided
from .lowering import Im2col
from .products import LARGEST, divisors, small_kernels
from .windows import Geometry, Pads, Sizes

SIX = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
EIGHT = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)
POINTS: dict[int, tuple[float, ...]] = {1: (), 2: SIX, 3: SIX, 4: SIX, 5: EIGHT}  # by the number of taps
# root mean square error of an axis in float32, beside im2col's, by the number of taps; of all axes, at most
NOISE, NOISIEST = {1: 1.0, 2: 1.7, 3: 1.7, 4: 1.7, 5: 3.5}, 16
WORTH = 62  # multiplications to save for every number that the transforms move; measured
CALLS = 3000  # and, divided among the outputs of a sample, for the calls of Python
ROWS = 9  # that a product takes longer than its rows, the tiles of a sample
LARGE = 450_000  # numbers of weights that take one row more: they come from memory
WIDE, NARROW = 64, 32  # features of a product that BLAS does in place: at most, and at least
TILES = 64  # of such a product, about
FEATURES = 128  # transformed at a time, about: what is made of them stays in the cache
CLIP = 1_300_000  # numbers made of a clip, beyond which its strips are high: it does not fit into 4 times PATCH_BYTES
SPARE = 16  # numbers between channels: those of 2^n pixels would meet in the same places of the cache


def values_of(k: int) -> int:
    """J, the values of a tile on an axis with k taps. An axis with one tap stays as it is."""
    return len(POINTS[k]) + 1


def outputs_at_once(k: int) -> int:
    """m, outputs that J values give with k taps."""
    return values_of(k) + 1 - k


@lru_cache(maxsize=64)
def toom_cook(k: int, dtype: str = "d") -> dict[str, Array]:
    """The matrices of one axis with k taps: A^T (m, J), B^T (J, J), G (J, k), and the transposes of A^T and G."""
    J, m, points = values_of(k), outputs_at_once(k), np.array(POINTS[k])
    others = [np.delete(points, j) for j in range(len(points))]
    scale = np.array([np.prod(p - rest) for p, rest in zip(points, others, strict=True)])  # N_j
    a_t, b_t, g = np.zeros((m, J)), np.zeros((J, J)), np.zeros((J, k))
    a_t[:, :-1], a_t[-1, -1] = points ** np.arange(m)[:, None], 1
    g[:-1], g[-1, -1] = points[:, None] ** np.arange(k) / scale[:, None], 1
    for row, roots in zip(b_t, [*others, points], strict=True):
        row[: len(roots) + 1] = np.atleast_1d(np.poly(roots))[::-1]
    found = {"a_t": a_t, "a": a_t.T, "b_t": b_t, "g": g, "g_t": g.T}
    return {name: np.ascontiguousarray(matrix, dtype=dtype) for name, matrix in found.items()}


class Axis(NamedTuple):
    """How the outputs of an axis fall into tiles: with a dilation of d, those of d interleaved images."""

    taps: int  # k
    dilation: int  # d
    tiles: int  # of each image; the last may hang over
    wide: int  # tiles of each image that are interpolated together

    @property
    def m(self) -> int:
        """Outputs of a tile."""
        return outputs_at_once(self.taps)

    @property
    def values(self) -> int:
        """J, the values of a tile."""
        return values_of(self.taps)

    @property
    def slots(self) -> int:
        """Tiles of all images."""
        return self.dilation * self.tiles

    @property
    def outputs(self) -> int:
        """What the tiles hold."""
        return self.slots * self.m


@lru_cache(maxsize=1024)
def axes_of(strip: Geometry) -> tuple[Axis, ...]:
    """The axes of a strip, at least two: a single one gets one of a single pixel before it."""
    found = [Axis(1, 1, 1, 1)] if len(strip.out) == 1 else []
    for axis, (k, d, out) in enumerate(zip(strip.kernel, strip.dilation, strip.out, strict=True)):
        d = d if k > 1 else 1
        tiles = wide = -(-out // (d * outputs_at_once(k)))
        if axis == len(strip.out) - 1:
            wide = width(tiles, d * outputs_at_once(k))
            tiles = -(-tiles // wide) * wide
        found.append(Axis(k, d, tiles, wide))
    return tuple(found)


def width(tiles: int, outputs: int) -> int:
    """How many tiles of so many outputs the `band` matrix takes: about 16 outputs, and few tiles that hang over."""

    def cost(wide: int) -> float:  # measured
        return -(-tiles // wide) * wide * (64 + outputs * wide + 256 / (outputs * wide))

    return min(range(1, tiles + 1), key=cost)


def saves_products(geometry: Geometry, features: int, channels: int) -> bool:
    """Whether the transforms fit a convolution, and save more than they take.

        v = prod(J) tiles / positions                values for each output
        F C (prod(K) - v (1 + r / tiles))  >=  (WORTH + CALLS / positions) (C + F) v

    Left, the multiplications that are saved for an output: with as many rows as a sample has tiles, a product takes the
    time of r more. Right, what the numbers that are moved cost, in multiplications.
    """
    fits = all(s == 1 and k in POINTS for k, s in zip(geometry.kernel, geometry.stride, strict=True))
    if not fits or geometry.taps == 1 or not geometry.positions:
        return False
    if prod(NOISE[k] for k in geometry.kernel) > NOISIEST:
        return False
    axes = axes_of(geometry)
    tiles, products = prod(axis.slots for axis in axes), prod(axis.values for axis in axes)
    rows = ROWS + products * features * channels / LARGE
    values = products * tiles / geometry.positions  # for each output
    saved = features * channels * (geometry.taps - values * (1 + rows / tiles))
    return saved >= (WORTH + CALLS / geometry.positions) * (channels + features) * values


class Winograd:
    """prod(J) products: `lowering.Lowering` tells what the methods do.

        B = prod(J)        R = C        weights (B, F / f, C, f): f of the features at a time

    Going back to x is a convolution too, with the kernel turned around (`conv.way_back`).
    """

    work = 0.2
    pads: Pads | None = None  # it takes x as it is

    def __init__(self, geometry: Geometry, features: int, channels: int) -> None:
        axes = axes_of(geometry)
        self.kernel, self.features, self.channels = geometry.kernel, features, channels
        self.values = prod(axis.values for axis in axes)
        self.wide = block_of_features(features, channels, min(TILES, prod(axis.slots for axis in axes)))
        self.at_once = max(1, FEATURES // self.wide) * self.wide
        self.m = tuple(axis.m for axis in axes[-len(self.kernel) :])
        self.multiple = self.m[0] * axes[-len(self.kernel)].dilation
        self.numbers = (channels + min(features, self.at_once)) * self.values // prod(self.m)
        # in two threads the calls of Python wait for one another; and flat strips of a clip read many frames twice
        self.room = 12 if len(axes) > 2 and self.numbers * geometry.positions > CLIP else 4
        self.size = self.values * features * channels
        self.back = Im2col(geometry, (features, channels, *geometry.kernel))

    def weights(self, w: Array) -> Array:
        """G w, (prod(J), F / f, C, f)."""
        xp, g = array_module(w), kronecker("g", self.kernel, w.real.dtype.char)
        taps = w.reshape(-1, self.wide, self.channels, g.shape[1])
        taps = taps.transpose(3, 0, 2, 1)  # (prod(K), F / f, C, f)
        made = xp.empty((len(g), *taps.shape[1:]), dtype=w.dtype)

        def part(some: slice) -> None:
            xp.matmul(g, taps[:, some].reshape(len(taps), -1), out=made[:, some].reshape(len(g), -1))

        run_parts(part, shares(made[0], g.size * self.features * self.channels), small=True)
        return made

    def weights_adjoint(self, dweights: Array) -> Array:
        """G^T dweights, (T, F, C, *K)."""
        xp, (steps, _, *sizes) = array_module(dweights), dweights.shape
        g_t = kronecker("g_t", self.kernel, dweights.real.dtype.char)
        made = xp.empty((steps, len(g_t), *sizes), dtype=dweights.dtype)

        def part(some: slice) -> None:
            values = dweights[:, :, some].reshape(steps, g_t.shape[1], -1)
            xp.matmul(g_t, values, out=made[:, :, some].reshape(steps, len(g_t), -1))

        run_parts(part, shares(dweights[0, 0], steps * g_t.size * self.features * self.channels), small=True)
        return made.transpose(0, 3, 2, 1).reshape(steps, *sizes[::-1], *self.kernel)

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """y = A^T [(G w) (B^T d)] + plus, every sample by products of its own, whatever batch it stands in."""
        axes, n, out = axes_of(strip), len(x), strip.out
        values = evaluated("b_t", under(x[None], strip), axes).reshape(self.values, n, -1, self.channels)
        y = y.reshape(n, -1, *out)
        if plus is not None:
            plus = plus.reshape(y.shape if plus.ndim > 3 else (1, -1, *(1,) * len(out)))
        for some in cuts(slice(0, self.features), self.at_once):
            blocks = weights[:, None, some.start // self.wide : some.stop // self.wide]
            more = None if plus is None else plus[:, some]
            interpolated(multiplied(values, blocks), axes, y[:, some], more)

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """(B^T d)^T (A dy), several samples side by side."""
        axes, (steps, samples) = axes_of(strip), dy.shape[:2]
        xp, dy = array_module(dy), dy.reshape(steps, samples, -1, *strip.out)
        values, kind = evaluated("b_t", under(x, strip), axes).swapaxes(2, 3), xp.result_type(x, dy)
        dweights = xp.empty((*values.shape[:3], self.features), dtype=kind)
        for some in cuts(slice(0, self.features), self.at_once):
            dvalues = evaluated("a", spread(dy[:, :, some], axes, kind), axes)
            dvalues = dvalues.reshape(*dvalues.shape[:3], -1, self.wide).swapaxes(2, 3)
            multiplied(values, dvalues, out=dweights[..., some])
            del dvalues  # before the next features' are made
        return dweights

    def held(self, strip: Geometry, samples: int) -> int:
        """The values of x, beside what they or those of some features are made of."""
        axes, some = axes_of(strip), min(self.features, self.at_once)
        tiles = samples * prod(axis.slots for axis in axes)
        pixels = [axis.outputs + axis.dilation * (axis.taps - 1) for axis in axes]

        def made_of(sizes: list[int]) -> int:  # along the last axis
            return samples * prod(sizes[:-1]) * axes[-1].values * axes[-1].slots

        of_x = self.channels * (made_of(pixels) + self.values * tiles)
        of_dy = some * (made_of([axis.outputs for axis in axes]) + self.values * tiles)
        return max(of_x, self.values * tiles * self.channels + of_dy)


@lru_cache(maxsize=64)
def kronecker(name: str, kernel: Sizes, dtype: str) -> Array:
    """G or its transpose for the taps of all axes at once: (prod(J), prod(K)) or the other way round."""
    found: Array = reduce(np.kron, (toom_cook(k, dtype)[name] for k in kernel))
    return found


def block_of_features(features: int, channels: int, tiles: int) -> int:
    """f, features of a product: so many that BLAS multiplies it where it lies."""
    most = min(WIDE, LARGEST // (tiles * channels)) if small_kernels() else features
    f = max(d for d in divisors(features) if d <= max(1, most))
    return f if f >= NARROW else features


def multiplied(a: Array, b: Array, out: Array | None = None) -> Array:
    """a (..., M, K) @ b (..., F / f, K, f), the columns side by side: (..., M, F)."""
    xp, (blocks, _, f) = array_module(a), b.shape[-3:]
    if out is None:
        out = xp.empty((*a.shape[:-1], blocks * f), dtype=xp.result_type(a, b))
    xp.matmul(a[..., None, :, :], b, out=out.reshape(*out.shape[:-1], blocks, f).swapaxes(-3, -2))
    return out


def under(x: Array, strip: Geometry) -> Array:
    """The pixels of frames x (T, n, C, *S) that a strip reads, channels last."""
    axes = axes_of(strip)[-len(strip.out) :]
    sizes = tuple(axis.outputs + axis.dilation * (axis.taps - 1) for axis in axes)
    return channels_last(x, sizes, strip.pads, x.dtype)


def spread(dy: Array, axes: tuple[Axis, ...], dtype: Any) -> Array:
    """dy (T, n, F, *S_out), channels last, with zeros where the last tiles hang over."""
    axes = axes[3 - dy.ndim :]
    return channels_last(dy, tuple(axis.outputs for axis in axes), ((0, 0),) * len(axes), dtype)


def channels_last(x: Array, sizes: Sizes, pads: Pads, dtype: Any) -> Array:
    """(T, n, *sizes, C) of frames x (T, n, C, *S), from so many pixels before them on; zeros where there is no x.

    By way of a copy whose channels lie apart: strides of a page meet in the same place of the cache.
    """
    found = apart(array_module(x).zeros, x.shape[:3], sizes, dtype)
    there, read = [], []
    for wanted, size, (before, _) in zip(sizes, x.shape[3:], pads, strict=True):
        first, stop = max(0, before), max(0, min(wanted, before + size))
        there.append(slice(first, stop))
        read.append(slice(first - before, max(first, stop) - before))
    found[(..., *there)] = x[(..., *read)]
    return array_module(x).ascontiguousarray(found.transpose(0, 1, *range(3, x.ndim), 2))


def apart(make: Callable[..., Array], lead: Sizes, sizes: Sizes, dtype: Any) -> Array:
    """An array (*lead, *sizes) with SPARE numbers behind each of the `lead`."""
    n = prod(sizes)
    return make((*lead, n + SPARE), dtype=dtype)[..., :n].reshape(*lead, *sizes)


def evaluated(name: str, x: Array, axes: tuple[Axis, ...]) -> Array:
    """B^T d or A dy: the values of frames x (T, n, *pixels, C) as matrices (T, prod(J), n * tiles, C).

    Axis by axis from the last, each tile in a product with the matrix of that `name`:

        (T, n, *pixels, J.., tiles.. C)  ->  (T, n, *pixels but of one axis, J J.., tiles tiles.. C)
    """
    xp, (T, n), C, kind = array_module(x), x.shape[:2], x.shape[-1], x.dtype
    char = x.real.dtype.char
    done = x.reshape(T, n, *(1,) * (len(axes) + 3 - x.ndim), *x.shape[2:-1], 1, C)
    del x  # lest it stay beside all that is made of it
    for axis in reversed(range(len(axes))):
        (taps, d, t, _), m, k = axes[axis], axes[axis].m, 2 + axis
        matrix, lead = toom_cook(taps, char)[name], done.shape[:k]
        (values, length), (known, columns) = matrix.shape, done.shape[-2:]
        *outer, row, value, number = done.strides
        tiles = strided(  # d images, in each t tiles of J pixels, or of m of dy
            done,
            (*lead, t, d, known, length, columns),
            (*outer, m * d * row, row, value, d * row, number),
        )
        if axis:
            made = xp.empty((*lead, values, known, t, d, columns), dtype=kind)
            into = made.transpose(*range(k), k + 2, k + 3, k + 1, k, k + 4)
        else:
            made = xp.empty((T, values, known, n, t, d, columns), dtype=kind)
            into = made.transpose(0, 3, 4, 5, 2, 1, 6)
        if len(matrix) > 1:
            xp.matmul(matrix, tiles, out=into)
        else:
            into[...] = tiles
        done = made.reshape(*lead, values * known, -1) if axis else made
    return done.reshape(T, -1, n * prod(axis.slots for axis in axes), C)


def interpolated(products: Array, axes: tuple[Axis, ...], y: Array, plus: Array | None) -> None:
    """Write A^T of products (prod(J), n, tiles, F), and plus, to y (n, F, *S_out), axis by axis from the first.

        (n, *outputs, J J.., tiles tiles.. F)  ->  (n, *outputs and of one axis more, J.., tiles.. F)

    The last axis meets a `band` matrix, which puts the features first again.
    """
    xp, char, (n, F) = array_module(products), products.real.dtype.char, y.shape[:2]
    *first, last = axes
    done, whole, sizes = products.swapaxes(0, 1), [axis.outputs for axis in axes], y.shape[2:]
    kind = products.dtype
    del products  # lest it stay beside all that is made of it
    for axis, (taps, d, t, _) in enumerate(first):
        matrix, known = toom_cook(taps, char)["a_t"], prod(other.values for other in axes[axis + 1 :])
        (m, values), lead, k = matrix.shape, (n, *whole[:axis]), 1 + axis
        pieces = last.tiles // last.wide if axis == len(first) - 1 else 1
        tiles = done.reshape(*lead, values, known, t, d, pieces, -1)
        if m == values:  # a single tap
            done = tiles.transpose(*range(k), k + 2, k, k + 3, k + 4, k + 1, k + 5)
            continue
        done = xp.empty((*lead, t, m, d, pieces, known, tiles.shape[-1]), dtype=kind)
        source = tiles.transpose(*range(k), k + 2, k + 3, k + 4, k + 1, k, k + 5)
        into = done.transpose(*range(k), k, k + 2, k + 3, k + 4, k + 1, k + 5)
        xp.matmul(matrix, source, out=into)
    matrix = band(last, char)
    done = done.reshape(n, *whole[-len(sizes) : -1], -1, len(matrix), F)
    done = done[(slice(None), *map(slice, sizes[:-1]))]  # but what hangs over
    made = apart(xp.empty, (n, F), (*sizes[:-1], whole[-1]), kind)
    into = made.reshape(*made.shape[:-1], -1, matrix.shape[1])
    xp.matmul(done.swapaxes(-1, -2), matrix, out=into.transpose(0, *range(2, y.ndim), 1, y.ndim))
    made = made[..., : sizes[-1]]
    if plus is None:
        y[...] = made
    else:
        xp.add(made, plus, out=y)


@lru_cache(maxsize=256)
def band(axis: Axis, dtype: str) -> Array:
    """A of the tiles that are interpolated together, (J * tiles, outputs): d apart lie the outputs of one of them."""
    matrix, d = toom_cook(axis.taps, dtype)["a"], axis.dilation
    J, m = matrix.shape
    found = np.zeros((J, axis.wide, d, axis.wide, m, d), dtype=dtype)
    for tile in range(axis.wide):
        for image in range(d):
            found[:, tile, image, tile, :, image] = matrix
    return found.reshape(J * axis.wide * d, -1)
