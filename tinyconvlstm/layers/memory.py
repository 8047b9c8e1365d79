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
        # the first segment begins at rest: it counts where no other is as long
        sum(
            stored(cell, (t, n, C, *S), None, len(parts) == 1, True, t == min(every, T) > T - every)
            for n in clips
        )
        - t * dxs
        for t in lengths
    )
    return kept + T * (h + dxs) + states * h + part


def stored(
    cell: TwoMapCell, shape: Shape, k2: int | None, alone: bool, segment: bool = False, from_rest: bool = True
) -> int:
    """The peak of one part of a batch whose gates are kept; dxs of a `segment` lies in that of the whole sequence."""
    back = BackwardPass(cell, shape, k2, alone, segment, from_rest)
    T, N, C, *S = shape
    tape = T * (N * cell.step_kept(cell.input_map.out(tuple(S))) + back.h)
    late = alone and not segment and back.at_once == T  # dxs is what its map makes
    dxs, params = 0 if late else T * N * C * prod(S), sum(int(a.size) for a in cell.params.values())
    if k2 is None:
        # the first steps find no gradients, and in a scan in one part no dxs; the next ones may be fewer
        begun = dxs if segment or not alone else 0
        first, rest = back.at_once, min(back.at_once, T - back.at_once)
        at_gates = back.z * first + begun + back.gates(first) + (params if segment else 0)
        at_state = back.z * first + begun + back.maps(first, of_x=False) + params
        at_input = back.z * first + dxs + back.maps(first, of_x=True) + params
        later = (
            max(back.gates(rest), back.maps(rest, of_x=False)) + back.z * rest + dxs + params if rest else 0
        )
        return tape + max(at_gates, at_state, at_input, later)
    zeros = 2 * back.states  # gradients of the last state, and of all others
    # where truncated blocks meet, the dz of one stay side by side while the next one's are made
    met = back.z * min(back.together, k2) if back.slopes and k2 < T and T % k2 else 0
    dz = back.z * max(back.at_once, min(k2, T)) + met
    at_maps = max(back.maps(back.at_once, of_x) for of_x in (False, True))
    return tape + zeros + dxs + params + dz + max(back.gates(min(back.together, k2)), at_maps)


class BackwardPass:
    """What a part's way back holds beside its tape, dz, dxs and gradients, in numbers.

    Args:
        cell, shape, k2: as `peak`, with the clips of the part alone.
        alone: the scan is one part; its products and convolutions may use all threads.
        segment: it is a segment of a checkpointed scan, whose dxs and gradients are there already.
        from_rest: the state before it is zero.
    """

    def __init__(
        self, cell: TwoMapCell, shape: Shape, k2: int | None, alone: bool, segment: bool, from_rest: bool
    ) -> None:
        T, N, C, *S = shape
        self.cell, self.shape, self.k2 = cell, shape, k2
        self.alone, self.segment, self.from_rest = alone, segment, from_rest
        self.out = cell.input_map.out(tuple(S))
        self.h, self.frame = N * cell.features * prod(self.out), N * C * prod(S)
        self.z, self.states = round(cell.dz_blocks * self.h), cell.states * self.h
        self.together = min(T, int(cell.steps_at_once(like(cell, shape))))
        # 1: as soon as no further block reaches a step
        self.at_once = self.together if k2 is None or self.together == T else 1
        self.slopes = bool(cell.kernel) and type(cell).step is LSTMCell.step and self.together > 1

    def gates(self, steps: int) -> int:
        """The most for the gates of so many steps: the state's gradients before and after dys, and more."""
        cell, h, clips = self.cell, self.h, self.shape[1]
        state_map = patches_of_x(cell, self.shape, 1, self.alone, of_x=False)
        strips = cell.strip_room(like(cell, (clips, cell.features, *self.out)))
        # what a step makes, or holds while its map goes back
        one = max(clips * cell.step_room(self.out), cell.room_beside_map * h + state_map + strips)
        one += self.states + h
        if self.slopes:  # for all steps, once their gates, c and tanh(c) lie side by side: those of dc stay
            return max(one + steps * h, 2 * self.states + steps * (self.z + 3 * h))
        return one + (self.z if steps > 1 and self.k2 is None else 0)  # dz on its way to that of the others

    def maps(self, steps: int, of_x: bool) -> int:
        """The most for the maps of the input, or of the state, of so many steps."""
        cell, h, several = self.cell, self.h, steps > 1
        # dz side by side, where they do not lie so
        apart = cell.dz_blocks > len(cell.gates) or type(cell).to_state_map is not TwoMapCell.to_state_map
        whole = steps == self.shape[0]
        read = steps - (self.from_rest and whole and not of_x)  # a state at rest gives no gradient
        beside = read * len(cell.gates) * h if several and (self.k2 or apart) else 0
        if several and not of_x:  # of a segment, also what the state map read
            beside += read * h * self.segment
        weights = patches_of_w(
            cell, self.shape, steps, self.alone, self.segment, of_x=of_x, rest=self.from_rest, beside=beside
        )
        if self.segment and not cell.kernel:  # on its way to those of the segments before
            weights += max(int(a.size) for a in cell.params.values())
        if not of_x:
            return self.states + weights
        turning = whole and not self.segment
        inputs = beside + patches_of_x(cell, self.shape, steps, self.alone, of_x=True, turning=turning)
        if whole or (several and not self.alone):  # else its map writes it to where it belongs
            inputs += steps * self.frame
        return self.states + max(weights, inputs)
