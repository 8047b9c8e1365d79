"""The linear maps of a cell: from input to gates, and from state to gates.

A map knows its shape and the names of its parameters; the parameters themselves stay in the cell's
one flat dictionary. A variant of a cell is often the same cell with another map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..init import glorot_uniform, orthogonal
from ..ops.conv import (
    ConvSaved,
    conv_bias_backward,
    conv_forward,
    correlate_adjoint_w,
    correlate_adjoint_x,
)
from ..ops.windows import Window

Grads = dict[str, Array]


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

    def out(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial sizes of the result for an input of spatial `sizes`."""
        return self.window.over(sizes).out

    def init(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> dict[str, Array]:
        """Fresh parameters: Glorot for an input or a convolution, orthogonal for a dense state map."""
        shape = (blocks * features, channels, *self.kernel)
        dense_state = self.b is None and not self.kernel
        draw = orthogonal if dense_state else glorot_uniform
        params = {self.w: draw(rng, shape, dtype=dtype, gates=blocks)}
        return params if self.b is None else params | {self.b: np.zeros(blocks * features, dtype=dtype)}

    def forward(self, x: Array, params: dict[str, Array]) -> tuple[Array, ConvSaved]:
        """z (N, blocks * F, *S_out) of x (N, C, *S)."""
        return conv_forward(x, params[self.w], params[self.b] if self.b else None, window=self.window)

    def backward_x(self, dzs: Sequence[Array], saved: ConvSaved) -> Array:
        """dxs (T, N, C, *S) from dzs, T times (N, blocks * F, *S_out)."""
        xp = array_module(dzs[0])
        if not saved.geometry.kernel:
            return xp.stack(dzs) @ saved.w  # dense: one product for all steps
        return xp.stack([correlate_adjoint_x(dz, saved.w, saved.geometry) for dz in dzs])

    def add_weight_grads(
        self, dzs: Sequence[Array], frames: Sequence[Array], saved: ConvSaved, grads: Grads
    ) -> None:
        """Add dw = sum_t dz_t im2col(x_t)^T and db = sum_t sum_{n, p} dz_t to `grads`.

        Args:
            dzs: T times (N, blocks * F, *S_out).
            frames: T times (N, C, *S), what the map read at each step.
            saved: of any call of the map; only its geometry is read.
            grads: running sums, last step first, so that a sequence cut into segments adds up in
                exactly the same order as a whole one.
        """
        if not saved.geometry.kernel:  # dense: one product over steps and batch
            xp = array_module(dzs[0])
            dzs, frames = [xp.concatenate(list(dzs))], [xp.concatenate(list(frames))]
        for dz, x in zip(reversed(dzs), reversed(frames), strict=True):
            add_to(grads, self.w, correlate_adjoint_w(dz, x, saved.geometry))
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


class BiasSaved(NamedTuple):
    """The empty input, for its shape."""

    x: Array  # (N, 0, *S)


@dataclass(frozen=True)
class BiasMap:
    """z = b everywhere: the input map of a cell without input, whose frames have 0 channels."""

    b: str  # name of the bias (blocks * F,)

    def out(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """`sizes` as they are."""
        return sizes

    def init(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> dict[str, Array]:
        """A bias of zeros."""
        return {self.b: np.zeros(blocks * features, dtype=dtype)}

    def forward(self, x: Array, params: dict[str, Array]) -> tuple[Array, BiasSaved]:
        """z (N, blocks * F, *S), a view that repeats b, for x (N, 0, *S)."""
        b = params[self.b]
        shape = (x.shape[0], b.shape[0], *x.shape[2:])
        return array_module(x=x, b=b).broadcast_to(b.reshape(-1, *(1,) * (x.ndim - 2)), shape), BiasSaved(x)

    def backward_x(self, dzs: Sequence[Array], saved: BiasSaved) -> Array:
        """The empty gradient (T, N, 0, *S)."""
        return saved.x.reshape(len(dzs), saved.x.shape[0] // len(dzs), *saved.x.shape[1:])

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


def frames_of(xs: Array) -> Array:
    """(T, N, C, *S) as T * N frames (T * N, C, *S)."""
    return xs.reshape(xs.shape[0] * xs.shape[1], *xs.shape[2:])


def add_to(grads: Grads, name: str, value: Array) -> None:
    """grads[name] += value, beginning with value itself."""
    if name in grads:
        grads[name] += value
    else:
        grads[name] = value
