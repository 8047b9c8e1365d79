"""Backpropagation through time: one forward scan, and three ways back, side by side.

`scan` runs a cell over a sequence. Backward, the loop carries only the state's gradient; every
weight's gradient is a plain sum over time. That is the whole of BPTT:

    full          `scan_backward`               exact; keeps the gates of all T steps
    truncated     `scan_truncated_backward`     every k1 steps, at most k2 steps back; cheaper, biased
    checkpointed  `scan_checkpointed_backward`  exact; keeps a state every few steps, recomputes the rest

The clips of a batch meet only where their weights' gradients are added. So a large batch is cut into
parts, and the same lines run on every part, each in a thread (`parallel.py`). Read `cells/base.py`
first. Sources: Werbos 1990, "Backpropagation through time: what it does and how to do it";
truncated: Williams & Peng 1990, section 4 (their h' is k1, their h is k2); checkpointed: Chen et al.
2016, arXiv 1604.06174, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Array, array_module, map_arrays
from .batch import alive_steps, check_sequence, cut, filled, hold, join, reverse_in_time, where
from .cells.base import Cell, State
from .cells.maps import Grads, add_to, rest
from .parallel import run_parts, shares

STEP = (
    5_000_000  # multiply-accumulates of a step: in shorter ones, threads wait for Python more than they work
)

# A block that is freed untouched costs nothing, and tells the C library's allocator to keep freed memory
# of up to this size for the next step; else it goes back to the kernel, which zeroes it page by page.
np.empty((32 << 20) - 8192, np.uint8)


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


class Parts(NamedTuple):
    """The tapes, or checkpoints, of a scan whose batch was cut into parts."""

    slices: list[slice]  # of the batch
    tapes: list[Any]

    @property
    def steps(self) -> JoinedSteps:
        """As of one tape, for those who want to look."""
        return JoinedSteps([tape.steps for tape in self.tapes])

    @property
    def last(self) -> State:
        """The final state of the whole batch."""
        return join([tape.last for tape in self.tapes])

    @property
    def projection(self) -> Any:
        """What the input map kept, for the whole batch."""
        return join([tape.projection for tape in self.tapes], axis=1)

    @property
    def reverse(self) -> bool:
        """Whether the scan read its clips backwards."""
        return bool(self.tapes[0].reverse)


class JoinedSteps(Sequence[Any]):
    """Steps of the parts, put together one at a time, when asked for."""

    def __init__(self, parts: list[list[Any]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, t: Any) -> Any:
        if isinstance(t, slice):
            return [self[k] for k in range(*t.indices(len(self)))]
        return join([steps[t] for steps in self.parts])


def scan(
    cell: Cell,
    xs: Array,
    state: State | None = None,
    *,
    lengths: Array | Sequence[int] | None = None,
    reverse: bool = False,
    h_mask: Array | None = None,
) -> tuple[Array, State, Tape | Parts]:
    """Run a cell over a sequence.

        zs = project(xs);     for t in 0 .. T-1:  state = step(zs[t], state);  ys[t] = state.h

    Args:
        cell: any `Cell`.
        xs: (T, N, C, *S), time first.
        state: the state before the first step; default: all zero, a constant.
        lengths: (N,) ints in 1..T, valid steps of each clip. Beyond its length a clip's state is
            held (so the final state is that of its last valid step) and its ys are zero.
        reverse: read every clip from its last valid step to its first; ys stay in xs's order.
        h_mask: recurrent dropout's mask, broadcastable to h, the same at every step.
    Returns:
        ys (T, N, F, *S), the final state, and the tape for a backward pass.
    Raises:
        ValueError: xs is no sequence of at least one step, or lengths or state do not fit it.
    """
    lengths = check_scan(cell, xs, state, lengths, h_mask)
    if reverse:
        xs = reverse_in_time(xs, lengths)
    ys, last, tape = forward_in_parts(part_forward, cell, xs, state, lengths, reverse, h_mask)
    return (reverse_in_time(ys, lengths) if reverse else ys), last, tape


def scan_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Tape | Parts,
    grads: Grads | None = None,
    *,
    input_grad: bool = True,
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
        input_grad: False where xs are data, and nobody wants their gradient.
    Returns:
        dxs (T, N, C, *S), or None without input_grad; the gradient of the initial state, or None
        where the scan was given none and began at zero; grads with the keys of cell.params.
    """
    dxs, dinitial, found = backward_in_parts(part_backward, cell, dys, dstate, tape, input_grad)
    if grads is None:
        return dxs, dinitial, found
    for name, value in found.items():
        add_to(grads, name, value)
    return dxs, dinitial, grads


def scan_truncated_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Tape | Parts,
    *,
    k1: int,
    k2: int,
    input_grad: bool = True,
) -> tuple[Array, State, Grads]:
    """Truncated backpropagation through time, BPTT(k2; k1).

    The sequence is cut into blocks of k1 steps. A block's loss terms (its dys; for the last block
    also dstate) go back at most k2 steps from the block's end; the state before those k2 steps counts as
    a constant. With k1 = k2, a divisor of T, the blocks are independent; with k1 = 1 every loss term sees k2 - 1
    earlier steps; with k1 = k2 = T it is full BPTT.

    Args:
        cell, dys, dstate, tape, input_grad: as `scan_backward`.
        k1: steps between two backward passes.
        k2: steps that each goes back, at least k1.
    Returns:
        As `scan_backward`: the sum over all blocks. The initial state's gradient comes from those
        blocks that reach it.
    Cost: about T * k2 / k1 steps backward, against T.
    """
    if not 1 <= k1 <= k2:
        raise ValueError(f"k1 is {k1} and k2 is {k2}, expected 1 <= k1 <= k2")

    def backward(cell: Cell, *args: Any) -> Any:
        return part_truncated_backward(cell, *args, k1=k1, k2=k2)

    return backward_in_parts(backward, cell, dys, dstate, tape, input_grad)


def scan_checkpointed(
    cell: Cell,
    xs: Array,
    state: State | None = None,
    *,
    every: int | None = None,
    lengths: Array | Sequence[int] | None = None,
    reverse: bool = False,
    h_mask: Array | None = None,
    sequence: bool = True,
) -> tuple[Array | None, State, Checkpoints | Parts]:
    """`scan` that keeps a state every few steps instead of every step's gates.

    Args:
        every: steps of a segment; default ceil(sqrt(T)), which keeps the sum of kept states and of
            one segment's gates near its least.
        sequence: False for a loss on the final state alone: ys is None, and takes no memory.
        The others as `scan`.
    Returns:
        ys and the final state, equal to those of `scan`, and checkpoints for the backward pass.
    """
    lengths = check_scan(cell, xs, state, lengths, h_mask)
    every = int(np.ceil(np.sqrt(len(xs)))) if every is None else every
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1 step a segment")
    if reverse:
        xs = reverse_in_time(xs, lengths)

    def forward(cell: Cell, *args: Any) -> Any:
        return part_checkpointed(cell, *args, every=every, sequence=sequence)

    ys, last, kept = forward_in_parts(forward, cell, xs, state, lengths, reverse, h_mask, sequence)
    return (reverse_in_time(ys, lengths) if reverse and sequence else ys), last, kept


def scan_checkpointed_backward(
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    kept: Checkpoints | Parts,
    *,
    input_grad: bool = True,
) -> tuple[Array, State, Grads]:
    """Full backpropagation through time that recomputes each segment's gates when it comes to it.

        for every segment, last first:   tape = scan(segment from its kept state);  scan_backward(tape)

    Args, Returns: as `scan_backward`. With convolutional maps the result equals it bit for bit; with
    dense maps to rounding, because their weight gradient is one product over all steps at once.
    Cost: one more forward pass; memory T / every states and the gates of `every` steps.
    """
    return backward_in_parts(part_checkpointed_backward, cell, dys, dstate, kept, input_grad)


# --- one part of the batch: the loops themselves; xs and ys in reading order -----------------------


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
        state = new._replace(h=ys[t]) if alive is None else hold(alive[t], new, state)
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
        dzs, dstate = steps_backward(cell, dys, dstate, tape, begin, end, grads)
        dxs = maps_backward(cell, dzs, tape, begin, end, grads, input_grad, dxs)
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
        block, dbegin = steps_backward(cell, dys, dend, tape, begin, end, grads, first_loss)
        for t, dz in enumerate(block, start=begin):
            dzs[t] = map_arrays(lambda a, b: a + b, dzs[t], dz) if t in dzs else dz
        del block, dz  # what later blocks may reach is in dzs
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
            state = state._replace(h=state.h.copy())  # a view would hold the segment's whole sequence
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
            if t or not tape.from_rest:
                dstate = hold(alive, dbefore, dstate)
        for name, value in step_grads.items():
            add_to(grads, name, value)
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


# --- the batch as a whole: cut it, run the parts, put the results together -------------------------


def check_scan(
    cell: Cell, xs: Array, state: State | None, lengths: Any, h_mask: Array | None
) -> Array | None:
    """lengths as an array, or an error where an argument of a scan does not fit the cell."""
    array_module(xs=xs, h_mask=h_mask)
    lengths = check_sequence(xs, lengths)
    if state is None:
        cell.initial_state(xs[0])  # it checks the frames
    else:
        cell.check_state(state, xs[0])
    return lengths


def forward_in_parts(
    forward: Callable[..., Any],
    cell: Cell,
    xs: Array,
    state: State | None,
    lengths: Array | None,
    reverse: bool,
    h_mask: Array | None,
    sequence: bool = True,
) -> tuple[Array, State, Any]:
    """`forward` on every part of the batch, each writing its own columns of ys."""
    slices = shares(xs[0], cell.macs(xs[0]), small=STEP)
    if len(slices) == 1:
        return forward(cell, xs, state, lengths, reverse, h_mask, None)  # type: ignore[no-any-return]
    ys = room_for_ys(cell, xs, state) if sequence else None

    def part(clips: slice) -> tuple[Array, State, Any]:
        own = None if ys is None else ys[:, clips]
        return forward(  # type: ignore[no-any-return]
            cell, xs[:, clips], cut(state, clips), cut(lengths, clips), reverse, cut(h_mask, clips), own
        )

    results = run_parts(part, slices)
    return ys, join([last for _, last, _ in results]), Parts(slices, [tape for _, _, tape in results])


def room_for_ys(cell: Cell, xs: Array, state: State | None) -> Array:
    """An empty array for the hidden states of all steps."""
    h = cell.initial_state(xs[0]).h if state is None else state.h
    kind = array_module(xs).result_type(xs, h, *cell.params.values())
    return array_module(xs).empty((len(xs), *h.shape), dtype=kind)


def backward_in_parts(
    backward: Callable[..., Any],
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Any,
    input_grad: bool,
) -> tuple[Array, State, Grads]:
    """`backward` on every part of the batch; the parts' gradients add up, in order."""

    def part(dys: Array | None, dstate: State | None, tape: Any) -> tuple[Array, State, Grads]:
        if dys is not None and tape.reverse:
            dys = reverse_in_time(dys, tape.lengths)
        dxs, dinitial, grads = backward(cell, dys, dstate, tape, input_grad, None)
        if dxs is not None and tape.reverse:
            dxs = reverse_in_time(dxs, tape.lengths)
        return dxs, dinitial, grads

    if not isinstance(tape, Parts):
        return part(dys, dstate, tape)

    def run(k: int) -> tuple[Array, State, Grads]:
        clips = tape.slices[k]
        return part(None if dys is None else dys[:, clips], cut(dstate, clips), tape.tapes[k])

    results = run_parts(run, range(len(tape.slices)))
    dxs, dinitial, grads = results[0]
    for _, _, more in results[1:]:
        for name, value in more.items():
            add_to(grads, name, value)
    dxs = None if dxs is None else join([r[0] for r in results], axis=1)
    return dxs, None if dinitial is None else join([r[1] for r in results]), grads
