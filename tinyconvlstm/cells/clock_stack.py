"""Stacked clocks: levels of cells, each slower and coarser than the one below, that hear each other.

Read `clockwork.py` for the rule inside one state. A stack with feedback from above cannot be scanned level
by level, so it is one cell, made of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from ..backend import Array, array_module, check_dtypes, map_arrays
from ..batch import hold, where
from ..ops.pooling import avg_pool_backward, avg_pool_forward
from ..ops.windows import Window, per_axis
from ..parameters import Container, prefixed
from .base import Cell, State, TwoMapCell, zeros
from .clockwork import later, ticks
from .maps import Grads, add_to


class ClockState(NamedTuple):
    """What a stack carries from step to step."""

    h: Array  # (N, F, *S) of the level that is shown; the next step does not read it
    levels: tuple[State, ...]  # bottom first
    t: Array  # (N,) steps since the clocks began, modulo their common cycle; no gradient reaches it


class Frames(NamedTuple):
    """What a stack reads."""

    x: Array  # (T, N, C, *S)


class LevelSaved(NamedTuple):
    """What one backward step of one level needs."""

    ticking: Array  # (N,)
    pooled: Any  # of the pool below, or None
    projection: Any
    step: Any


class StackSaved(NamedTuple):
    """What one backward step needs."""

    x: Array  # (N, C, *S), for its shape
    levels: tuple[LevelSaved | None, ...]  # None: no clip's clock ticked


class ClockStackCell(Container, Cell):  # type: ignore[override]
    """One step of a stack of cells, of which level l moves every T_l steps.

        for l = 0, 1, ...:   x_l = pool(h_{l-1}), new;   x_0 = x
                             x_l = (x_l, up(h_{l+1}, old))             with top_down, below the top
                             s_l = step_l(x_l, s_l) where t mod T_l = 0, else s_l
        h = h_shown;   t = t + 1

    A level reads what the level below has just become, and what the level above was before this step. pool is
    the mean of a patch of pixels, up repeats each pixel. A held level passes its gradient unchanged, and is not
    computed where no clip's clock ticks. With T_l = 1, no pooling and no top_down it is the plain stack, one scan
    after another. t is 0 at the first step of a scan from rest and is part of the state: a scan in pieces goes
    on counting. The maps stand inside the loop, because what they read does.

    Args:
        cells: bottom first; each with as many channels as what it reads: the features below, and with
            top_down those above (after them).
        periods: T_l in steps, one for each cell.
        pools: pixels per patch between a level and the next, an int or one an axis; default: no pooling.
        top_down: whether levels read the one above.
        show: the level whose h is the output; default: the top.
    Source: a rule of this package. Levels that tick, each T times slower than the one below, with context from above:
        Saxena, Ba, Hafner 2021, "Clockwork variational autoencoders", arXiv 2102.09532, section 3.
    """

    def __init__(
        self,
        cells: Sequence[TwoMapCell],
        periods: Sequence[int],
        *,
        pools: Sequence[int | tuple[int, ...]] | None = None,
        top_down: bool = False,
        show: int = -1,
    ) -> None:
        if not cells or not -len(cells) <= show < len(cells):
            raise ValueError(
                f"cells has {len(cells)} levels and show is {show}, expected at least 1, and one of them"
            )
        pools = (1,) * (len(cells) - 1) if pools is None else tuple(pools)
        for name, given, count in (("periods", periods, len(cells)), ("pools", pools, len(cells) - 1)):
            if len(given) != count:
                raise ValueError(f"{name} has {len(given)} entries, expected {count} for {len(cells)} cells")
        if any(not isinstance(T, int) or T < 1 for T in periods):
            raise ValueError(f"periods is {tuple(periods)}, expected whole numbers of steps, each 1 or more")
        self.parts = {str(k): cell for k, cell in enumerate(cells)}
        self.periods, self.pools, self.top_down = tuple(periods), pools, top_down
        self.show = range(len(cells))[show]
        for k, cell in list(enumerate(cells))[1:]:
            wanted = cells[k - 1].features + self.context(k)
            if cell.channels != wanted:
                raise ValueError(f"cells[{k}] has {cell.channels} channels, expected {wanted}, what it reads")

        if self.channels < 0:
            raise ValueError(
                f"cells[0] has {cells[0].channels} channels, expected at least {self.context(0)}, those from above"
            )

    @property
    def cells(self) -> list[TwoMapCell]:
        """The levels, bottom first."""
        return list(self.parts.values())

    @property
    def channels(self) -> int:
        """Channels of the stack's input."""
        return self.cells[0].channels - self.context(0)

    def context(self, level: int) -> int:
        """Channels that a level reads from above."""
        above = self.cells[level + 1 :] if self.top_down else []
        return above[0].features if above else 0

    def frames(self, x: Array) -> list[Array]:
        """Frames like those that each level reads, for frames like x; ValueError where sizes do not fit."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"x.shape is {tuple(x.shape)}, expected (N, {self.channels}, *S)")
        found, sizes = [], tuple(x.shape[2:])
        for cell, pool in zip(self.cells, (1, *self.pools), strict=True):
            patch = per_axis(pool, len(sizes), "pool")
            if any(n % p for n, p in zip(sizes, patch, strict=True)):
                raise ValueError(f"a level has spatial sizes {sizes}, expected multiples of its pool {patch}")
            sizes = tuple(n // p for n, p in zip(sizes, patch, strict=True))
            found.append(rest_like(x, (x.shape[0], cell.channels, *sizes)))
            sizes = cell.state_shape(found[-1])[2:]
            if self.top_down and any(n % p for n, p in zip(found[-1].shape[2:], sizes, strict=True)):
                raise ValueError(
                    f"a level reads {found[-1].shape[2:]} pixels, expected multiples of its {sizes}"
                )
        return found

    def initial_state(self, x: Array) -> ClockState:
        """Every level's zeros, at time 0, for frames like x (N, C, *S)."""
        pairs = zip(self.cells, self.frames(x), strict=True)
        levels = tuple(cell.initial_state(frame) for cell, frame in pairs)
        return ClockState(levels[self.show].h, levels, zeros(x, x.shape[:1]))

    def check_state(self, state: ClockState, x: Array) -> ClockState:
        """The state; an error where a level's, or the time, does not fit frames like x."""
        for cell, level, frame in zip(self.cells, state.levels, self.frames(x), strict=True):
            cell.check_state(level, frame)
        array_module(x=x, **{"state.t": state.t})
        check_dtypes(x=x, **{"state.t": state.t})
        if tuple(state.t.shape) != x.shape[:1]:
            raise ValueError(
                f"state.t has shape {tuple(state.t.shape)}, expected {x.shape[:1]}, a time for each clip"
            )
        return state

    def macs(self, x: Array) -> int:
        """Multiply-accumulates of one step, on average over the clocks' common cycle."""
        pairs = zip(self.cells, self.frames(x), self.periods, strict=True)
        return sum(cell.macs(frame) // T for cell, frame, T in pairs)

    def project(self, xs: Array) -> tuple[Array, Frames]:
        """The frames themselves: what a level reads from above depends on the state."""
        return xs, Frames(xs)

    def projection_of(self, saved: Frames, begin: int, end: int) -> Frames:
        """The frames of the steps begin .. end - 1."""
        return Frames(saved.x[begin:end])

    def project_backward(
        self,
        dzs: Sequence[Array],
        saved: Frames,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """dxs (T, N, C, *S), as `step_backward` left it."""
        dxs = array_module(dzs[0]).stack(list(dzs))
        if out is not None:
            out[...] = dxs
        return dxs

    def state_backward(self, dzs: Sequence[Array], steps: Sequence[Any], grads: Grads) -> None:
        """Only the zeros of levels that never ticked are left: `step_backward` returns every gradient."""
        for name, a in self.params.items():
            grads.setdefault(name, array_module(a).zeros_like(a))

    def step(self, z: Array, state: ClockState, h_mask: Array | None = None) -> tuple[ClockState, StackSaved]:
        """One step from the frame z (N, C, *S): the new state, and what backward needs of the levels that moved."""
        if h_mask is not None:
            raise ValueError("h_mask is given, expected None: a stack of clocks has no recurrent dropout")
        xp, below, levels, saved = array_module(z), z, list[State](), list[LevelSaved | None]()
        for k, (cell, old) in enumerate(zip(self.cells, state.levels, strict=True)):
            ticking = ticks(state.t, self.periods[k])
            if ticking.any():
                read, pooled = self.pooled(below, k)
                if self.context(k):
                    read = xp.concatenate([read, repeated(state.levels[k + 1].h, read.shape[2:])], axis=1)
                zs, projection = cell.project(read[None])
                new, step = cell.step(zs[0], old)
                levels.append(hold(ticking, new, old))
                saved.append(LevelSaved(ticking, pooled, projection, step))
            else:
                levels.append(old)
                saved.append(None)
            below = levels[-1].h
        h = levels[self.show].h
        kind = xp.result_type(z, h, *self.params.values())  # also of a level that was held so far
        shown = h if h.dtype == kind else h.astype(kind)
        t = later(state.t, self.periods, shown)
        return ClockState(shown, tuple(levels), t), StackSaved(z, tuple(saved))

    def step_backward(self, dstate: ClockState, saved: StackSaved) -> tuple[Array, ClockState, Grads]:
        """Levels from the top, in the reverse order of `step`: what each read came from below and from above."""
        d = [
            level._replace(h=level.h + dstate.h) if k == self.show else level
            for k, level in enumerate(dstate.levels)
        ]
        grads, dx = Grads(), None
        for k in reversed(range(len(d))):
            level, cell, own = saved.levels[k], self.cells[k], Grads()
            if level is None:
                continue  # held: the gradient passes it unchanged
            held = map_arrays(lambda a, on=level.ticking: where(on, array_module(a).zeros_like(a), a), d[k])
            moved = map_arrays(lambda a, on=level.ticking: where(on, a, 0), d[k])
            dz, before, step_grads = cell.step_backward(moved, level.step)
            cell.state_backward([dz], [level.step], own)
            dx = cell.project_backward([dz], level.projection, own)[0]
            for name, value in step_grads.items():
                add_to(own, name, value)
            grads |= prefixed(str(k), own)
            d[k] = type(before)(*(h if b is None else b + h for b, h in zip(before, held, strict=True)))
            if context := self.context(k):
                dx, dcontext = dx[:, :-context], dx[:, -context:]
                d[k + 1] = d[k + 1]._replace(h=d[k + 1].h + gathered(dcontext, d[k + 1].h.shape[2:]))
            if k:
                dx = dx if level.pooled is None else avg_pool_backward(dx, level.pooled)
                d[k - 1] = d[k - 1]._replace(h=d[k - 1].h + dx)
        zero = array_module(dstate.h).zeros_like
        dx = zero(saved.x) if saved.levels[0] is None else dx
        return dx, ClockState(zero(dstate.h), tuple(d), zero(dstate.t)), grads

    def pooled(self, below: Array, level: int) -> tuple[Array, Any]:
        """What a level reads of the one below, and what the pool saved."""
        pool = self.pools[level - 1] if level else 1
        patch = per_axis(pool, below.ndim - 2, "pool")
        return (below, None) if prod(patch) == 1 else avg_pool_forward(below, window=Window(patch, patch))


def repeated(h: Array, sizes: tuple[int, ...]) -> Array:
    """h (N, F, *s) with every pixel repeated to fill spatial `sizes`, multiples of s."""
    for axis, size in enumerate(sizes, start=2):
        if size != h.shape[axis]:
            h = array_module(h).repeat(h, size // h.shape[axis], axis=axis)
    return h


def gathered(d: Array, sizes: tuple[int, ...]) -> Array:
    """The adjoint of `repeated`: d (N, F, *S) added up over the repetitions of each of `sizes` pixels."""
    for axis, size in enumerate(sizes, start=2):
        if size != d.shape[axis]:
            d = d.reshape(*d.shape[:axis], size, -1, *d.shape[axis + 1 :]).sum(axis=axis + 1)
    return d


def rest_like(x: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of a shape that take no memory, with x's dtype on x's backend."""
    xp = array_module(x)
    return xp.broadcast_to(xp.zeros((), dtype=x.dtype), shape)
