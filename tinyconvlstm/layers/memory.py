"""What backpropagation through time holds in memory at its peak, as a formula."""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from .. import bptt
from ..backend import Array
from ..cells.base import TwoMapCell
from ..cells.lstm import LSTMCell
from ..ops.conv import block_sizes, lowering_of, weight_block_sizes
from ..ops.lowering import Lowering
from ..ops.windows import Geometry, Window
from ..parallel import shares

Shape = tuple[int, ...]


def peak(cell: TwoMapCell, shape: Shape, *, k2: int | None = None, every: int | None = None) -> int:
    """Numbers that a scan and its backward pass hold at their peak.

        h      = N F prod(S)                  numbers of one state array
        tape   = T (kept + h)                 gates, cells and ys: kept = h kept_per_step in most cells
        full   = tape + dxs + dz of the steps taken at once + each part's gradients + Winograd's weights
                 + the larger of: the gates' temporaries, the patches the threads work on
        truncated    as full, and the dz of k2 steps, which further blocks may still reach
        checkpointed = ys, dxs, a state of each segment, and the tape of `every` steps

    Convolutional LSTMs find the slopes of their gates for the steps taken at once, of copies side by side.
    Dense maps take all steps at once: all z beside the gates, or all dz (truncated: and their joined copy),
    and the largest gradient once more.

    Args:
        cell: a `TwoMapCell`. shape: (T, N, C, *S) of the input.
        k2: for the truncated way. every: for the checkpointed one.
    """
    T, N, C, *S = shape
    out = cell.input_map.out(tuple(S))
    h = N * cell.features * prod(out)
    z, dxs = cell.dz_blocks * h, N * C * prod(S)
    parts = parts_of(cell, shape)
    at_once = min(T, steps_at_once_of(cell, (T, -(-N // parts), *shape[2:])))
    if every is not None:
        segment = min(every, T)
        inner = peak(cell, (segment, *shape[1:])) - segment * dxs
        return T * (h + dxs) + (ceil(T / segment) - 1) * (cell.states - 1) * h + 2 * cell.states * h + inner
    together = at_once
    if k2 is not None and at_once < T:
        at_once = 1  # as soon as no further block reaches a step
    # what the gates' backward pass needs, before that of the maps begins
    gates = (4 + 2 * cell.states + cell.dz_blocks - len(cell.gates)) * h
    if cell.kernel and type(cell).step is LSTMCell.step:  # slopes: gates, c, tanh(c) side by side, and dc's
        gates = max(gates, together * (z + 4 * h) if together > 1 else 0)
    else:
        gates += z if k2 is None and at_once > 1 else 0  # a step's dz, on its way to the others
    step = at_once * z + max(gates + N * cell.step_room(out), 3 * h + patches(cell, shape, at_once))
    if k2 is not None and at_once > 1:  # dz and what was read, put together for one product
        step += at_once * (z + h)
    held = 0 if k2 is None or at_once == T else min(k2, T) * z
    sizes = [parts * int(a.size) for a in cell.params.values()]
    if cell.kernel:  # what Winograd's transforms make of the weights stays for the length of a scan
        found = convolutions(cell, tuple(S))
        sizes += [lowering.size for _, lowering, w in found if lowering.size > w.size]
    return (
        T * (N * cell.step_kept(out) + h + dxs)
        + step
        + held
        + sum(sizes)
        + (0 if cell.kernel else max(int(a.size) for a in cell.params.values()))
    )


def patches(cell: TwoMapCell, shape: Shape, at_once: int) -> int:
    """Numbers of the patches of the map that has most, in all threads: what a gradient unfolds."""
    if not cell.kernel:
        return 0
    N, _, *S = shape[1:]
    parts, found = parts_of(cell, shape), [0]
    for geometry, lowering, w in convolutions(cell, tuple(S)):
        clips = -(-N // parts)
        frame = like(cell, (clips, w.shape[1], *geometry.sizes))
        blocks = weight_block_sizes(frame, geometry, lowering, at_once, w.shape[1] * geometry.taps, len(w))
        sums = 2 + (lowering.halo > 0)  # a first product, and the next one to add; one more of pieces of both
        if blocks[0] >= clips and blocks[1] >= geometry.out[0]:
            sums -= 1
        found.append(at_once * parts * (held(lowering, blocks, clips, geometry) + sums * lowering.size))
        found.append(parts * held(lowering, block_sizes(frame, geometry, lowering), clips, geometry))
    return max(found)


def held(lowering: Lowering, blocks: tuple[int, int], clips: int, geometry: Geometry) -> int:
    """Numbers that a block of so many samples and rows needs, of which there may be fewer."""
    samples, rows = min(blocks[0], clips), min(blocks[1], geometry.out[0])
    row = geometry.positions // geometry.out[0]
    return samples * row * (rows * lowering.held + lowering.halo * lowering.numbers)


def convolutions(cell: TwoMapCell, sizes: Shape) -> list[tuple[Geometry, Lowering, Array]]:
    """Of each convolution of a cell: its geometry, its lowering and its weights."""
    out, found = cell.input_map.out(sizes), []
    for name, w in cell.params.items():
        if w.ndim == 2 + len(cell.kernel) and name != "w_c":  # a peephole map is no kernel
            own = name == getattr(cell.input_map, "w", None)
            geometry = cell.input_map.over(sizes) if own else Window(w.shape[2:], padding="same").over(out)
            found.append((geometry, lowering_of(w, w.shape, geometry, 1), w))
    return found


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
