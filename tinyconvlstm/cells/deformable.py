"""A ConvLSTM whose state map looks where the scene has moved to: a deformable convolution of h."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.conv import ConvSaved, block_sizes, correlate_adjoint_x
from ..ops.deform_conv import DeformConvSaved, deform_conv_backward, deform_correlate
from ..ops.gates import LSTMGatesSaved, LSTMState, lstm_gates_backward, lstm_gates_forward
from ..ops.lowering import Im2col
from .base import masked
from .lstm import LSTMCell
from .maps import BiasMap, ConvMap, Grads, at_rest


class Both(NamedTuple):
    """What goes to the gates and what goes to the taps: pre-activations, gradients, or what a map saved."""

    z: Any  # (N, 4F, *S)
    q: Any  # (N, K (r + 1), *S)

    @property
    def x(self) -> Array:
        """What both input maps read."""
        return self.z.x


class Pairs(Sequence[Both]):
    """Two sequences side by side."""

    def __init__(self, zs: Sequence[Array], qs: Sequence[Array]) -> None:
        self.zs, self.qs = zs, qs

    def __len__(self) -> int:
        return len(self.zs)

    def __getitem__(self, t: Any) -> Any:
        return Both(self.zs[t], self.qs[t])


class DeformableStepSaved(NamedTuple):
    """What one backward step needs."""

    gates: LSTMGatesSaved
    taps: DeformConvSaved  # of w_h; its x is the (masked) h before the step
    state_map: ConvSaved  # of w_qh, that reads the same h
    h_mask: Array | None


class DeformableLSTMCell(LSTMCell):
    """`LSTMCell` whose state map is a deformable convolution, moved and weighed by what x and h show.

        q = w_qx * x + w_qh * h + b_q
        dp = the first K r channels of q         m = 2 sigmoid(the other K)          K taps, r spatial axes
        z = w_x * x + sum_k w_h[k] m_k h(p + k + dp_k) + b                           gates as `LSTMCell`

    where h between its pixels is linear along every axis, and zero outside the frame (`ops.deform_conv`).

    Fresh w_qx, w_qh and b_q are zero: every dp is 0 and every m = 2 sigmoid(0) = 1, so a fresh cell is `ConvLSTMCell`:
    bit for bit where that convolves by im2col, else to rounding. (With m = sigmoid(0) = 1/2, as Zhu et al. write
    it, it would begin at half of w_h.) The gradient goes through h twice: through the values that the taps read,
    and through where they look. On the grid, where a fresh cell looks, the slope of a place is that towards larger
    coordinates.

    Args: as `LSTMCell`; kernel is needed. w_qx has the input map's window, w_qh the state map's.
    Parameters: those of `LSTMCell`; w_qx (K (r + 1), C, *K_x), w_qh (K (r + 1), F, *K), b_q; channel r k + j of q is
        coordinate j of tap k, in pixels.
    Source: the deformable convolution with a mask: Zhu, Hu, Lin, Dai 2019, "Deformable ConvNets v2", arXiv
        1811.11168, equation 1; offsets for a recurrent state from x and h: Shi et al. 2017, arXiv
        1706.03458, equation 3; gates: Shi et al. 2015, arXiv 1506.04214, equation 3.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...],
        *,
        dtype: Any = np.float32,
        **settings: Any,
    ) -> None:
        if not kernel:
            raise ValueError("kernel is (), expected one int a spatial axis: without space no tap can move")
        super().__init__(channels, features, kernel, dtype=dtype, **settings)
        self.taps = prod(self.state_map.kernel)
        self.offset_input: ConvMap | BiasMap = BiasMap("b_q")
        if isinstance(self.input_map, ConvMap):
            self.offset_input = replace(self.input_map, w="w_qx", b="b_q")
        self.offset_map = replace(self.state_map, w="w_qh")
        rng, rank = np.random.default_rng(0), len(kernel)  # the weights drawn are put to zero
        fresh = self.offset_input.init(rng, channels, self.taps, rank + 1, dtype)
        fresh |= self.offset_map.init(rng, features, self.taps, rank + 1, dtype)
        self.params |= {name: np.zeros_like(a) for name, a in fresh.items()}

    @property
    def kept_per_step(self) -> float:  # type: ignore[override]
        """The LSTM's arrays, and q."""
        return 6 + len(self.params["b_q"]) / self.features

    @property
    def dz_blocks(self) -> float:
        """4F channels for the gates, and q's."""
        return 4 + len(self.params["b_q"]) / self.features

    def products(self) -> list[tuple[str, Array, bool]]:
        """All but w_h, which meets what is sampled."""
        return [product for product in super().products() if product[0] != "w_h"]

    def strip_room(self, h: Array) -> int:
        """What a strip's taps see, its columns, the gradients of both, places (64 bits) and a corner's shares."""
        geometry = self.state_map.over(h.shape[2:])
        unfolded = Im2col(geometry, self.params["w_h"].shape)
        samples, rows = block_sizes(h, geometry, unfolded)
        row = unfolded.numbers * geometry.positions // geometry.out[0]
        return 7 * min(samples, len(h)) * min(rows, geometry.out[0]) * row

    @property
    def macs_per_position(self) -> int:
        """Four maps; and for each channel and tap the 2^r corners' weights and the mask."""
        corners = self.taps * self.features * (2 ** len(self.kernel) + 1)
        maps = self.offset_input.cost(self.params) + self.offset_map.cost(self.params)
        return int(super().macs_per_position + maps + corners)

    def project(self, xs: Array) -> tuple[Pairs, Both]:
        """The input's part of z and of q, for all frames."""
        zs, saved = super().project(xs)
        qs, offset_saved = self.offset_input.project(xs, self.params)
        return Pairs(zs, qs), Both(saved, offset_saved)

    def step(  # type: ignore[override]
        self, z: Both, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, DeformableStepSaved]:
        """One step from z (N, 4F, *S) and q (N, K (r + 1), *S): the new state, and what backward needs."""
        h, w = masked(state.h, h_mask), self.params["w_h"]
        q, state_map = self.offset_map.forward(h, self.params, plus=z.q)  # q is new
        offset, m = q[:, : -self.taps], q[:, -self.taps :]
        m *= 0.5
        array_module(m).tanh(m, out=m)
        m += 1  # 2 sigmoid(v) = 1 + tanh(v / 2)
        taps = DeformConvSaved(h, offset, m, w, False, state_map.geometry)
        pre = z.z.copy() if at_rest(h) else deform_correlate(*taps[:4], taps.geometry, plus=z.z)
        new, gates = lstm_gates_forward(pre, state.c, self.params.get("w_c"), in_place=True)
        return new, DeformableStepSaved(gates, taps, state_map, h_mask)

    def step_backward(  # type: ignore[override]
        self, dstate: LSTMState, saved: DeformableStepSaved
    ) -> tuple[Both, LSTMState, Grads]:
        """dz and dq, the gradient of the state before the step, and that of w_h (its columns are at hand here).

        dz of the gates        dh, ddp, dm, dw_h through the taps        dq = (ddp, dm m (2 - m) / 2)
        dh += w_qh^T dq
        """
        _, taps, state_map, h_mask = saved
        dz, dc_prev, dw_c = lstm_gates_backward(dstate, saved.gates)
        grads = {} if dw_c is None else {"w_c": dw_c}
        xp, m = array_module(dz), taps.mask
        if at_rest(taps.x):  # the taps read zeros, wherever they look
            dq = xp.zeros((m.shape[0], len(state_map.w), *m.shape[2:]), dtype=dz.dtype)
            return Both(dz, dq), LSTMState(None, dc_prev), grads
        dh, doffset, dm, grads["w_h"], _ = deform_conv_backward(dz, taps)
        dq = xp.concatenate([doffset, dm * m * (2 - m) / 2], axis=1)
        dh += correlate_adjoint_x(dq, state_map.w, state_map.geometry)
        return Both(dz, dq), LSTMState(masked(dh, h_mask), dc_prev), grads

    def state_backward(self, dzs: Sequence[Both], steps: Sequence[DeformableStepSaved], grads: Grads) -> None:
        """Add the gradient of w_qh, a sum over the steps."""
        dqs, frames = [dz.q for dz in dzs], [step.state_map.x for step in steps]
        self.offset_map.add_weight_grads(dqs, frames, steps[0].state_map, grads)
        grads.setdefault("w_h", array_module(dqs[0]).zeros_like(self.params["w_h"]))  # one step, from rest

    def project_backward(
        self,
        dzs: Sequence[Both],
        saved: Both,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """dxs (T, N, C, *S) of both input maps; adds the gradients of w_x, b, w_qx and b_q."""
        dqs = [dz.q for dz in dzs]
        dxs = super().project_backward([dz.z for dz in dzs], saved.z, grads, input_grad=input_grad, out=out)
        self.offset_input.add_weight_grads(dqs, saved.x, saved.q, grads)
        if input_grad:
            dxs += self.offset_input.backward_x(dqs, saved.q)
        return dxs

    def projection_of(self, saved: Both, begin: int, end: int) -> Both:
        """What `project` saved, for the steps begin .. end - 1."""
        part = super().projection_of
        return Both(part(saved.z, begin, end), part(saved.q, begin, end))
