"""The Elman network: the simplest recurrence, and the one whose gradient vanishes."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from ..ops.conv import ConvSaved
from .base import TwoMapCell, zeros
from .maps import Grads


class RNNState(NamedTuple):
    """What a simple recurrent cell carries; also the gradient with respect to it."""

    h: Array  # (N, F, *S)


class RNNStepSaved(NamedTuple):
    """What one backward step needs."""

    h: Array  # the new state
    state_map: ConvSaved
    h_mask: Array | None


class RNNCell(TwoMapCell):
    """Elman cell over 0 to 3 spatial axes.

        z = w_x * x + w_h * h + b
        h' = tanh(z)

    Args: as `TwoMapCell`. Parameters: w_x (F, C, *K), w_h (F, F, *K), b (F,).
    Source: Elman 1990, "Finding structure in time".
    """

    gates = ("h",)
    states = 1
    kept_per_step = 1  # h, beside its copy in ys
    room_per_step = 1  # dh
    room_beside_map = 1

    def initial_state(self, x: Array) -> RNNState:
        """h = 0, (N, F, *S), for frames like x (N, C, *S)."""
        return RNNState(zeros(x, self.state_shape(x)))

    def step(self, z: Array, state: RNNState, h_mask: Array | None = None) -> tuple[RNNState, RNNStepSaved]:
        """One step from z (N, F, *S): the new state, and what backward needs."""
        z, map_saved = self.pre_activations(z, state.h, h_mask)
        h = array_module(z).tanh(z)
        return RNNState(h), RNNStepSaved(h, map_saved, h_mask)

    def step_backward(self, dstate: RNNState, saved: RNNStepSaved) -> tuple[Array, RNNState, Grads]:
        """dz = dh (1 - h^2), and dh_prev, its image under the transposed state map."""
        dz = dstate.h * (1 - saved.h * saved.h)
        return dz, RNNState(self.state_map_backward(dz, saved.state_map, saved.h_mask)), {}
