"""Moving digits: endless clips of handwritten digits that bounce on a canvas.

Clip number k of a (seed, split) is drawn from its own stretch of one stream of random bits, so any batch
can be made without those before it, and training resumes exactly. Everything between the bits and the
last conversion to floating point is integer arithmetic (positions in eighths of a pixel, ink in 256
levels), so one seed gives the same pixels on every machine and with every version of NumPy.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from .glyphs import INK, SPLITS, levels, load_glyphs, packaged_levels, partition

UNIT = 8  # positions and velocities count eighths of a pixel
WHITE = INK * UNIT**2  # full ink after both sub-pixel weights: 2**14, so frames are exact in float32
DRAWS = 4  # random words a digit: glyph, row, column, velocity
MAX_SPEED = 64.0  # pixels per frame; bounds the table of velocities
MIN_VELOCITIES = 16  # fewer lattice velocities in the speed range would favour some directions


class Trajectories(NamedTuple):
    """Where the digits of a batch are, (T, N, D, 2) each, last axis (row, column), float64."""

    positions: Array  # the top left corner of the digit's square, pixels
    velocities: Array  # pixels per frame, on the way to the next frame unless a wall turns it


@dataclass(frozen=True, eq=False)
class MovingDigits:
    """A generator of clips of bouncing digits; its settings do not change.

    Each digit starts anywhere on the canvas with a velocity drawn evenly from the ring of velocities
    whose speed lies in the range, moves straight, and bounces elastically so that it stays wholly on the
    canvas. Position at frame t, with room = canvas - digit_size and q = (start + |v| t) mod 2 room:

        position = room - |room - q|

    Where digits overlap, the brighter pixel is seen. Splits share no glyph (see `glyphs.partition`).

    Args:
        split: "train", "validation", "test", or "all" for every glyph of a source.
        canvas: (H, W) in pixels.
        digits: digits a clip, D.
        frames: frames a clip, T.
        speed: (slowest, fastest) in pixels per frame.
        digit_size: side of a digit's square in pixels; glyphs are resized to it (see `glyphs.levels`).
        seed: any whole number from 0; with the split it fixes every clip.
        glyphs: None (the packaged digits), a path of MNIST images in idx format, or an array (n, h, h),
            uint8 from 0 to 255 or floating from 0 to 1.
        labels: with glyphs of one's own: None, a path of idx labels, or an array (n,).
        dtype: np.float32 or np.float64, of the frames.
    Raises:
        ValueError: a setting out of range, in one line.
    Source: the task of Srivastava, Mansimov and Salakhutdinov 2015, section 4.2 (Moving MNIST).
    """

    split: str = "train"
    _: KW_ONLY
    canvas: tuple[int, int] = (64, 64)
    digits: int = 2
    frames: int = 20
    speed: tuple[float, float] = (2.0, 5.0)
    digit_size: int = 28
    seed: int = 0
    glyphs: Any = None
    labels: Any = None
    dtype: Any = np.float32

    def __post_init__(self) -> None:
        check_settings(self)

    def batch(self, index: int, size: int, part: slice = slice(None)) -> Array:
        """Batch number `index`: clips index * size to (index + 1) * size - 1.

        Args:
            index: from 0, in any order.
            size: clips in the batch, N.
            part: which of them to draw.
        Returns:
            (T, N, 1, H, W) in [0, 1], 0 paper and 1 ink.
        """
        glyph, start, velocity = (a[part] for a in self._draw(index, size))
        return self._render(glyph, self._move(start, velocity)[0])

    def batch_with_labels(self, index: int, size: int) -> tuple[Array, Array]:
        """`batch`, and which digits move in each clip.

        Returns:
            frames (T, N, 1, H, W); labels (N, D) int64, in the order of `trajectories`.
        Raises:
            ValueError: the glyphs came without labels.
        """
        if self._source[1] is None:
            raise ValueError("labels are unknown: glyphs came without labels=")
        glyph, start, velocity = self._draw(index, size)
        frames = self._render(glyph, self._move(start, velocity)[0])
        return frames, self._source[1][self.glyph_indices[glyph]]

    def trajectories(self, index: int, size: int) -> Trajectories:
        """The positions and velocities of the digits of `batch(index, size)`, without drawing it."""
        _, start, velocity = self._draw(index, size)
        positions, velocities = self._move(start, velocity)
        return Trajectories(positions / UNIT, velocities / UNIT)

    @cached_property
    def glyph_indices(self) -> Array:
        """The indices, within the source, of the glyphs this split draws from, (n,) int64."""
        return partition(*self._source[:2], self.split)

    @cached_property
    def _source(self) -> tuple[Array, Array | None, int]:
        return load_glyphs(self.glyphs, self.labels)

    @cached_property
    def _levels(self) -> Array:
        """The split's glyphs as they are drawn, (n, digit_size, digit_size) int16."""
        images, _, full = self._source
        chosen = images[self.glyph_indices]
        if self.glyphs is None:
            return packaged_levels(chosen, self.digit_size)
        return levels(chosen, full, self.digit_size)

    @cached_property
    def _velocities(self) -> Array:
        return velocity_ring(*self.speed)

    @property
    def _room(self) -> Array:
        """How far a digit's corner can move along each axis, (2,), in units."""
        return UNIT * (np.array(self.canvas) - self.digit_size)

    def _draw(self, index: int, size: int) -> tuple[Array, Array, Array]:
        """What chance decides: glyph (N, D), start (N, D, 2) and velocity (N, D, 2) in units."""
        if index < 0 or size < 1:
            raise ValueError(f"index is {index} and size {size}, expected index >= 0 and size >= 1")
        # only raw words: bit generators promise their stream for ever, Generator's methods do not
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split),)))
        words = self.digits * DRAWS
        bits.advance(int(index) * int(size) * words)
        raw = bits.random_raw(size * words).reshape(size, self.digits, DRAWS) >> 32

        def below(n: int, words: Array) -> Array:
            """Whole numbers from 0 to n - 1, even to n / 2**32."""
            return ((words * n) >> 32).astype(np.int64)

        room = self._room
        glyph = below(len(self.glyph_indices), raw[..., 0])
        start = np.stack([below(int(room[axis]) + 1, raw[..., 1 + axis]) for axis in (0, 1)], axis=-1)
        return glyph, start, self._velocities[below(len(self._velocities), raw[..., 3])]

    def _move(self, start: Array, velocity: Array) -> tuple[Array, Array]:
        """Positions and velocities in units, (T, N, D, 2): a straight line folded at the walls."""
        room = self._room
        t = np.arange(self.frames).reshape(-1, 1, 1, 1)
        pace = abs(velocity)
        phase = np.where(velocity < 0, 2 * room - start, start)  # a start on the way back
        q = (phase + pace * t) % np.maximum(2 * room, 1)
        return room - abs(room - q), np.where(q < room, pace, -pace)

    def _render(self, glyph: Array, positions: Array) -> Array:
        """Frames (T, N, 1, H, W) of glyphs (N, D) at positions (T, N, D, 2) in units."""
        (height, width), side = self.canvas, self.digit_size + 1  # a digit between pixels covers one more
        canvas = np.zeros((self.frames, len(glyph), height + 1, width + 1), np.int16)
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (side, side), axis=(2, 3), writeable=True)
        t, n = np.arange(self.frames)[:, None], np.arange(len(glyph))
        for d in range(self.digits):
            whole, part = np.divmod(positions[:, :, d], UNIT)
            ink = self._levels[glyph[:, d]]  # (N, size, size)
            part = part.astype(np.int16)[..., None, None]  # (T, N, 2, 1, 1)
            patch = between(between(ink, part[:, :, 0], axis=-2), part[:, :, 1], axis=-1)
            at = (t, n, whole[..., 0], whole[..., 1])
            windows[at] = np.maximum(windows[at], patch)
        frames = canvas[:, :, None, :height, :width].astype(self.dtype)
        frames *= 1 / WHITE
        return frames


def between(ink: Array, part: Array, axis: int) -> Array:
    """ink moved on by part / 8 pixel, times 8, one pixel longer: (8 - part) ink[i] + part ink[i - 1]."""
    pad = [(0, 0)] * ink.ndim
    pad[axis] = (0, 1)
    here = np.pad(ink, pad)
    pad[axis] = (1, 0)
    return (UNIT - part) * here + part * np.pad(ink, pad)


def velocity_ring(slowest: float, fastest: float) -> Array:
    """All velocities of whole eighths of a pixel whose speed lies in a range: evenly spread directions.

    Args:
        slowest, fastest: pixels per frame.
    Returns:
        (V, 2) int64, (row, column) in eighths of a pixel per frame, in a fixed order.
    """
    reach = floor(UNIT * fastest)
    v = np.arange(-reach, reach + 1)
    squared = v[:, None] ** 2 + v**2
    inside = (squared >= ceil((UNIT * slowest) ** 2)) & (squared <= floor((UNIT * fastest) ** 2))
    return np.argwhere(inside) - reach


def check_settings(settings: MovingDigits) -> None:
    """One line for the first setting of a MovingDigits that cannot be."""
    s = settings
    if s.split not in SPLITS:
        raise ValueError(f"split is {s.split!r}, expected one of {', '.join(map(repr, SPLITS))}")
    for name in ("digits", "frames", "digit_size"):
        value = getattr(s, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
    if not isinstance(s.seed, int) or s.seed < 0:
        raise ValueError(f"seed is {s.seed!r}, expected a whole number of at least 0")
    if len(s.canvas) != 2 or not all(isinstance(side, int) for side in s.canvas):
        raise ValueError(f"canvas is {s.canvas!r}, expected (height, width) in whole pixels")
    if min(s.canvas) < s.digit_size:
        raise ValueError(f"canvas is {s.canvas}, expected at least digit_size {s.digit_size} on each side")
    if len(s.speed) != 2 or not 0 <= s.speed[0] <= s.speed[1] <= MAX_SPEED:
        raise ValueError(
            f"speed is {s.speed!r}, expected (slowest, fastest) with 0 <= slowest <= fastest <= {MAX_SPEED:g}"
        )
    if s.speed[1] > min(s.canvas) - s.digit_size:
        raise ValueError(
            f"speed is {s.speed}, too fast for a canvas of {s.canvas}: a digit of {s.digit_size} pixels has "
            f"only {min(s.canvas) - s.digit_size} to move in"
        )
    if s.speed[1] and len(velocity_ring(*s.speed)) < MIN_VELOCITIES:
        raise ValueError(f"speed is {s.speed}, too narrow for velocities in steps of 1/{UNIT} pixel")
    if np.dtype(s.dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype is {np.dtype(s.dtype)}, expected float32 or float64")
