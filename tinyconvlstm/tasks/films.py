"""What the tasks about moving pictures share: a network that predicts the next frame, and how clips are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..layers import Conv, ConvTranspose, Recurrent, Sequential, TimeDistributed
from ..layers.base import Layer

INK, PAPER, MODEL, OTHER, MARK = "#1a1a1a", "#ffffff", "#1f6f8b", "#9a9a9a", "#c44e00"
SPLITS = ("train", "validation", "test")


def halved(channels: int, features: int, rng: np.random.Generator) -> Layer:
    """A convolution over every frame that halves height and width."""
    return TimeDistributed(Conv(channels, features, 4, stride=2, padding=1, rng=rng))


def doubled(channels: int, features: int, rng: np.random.Generator, bias: float = 0.0) -> Layer:
    """Its counterpart: a transposed convolution over every frame that doubles height and width."""
    layer = ConvTranspose(channels, features, 4, stride=2, padding=1, rng=rng)
    layer.params["b"] += bias
    return TimeDistributed(layer)


def frame_predictor(features: int = 16, *, kernel: int = 5, prior: float = 0.05, seed: int = 0) -> Sequential:
    """A ConvLSTM at half the resolution: logits of frame t + 1 at every step t, from the frames up to t.

    Args:
        features: of the state. kernel: of both maps.
        prior: mean intensity of the frames, at whose log-odds the last bias starts.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    cell = LSTMCell(8, features, (kernel, kernel), rng=rng)
    bias = float(np.log(prior / (1 - prior)))
    return Sequential(
        {"encode": halved(1, 8, rng), "memory": Recurrent(cell), "decode": doubled(features, 1, rng, bias)}
    )


def without_last(model: Sequential) -> Sequential:
    """All layers but the last: what it reads."""
    return Sequential(dict(list(model.parts.items())[:-1]))


def in_parts(function: Callable[[Array], Array], x: Array, clips: int = 32, axis: int = 1) -> Array:
    """function over x (T, N, ...), a few clips at a time, so that the memory stays small."""
    parts = [function(x[:, n : n + clips]) for n in range(0, x.shape[1], clips)]
    return np.concatenate(parts, axis=axis)


def rng_of(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of batch `index` of a split: no two batches or splits share any."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def headings(rng: np.random.Generator, size: int, slowest: float, fastest: float) -> Array:
    """Velocities (size, 2) in pixels per frame: every direction, speeds evenly from a range."""
    angle = rng.uniform(0, 2 * np.pi, size)
    return rng.uniform(slowest, fastest, (size, 1)) * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def show(ax: Any, frame: Array, title: str = "", colour: str = INK, **settings: Any) -> None:
    """A frame (H, W) in grey, without ticks."""
    ax.imshow(frame, **({"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | settings))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, fontsize=9, color=colour)


def plain(ax: Any, *, x: str = "", y: str = "", title: str = "") -> None:
    """Axes with units and without a box."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, fontsize=10, loc="left")
