"""Clips of pictures, flow and sound of which no two suffice: label = shape x motion x tone.

    pictures  a shape, somewhere else in every frame: what it is can be seen, how it moves cannot
    flow      the flow of a disc, whatever the shape: how it moves can be seen, what it is cannot
    sound     a tone in noise, as the logarithm of its spectrum over time

The three factors are drawn independently and evenly, and no stream depends on more than its own. So
whatever two streams say, the third factor is still a fair draw: no classifier of two streams can be
right more often than 1 / (levels of the third), here 1/2, however it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array
from .shapes import bounce, draw_shape

KINDS = ("ring", "cross")
MOTIONS = ("up and down", "left and right")
TONES = (8, 13)  # cycles in a window of sound: the band that rings
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ThreeStreamClips:
    """The clips, made anew for every batch from (seed, split, index).

    Attributes:
        split: "train", "validation" or "test"; their random numbers are apart.
        frames: T of the pictures; the flow has T - 1 steps, the sound 3 T.
        size: (H, W) in pixels. window: samples of a window of sound; half as many, and one, bands.
        noise: standard deviation of what is added to pictures and flow; the tone lies in noise of six
            times its power.
        seed: of everything.
    """

    split: str = "train"
    frames: int = 8
    size: tuple[int, int] = (20, 20)
    window: int = 48
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}, expected one of {SPLITS}")
        if self.frames < 2 or min(self.size) < 12 or self.window < 2 * max(TONES) + 2:
            raise ValueError(
                f"frames is {self.frames}, size {self.size} and window {self.window}, expected at least 2 frames, "
                f"12 pixels a side and {2 * max(TONES) + 2} samples"
            )

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(KINDS) * len(MOTIONS) * len(TONES)

    @property
    def bands(self) -> int:
        """M of the sound's features."""
        return self.window // 2 + 1

    def batch(self, index: int, size: int) -> tuple[dict[str, Array], Array]:
        """Batch number `index` of `size` clips.

        Returns:
            The streams, float32: "rgb" (T, N, 3, H, W), "flow" (T - 1, N, 2, H, W) in pixels per frame,
            rows first, "audio" (3 T, N, M); and the labels (N,), int64: (shape * 2 + motion) * 2 + tone.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        factors = rng.integers(0, 2, (size, 3))
        shape, motion, tone = factors.T
        streams = {
            "rgb": self.pictures(shape, rng),
            "flow": self.flow(motion, rng),
            "audio": self.sound(tone, rng),
        }
        return streams, (shape * 2 + motion) * 2 + tone

    def pictures(self, shape: Array, rng: np.random.Generator) -> Array:
        """A shape of a random colour, at a fresh place in every frame."""
        N, (H, W) = len(shape), self.size
        place = rng.uniform(4, np.array([H, W]) - 5, (self.frames, N, 2))
        colour = rng.uniform(0.3, 1, (N, 3))
        ink = np.stack(
            [draw_shape(KINDS[k], place[:, n], canvas=self.size) for n, k in enumerate(shape)], axis=1
        )
        clean = ink[:, :, None] * colour[:, :, None, None]
        return (clean + self.noise * rng.standard_normal(clean.shape)).astype(np.float32)

    def flow(self, motion: Array, rng: np.random.Generator) -> Array:
        """The flow (rows, columns) of a disc that goes to and fro between two walls."""
        steps, N, (H, W) = self.frames, len(motion), self.size
        low, high = np.array([4.0, 4.0]), np.array([H, W]) - 5.0
        speed = rng.uniform(1.5, 2.5, N) * rng.choice([-1.0, 1.0], N)
        velocity = speed[:, None] * np.eye(2)[motion]
        path = bounce(rng.uniform(low, high, (N, 2)), velocity, steps, low, high)  # (T, N, 2)
        moved = path[1:] - path[:-1]
        ink = draw_shape("disc", path[:-1], canvas=self.size)
        field = ink[:, :, None] * moved[..., None, None]
        return (field + self.noise * rng.standard_normal(field.shape)).astype(np.float32)

    def sound(self, tone: Array, rng: np.random.Generator) -> Array:
        """log(1 + power) of a tone in noise, windows of a Hann shape side by side."""
        N, windows = len(tone), 3 * self.frames
        t = np.arange(windows * self.window)
        phase = rng.uniform(0, 2 * np.pi, N)
        cycles = np.asarray(TONES)[tone] / self.window
        wave = np.sin(2 * np.pi * cycles[:, None] * t + phase[:, None])
        wave = wave / 2.5 + rng.standard_normal(wave.shape) / np.sqrt(2)
        pieces = wave.reshape(N, windows, self.window) * np.hanning(self.window)
        power = abs(np.fft.rfft(pieces, axis=-1)) ** 2
        return np.log1p(power).transpose(1, 0, 2).astype(np.float32)
