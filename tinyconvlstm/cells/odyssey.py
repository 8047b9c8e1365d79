"""The variants of "LSTM: a search space odyssey": the vanilla LSTM, and what each leaves out.

    cell     what differs from VanillaLSTMCell
    NIGCell    i = 1               no input gate
    NFGCell    f = 1               no forget gate
    NOGCell    o = 1               no output gate
    NIAFCell   g = z_g             no input activation function
    NOAFCell   h' = o . c'         no output activation function
    CIFGCell   f = 1 - i           coupled input and forget gate
    NPCell     w_c = 0             no peepholes: `LSTMCell`
    FGRCell    gates see gates     full gate recurrence, in `full_gates.py`

A gate that a variant lacks has no weights: its blocks are not in w_x, w_h, b and w_c at all.

Source: Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber 2017, arXiv 1503.04069, section 2 (the
vanilla LSTM) and appendix A (the variants).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..ops.activations import sigmoid
from ..ops.conv import ConvSaved
from ..ops.gates import LSTMState, split
from .base import TwoMapCell
from .maps import Grads, zeros


class OdysseySaved(NamedTuple):
    """Gates and cell of one step, each (N, F, *S); a missing gate is the number 1."""

    i: Any
    f: Any
    g: Array
    o: Any
    c: Array
    a: Array  # tanh(c), or c itself
    c_prev: Array
    state_map: ConvSaved
    h_mask: Array | None


class VanillaLSTMCell(TwoMapCell):
    """The LSTM of Greff et al. 2017 over 0 to 3 spatial axes, peepholes per channel included.

        z = w_x * x + w_h * h + b
        i = sigmoid(z_i + w_ci . c)      f = sigmoid(z_f + w_cf . c)      g = tanh(z_g)
        c' = f . c + i . g               o = sigmoid(z_o + w_co . c')     h' = o . tanh(c')

    It equals `LSTMCell(peephole="channel")`; its subclasses each change one line.

    Args:
        forget_bias: initial bias of the forget gate (with f = 1 - i, minus that of the input gate).
            The others as `TwoMapCell`.
    Parameters: w_x (G F, C, *K), w_h (G F, F, *K), b (G F,) with G blocks in the order of `gates`; w_c (P, F)
        with P rows in the order of `peeping`.
    Source: Greff et al. 2017, arXiv 1503.04069, section 2.
    """

    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    states = 2
    kept_per_step = 6  # i, f, g, o, c, tanh(c)
    room_per_step = 12  # dz of each gate, di, df, do, da, dc and its gradient, dh
    room_beside_map = 11
    coupled: ClassVar[bool] = False  # f = 1 - i
    squash_input: ClassVar[bool] = True  # g = tanh(z_g), else z_g
    squash_output: ClassVar[bool] = True  # h = o tanh(c), else o c
    peepholes: ClassVar[bool] = True

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
        b = self.params["b"].reshape(len(self.gates), features)  # a view
        if self.coupled:
            b[self.gates.index("i")] = -forget_bias
        elif "f" in self.gates:
            b[self.gates.index("f")] = forget_bias
        if self.peeping:
            self.params["w_c"] = np.zeros((len(self.peeping), features), b.dtype)

    @property
    def peeping(self) -> tuple[str, ...]:
        """The gates that look at the cell: those of i, f, o that exist."""
        return tuple(gate for gate in "ifo" if self.peepholes and gate in self.gates)

    def initial_state(self, x: Array) -> LSTMState:
        """h = c = 0, each (N, F, *S), for frames like x (N, C, *S)."""
        shape = self.state_shape(x)
        return LSTMState(zeros(x, shape), zeros(x, shape))

    def step(self, z: Array, state: Any, h_mask: Array | None = None) -> tuple[Any, Any]:
        """One step from z (N, G F, *S): the new state, and what backward needs."""
        z, map_saved = self.pre_activations(z, state.h, h_mask)
        parts = dict(zip(self.gates, split(z, len(self.gates)), strict=True))
        w, tanh = self.peephole_weights(state.c), array_module(z).tanh

        def gate(name: str, c: Array) -> Any:
            if name not in self.gates:
                return 1
            return sigmoid(parts[name] + w[name] * c if name in w else parts[name])

        i = gate("i", state.c)
        f = 1 - i if self.coupled else gate("f", state.c)
        g = tanh(parts["g"]) if self.squash_input else parts["g"].copy()  # z itself is not kept
        c = f * state.c + i * g
        o = gate("o", c)
        a = tanh(c) if self.squash_output else c
        return LSTMState(o * a, c), OdysseySaved(i, f, g, o, c, a, state.c, map_saved, h_mask)

    def step_backward(self, dstate: Any, saved: Any) -> tuple[Array, Any, Grads]:
        """dz (N, G F, *S), the gradient of the state before the step, and that of the peepholes."""
        return self.gates_backward(dstate, saved, 0, 0, 0)

    def gates_backward(
        self, dstate: Any, saved: OdysseySaved, di: Any, df: Any, do: Any
    ) -> tuple[Array, LSTMState, Grads]:
        """`step_backward`; di, df and do are what reaches the gates themselves from elsewhere.

        do += dh a                    da = dh o              h = o a(c)
        dz_o = do o (1 - o)           dc += da a'(c) + w_co dz_o
        di += dc g                    df += dc c_prev        c = f c_prev + i g
        di -= df                      where f = 1 - i
        dz_i = di i (1 - i)           dz_f = df f (1 - f)    dz_g = dc i g'(z_g)
        dc_prev = dc f + w_ci dz_i + w_cf dz_f
        """
        i, f, g, o, c, a, c_prev, state_map, h_mask = saved
        w, dz = self.peephole_weights(c), {}
        do, da = do + dstate.h * a, dstate.h * o
        dc = dstate.c + (da * (1 - a * a) if self.squash_output else da)
        if "o" in self.gates:
            dz["o"] = do * o * (1 - o)
            dc = dc + w["o"] * dz["o"] if "o" in w else dc
        di, df = di + dc * g, df + dc * c_prev
        if self.coupled:
            di = di - df
        if "i" in self.gates:
            dz["i"] = di * i * (1 - i)
        if "f" in self.gates:
            dz["f"] = df * f * (1 - f)
        dz["g"] = dc * i * (1 - g * g) if self.squash_input else dc * i
        dc_prev = dc * f
        for gate in ("i", "f"):
            dc_prev = dc_prev + w[gate] * dz[gate] if gate in w else dc_prev
        xp = array_module(dc)
        grads: Grads = {}
        if w:
            seen, axes = {"i": c_prev, "f": c_prev, "o": c}, (0, *range(2, c.ndim))
            grads["w_c"] = xp.stack([(dz[gate] * seen[gate]).sum(axes) for gate in w])
        dz_all = xp.concatenate([dz[gate] for gate in self.gates], axis=1)
        dh_prev = self.state_map_backward(dz_all, state_map, h_mask)
        return dz_all, LSTMState(dh_prev, dc_prev), grads

    def peephole_weights(self, c: Array) -> dict[str, Array]:
        """w_c by gate, each (F, *1), shaped to multiply c (N, F, *S); empty without peepholes."""
        if not self.peeping:
            return {}
        w_c = self.params["w_c"]
        return dict(zip(self.peeping, w_c.reshape(*w_c.shape, *(1,) * (c.ndim - 2)), strict=True))


class NIGCell(VanillaLSTMCell):
    """No input gate: i = 1. Source: Greff et al. 2017, appendix A, NIG."""

    gates = ("f", "g", "o")
    kept_per_step = 5


class NFGCell(VanillaLSTMCell):
    """No forget gate: f = 1, the LSTM of 1997. Source: Greff et al. 2017, appendix A, NFG."""

    gates = ("i", "g", "o")
    kept_per_step = 5


class NOGCell(VanillaLSTMCell):
    """No output gate: o = 1. Source: Greff et al. 2017, appendix A, NOG."""

    gates = ("i", "f", "g")
    kept_per_step = 5


class NIAFCell(VanillaLSTMCell):
    """No input activation function: g = z_g. Source: Greff et al. 2017, appendix A, NIAF."""

    squash_input = False


class NOAFCell(VanillaLSTMCell):
    """No output activation function: h' = o c'. Source: Greff et al. 2017, appendix A, NOAF."""

    squash_output = False
    kept_per_step = 5  # tanh(c) is c


class CIFGCell(VanillaLSTMCell):
    """Coupled input and forget gate: f = 1 - i. Source: Greff et al. 2017, appendix A, CIFG.

    A quarter of the weights less, and of the work: the light variant that the study found to be as good.
    """

    gates = ("i", "g", "o")
    coupled = True


class NPCell(VanillaLSTMCell):
    """No peepholes: `LSTMCell`. Source: Greff et al. 2017, appendix A, NP."""

    peepholes = False
