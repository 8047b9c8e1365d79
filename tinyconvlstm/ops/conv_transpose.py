"""Transposed convolution over 0 to 3 spatial axes: the adjoint of `conv.py`, run forward.

Read `conv.py` first. There w maps a large image to a small one; here the same w maps the small one
back, every input pixel painting a copy of the kernel. There is no second implementation: its forward
pass is the convolution's dx, and its dx is the convolution.

Source: Zeiler, Krishnan, Taylor, Fergus 2010, "Deconvolutional networks"; the name and the output
sizes: Dumoulin & Visin 2016, arXiv 1603.07285, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from .conv import conv_bias_backward, correlate, correlate_adjoint_w, correlate_adjoint_x
from .windows import Geometry, Sizes, Window, per_axis


class ConvTransposeSaved(NamedTuple):
    """What `conv_transpose_backward` needs: the arguments, and the geometry of the convolution y -> x."""

    x: Array  # (N, C, *S)
    w: Array  # (C, F / groups, *K)
    has_bias: bool
    geometry: Geometry  # its sizes are those of y, its out those of x
    groups: int


def conv_transpose_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    window: Window | None = None,
    groups: int = 1,
    output_padding: int | Sizes = 0,
) -> tuple[Array, ConvTransposeSaved]:
    """Paint every pixel of x into y with the kernel w.

        y[n, f, stride * p + dilation * k - before] += w[c, f, k] * x[n, c, p],   then + b[f]

    so that <conv(y), x> = <y, conv_transpose(x)> for the convolution with the same w and window.
    The output has, on each axis,

        out = (size - 1) * stride + dilation * (kernel - 1) + 1 - before - after + output_padding

    and size * stride with padding "same". `output_padding` lengthens the end: with stride s, s sizes
    of y shrink to one size of x, and it chooses among them.

    Args:
        x: (N, C, *S).
        w: (C, F / groups, *K).
        b: (F,) or None.
        window: stride, padding and dilation, as of the convolution y -> x; its kernel must be w's.
            Default: `Window(K)`.
        groups: number of groups, a divisor of C.
        output_padding: pixels added at the end, an int or one an axis, smaller than stride or dilation.
    Returns:
        y (N, F, *S_out) and what `conv_transpose_backward` needs.
    Raises:
        ValueError: ranks, channels, groups, kernel or output_padding do not fit, or y would be empty.
        TypeError: dtypes differ.
    """
    array_module(x=x, w=w, b=b)
    geometry = check_conv_transpose(x, w, b, window, groups, output_padding)
    y = correlate_adjoint_x(x, w, geometry, groups)
    if b is not None:
        y += b.reshape(-1, *(1,) * len(geometry.out))
    return y, ConvTransposeSaved(x, w, b is not None, geometry, groups)


def conv_transpose_backward(dy: Array, saved: ConvTransposeSaved) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv_transpose_forward`: the adjoint of an adjoint is the map itself.

        dx = conv(dy, w)        dw = X im2col(dy)^T         db = sum_{n, p} dY

    Args:
        dy: (N, F, *S_out).
        saved: from `conv_transpose_forward`.
    Returns:
        dx (N, C, *S), dw (C, F / groups, *K), db (F,) or None.
    """
    x, w, has_bias, geometry, groups = saved
    dx = correlate(dy, w, geometry, groups)
    dw = correlate_adjoint_w(x, dy, geometry, groups)
    db = conv_bias_backward(dy) if has_bias else None
    return dx, dw, db


def check_conv_transpose(
    x: Array, w: Array, b: Array | None, window: Window | None, groups: int, output_padding: int | Sizes
) -> Geometry:
    """The geometry of the convolution y -> x, or a ValueError saying which argument does not fit."""
    if x.ndim < 2 or x.ndim != w.ndim:
        raise ValueError(f"x.shape is {x.shape} and w.shape is {w.shape}, expected (N, C, *S) and (C, F, *K)")
    check_dtypes(x=x, w=w, b=b)
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"x has {x.shape[1]} channels, w expects {w.shape[0]} (w.shape == {w.shape})")
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"groups is {groups}, expected a divisor of w's {w.shape[0]} channels")
    features = w.shape[1] * groups
    if b is not None and b.shape != (features,):
        raise ValueError(f"b.shape is {b.shape}, expected {(features,)}, one entry a feature of w")
    window = window or Window(w.shape[2:])
    geometry = transposed(window, x.shape[2:], output_padding)
    if geometry.kernel != w.shape[2:]:
        raise ValueError(f"window has kernel {geometry.kernel}, w has {w.shape[2:]} (w.shape == {w.shape})")
    return geometry


def transposed(window: Window, sizes: Sizes, output_padding: int | Sizes = 0) -> Geometry:
    """The geometry whose windows number `sizes`: from the outputs of a convolution to its input.

    Args:
        window: that of the convolution.
        sizes: its output sizes, those of the transposed convolution's input.
        output_padding: pixels added at the end of the transposed convolution's output.
    Raises:
        ValueError: output_padding is too large or given with "same", ceil is set, or no pixel remains.
    """
    rank = len(sizes)
    kernel = per_axis(window.kernel, rank, "kernel")
    stride = per_axis(window.stride, rank, "stride")
    dilation = per_axis(window.dilation, rank, "dilation")
    extra = per_axis(output_padding, rank, "output_padding", 0)
    if window.ceil:
        raise ValueError("window has ceil=True, which only pooling knows; use output_padding")
    if isinstance(window.padding, str) and window.padding.startswith("same"):
        if any(extra):
            raise ValueError(f"output_padding is {extra}, expected 0 with padding {window.padding!r}")
        return window.over(tuple(n * s for n, s in zip(sizes, stride, strict=True)))
    for axis, (e, s, d) in enumerate(zip(extra, stride, dilation, strict=True)):
        if e >= max(s, d):
            raise ValueError(
                f"output_padding is {e} on spatial axis {axis}, expected less than stride {s} or dilation {d}"
            )
    full = tuple(  # pixels that the painted kernels cover, padding included
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(sizes, stride, dilation, kernel, extra, strict=True)
    )
    pads = window.over(full).pads
    out = tuple(n - before - after for n, (before, after) in zip(full, pads, strict=True))
    if any(n < 1 for n in out):
        raise ValueError(
            f"the output would have spatial sizes {out}; padding {pads} leaves no pixel of {full}"
        )
    return Geometry(out, kernel, stride, pads, dilation, tuple(sizes))
