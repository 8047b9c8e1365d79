"""What backpropagation through time holds in memory at its peak, as a formula."""

from __future__ import annotations

from math import ceil, prod

from .. import bptt
from ..cells.base import TwoMapCell
from ..cells.lstm import LSTMCell
from ..parallel import shares
from .unfolded import like, patches_of_w, patches_of_x, weights_kept

Shape = tuple[int, ...]


def peak(cell: TwoMapCell, shape: Shape, *, k2: int | None = None, every: int | None = None) -> int:
    """Numbers that a scan of whole clips and its backward pass hold at their peak.

        h      = N F prod(S)                  numbers of one state array
        tape   = T (kept + h)                 gates, cells and ys: kept = h kept_per_step in most cells
        full   = tape + dxs + dz of the steps taken at once + each part's gradients + what is made of weights
                 + the largest of: a step of the gates, a map's weight gradient, dxs of the steps taken at once
        truncated    as full, with the dz of k2 steps, which further blocks may still reach
        checkpointed = ys, dxs, a state of each segment, and as full over `every` steps

    It is for whole clips: with `lengths` every step copies the states it holds for clips that are over, and a reversed
    scan turns xs, ys, dys and dxs around in copies. That is up to a third more, and not counted.

    Args:
        cell: a `TwoMapCell`. shape: (T, N, C, *S) of the input.
        k2: for the truncated way. every: for the checkpointed one.
    """
    T, N, C, *S = shape
    frame = like(cell, shape[1:])
    parts = shares(frame, cell.macs(frame), small=bptt.STEP)
    clips = [part.stop - part.start for part in parts]
    several = every is not None or int(cell.steps_at_once(like(cell, (T, clips[0], C, *S)))) < T
    kept = weights_kept(cell, tuple(S), forward=every is not None, inputs=several)  # for all parts
    if every is None:
        return kept + sum(stored(cell, (T, n, C, *S), k2, len(parts) == 1) for n in clips)
    h, dxs = N * cell.features * prod(cell.input_map.out(tuple(S))), N * C * prod(S)
    lengths = {min(every, T), T % every or min(every, T)}  # the last segment may be shorter
    states = (ceil(T / every) - 1) * (cell.states - 1) + cell.states  # of the segments; the gradient of one
    part = max(
        sum(stored(cell, (t, n, C, *S), None, len(parts) == 1, True) for n in clips) - t * dxs
        for t in lengths
    )
    return kept + T * (h + dxs) + states * h + part


def stored(cell: TwoMapCell, shape: Shape, k2: int | None, alone: bool, segment: bool = False) -> int:
    """The peak of one part of a batch whose gates are kept; dxs of a `segment` lies in that of the whole sequence."""
    T, N, C, *S = shape
    out = cell.input_map.out(tuple(S))
    h, frame = N * cell.features * prod(out), N * C * prod(S)
    z, states = cell.dz_blocks * h, cell.states * h
    together = min(T, int(cell.steps_at_once(like(cell, shape))))
    at_once = together if k2 is None or together == T else 1  # 1: as soon as no further block reaches a step
    several = at_once > 1
    # a step of the gates: the state's gradients before and after dys; what it makes, or holds while its map goes back
    taps = patches_of_x(cell, shape, 1) + cell.strip_room(like(cell, (N, cell.features, *out)))
    step = states + h + max(N * cell.step_room(out), cell.room_beside_map * h + taps)
    met = 0
    if cell.kernel and type(cell).step is LSTMCell.step and together > 1:
        # slopes, once their gates, c and tanh(c) lie side by side: those of dc stay
        step = max(step + together * h, 2 * states + together * (z + 3 * h))
        # where truncated blocks meet, the dz of one stay side by side while the next one's are made
        met = z * min(together, k2) if k2 and k2 < T and T % k2 else 0
    elif several and k2 is None:
        step += z  # on its way to the dz of the others
    # the maps: dz side by side, where they do not lie so; of a segment, also what the state map read
    apart = type(cell).to_state_map is not TwoMapCell.to_state_map  # dz is more than what the maps take
    beside = at_once * len(cell.gates) * h if several and (k2 or apart) else 0
    beside += at_once * cell.frames_beside * h if several else 0
    weights = patches_of_w(cell, shape, at_once, alone, segment) + (at_once * h if several and segment else 0)
    inputs = patches_of_x(cell, shape, at_once, turning=at_once == T and not segment)
    sizes = [int(a.size) for a in cell.params.values()]
    if segment and not cell.kernel:
        weights += max(sizes)  # on its way to those of the segments before
    late = alone and not segment and at_once == T  # dxs is what its map makes
    if at_once == T or (several and not alone):  # else its map writes it to where it belongs
        inputs += at_once * frame
    return (
        T * (N * cell.step_kept(out) + h)
        + (0 if late else T * frame)
        + z * (at_once if k2 is None else max(at_once, min(k2, T)))
        + met
        + (0 if k2 is None else 2 * states)  # gradients of the last state, and of all others: zeros
        + max(step, states + beside + max(weights, inputs))
        + sum(sizes)
    )
