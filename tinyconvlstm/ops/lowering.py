"""What a convolution does with one strip of its output: the plain lowering, im2col and one product.

`conv.py` cuts the work into blocks and strips and shares them among threads; a lowering says what
happens to a strip. `Im2col` is here. `Overlapping` and `Tiled` copy less, `Winograd` multiplies less, and
`Dilated` makes dilated kernels ones that the others know. They have the same methods, so that the loops need
not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any, Protocol

from ..backend import Array
from .columns import add_columns, columns, copied_first, patches
from .products import matmul
from .windows import Geometry, Pads, Sizes


class Lowering(Protocol):
    """From a strip of the padded input to a strip of the output, and the two ways back.

    `weights` stand for w in all of them; a strip's geometry says which windows of x it holds.
    """

    numbers: int  # made and read again for every position of y
    features: int  # F
    size: int  # of the weights
    multiple: int  # rows of a strip come in multiples of this
    work: float  # multiply-accumulates that take its time, for each one of the convolution
    room: int  # how many times PATCH_BYTES a block takes: where a strip is many calls, a larger one pays

    @property
    def pads(self) -> Pads | None:
        """What must lie around x; None: nothing, and strips are `placed` in x as it is."""
        ...

    @property
    def back(self) -> WayBack:
        """The lowering that goes back to x: mostly this one."""
        ...

    def weights(self, w: Array) -> Array:
        """w (F, C / groups, *K) as the matrices (B, F / groups, R) of the products."""
        ...

    def weights_adjoint(self, dweights: Array) -> Array:
        """dw (T, F, C / groups, *K) from dweights (T, B, R, F / groups), R and F exchanged."""
        ...

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """Write the strip of y (n, groups, F / groups, p) that the padded x (n, C, ...) gives.

        `plus`, like y or a bias (groups, F / groups, 1), is added while the strip is in the cache.
        """
        ...

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """dweights (T, B, R, F / groups) of T steps: dy (T, n, groups, F / groups, p), x (T, n, C, ...)."""
        ...

    def held(self, strip: Geometry, samples: int) -> int:
        """Numbers that `backward_w` holds at its peak for a step, its result apart."""
        ...


class WayBack(Lowering, Protocol):
    """A lowering that goes back to x."""

    around: Pads | None  # what must lie around dx, which then holds zeros; None: nothing

    def backward_x(self, weights: Array, dy: Array, strip: Geometry, dx: Array, fresh: bool) -> None:
        """Add to dx (n, C, *S), with zeros `around` it, what a strip dy (n, groups, F / groups, p) says of it.

        A fresh dx may hold anything, and is written.
        """
        ...


Kept = dict[int, dict[Any, Array]]  # by the id of an array, which the caller of `unchanging` holds
_kept: ContextVar[Kept | None] = ContextVar("what was made of weights that stay", default=None)


@contextmanager
def unchanging(weights: Iterable[Array]) -> Iterator[None]:
    """While the block runs, these arrays do not change, and what is made of them is made once."""
    token = _kept.set({id(w): {} for w in weights})
    try:
        yield
    finally:
        _kept.reset(token)


def made_of(w: Array, key: Any, make: Callable[[Array], Array]) -> Array:
    """make(w), kept where w is `unchanging`."""
    kept = (_kept.get() or {}).get(id(w))
    if kept is None:
        return make(w)
    if key not in kept:
        kept[key] = make(w)
    return kept[key]


class Im2col:
    """One matrix a group: y = W cols, where cols are the windows of x side by side.

        R = C / groups * prod(K)        B = groups

    Adjoints: dcols = W^T dy, added back by col2im; dW = dy cols^T.
    """

    multiple = room = 1
    work = 1.0
    around: Pads | None = None

    def __init__(self, geometry: Geometry, w_shape: Sizes, groups: int = 1) -> None:
        self.kernel, self.groups = geometry.kernel, groups
        self.pads: Pads | None = geometry.pads
        self.features, self.channels = w_shape[0], w_shape[1] * groups
        self.numbers = self.channels * geometry.taps
        self.size = prod(w_shape)
        self.back: Im2col = self

    def weights(self, w: Array) -> Array:
        """(G, F / G, C / G * prod(K))."""
        return rows(w, self.groups)

    def weights_adjoint(self, dweights: Array) -> Array:
        """(T, G, R, F / G) -> (T, F, C / G, *K)."""
        steps, groups, _, features = dweights.shape
        return dweights.swapaxes(2, 3).reshape(steps, groups * features, -1, *self.kernel)

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """y = W im2col(x) + plus."""
        cols = columns(x, strip)  # (n, C * K, p)
        matmul(weights, cols.reshape(len(cols), *weights.shape[::2], -1), out=y)
        if plus is not None:
            y += plus

    def backward_x(self, weights: Array, dy: Array, strip: Geometry, dx: Array, fresh: bool) -> None:
        """dx += col2im(W^T dy)."""
        add_columns(dx, matmul(weights.swapaxes(1, 2), dy), strip, fresh)

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """cols dy^T, the columns of several samples side by side, so that the product also sums over them.

        It is the transpose of dW, because BLAS reads its factors faster as they lie.
        """
        steps, samples, groups, features, _ = dy.shape
        view = patches(frames_of(x), strip)  # (T * n, C, *K, *strip)
        view = view.reshape(steps, samples, *view.shape[1:])
        view = view.transpose(0, *range(2, x.ndim), 1, *range(x.ndim, view.ndim))  # (T, C, *K, n, *strip)
        cols = view.reshape(steps, groups, x.shape[2] // groups * strip.taps, -1)  # (T, G, R, n * p), copied
        dy = dy.transpose(0, 2, 3, 1, 4).reshape(steps, groups, features, -1)
        return matmul(cols, dy.swapaxes(2, 3))

    def held(self, strip: Geometry, samples: int) -> int:
        """The columns, what `patches` copies before, and dy where samples are put side by side."""
        beside = self.features if samples > 1 else 0
        viewed = samples == 1 and {*strip.kernel, *strip.stride} == {1}
        positions = (beside + (0 if viewed else self.numbers)) * strip.positions
        return samples * (self.channels * copied_first(strip, samples) + positions)


def rows(w: Array, groups: int) -> Array:
    """w (F, C/G, *K) as one matrix a group, (G, F/G, C/G * prod(K))."""
    return w.reshape(groups, w.shape[0] // groups, -1)


def frames_of(xs: Array) -> Array:
    """(T, N, C, *S) as T * N frames (T * N, C, *S)."""
    return xs.reshape(xs.shape[0] * xs.shape[1], *xs.shape[2:])
