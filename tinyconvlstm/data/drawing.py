"""Digits drawn along any path: for clips whose motion a task decides, not chance."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from .glyphs import INK, load_glyphs, packaged_levels, partition


def split_digits(split: str, size: int) -> tuple[Array, Array]:
    """The packaged digits of one split, ready to be drawn.

    Args:
        split: "train", "validation" or "test"; they share no bitmap.
        size: pixels a side.
    Returns:
        ink (n, size, size) float64 from 0 to 1; labels (n,) int64.
    """
    images, labels, _ = load_glyphs(None)
    assert labels is not None  # the packaged digits have theirs
    chosen = partition(images, labels, split)
    return packaged_levels(images[chosen], size) / INK, labels[chosen]


def draw_digits(ink: Array, corners: Array, *, canvas: tuple[int, int], dtype: type = np.float32) -> Array:
    """Digits at fractions of a pixel, by bilinear weights; where they overlap the brighter pixel is seen.

    Args:
        ink: (..., h, h) from 0 to 1; axes before the last two broadcast to those of corners.
        corners: (..., D, 2), the top left corner (row, column) in pixels of each of D digits, wholly on
            the canvas.
        canvas: (H, W) in pixels.
    Returns:
        (..., H, W).
    Raises:
        ValueError: a digit leaves the canvas.
    """
    side = ink.shape[-1]
    room = np.array(canvas) - side
    if (corners < 0).any() or (corners > room).any():
        raise ValueError(
            f"corners span {corners.min():g} to {corners.max():g}, expected from 0 to {tuple(map(int, room))}"
        )
    lead = corners.shape[:-2]
    ink = np.broadcast_to(ink, (*corners.shape[:-1], side, side))
    frames = np.zeros((int(np.prod(lead)), canvas[0] + 1, canvas[1] + 1))
    windows = np.lib.stride_tricks.sliding_window_view(
        frames, (side + 1, side + 1), axis=(1, 2), writeable=True
    )
    whole = np.floor(corners).astype(np.int64)
    part = corners - whole
    every = np.arange(len(frames))
    for d in range(corners.shape[-2]):
        down, right = (part[..., d, axis, None, None] for axis in (0, 1))
        patch = moved(moved(ink[..., d, :, :], down, -2), right, -1)
        row, column = (whole[..., d, axis].reshape(-1) for axis in (0, 1))
        at = (every, row, column)
        windows[at] = np.maximum(windows[at], patch.reshape(-1, side + 1, side + 1))
    return frames[:, : canvas[0], : canvas[1]].reshape(*lead, *canvas).astype(dtype)


def moved(ink: Array, part: Array, axis: int) -> Array:
    """ink moved on by a part of a pixel, one pixel longer: (1 - part) ink[i] + part ink[i - 1]."""
    pad = [(0, 0)] * ink.ndim
    pad[axis] = (0, 1)
    here = np.pad(ink, pad)
    pad[axis] = (1, 0)
    out: Array = (1 - part) * here + part * np.pad(ink, pad)
    return out
