"""Clips as volumes: time as a spatial axis, for convolutions that slide along it too.

    frames (T, N, C, *S)  <->  volume (N, C, T, *S)

Time is the first spatial axis of a volume, so a kernel reads (k_t, k_h, k_w), and a sound's features
(T, N, C) become (N, C, T), over which a 1-d convolution slides.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..ops.windows import Window, per_axis
from .base import Grads, Layer, Rng, Sequential, Shape
from .basic import Conv
from .plain import Activation, Pool
from .recurrent import check_time
from .summary import Cost


class ToVolume(Layer):
    """(T, N, C, *S) as (N, C, T, *S): a view."""

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, None]:
        """y (N, C, T, *S)."""
        check_time(x.shape, "ToVolume")
        return array_module(x).moveaxis(x, 0, 2), None

    def backward(self, dy: Array, saved: None) -> tuple[Array, Grads]:
        """dx (T, N, C, *S)."""
        return array_module(dy).moveaxis(dy, 2, 0), {}

    def cost(self, shape: Shape) -> Cost:
        """Nothing is made."""
        T, N, C, *S = check_time(shape, "ToVolume")
        return Cost((N, C, T, *S), 0, 0)


class ToFrames(Layer):
    """(N, C, T, *S) as (T, N, C, *S): a view, the inverse of `ToVolume`."""

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, None]:
        """y (T, N, C, *S)."""
        return array_module(x).moveaxis(x, 2, 0), None

    def backward(self, dy: Array, saved: None) -> tuple[Array, Grads]:
        """dx (N, C, T, *S)."""
        return array_module(dy).moveaxis(dy, 0, 2), {}

    def cost(self, shape: Shape) -> Cost:
        """Nothing is made."""
        N, C, T, *S = shape
        return Cost((T, N, C, *S), 0, 0)


class FactorisedConv(Sequential):
    """A (2+1)-d convolution: first over space, then over time, with a ReLU between.

        y = conv_t(relu(conv_s(x))),  conv_s: C -> M, kernel (1, *k_s);  conv_t: M -> F, kernel (k_t, 1, ..)
        M = floor(k_t prod(k_s) C F / (prod(k_s) C + k_t F))

    With this M it has about as many weights as the full kernel (k_t, *k_s), and one more ReLU.

    Args:
        channels, features: C and F.
        kernel: (k_t, *k_s), odd or even; padding is "same".
        middle: M; default: the formula.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: space.w (M, C, 1, *k_s), space.b, time.w (F, M, k_t, 1, ..), time.b.
    Source: Tran et al. 2018, arXiv 1711.11248, section 3.5.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: Shape,
        *,
        middle: int | None = None,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        if len(kernel) < 2:
            raise ValueError(f"kernel is {kernel}, expected (k_t, *k_s) with at least one spatial axis")
        k_t, *k_s = kernel
        if middle is None:
            over_space = prod(k_s) * channels
            middle = max(1, k_t * over_space * features // (over_space + k_t * features))
        rng = np.random.default_rng(rng)
        super().__init__(
            {
                "space": Conv(channels, middle, (1, *k_s), rng=rng, dtype=dtype),
                "between": Activation("relu"),
                "time": Conv(middle, features, (k_t, *(1 for _ in k_s)), rng=rng, dtype=dtype),
            }
        )


def inflated(layer: Layer, frames: int, *, rank: int = 2) -> Layer:
    """A layer on images as a layer on volumes that answers a static clip as the first answers its frame.

        Conv   w_3[f, c, t, ...] = w[f, c, ...] / frames,  without padding along time
        Pool   the same windows, one frame each
        Sequential   part by part; activations stay as they are

    Every frame of the output, T - frames + 1 of them after one convolution, is the image's. (With zeros
    padded along time that holds away from both ends only.)

    Args:
        layer: Conv, Pool, Activation, or a Sequential of these.
        frames: k_t of every convolution.
        rank: spatial axes of the images.
    Raises:
        ValueError: frames below 1, a layer of another kind, or a strided window padded by name, whose
            padding depends on the size of the image.
    Source: Carreira & Zisserman 2017, arXiv 1705.07750, section 2.3, "bootstrapping 3D filters".
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}, expected at least 1")
    if type(layer) is Sequential:
        return Sequential({name: inflated(part, frames, rank=rank) for name, part in layer.parts.items()})
    if type(layer) is Activation and layer.settings.get("axis", 1) in (0, 1):
        return layer
    if type(layer) is Conv:
        w = layer.params["w"]
        thick = array_module(w).repeat(w[:, :, None], frames, axis=2) / frames
        conv = copy(layer)
        conv.params = {**layer.params, "w": thick}
        conv.window = with_time(layer.window, rank, frames)
        return conv
    if type(layer) is Pool:
        pool = copy(layer)
        pool.window = with_time(layer.window, rank, 1)
        return pool
    raise ValueError(
        f"layer is a {type(layer).__name__}, expected Conv, Pool, Activation or a Sequential of these"
    )


def with_time(window: Window, rank: int, frames: int) -> Window:
    """A window over `rank` spatial axes, with `frames` taps in time before them, stride 1, no padding."""
    kernel = per_axis(window.kernel, rank, "kernel")
    stride = per_axis(window.stride, rank, "stride")
    dilation = per_axis(window.dilation, rank, "dilation")
    named = isinstance(window.padding, str) and window.padding != "valid"
    if named and any(s > 1 for s in stride):
        raise ValueError(
            f"padding is {window.padding!r} with stride {stride}: it depends on the size, give numbers"
        )
    settled = replace(window, ceil=False)  # of pads, which do not depend on the size now, take the numbers
    pads = settled.over(tuple(d * k for d, k in zip(dilation, kernel, strict=True))).pads
    return Window((frames, *kernel), (1, *stride), ((0, 0), *pads), (1, *dilation), window.ceil)
