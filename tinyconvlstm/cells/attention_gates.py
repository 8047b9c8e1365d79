"""LSTMs with attention over the positions in place of a gate."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..backend import Array, array_module
from ..ops.attention import PeakSaved, peak_softmax_backward, peak_softmax_forward
from ..ops.conv import ConvSaved, correlate_adjoint_x
from ..ops.gates import split
from .context import ContextGateLSTMCell, ContextSaved
from .maps import ConvMap, Grads


class AttentionGateLSTMCell(ContextGateLSTMCell):
    """`ContextGateLSTMCell` with one gate by attention over the positions of every channel.

        a = tanh(w_xa * x + w_ha * h + b_a)
        s = w_z * a                                           F channels
        gate = softmax(s) / max softmax(s)                    over the positions of each channel: at most 1

    Subclasses say which gate. With w_z = 0, and without space, that gate is 1 everywhere.

    Left open by the source and chosen here: see `ContextGateLSTMCell`; w_z has the cell's kernel.

    Parameters: as `ContextGateLSTMCell`; w_x, w_h and b with blocks for a and g, w_xp, w_hp and b_p with the two
        gates that stay pooled; and w_z (F, F, *K).
    Source: Zhang et al. 2018, section 3; the division by the largest value keeps the gate's numbers from
        vanishing among many positions.
    """

    gates = ("a", "g")
    attends: ClassVar[str]  # the gate
    kept_per_step = 5  # g, c, tanh(c), tanh(a), the gate
    room_per_step = 8  # di, df, dg, do, dc, dh; the gradients of the scores and of a
    room_beside_map = 7

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
        self.score_map = ConvMap("w_z", None, self.kernel)
        dtype = self.params["w_h"].dtype
        self.params |= self.score_map.init(rng, features, features, 1, dtype)

    @property
    def macs_per_position(self) -> int:
        """Both convolutions, and that of the scores."""
        return super().macs_per_position + self.score_map.cost(self.params)

    def products(self) -> list[tuple[str, Array, bool]]:
        """Of w_z, which each step takes for itself, one step's at a time."""
        return [(name, w, together and name != "w_z") for name, w, together in super().products()]

    def step_kept(self, sizes: tuple[int, ...]) -> int:
        """Also the place of each channel's largest score."""
        return super().step_kept(sizes) + self.features

    def spatial_gates(self, z: Array) -> tuple[dict[str, Array], tuple[ConvSaved, PeakSaved]]:
        """The candidate, and the gate by attention."""
        z_a, z_g = split(z, 2)
        tanh = array_module(z).tanh
        s, scores = self.score_map.forward(tanh(z_a), self.params)
        gate, peak = peak_softmax_forward(s)
        return {"g": tanh(z_g), self.attends: gate}, (scores, peak)

    def spatial_gates_backward(self, dgates: dict[str, Array], saved: ContextSaved) -> tuple[Array, Grads]:
        """dz of a and g, and the scores' gradient: ds of the gate, da = w_z^T ds . (1 - tanh(a)^2)."""
        scores, peak = saved.attention
        dz_g, _ = super().spatial_gates_backward(dgates, saved)
        ds = peak_softmax_backward(dgates[self.attends], peak)
        da = correlate_adjoint_x(ds, scores.w, scores.geometry) * (1 - scores.x * scores.x)
        grads: Grads = {}
        self.score_map.add_weight_grads([ds], [scores.x], scores, grads)
        return array_module(ds).concatenate([da, dz_g], axis=1), grads


class InputGateAttentionLSTMCell(AttentionGateLSTMCell):
    """Attention in place of the input gate: i by attention, f and o pooled.

    Source: Zhang et al. 2018, section 3: variant (c).
    """

    pooled = ("f", "o")
    attends = "i"


class OutputGateAttentionLSTMCell(AttentionGateLSTMCell):
    """Attention in place of the output gate: o by attention, i and f pooled.

    Source: Zhang et al. 2018, section 3: variant (d).
    """

    pooled = ("i", "f")
    attends = "o"
