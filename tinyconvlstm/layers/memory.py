"""What backpropagation through time holds in memory at its peak, as a formula."""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from ..cells.base import TwoMapCell

Shape = tuple[int, ...]


def peak(cell: TwoMapCell, shape: Shape, *, k2: int | None = None, every: int | None = None) -> int:
    """Numbers that a scan and its backward pass hold at their peak, threads' patches apart.

        h      = N F prod(S)                  numbers of one state array
        tape   = T h (kept_per_step + 1)      gates, cells and ys
        full   = tape + dxs + dz of the steps taken at once (and their columns, where several) + 8 h
                 + the parameters' gradients, and the largest of them once more
        truncated    as full, and the dz of k2 steps, which further blocks may still reach
        checkpointed = ys, dxs, a state of each segment, and the tape of `every` steps

    Dense maps take all steps at once: all z beside the gates, or all dz and their joined copy.

    Args:
        cell: a `TwoMapCell`. shape: (T, N, C, *S) of the input.
        k2: for the truncated way. every: for the checkpointed one.
    """
    T, N, C, *S = shape
    h = N * cell.features * prod(cell.input_map.out(tuple(S)))
    z, dxs = cell.dz_blocks * h, N * C * prod(S)
    at_once = min(T, steps_at_once_of(cell, shape))
    if every is not None:
        segment = min(every, T)
        inner = peak(cell, (segment, *shape[1:])) - segment * dxs
        return T * (h + dxs) + ceil(T / segment) * (cell.states - 1) * h + 2 * cell.states * h + inner
    step = at_once * z
    if not cell.kernel or at_once > 1:  # put together for one product: dz, what was read, its columns
        columns = h * prod(cell.state_map.kernel) if cell.kernel else 0
        step += at_once * (z + h + columns)
    held = 0 if k2 is None or at_once == T else min(k2, T) * z
    sizes = [int(a.size) for a in cell.params.values()]
    return T * (h * (cell.kept_per_step + 1) + dxs) + step + held + 8 * h + sum(sizes) + max(sizes)


def steps_at_once_of(cell: TwoMapCell, shape: Shape) -> int:
    """For how many steps the cell takes its maps' gradients together."""
    dtype = next(iter(cell.params.values())).dtype
    return int(cell.steps_at_once(np.broadcast_to(np.zeros((), dtype), shape)))
