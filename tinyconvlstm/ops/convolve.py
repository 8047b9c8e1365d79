"""Convolution as mathematics means it: the kernel is flipped. Networks use `conv_forward`, which does not."""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_module
from .conv import conv_backward, conv_forward
from .windows import Window


def convolve_forward(
    x: Array, w: Array, b: Array | None = None, *, window: Window, groups: int = 1
) -> tuple[Array, Any]:
    """True convolution, the cross-correlation with the kernel flipped along every spatial axis.

        y[n, f, p] = b[f] + sum over c, k of  x_padded[n, c, stride p + dilation (K - 1 - k)] w[f, c, k]

    Args, returns and errors: as `conv_forward`. A network learns its kernels, so it makes no difference
    which of the two it uses; it does for a kernel that is given, as one that differentiates.
    """
    return conv_forward(x, mirrored(w), b, window=window, groups=groups)


def convolve_backward(dy: Array, saved: Any) -> tuple[Array, Array, Array | None]:
    """dx, dw and db of `convolve_forward`: those of `conv_backward`, dw flipped back."""
    dx, dw, db = conv_backward(dy, saved)
    return dx, mirrored(dw), db


def mirrored(w: Array) -> Array:
    """w flipped along every spatial axis."""
    xp = array_module(w)
    return xp.ascontiguousarray(xp.flip(w, tuple(range(2, w.ndim)))) if w.ndim > 2 else w
