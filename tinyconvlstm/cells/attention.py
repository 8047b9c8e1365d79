"""The LSTM that looks at its input through a map of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.activations import AxisSaved, softmax_backward, softmax_forward
from ..ops.conv import ConvSaved, correlate_adjoint_x
from ..ops.gates import LSTMState
from .base import masked
from .lstm import LSTMCell, LSTMStepSaved
from .maps import ConvMap, Grads


class Seen(NamedTuple):
    """What a step gets that does not depend on the state."""

    x: Array  # (N, C, *S), the frame
    a: Array  # (N, F, *S), w_xa * x + b_a


class SeenAll(Sequence[Seen]):
    """`Seen` of every step."""

    def __init__(self, xs: Array, zs: Sequence[Array]) -> None:
        self.xs, self.zs = xs, zs

    def __len__(self) -> int:
        return len(self.xs)

    def __getitem__(self, t: Any) -> Any:
        return Seen(self.xs[t], self.zs[t])


class InputAttentionGradient(NamedTuple):
    """What a step's gradient gives to everything that does not recur."""

    x: Array  # (N, C, *S), through the product A . x
    a: Array  # (N, F, *S), of the hidden map of the attention, before its tanh
    scores: Array  # (N, 1, *S)
    gates: Array  # (N, 4F, *S)


class InputAttentionSaved(NamedTuple):
    """What one backward step needs."""

    x: Array  # (N, C, *S)
    hidden: ConvSaved  # .x is the (masked) h before the step, .w is w_ha
    scores: ConvSaved  # .x is tanh(a), .w is w_z
    weights: AxisSaved  # .y is A (N, 1, P)
    seen: ConvSaved  # .x is A . x, .w is w_x
    lstm: LSTMStepSaved


class InputAttentionLSTMCell(LSTMCell):
    """`LSTMCell` that reads its frames times a map of attention, which depends on the frame and on h.

        a = tanh(w_xa * x + w_ha * h + b_a)
        s = w_z * a                                 one number a position
        A = softmax(s) over the positions           sum of A = 1
        x~ = A . x                                  the same A for every channel
        z = w_x * x~ + w_h * h + b                  gates as `LSTMCell`

    With w_z = 0 attention is equal everywhere, and the cell is `LSTMCell` on x / prod(S). Without space,
    kernel (), A is 1 and it is `LSTMCell`. A frame is scaled by about 1 / prod(S), so large frames
    may ask for larger weights at the start.

    Left open by the source and chosen here: a has F channels; all maps of the attention have the cell's
    kernels; w_z has no bias, which the softmax would cancel. The source's own cell goes on with
    pooled gates (`ContextGateLSTMCell`); this one with the plain ones.

    Args: as `LSTMCell`, without stride and padding: A must be of the size of x and of h at once.
        Recurrent dropout also masks the h that the attention reads.
    Parameters: w_x, w_h, b, w_c of `LSTMCell`; w_xa (F, C, *K), b_a (F,), w_ha (F, F, *K), w_z (1, F, *K).
    Source: Zhang, Zhu, Mei, Shen, Shah, Bennamoun 2018, "Attention in convolutional LSTM for gesture
        recognition", NeurIPS, section 3: variant (b).
    """

    input_map: ConvMap
    kept_per_step = 7  # i, f, g, o, c, tanh(c), tanh(a)
    step_by_step = ("w_x",)

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        rng: np.random.Generator | int = 0,
        **settings: Any,
    ) -> None:
        if channels < 1:
            raise ValueError(f"channels is {channels}, expected at least 1: there is nothing to attend to")
        for name in ("stride", "padding"):
            if name in settings:
                raise ValueError(
                    f"{name} is {settings[name]!r}, expected none: attention needs h of x's size"
                )
        rng = np.random.default_rng(rng)
        super().__init__(channels, features, kernel, rng=rng, **settings)
        dtype = self.params["w_h"].dtype
        self.hidden_x = replace(self.input_map, w="w_xa", b="b_a")
        self.hidden_h = replace(self.state_map, w="w_ha")
        self.score_map = ConvMap("w_z", None, self.kernel)
        self.params |= self.hidden_x.init(rng, channels, features, 1, dtype)
        self.params |= self.hidden_h.init(rng, features, features, 1, dtype)
        self.params |= self.score_map.init(rng, features, 1, 1, dtype)

    @property
    def macs_per_position(self) -> int:
        """The plain cell's, those of the attention's three maps, and the product A . x."""
        maps = (self.hidden_x, self.hidden_h, self.score_map)
        return super().macs_per_position + sum(m.cost(self.params) for m in maps) + self.channels

    @property
    def dz_blocks(self) -> float:
        """Four gates, a, and the frame's and the scores' gradients in blocks of F channels."""
        return 5 + (self.channels + 1) / self.features

    @property
    def frames_beside(self) -> float:  # type: ignore[override]
        """dz of the gates, and A . x; or what the other maps read."""
        return 4 + max(1, self.channels / self.features)

    def step_kept(self, sizes: tuple[int, ...]) -> int:
        """Also A . x and A."""
        return super().step_kept(sizes) + prod(sizes) * (self.channels + 1)

    def project(self, xs: Array) -> tuple[SeenAll, ConvSaved]:
        """The frames as they are, and w_xa * x + b_a of each."""
        zs, saved = self.hidden_x.project(xs, self.params)
        return SeenAll(xs, zs), saved

    def step(  # type: ignore[override]
        self, z: Seen, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, InputAttentionSaved]:
        """One step from the frame and its part of a: the new state, and what backward needs."""
        x, p = z.x, self.params
        a, hidden = self.hidden_h.forward(masked(state.h, h_mask), p, plus=z.a)
        s, scores = self.score_map.forward(array_module(a).tanh(a), p)
        A, weights = softmax_forward(s.reshape(len(s), 1, -1), axis=2)
        z_x, seen = self.input_map.forward(A.reshape(s.shape) * x, p)
        new, lstm = super().step(z_x, state, h_mask)
        return new, InputAttentionSaved(x, hidden, scores, weights, seen, lstm)

    def step_backward(  # type: ignore[override]
        self, dstate: LSTMState, saved: InputAttentionSaved
    ) -> tuple[InputAttentionGradient, LSTMState, Grads]:
        """`LSTMCell`'s backward step, and from its dz on to the attention.

        dx~ = w_x^T dz                dx = A . dx~                dA = sum over channels of x . dx~
        ds = softmax's backward of dA                             x~ = A . x
        da = w_z^T ds . (1 - tanh(a)^2)                           s = w_z * tanh(a)
        dh_prev += w_ha^T da                                      a = w_xa * x + w_ha * h + b_a
        """
        x, hidden, scores, weights, seen, lstm = saved
        dz, (dh, dc), grads = super().step_backward(dstate, lstm)
        dx_seen = correlate_adjoint_x(dz, seen.w, seen.geometry)  # (N, C, *S)
        s_shape = (len(x), 1, *x.shape[2:])
        dA = (x * dx_seen).sum(axis=1).reshape(weights.y.shape)
        ds = softmax_backward(dA, weights).reshape(s_shape)
        da = correlate_adjoint_x(ds, scores.w, scores.geometry) * (1 - scores.x * scores.x)
        if dh is not None:
            dh = dh + self.state_map_backward(da, hidden, lstm.h_mask)
        dx = weights.y.reshape(s_shape) * dx_seen
        return InputAttentionGradient(dx, da, ds, dz), LSTMState(dh, dc), grads

    def state_backward(
        self, dzs: Sequence[InputAttentionGradient], steps: Sequence[InputAttentionSaved], grads: Grads
    ) -> None:
        """Add the gradients of w_h, w_ha, w_z, w_x and b: all that reads what only a step knows."""
        first = steps[0]
        super().state_backward([dz.gates for dz in dzs], [step.lstm for step in steps], grads)
        for conv, frames, parts, saved in (
            (self.hidden_h, [s.hidden.x for s in steps], [dz.a for dz in dzs], first.hidden),
            (self.score_map, [s.scores.x for s in steps], [dz.scores for dz in dzs], first.scores),
            (self.input_map, [s.seen.x for s in steps], [dz.gates for dz in dzs], first.seen),
        ):
            conv.add_weight_grads(parts, frames, saved, grads)

    def project_backward(
        self,
        dzs: Sequence[InputAttentionGradient],
        saved: ConvSaved,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """dxs (T, N, C, *S), through A . x and through a; adds the gradients of w_xa and b_a."""
        das = [dz.a for dz in dzs]
        self.hidden_x.add_weight_grads(das, saved.x, saved, grads)
        if not input_grad:
            return None
        dxs = self.hidden_x.backward_x(das, saved, out)
        for t, dz in enumerate(dzs):
            dxs[t] += dz.x
        return dxs


def attention_maps(tape: Any) -> list[Array]:
    """A of every step of a scan of `InputAttentionLSTMCell`, each (N, *S), to be looked at.

    Args:
        tape: the third result of `scan`.
    """
    return [s.weights.y.reshape(len(s.x), *s.x.shape[2:]) for s in tape.steps]
