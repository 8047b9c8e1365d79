"""The LSTM with layer normalisation inside the cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..init import lstm_bias
from ..ops.activations import sigmoid
from ..ops.conv import ConvSaved
from ..ops.gates import GATES, LSTMState, split
from ..ops.norm import GroupNormSaved, group_norm_backward, group_norm_forward
from .base import TwoMapCell, masked
from .maps import ConvMap, Grads, zeros


class LayerNormGradient(NamedTuple):
    """dz of a step for each map, before its norm."""

    x: Array  # (N, 4F, *S)
    h: Array  # (N, 4F, *S)


class LayerNormStepSaved(NamedTuple):
    """What one backward step needs; gates are (N, F, *S)."""

    i: Array
    f: Array
    g: Array
    o: Array
    tanh_n: Array  # tanh of the normalised cell
    c_prev: Array
    x_norm: GroupNormSaved | None  # None for a cell without input
    h_norm: GroupNormSaved
    c_norm: GroupNormSaved
    state_map: ConvSaved
    h_mask: Array | None


class LayerNormLSTMCell(TwoMapCell):
    """The LSTM with layer norm on what each map gives, and on the cell before its tanh.

        z = LN(w_x * x; gamma_x) + LN(w_h * h; gamma_h) + b
        i = sigmoid(z_i)      f = sigmoid(z_f)      g = tanh(z_g)      o = sigmoid(z_o)
        c' = f . c + i . g                          h' = o . tanh(LN(c'; gamma_c, beta_c))

    LN subtracts the mean and divides by the standard deviation over (F, *S) of one sample, of each
    gate by itself, and multiplies by gamma, one number a channel. So the result does not change
    when w_h is multiplied by a number.

    Args:
        norm_groups: 4 normalises each gate by itself, 1 all four together, as equation 20 writes it.
        eps: added to the variance.
        forget_bias and the others as `LSTMCell`, without peepholes.
    Parameters: w_x (4F, C, *K), w_h (4F, F, *K), b (4F,), gamma_x and gamma_h (4F,), gamma_c and beta_c
        (F,); gates in the order i, f, g, o. The shifts of the first two norms would add to b and are left
        out. A cell without input (channels = 0) has no gamma_x.
    Source: Ba, Kiros, Hinton 2016, arXiv 1607.06450, section 3.1 and equations 20 to 22.
    """

    gates = GATES
    states = 2
    kept_per_step = 15  # i, f, g, o, c, tanh; x_hat of both maps' 4F channels and of c
    room_per_step = 17  # dz before both norms, by gate and side by side; a norm's products; dc, dh
    room_beside_map = 10

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        norm_groups: int = 4,
        eps: float = 1e-5,
        forget_bias: float = 1.0,
        **settings: Any,
    ) -> None:
        if norm_groups not in (1, 4):
            raise ValueError(f"norm_groups is {norm_groups}, expected 4 (each gate) or 1 (all together)")
        super().__init__(channels, features, kernel, **settings)
        self.norm_groups, self.eps = norm_groups, eps
        dtype = self.params["w_h"].dtype
        self.params["b"] = lstm_bias(features, forget_bias, dtype)
        if isinstance(self.input_map, ConvMap):
            self.input_map = replace(self.input_map, b=None)  # b comes after the norm
            self.params["gamma_x"] = np.ones(4 * features, dtype)
        self.params["gamma_h"] = np.ones(4 * features, dtype)
        self.params["gamma_c"], self.params["beta_c"] = np.ones(features, dtype), np.zeros(features, dtype)

    def initial_state(self, x: Array) -> LSTMState:
        """h = c = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return LSTMState(zeros(x, shape), zeros(x, shape))

    def step(
        self, z: Array, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, LayerNormStepSaved]:
        """One step from z = w_x * x (N, 4F, *S): the new state, and what backward needs."""
        xp, p = array_module(z), self.params
        each: dict[str, Any] = {"groups": self.norm_groups, "eps": self.eps}
        x_norm = None
        if "gamma_x" in p:
            z, x_norm = group_norm_forward(z, p["gamma_x"], p["b"], **each)
        z_h, map_saved = self.state_map.forward(masked(state.h, h_mask), p)
        z_h, h_norm = group_norm_forward(z_h, p["gamma_h"], xp.zeros_like(p["gamma_h"]), **each)
        z_i, z_f, z_g, z_o = split(z_h + z, 4)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), xp.tanh(z_g), sigmoid(z_o)
        c = f * state.c + i * g
        n, c_norm = group_norm_forward(c, p["gamma_c"], p["beta_c"], groups=1, eps=self.eps)
        tanh_n = xp.tanh(n)
        saved = LayerNormStepSaved(i, f, g, o, tanh_n, state.c, x_norm, h_norm, c_norm, map_saved, h_mask)
        return LSTMState(o * tanh_n, c), saved

    def step_backward(
        self, dstate: LSTMState, saved: LayerNormStepSaved
    ) -> tuple[LayerNormGradient, LSTMState, Grads]:
        """dz for both maps, the gradient of the state before, and those of the step's own norms.

        dn = dh o (1 - tanh(n)^2)        dc += LN^T dn        and then as `lstm_gates_backward`
        dz_x = LN^T dz                   dz_h = LN^T dz                   dh_prev = w_h^T dz_h
        """
        i, f, g, o, tanh_n, c_prev, x_norm, h_norm, c_norm, state_map, h_mask = saved
        dz_o = dstate.h * tanh_n * o * (1 - o)
        dc, dgamma_c, dbeta_c = group_norm_backward(dstate.h * o * (1 - tanh_n * tanh_n), c_norm)
        dc = dc + dstate.c
        dz_i, dz_f, dz_g = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g)
        dz = array_module(dc).concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
        dz_h, dgamma_h, _ = group_norm_backward(dz, h_norm)
        grads = {"gamma_h": dgamma_h, "gamma_c": dgamma_c, "beta_c": dbeta_c}
        dz_x = dz
        if x_norm is not None:
            dz_x, grads["gamma_x"], grads["b"] = group_norm_backward(dz, x_norm)
        dh_prev = self.state_map_backward(dz_h, state_map, h_mask)
        return LayerNormGradient(dz_x, dz_h), LSTMState(dh_prev, dc * f), grads

    @property
    def dz_blocks(self) -> int:
        """Four gates for each of the two maps."""
        return 2 * len(self.gates)

    def to_input_map(self, dz: LayerNormGradient) -> Array:
        """dz with respect to the input map, before its norm."""
        return dz.x

    def to_state_map(self, dz: LayerNormGradient) -> Array:
        """dz with respect to the state map, before its norm."""
        return dz.h
