"""The linear maps of a cell: from input to gates, and from state to gates.

A map knows its shape and the names of its parameters; the parameters themselves stay in the cell's
one flat dictionary. A variant of a cell is often the same cell with another map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from ..backend import Array, array_module, check_dtypes
from ..init import glorot_uniform, orthogonal
from ..ops.conv import (
    ConvSaved,
    add_in_place,
    conv_bias_backward,
    correlate,
    correlate_adjoint_w,
    correlate_adjoint_w_steps,
    correlate_adjoint_x,
)
from ..ops.lowering import frames_of
from ..ops.windows import Geometry, Window

Grads = dict[str, Array]
Z_BYTES = 3 << 20  # about a cache: small steps are taken together, for the calls of Python that this saves


@dataclass(frozen=True)
class ConvMap:
    """z = w * x + b, a convolution over len(kernel) spatial axes; with kernel () a dense matrix."""

    w: str  # name of the weights (blocks * F, C, *K)
    b: str | None  # name of the bias (blocks * F,), or None
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Any = "same"
    dilation: int | tuple[int, ...] = 1

    @property
    def window(self) -> Window:
        """The window of the convolution."""
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    @cached_property
    def geometries(self) -> dict[tuple[int, ...], Geometry]:
        """The window laid over inputs of some sizes, remembered: a scan asks for the same one at every step."""
        return {}

    def over(self, sizes: tuple[int, ...]) -> Geometry:
        """The window laid over an input of spatial `sizes`."""
        if sizes not in self.geometries:
            self.geometries[sizes] = self.window.over(sizes)
        return self.geometries[sizes]

    def out(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial sizes of the result for an input of spatial `sizes`."""
        return self.over(sizes).out

    def init(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> dict[str, Array]:
        """Fresh parameters: Glorot for an input or a convolution, orthogonal for a dense state map."""
        shape = (blocks * features, channels, *self.kernel)
        dense_state = self.b is None and not self.kernel
        draw = orthogonal if dense_state else glorot_uniform
        params = {self.w: draw(rng, shape, dtype=dtype, gates=blocks)}
        return params if self.b is None else params | {self.b: np.zeros(blocks * features, dtype=dtype)}

    def forward(
        self, x: Array, params: dict[str, Array], plus: Array | None = None
    ) -> tuple[Array, ConvSaved]:
        """plus + w * x + b, a new array (N, blocks * F, *S_out), from x (N, C, *S).

        `plus`, like the result, is what the sum begins with; a map with a bias has none.
        """
        w = params[self.w]
        saved = ConvSaved(x, w, self.b is not None, self.over(x.shape[2:]), 1)
        if x.dtype is not w.dtype:
            check_dtypes(x=x, w=w)
        if at_rest(x) and self.b is None:  # w * 0 = 0
            shape = (x.shape[0], w.shape[0], *saved.geometry.out)
            return zeros(x, shape) if plus is None else plus.copy(), saved
        return correlate(x, w, saved.geometry, plus=params[self.b] if self.b else plus), saved

    def project(self, xs: Array, params: dict[str, Array]) -> tuple[Sequence[Array], ConvSaved]:
        """(zs, saved): zs[t] (N, blocks * F, *S_out) of frames xs (T, N, C, *S).

        A dense map takes all steps in one product. A convolution works through its batch in blocks
        anyway: a zs[t] is computed when it is read, and T large ones never stand side by side.
        """
        w, b = params[self.w], params[self.b] if self.b else None
        check_dtypes(x=xs, w=w)
        saved = ConvSaved(xs, w, b is not None, self.over(xs.shape[3:]), 1)
        if saved.geometry.kernel:
            return Projected(saved, b), saved
        z = array_module(xs).matmul(w, xs.swapaxes(1, 2))  # (T, blocks * F, N): see `correlate`
        return (z if b is None else add_in_place(z, b[:, None])).swapaxes(1, 2), saved

    def backward_x(self, dzs: Sequence[Array], saved: ConvSaved, out: Array | None = None) -> Array:
        """dxs (T, N, C, *S) from dzs, T times (N, blocks * F, *S_out); into `out`, where that is given."""
        dz, shape = as_one_batch(dzs), saved.x.shape
        if not saved.geometry.kernel:
            return (dz @ saved.w).reshape(shape)
        return written(lambda into: correlate_adjoint_x(dz, saved.w, saved.geometry, out=into), shape, out)

    def add_weight_grads(
        self, dzs: Sequence[Array], frames: Sequence[Array], saved: ConvSaved, grads: Grads
    ) -> None:
        """Add dw = sum_t dz_t im2col(x_t)^T and db = sum_t sum_{n, p} dz_t to `grads`.

        Args:
            dzs: T times (N, blocks * F, *S_out).
            frames: T times (N, C, *S), what the map read at each step.
            saved: of any call of the map; only its geometry and the shape of w are read.
            grads: running sums, last step first, so that a sequence cut into segments adds up in
                exactly the same order as a whole one.
        """
        if at_rest(frames[0]):  # a state map's first frame, when the scan began at rest
            dzs, frames = dzs[1:], frames[1:]
        if not len(dzs):
            grads.setdefault(self.w, array_module(saved.w).zeros_like(saved.w))
        elif saved.geometry.kernel:
            dz, x = as_array(dzs), as_array(frames)
            for dw in correlate_adjoint_w_steps(dz, x, saved.geometry):
                first = len(dz) > 1 and self.w not in grads  # a view of it would hold other steps' dw
                add_to(grads, self.w, dw.copy(order="K") if first else dw)
                del dw  # before those of the steps before are made
            if self.b is not None:
                for db in reversed(dz.sum(axis=(1, *range(3, dz.ndim)))):
                    add_to(grads, self.b, db)
        else:  # dense: one product over steps and batch
            dz = as_one_batch(dzs)
            add_to(grads, self.w, correlate_adjoint_w(dz, as_one_batch(frames), saved.geometry))
            if self.b is not None:
                add_to(grads, self.b, conv_bias_backward(dz))

    def check(self, x: Array, params: dict[str, Array]) -> None:
        """Raise a ValueError where frames x (N, C, *S) do not fit this map."""
        w = params[self.w]
        if x.ndim != w.ndim:
            raise ValueError(
                f"a frame has shape {tuple(x.shape)}, expected (N, C, *S) with {w.ndim - 2} spatial axes "
                f"({self.w}.shape == {w.shape})"
            )
        if x.shape[1] != w.shape[1]:
            raise ValueError(
                f"x has {x.shape[1]} channels, {self.w} expects {w.shape[1]} ({self.w}.shape == {w.shape})"
            )

    def cost(self, params: dict[str, Array]) -> int:
        """Multiply-accumulates of one sample at one position."""
        return int(params[self.w].size)


class Projected(Sequence[Array]):
    """zs of a convolutional input map, computed when they are read, as many steps at once as fit in a cache."""

    def __init__(self, saved: ConvSaved, b: Array | None) -> None:
        self.saved, self.b = saved, b  # saved.x is xs (T, N, C, *S)
        self.size = steps_at_once(saved.x[0], saved.geometry, len(saved.w))
        self.begin, self.zs = 0, saved.x[:0]  # the steps computed last

    def __len__(self) -> int:
        return len(self.saved.x)

    def __getitem__(self, t: Any) -> Array:
        t = range(len(self))[t]
        if not self.begin <= t < self.begin + len(self.zs):
            self.begin = t - t % self.size
            xs = self.saved.x[self.begin : self.begin + self.size]
            z = correlate(frames_of(xs), self.saved.w, self.saved.geometry, plus=self.b)
            self.zs = z.reshape(*xs.shape[:2], *z.shape[1:])
        return self.zs[t - self.begin]


class BiasSaved(NamedTuple):
    """The empty input, for its shape."""

    x: Array  # (T, N, 0, *S)


@dataclass(frozen=True)
class BiasMap:
    """z = b everywhere: the input map of a cell without input, whose frames have 0 channels."""

    b: str  # name of the bias (blocks * F,)

    def over(self, sizes: tuple[int, ...]) -> Geometry:
        """A window of one tap: every position as it is."""
        return laid(Window((1,) * len(sizes)), tuple(sizes))

    def out(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """`sizes` as they are."""
        return sizes

    def init(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> dict[str, Array]:
        """A bias of zeros."""
        return {self.b: np.zeros(blocks * features, dtype=dtype)}

    def project(self, xs: Array, params: dict[str, Array]) -> tuple[Array, BiasSaved]:
        """zs (T, N, blocks * F, *S), a view that repeats b."""
        b = params[self.b]
        shape = (*xs.shape[:2], b.shape[0], *xs.shape[3:])
        return array_module(xs=xs, b=b).broadcast_to(b.reshape(-1, *(1,) * (xs.ndim - 3)), shape), BiasSaved(
            xs
        )

    def backward_x(self, dzs: Sequence[Array], saved: BiasSaved, out: Array | None = None) -> Array:
        """The empty gradient (T, N, 0, *S)."""
        return saved.x

    def add_weight_grads(
        self, dzs: Sequence[Array], frames: Sequence[Array], saved: BiasSaved, grads: Grads
    ) -> None:
        """Add db = sum_t sum_{n, p} dz_t to `grads`, last step first."""
        for dz in reversed(dzs):
            add_to(grads, self.b, conv_bias_backward(dz))

    def check(self, x: Array, params: dict[str, Array]) -> None:
        """ValueError unless x has 0 channels."""
        if x.ndim < 2 or x.shape[1] != 0:
            raise ValueError(f"x.shape is {tuple(x.shape)}, expected (N, 0, *S): this cell has no input")

    def cost(self, params: dict[str, Array]) -> int:
        """Nothing is multiplied."""
        return 0


@lru_cache(maxsize=256)
def laid(window: Window, sizes: tuple[int, ...]) -> Geometry:
    """`window.over(sizes)`, remembered: a scan asks for the same one at every step."""
    return window.over(sizes)


# the zeros that `rest` repeats, by id, as long as an array repeats them
_zeros: WeakValueDictionary[int, Any] = WeakValueDictionary()


def rest(x: Array) -> Array:
    """Zeros like x that take no memory: one 0, repeated. A map knows them by `at_rest` and skips them."""
    xp = array_module(x)
    zero = xp.zeros((), dtype=x.dtype)
    _zeros[id(zero)] = zero
    return xp.broadcast_to(zero, x.shape)


def at_rest(h: Array) -> bool:
    """Whether h was made by `rest`, or is a part of such an array. Other zeros, and a single one, are not at rest.

    The number is not read: on a GPU that would wait for all work before, and no captured graph may do it.
    """
    if any(h.strides) or h.size < 2:
        return False  # the common case, quickly
    return h.base is not None and _zeros.get(id(h.base)) is h.base


def zeros(x: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of a shape, with x's dtype on x's backend."""
    return array_module(x).zeros(shape, dtype=x.dtype)


def written(make: Callable[[Array | None], Array], shape: tuple[int, ...], out: Array | None) -> Array:
    """make(into), T * N frames, as an array of `shape` (T, N, ...); made in `out`, if that is one batch in memory."""
    if out is None:
        return make(None).reshape(shape)
    if out.flags.c_contiguous:
        return make(frames_of(out)).reshape(shape)
    out[...] = make(None).reshape(shape)
    return out


def as_one_batch(frames: Any) -> Array:
    """T frames (N, ...), as an array (T, N, ...) or a list of arrays, as one batch (T * N, ...).

    Matrices that lie in memory column by column, as single products leave them, are put together so.
    """
    frames = lined_up(frames)
    if hasattr(frames, "shape"):
        return frames_of(frames)
    xp, first = array_module(frames[0]), frames[0]
    if first.ndim == 2 and first.flags.f_contiguous:
        return xp.concatenate([frame.T for frame in frames], axis=1).T
    return xp.concatenate(list(frames))


def as_array(frames: Any) -> Array:
    """T frames (N, ...), as an array or a list of arrays, as an array (T, N, ...)."""
    frames = lined_up(frames)
    return frames if hasattr(frames, "shape") else array_module(frames[0]).stack(list(frames))


def lined_up(frames: Any) -> Any:
    """A list of arrays that lie in one block of the CPU's memory, evenly spaced, as that array; else as it is.

    The hidden states of a scan do: what a state map read at steps 1 to T - 1 is ys, without a copy.
    """
    if hasattr(frames, "shape"):
        return frames
    first = frames[0]
    if len(frames) == 1:
        return first[None]
    if not all(isinstance(f, np.ndarray) and f.base is first.base is not None for f in frames):
        return frames
    if any((f.shape, f.strides, f.dtype) != (first.shape, first.strides, first.dtype) for f in frames):
        return frames
    places = [f.__array_interface__["data"][0] for f in frames]
    step = places[1] - places[0]
    if step < first.nbytes or any(b - a != step for a, b in pairwise(places)):
        return frames
    view: Array = np.lib.stride_tricks.as_strided(first, (len(frames), *first.shape), (step, *first.strides))
    return view


def steps_at_once(x: Array, geometry: Geometry, features: int) -> int:
    """How many steps a convolution of frames like x (N, C, *S) takes together: those whose z fit in Z_BYTES."""
    return max(1, Z_BYTES // max(1, int(x.shape[0]) * features * geometry.positions * int(x.dtype.itemsize)))


def add_to(grads: Grads, name: str, value: Array) -> None:
    """grads[name] += value, beginning with value itself."""
    if name in grads:
        grads[name] += value
    else:
        grads[name] = value
