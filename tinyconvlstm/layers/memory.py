"""What backpropagation through time holds in memory at its peak, as a formula."""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from .. import bptt
from ..cells.base import TwoMapCell
from ..ops.conv import PATCH_BYTES
from ..parallel import shares

Shape = tuple[int, ...]


def peak(cell: TwoMapCell, shape: Shape, *, k2: int | None = None, every: int | None = None) -> int:
    """Numbers that a scan and its backward pass hold at their peak.

        h      = N F prod(S)                  numbers of one state array
        tape   = T (kept + h)                 gates, cells and ys: kept = h kept_per_step in most cells
        full   = tape + dxs + dz of the steps taken at once + the parameters' gradients, and the largest of
                 them once more + the larger of: the gates' temporaries, the patches the threads work on
        truncated    as full, and the dz of k2 steps, which further blocks may still reach
        checkpointed = ys, dxs, a state of each segment, and the tape of `every` steps

    Dense maps take all steps at once: all z beside the gates, or all dz and their joined copy.

    Args:
        cell: a `TwoMapCell`. shape: (T, N, C, *S) of the input.
        k2: for the truncated way. every: for the checkpointed one.
    """
    T, N, C, *S = shape
    out = cell.input_map.out(tuple(S))
    h = N * cell.features * prod(out)
    z, dxs = cell.dz_blocks * h, N * C * prod(S)
    at_once = min(T, steps_at_once_of(cell, (T, -(-N // parts_of(cell, shape)), *shape[2:])))
    if every is not None:
        segment = min(every, T)
        inner = peak(cell, (segment, *shape[1:])) - segment * dxs
        return T * (h + dxs) + ceil(T / segment) * (cell.states - 1) * h + 2 * cell.states * h + inner
    if k2 is not None and at_once < T:
        at_once = 1  # as soon as no further block reaches a step
    # what the gates' backward pass needs, before that of the maps begins
    gates = (4 + 2 * cell.states + cell.dz_blocks - len(cell.gates)) * h
    step = at_once * z + max(gates + N * cell.step_room(out), 3 * h + patches(cell, shape, at_once))
    if not cell.kernel or at_once > 1:  # dz and what was read, put together for one product
        step += at_once * (z + h)
    held = 0 if k2 is None or at_once == T else min(k2, T) * z
    sizes = [int(a.size) for a in cell.params.values()]
    return T * (N * cell.step_kept(out) + h + dxs) + step + held + sum(sizes) + max(sizes)


def patches(cell: TwoMapCell, shape: Shape, at_once: int) -> int:
    """Numbers of the patches of the map that has most, in all threads: what a weight gradient unfolds."""
    if not cell.kernel:
        return 0
    N, _, *S = shape[1:]
    parts = parts_of(cell, shape)
    found = [0]
    for w in [w for w in cell.params.values() if w.ndim == 2 + len(cell.kernel)]:
        columns = w.shape[1] * prod(w.shape[2:]) * prod(cell.input_map.out(tuple(S)))  # of a sample
        room = max(PATCH_BYTES["numpy"] // int(w.dtype.itemsize), 4 * int(w.size))
        block = min(-(-N // parts) * columns, max(room, min(columns, 2 * room)))
        found.append(at_once * parts * (block + block // w.shape[-1] + 2 * int(w.size)))
    return int(max(found))


def parts_of(cell: TwoMapCell, shape: Shape) -> int:
    """Into how many parts a scan cuts its batch."""
    frame = like(cell, shape[1:])
    return len(shares(frame, cell.macs(frame), small=bptt.STEP))


def like(cell: TwoMapCell, shape: Shape) -> np.ndarray:
    """An array of a shape that takes no memory, with the cell's dtype."""
    return np.broadcast_to(np.zeros((), next(iter(cell.params.values())).dtype), shape)


def steps_at_once_of(cell: TwoMapCell, shape: Shape) -> int:
    """For how many steps the cell takes its maps' gradients together."""
    return int(cell.steps_at_once(like(cell, shape)))
