"""Lighter maps: two small convolutions in a row in place of one large one.

    z = second * (first * x) + b

Nothing bends between the two, so the pair is one convolution whose kernel is written as a product:
every identity of the plain map holds with that product as its kernel. The input of `second` is not
kept; backward computes it again, because it costs little next to the memory of every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..init import glorot_uniform
from ..ops.conv import (
    conv_bias_backward,
    conv_forward,
    correlate_adjoint_w,
    correlate_adjoint_x,
)
from ..ops.windows import Geometry
from .maps import ConvMap, Grads, add_to


class FactoredSaved(NamedTuple):
    """References to the arguments, and where both windows lie."""

    x: Array  # (N, C, *S)
    first: Array
    second: Array
    geometry: Geometry  # of first
    pointwise: Geometry  # of second


@dataclass(frozen=True)
class FactoredMap(ConvMap):
    """A `ConvMap` in two steps: `first` (R, C / groups, *K) with the window, then `second` of one tap.

    groups is read off the shapes: C / first.shape[1].
    """

    names = ("first", "second")  # what the parameters are called after w

    @property
    def first(self) -> str:
        """Name of the first weights."""
        return f"{self.w}_{self.names[0]}"

    @property
    def second(self) -> str:
        """Name of the second weights (blocks * F, R, *1)."""
        return f"{self.w}_{self.names[1]}"

    def factors(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> tuple[Array, Array]:
        """Fresh (first, second)."""
        raise NotImplementedError(type(self).__name__)

    def init(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> dict[str, Array]:
        """Fresh parameters, and a bias of zeros."""
        first, second = self.factors(rng, channels, features, blocks, dtype)
        params = {self.first: first, self.second: second}
        return params if self.b is None else params | {self.b: np.zeros(blocks * features, dtype=dtype)}

    def forward(  # type: ignore[override]
        self, x: Array, params: dict[str, Array]
    ) -> tuple[Array, FactoredSaved]:
        """z (N, blocks * F, *S_out) of x (N, C, *S)."""
        first, second = params[self.first], params[self.second]
        middle, saved = self.middle(x, first)
        z, pointwise = conv_forward(middle, second, params[self.b] if self.b else None)
        return z, FactoredSaved(x, first, second, saved.geometry, pointwise.geometry)

    def middle(self, x: Array, first: Array) -> tuple[Array, Any]:
        """first * x (N, R, *S_out), and what its backward would need."""
        return conv_forward(x, first, window=self.window, groups=x.shape[1] // first.shape[1])

    def adjoint_x(self, dz: Array, saved: FactoredSaved) -> Array:
        """dx (N, C, *S) of dz (N, blocks * F, *S_out): both adjoints, second first."""
        dmiddle = correlate_adjoint_x(dz, saved.second, saved.pointwise)
        groups = saved.x.shape[1] // saved.first.shape[1]
        return correlate_adjoint_x(dmiddle, saved.first, saved.geometry, groups)

    def backward_x(self, dzs: Sequence[Array], saved: FactoredSaved) -> Array:  # type: ignore[override]
        """dxs (T, N, C, *S) from dzs, T times (N, blocks * F, *S_out)."""
        return array_module(dzs[0]).stack([self.adjoint_x(dz, saved) for dz in dzs])

    def add_weight_grads(  # type: ignore[override]
        self, dzs: Sequence[Array], frames: Sequence[Array], saved: FactoredSaved, grads: Grads
    ) -> None:
        """Add both weights' gradients and the bias's, sums over the steps, last step first.

        dsecond = dz (first * x)^T      dfirst = (second^T dz) im2col(x)^T      db = sum dz
        """
        groups = saved.x.shape[1] // saved.first.shape[1]
        if not self.kernel:  # dense: one product over steps and batch
            xp = array_module(dzs[0])
            dzs, frames = [xp.concatenate(list(dzs))], [xp.concatenate(list(frames))]
        for dz, x in zip(reversed(dzs), reversed(frames), strict=True):
            middle = self.middle(x, saved.first)[0]
            dmiddle = correlate_adjoint_x(dz, saved.second, saved.pointwise)
            add_to(grads, self.first, correlate_adjoint_w(dmiddle, x, saved.geometry, groups))
            add_to(grads, self.second, correlate_adjoint_w(dz, middle, saved.pointwise))
            if self.b is not None:
                add_to(grads, self.b, conv_bias_backward(dz))

    def channels(self, params: dict[str, Array]) -> int:
        """C, as the weights have it."""
        raise NotImplementedError(type(self).__name__)

    def check(self, x: Array, params: dict[str, Array]) -> None:
        """Raise a ValueError where frames x (N, C, *S) do not fit this map."""
        w, C = params[self.first], self.channels(params)
        if x.ndim != w.ndim:
            raise ValueError(
                f"a frame has shape {tuple(x.shape)}, expected (N, C, *S) with {w.ndim - 2} spatial axes "
                f"({self.first}.shape == {w.shape})"
            )
        if x.shape[1] != C:
            raise ValueError(
                f"x has {x.shape[1]} channels, {self.first} expects {C} ({self.first}.shape == {w.shape})"
            )

    def cost(self, params: dict[str, Array]) -> int:
        """Multiply-accumulates of one sample at one position: every weight is used once."""
        return int(params[self.first].size + params[self.second].size)


@dataclass(frozen=True)
class SeparableMap(FactoredMap):
    """Depthwise, then pointwise: every channel has one kernel, and the gates mix what comes out.

        middle[c] = w_depth[c] * x[c]        z = w_point middle + b        w[f, c, k] = w_point[f, c] w_depth[c, k]

    Parameters: w_depth (C, 1, *K), w_point (blocks * F, C, *1): C (K + blocks F) and not blocks F C K.
    Source: Chollet 2017, "Xception", arXiv 1610.02357, section 1; Howard et al. 2017, "MobileNets",
        arXiv 1704.04861, section 3.1, whose equation 5 is the cost.
    """

    names = ("depth", "point")

    def factors(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> tuple[Array, Array]:
        """Glorot; each channel's kernel is a map of its own."""
        depth = glorot_uniform(rng, (channels, 1, *self.kernel), dtype, gates=channels)
        ones = (1,) * len(self.kernel)
        return depth, glorot_uniform(rng, (blocks * features, channels, *ones), dtype, gates=blocks)

    def channels(self, params: dict[str, Array]) -> int:
        """C: one depthwise kernel each."""
        return int(params[self.first].shape[0])


@dataclass(frozen=True)
class LowRankMap(FactoredMap):
    """A convolution to `rank` channels, then a pointwise one: the kernel as a product of rank R.

        middle = w_v * x        z = w_u middle + b        w[f, c, k] = sum_r w_u[f, r] w_v[r, c, k]

    Parameters: w_v (R, C, *K), w_u (blocks * F, R, *1): R (C K + blocks F) and not blocks F C K. With
    R at least min(blocks F, C K) every kernel can be written so.
    Source: Denil et al. 2013, "Predicting parameters in deep learning", arXiv 1306.0543;
        in an LSTM: Kuchaiev, Ginsburg 2017, "Factorization tricks for LSTM networks", arXiv
        1703.10722.
    """

    names = ("v", "u")
    rank: int = 1

    def factors(
        self, rng: np.random.Generator, channels: int, features: int, blocks: int, dtype: Any
    ) -> tuple[Array, Array]:
        """Glorot; v feeds all gates at once, u is a map of its own for each gate."""
        ones = (1,) * len(self.kernel)
        v = glorot_uniform(rng, (self.rank, channels, *self.kernel), dtype)
        return v, glorot_uniform(rng, (blocks * features, self.rank, *ones), dtype, gates=blocks)

    def channels(self, params: dict[str, Array]) -> int:
        """C, that w_v reads."""
        return int(params[self.first].shape[1])
