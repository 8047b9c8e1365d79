"""What the convolutions of a cell unfold on the way back: patches, and what is made of weights."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ..backend import Array
from ..cells.base import TwoMapCell
from ..cells.maps import ConvMap
from ..ops.conv import block_sizes, flipped_shape, lowering_of, steps_at_a_time, way_back, weight_block_sizes
from ..ops.lowering import Im2col, Lowering
from ..ops.windows import Geometry, Window, padded_sizes
from ..parallel import shares

Shape = tuple[int, ...]


def patches_of_w(cell: TwoMapCell, shape: Shape, at_once: int, alone: bool, segment: bool) -> int:
    """Numbers that the gradient of a map's weights needs for so many steps: of the map that needs most."""
    found = [0]
    for geometry, lowering, w, of_x, together in convolutions(cell, shape[3:]):
        steps = at_once if together else 1
        once = steps == shape[0] and not segment  # then it is the gradient; and a state at rest has none
        steps -= once and not of_x
        rows, needed = w.shape[1] * geometry.taps, -int(w.size) if once else 0
        macs = shape[1] * w.size * geometry.positions * lowering.work
        # a scan in one part leaves the threads to the product
        for part in shares(like(cell, shape[1:]), macs if alone else 0):
            clips = part.stop - part.start
            x = like(cell, (clips, w.shape[1], *geometry.sizes))
            blocks = weight_block_sizes(x, geometry, lowering, rows, len(w))
            whole = blocks[0] >= clips and blocks[1] >= geometry.out[0]
            sums = lowering.size if whole else 2 * lowering.size  # what a block adds, and what it adds to
            n = min(steps, steps_at_a_time(x, geometry, lowering, blocks))
            block = n * (held(lowering, blocks, clips, geometry, w.shape[1]) + sums)
            as_w = type(lowering) is not Im2col and int(w.size)  # as w lies
            needed += max(block, n * (lowering.size + as_w))
        found.append(needed)
    return max(found)


def patches_of_x(cell: TwoMapCell, shape: Shape, steps: int, turning: bool = False) -> int:
    """Numbers that the gradient of what a map read needs for so many steps: of the map that needs most.

    The maps of the state take one step at a time. While `turning` the input map's weights around, these count too.
    """
    found = [0]
    for geometry, _, w, of_x, _ in convolutions(cell, shape[3:]):
        clips = shape[1] * (steps if of_x else 1)
        mirror, lowering = back_to_x(geometry, w)
        shape_of_dz = (clips, w.shape[0] if mirror else w.shape[1], *(mirror or geometry).sizes)
        blocks = block_sizes(like(cell, shape_of_dz), mirror or geometry, lowering)
        own = lowering.size if mirror and of_x and turning else 0
        found.append(own + held(lowering, blocks, clips, mirror or geometry, shape_of_dz[1], room=not mirror))
    return max(found)


def held(
    lowering: Lowering,
    blocks: tuple[int, int],
    clips: int,
    geometry: Geometry,
    channels: int,
    room: bool = False,
) -> int:
    """Numbers that a block of so many samples and rows needs, of which there may be fewer: padded, then unfolded."""
    samples, rows = min(blocks[0], clips), min(blocks[1], geometry.out[0])
    pads = lowering.back.around if room else lowering.pads
    padded = (
        samples * channels * prod(padded_sizes(geometry._replace(pads=pads)))
        if pads and any(map(any, pads))
        else 0
    )
    strip = geometry._replace(out=(rows, *geometry.out[1:]))
    # samples stand side by side, with dy beside them, for the weights only
    return padded + (samples * lowering.held(strip, 1) if room else lowering.held(strip, samples))


def weights_kept(cell: TwoMapCell, sizes: Shape, forward: bool, inputs: bool) -> int:
    """Numbers of what is made of the weights and stays on the way back: turned around for dh, and for the `inputs`.

    Where a segment is scanned again meanwhile, those of the way `forward` too, which Winograd's transforms make.
    """
    kept = 0
    for geometry, lowering, w, of_x, _ in convolutions(cell, sizes):
        mirror, back = back_to_x(geometry, w)
        kept += back.size if mirror and (inputs or not of_x) else 0
        kept += lowering.size if forward and lowering.size > w.size else 0
    return kept


def back_to_x(geometry: Geometry, w: Array) -> tuple[Geometry | None, Lowering]:
    """Where dx is a convolution of dz, its geometry; and its lowering."""
    if mirror := way_back(w, w.shape, geometry, 1):
        return mirror, lowering_of(w, flipped_shape(w.shape, 1), mirror, 1)
    return None, lowering_of(w, w.shape, geometry, 1).back


class Convolution(NamedTuple):
    """One of a cell's convolutions."""

    geometry: Geometry
    lowering: Lowering
    w: Array
    of_x: bool  # it reads the input, else the state
    together: bool  # its gradient takes several steps at once


def convolutions(cell: TwoMapCell, sizes: Shape) -> list[Convolution]:
    """Those of a cell for an input of spatial `sizes`."""
    maps = {m.w: m for m in vars(cell).values() if isinstance(m, ConvMap)}
    out, found = cell.input_map.out(sizes), []
    for name, w, together in cell.products() if cell.kernel else ():
        if w.ndim == 2 + len(cell.kernel) and name != "w_c":  # a peephole map is no kernel
            own = maps.get(name)
            of_x = own is cell.input_map or (own is not None and own.b is not None)
            window = Window(w.shape[2:], padding="same") if own is None else own.window
            geometry = window.over(sizes if of_x else out)
            found.append(Convolution(geometry, lowering_of(w, w.shape, geometry, 1), w, of_x, together))
    return found


def like(cell: TwoMapCell, shape: Shape) -> np.ndarray:
    """An array of a shape that takes no memory, with the cell's dtype."""
    return np.broadcast_to(np.zeros((), next(iter(cell.params.values())).dtype), shape)
