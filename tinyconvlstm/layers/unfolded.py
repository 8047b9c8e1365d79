"""What the convolutions of a cell unfold on the way back: patches, and what is made of weights."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ..backend import Array
from ..cells.base import TwoMapCell
from ..cells.maps import ConvMap
from ..cells.maps_factored import FactoredMap
from ..ops.conv import block_sizes, flipped_shape, lowering_of, steps_at_a_time, way_back, weight_block_sizes
from ..ops.lowering import Im2col, Lowering
from ..ops.windows import Geometry, Pads, Window, padded_sizes
from ..parallel import shares

Shape = tuple[int, ...]


def patches_of_w(
    cell: TwoMapCell,
    shape: Shape,
    at_once: int,
    alone: bool,
    segment: bool,
    *,
    of_x: bool,
    rest: bool = True,
    beside: int = 0,
) -> int:
    """Numbers that the gradient of a map's weights needs for so many steps: of the map that needs most.

    Of the maps `of_x`, or those of the state, which at `rest` gives none. What lies `beside` them is that of the
    state map, or the input map; further maps have their own.
    """
    out, found = cell.input_map.out(shape[3:]), [beside]
    for geometry, lowering, w, groups, _, together, between, further in convolutions(cell, shape[3:], of_x):
        steps = at_once if together else 1
        once = steps == shape[0] and not segment  # then it is the gradient
        steps -= steps == shape[0] and rest and not of_x
        rows, needed = w.shape[1] * geometry.taps, -int(w.size) if once else 0
        needed += between * shape[1] * geometry.positions
        if not further:
            needed += beside
        elif steps > 1:
            needed += round(steps * cell.frames_beside * shape[1] * cell.features * prod(out))
        macs = shape[1] * w.size * geometry.positions * lowering.work
        # a scan in one part leaves the threads to the product
        for part in shares(like(cell, shape[1:]), macs if alone else 0):
            clips = part.stop - part.start
            x = like(cell, (clips, w.shape[1] * groups, *geometry.sizes))
            blocks = weight_block_sizes(x, geometry, lowering, rows, len(w))
            whole = blocks[0] >= clips and blocks[1] >= geometry.out[0]
            sums = lowering.size if whole else 2 * lowering.size  # what a block adds, and what it adds to
            n = min(steps, steps_at_a_time(x, geometry, lowering, blocks))
            block = n * (
                held(lowering, lowering.pads, blocks, clips, geometry, x.shape[1], beside=True) + sums
            )
            as_w = type(lowering) is not Im2col and int(w.size)  # as w lies
            needed += max(block, n * (lowering.size + as_w))
        found.append(needed)
    return max(found)


def patches_of_x(
    cell: TwoMapCell, shape: Shape, steps: int, alone: bool, *, of_x: bool, turning: bool = False
) -> int:
    """Numbers that the gradient of what a map read needs for so many steps: of the map that needs most.

    Of the maps `of_x`, or those of the state. While `turning` the weights around, these count too.
    """
    found, batch = [0], shape[1] * steps
    for geometry, _, w, groups, _, _, between, _ in convolutions(cell, shape[3:], of_x):
        mirror, lowering = back_to_x(geometry, w, groups)
        pads = lowering.pads if mirror else lowering.back.around
        needed = (lowering.size if mirror and turning else 0) + between * batch * geometry.positions
        frame = (w.shape[0] if mirror else w.shape[1] * groups, *(mirror or geometry).sizes)
        macs = batch * w.size * geometry.positions * lowering.work
        for part in shares(like(cell, (batch, *frame)), macs if alone else 0):
            clips = part.stop - part.start
            blocks = block_sizes(like(cell, (clips, *frame)), mirror or geometry, lowering)
            needed += held(lowering, pads, blocks, clips, mirror or geometry, frame[0])
        found.append(needed)
    return max(found)


def held(
    lowering: Lowering,
    pads: Pads | None,
    blocks: tuple[int, int],
    clips: int,
    geometry: Geometry,
    channels: int,
    beside: bool = False,
) -> int:
    """Numbers that a block of so many samples and rows needs, of which there may be fewer: padded, then unfolded.

    For the weights, samples stand `beside` each other, with dy beside them.
    """
    samples, rows = min(blocks[0], clips), min(blocks[1], geometry.out[0])
    padded = (
        samples * channels * prod(padded_sizes(geometry._replace(pads=pads)))
        if pads and any(map(any, pads))
        else 0
    )
    strip = geometry._replace(out=(rows, *geometry.out[1:]))
    return padded + (lowering.held(strip, samples) if beside else samples * lowering.held(strip, 1))


def weights_kept(cell: TwoMapCell, sizes: Shape, forward: bool, inputs: bool) -> int:
    """Numbers of what is made of the weights and stays on the way back: turned around for dh, and for the `inputs`.

    Where a segment is scanned again meanwhile, those of the way `forward` too, which Winograd's transforms make.
    """
    kept = 0
    for geometry, lowering, w, groups, of_x, *_ in convolutions(cell, sizes):
        mirror, back = back_to_x(geometry, w, groups)
        kept += back.size if mirror and (inputs or not of_x) else 0
        kept += lowering.size if forward and lowering.size > w.size else 0
    return kept


def back_to_x(geometry: Geometry, w: Array, groups: int) -> tuple[Geometry | None, Lowering]:
    """Where dx is a convolution of dz, its geometry; and its lowering."""
    if mirror := way_back(w, w.shape, geometry, groups):
        return mirror, lowering_of(w, flipped_shape(w.shape, groups), mirror, groups)
    return None, lowering_of(w, w.shape, geometry, groups).back


class Convolution(NamedTuple):
    """One of a cell's convolutions."""

    geometry: Geometry
    lowering: Lowering
    w: Array
    groups: int
    of_x: bool  # it reads the input, else the state
    together: bool  # its gradient takes several steps at once
    between: int  # channels between the two halves of a factored map, which are made again on the way back
    further: bool  # it reads the state, beside the state map


def convolutions(cell: TwoMapCell, sizes: Shape, of_x: bool | None = None) -> list[Convolution]:
    """Those of a cell for an input of spatial `sizes`; only those that read the input, or the state, where asked."""
    maps: dict[str, ConvMap] = {}
    for own in vars(cell).values():
        if isinstance(own, FactoredMap):
            maps |= {own.first: own, own.second: own}
        elif isinstance(own, ConvMap):
            maps[own.w] = own
    out, found = cell.input_map.out(sizes), []
    for name, w, together in cell.products() if cell.kernel else ():
        if w.ndim != 2 + len(cell.kernel) or name == "w_c":  # a peephole map is no kernel
            continue
        map_ = maps.get(name)
        projects = map_ is cell.input_map or (map_ is not None and map_.b is not None)
        reads_x = projects and name not in cell.step_by_step
        if of_x not in (None, reads_x):
            continue
        window = Window(w.shape[2:], padding="same") if map_ is None else map_.window
        groups, between, over = 1, 0, sizes if reads_x else out
        if isinstance(map_, FactoredMap):
            between, together = cell.params[map_.first].shape[0], False
            if name == map_.first:
                groups = map_.channels(cell.params) // w.shape[1]
            else:
                window, over = Window(w.shape[2:]), out
        geometry = window.over(over)
        lowering = lowering_of(w, w.shape, geometry, groups)
        further = not reads_x and map_ is not None and map_ is not cell.state_map
        found.append(Convolution(geometry, lowering, w, groups, reads_x, together, between, further))
    return found


def like(cell: TwoMapCell, shape: Shape) -> np.ndarray:
    """An array of a shape that takes no memory, with the cell's dtype."""
    return np.broadcast_to(np.zeros((), next(iter(cell.params.values())).dtype), shape)
