"""Backpropagation through time: one forward scan, and three ways back, side by side.

`scan` runs a cell over a sequence. Backward, the loop carries only the state's gradient; every
weight's gradient is a plain sum over time. That is the whole of BPTT:

    full          `scan_backward`               exact; keeps the gates of all T steps
    truncated     `scan_truncated_backward`     every k1 steps, at most k2 steps back; cheaper, biased
    checkpointed  `scan_checkpointed_backward`  exact; keeps a state every few steps, recomputes the rest

The clips of a batch meet only where their weights' gradients are added. So a large batch is cut into
parts, and the loops of `loops.py` run on every part, each in a thread (`parallel.py`). Read `cells/base.py`
first. Sources: Werbos 1990, "Backpropagation through time: what it does and how to do it";
truncated: Williams & Peng 1990, section 4 (their h' is k1, their h is k2); checkpointed: Chen et al.
2016, arXiv 1604.06174, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .allocator import keep_freed_memory
from .backend import Array, array_module
from .batch import Parts, alive_steps, check_sequence, cut, join, reverse_in_time
from .cells.base import Cell, State
from .cells.maps import Grads, add_to
from .loops import (
    Checkpoints,
    Tape,
    part_backward,
    part_checkpointed,
    part_checkpointed_backward,
    part_forward,
    part_truncated_backward,
    room_for_dxs,
    room_for_ys,
)
from .nonfinite import all_finite
from .ops.lowering import unchanging
from .parallel import run_parts, shares

# multiply-accumulates of a step: in shorter ones, threads wait for Python more than they work
STEP = 5_000_000

keep_freed_memory()


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
    xs = without_padding(xs, lengths)
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
    xs = without_padding(xs, lengths)
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


def without_padding(xs: Array, lengths: Array | None) -> Array:
    """xs with zeros beyond the lengths, if a NaN or an infinity lies there: zero times it is no zero."""
    alive = alive_steps(len(xs), lengths)
    if alive is None or all_finite(xs):
        return xs
    xp = array_module(xs)
    return xp.where(alive.reshape(*alive.shape, *(1,) * (xs.ndim - 2)), xs, 0)


def check_upstream(cell: Cell, dys: Array | None, dstate: State | None, tape: Any) -> None:
    """ValueError where a gradient has not the shape of what it belongs to."""
    tapes = tape.tapes if isinstance(tape, Parts) else [tape]
    if isinstance(tapes[0], Checkpoints):
        T, last = len(tapes[0].xs), tapes[0].states[-1] or cell.initial_state(tapes[0].xs[0])
        batch = sum(t.xs.shape[1] for t in tapes)
    else:
        T, last = len(tapes[0].steps), tapes[0].last
        batch = sum(len(t.last[0]) for t in tapes)
    expected = (T, batch, *last[0].shape[1:])
    if dys is not None and tuple(dys.shape) != expected:
        raise ValueError(f"dys.shape is {tuple(dys.shape)}, expected {expected}, that of the sequence")
    if dstate is not None:
        names, given = last._fields, getattr(dstate, "_fields", None)
        if given != names:
            raise ValueError(f"dstate has fields {given}, expected {names}, those of the state")
        for name, d, a in zip(names, dstate, last, strict=True):
            if hasattr(d, "shape") and hasattr(a, "shape") and tuple(d.shape) != (batch, *a.shape[1:]):
                raise ValueError(f"dstate.{name}.shape is {tuple(d.shape)}, expected {(batch, *a.shape[1:])}")


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
    ys = room_for_ys(cell, xs, state) if sequence and len(slices) > 1 else None

    def part(clips: slice) -> tuple[Array, State, Any]:
        own = None if ys is None else ys[:, clips]
        return forward(  # type: ignore[no-any-return]
            cell, xs[:, clips], cut(state, clips), cut(lengths, clips), reverse, cut(h_mask, clips), own
        )

    with unchanging(cell.params.values()):
        if len(slices) == 1:
            return forward(cell, xs, state, lengths, reverse, h_mask, None)  # type: ignore[no-any-return]
        results = run_parts(part, slices)
    return ys, join([last for _, last, _ in results]), Parts(slices, [tape for _, _, tape in results])


def backward_in_parts(
    backward: Callable[..., Any],
    cell: Cell,
    dys: Array | None,
    dstate: State | None,
    tape: Any,
    input_grad: bool,
) -> tuple[Array, State, Grads]:
    """`backward` on every part of the batch; the parts' gradients add up, in order."""

    check_upstream(cell, dys, dstate, tape)

    def part(
        dys: Array | None, dstate: State | None, tape: Any, dxs: Array | None = None
    ) -> tuple[Array, State, Grads]:
        if dys is not None and tape.reverse:
            dys = reverse_in_time(dys, tape.lengths)
        dxs, dinitial, grads = backward(cell, dys, dstate, tape, input_grad, dxs)
        if dxs is not None and tape.reverse:
            dxs = reverse_in_time(dxs, tape.lengths)
        return dxs, dinitial, grads

    def run(k: int) -> tuple[Array, State, Grads]:
        clips, own = tape.slices[k], tape.tapes[k]
        room = None if dxs is None else dxs[:, clips]
        return part(None if dys is None else dys[:, clips], cut(dstate, clips), own, room)

    with unchanging(cell.params.values()):
        if not isinstance(tape, Parts):
            return part(dys, dstate, tape)
        dxs = room_for_dxs(tape) if input_grad else None
        results = run_parts(run, range(len(tape.slices)))
    dinitial, grads = results[0][1:]
    for _, _, more in results[1:]:
        for name, value in more.items():
            add_to(grads, name, value)
    if results[0][0] is None:  # this cell's input gets no gradient
        dxs = None
    elif dxs is None:
        dxs = join([r[0] for r in results], axis=1)
    return dxs, None if dinitial is None else join([r[1] for r in results]), grads
