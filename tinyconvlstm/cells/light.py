"""Light LSTMs: the gates of `LSTMCell` over maps with fewer weights."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from ..backend import Array
from .base import masked
from .lstm import LSTMCell
from .maps import ConvMap, at_rest
from .maps_factored import FactoredMap, LowRankMap, SeparableMap


class LightLSTMCell(LSTMCell):
    """`LSTMCell` with both maps replaced by what `lighter` makes of them; the gates are the same."""

    state_map: FactoredMap

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
        **settings: Any,
    ) -> None:
        super().__init__(channels, features, kernel, dtype=dtype, **settings)
        rng = np.random.default_rng(rng)
        params: dict[str, Array] = {}
        if isinstance(self.input_map, ConvMap):
            self.input_map = self.lighter(self.input_map)
            params |= self.input_map.init(rng, channels, features, len(self.gates), dtype)
        self.state_map = self.lighter(self.state_map)
        params |= self.state_map.init(rng, features, features, len(self.gates), dtype)
        others = {name: a for name, a in self.params.items() if name not in ("w_x", "w_h")}
        self.params = params | others  # b, with its forget bias, and peepholes

    def lighter(self, conv: ConvMap) -> FactoredMap:
        """The map to put in the place of a convolution."""
        raise NotImplementedError(type(self).__name__)

    def state_map_backward(self, dz: Array, saved: Any, h_mask: Array | None) -> Array | None:
        """dh from dz through the state map; None where h is at rest, a constant."""
        return None if at_rest(saved.x) else masked(self.state_map.adjoint_x(dz, saved), h_mask)


class SeparableLSTMCell(LightLSTMCell):
    """`LSTMCell` over depthwise-separable maps: each channel's own kernel, then a mix of channels.

        z = w_x_point (w_x_depth * x) + w_h_point (w_h_depth * h) + b           gates as `LSTMCell`

    It equals `LSTMCell` with w[f, c, k] = point[f, c] depth[c, k]. Args: as `LSTMCell`. Parameters:
    w_x_depth (C, 1, *K), w_x_point (4F, C, *1), w_h_depth (F, 1, *K), w_h_point (4F, F, *1), b, w_c.
    Source: maps: see `SeparableMap`; gates: Shi et al. 2015, arXiv 1506.04214, equation 3.
    """

    def lighter(self, conv: ConvMap) -> SeparableMap:
        """Depthwise, then pointwise, with the convolution's window."""
        return SeparableMap(**settings_of(conv))


class LowRankLSTMCell(LightLSTMCell):
    """`LSTMCell` over maps of rank `rank`: a convolution to that many channels, then a mix of them.

        z = w_x_u (w_x_v * x) + w_h_u (w_h_v * h) + b                           gates as `LSTMCell`

    It equals `LSTMCell` with w[f, c, k] = sum_r u[f, r] v[r, c, k].

    Args:
        rank: R, channels between the two halves of each map. The others as `LSTMCell`.
    Parameters: w_x_v (R, C, *K), w_x_u (4F, R, *1), w_h_v (R, F, *K), w_h_u (4F, R, *1), b, w_c.
    Source: maps: see `LowRankMap`; gates: Shi et al. 2015, arXiv 1506.04214, equation 3.
    """

    def __init__(
        self, channels: int, features: int, kernel: tuple[int, ...] = (), *, rank: int, **settings: Any
    ) -> None:
        if rank < 1:
            raise ValueError(f"rank is {rank}, expected at least 1")
        self.rank = rank
        super().__init__(channels, features, kernel, **settings)

    def lighter(self, conv: ConvMap) -> LowRankMap:
        """A map of this cell's rank, with the convolution's window."""
        return LowRankMap(**settings_of(conv), rank=self.rank)


def settings_of(conv: ConvMap) -> dict[str, Any]:
    """What a map was made with, by name."""
    return {field.name: getattr(conv, field.name) for field in fields(conv)}
