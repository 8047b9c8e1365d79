"""The LSTM whose gates see the frame as a whole, by its mean over the positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.activations import sigmoid
from ..ops.conv import ConvSaved
from ..ops.gates import LSTMState, split
from .base import TwoMapCell, masked
from .maps import BiasMap, ConvMap, Grads, zeros


class Context(NamedTuple):
    """Pre-activations of a step, or their gradients; in what `project` saves, those of both maps."""

    x: Array  # (N, G F, *S), by convolution
    pooled: Array  # (N, P F), from pooled features


class ContextProjected(NamedTuple):
    """What `project` saved."""

    x: Array  # (T, N, C, *S)
    spatial: Any  # of the input map
    pooled: Any  # of the map of pooled frames


class ContextAll(Sequence[Context]):
    """`Context` of every step."""

    def __init__(self, spatial: Sequence[Array], pooled: Sequence[Array]) -> None:
        self.spatial, self.pooled = spatial, pooled

    def __len__(self) -> int:
        return len(self.spatial)

    def __getitem__(self, t: Any) -> Any:
        return Context(self.spatial[t], self.pooled[t])


class ContextSaved(NamedTuple):
    """What one backward step needs."""

    gates: dict[str, Array]  # i, f, g, o: (N, F, *S) or, of a pooled gate, (N, F, *1)
    c_prev: Array
    tanh_c: Array
    attention: Any  # what the gate by attention saved
    state_map: ConvSaved  # .x is the (masked) h before the step
    pooled: ConvSaved  # .x is its mean over the positions
    h_mask: Array | None


class ContextGateLSTMCell(TwoMapCell):
    """The LSTM whose gates have no convolution: one number a channel for the whole frame.

        x- = mean of x over its positions            h- = mean of h over its positions
        i, f, o = sigmoid(w_xp x- + w_hp h- + b_p)   the same at every position
        g = tanh(w_x * x + w_h * h + b)
        c' = f . c + i . g                           h' = o . tanh(c')

    Without space, kernel (), it is `LSTMCell`. The source found that spatial convolutions in the three gates
    add little; with nine taps this cell has about a third of the weights.

    Chosen here where the source has a detail of its own: the candidate's maps are whole convolutions (there
    depthwise-separable), sigmoid is not the hard one, and weights start as everywhere in the package (there the
    gates' begin at one constant).

    Args: as `TwoMapCell`, and forget_bias as `LSTMCell`. Recurrent dropout masks h where either map reads it.
    Parameters: w_x (F, C, *K), w_h (F, F, *K), b (F,) of the candidate; w_xp (3F, C), w_hp (3F, F), b_p (3F,)
        with blocks in the order of `pooled`: i, f, o.
    Source: Zhang, Zhu, Mei, Shen, Shah, Bennamoun 2018, "Attention in convolutional LSTM for gesture
        recognition", NeurIPS, section 3: variant (a).
    """

    gates: ClassVar[tuple[str, ...]] = ("g",)  # those of the convolutions
    pooled: ClassVar[tuple[str, ...]] = ("i", "f", "o")
    states = 2
    kept_per_step = 3  # g, c, tanh(c)
    room_per_step = 7  # di, df, dg, do, dc, dh and the mean's share of it
    room_beside_map = 6

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        forget_bias: float = 1.0,
        rng: np.random.Generator | int = 0,
        **settings: Any,
    ) -> None:
        rng = np.random.default_rng(rng)
        super().__init__(channels, features, kernel, rng=rng, **settings)
        dtype, blocks = self.params["w_h"].dtype, len(self.pooled)
        self.pooled_x = ConvMap("w_xp", "b_p", ()) if channels else BiasMap("b_p")
        self.pooled_h = ConvMap("w_hp", None, ())
        self.params |= self.pooled_x.init(rng, channels, features, blocks, dtype)
        self.params |= self.pooled_h.init(rng, features, features, blocks, dtype)
        self.params["b_p"].reshape(blocks, features)[self.pooled.index("f")] = forget_bias

    def step_macs(self, sizes: tuple[int, ...]) -> int:
        """The convolutions at every position, and the pooled gates' maps once."""
        return super().step_macs(sizes) + self.pooled_x.cost(self.params) + self.pooled_h.cost(self.params)

    def step_kept(self, sizes: tuple[int, ...]) -> int:
        """Also the pooled gates, and the pooled x and h."""
        return super().step_kept(sizes) + self.features * (len(self.pooled) + 1) + self.channels

    def initial_state(self, x: Array) -> LSTMState:
        """h = c = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return LSTMState(zeros(x, shape), zeros(x, shape))

    def project(self, xs: Array) -> tuple[ContextAll, ContextProjected]:
        """The input map of every frame, and that of every frame's mean."""
        zs, spatial = super().project(xs)
        pooled_zs, pooled = self.pooled_x.project(mean_over_positions(xs, 3), self.params)
        return ContextAll(zs, pooled_zs), ContextProjected(xs, spatial, pooled)

    def projection_of(self, saved: ContextProjected, begin: int, end: int) -> ContextProjected:
        """What `project` saved, for the steps begin .. end - 1."""
        return ContextProjected(
            saved.x[begin:end],
            super().projection_of(saved.spatial, begin, end),
            super().projection_of(saved.pooled, begin, end),
        )

    def spatial_gates(self, z: Array) -> tuple[dict[str, Array], Any]:
        """The gates that the convolutions make, by name, and what their backward pass needs."""
        return {"g": array_module(z).tanh(z)}, None

    def spatial_gates_backward(self, dgates: dict[str, Array], saved: ContextSaved) -> tuple[Array, Grads]:
        """dz (N, G F, *S) of the convolutions from the gradients of all gates, and those of own weights."""
        g = saved.gates["g"]
        return dgates["g"] * (1 - g * g), {}

    def step(
        self, z: Context, state: LSTMState, h_mask: Array | None = None
    ) -> tuple[LSTMState, ContextSaved]:
        """One step from both maps' parts: the new state, and what backward needs."""
        h = masked(state.h, h_mask)
        z_pooled, pooled = self.pooled_h.forward(mean_over_positions(h, 2), self.params, plus=z.pooled)
        z_x, state_map = self.state_map.forward(h, self.params, plus=z.x)
        s = sigmoid(z_pooled).reshape(*z_pooled.shape, *(1,) * (h.ndim - 2))  # (N, P F, *1)
        gates = dict(zip(self.pooled, split(s, len(self.pooled)), strict=True))
        spatial, attention = self.spatial_gates(z_x)
        gates |= spatial
        c = gates["f"] * state.c + gates["i"] * gates["g"]
        tanh_c = array_module(c).tanh(c)
        saved = ContextSaved(gates, state.c, tanh_c, attention, state_map, pooled, h_mask)
        return LSTMState(gates["o"] * tanh_c, c), saved

    def step_backward(self, dstate: LSTMState, saved: ContextSaved) -> tuple[Context, LSTMState, Grads]:
        """The gradients of both maps' parts, and of the state before.

        do = dh tanh(c)        dc += dh o (1 - tanh(c)^2)        h = o tanh(c)
        di = dc g              df = dc c_prev                    dg = dc i
        dz_pooled = s (1 - s) . (sum over positions of ds)       s: a gate of `pooled`
        dh_prev = w_h^T dz + (w_hp^T dz_pooled) / prod(S)        h- = mean of h
        """
        i, f, g, o = (saved.gates[name] for name in "ifgo")
        xp, axes = array_module(dstate.h), tuple(range(2, dstate.h.ndim))
        dc = dstate.c + dstate.h * o * (1 - saved.tanh_c * saved.tanh_c)
        dgates = {"i": dc * g, "f": dc * saved.c_prev, "g": dc * i, "o": dstate.h * saved.tanh_c}
        dz, grads = self.spatial_gates_backward(dgates, saved)
        parts = []
        for name in self.pooled:
            s = saved.gates[name]
            ds = dgates[name].sum(axis=axes, keepdims=True) if axes else dgates[name]
            parts.append((ds * s * (1 - s)).reshape(s.shape[:2]))
        dz_pooled = xp.concatenate(parts, axis=1)  # (N, P F)
        dh = self.state_map_backward(dz, saved.state_map, saved.h_mask)
        if dh is not None:
            dmean = dz_pooled @ saved.pooled.w  # (N, F)
            dh = dh + masked(spread(dmean, dh), saved.h_mask)
        return Context(dz, dz_pooled), LSTMState(dh, dc * f), grads

    def to_input_map(self, dz: Context) -> Array:
        """The part of the convolution."""
        return dz.x

    def to_state_map(self, dz: Context) -> Array:
        """The part of the convolution."""
        return dz.x

    def state_backward(self, dzs: Sequence[Context], steps: Sequence[ContextSaved], grads: Grads) -> None:
        """Add the gradients of w_h and w_hp, sums over the steps."""
        super().state_backward(dzs, steps, grads)
        means = [step.pooled.x for step in steps]
        self.pooled_h.add_weight_grads([dz.pooled for dz in dzs], means, steps[0].pooled, grads)

    def project_backward(
        self,
        dzs: Sequence[Context],
        saved: ContextProjected,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """dxs (T, N, C, *S) through both maps; adds the gradients of w_x, b, w_xp and b_p."""
        dxs = super().project_backward(dzs, saved.spatial, grads, input_grad=input_grad, out=out)
        pooled = [dz.pooled for dz in dzs]
        self.pooled_x.add_weight_grads(pooled, saved.pooled.x, saved.pooled, grads)
        if input_grad and self.channels:
            for t, dmean in enumerate(self.pooled_x.backward_x(pooled, saved.pooled)):
                dxs[t] += spread(dmean, dxs[t])
        return dxs


def mean_over_positions(x: Array, lead: int) -> Array:
    """The mean over all axes from `lead` on; without such axes x itself."""
    return x.reshape(*x.shape[:lead], prod(x.shape[lead:])).mean(axis=lead) if x.ndim > lead else x


def spread(dmean: Array, like: Array) -> Array:
    """The adjoint of the mean over positions: dmean (N, C) in equal shares, to be added to (N, C, *S)."""
    sizes = like.shape[2:]
    return (dmean / prod(sizes)).reshape(*dmean.shape, *(1,) * len(sizes))
