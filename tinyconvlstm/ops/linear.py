"""The linear map on the last axis. With (N, C) it is the convolution without spatial axes."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from ..parallel import settle


class LinearSaved(NamedTuple):
    """What `linear_backward` needs: references to the arguments."""

    x: Array  # (..., C)
    w: Array  # (F, C)
    has_bias: bool


def linear_forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, LinearSaved]:
    """Multiply the last axis of x by w.

        y[..., f] = b[f] + sum_c w[f, c] * x[..., c]

    Args:
        x: (..., C), any leading axes.
        w: (F, C).
        b: (F,) or None.
    Returns:
        y (..., F) and what `linear_backward` needs.
    Raises:
        ValueError: w is not a matrix, or channels or bias do not fit.
        TypeError: dtypes differ.
    """
    array_module(x=x, w=w, b=b)
    settle()
    if w.ndim != 2:
        raise ValueError(f"w.shape is {w.shape}, expected (F, C)")
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"x.shape is {x.shape}, expected (..., {w.shape[1]}) (w.shape == {w.shape})")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"b.shape is {b.shape}, expected {w.shape[:1]}, one entry a row of w")
    check_dtypes(x=x, w=w, b=b)
    y = x @ w.T
    if b is not None:
        y = y + b
    return y, LinearSaved(x, w, b is not None)


def linear_backward(dy: Array, saved: LinearSaved) -> tuple[Array, Array, Array | None]:
    """Gradients of `linear_forward`; all leading axes are one batch.

        dx = dy w       dw = sum_n dy_n^T x_n       db = sum_n dy_n

    Args:
        dy: (..., F).
        saved: from `linear_forward`.
    Returns:
        dx (..., C), dw (F, C), db (F,) or None.
    """
    x, w, has_bias = saved
    rows = dy.reshape(-1, w.shape[0])
    dw = rows.T @ x.reshape(-1, w.shape[1])
    return dy @ w, dw, rows.sum(axis=0) if has_bias else None
