"""LSTM and ConvLSTM: one cell, because an LSTM is a ConvLSTM without spatial axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from ..backend import Array, array_module
from ..init import lstm_bias
from ..ops.conv import ConvSaved
from ..ops.gates import (
    GATES,
    LSTMGatesSaved,
    LSTMSlopes,
    LSTMState,
    lstm_gates_backward,
    lstm_gates_forward,
    lstm_slopes,
    split,
)
from ..ops.lowering import frames_of
from .base import TwoMapCell, zeros
from .maps import Z_BYTES, Grads, as_one_batch


class LSTMStepSaved(NamedTuple):
    """What one backward step needs."""

    gates: LSTMGatesSaved
    state_map: ConvSaved  # .x is the (masked) h before the step, .w is w_h
    h_mask: Array | None
    slopes: LSTMSlopes | None = None  # while going back, where they are known


class LSTMCell(TwoMapCell):
    """The LSTM cell over 0 to 3 spatial axes, with optional peepholes.

        z = w_x * x + w_h * h + b
        i = sigmoid(z_i + w_ci . c)      f = sigmoid(z_f + w_cf . c)      g = tanh(z_g)
        c' = f . c + i . g               o = sigmoid(z_o + w_co . c')     h' = o . tanh(c')

    where * is a convolution over len(kernel) spatial axes, or a matrix product with kernel ().

    Args:
        channels: C, channels of the input.
        features: F, channels of the state.
        kernel: K of the input map, one int a spatial axis; () makes the dense LSTM.
        peephole: None, "channel" (w_c is (3, F)) or "map" (w_c is (3, F, *S)).
        size: S of the state, needed for peephole="map" only.
        forget_bias: the forget gate's initial bias; 1 lets a young cell remember (Gers et al. 2000;
            Jozefowicz et al. 2015, section 3.1).
        state_kernel: K of the state map; default: kernel. Always stride 1, "same".
        stride, padding, dilation: of the input map. state_dilation: of the state map.
        rng: a NumPy Generator or a seed for the initial weights.
        dtype: of the parameters.
    Parameters: w_x (4F, C, *K), w_h (4F, F, *K), b (4F,), w_c; gates in the order i, f, g, o.
    Source: Shi et al. 2015, arXiv 1506.04214, equation 3; with kernel () Graves 2013, arXiv
        1308.0850, equations 7 to 11.
    """

    gates = GATES
    states = 2
    kept_per_step = 6  # i, f, g, o, c, tanh(c)
    room_per_step = 5  # dc for dh, dc, its gradient; and with peepholes what two of them meet
    room_beside_map = 2  # the gradients of h and c

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        peephole: str | None = None,
        size: tuple[int, ...] | None = None,
        forget_bias: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(channels, features, kernel, **settings)
        dtype = self.params["w_h"].dtype
        self.params["b"] = lstm_bias(features, forget_bias, dtype)
        if peephole not in (None, "channel", "map"):
            raise ValueError(f"peephole is {peephole!r}, expected None, 'channel' or 'map'")
        if peephole == "map" and (size is None or len(size) != len(self.kernel)):
            raise ValueError(f"size is {size}, expected {len(self.kernel)} spatial sizes for peephole='map'")
        if peephole is not None:
            shape = (3, features, *(size or ())) if peephole == "map" else (3, features)
            self.params["w_c"] = np.zeros(shape, dtype=dtype)

    def state_shape(self, x: Array) -> tuple[int, ...]:
        """(N, F, *S); a ValueError also where a peephole map has another size than the state."""
        shape = super().state_shape(x)
        w_c = self.params.get("w_c")
        if w_c is not None and w_c.ndim > 2 and w_c.shape[2:] != shape[2:]:
            raise ValueError(
                f"the state is {shape[2:]} for frames of shape {tuple(x.shape)}, "
                f"the peephole map {w_c.shape[2:]} (w_c.shape == {w_c.shape})"
            )
        return shape

    def initial_state(self, x: Array) -> LSTMState:
        """h = c = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return LSTMState(zeros(x, shape), zeros(x, shape))

    def step(
        self, z: Array, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, LSTMStepSaved]:
        """One step from z (N, 4F, *S), the input map's part: the new state, and what backward needs."""
        z, map_saved = self.pre_activations(z, state.h, h_mask)
        new, gates = lstm_gates_forward(z, state.c, self.params.get("w_c"), in_place=True)
        return new, LSTMStepSaved(gates, map_saved, h_mask)

    def ahead(self, steps: list[Any], kind: Any, joined: bool) -> tuple[Array | None, Iterator[Any]]:
        """The steps with the slopes of their gates, for as many at once as fit in a cache."""
        first = steps[0]
        if not self.kernel or not isinstance(first, LSTMStepSaved) or kernels.usable(first.gates.gates):
            return super().ahead(steps, kind, joined)
        gates = first.gates.gates
        xp, size = array_module(gates), max(1, Z_BYTES // gates.nbytes)
        kind = xp.result_type(kind, gates)
        room = xp.empty((len(steps), *gates.shape), dtype=kind) if joined else None

        def last_first() -> Iterator[LSTMStepSaved]:
            for end in range(len(steps), 0, -size):
                begin = max(0, end - size)
                saved = [step.gates for step in steps[begin:end]]
                out = xp.empty((len(saved), *gates.shape), dtype=kind) if room is None else room[begin:end]
                dc = lstm_slopes(one_batch(saved), frames_of(out)).dc
                dc = dc.reshape(len(saved), -1, *dc.shape[1:])
                for k in reversed(range(len(saved))):
                    found, state_map, h_mask, _ = steps[begin + k]
                    yield LSTMStepSaved(found, state_map, h_mask, LSTMSlopes(out[k], dc[k]))

        return room, last_first()

    def step_backward(self, dstate: LSTMState, saved: LSTMStepSaved) -> tuple[Array, LSTMState, Grads]:
        """dz (N, 4F, *S), the gradient of the state before the step, and that of the peepholes."""
        dz, dc_prev, dw_c = lstm_gates_backward(dstate, saved.gates, saved.slopes)
        dh_prev = self.state_map_backward(dz, saved.state_map, saved.h_mask)
        return dz, LSTMState(dh_prev, dc_prev), {} if dw_c is None else {"w_c": dw_c}


def one_batch(steps: list[LSTMGatesSaved]) -> LSTMGatesSaved:
    """What several steps saved, as if they had been one step of a larger batch; what `lstm_slopes` reads of it."""
    gates = as_one_batch([step.gates for step in steps])
    tanh_c = as_one_batch([step.tanh_c for step in steps])
    c_prev = as_one_batch([step.c_prev for step in steps])
    i, f, g, o = split(gates, 4)
    return LSTMGatesSaved(i, f, g, o, None, tanh_c, c_prev, None, gates)


class ConvLSTMCell(LSTMCell):
    """`LSTMCell` under the name of its paper; kernel is needed, one int for each spatial axis."""

    def __init__(self, channels: int, features: int, kernel: tuple[int, ...], **settings: Any) -> None:
        if not kernel:
            raise ValueError("kernel is (), expected one int a spatial axis; the dense cell is LSTMCell")
        super().__init__(channels, features, kernel, **settings)
