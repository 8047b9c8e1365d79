"""Augmentation of clips: flips, crops and starts in time, the same for every frame of a clip.

A clip is one scene: what is done to a frame is done to all of them, and to its pictures and its flow
alike. A mirror turns motion round too: flipped left to right, the flow's column component changes its
sign, flipped top to bottom its row component.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array

FLOW_ORDERS = ("rows, columns", "columns, rows")  # ours; OpenCV's (dx, dy)


@dataclass(frozen=True)
class Augment:
    """Random flips, crops and starts of clips (T, N, C, H, W), drawn for each clip from (seed, index).

    Attributes:
        flip: probability of a flip left to right. flip_rows: of one top to bottom.
        crop: (h, w) in pixels, cut at a random place; None cuts nothing.
        frames: how many frames to keep, from a random start; None keeps all.
        flow: names of the streams that hold flow; their channels are pairs in the order `flow_order`.
        flow_order: "rows, columns" or "columns, rows".
        seed: of everything.
    """

    flip: float = 0.5
    flip_rows: float = 0.0
    crop: tuple[int, int] | None = None
    frames: int | None = None
    flow: tuple[str, ...] = ("flow",)
    flow_order: str = "rows, columns"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("flip", "flip_rows"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability")
        if not isinstance(self.flow, tuple):
            raise ValueError(f"flow is {self.flow!r}, expected a tuple of names, as ({self.flow!r},)")
        if self.crop is not None and (
            not isinstance(self.crop, tuple)
            or len(self.crop) != 2
            or not all(isinstance(n, int) for n in self.crop)
        ):
            raise ValueError(f"crop is {self.crop!r}, expected (h, w) in whole pixels, or None")
        if self.flow_order not in FLOW_ORDERS:
            raise ValueError(f"flow_order is {self.flow_order!r}, expected one of {FLOW_ORDERS}")

    def __call__(self, clips: Any, index: int) -> Any:
        """Clips number `index`, augmented; the originals stay as they are.

        Args:
            clips: (T, N, C, H, W), or a dictionary of streams: those with H and W are flipped and cropped
                alike, a sound (T, N, C) is left alone.
            index: of the batch; the same index gives the same augmentation.
        Raises:
            ValueError: a crop or a number of frames larger than the clips, streams of different sizes,
                or a stream of flow whose channels are no pairs.
        """
        whole = isinstance(clips, Mapping)
        streams = dict(clips) if whole else {"clips": clips}
        if whole and self.flow != ("flow",) and set(self.flow) - set(streams):
            raise ValueError(f"flow names {self.flow}, expected some of the streams {tuple(streams)}")
        pictures = {name: x for name, x in streams.items() if x.ndim == 5}
        sizes = {name: (x.shape[1], *x.shape[3:]) for name, x in pictures.items()}
        if not pictures or len(set(sizes.values())) > 1:
            raise ValueError(f"clips has sizes (N, H, W) {sizes}, expected equal ones, of (T, N, C, H, W)")
        N, H, W = next(iter(sizes.values()))
        h, w = self.crop or (H, W)
        if h > H or w > W or h < 1 or w < 1:
            raise ValueError(f"crop is {self.crop}, expected at most the clips' {(H, W)}")
        if self.frames is not None and (
            len(streams) > 1 or not 1 <= self.frames <= len(next(iter(streams.values())))
        ):
            raise ValueError(
                f"frames is {self.frames}, expected 1 to the clips' own number, and one stream: rates may differ"
            )
        rng = np.random.default_rng([self.seed, index])
        mirrored, upside = rng.random(N) < self.flip, rng.random(N) < self.flip_rows
        corners = np.stack([rng.integers(0, H - h + 1, N), rng.integers(0, W - w + 1, N)], axis=1)
        late = rng.random(N)  # drawn whether used or not, so that settings do not disturb each other
        for name, x in pictures.items():
            pairs = self.flow_order if name in self.flow else None
            x = flip_clips(x, mirrored, axis=4, flow_order=pairs)
            x = flip_clips(x, upside, axis=3, flow_order=pairs)
            x = crop_clips(x, corners, (h, w)) if self.crop else x
            if self.frames is not None:
                starts = (late * (len(x) - self.frames + 1)).astype(int)
                x = np.stack([x[t : t + self.frames, n] for n, t in enumerate(starts)], axis=1)
            streams[name] = x
        return streams if whole else streams["clips"]


def flip_clips(x: Array, which: Array, *, axis: int, flow_order: str | None = None) -> Array:
    """Some clips mirrored along axis 3 (rows) or 4 (columns), every frame alike.

        pictures:  y[t, n, c, i, j] = x[t, n, c, i, W - 1 - j]
        flow:      the same, and the component along the mirrored axis changes its sign

    Args:
        x: (T, N, C, H, W).
        which: (N,) true for the clips to mirror.
        axis: 3 or 4.
        flow_order: of the channel pairs of a flow, one of FLOW_ORDERS; None: x is no flow.
    Returns:
        A new array like x.
    Raises:
        ValueError: axis is neither, or a flow's channels are no pairs.
    """
    if axis not in (3, 4):
        raise ValueError(f"axis is {axis}, expected 3 (rows) or 4 (columns)")
    if flow_order is not None and x.shape[2] % 2:
        raise ValueError(f"the flow has {x.shape[2]} channels, expected pairs of {flow_order}")
    if flow_order is not None and x.dtype.kind == "u":
        raise ValueError(f"the flow has dtype {x.dtype}, expected one with a sign: a mirror negates motion")
    y = x.copy()
    y[:, which] = np.flip(x[:, which], axis)
    if flow_order is not None:
        rows_first = flow_order == FLOW_ORDERS[0]
        component = (axis == 4) if rows_first else (axis == 3)
        y[:, which, int(component) :: 2] *= -1
    return y


def crop_clips(x: Array, corners: Array, size: tuple[int, int]) -> Array:
    """A window of every clip, at the same place in all its frames.

    Args:
        x: (T, N, C, H, W).
        corners: (N, 2), the first row and column of each clip's window.
        size: (h, w).
    Returns:
        (T, N, C, h, w).
    """
    h, w = size
    cut = [x[:, n, :, i : i + h, j : j + w] for n, (i, j) in enumerate(corners)]
    return np.stack(cut, axis=1)
