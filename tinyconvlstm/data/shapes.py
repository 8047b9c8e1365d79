"""Moving shapes with exact labels: signed distances, drawn with smooth edges at fractions of a pixel.

A shape at (row, column) covers a pixel by c = clip(1/2 - d, 0, 1), d its signed distance from the shape's
edge in pixels, negative inside. Kinds: "disc", "square", "diamond", "cross", "ring", "bar" (horizontal).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array

Distance = Callable[[Array, Array, float], Array]


def disc(y: Array, x: Array, r: float) -> Array:
    """Distance from a disc of radius r."""
    return np.hypot(y, x) - r


def square(y: Array, x: Array, r: float) -> Array:
    """Distance (along an axis) from a square whose side is 1.8 r."""
    return np.maximum(abs(y), abs(x)) - 0.9 * r


def diamond(y: Array, x: Array, r: float) -> Array:
    """Distance from a square standing on a corner, 1.25 r from its centre."""
    return (abs(y) + abs(x) - 1.25 * r) / np.sqrt(2)


def cross(y: Array, x: Array, r: float) -> Array:
    """Distance from two crossed bars of length 2 r, a third as wide."""
    return np.minimum(
        np.maximum(abs(y) - r, abs(x) - r / 3),
        np.maximum(abs(x) - r, abs(y) - r / 3),
    )


def ring(y: Array, x: Array, r: float) -> Array:
    """Distance from a ring between 0.55 r and r."""
    return abs(np.hypot(y, x) - 0.775 * r) - 0.225 * r


def bar(y: Array, x: Array, r: float) -> Array:
    """Distance from a horizontal bar, 2 r long and 0.7 r high."""
    return np.maximum(abs(y) - 0.35 * r, abs(x) - r)


SHAPES: dict[str, Distance] = {
    "disc": disc,
    "square": square,
    "diamond": diamond,
    "cross": cross,
    "ring": ring,
    "bar": bar,
}


def draw_shape(
    kind: str, positions: Array, *, canvas: tuple[int, int], radius: float = 4.0, dtype: type = np.float32
) -> Array:
    """One shape at many places.

    Args:
        kind: a key of SHAPES.
        positions: (..., 2), the centre (row, column) in pixels; pixel (0, 0) has its centre at (0, 0).
        canvas: (H, W) in pixels.
        radius: half the shape's extent, in pixels.
    Returns:
        (..., H, W) coverage, 0 to 1. What lies outside the canvas is cut off.
    Raises:
        ValueError: the kind is unknown, or positions do not end in two numbers.
    """
    if kind not in SHAPES:
        raise ValueError(f"kind is {kind!r}, expected one of {sorted(SHAPES)}")
    positions = np.asarray(positions, np.float64)
    if positions.ndim < 1 or positions.shape[-1] != 2:
        raise ValueError(f"positions.shape is {positions.shape}, expected (..., 2)")
    row, column = positions[..., 0, None, None], positions[..., 1, None, None]
    y = np.arange(canvas[0])[:, None] - row  # (..., H, 1)
    x = np.arange(canvas[1]) - column  # (..., 1, W)
    return np.clip(0.5 - SHAPES[kind](y, x, radius), 0, 1).astype(dtype)


def bounce(start: Array, velocity: Array, frames: int, low: Array | float, high: Array | float) -> Array:
    """A straight line folded at walls: where a bouncing point is at each frame.

    Args:
        start, velocity: (..., 2) in pixels and pixels per frame.
        frames: T. low, high: the walls, broadcastable to start.
    Returns:
        (T, ..., 2).
    Raises:
        ValueError: a wall at or beyond the opposite one.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (high > low).all():
        raise ValueError(f"low is {low} and high is {high}, expected low below high")
    room = high - low
    t = np.arange(frames).reshape(-1, *(1,) * np.ndim(start))
    q = (np.asarray(start) - low + np.asarray(velocity) * t) % (2 * room)
    folded: Array = low + room - abs(room - q)
    return folded
