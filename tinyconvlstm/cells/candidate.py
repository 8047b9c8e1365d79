"""An LSTM written wrongly, as it circulates: its gates recur on the candidate, and h feeds nothing.

It is here to be compared, not to be used. Candidates depend on x and on earlier candidates alone, so they
are an Elman network that never learns what the memory c holds; and c is read out but never read
back. What the gates know of the past must survive a tanh at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, array_module
from ..init import lstm_bias
from ..ops.activations import sigmoid
from ..ops.conv import ConvSaved, correlate_adjoint_w, correlate_adjoint_x
from ..ops.gates import GATES, split
from .base import TwoMapCell, masked
from .maps import Grads, add_to, zeros


class CandidateState(NamedTuple):
    """What the cell carries, each (N, F, *S). h is shown and never read."""

    h: Array
    c: Array  # memory
    g: Array  # candidate: all that the next step's gates see


class CandidateSaved(NamedTuple):
    """What one backward step needs."""

    i: Array
    f: Array
    g: Array
    o: Array
    tanh_c: Array
    c_prev: Array
    before: ConvSaved  # g before the step -> z_i, z_f, z_g
    after: ConvSaved  # g of the step -> z_o
    h_mask: Array | None


class CandidateLSTMCell(TwoMapCell):
    """The LSTM of a faulty derivation, over 0 to 3 spatial axes: recurrence on the candidate.

        z = w_x * x + b
        i = sigmoid(z_i + w_hi * g)      f = sigmoid(z_f + w_hf * g)      g' = tanh(z_g + w_hg * g)
        c' = f . c + i . g'              o = sigmoid(z_o + w_ho * g')     h' = o . tanh(c')

    The LSTM reads h where g stands here. So no gradient leaves through h or, but for the product of the
    forget gates, through c: dc'/dc is diagonal, and no gate ever depends on c. Where w_h = 0 it is
    `LSTMCell` with w_h = 0.

    Args: as `TwoMapCell`, and forget_bias as `LSTMCell`. Recurrent dropout masks g where it is read.
    Parameters: w_x (4F, C, *K), w_h (4F, F, *K), b (4F,); gates in the order i, f, g, o.
    Source: equations found in introductions to the LSTM, where the previous candidate takes the place of
        the previous h; right: Hochreiter & Schmidhuber 1997, with Gers et al. 2000.
    """

    gates = GATES
    states = 3
    kept_per_step = 6  # i, f, g, o, c, tanh(c)
    room_per_step = 12  # dz of each gate, the gates' own gradients, dc, dh
    room_beside_map = 11

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        forget_bias: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(channels, features, kernel, **settings)
        self.params["b"] = lstm_bias(features, forget_bias, self.params["w_h"].dtype)

    def initial_state(self, x: Array) -> CandidateState:
        """h = c = g = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return CandidateState(zeros(x, shape), zeros(x, shape), zeros(x, shape))

    def step(
        self, z: Array, state: CandidateState, h_mask: Array | None = None
    ) -> tuple[CandidateState, CandidateSaved]:
        """One step from z (N, 4F, *S): the new state, and what backward needs."""
        xp, F = array_module(z), self.features
        w_h = self.params["w_h"]
        seen = masked(state.g, h_mask)
        z_ifg, before = self.state_map.forward(seen, {"w_h": w_h[: 3 * F]}, plus=z[:, : 3 * F])
        z_i, z_f, z_g = split(z_ifg, 3)
        i, f, g = sigmoid(z_i), sigmoid(z_f), xp.tanh(z_g)
        c = f * state.c + i * g
        z_o, after = self.state_map.forward(masked(g, h_mask), {"w_h": w_h[3 * F :]}, plus=z[:, 3 * F :])
        o, tanh_c = sigmoid(z_o), xp.tanh(c)
        saved = CandidateSaved(i, f, g, o, tanh_c, state.c, before, after, h_mask)
        return CandidateState(o * tanh_c, c, g), saved

    def step_backward(
        self, dstate: CandidateState, saved: CandidateSaved
    ) -> tuple[Array, CandidateState, Grads]:
        """dz (N, 4F, *S) and the gradient of the state before; that of h is zero.

        dz_o = dh tanh(c) o (1 - o)              dc += dh o (1 - tanh(c)^2)
        dg  += dc i + w_ho^T dz_o                c = f c_prev + i g,  o reads g
        dc_prev = dc f                           dg_prev = w_hi^T dz_i + w_hf^T dz_f + w_hg^T dz_g
        """
        i, f, g, o, tanh_c, c_prev, before, after, h_mask = saved
        xp = array_module(dstate.h)
        dz_o = dstate.h * tanh_c * o * (1 - o)
        dc = dstate.c + dstate.h * o * (1 - tanh_c * tanh_c)
        dg = dstate.g + dc * i + masked(correlate_adjoint_x(dz_o, after.w, after.geometry), h_mask)
        dz_i, dz_f, dz_g = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dg * (1 - g * g)
        dz_ifg = xp.concatenate([dz_i, dz_f, dz_g], axis=1)
        dg_prev = self.state_map_backward(dz_ifg, before, h_mask)
        dz = xp.concatenate([dz_ifg, dz_o], axis=1)
        return dz, CandidateState(xp.zeros_like(dc), dc * f, dg_prev), {}

    def products(self) -> list[tuple[str, Array, bool]]:
        """w_h in two: its rows for i, f, g, and those for o."""
        w_h, F = self.params["w_h"], self.features
        others = [product for product in super().products() if product[0] != "w_h"]
        return [*others, ("w_h", w_h[: 3 * F], False), ("w_h", w_h[3 * F :], False)]

    def state_backward(self, dzs: Sequence[Array], steps: Sequence[CandidateSaved], grads: Grads) -> None:
        """Add the gradient of w_h: its rows for i, f, g saw the candidate before, those for o the new one."""
        F = self.features
        for dz, step in zip(reversed(dzs), reversed(steps), strict=True):
            dw_ifg = correlate_adjoint_w(dz[:, : 3 * F], step.before.x, step.before.geometry)
            dw_o = correlate_adjoint_w(dz[:, 3 * F :], step.after.x, step.after.geometry)
            add_to(grads, "w_h", array_module(dz).concatenate([dw_ifg, dw_o]))
