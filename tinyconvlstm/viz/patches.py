"""im2col as a picture: windows of an image, and the columns they become."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..ops.columns import im2col
from ..ops.windows import Window, pad
from .gates import COLOURS


def patches_as_columns(x: Array, window: Window, marked: tuple[int, ...] | None = None) -> Any:
    """Draw an image with some windows marked beside the matrix of its patches. Needs matplotlib.

    Args:
        x: (H, W).
        window: over 2 spatial axes.
        marked: numbers of the windows to mark; default: the first, a middle and the last one.
    Returns:
        The matplotlib figure; a window and its column have the same colour.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    image = to_numpy(x)
    if image.ndim != 2:
        raise ValueError(f"x has shape {tuple(image.shape)}, expected (H, W)")
    geometry = window.over(image.shape)
    cols = im2col(image[None, None], geometry)[0]  # (prod(K), prod(S_out))
    padded = pad(image[None, None], geometry.pads)[0, 0]
    count = geometry.positions
    marked = tuple(dict.fromkeys((0, count // 2, count - 1))) if marked is None else marked
    if not all(0 <= p < count for p in marked):
        raise ValueError(f"marked is {marked}, expected window numbers 0..{count - 1}")
    figure = Figure(figsize=(11, 4.6), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    left.imshow(padded, cmap="gray_r", interpolation="nearest")
    right.imshow(cols, cmap="gray_r", interpolation="nearest", aspect="auto")
    for ax, values in ((left, padded), (right, cols)):
        if values.size <= 400:
            middle = (values.max() + values.min()) / 2
            for (r, c), v in np.ndenumerate(values):
                ax.text(
                    c, r, f"{v:g}", ha="center", va="center", fontsize=8, color="w" if v > middle else "k"
                )
    for k, (colour, p) in enumerate(zip(COLOURS * 9, marked, strict=False)):
        side = 0.92 - 0.14 * (k % 3)  # so that overlapping windows stay visible
        start = np.array(np.unravel_index(p, geometry.out)) * geometry.stride
        for tap in np.ndindex(*geometry.kernel):
            row, column = start + np.array(tap) * geometry.dilation
            square = Rectangle((column - side / 2, row - side / 2), side, side, fill=False, ec=colour, lw=2)
            left.add_patch(square)
        right.add_patch(Rectangle((p - 0.47, -0.47), 0.94, len(cols) - 0.06, fill=False, ec=colour, lw=2.5))
    corner = (geometry.pads[1][0] - 0.5, geometry.pads[0][0] - 0.5)
    edge = Rectangle(corner, image.shape[1], image.shape[0], fill=False, ls="--", ec="0.4")
    if padded.shape != image.shape:
        left.add_patch(edge)
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    left.set_title("image" if padded.shape == image.shape else "image (dashed) and its padding")
    right.set_title(f"im2col: {len(cols)} taps x {count} windows")
    right.set_xlabel("window")
    right.set_ylabel("tap")
    return figure
