"""Features by hand, for a baseline that has learned nothing: histograms of oriented gradients."""

from __future__ import annotations

import numpy as np

from ..backend import Array


def oriented_gradients(frames: Array, *, cell: int = 6, bins: int = 9) -> Array:
    """Histograms of oriented gradients, one a cell of pixels, all of a frame normalised together.

        g = central differences of the frame, copied at its borders;  m = |g|;  a = its angle, modulo pi
        H[cell, b] = sum over the cell's pixels of m, shared between the two bins next to a
        y = H / sqrt(sum H^2 + eps^2)

    Args:
        frames: (..., H, W). What of a frame does not fill a cell is left out.
        cell: pixels a side. bins: of half a turn; bin b is centred on (b + 1/2) pi / bins.
    Returns:
        (..., H // cell * W // cell * bins).
    Raises:
        ValueError: cells larger than the frames.
    Source: Dalal & Triggs 2005, "Histograms of oriented gradients for human detection", section 6, with
        one block a frame.
    """
    *lead, H, W = frames.shape
    rows, columns = H // cell, W // cell
    if rows < 1 or columns < 1:
        raise ValueError(f"frames.shape is {frames.shape}, expected at least {cell} pixels a side")
    x = np.pad(frames.reshape(-1, H, W).astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    dy, dx = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) / 2, (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) / 2
    m = np.hypot(dy, dx)
    place = (np.arctan2(dy, dx) % np.pi) / np.pi * bins - 0.5  # -0.5 .. bins - 0.5
    low = np.floor(place)
    high_share = place - low
    histogram = np.zeros((len(x), rows, columns, bins))
    for offset, share in ((0, 1 - high_share), (1, high_share)):
        which = (low + offset) % bins  # the last bin's neighbour is the first: angles are modulo pi
        for b in range(bins):
            weighted = np.where(which == b, m * share, 0)[:, : rows * cell, : columns * cell]
            histogram[..., b] += weighted.reshape(-1, rows, cell, columns, cell).sum(axis=(2, 4))
    flat = histogram.reshape(len(x), -1)
    y: Array = flat / np.sqrt((flat**2).sum(axis=1, keepdims=True) + 1e-6)
    return y.reshape(*lead, -1)
