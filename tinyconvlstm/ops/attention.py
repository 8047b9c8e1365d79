"""Attention: weights that sum to one over what is looked at, and the sum that they weigh.

Sources: the masked softmax and attention over a sequence: Bahdanau, Cho, Bengio 2014, arXiv 1409.0473,
equations 5 and 6; dot-product attention: Vaswani et al. 2017, arXiv 1706.03762, equation 1; weights
scaled to a maximum of one: Zhang et al. 2018, "Attention in convolutional LSTM for gesture recognition".
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from .activations import AxisSaved, softmax_backward, softmax_forward


def masked_softmax_forward(x: Array, *, mask: Array | None = None, axis: int = 1) -> tuple[Array, AxisSaved]:
    """Softmax over the entries that a mask leaves.

        y = exp(x) / sum exp(x) where mask, else exactly 0;     the sum is over the mask along `axis`

    Args:
        x: any shape. What is masked is never read: it may be NaN.
        mask: booleans, broadcastable to x, True where x counts; None counts all.
        axis: along which y sums to 1.
    Returns:
        y like x and what `masked_softmax_backward` needs.
    Raises:
        ValueError: a row along `axis` is wholly masked: nothing is left to sum to 1.
    """
    if mask is None:
        return softmax_forward(x, axis=axis)
    xp = array_module(x=x, mask=mask)
    if mask.dtype.kind != "b":
        raise ValueError(f"mask has dtype {mask.dtype}, expected booleans, True where x counts")
    mask = xp.broadcast_to(mask, x.shape)
    if not bool(mask.any(axis=axis).all()):
        raise ValueError(
            f"mask leaves nothing in {int((~mask.any(axis=axis)).sum())} rows along axis {axis}, "
            "expected at least one True in each"
        )
    top = xp.where(mask, x.real, -xp.inf).max(axis=axis, keepdims=True)
    e = xp.where(mask, xp.exp(xp.where(mask, x - top, 0)), 0)
    y = e / e.sum(axis=axis, keepdims=True)
    return y, AxisSaved(y, axis)


def masked_softmax_backward(dy: Array, saved: AxisSaved) -> Array:
    """dx = y * (dy - sum(dy * y)); it is 0 where y is, so what is masked gets no gradient."""
    return softmax_backward(dy, saved)


class PeakSaved(NamedTuple):
    """The output of `peak_softmax_forward`, and which position it was scaled by."""

    y: Array  # (N, C, *S)
    top: Array  # (N, C, 1), the position of the largest x


def peak_softmax_forward(x: Array) -> tuple[Array, PeakSaved]:
    """Softmax over the positions of each channel, divided by its largest value.

        y[n, c, p] = exp(x[n, c, p]) / max_q exp(x[n, c, q]) = exp(x[n, c, p] - x[n, c, top])

    So every channel has a 1 and no number above it, however many positions there are, as befits a gate.

    Args:
        x: (N, C, *S); without space y is 1.
    Returns:
        y like x and what `peak_softmax_backward` needs.
    Source: Zhang et al. 2018, the attention in place of a gate.
    """
    xp = array_module(x)
    flat = x.reshape(*x.shape[:2], -1)  # (N, C, P)
    top = flat.real.argmax(axis=2)[..., None]
    at_top = xp.arange(flat.shape[2]) == top
    y = xp.exp(flat - xp.where(at_top, flat, 0).sum(axis=2, keepdims=True)).reshape(x.shape)
    return y, PeakSaved(y, top)


def peak_softmax_backward(dy: Array, saved: PeakSaved) -> Array:
    """dx = dy y, less the channel's sum of it at the position that was scaled by.

        dy_p / dx_q = y_p (1[p = q] - 1[q = top])

    Args:
        dy: (N, C, *S).
        saved: from `peak_softmax_forward`.
    Returns:
        dx (N, C, *S). Where two positions tie the first counts as the largest.
    """
    y, top = saved
    xp = array_module(dy=dy, y=y)
    dx = (dy * y).reshape(*y.shape[:2], -1)
    at_top = xp.arange(dx.shape[2]) == top
    return xp.where(at_top, dx - dx.sum(axis=2, keepdims=True), dx).reshape(y.shape)


class AttendSaved(NamedTuple):
    """What `attend_backward` needs."""

    q: Array  # (N, D, P)
    k: Array  # (N, D, R)
    v: Array  # (N, E, R)
    weights: AxisSaved  # .y (N, P, R)
    scale: float


def attend_forward(
    q: Array, k: Array, v: Array, *, scale: float = 1.0, mask: Array | None = None
) -> tuple[Array, AttendSaved]:
    """Each of P places looks at R places, and takes the sum of their values that its query weighs.

        s = scale * q^T k                s[p, r] = scale * sum_d q[d, p] k[d, r]
        a = softmax(s)                   over r
        y = v a^T                        y[e, p] = sum_r a[p, r] v[e, r]

    Args:
        q: (N, D, P) queries. k: (N, D, R) keys. v: (N, E, R) values; channels first, as everywhere.
        scale: 1, or D ** -0.5 for scaled dot products.
        mask: booleans, broadcastable to (N, P, R), True where p may look at r.
    Returns:
        y (N, E, P) and what `attend_backward` needs; its weights.y is a (N, P, R).
    Raises:
        ValueError: shapes do not fit, or a p may look at nothing.
        TypeError: dtypes differ.
    Cost: N P R (D + E) multiply-accumulates; N P R numbers are kept.
    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1, there with scale = D ** -0.5.
    """
    array_module(q=q, k=k, v=v)
    if (
        q.ndim != 3
        or k.ndim != 3
        or v.ndim != 3
        or q.shape[:2] != k.shape[:2]
        or k.shape[::2] != v.shape[::2]
    ):
        raise ValueError(
            f"q.shape is {q.shape}, k.shape {k.shape} and v.shape {v.shape}, "
            "expected (N, D, P), (N, D, R) and (N, E, R)"
        )
    check_dtypes(q=q, k=k, v=v)
    s = scale * (q.swapaxes(1, 2) @ k)  # (N, P, R)
    a, weights = masked_softmax_forward(s, mask=mask, axis=2)
    return v @ a.swapaxes(1, 2), AttendSaved(q, k, v, weights, scale)


def attend_backward(dy: Array, saved: AttendSaved) -> tuple[Array, Array, Array]:
    """Gradients of `attend_forward`, line by line from the last.

        dv = dy a                da = dy^T v             y = v a^T
        ds = softmax's backward of da
        dq = scale * k ds^T      dk = scale * q ds       s = scale * q^T k

    Args:
        dy: (N, E, P).
        saved: from `attend_forward`.
    Returns:
        dq (N, D, P), dk (N, D, R), dv (N, E, R).
    """
    q, k, v, weights, scale = saved
    dv = dy @ weights.y
    ds = scale * masked_softmax_backward(dy.swapaxes(1, 2) @ v, weights)  # (N, P, R)
    return k @ ds.swapaxes(1, 2), q @ ds, dv
