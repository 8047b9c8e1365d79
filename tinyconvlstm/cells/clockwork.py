"""Clockwork: a state in modules, each with a clock of its own, that reads its equals and the slower ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, array_module, check_dtypes, map_arrays
from ..ops.gates import LSTMState
from .base import TwoMapCell, masked, zeros
from .lstm import LSTMCell
from .maps import Grads
from .rnn import RNNCell, RNNState


class ClockworkRNNState(NamedTuple):
    """What the cell carries: the plain cell's state and the time."""

    h: Array  # (N, F, *S)
    t: Array  # (N,) steps since the clocks began, modulo their common cycle; no gradient reaches it


class ClockworkLSTMState(NamedTuple):
    """What the cell carries: the plain cell's state and the time."""

    h: Array  # (N, F, *S)
    c: Array  # (N, F, *S)
    t: Array  # (N,)


class ClockworkSaved(NamedTuple):
    """What one backward step needs."""

    inner: Any  # of the plain cell's step
    ticking: Array  # (N, F, *1) True where a module moves

    @property
    def state_map(self) -> Any:
        """What the state map read."""
        return self.inner.state_map


class WithWeights(Sequence[Any]):
    """zs, and beside each of them the weights that all steps share."""

    def __init__(self, zs: Sequence[Array], w: Array) -> None:
        self.zs, self.w = zs, w

    def __len__(self) -> int:
        return len(self.zs)

    def __getitem__(self, t: Any) -> Any:
        return self.zs[t], self.w


def ticks(t: Array, period: int) -> Array:
    """(N,) True where a clock of that period ticks at times t (N,)."""
    return array_module(t).rint(t.real) % period == 0


def later(t: Array, periods: Sequence[int], h: Array) -> Array:
    """t + 1 (N,), modulo the common cycle of clocks of these periods, in h's dtype."""
    return ((array_module(t).rint(t.real) + 1) % lcm(*periods)).astype(h.dtype)


class Clockwork(TwoMapCell):
    """A plain cell by the clockwork rule: to be put before it among the base classes.

        (h_new, ...) = the plain cell's step, with w_h only from modules with a period equal or longer
        s' = s_new in the modules g with t mod T_g = 0, else s         for every part s of the state
        t' = t + 1

    The features are cut into as many modules of equal size as there are periods. t is 0 at the first step of a
    scan from rest, so that every module reads the first frame. It is part of the state: a scan in pieces, each
    from the state that the last one left, goes on counting. It counts steps read, also in a clip read backwards.

    All modules are computed at every step; the rule shortens the path of the gradient (a held state passes
    it unchanged), not the work. w_h is kept whole: the weights of links from faster to slower modules are
    zero, have no gradient, and stay zero.

    Args:
        periods: T_g in steps, one for each module. The others as the plain cell.
    Source: Koutnik, Greff, Gomez, Schmidhuber 2014, "A clockwork RNN", arXiv 1402.3511, section 3.
    """

    plain: ClassVar[type]  # the plain cell's state
    clocked: ClassVar[type]  # that, and t

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        periods: tuple[int, ...],
        **settings: Any,
    ) -> None:
        if not periods or any(not isinstance(T, int) or T < 1 for T in periods):
            raise ValueError(
                f"periods is {periods}, expected at least one whole number of steps, each 1 or more"
            )
        if features % len(periods):
            raise ValueError(f"features is {features}, expected a multiple of {len(periods)}, the modules")
        super().__init__(channels, features, kernel, **settings)
        self.periods = tuple(periods)
        of_feature = np.repeat(periods, features // len(periods))
        links = of_feature[:, None] <= of_feature  # (F, F) True where row may read column
        self.links = np.tile(links, (len(self.gates), 1)).reshape(-1, features, *(1,) * len(kernel))
        self.params["w_h"] *= self.links

    def initial_state(self, x: Array) -> Any:
        """The plain cell's, at time 0."""
        return self.clocked(*super().initial_state(x), zeros(x, x.shape[:1]))

    def check_fields(self, state: Any, x: Array) -> None:
        """Those of the plain cell, and t (N,)."""
        super().check_fields(self.plain(*state[:-1]), x)
        array_module(x=x, **{"state.t": state.t})
        check_dtypes(x=x, **{"state.t": state.t})
        if tuple(state.t.shape) != x.shape[:1]:
            raise ValueError(
                f"state.t has shape {tuple(state.t.shape)}, expected {x.shape[:1]}, a time for each clip"
            )

    def project(self, xs: Array) -> tuple[WithWeights, Any]:
        """The input's part of z for all frames, each with w_h without the links that the rule forbids."""
        zs, saved = super().project(xs)
        w = self.params["w_h"]
        return WithWeights(zs, w if self.links.all() else w * array_module(w).asarray(self.links)), saved

    def pre_activations(self, z: Any, h: Array, h_mask: Array | None) -> tuple[Array, Any]:
        """z + w_h * h from (z, w_h)."""
        z, w = z
        return self.state_map.forward(masked(h, h_mask), {"w_h": w}, plus=z)

    def step(self, z: Any, state: Any, h_mask: Array | None = None) -> tuple[Any, ClockworkSaved]:
        """The plain cell's step, kept where a module's clock ticks."""
        *parts, t = state
        new, saved = super().step(z, self.plain(*parts), h_mask)
        xp, ticking = array_module(t), self.ticking(t, parts[0].ndim)
        shown = [xp.where(ticking, a, b) for a, b in zip(new, parts, strict=True)]
        return self.clocked(*shown, later(t, self.periods, shown[0])), ClockworkSaved(saved, ticking)

    def step_backward(self, dstate: Any, saved: ClockworkSaved) -> tuple[Array, Any, Grads]:
        """The plain cell's where the clock ticked; elsewhere the gradient passes unchanged."""
        xp, ticking = array_module(dstate.h), saved.ticking
        d = self.plain(*dstate[:-1])
        moved = map_arrays(lambda a: xp.where(ticking, a, 0), d)
        held = map_arrays(lambda a: xp.where(ticking, 0, a), d)
        dz, before, grads = super().step_backward(moved, saved.inner)
        parts = (None if a is None else a + b for a, b in zip(before, held, strict=True))  # None: h at rest
        return dz, self.clocked(*parts, xp.zeros_like(dstate.t)), grads

    def state_backward(self, dzs: Sequence[Any], steps: Sequence[Any], grads: Grads) -> None:
        """Add the gradient of w_h; there is none for links that the rule forbids."""
        super().state_backward(dzs, steps, grads)
        if not self.links.all():
            grads["w_h"] = grads["w_h"] * array_module(grads["w_h"]).asarray(self.links)

    def ticking(self, t: Array, rank: int) -> Array:
        """(N, F, *1) True where the clock of a feature's module ticks at times t (N,)."""
        xp = array_module(t)
        each = [ticks(t, T) for T in self.periods]  # G times (N,)
        modules = xp.repeat(xp.stack(each, axis=1), self.features // len(self.periods), axis=1)
        return modules.reshape(*modules.shape, *(1,) * (rank - 2))


class ClockworkRNNCell(Clockwork, RNNCell):  # type: ignore[misc]  # a step's states are clocked
    """`RNNCell` by the clockwork rule (`Clockwork`), the network of the paper.

    With periods that are all 1 it is `RNNCell`, bit for bit. Args: periods, and as `RNNCell`; parameters as there.
    Source: Koutnik et al. 2014, section 3; here over 0 to 3 spatial axes.
    """

    plain, clocked = RNNState, ClockworkRNNState


class ClockworkLSTMCell(Clockwork, LSTMCell):  # type: ignore[misc]
    """`LSTMCell` by the clockwork rule (`Clockwork`): h and c of a module are held between its ticks.

    With periods that are all 1 it is `LSTMCell`, bit for bit. Args: periods, and as `LSTMCell`; parameters as there.
    Source: the rule: Koutnik et al. 2014, section 3, there for a plain recurrent network; gates: Shi
        et al. 2015, arXiv 1506.04214, equation 3.
    """

    plain, clocked = LSTMState, ClockworkLSTMState
    kept_per_step = 7  # i, f, g, o, tanh(c), c as computed and c as shown
