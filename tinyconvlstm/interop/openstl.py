"""Weights of OpenSTL's ConvLSTM, as its checkpoints hold them, to and from `models.OpenSTLForecaster`.

Gates are in our order and nothing has a bias. A patch's channels are counted pixel by pixel there, each
with all channels of the image; here channel by channel, each with all pixels of the patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array
from ..models import OpenSTLForecaster
from .layout import Shape, Weights

KEYS = {  # of layer k, by our names
    "{}.w_x": "cell_list.{}.conv_x.0.weight",
    "{}.w_h": "cell_list.{}.conv_h.0.weight",
    "unused.{}.w_o": "cell_list.{}.conv_o.0.weight",
    "unused.{}.w_last": "cell_list.{}.conv_last.weight",
}
HEAD = "conv_last.weight"


def openstl_from_pytorch(
    state: Mapping[str, Any], *, size: Shape = (64, 64), patch: int = 4, prefix: str = ""
) -> OpenSTLForecaster:
    """The model of a checkpoint.

    Args:
        state: "cell_list.0.conv_x.0.weight" (4F, D, *K), "cell_list.0.conv_h.0.weight" (4F, F, *K), the unused
            "cell_list.0.conv_o.0.weight" and "cell_list.0.conv_last.weight", ..., "conv_last.weight" (D, F, 1, 1).
        size: spatial sizes of a frame. patch: side of a patch; they are not in the checkpoint.
        prefix: of the keys that count, as "model.".
    Returns:
        An `OpenSTLForecaster` with equal forecasts.
    Raises:
        ValueError: a key is missing or unknown (a checkpoint with layer norm has others), or a shape does
            not fit.
    """
    weights, found, features = Weights(state, prefix), dict[str, Array](), list[int]()
    first = weights.take(KEYS["{}.w_x"].format(0), (None,) * (2 + len(size)))
    depth, kernel = first.shape[1], first.shape[2:]
    below = depth
    while not features or KEYS["{}.w_x"].format(len(features)) in weights:
        k = len(features)
        F = weights.take(KEYS["{}.w_h"].format(k), (None, None, *kernel)).shape[1]
        ones = (1,) * len(kernel)
        shapes: dict[str, Shape] = {
            "{}.w_x": (4 * F, below, *kernel),
            "{}.w_h": (4 * F, F, *kernel),
            "unused.{}.w_o": (F, 2 * F, *kernel),
            "unused.{}.w_last": (F, 2 * F, *ones),
        }
        found |= {name.format(k): weights.take(KEYS[name].format(k), shape) for name, shape in shapes.items()}
        features.append(F)
        below = F
    found["head.w"] = weights.take(HEAD, (depth, features[-1], *ones))
    weights.done()
    if depth % patch ** len(size):
        raise ValueError(
            f"patch is {patch}, expected one whose {len(size)}-d area divides the {depth} channels of {HEAD}"
        )
    channels = depth // patch ** len(size)
    found["0.w_x"] = channel_by_channel(found["0.w_x"], channels, axis=1)
    found["head.w"] = channel_by_channel(found["head.w"], channels, axis=0)
    settings = {"channels": channels, "size": size, "kernel": kernel, "patch": patch, "dtype": first.dtype}
    return OpenSTLForecaster(tuple(features), **settings).bind(found)


def openstl_to_pytorch(model: OpenSTLForecaster) -> dict[str, Array]:
    """The checkpoint of a model, by OpenSTL's keys."""
    params = dict(model.to_backend("numpy").params)
    params["0.w_x"] = pixel_by_pixel(params["0.w_x"], model.channels, axis=1)
    params["head.w"] = pixel_by_pixel(params["head.w"], model.channels, axis=0)
    layers = range(model.cells)
    state = {key.format(k): params[name.format(k)].copy() for k in layers for name, key in KEYS.items()}
    return state | {HEAD: params["head.w"].copy()}


def channel_by_channel(a: Array, channels: int, axis: int) -> Array:
    """An axis (pixels * channels) as (channels * pixels)."""
    split = a.reshape(*a.shape[:axis], -1, channels, *a.shape[axis + 1 :])
    return np.ascontiguousarray(split.swapaxes(axis, axis + 1)).reshape(a.shape)


def pixel_by_pixel(a: Array, channels: int, axis: int) -> Array:
    """An axis (channels * pixels) as (pixels * channels): the inverse of `channel_by_channel`."""
    split = a.reshape(*a.shape[:axis], channels, -1, *a.shape[axis + 1 :])
    return np.ascontiguousarray(split.swapaxes(axis, axis + 1)).reshape(a.shape)
