"""The loops of backpropagation through time, on one part of a batch; xs and ys in reading order.

`bptt.py` says what each does and cuts the batch; here is how.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .backend import Array, array_module, map_arrays
from .batch import Parts, alive_steps, filled, hold, where
from .cells.base import Cell, State
from .cells.maps import Grads, add_to, rest


class Tape(NamedTuple):
    """What a scan keeps for its backward pass."""

    projection: Any  # saved of cell.project
    steps: list[Any]  # saved of cell.step, T of them
    alive: Array | None  # (T, N) True where t < lengths[n]; None when all clips are whole
    lengths: Array | None
    reverse: bool
    last: State  # the final state, for shapes
    from_rest: bool  # no initial state was given: zero is a constant, and gets no gradient
    at_once: int  # for how many steps the maps' gradients are taken together


class Checkpoints(NamedTuple):
    """What a checkpointed scan keeps: the inputs, and the state before every segment."""

    xs: Array  # (T, N, C, *S)
    states: list[State | None]  # None before the first step of a scan from rest
    every: int
    lengths: Array | None
    reverse: bool
    h_mask: Array | None


def part_forward(
    cell: Cell,
    xs: Array,
    state: State | None,
    lengths: Array | None,
    reverse: bool,
    h_mask: Array | None,
    ys: Array | None,
) -> tuple[Array, State, Tape]:
    """The only loop of the forward pass. `ys`: where to write the hidden states, or None."""
    from_rest = state is None
    state = map_arrays(rest, cell.initial_state(xs[0])) if from_rest else state
    alive = alive_steps(len(xs), lengths)
    zs, projection = cell.project(xs)
    steps = []
    for t in range(len(xs)):
        new, saved = cell.step(zs[t], state, h_mask)
        steps.append(saved)
        if ys is None:
            ys = array_module(xs).empty((len(xs), *new.h.shape), dtype=new.h.dtype)
        ys[t] = new.h if alive is None else where(alive[t], new.h, 0)
        state = with_h(new, ys[t]) if alive is None else hold(alive[t], new, state)
    return (
        ys,
        state,
        Tape(projection, steps, alive, lengths, reverse, state, from_rest, cell.steps_at_once(xs)),
    )


def part_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Tape,
    input_grad: bool,
    dxs: Array | None,
    grads: Grads | None = None,
) -> tuple[Array, State, Grads]:
    """Full BPTT: as many steps as the cell takes at once, then the maps' gradients of those."""
    grads, dstate, T = {} if grads is None else grads, filled(dstate, tape.last), len(tape.steps)
    for end in range(T, 0, -tape.at_once):
        begin = max(0, end - tape.at_once)
        dzs, dstate = steps_backward(cell, dys, dstate, tape, begin, end, grads, joined=True)
        dxs = maps_backward(cell, dzs, tape, begin, end, grads, input_grad, dxs)
        del dzs  # before those of the steps before are made
    return dxs, None if tape.from_rest else dstate, grads


def part_truncated_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Tape,
    input_grad: bool,
    dxs: Array | None,
    *,
    k1: int,
    k2: int,
) -> tuple[Array, State, Grads]:
    """Truncated BPTT, last block first: once a block is done, its last k1 steps get no more gradient."""
    T, grads = len(tape.steps), Grads()
    dlast, nothing = filled(dstate, tape.last), filled(None, tape.last)
    dinitial, dzs = nothing, dict[int, Any]()  # dz of the steps that further blocks may reach
    for end in reversed([*range(k1, T, k1), T]):
        begin, first_loss = max(0, end - k2), (end - 1) // k1 * k1
        dend = dlast if end == T else nothing
        block, dbegin = steps_backward(cell, dys, dend, tape, begin, end, grads, first_loss, met=dzs)
        dzs.update(enumerate(block, start=begin))
        del block  # what later blocks may reach is in dzs
        if begin == 0 and not tape.from_rest:
            dinitial = map_arrays(lambda a, b: a + b, dinitial, dbegin)
        if tape.at_once < T:
            for t in reversed(range(first_loss, end)):
                dxs = maps_backward(cell, [dzs.pop(t)], tape, t, t + 1, grads, input_grad, dxs)
    if dzs:
        dxs = maps_backward(cell, [dzs[t] for t in range(T)], tape, 0, T, grads, input_grad, dxs)
    return dxs, None if tape.from_rest else dinitial, grads


def part_checkpointed(
    cell: Cell,
    xs: Array,
    state: State | None,
    lengths: Array | None,
    reverse: bool,
    h_mask: Array | None,
    ys: Array | None,
    *,
    every: int,
    sequence: bool,
) -> tuple[Array | None, State, Checkpoints]:
    """Segment by segment; of each, the state before it is kept and the tape is let go."""
    states, ys = [], room_for_ys(cell, xs, state) if ys is None and sequence else ys
    for begin in range(0, len(xs), every):
        states.append(state)
        out = None if ys is None else ys[begin : begin + every]
        state = segment(cell, xs, state, begin, every, lengths, h_mask, out)[1]
        if ys is None:
            state = with_h(state, state.h.copy())  # a view would hold the segment's whole sequence
    return ys, state, Checkpoints(xs, states, every, lengths, reverse, h_mask)


def part_checkpointed_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    kept: Checkpoints,
    input_grad: bool,
    dxs: Array | None,
) -> tuple[Array, State, Grads]:
    """Last segment first: forward again for its tape, then full BPTT on it."""
    xs, states, every, lengths, _, h_mask = kept
    grads, dxs = Grads(), array_module(xs).empty_like(xs) if input_grad and dxs is None else dxs
    for k in reversed(range(len(states))):
        steps = slice(k * every, (k + 1) * every)
        tape = segment(cell, xs, states[k], steps.start, every, lengths, h_mask)[2]
        part = None if dys is None else dys[steps]
        out = None if dxs is None else dxs[steps]
        _, dstate, grads = part_backward(cell, part, dstate, tape, input_grad, out, grads)
        del tape  # before the next one is made
    return dxs, dstate, grads


def segment(
    cell: Cell,
    xs: Array,
    state: State | None,
    begin: int,
    every: int,
    lengths: Array | None,
    h_mask: Array | None,
    ys: Array | None = None,
) -> tuple[Array, State, Tape]:
    """`part_forward` over steps begin .. begin + every - 1; clips that ended earlier are held throughout."""
    part = xs[begin : begin + every]
    inside = None if lengths is None else array_module(xs).clip(lengths - begin, 0, len(part))
    return part_forward(cell, part, state, inside, False, h_mask, ys)


def steps_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State,
    tape: Tape,
    begin: int,
    end: int,
    grads: Grads,
    first_loss: int = 0,
    joined: bool = False,
    met: dict[int, Any] | None = None,
) -> tuple[list[Any], State]:
    """The only loop of BPTT: steps end - 1 .. begin. Returns their dzs and the gradient before them.

    Only the loss terms of steps first_loss and later count. Where a clip is over, its state was
    held: the gradient passes the step unchanged and leaves no dz. `joined`: dzs may be one array.
    `met`: dz of steps that a block before has reached too; step by step they are taken from it and added.
    """
    arrays = [a for a in (dys, *dstate) if hasattr(a, "dtype")]
    kind = array_module(*arrays).result_type(*arrays)
    room, steps = cell.ahead(tape.steps[begin:end], kind, joined and end > begin + 1)
    dzs: Any = [None] * (end - begin)
    for t, step in zip(reversed(range(begin, end)), steps, strict=True):
        if dys is not None and t >= first_loss:
            dy = dys[t] if tape.alive is None else where(tape.alive[t], dys[t], 0)
            dstate = with_h(dstate, dstate.h + dy)
        if tape.alive is None:
            dz, dstate, step_grads = cell.step_backward(dstate, step)
        else:
            alive = tape.alive[t]
            through = map_arrays(lambda d, alive=alive: where(alive, d, 0), dstate)
            dz, dbefore, step_grads = cell.step_backward(through, step)
            if t or not tape.from_rest:
                dstate = hold(alive, dbefore, dstate)
        if room is None and joined and t == end - 1 and end > begin + 1 and hasattr(dz, "shape"):
            dzs = room_for(dz, end - begin)
        if met and t in met:
            dz = map_arrays(lambda a, b: a + b, met.pop(t), dz)
        dzs[t - begin] = dz
        for name, value in step_grads.items():
            add_to(grads, name, value)
        del dz  # where dzs are joined, they have a copy of it
    if room is not None and all(getattr(dz, "base", None) is room for dz in dzs):
        return room, dstate
    return dzs, dstate


def maps_backward(
    cell: Cell,
    dzs: list[Any],
    tape: Tape,
    begin: int,
    end: int,
    grads: Grads,
    input_grad: bool,
    dxs: Array | None,
) -> Array | None:
    """What does not recur, for steps begin .. end - 1: the maps' weight gradients, and dxs (T, N, C, *S)."""
    T = len(tape.steps)
    cell.state_backward(dzs, tape.steps[begin:end], grads)
    if end - begin == T:
        if not input_grad:
            return cell.project_backward(dzs, tape.projection, grads, input_grad=False)
        part = cell.project_backward(dzs, tape.projection, grads)
        if dxs is not None:
            dxs[...] = part
        return part if dxs is None else dxs
    projection = cell.projection_of(tape.projection, begin, end)
    if not input_grad:
        return cell.project_backward(dzs, projection, grads, input_grad=False)
    if dxs is None:
        shape = (T, *projection.x.shape[1:])
        dxs = array_module(projection.x).empty(shape, dtype=tape.last.h.dtype)
    cell.project_backward(dzs, projection, grads, out=dxs[begin:end])
    return dxs


def with_h(state: State, h: Array) -> State:
    """The state with another h, its first field."""
    return type(state)(h, *state[1:])


def room_for(dz: Array, steps: int) -> Array:
    """An empty array (T, *dz.shape) in which the steps' matrices join as dz lies: by rows, or by columns."""
    xp = array_module(dz)
    if dz.ndim == 2 and dz.flags.f_contiguous:
        return xp.empty((dz.shape[1], steps, dz.shape[0]), dtype=dz.dtype).transpose(1, 2, 0)
    return xp.empty((steps, *dz.shape), dtype=dz.dtype)


def room_for_dxs(parts: Parts) -> Array | None:
    """An empty array for the gradients of all parts' inputs; None where each part makes its own."""
    first = parts.tapes[0]
    xs = first.xs if isinstance(first, Checkpoints) else getattr(first.projection, "x", None)
    if xs is None or first.reverse:
        return None
    kind = xs.dtype if isinstance(first, Checkpoints) else first.last.h.dtype
    shape = (len(xs), parts.slices[-1].stop, *xs.shape[2:])
    return array_module(xs).empty(shape, dtype=kind)


def room_for_ys(cell: Cell, xs: Array, state: State | None) -> Array:
    """An empty array for the hidden states of all steps."""
    h = cell.initial_state(xs[0]).h if state is None else state.h
    kind = array_module(xs).result_type(xs, h, *cell.params.values())
    return array_module(xs).empty((len(xs), *h.shape), dtype=kind)
