"""Full gate recurrence: the LSTM's gates also read the gates of the step before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.conv import ConvSaved, correlate_adjoint_x
from ..ops.gates import LSTMState, split
from .maps import Grads, as_array, zeros
from .odyssey import OdysseySaved, VanillaLSTMCell


class FGRState(NamedTuple):
    """What the cell carries: the LSTM's state, and the three gates, each (N, F, *S)."""

    h: Array
    c: Array
    i: Array
    f: Array
    o: Array


class FGRSaved(NamedTuple):
    """What one backward step needs."""

    gates: OdysseySaved
    gate_map: ConvSaved  # .x is i, f, o before the step, .w is w_r

    @property
    def state_map(self) -> ConvSaved:
        """What the state map read."""
        return self.gates.state_map


class FGRCell(VanillaLSTMCell):
    """`VanillaLSTMCell` whose gates i, f, o also read the i, f, o of the step before.

        r = w_r * (i, f, o)
        i' = sigmoid(z_i + r_i + w_ci . c)     f' = sigmoid(z_f + r_f + w_cf . c)
        o' = sigmoid(z_o + r_o + w_co . c')    and all else as `VanillaLSTMCell`

    The first step reads gates of zero. With w_r = 0 it equals `VanillaLSTMCell`. Recurrent dropout
    masks h alone.

    Args: as `VanillaLSTMCell`; w_r has the state map's kernel and dilation.
    Parameters: those of `VanillaLSTMCell`, and w_r (3F, 3F, *K), rows and channels in the order i, f, o.
    Source: Greff et al. 2017, arXiv 1503.04069, appendix A, FGR: nine recurrent matrices more; the
        form of Hochreiter & Schmidhuber 1997.
    """

    states = 5
    kept_per_step = 9  # i, f, g, o, c, tanh(c), and i, f, o side by side
    frames_beside = 6  # dr, and what w_r read

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        rng: np.random.Generator | int = 0,
        **settings: Any,
    ) -> None:
        rng = np.random.default_rng(rng)
        super().__init__(channels, features, kernel, rng=rng, **settings)
        self.gate_map = replace(self.state_map, w="w_r")
        dtype = self.params["w_h"].dtype
        self.params |= self.gate_map.init(rng, 3 * features, features, 3, dtype)

    @property
    def macs_per_position(self) -> int:
        """Both maps, and that of the gates."""
        return super().macs_per_position + self.gate_map.cost(self.params)

    def initial_state(self, x: Array) -> FGRState:  # type: ignore[override]
        """All zero, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return FGRState(*(zeros(x, shape) for _ in FGRState._fields))

    def step(self, z: Array, state: FGRState, h_mask: Array | None = None) -> tuple[FGRState, FGRSaved]:
        """One step from z (N, 4F, *S): the new state, and what backward needs."""
        xp = array_module(z)
        before = xp.concatenate([state.i, state.f, state.o], axis=1)  # (N, 3F, *S)
        r, gate_map = self.gate_map.forward(before, self.params)
        (z_i, z_f, z_g, z_o), (r_i, r_f, r_o) = split(z, 4), split(r, 3)
        z = xp.concatenate([z_i + r_i, z_f + r_f, z_g, z_o + r_o], axis=1)
        (h, c), gates = VanillaLSTMCell.step(self, z, state, h_mask)
        return FGRState(h, c, gates.i, gates.f, gates.o), FGRSaved(gates, gate_map)

    def step_backward(self, dstate: FGRState, saved: FGRSaved) -> tuple[Array, FGRState, Grads]:
        """As the vanilla cell's; di, df, do come from the step after and go to the step before through w_r."""
        back = LSTMState(dstate.h, dstate.c)
        dz, (dh, dc), grads = self.gates_backward(back, saved.gates, dstate.i, dstate.f, dstate.o)
        dr = self.of_gates(dz)
        dbefore = correlate_adjoint_x(dr, saved.gate_map.w, saved.gate_map.geometry)
        return dz, FGRState(dh, dc, *split(dbefore, 3)), grads

    def state_backward(self, dzs: Sequence[Array], steps: Sequence[FGRSaved], grads: Grads) -> None:
        """Add the gradients of w_h and w_r, sums over the steps."""
        super().state_backward(dzs, steps, grads)
        drs, frames = self.of_gates(as_array(dzs), 2), [step.gate_map.x for step in steps]
        self.gate_map.add_weight_grads(drs, frames, steps[0].gate_map, grads)

    def of_gates(self, dz: Array, axis: int = 1) -> Array:
        """The blocks i, f, o of dz, whose `axis` has 4F: what w_r's output meets."""
        xp, F = array_module(dz), self.features
        dz_if, _, dz_o = xp.split(dz, [2 * F, 3 * F], axis)
        return xp.concatenate([dz_if, dz_o], axis)
