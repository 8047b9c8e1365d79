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

from ..backend import Array, array_module, check_dtypes
from ..init import glorot_uniform
from ..ops.conv import conv_bias_backward, correlate, correlate_adjoint_w, correlate_adjoint_x
from ..ops.windows import Geometry, Window
from .maps import ConvMap, Grads, add_to, as_one_batch, at_rest, laid, written


class FactoredSaved(NamedTuple):
    """References to the arguments, and where both windows lie."""

    x: Array  # (N, C, *S); of a projection (T, N, C, *S)
    first: Array
    second: Array
    geometry: Geometry  # of first
    pointwise: Geometry  # of second
    groups: int  # of first


@dataclass(frozen=True)
class FactoredMap(ConvMap):
    """A `ConvMap` in two steps: `first` (R, C / groups, *K) with the window, then `second` of one tap.

    groups is C / first.shape[1].
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

    def laid(self, x: Array, params: dict[str, Array], sizes: tuple[int, ...]) -> FactoredSaved:
        """What backward needs, for x with spatial `sizes`."""
        first, second = params[self.first], params[self.second]
        check_dtypes(x=x, first=first, second=second)
        geometry = self.over(sizes)
        pointwise = laid(Window((1,) * len(sizes)), geometry.out)
        return FactoredSaved(x, first, second, geometry, pointwise, self.channels(params) // first.shape[1])

    def forward(  # type: ignore[override]
        self, x: Array, params: dict[str, Array], plus: Array | None = None
    ) -> tuple[Array, FactoredSaved]:
        """plus + second * (first * x) + b, a new array (N, blocks * F, *S_out), from x (N, C, *S)."""
        saved = self.laid(x, params, x.shape[2:])
        middle = self.middle(x, saved)
        return correlate(
            middle, saved.second, saved.pointwise, plus=params[self.b] if self.b else plus
        ), saved

    def middle(self, x: Array, saved: FactoredSaved) -> Array:
        """first * x (N, R, *S_out)."""
        return correlate(x, saved.first, saved.geometry, saved.groups)

    def project(  # type: ignore[override]
        self, xs: Array, params: dict[str, Array]
    ) -> tuple[Sequence[Array], FactoredSaved]:
        """(zs, saved): zs[t] (N, blocks * F, *S_out) of frames xs (T, N, C, *S), computed when it is read."""
        return EachStep(self, xs, params), self.laid(xs, params, xs.shape[3:])

    def adjoint_x(self, dz: Array, saved: FactoredSaved, out: Array | None = None) -> Array:
        """dx (N, C, *S) of dz (N, blocks * F, *S_out): both adjoints, second first; into `out`, if given."""
        dmiddle = correlate_adjoint_x(dz, saved.second, saved.pointwise)
        return correlate_adjoint_x(dmiddle, saved.first, saved.geometry, saved.groups, out=out)

    def backward_x(  # type: ignore[override]
        self, dzs: Sequence[Array], saved: FactoredSaved, out: Array | None = None
    ) -> Array:
        """dxs (T, N, C, *S) from dzs, T times (N, blocks * F, *S_out); into `out`, where that is given."""
        dz = as_one_batch(dzs)
        return written(lambda into: self.adjoint_x(dz, saved, into), saved.x.shape, out)

    def add_weight_grads(  # type: ignore[override]
        self, dzs: Sequence[Array], frames: Sequence[Array], saved: FactoredSaved, grads: Grads
    ) -> None:
        """Add both weights' gradients and the bias's, sums over the steps, last step first.

        dsecond = dz (first * x)^T      dfirst = (second^T dz) im2col(x)^T      db = sum dz
        """
        if at_rest(frames[0]):  # a state map's first frame, when the scan began at rest
            dzs, frames = dzs[1:], frames[1:]
        if not len(dzs):
            for name, w in ((self.first, saved.first), (self.second, saved.second)):
                grads.setdefault(name, array_module(w).zeros_like(w))
        elif not self.kernel:  # dense: one product over steps and batch
            dzs, frames = [as_one_batch(dzs)], [as_one_batch(frames)]
        for dz, x in zip(reversed(dzs), reversed(frames), strict=True):
            dmiddle = correlate_adjoint_x(dz, saved.second, saved.pointwise)
            add_to(grads, self.first, correlate_adjoint_w(dmiddle, x, saved.geometry, saved.groups))
            add_to(grads, self.second, correlate_adjoint_w(dz, self.middle(x, saved), saved.pointwise))
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


class EachStep(Sequence[Array]):
    """zs of a map, each computed when it is read."""

    def __init__(self, over: FactoredMap, xs: Array, params: dict[str, Array]) -> None:
        self.map, self.xs, self.params = over, xs, params

    def __len__(self) -> int:
        return len(self.xs)

    def __getitem__(self, t: Any) -> Any:
        if isinstance(t, slice):
            return [self[k] for k in range(*t.indices(len(self)))]
        return self.map.forward(self.xs[t], self.params)[0]


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
