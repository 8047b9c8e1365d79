"""The LSTM whose gates look at the cell through a convolution: a peephole with neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.activations import sigmoid
from ..ops.conv import ConvSaved, correlate_adjoint_x
from ..ops.gates import LSTMState, split
from .lstm import LSTMCell
from .maps import ConvMap, Grads


class ConvPeepholeSaved(NamedTuple):
    """What one backward step needs; gates and cell are (N, F, *S)."""

    i: Array
    f: Array
    g: Array
    o: Array
    tanh_c: Array
    state_map: ConvSaved  # .x is the (masked) h before the step
    before: ConvSaved  # .x is c before the step, .w is w_cif
    after: ConvSaved  # .x is c after it, .w is w_co
    h_mask: Array | None


class ConvPeepholeLSTMCell(LSTMCell):
    """`LSTMCell` whose peepholes are convolutions over the cell, and not products with it.

        z = w_x * x + w_h * h + b
        i = sigmoid(z_i + w_ci * c)      f = sigmoid(z_f + w_cf * c)      g = tanh(z_g)
        c' = f . c + i . g               o = sigmoid(z_o + w_co * c')     h' = o . tanh(c')

    With kernel () every peephole is a full matrix. One tap and a diagonal w_cif and w_co make it
    `LSTMCell(peephole="channel")`; zeros, with which it starts, make it the plain cell.

    Args:
        peephole_kernel: taps of the peepholes, one int a spatial axis; default: kernel.
            Stride 1, "same", so that the state keeps its shape. The others as `LSTMCell`, but for
            peephole and size.
    Parameters: w_x, w_h, b of `LSTMCell`; w_cif (2F, F, *K) for i and f, w_co (F, F, *K).
    Source: Shi et al. 2015, arXiv 1506.04214, equation 3, with a convolution in place of the product
        with the cell, as the PeepholeLSTM of N. Kamo's pytorch_convolutional_rnn has it.
    """

    room_per_step = (
        10  # dz of each gate, those of i and f side by side, dc, its gradient along both paths, dh
    )
    room_beside_map = 9

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        peephole_kernel: tuple[int, ...] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(channels, features, kernel, peephole=None, **settings)
        taps = self.kernel if peephole_kernel is None else tuple(peephole_kernel)
        if len(taps) != len(self.kernel):
            raise ValueError(f"peephole_kernel is {taps}, expected one entry for each of {self.kernel}")
        self.before, self.after = ConvMap("w_cif", None, taps), ConvMap("w_co", None, taps)
        dtype = self.params["w_h"].dtype
        self.params["w_cif"] = np.zeros((2 * features, features, *taps), dtype)
        self.params["w_co"] = np.zeros((features, features, *taps), dtype)

    @property
    def macs_per_position(self) -> int:
        """Both maps and both peepholes."""
        return super().macs_per_position + self.before.cost(self.params) + self.after.cost(self.params)

    def step(  # type: ignore[override]
        self, z: Array, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, ConvPeepholeSaved]:
        """One step from z (N, 4F, *S): the new state, and what backward needs."""
        xp = array_module(z)
        z, state_map = self.pre_activations(z, state.h, h_mask)
        z_i, z_f, z_g, z_o = split(z, 4)
        z_c, before = self.before.forward(state.c, self.params)
        z_ci, z_cf = split(z_c, 2)
        i, f, g = sigmoid(z_i + z_ci), sigmoid(z_f + z_cf), xp.tanh(z_g)
        c = f * state.c + i * g
        z_co, after = self.after.forward(c, self.params)
        o, tanh_c = sigmoid(z_o + z_co), xp.tanh(c)
        saved = ConvPeepholeSaved(i, f, g, o, tanh_c, state_map, before, after, h_mask)
        return LSTMState(o * tanh_c, c), saved

    def step_backward(  # type: ignore[override]
        self, dstate: LSTMState, saved: ConvPeepholeSaved
    ) -> tuple[Array, LSTMState, Grads]:
        """dz (N, 4F, *S) and the gradient of the state before.

        dz_o = dh * tanh(c) * o (1 - o)
        dc  += dh * o * (1 - tanh(c)^2) + w_co^T dz_o          w^T: the adjoint of the convolution
        dc_prev = dc * f + w_cif^T (dz_i, dz_f)
        """
        i, f, g, o, tanh_c, state_map, before, after, h_mask = saved
        xp = array_module(dstate.h)
        dz_o = dstate.h * tanh_c * o * (1 - o)
        dc = dstate.c + dstate.h * o * (1 - tanh_c * tanh_c)
        dc = dc + correlate_adjoint_x(dz_o, after.w, after.geometry)
        dz_i = dc * g * i * (1 - i)
        dz_f = dc * before.x * f * (1 - f)
        dz_g = dc * i * (1 - g * g)
        dz = xp.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
        dz_if = xp.concatenate([dz_i, dz_f], axis=1)
        dc_prev = dc * f + correlate_adjoint_x(dz_if, before.w, before.geometry)
        return dz, LSTMState(self.state_map_backward(dz, state_map, h_mask), dc_prev), {}

    def state_backward(self, dzs: Sequence[Array], steps: Sequence[ConvPeepholeSaved], grads: Grads) -> None:
        """Add the gradients of w_h and of both peepholes, sums over the steps."""
        super().state_backward(dzs, steps, grads)
        F = self.features
        dz_ifs, dz_os = [dz[:, : 2 * F] for dz in dzs], [dz[:, 3 * F :] for dz in dzs]
        self.before.add_weight_grads(dz_ifs, [s.before.x for s in steps], steps[0].before, grads)
        self.after.add_weight_grads(dz_os, [s.after.x for s in steps], steps[0].after, grads)
