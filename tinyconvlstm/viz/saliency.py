"""Where a network looks: gradients at the input, what a covered patch changes, and what a unit can see.

Sources: Simonyan, Vedaldi & Zisserman 2014, arXiv 1312.6034, section 3 (saliency); Zeiler & Fergus 2014, arXiv
1311.2901, section 4.2 (occlusion); Luo et al. 2016, arXiv 1701.04128, section 3 (the effective receptive field).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, array_module


def saliency(model: Any, x: Array, labels: Array) -> Array:
    """How much each pixel moves the logit of each clip's label: |d logit[n, labels[n]] / d x|.

    Args:
        model: a layer, clips (T, N, C, H, W) -> logits (N, V).
        x: the clips.
        labels: (N,) ints, which logit of each clip.
    Returns:
        (T, N, H, W): the largest over the channels.
    Raises:
        ValueError: labels do not fit the clips or the logits.
    """
    xp = array_module(x)
    y, saved = model.forward(x)
    if y.ndim != 2 or labels.shape != (y.shape[0],) or labels.max() >= y.shape[1] or labels.min() < 0:
        raise ValueError(
            f"labels is {labels.tolist()} of logits {y.shape}, expected one of (N, V) for each clip"
        )
    dy = xp.zeros_like(y)
    dy[xp.arange(len(y)), labels] = 1
    return abs(model.backward(dy, saved)[0]).max(axis=2)


def occlusion(
    score: Callable[[Array], Array], x: Array, *, patch: int, stride: int, fill: float = 0.0
) -> Array:
    """How much a clip's score falls when a patch of all frames is covered, spread over the patch's pixels.

        map[n, p] = mean over the patches that cover p of  score(x)[n] - score(x with the patch = fill)[n]

    Args:
        score: clips (T, N, C, H, W) -> (N,), such as the probability of the right label.
        x: the clips.
        patch: side in pixels. stride: pixels between patches; patches that hang over are moved inside.
        fill: what covers.
    Returns:
        (N, H, W). Negative where covering helps.
    Raises:
        ValueError: the patch is larger than the frame, or stride beyond the patch leaves pixels out.
    """
    H, W = x.shape[3:]
    if not 1 <= patch <= min(H, W) or not 1 <= stride <= patch:
        raise ValueError(
            f"patch is {patch} and stride {stride}, expected 1 <= stride <= patch <= {min(H, W)} pixels"
        )
    whole = score(x)
    total, count = np.zeros((x.shape[1], H, W)), np.zeros((H, W))
    for top in corners(H, patch, stride):
        for left in corners(W, patch, stride):
            covered = x.copy()
            covered[..., top : top + patch, left : left + patch] = fill
            there = slice(top, top + patch), slice(left, left + patch)
            total[(slice(None), *there)] += (whole - score(covered))[:, None, None]
            count[there] += 1
    return total / count


def corners(size: int, patch: int, stride: int) -> list[int]:
    """Where patches begin, so that all of an axis is covered."""
    found = list(range(0, size - patch + 1, stride))
    return found if found[-1] == size - patch else [*found, size - patch]


def seen_by(layer: Any, x: Array, position: tuple[int, int]) -> Array:
    """What one unit can see: sum over features of |d y[-1, :, :, position] / d x|, the mean over clips.

    Args:
        layer: clips (T, N, C, H, W) -> feature maps (T, N, F, H', W'), such as a `Recurrent` ConvLSTM.
        x: the clips. position: (row, column) in the feature map of the last step.
    Returns:
        (T, H, W); exactly 0 outside the receptive field.
    """
    xp = array_module(x)
    y, saved = layer.forward(x)
    total = 0
    for feature in range(y.shape[2]):
        dy = xp.zeros_like(y)
        dy[(-1, slice(None), feature, *position)] = 1
        total = total + abs(layer.backward(dy, saved)[0]).mean(axis=1).sum(axis=1)
    return total


def mass_on(maps: Array, mask: Array) -> Array:
    """The share of each map's mass that lies on a mask: sum of |map| on it / sum of |map|.

    Args:
        maps: (N, ...). mask: bool, the same shape.
    Returns:
        (N,) shares; an evenly spread map has the mask's share of the area. A map of zeros has NaN.
    Raises:
        ValueError: the shapes differ.
    """
    if maps.shape != mask.shape:
        raise ValueError(f"maps.shape is {maps.shape}, mask.shape is {mask.shape}, expected equal")
    size = abs(maps).reshape(len(maps), -1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        share: Array = (size * mask.reshape(len(maps), -1)).sum(axis=1) / size.sum(axis=1)
    return share
