"""Convolution over 0 to 3 spatial axes as a matrix product on patches.

What every framework calls convolution is cross-correlation: the kernel is not flipped. Read
`windows.py` first. Patches are rebuilt in the backward pass and never kept: kept, they would cost
prod(K) times the feature maps at every time step. Both passes work through the batch in blocks
whose patches stay in the processor's cache.

Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II;
the lowering to a matrix product: Chellapilla, Puri, Simard 2006, "High performance convolutional
neural networks for document processing", section 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..backend import Array, array_module, backend_name, check_dtypes
from .windows import Geometry, Window, col2im, im2col

PATCH_BYTES = {"numpy": 4 << 20, "cupy": 256 << 20}  # patches of one block: a CPU's cache; a GPU's fill


class ConvSaved(NamedTuple):
    """What `conv_backward` needs: references to the arguments, and where the windows lie."""

    x: Array  # (N, C, *S)
    w: Array  # (F, C / groups, *K)
    has_bias: bool
    geometry: Geometry
    groups: int


def conv_forward(
    x: Array, w: Array, b: Array | None = None, *, window: Window | None = None, groups: int = 1
) -> tuple[Array, ConvSaved]:
    """Cross-correlate x with w.

        y[n, f, p] = b[f] + sum_{c, k} w[f, c, k] * x[n, c, stride * p + dilation * k - before]

    With `groups` = G, features and channels fall into G equal parts that do not mix; G = C is the
    depthwise convolution. With no spatial axes it is the linear map y = x w^T + b.

    Args:
        x: (N, C, *S).
        w: (F, C / groups, *K).
        b: (F,) or None.
        window: stride, padding and dilation; its kernel must be w's. Default: `Window(K)`.
        groups: number of groups, a divisor of C and F.
    Returns:
        y (N, F, *S_out) and what `conv_backward` needs.
    Raises:
        ValueError: ranks, channels, groups or kernel sizes do not fit.
    Source: Shi et al. 2015, arXiv 1506.04214, the operator "*" of equation 3.
    """
    array_module(x=x, w=w, b=b)
    geometry = check_conv(x, w, b, window, groups)
    y = correlate(x, w, geometry, groups)
    if b is not None:
        y += b.reshape(-1, *(1,) * len(geometry.out))
    return y, ConvSaved(x, w, b is not None, geometry, groups)


def conv_backward(dy: Array, saved: ConvSaved) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv_forward`: y is linear in x and in w, so each gradient is an adjoint.

        cols = im2col(x)       Y = W cols + b
        dW = dY cols^T         dcols = W^T dY       dx = col2im(dcols)       db = sum_{n, p} dY

    Args:
        dy: (N, F, *S_out).
        saved: from `conv_forward`.
    Returns:
        dx (N, C, *S), dw (F, C / groups, *K), db (F,) or None.
    """
    x, w, has_bias, geometry, groups = saved
    dx = correlate_adjoint_x(dy, w, geometry, groups)
    dw = correlate_adjoint_w(dy, x, geometry, groups)
    db = conv_bias_backward(dy) if has_bias else None
    return dx, dw, db


def conv_bias_backward(dy: Array) -> Array:
    """db (F,) from dy (N, F, *S_out): the bias reaches every sample and position."""
    return dy.sum(axis=(0, *range(2, dy.ndim)))


def correlate(x: Array, w: Array, geometry: Geometry, groups: int = 1) -> Array:
    """y (N, F, *S_out) = W im2col(x), block by block."""
    if not geometry.kernel and groups == 1:
        return x @ w.T  # no spatial axes: one product for the whole batch
    xp = array_module(x)
    w_rows = rows(w, groups)  # (G, F/G, C/G * K)
    y = xp.empty((x.shape[0], groups, w_rows.shape[1], geometry.positions), dtype=xp.result_type(x, w))
    for block in blocks(x, geometry):
        cols = im2col(x[block], geometry)
        xp.matmul(w_rows, grouped(cols, groups), out=y[block])
    return y.reshape(x.shape[0], w.shape[0], *geometry.out)


def correlate_adjoint_x(dy: Array, w: Array, geometry: Geometry, groups: int = 1) -> Array:
    """dx (N, C, *S) = col2im(W^T dY): where every pixel of x was read, block by block."""
    if not geometry.kernel and groups == 1:
        return dy @ w
    xp = array_module(dy)
    w_columns = rows(w, groups).swapaxes(1, 2)  # (G, C/G * K, F/G)
    channels = w.shape[1] * groups
    dy = dy.reshape(*dy.shape[:2], geometry.positions)
    dx = xp.empty((dy.shape[0], channels, *geometry.sizes), dtype=xp.result_type(dy, w))
    for block in blocks(dx, geometry):
        dcols = xp.matmul(w_columns, grouped(dy[block], groups))  # (n, G, C/G * K, P)
        dx[block] = col2im(dcols.reshape(len(dcols), channels * geometry.taps, -1), geometry)
    return dx


def correlate_adjoint_w(dy: Array, x: Array, geometry: Geometry, groups: int = 1) -> Array:
    """dw (F, C / groups, *K) = dY im2col(x)^T, summed over the batch block by block."""
    if not geometry.kernel and groups == 1:
        return dy.T @ x
    xp = array_module(dy)
    features, channels = dy.shape[1], x.shape[1] // groups
    dy = dy.reshape(*dy.shape[:2], geometry.positions)
    dw = xp.zeros((groups, features // groups, channels * geometry.taps), dtype=xp.result_type(dy, x))
    for block in blocks(x, geometry):
        cols = grouped(im2col(x[block], geometry), groups)  # (n, G, C/G * K, P)
        dw += xp.matmul(grouped(dy[block], groups), cols.swapaxes(2, 3)).sum(axis=0)
    return dw.reshape(features, channels, *geometry.kernel)


def rows(w: Array, groups: int) -> Array:
    """w (F, C/G, *K) as one matrix a group, (G, F/G, C/G * prod(K))."""
    return w.reshape(groups, w.shape[0] // groups, -1)


def grouped(columns: Array, groups: int) -> Array:
    """(n, G * M, P) as (n, G, M, P)."""
    return columns.reshape(len(columns), groups, -1, columns.shape[2])


def blocks(x: Array, geometry: Geometry) -> Iterator[slice]:
    """Slices of the batch whose patches fit in PATCH_BYTES; at least one sample each."""
    bytes_each = x.shape[1] * geometry.taps * geometry.positions * x.dtype.itemsize
    size = max(1, PATCH_BYTES[backend_name(x) or "numpy"] // max(bytes_each, 1))
    for start in range(0, x.shape[0], size):
        yield slice(start, start + size)


def check_conv(x: Array, w: Array, b: Array | None, window: Window | None, groups: int) -> Geometry:
    """The geometry of a convolution, or a ValueError saying which argument does not fit."""
    if x.ndim < 2 or x.ndim != w.ndim:
        raise ValueError(f"x.shape is {x.shape} and w.shape is {w.shape}, expected (N, C, *S) and (F, C, *K)")
    check_dtypes(x=x, w=w, b=b)
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"groups is {groups}, expected a divisor of w's {w.shape[0]} features")
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(
            f"x has {x.shape[1]} channels, w expects {w.shape[1] * groups} "
            f"(w.shape == {w.shape}, groups == {groups})"
        )
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"b.shape is {b.shape}, expected {w.shape[:1]}, one entry a feature of w")
    geometry = (window or Window(w.shape[2:])).over(x.shape[2:])
    if geometry.kernel != w.shape[2:]:
        raise ValueError(f"window has kernel {geometry.kernel}, w has {w.shape[2:]} (w.shape == {w.shape})")
    return geometry
