"""The ConvLSTM with a self-attention memory."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..init import glorot_uniform
from ..ops.gates import LSTMState
from ..ops.self_attention import (
    SelfAttentionSaved,
    SelfAttentionWeights,
    self_attention_backward,
    self_attention_forward,
)
from .lstm import LSTMCell, LSTMStepSaved
from .maps import Grads, zeros


class SAState(NamedTuple):
    """What the cell carries, each (N, F, *S); also the gradient with respect to it."""

    h: Array  # what the cell shows, after the attention
    c: Array  # cell of the LSTM
    m: Array  # memory of the attention


class SAStepSaved(NamedTuple):
    """What one backward step needs."""

    lstm: LSTMStepSaved
    attention: SelfAttentionSaved

    @property
    def state_map(self) -> Any:
        """What the state map read."""
        return self.lstm.state_map


class SAConvLSTMCell(LSTMCell):
    """`LSTMCell`, then attention of every position to all others, and a memory of what that found.

        h~, c' = LSTMCell(x, h, c)
        h', m' = self-attention memory of (h~, m)                 see `self_attention_forward`

    So a pixel may learn of any other within one step, where a convolution needs as many steps as they are
    apart. The price is quadratic: scores of P^2 pairs of the P = prod(S) positions, twice a step.

    With the biases of i' and o' so large that both are open, and w_m = 0 for g', m' = tanh(b_g'): nothing of the past;
    with i' shut m' = m. A w_z of zero shuts the attention out, and what is left acts on every position by itself.

    Left open by the source and chosen here: Z has F channels; maps of one tap have no bias but b_m; the first
    memory is zero. The h that the next step reads is h', after the attention.

    Args:
        attention: D, channels of queries and keys; default: features. The others as `LSTMCell`.
            Recurrent dropout masks h where the state map reads it.
    Parameters: w_x, w_h, b, w_c of `LSTMCell`; w_q, w_kh and w_km (D, F), w_vh and w_vm (F, F), w_z (F, 2F), w_m
        (3F, 2F) and b_m (3F,) with blocks i', g', o'.
    Source: Lin, Li, Zheng, Cheng, Yuan 2020, "Self-attention ConvLSTM for spatiotemporal prediction", AAAI.
    """

    states = 3
    kept_per_step = (
        17  # i, f, g, o, c, tanh(c), h~; v_h, v_m, Z_h, Z_m, Z and h~ side by side; i', g', o', m'
    )

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        attention: int | None = None,
        rng: np.random.Generator | int = 0,
        **settings: Any,
    ) -> None:
        self.attention = features if attention is None else attention
        if self.attention < 1:
            raise ValueError(f"attention is {attention}, expected at least 1 channel")
        rng = np.random.default_rng(rng)
        super().__init__(channels, features, kernel, rng=rng, **settings)
        D, F, dtype = self.attention, features, self.params["w_h"].dtype
        for name in ("w_q", "w_kh", "w_vh", "w_km", "w_vm"):
            self.params[name] = glorot_uniform(rng, (F if "v" in name else D, F), dtype)
        self.params["w_z"] = glorot_uniform(rng, (F, 2 * F), dtype)
        self.params["w_m"] = glorot_uniform(rng, (3 * F, 2 * F), dtype, gates=3)
        self.params["b_m"] = np.zeros(3 * F, dtype)

    @property
    def macs_per_position(self) -> int:
        """The plain cell's, and the maps of one tap; the attention itself is in `attention_macs`."""
        names = SelfAttentionWeights._fields[:-1]
        return super().macs_per_position + sum(int(self.params[name].size) for name in names)

    def attention_macs(self, sizes: tuple[int, ...]) -> int:
        """Those of q^T k and of the weighted sums, in h and in m: 2 P^2 (D + F) for P positions."""
        return 2 * prod(sizes) ** 2 * (self.attention + self.features)

    def step_macs(self, sizes: tuple[int, ...]) -> int:
        """Also the attention's, which grow with the square of the positions."""
        return super().step_macs(sizes) + self.attention_macs(sizes)

    def step_kept(self, sizes: tuple[int, ...]) -> int:
        """Also q, k_h and k_m, and the weights of every pair of positions, twice."""
        P = prod(sizes)
        return super().step_kept(sizes) + 3 * P * self.attention + 2 * P**2

    def step_room(self, sizes: tuple[int, ...]) -> int:
        """The gradients of one attention's weights and of its scores."""
        return super().step_room(sizes) + 2 * prod(sizes) ** 2

    def initial_state(self, x: Array) -> SAState:  # type: ignore[override]
        """h = c = m = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return SAState(*(zeros(x, shape) for _ in SAState._fields))

    def step(  # type: ignore[override]
        self, z: Array, state: SAState, h_mask: Array | None = None
    ) -> tuple[SAState, SAStepSaved]:
        """One step from z (N, 4F, *S): the new state, and what backward needs."""
        (h, c), lstm = super().step(z, LSTMState(state.h, state.c), h_mask)
        weights = (self.params[name] for name in SelfAttentionWeights._fields)
        (h, m), attention = self_attention_forward(h, state.m, *weights)
        return SAState(h, c, m), SAStepSaved(lstm, attention)

    def step_backward(  # type: ignore[override]
        self, dstate: SAState, saved: SAStepSaved
    ) -> tuple[Array, SAState, Grads]:
        """The attention's backward pass gives dh~ and dm; from dh~ and dc on it is `LSTMCell`'s."""
        dh, dm, *dws = self_attention_backward((dstate.h, dstate.m), saved.attention)
        dz, (dh, dc), grads = super().step_backward(LSTMState(dh, dstate.c), saved.lstm)
        return dz, SAState(dh, dc, dm), grads | dict(zip(SelfAttentionWeights._fields, dws, strict=True))


def attention_from(tape: Any, t: int, clip: int, position: tuple[int, ...]) -> tuple[Array, Array]:
    """Where one position of a clip looked at a step, in h and in m: two maps (*S), to be looked at.

    Args:
        tape: the third result of `scan` of `SAConvLSTMCell`.
        t, clip: of the step and of the clip.
        position: in *S.
    Returns:
        Weights over the positions of h and of m; each sums to 1.
    """
    step = tape.steps[t]
    sizes = step.lstm.gates.c.shape[2:]
    flat = int(np.ravel_multi_index(position, sizes)) if sizes else 0
    saved = step.attention
    of_h, of_m = (of.weights.y[clip, flat].reshape(sizes) for of in (saved.of_h, saved.of_m))
    return of_h, of_m
