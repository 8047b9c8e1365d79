"""Backpropagation through time: one forward scan, and three ways back, side by side.

`scan` runs a cell over a sequence. What does not recur, the input map, runs once for all steps
before the loop. Backward, the loop carries only the state's gradient; every weight's gradient is a
plain sum over time and is taken after the loop. That is the whole of BPTT:

    full          `scan_backward`               exact; keeps the gates of all T steps
    truncated     `scan_truncated_backward`     every k1 steps, at most k2 steps back; cheaper, biased
    checkpointed  `scan_checkpointed_backward`  exact; keeps a state every few steps, recomputes the rest

Read `cells/base.py` first. Sources: Werbos 1990, "Backpropagation through time: what it does and how
to do it"; truncated: Williams & Peng 1990, section 4 (their h' is k1, their h is k2); checkpointed: Chen et
al. 2016, arXiv 1604.06174, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Array, array_module, backend_name, map_arrays, to_backend
from .cells.base import Cell, State
from .cells.maps import Grads, add_to


class Tape(NamedTuple):
    """What a scan keeps for its backward pass."""

    projection: Any  # saved of cell.project
    steps: list[Any]  # saved of cell.step, T of them
    alive: Array | None  # (T, N) True where t < lengths[n]; None when all clips are whole
    lengths: Array | None
    reverse: bool
    last: State  # the final state, for shapes


class Checkpoints(NamedTuple):
    """What a checkpointed scan keeps: the inputs, and the state before every segment."""

    xs: Array  # (T, N, C, *S)
    states: list[State]
    every: int
    lengths: Array | None
    reverse: bool
    h_mask: Array | None


def scan(
    cell: Cell,
    xs: Array,
    state: State | None = None,
    *,
    lengths: Array | Sequence[int] | None = None,
    reverse: bool = False,
    h_mask: Array | None = None,
) -> tuple[Array, State, Tape]:
    """Run a cell over a sequence.

        zs = project(xs);     for t in 0 .. T-1:  state = step(zs[t], state);  ys[t] = state.h

    Args:
        cell: any `Cell`.
        xs: (T, N, C, *S), time first.
        state: the state before the first step; default: all zero.
        lengths: (N,) ints in 1..T, valid steps of each clip. Beyond its length a clip's state is
            held (so the final state is that of its last valid step) and its ys are zero.
        reverse: read every clip from its last valid step to its first; ys stay in xs's order.
        h_mask: recurrent dropout's mask, broadcastable to h, the same at every step.
    Returns:
        ys (T, N, F, *S), the final state, and the tape for a backward pass.
    Raises:
        ValueError: xs is no sequence of at least one step, or lengths or state do not fit it.
    """
    xp = array_module(xs=xs, h_mask=h_mask)
    lengths = check_sequence(xs, lengths)
    if reverse:
        xs = reverse_in_time(xs, lengths)
    alive = None if lengths is None else xp.arange(len(xs))[:, None] < lengths
    state = cell.initial_state(xs[0]) if state is None else cell.check_state(state, xs[0])
    zs, projection = cell.project(xs)
    steps, ys = [], None
    for t in range(len(xs)):
        new, saved = cell.step(zs[t], state, h_mask)
        steps.append(saved)
        if ys is None:
            ys = xp.empty((len(xs), *new.h.shape), dtype=new.h.dtype)
        ys[t] = new.h if alive is None else where(alive[t], new.h, 0)
        state = new._replace(h=ys[t]) if alive is None else hold(alive[t], new, state)
    tape = Tape(projection, steps, alive, lengths, reverse, state)
    return (reverse_in_time(ys, lengths) if reverse else ys), state, tape


def scan_backward(
    cell: Cell, dys: Array | None, dstate: State | None, tape: Tape, grads: Grads | None = None
) -> tuple[Array, State, Grads]:
    """Full backpropagation through time.

        for t in T-1 .. 0:   dstate.h += dys[t];   dz[t], dstate = step_backward(dstate)
        grads += sum over t of the maps' weight gradients;   dxs = project_backward(dzs)

    Args:
        cell: the cell of the scan.
        dys: (T, N, F, *S), gradient on the sequence, or None.
        dstate: gradient on the final state, or None; a None field counts as zero.
        tape: from `scan`.
        grads: running sums to add to (of later segments); default: new ones.
    Returns:
        dxs (T, N, C, *S), the gradient of the initial state, grads with the keys of cell.params.
    """
    if dys is not None and tape.reverse:
        dys = reverse_in_time(dys, tape.lengths)
    grads = {} if grads is None else grads
    dzs, dstate = steps_backward(cell, dys, filled(dstate, tape.last), tape, 0, len(tape.steps), grads)
    return maps_backward(cell, dzs, tape, grads), dstate, grads


def scan_truncated_backward(
    cell: Cell, dys: Array | None, dstate: State | None, tape: Tape, *, k1: int, k2: int
) -> tuple[Array, State, Grads]:
    """Truncated backpropagation through time, BPTT(k2; k1).

    The sequence is cut into blocks of k1 steps. A block's loss terms (its dys; for the last block
    also dstate) go back at most k2 steps from the block's end; the state before those k2 steps counts as
    a constant. With k1 = k2, a divisor of T, the blocks are independent; with k1 = 1 every loss term sees k2 - 1
    earlier steps; with k1 = k2 = T it is full BPTT.

    Args:
        cell, dys, dstate, tape: as `scan_backward`.
        k1: steps between two backward passes.
        k2: steps that each goes back, at least k1.
    Returns:
        As `scan_backward`: the sum over all blocks. The initial state's gradient comes from those
        blocks that reach it.
    Cost: about T * k2 / k1 steps backward, against T.
    """
    T = len(tape.steps)
    if not 1 <= k1 <= k2:
        raise ValueError(f"k1 is {k1} and k2 is {k2}, expected 1 <= k1 <= k2")
    if dys is not None and tape.reverse:
        dys = reverse_in_time(dys, tape.lengths)
    dlast, nothing = filled(dstate, tape.last), filled(None, tape.last)
    dzs: list[Any] = [None] * T
    dinitial, grads = nothing, Grads()
    for end in [*range(k1, T, k1), T]:
        begin, first_loss = max(0, end - k2), (end - 1) // k1 * k1
        dend = dlast if end == T else nothing
        block_dzs, dbegin = steps_backward(cell, dys, dend, tape, begin, end, grads, first_loss)
        for t, dz in enumerate(block_dzs, start=begin):
            dzs[t] = dz if dzs[t] is None else map_arrays(lambda a, b: a + b, dzs[t], dz)
        if begin == 0:
            dinitial = map_arrays(lambda a, b: a + b, dinitial, dbegin)
    return maps_backward(cell, dzs, tape, grads), dinitial, grads


def scan_checkpointed(
    cell: Cell,
    xs: Array,
    state: State | None = None,
    *,
    every: int | None = None,
    lengths: Array | Sequence[int] | None = None,
    reverse: bool = False,
    h_mask: Array | None = None,
) -> tuple[Array, State, Checkpoints]:
    """`scan` that keeps a state every few steps instead of every step's gates.

    Args:
        every: steps of a segment; default ceil(sqrt(T)), which keeps the sum of kept states and of
            one segment's gates near its least. The others as `scan`.
    Returns:
        ys and the final state, equal to those of `scan`, and checkpoints for the backward pass.
    """
    xp = array_module(xs=xs, h_mask=h_mask)
    lengths = check_sequence(xs, lengths)
    every = int(np.ceil(np.sqrt(len(xs)))) if every is None else every
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1 step a segment")
    if reverse:
        xs = reverse_in_time(xs, lengths)
    state = cell.initial_state(xs[0]) if state is None else cell.check_state(state, xs[0])
    states, parts = [], []
    for begin in range(0, len(xs), every):
        states.append(state)
        ys, state = segment(cell, xs, state, begin, every, lengths, h_mask)[:2]
        parts.append(ys)
    ys = xp.concatenate(parts)
    kept = Checkpoints(xs, states, every, lengths, reverse, h_mask)
    return (reverse_in_time(ys, lengths) if reverse else ys), state, kept


def scan_checkpointed_backward(
    cell: Cell, dys: Array | None, dstate: State | None, kept: Checkpoints
) -> tuple[Array, State, Grads]:
    """Full backpropagation through time that recomputes each segment's gates when it comes to it.

        for every segment, last first:   tape = scan(segment from its kept state);  scan_backward(tape)

    Args, Returns: as `scan_backward`. With convolutional maps the result equals it bit for bit; with
    dense maps to rounding, because their weight gradient is one product over all steps at once.
    Cost: one more forward pass; memory T / every states and the gates of `every` steps.
    """
    xs, states, every, lengths, reverse, h_mask = kept
    if dys is not None and reverse:
        dys = reverse_in_time(dys, lengths)
    grads: Grads = {}
    parts = []
    for k in reversed(range(len(states))):
        begin = k * every
        tape = segment(cell, xs, states[k], begin, every, lengths, h_mask)[2]
        part = None if dys is None else dys[begin : begin + every]
        dxs, dstate, grads = scan_backward(cell, part, dstate, tape, grads)
        parts.append(dxs)
    dxs = array_module(xs).concatenate(parts[::-1])
    return (reverse_in_time(dxs, lengths) if reverse else dxs), dstate, grads


def segment(
    cell: Cell, xs: Array, state: State, begin: int, every: int, lengths: Array | None, h_mask: Array | None
) -> tuple[Array, State, Tape]:
    """`scan` over steps begin .. begin + every - 1; clips that ended earlier are held throughout."""
    part = xs[begin : begin + every]
    if lengths is None:
        return scan(cell, part, state, h_mask=h_mask)
    inside = array_module(xs).clip(lengths - begin, 0, len(part))
    return scan(cell, part, state, lengths=Remaining(inside), h_mask=h_mask)


class Remaining(NamedTuple):
    """Lengths inside a segment, already checked; a clip that ended before the segment has 0."""

    lengths: Array


def steps_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State,
    tape: Tape,
    begin: int,
    end: int,
    grads: Grads,
    first_loss: int = 0,
) -> tuple[list[Any], State]:
    """The only loop of BPTT: steps end - 1 .. begin. Returns their dzs and the gradient before them.

    Only the loss terms of steps first_loss and later count. Where a clip is over, its state was
    held: the gradient passes the step unchanged and leaves no dz.
    """
    dzs: list[Any] = [None] * (end - begin)
    for t in reversed(range(begin, end)):
        if dys is not None and t >= first_loss:
            dy = dys[t] if tape.alive is None else where(tape.alive[t], dys[t], 0)
            dstate = dstate._replace(h=dstate.h + dy)
        if tape.alive is None:
            dzs[t - begin], dstate, step_grads = cell.step_backward(dstate, tape.steps[t])
        else:
            alive = tape.alive[t]
            through = map_arrays(lambda d, alive=alive: where(alive, d, 0), dstate)
            dzs[t - begin], dbefore, step_grads = cell.step_backward(through, tape.steps[t])
            dstate = hold(alive, dbefore, dstate)
        for name, value in step_grads.items():
            add_to(grads, name, value)
    return dzs, dstate


def maps_backward(cell: Cell, dzs: list[Any], tape: Tape, grads: Grads) -> Array:
    """What does not recur, once for all steps: the maps' weight gradients, and dxs."""
    cell.state_backward(dzs, tape.steps, grads)
    dxs = cell.project_backward(dzs, tape.projection, grads)
    return reverse_in_time(dxs, tape.lengths) if tape.reverse else dxs


def check_sequence(xs: Array, lengths: Any) -> Array | None:
    """lengths as an int array on xs's backend, or None; a ValueError where xs or lengths are wrong."""
    if isinstance(lengths, Remaining):
        return lengths.lengths
    if xs.ndim < 3 or len(xs) == 0:
        raise ValueError(f"xs.shape is {tuple(xs.shape)}, expected (T, N, C, *S) with at least one step T")
    if lengths is None:
        return None
    host = np.asarray(to_backend(lengths, "numpy"))
    T, N = xs.shape[:2]
    if host.shape != (N,) or host.dtype.kind not in "iu":
        raise ValueError(
            f"lengths has shape {host.shape} and dtype {host.dtype}, "
            f"expected one integer for each of {N} clips"
        )
    if host.min() < 1 or host.max() > T:
        raise ValueError(f"lengths are in {host.min()}..{host.max()}, expected 1..{T}, the steps of xs")
    return to_backend(host, backend_name(xs) or "numpy")


def reverse_in_time(xs: Array, lengths: Array | None) -> Array:
    """Turn every clip (T, N, ...) around within its length; the padding stays at the end. An involution."""
    if lengths is None:
        return xs[::-1]
    xp = array_module(xs)
    t = xp.arange(len(xs))[:, None]  # (T, 1)
    source = xp.where(t < lengths, lengths - 1 - t, t)  # (T, N)
    return xs[source, xp.arange(xs.shape[1])]


def where(alive: Array, a: Array, b: Array | float) -> Array:
    """a where a clip (N,) is alive, else b; arrays are (N, ...)."""
    return array_module(a).where(alive.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


def hold(alive: Array, new: State, old: State) -> State:
    """The new state of the clips that go on, the old one of those that are over."""
    return map_arrays(lambda a, b: where(alive, a, b), new, old)


def filled(dstate: State | None, like: State) -> State:
    """dstate with zeros where it or one of its fields is None."""
    if dstate is None:
        return map_arrays(lambda a: array_module(a).zeros_like(a), like)
    if isinstance(dstate, tuple):
        fields = [filled(d, a) for d, a in zip(dstate, like, strict=True)]
        return type(like)(*fields) if hasattr(like, "_fields") else tuple(fields)
    return dstate
