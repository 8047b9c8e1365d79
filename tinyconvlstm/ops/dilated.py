"""A dilated axis is two axes: dilated kernels for lowerings that know none.

With a dilation of d, output p reads pixels p, p + d, p + 2 d, ... So the rows fall apart into d interleaved
images that never meet: row d q + a is row q of image a. Written as two axes, (rows / d, d), which
moves nothing in memory, the kernel has its taps side by side on the first and a single tap on the second:
a convolution without dilation, of one axis more.

Source: Holschneider et al. 1989 (the "a trous" algorithm); Yu & Koltun 2016, arXiv 1511.07122.
"""

from __future__ import annotations

from ..backend import Array, array_module
from .lowering import Im2col
from .windows import Geometry, Pads


class Dilated:
    """A lowering of one axis more, given the first axis in two: `lowering.Lowering` tells what the methods do."""

    def __init__(self, geometry: Geometry, inner: Im2col) -> None:
        self.inner, self.d, self.kernel = inner, geometry.dilation[0], geometry.kernel
        self.numbers, self.size, self.features = inner.numbers, inner.size, inner.features
        self.room, self.work, self.multiple = inner.room, inner.work, inner.multiple * self.d
        self.back: Dilated = self if inner.back is inner else Dilated(geometry, inner.back)
        before, size = geometry.pads[0][0], geometry.sizes[0]
        behind = max(0, self.rows(geometry) - size - before)  # rows behind the last window are not read
        self.pads = ((before, behind), *geometry.pads[1:])
        self.around: Pads | None = (self.pads[0], *((0, 0) for _ in geometry.sizes[1:]))

    def weights(self, w: Array) -> Array:
        """As `inner` makes them, of w (F, C / groups, K1, 1, ...)."""
        return self.inner.weights(w.reshape(*w.shape[:3], 1, *w.shape[3:]))

    def weights_adjoint(self, dweights: Array) -> Array:
        """dw (T, F, C, *K)."""
        dw = self.inner.weights_adjoint(dweights)
        return dw.reshape(*dw.shape[:3], *self.kernel)

    def forward(self, weights: Array, x: Array, strip: Geometry, y: Array, plus: Array | None) -> None:
        """y, whose last images may lack their last row."""
        inner, p = in_two(strip), y.shape[-1]
        whole = y
        if p < inner.positions:
            whole = array_module(y).empty((*y.shape[:-1], inner.positions), dtype=y.dtype)
        self.inner.forward(weights, self.split(x, strip), inner, whole, None)
        if whole is not y:
            y[...] = whole[..., :p]
        if plus is not None:
            y += plus

    def backward_x(self, weights: Array, dy: Array, strip: Geometry, dx: Array, fresh: bool) -> None:
        """dx += what dy says of it, seen as two axes."""
        inner, there = in_two(strip), self.split(dx, strip)
        inner = inner._replace(sizes=there.shape[2:])
        self.inner.backward_x(weights, completed(dy, inner), inner, there, fresh)

    def backward_w(self, dy: Array, x: Array, strip: Geometry) -> Array:
        """dweights of the kernel without dilation."""
        inner = in_two(strip)
        return self.inner.backward_w(completed(dy, inner), self.split(x, strip), inner)

    def held(self, strip: Geometry, samples: int) -> int:
        """What `inner` holds, and dy with the rows that are there in vain."""
        inner = in_two(strip)
        vain = inner.positions > strip.positions
        return self.inner.held(inner, samples) + vain * samples * self.features * inner.positions

    def rows(self, strip: Geometry) -> int:
        """Padded rows under a strip's tiles, the last of which may hang over."""
        m = self.inner.multiple
        return (-(-strip.out[0] // (self.d * m)) * m + strip.kernel[0] - 1) * self.d

    def split(self, x: Array, strip: Geometry) -> Array:
        """The padded x (..., C, rows, ...) as a view (..., C, rows / d, d, ...)."""
        rows, axis = self.rows(strip), x.ndim - len(strip.out)
        x = x[(*(slice(None),) * axis, slice(rows))]
        return x.reshape(*x.shape[:axis], rows // self.d, self.d, *x.shape[axis + 1 :])


def in_two(geometry: Geometry) -> Geometry:
    """The first axis as (windows / d, d), without dilation; the last rows of some images may be there in vain."""
    d = geometry.dilation[0]
    rows = -(-geometry.out[0] // d)
    return Geometry(
        sizes=(rows + geometry.kernel[0] - 1, d, *geometry.sizes[1:]),
        kernel=(geometry.kernel[0], 1, *geometry.kernel[1:]),
        stride=(1, 1, *geometry.stride[1:]),
        pads=((0, 0), (0, 0), *geometry.pads[1:]),
        dilation=(1, 1, *geometry.dilation[1:]),
        out=(rows, d, *geometry.out[1:]),
    )


def completed(dy: Array, inner: Geometry) -> Array:
    """dy (..., p) with zeros for the rows that are there in vain."""
    lacking = inner.positions - dy.shape[-1]
    if not lacking:
        return dy
    xp = array_module(dy)
    return xp.concatenate([dy, xp.zeros((*dy.shape[:-1], lacking), dtype=dy.dtype)], axis=-1)
