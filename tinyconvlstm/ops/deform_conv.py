"""Deformable convolution: every tap may leave its place on the grid, and has a weight of its own there.

Read `conv.py` and `sampling.py` first. What differs is one line: the columns are sampled and not copied. All
the rest, the product with the weights and the strips it is cut into, is the same; with offsets of zero and a
mask of one the columns are those of `im2col`, and the result is that of `conv_forward`: bit for bit
where that takes im2col too, and to rounding where it takes Winograd's transforms.

Sources: Dai et al. 2017, "Deformable convolutional networks", arXiv 1703.06211, equations 2 to 4; the mask:
Zhu, Hu, Lin, Dai 2019, "Deformable ConvNets v2", arXiv 1811.11168, equation 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module, check_dtypes
from ..parallel import SMALL, cuts, run_parts, shares
from .conv import add_in_place, block_sizes, check_conv, conv_bias_backward
from .lowering import Im2col, rows
from .sampling import SampleSaved, sample_backward, sample_forward
from .windows import Geometry, Window, strips


class DeformConvSaved(NamedTuple):
    """What `deform_conv_backward` needs: references to the arguments, and where the windows lie."""

    x: Array  # (N, C, *S)
    offset: Array  # (N, K r, *S_out)
    mask: Array  # (N, K, *S_out)
    w: Array  # (F, C, *K)
    has_bias: bool
    geometry: Geometry


class Strip(NamedTuple):
    """The columns of some samples at some positions."""

    block: slice  # of the batch
    positions: slice  # among all prod(S_out)
    values: Array  # (n, C, K, p) x where the taps look
    mask: Array  # (n, 1, K, p)
    sampled: SampleSaved


def deform_conv_forward(
    x: Array, offset: Array, mask: Array, w: Array, b: Array | None = None, *, window: Window | None = None
) -> tuple[Array, DeformConvSaved]:
    """Cross-correlate w with what its taps find where they look.

        q = stride * p + dilation * k - before + dp[n, k, p]
        y[n, f, p] = b[f] + sum_{c, k} w[f, c, k] * m[n, k, p] * x[n, c, q]

    where x between its pixels is `sample_forward`: linear along every axis, and zero outside the frame. The
    padding is that zero, so it never limits where a tap may look.

    Args:
        x: (N, C, *S) with r spatial axes, at least one.
        offset: dp, (N, K r, *S_out) in pixels, K = prod(kernel); channel r k + j is the j-th coordinate of tap k.
        mask: m, (N, K, *S_out), one for each tap, for all channels.
        w: (F, C, *K). b: (F,) or None.
        window: stride, padding and dilation; its kernel must be w's. Default: `Window(K)`.
    Returns:
        y (N, F, *S_out) and what `deform_conv_backward` needs.
    Raises:
        ValueError: ranks, channels, kernel or sizes do not fit.
    Source: Zhu et al. 2019, equation 1; channel order of offset and mask: that of PyTorch's
        `deform_conv2d` and of the DeformConv operator of ONNX.
    """
    array_module(x=x, offset=offset, mask=mask, w=w, b=b)
    geometry = check_deform_conv(x, offset, mask, w, b, window)
    y = deform_correlate(x, offset, mask, w, geometry, b)
    return y, DeformConvSaved(x, offset, mask, w, b is not None, geometry)


def deform_conv_backward(
    dy: Array, saved: DeformConvSaved
) -> tuple[Array, Array, Array, Array, Array | None]:
    """Gradients of `deform_conv_forward`, strip by strip.

        v = sample(x, at)      cols = m v      Y = W cols + b
        dW = dY cols^T         dcols = W^T dY
        dm = sum_c dcols v     dv = dcols m    dx, dat = sample_backward(dv)    ddp = dat      db = sum_{n, p} dY

    The sampled values are gathered again, as the patches of a convolution are.

    Args:
        dy: (N, F, *S_out).
        saved: from `deform_conv_forward`.
    Returns:
        dx (N, C, *S), doffset (N, K r, *S_out), dmask (N, K, *S_out), dw (F, C, *K), db (F,) or None.
    """
    x, offset, mask, w, has_bias, geometry = saved
    xp = array_module(dy=dy, x=x)
    kind = xp.result_type(dy, w, x)
    dx = xp.zeros(x.shape, dtype=kind)
    dat = xp.empty(by_tap(offset, geometry).shape, dtype=kind)  # (N, K, r, P)
    dmask = xp.empty((*mask.shape[:2], geometry.positions), dtype=kind)
    w_rows = rows(w, 1)[0]  # (F, C K)
    dys = dy.reshape(*dy.shape[:2], geometry.positions)

    def part(clips: slice) -> Array:
        dw = xp.zeros(w_rows.shape, dtype=kind)
        for block, positions, values, m, sampled in sampled_strips(x, offset, mask, geometry, clips):
            dy_strip = dys[block, :, positions]  # (n, F, p)
            cols = (values * m).reshape(len(values), w_rows.shape[1], -1)  # (n, C K, p)
            dw += xp.matmul(dy_strip, cols.swapaxes(1, 2)).sum(axis=0)
            dcols = xp.matmul(w_rows.T, dy_strip).reshape(values.shape)
            dmask[block, :, positions] = (dcols * values).sum(axis=1)
            dx_strip, dat_strip = sample_backward(dcols * m, sampled)
            dx[block] += dx_strip
            dat[block, ..., positions] = dat_strip.swapaxes(1, 2)
        return dw

    macs = len(x) * w.size * geometry.positions
    dw = reduce(add_in_place, run_parts(part, shares(x, macs), small=macs < SMALL))
    db = conv_bias_backward(dy) if has_bias else None
    return dx, dat.reshape(offset.shape), dmask.reshape(mask.shape), dw.reshape(w.shape), db


def deform_correlate(
    x: Array, offset: Array, mask: Array, w: Array, geometry: Geometry, plus: Array | None = None
) -> Array:
    """y (N, F, *S_out) = W (m sample(x)) + plus; `plus` is a bias (F,) or an array like y. See `correlate`."""
    xp = array_module(x)
    w_rows = rows(w, 1)  # (1, F, C K)
    arrays = [a for a in (x, offset, mask, w, plus) if a is not None]
    y = xp.empty((len(x), 1, len(w), geometry.positions), dtype=xp.result_type(*arrays))
    if plus is not None:
        plus = xp.broadcast_to(plus.reshape(1, -1, 1) if plus.ndim == 1 else plus.reshape(y.shape), y.shape)

    def part(clips: slice) -> None:
        for block, positions, values, m, _ in sampled_strips(x, offset, mask, geometry, clips):
            cols = (values * m).reshape(len(values), 1, w_rows.shape[2], -1)  # (n, 1, C K, p)
            y_strip = y[block, ..., positions]
            xp.matmul(w_rows, cols, out=y_strip)
            if plus is not None:
                y_strip += plus[block, ..., positions]

    macs = len(x) * w.size * geometry.positions
    run_parts(part, shares(x, macs), small=macs < SMALL)
    return y.reshape(len(x), len(w), *geometry.out)


def sampled_strips(x: Array, offset: Array, mask: Array, geometry: Geometry, clips: slice) -> Iterator[Strip]:
    """What the taps find, cut as `correlate` cuts its patches."""
    offsets, places = by_tap(offset, geometry), tap_places(x, geometry)
    masks = mask.reshape(len(x), 1, geometry.taps, geometry.positions)
    unfolded = Im2col(geometry, (1, x.shape[1], *geometry.kernel))
    samples, strip_rows = block_sizes(x, geometry, unfolded)
    for block in cuts(clips, samples):
        for _, _, positions in strips(geometry, strip_rows):
            at = places[..., positions] + offsets[block, ..., positions]  # (n, K, r, p)
            values, sampled = sample_forward(x[block], at.swapaxes(1, 2))
            yield Strip(block, positions, values, masks[block, ..., positions], sampled)


def by_tap(offset: Array, geometry: Geometry) -> Array:
    """offset (N, K r, *S_out) as (N, K, r, P)."""
    return offset.reshape(len(offset), geometry.taps, len(geometry.kernel), geometry.positions)


def tap_places(x: Array, geometry: Geometry) -> Array:
    """(K, r, P), in pixels of x: where every tap of every window looks when its offset is zero."""
    taps, windows = (np.indices(n).reshape(len(n), -1) for n in (geometry.kernel, geometry.out))
    stride, dilation = (np.reshape(s, (-1, 1)) for s in (geometry.stride, geometry.dilation))
    before = np.reshape([first for first, _ in geometry.pads], (-1, 1))
    places = (dilation * taps - before).T[:, :, None] + stride * windows  # (K, r, 1) + (r, P)
    return array_module(x).asarray(places, dtype=x.real.dtype)


def check_deform_conv(
    x: Array, offset: Array, mask: Array, w: Array, b: Array | None, window: Window | None
) -> Geometry:
    """The geometry, or a ValueError saying which argument does not fit."""
    geometry = check_conv(x, w, b, window, 1)
    if not geometry.kernel:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S) with at least one spatial axis")
    check_dtypes(x=x, offset=offset, mask=mask)
    taps = geometry.taps
    for name, a, channels in (("offset", offset, taps * len(geometry.kernel)), ("mask", mask, taps)):
        expected = (x.shape[0], channels, *geometry.out)
        if tuple(a.shape) != expected:
            raise ValueError(
                f"{name}.shape is {tuple(a.shape)}, expected {expected} for w of shape {w.shape}"
            )
    return geometry
