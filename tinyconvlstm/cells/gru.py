"""GRU and ConvGRU, in both conventions for the reset gate.

`GRUCell` applies the reset gate after the state map, as cuDNN, PyTorch and Keras (reset_after=True)
do: one product a step. `ResetBeforeGRUCell` applies it before, as Cho et al. 2014 wrote it: two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.conv import ConvSaved, add_in_place, conv_bias_backward, correlate_adjoint_w, correlate_adjoint_x
from ..ops.gates import (
    GRU_GATES,
    GRUGatesSaved,
    GRUResetSaved,
    GRUUpdateSaved,
    gru_gates_backward,
    gru_gates_forward,
    gru_reset_backward,
    gru_reset_forward,
    gru_update_backward,
    gru_update_forward,
)
from .base import TwoMapCell, masked, zeros
from .maps import Grads, add_to
from .rnn import RNNState


class GRUGradient(NamedTuple):
    """dz of a step: the two maps' pre-activations differ by the reset gate."""

    x: Array  # (N, 3F, *S), for the input map
    h: Array  # (N, 3F, *S), for the state map


class GRUStepSaved(NamedTuple):
    """What one backward step needs."""

    gates: GRUGatesSaved
    state_map: ConvSaved
    h_mask: Array | None


class GRUCell(TwoMapCell):
    """GRU over 0 to 3 spatial axes, reset gate after the state map.

        r = sigmoid(w_xr * x + w_hr * h + b_r)
        u = sigmoid(w_xu * x + w_hu * h + b_u)
        n = tanh(w_xn * x + b_n + r . (w_hn * h + b_hn))
        h' = (1 - u) . n + u . h

    Args: as `TwoMapCell`. Parameters: w_x (3F, C, *K), w_h (3F, F, *K), b (3F,), b_hn (F,).
    Source: Cho et al. 2014, arXiv 1406.1078, equations 5 to 8, with r after the map; as a
        convolution: Ballas et al. 2016, arXiv 1511.06432, equations 5 to 8.
    """

    gates = GRU_GATES
    states = 1
    kept_per_step = 6  # r, u, n and the state map's three blocks
    room_per_step = 4  # dz_r, dz_u, dz_n, dh
    room_beside_map = 2  # dh along both paths

    def __init__(self, channels: int, features: int, kernel: tuple[int, ...] = (), **settings: Any) -> None:
        super().__init__(channels, features, kernel, **settings)
        self.params["b_hn"] = np.zeros(features, dtype=self.params["w_h"].dtype)

    def initial_state(self, x: Array) -> RNNState:
        """h = 0, (N, F, *S), for frames like x (N, C, *S)."""
        return RNNState(zeros(x, self.state_shape(x)))

    def step(self, z: Array, state: RNNState, h_mask: Array | None = None) -> tuple[RNNState, GRUStepSaved]:
        """One step from z (N, 3F, *S): the new state, and what backward needs."""
        z_h, map_saved = self.state_map.forward(masked(state.h, h_mask), self.params)
        z_h[:, 2 * self.features :] += self.params["b_hn"].reshape(-1, *(1,) * len(self.kernel))
        h, gates = gru_gates_forward(z, z_h, state.h)
        return RNNState(h), GRUStepSaved(gates, map_saved, h_mask)

    def step_backward(self, dstate: RNNState, saved: GRUStepSaved) -> tuple[GRUGradient, RNNState, Grads]:
        """dz for both maps, and dh_prev: the direct path plus the state map's."""
        dz_x, dz_h, dh_prev = gru_gates_backward(dstate.h, saved.gates)
        dh_map = self.state_map_backward(dz_h, saved.state_map, saved.h_mask)
        dh_prev = None if dh_map is None else add_in_place(dh_map, dh_prev)
        grads = {"b_hn": conv_bias_backward(dz_h[:, 2 * self.features :])}
        return GRUGradient(dz_x, dz_h), RNNState(dh_prev), grads

    @property
    def dz_blocks(self) -> int:
        """r, u and n for each of the two maps."""
        return 2 * len(self.gates)

    def to_input_map(self, dz: GRUGradient) -> Array:
        """dz with respect to the input map."""
        return dz.x

    def to_state_map(self, dz: GRUGradient) -> Array:
        """dz with respect to the state map."""
        return dz.h


class ResetBeforeStepSaved(NamedTuple):
    """What one backward step needs."""

    reset: GRUResetSaved
    update: GRUUpdateSaved
    h_mask: Array | None
    gates_map: ConvSaved  # h -> r, u
    candidate_map: ConvSaved  # r . h -> n


class ResetBeforeGRUCell(TwoMapCell):
    """GRU over 0 to 3 spatial axes, reset gate before the state map.

        r = sigmoid(w_xr * x + w_hr * h + b_r)
        u = sigmoid(w_xu * x + w_hu * h + b_u)
        n = tanh(w_xn * x + w_hn * (r . h) + b_n)
        h' = (1 - u) . n + u . h

    Args: as `TwoMapCell`. Parameters: w_x (3F, C, *K), w_h (3F, F, *K), b (3F,).
    Source: Cho et al. 2014, arXiv 1406.1078, equations 5 to 8 (u here is their z).
    """

    gates = GRU_GATES
    states = 1
    kept_per_step = 4  # r, u, r . h, n
    room_per_step = 8  # dz_r, dz_u, dz_n and du, dv; dh along its paths
    room_beside_map = 5  # du, dv, dh along three paths

    def initial_state(self, x: Array) -> RNNState:
        """h = 0, (N, F, *S), for frames like x (N, C, *S)."""
        return RNNState(zeros(x, self.state_shape(x)))

    def step(
        self, z: Array, state: RNNState, h_mask: Array | None = None
    ) -> tuple[RNNState, ResetBeforeStepSaved]:
        """One step from z (N, 3F, *S): the new state, and what backward needs."""
        F = self.features
        w_ru, w_n = {"w_h": self.params["w_h"][: 2 * F]}, {"w_h": self.params["w_h"][2 * F :]}
        h_in = masked(state.h, h_mask)
        z_ru, gates_map = self.state_map.forward(h_in, w_ru, plus=z[:, : 2 * F])
        (u, v), reset = gru_reset_forward(z_ru, h_in)
        z_n, candidate_map = self.state_map.forward(v, w_n, plus=z[:, 2 * F :])
        h, update = gru_update_forward(z_n, u, state.h)
        return RNNState(h), ResetBeforeStepSaved(reset, update, h_mask, gates_map, candidate_map)

    def step_backward(self, dstate: RNNState, saved: ResetBeforeStepSaved) -> tuple[Array, RNNState, Grads]:
        """dz (N, 3F, *S), and dh_prev along its four paths: directly, through r . h, r and u."""
        dz_n, du, dh_prev = gru_update_backward(dstate.h, saved.update)
        dv = correlate_adjoint_x(dz_n, saved.candidate_map.w, saved.candidate_map.geometry)
        dz_ru, dh_in = gru_reset_backward((du, dv), saved.reset)
        dh_in = dh_in + correlate_adjoint_x(dz_ru, saved.gates_map.w, saved.gates_map.geometry)
        dz = array_module(dz_n).concatenate([dz_ru, dz_n], axis=1)
        return dz, RNNState(dh_prev + masked(dh_in, saved.h_mask)), {}

    def products(self) -> list[tuple[str, Array, bool]]:
        """w_h in two: its rows for r and u, and those for n."""
        w_h, F = self.params["w_h"], self.features
        others = [product for product in super().products() if product[0] != "w_h"]
        return [*others, ("w_h", w_h[: 2 * F], False), ("w_h", w_h[2 * F :], False)]

    def state_backward(
        self, dzs: Sequence[Array], steps: Sequence[ResetBeforeStepSaved], grads: Grads
    ) -> None:
        """Add the gradient of w_h: its rows for r and u saw h, those for n saw r . h."""
        F = self.features
        for dz, step in zip(reversed(dzs), reversed(steps), strict=True):
            dw_ru = correlate_adjoint_w(dz[:, : 2 * F], step.gates_map.x, step.gates_map.geometry)
            dw_n = correlate_adjoint_w(dz[:, 2 * F :], step.candidate_map.x, step.candidate_map.geometry)
            add_to(grads, "w_h", array_module(dz).concatenate([dw_ru, dw_n]))
