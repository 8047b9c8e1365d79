"""Glyphs: the images that move. Their partition into splits and their size, in exact arithmetic.

A glyph's pixels are integer levels from 0 (paper) to 256 (ink): a power of two, so that every later
product with a sub-pixel weight is exact in float32, and the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from .digits import FULL_INK, load_digits
from .idx import read_idx

INK = 256  # the level of full ink
SPLITS = ("train", "validation", "test", "all")


def load_glyphs(source: Any, labels: Any = None) -> tuple[Array, Array | None, int]:
    """Glyphs and labels from the package, an idx file or an array.

    Args:
        source: None for the packaged digits; a path of an idx file of images (plain or .gz); or an
            array (n, h, h), uint8 from 0 to 255 or floating from 0 to 1.
        labels: None, a path of an idx file of labels, or an array (n,) of integers; the packaged
            digits bring their own.
    Returns:
        glyphs (n, h, h) of integers; labels (n,) int64 or None; the value of full ink.
    Raises:
        ValueError: the array's rank, shape, type or range is not as above, or labels do not match.
        IdxError: a file that cannot be read.
    """
    if source is None:
        if labels is not None:
            raise ValueError("labels are given without glyphs: the packaged digits bring their own")
        images, packaged = load_digits()
        return images, packaged.astype(np.int64), FULL_INK
    glyphs = source if isinstance(source, np.ndarray) else read_idx(source)
    if glyphs.ndim != 3 or glyphs.shape[1] != glyphs.shape[2] or 0 in glyphs.shape:
        raise ValueError(f"glyphs.shape is {glyphs.shape}, expected (n, h, h): square images of one channel")
    full = 255
    if glyphs.dtype.kind == "f":
        if not (glyphs.min() >= 0 and glyphs.max() <= 1):  # written so that NaN is refused too
            raise ValueError(
                f"glyphs span {glyphs.min()} to {glyphs.max()}, expected 0 to 1 for {glyphs.dtype}"
            )
        glyphs, full = np.rint(glyphs * INK).astype(np.int16), INK
    elif glyphs.dtype != np.uint8:
        raise ValueError(f"glyphs.dtype is {glyphs.dtype}, expected uint8 (0 to 255) or floating (0 to 1)")
    return glyphs, None if labels is None else _labels(labels, len(glyphs)), full


def partition(glyphs: Array, labels: Array | None, split: str) -> Array:
    """The indices of the glyphs of one split: a fixed partition, four sixths, one sixth and one sixth.

    Within each class (one class when labels is None) the file's order decides: first the training
    glyphs, then validation, then test. Writers follow one another in the packaged digits, so the
    held-out digits are mostly by other hands. Of identical bitmaps only the first takes part, so that
    no bitmap is on two sides.

    Args:
        glyphs: (n, h, h). labels: (n,) or None.
        split: "train", "validation", "test", or "all" for everything (for a file that is itself a split).
    Returns:
        Sorted indices into glyphs, int64.
    Raises:
        ValueError: an unknown split, or one left without glyphs.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(map(repr, SPLITS))}")
    first: dict[bytes, int] = {}  # bitmap -> its first index
    for i, glyph in enumerate(glyphs):
        first.setdefault(glyph.tobytes(), i)
    kept = np.fromiter(first.values(), np.int64)
    if split == "all":
        return kept
    classes = np.zeros(len(kept), np.int64) if labels is None else labels[kept]
    chosen = []
    for name in np.unique(classes):
        members = kept[classes == name]
        held = (len(members) + 3) // 6  # a sixth, rounded to nearest
        borders = (0, len(members) - 2 * held, len(members) - held, len(members))
        at = SPLITS.index(split)
        chosen.append(members[borders[at] : borders[at + 1]])
    indices: Array = np.sort(np.concatenate(chosen))
    if not len(indices):
        raise ValueError(
            f"split {split!r} holds none of the {len(kept)} different glyphs, expected at least 3"
        )
    return indices


def levels(glyphs: Array, full: int, size: int) -> Array:
    """Glyphs resized to (size, size) as integer levels, 0 to 256.

    Convention: half-pixel centres, that is, output pixel o lies at (o + 1/2) h / size - 1/2 of the input;
    bilinear when enlarging (paper beyond the border), area averages when shrinking. Weights are
    integers over a common denominator and the result is rounded to nearest once.

    Args:
        glyphs: (n, h, h) integers from 0 to full. full: the value of full ink.
        size: pixels a side.
    Returns:
        (n, size, size) int16.
    """
    weights, scale = resize_weights(glyphs.shape[1], size)
    out = np.empty((len(glyphs), size, size), np.int16)
    for start in range(0, len(glyphs), 1024):  # a block's float64 stay small
        block = slice(start, start + 1024)
        # whole numbers far below 2**53: float64 products are exact in any order of summation
        ink = (weights @ glyphs[block].astype(np.float64) @ weights.T).astype(np.int64)
        whole = full * scale**2
        out[block] = (2 * INK * ink + whole) // (2 * whole)
    return out


def resize_weights(old: int, new: int) -> tuple[Array, int]:
    """The weights (new, old) of `levels` along one axis, whole numbers in float64, and their common sum."""
    o, i = np.arange(new)[:, None], np.arange(old)[None, :]
    if new >= old:  # bilinear: 1 - distance of the centres, in units of 1 / (2 new) input pixels
        return np.maximum(2 * new - abs((2 * o + 1) * old - (2 * i + 1) * new), 0).astype(np.float64), 2 * new
    overlap = np.minimum((o + 1) * old, (i + 1) * new) - np.maximum(o * old, i * new)
    return np.maximum(overlap, 0).astype(np.float64), old  # in units of 1 / new input pixels


def packaged_levels(glyphs: Array, size: int) -> Array:
    """The packaged 8x8 digits drawn at (size, size): `levels` with a margin and a contrast ramp.

    Each digit gets a margin of one pixel, so that its strokes end round. Enlarged densities look
    blurred; the ramp ink' = clip(2 ink - 3/8, 0, 1) makes of them strokes with smooth, narrow edges.

    Args:
        glyphs: (n, 8, 8), 0 to 16. size: pixels a side.
    Returns:
        (n, size, size) int16, 0 to 256.
    """
    soft = levels(np.pad(glyphs, ((0, 0), (1, 1), (1, 1))), FULL_INK, size)
    sharp: Array = np.clip(2 * soft - 3 * INK // 8, 0, INK)
    return sharp


def _labels(labels: Any, count: int) -> Array:
    """labels as (count,) int64, read from a path or checked as an array."""
    found = labels if isinstance(labels, np.ndarray) else read_idx(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise ValueError(f"labels are {found.dtype} of shape {found.shape}, expected ({count},) integers")
    return found.astype(np.int64)
