"""How far a recurrent convolution sees: the receptive field, through layers and through time.

At every step the state map adds its reach to what the state has seen. So a *larger* state kernel
sees further, not a smaller one; with one tap a pixel never learns of its neighbours at all, however
long the clip.
"""

from __future__ import annotations

from collections.abc import Sequence

from .cells import (
    CandidateLSTMCell,
    ConvPeepholeLSTMCell,
    LayerNormLSTMCell,
    ResetBeforeGRUCell,
    TwoMapCell,
)
from .cells.maps import ConvMap
from .ops.windows import as_int, per_axis

OTHER_PATHS = (CandidateLSTMCell, ConvPeepholeLSTMCell, LayerNormLSTMCell, ResetBeforeGRUCell)


def span(kernel: int, dilation: int = 1) -> int:
    """Pixels from the first tap to the last: dilation * (kernel - 1) + 1."""
    return as_int(dilation, "dilation") * (as_int(kernel, "kernel") - 1) + 1


def receptive_field(
    kernel_x: int, kernel_h: int, steps: int, *, dilation_x: int = 1, dilation_h: int = 1
) -> int:
    """Pixels of the first frame, along one axis, that a pixel of h depends on after some steps.

        r = span_x + (steps - 1) (span_h - 1)          span = dilation (kernel - 1) + 1

    One application of the input map, then one of the state map for each step that follows.

    Args:
        kernel_x, kernel_h: taps of the input map and of the state map along this axis.
        steps: steps scanned, the first frame's own included; at least 1.
        dilation_x, dilation_h: pixels between neighbouring taps.
    Returns:
        r in pixels. Borders cut it off.
    """
    steps = as_int(steps, "steps")
    return span(kernel_x, dilation_x) + (steps - 1) * (span(kernel_h, dilation_h) - 1)


def stack_receptive_field(cells: TwoMapCell | Sequence[TwoMapCell], steps: int) -> tuple[int, ...]:
    """Pixels of the first frame that a pixel of the last cell's h depends on, for each spatial axis.

        r = 1 + sum_l j_(l-1) (span_x,l - 1) + (steps - 1) max_l j_l (span_h,l - 1)

    j_l is the distance in the frames between neighbouring pixels of layer l, the product of the strides so far.
    The path goes through every input map once, and takes each of its steps through time in whichever
    layer sees furthest; where kernels are even, once furthest back and once furthest ahead.

    Args:
        cells: a stack, first layer first, each reading the h of the one before; or one cell.
        steps: steps scanned, the first frame's own included.
    Returns:
        r in pixels of the frames, one an axis: the distance between the outermost pixels, plus 1.
    Raises:
        ValueError: no cells, other numbers of spatial axes, or a cell without input.
        TypeError: a cell whose state reaches further in a step than its state map does.
    """
    cells = [cells] if isinstance(cells, TwoMapCell) else list(cells)
    steps = as_int(steps, "steps")
    if not cells:
        raise ValueError("cells is empty, expected at least one cell")
    rank = len(cells[0].kernel)
    width, jump = [1] * rank, [1] * rank
    back, ahead = [0] * rank, [0] * rank  # reach of one step through time, of the layer that sees furthest
    for cell in cells:
        x, h = maps_of(cell, rank)
        kernel, dilation = per_axis(x.kernel, rank, "kernel"), per_axis(x.dilation, rank, "dilation")
        stride = per_axis(x.stride, rank, "stride")
        state_dilation = per_axis(h.dilation, rank, "state_dilation")
        for axis in range(rank):
            width[axis] += jump[axis] * (span(kernel[axis], dilation[axis]) - 1)
            jump[axis] *= stride[axis]
            reach = span(h.kernel[axis], state_dilation[axis]) - 1
            back[axis] = max(back[axis], jump[axis] * (reach // 2))
            ahead[axis] = max(ahead[axis], jump[axis] * (reach - reach // 2))
    return tuple(w + (steps - 1) * (b + a) for w, b, a in zip(width, back, ahead, strict=True))


def maps_of(cell: TwoMapCell, rank: int) -> tuple[ConvMap, ConvMap]:
    """The input map and the state map of a cell, or an error where the formula does not hold for it."""
    if isinstance(cell, OTHER_PATHS):
        raise TypeError(
            f"cells has a {type(cell).__name__}, whose state reaches further in a step than its state map"
        )
    if len(cell.kernel) != rank:
        raise ValueError(f"cells have {rank} and {len(cell.kernel)} spatial axes, expected the same number")
    if not isinstance(cell.input_map, ConvMap):
        raise ValueError("cells has one without input (channels = 0): no frame reaches it")
    return cell.input_map, cell.state_map
