"""Inverted dropout with a mask drawn apart from its use, so that it can be seeded and replayed.

Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting";
one mask for all time steps: Gal & Ghahramani 2016, arXiv 1512.05287.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, check_dtypes, to_backend
from .windows import Sizes


class DropoutSaved(NamedTuple):
    """The mask of the forward call."""

    mask: Array


def dropout_mask(
    rng: np.random.Generator, shape: Sizes, rate: float, dtype: Any = np.float32, backend: str = "numpy"
) -> Array:
    """Draw a mask: 0 with probability `rate`, else 1 / (1 - rate), so that its mean is 1.

    It is drawn by NumPy in float64 and then cast and moved: one seed gives one pattern, whatever the
    dtype and wherever the arrays live.

    Args:
        rng: a NumPy Generator; it advances by prod(shape) draws.
        shape: of the mask; sizes of 1 share one draw along an axis.
        rate: probability that an element is dropped, from 0 up to but not including 1.
        dtype: of the mask, that of the array it will multiply.
        backend: "numpy" or "cupy".
    Raises:
        ValueError: rate is out of range.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}, expected a number from 0 up to but not including 1")
    mask = (rng.random(shape) >= rate).astype(dtype)
    return to_backend(mask / (1 - rate), backend)


def dropout_forward(x: Array, mask: Array) -> tuple[Array, DropoutSaved]:
    """y = x * mask.

    Args:
        x: any shape.
        mask: from `dropout_mask`, broadcastable to x. Data, not differentiated.
    Returns:
        y like x and what `dropout_backward` needs.
    Raises:
        ValueError: the mask does not broadcast to x.
        TypeError: dtypes differ.
    """
    array_module(x=x, mask=mask)
    fits = mask.ndim <= x.ndim and all(
        m in (1, n) for m, n in zip(mask.shape[::-1], x.shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"mask.shape is {mask.shape}, expected a shape that broadcasts to {x.shape}")
    check_dtypes(x=x, mask=mask)
    return x * mask, DropoutSaved(mask)


def dropout_backward(dy: Array, saved: DropoutSaved) -> Array:
    """dx = dy * mask: what was dropped learns nothing."""
    return dy * saved.mask
