"""Sampling and deformable convolution once more, naively; and with PyTorch's autograd.

Nothing here comes from the package. The loops follow the papers' equations: bilinear sampling as the sum over all
pixels q of max(0, 1 - |p - q|) on each axis (Dai et al. 2017, equations 3 and 4), one number at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .oracles_recurrent import STEPS, Params, reader, sigmoid, taps_at


def at_place(frame: np.ndarray, place: tuple[float, ...]) -> float:
    """One channel (*S) at one place: G(q, p) summed over every pixel q, none of them outside the frame."""
    total = 0.0
    for q in np.ndindex(frame.shape):
        near = 1.0
        for a, b in zip(q, place, strict=True):
            near *= max(0.0, 1.0 - abs(a - b))
        total += near * frame[q]
    return total


def sample(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """x (N, C, *S) at (N, r, *P)."""
    y = np.empty((*x.shape[:2], *at.shape[2:]))
    for n, c, *p in np.ndindex(y.shape):
        y[(n, c, *p)] = at_place(x[n, c], tuple(at[(n, slice(None), *p)]))
    return y


def deform_conv(
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    *,
    stride: tuple[int, ...],
    before: tuple[int, ...],
    dilation: tuple[int, ...],
) -> np.ndarray:
    """Zhu et al. 2019, equation 1: tap k of every channel is read dp_k away from its place, and weighed by m_k."""
    rank, kernel = x.ndim - 2, w.shape[2:]
    y = np.empty((len(x), len(w), *mask.shape[2:]))
    for n, f, *p in np.ndindex(y.shape):
        total = b[f]
        for tap, k in enumerate(product(*map(range, kernel))):
            moved = offset[(n, slice(rank * tap, rank * tap + rank), *p)]
            place = tuple(
                s * a + d * t - o + m
                for s, a, d, t, o, m in zip(stride, p, dilation, k, before, moved, strict=True)
            )
            for c in range(x.shape[1]):
                total += w[(f, c, *k)] * mask[(n, tap, *p)] * at_place(x[n, c], place)
        y[(n, f, *p)] = total
    return y


def deformable_step(
    x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, **window: Any
) -> tuple[np.ndarray, ...]:
    """`lstm_step` whose w_h reads h where the offsets say, times the mask."""
    h, c = state
    F, rank, kernel = len(h), h.ndim - 1, p["w_h"].shape[2:]
    before = [(k - 1) // 2 for k in kernel]
    from_x, _ = reader(p, x, h, **window)
    new_h, new_c = np.empty_like(h), np.empty_like(c)
    for s in np.ndindex(h.shape[1:]):

        def q(row: int, s: tuple[int, ...] = s) -> float:
            seen = taps_at(x, p["w_qx"][row], s, **window) if "w_qx" in p else 0.0
            return p["b_q"][row] + seen + taps_at(h, p["w_qh"][row], s)

        found = np.empty((F, int(np.prod(kernel))))  # what every tap finds in every channel
        for tap, k in enumerate(product(*map(range, kernel))):
            place = [
                a + t - o + q(rank * tap + j) for j, (a, t, o) in enumerate(zip(s, k, before, strict=True))
            ]
            mask = 2 * sigmoid(q(rank * found.shape[1] + tap))
            for f in range(F):
                found[f, tap] = mask * at_place(h[f], tuple(place))
        for f in range(F):
            z_i, z_f, z_g, z_o = (
                from_x(g, f, s) + (p["w_h"][g * F + f].reshape(F, -1) * found).sum() for g in range(4)
            )
            new_c[(f, *s)] = sigmoid(z_f) * c[(f, *s)] + sigmoid(z_i) * np.tanh(z_g)
            new_h[(f, *s)] = sigmoid(z_o) * np.tanh(new_c[(f, *s)])
    return new_h, new_c


def clockwork(plain: Callable[..., tuple[np.ndarray, ...]]) -> Callable[..., tuple[np.ndarray, ...]]:
    """A plain step, module by module: each on what it may read, kept where its clock ticks."""

    def step(
        x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, *, periods: tuple[int, ...], **window: Any
    ) -> tuple[np.ndarray, ...]:
        *parts, t = state
        F, now = len(parts[0]), int(np.rint(t))
        of = [periods[f * len(periods) // F] for f in range(F)]
        result = [a.copy() for a in parts]
        for f in range(F):
            if now % of[f]:
                continue
            w_h = p["w_h"].copy()
            for source in range(F):
                if of[source] < of[f]:  # f would read a faster module
                    w_h[:, source] = 0
            for held, moved in zip(result, plain(x, tuple(parts), {**p, "w_h": w_h}, **window), strict=True):
                held[f] = moved[f]
        return (*result, np.asarray((now + 1) % np.lcm.reduce(periods), float))

    return step


STEPS |= {
    "DeformableLSTMCell": deformable_step,
    "ClockworkRNNCell": clockwork(STEPS["RNNCell"]),
    "ClockworkLSTMCell": clockwork(STEPS["LSTMCell"]),
}


def torch_sample(x: Any, at: Any) -> Any:
    """The same on PyTorch tensors, by gathering pixels, so that autograd finds the gradients: bilinear, 2 axes."""

    N, C, H, W = x.shape
    row, column = at.reshape(N, 2, -1).unbind(1)  # (N, P)
    total = 0
    for i, j in product((0, 1), repeat=2):
        r, c = row.floor().long() + i, column.floor().long() + j
        weight = (1 - (row - r).abs()) * (1 - (column - c).abs())
        inside = (r >= 0) & (r < H) & (c >= 0) & (c < W)
        index = (r.clamp(0, H - 1) * W + c.clamp(0, W - 1))[:, None].expand(N, C, -1)
        pixel = x.reshape(N, C, -1).gather(2, index)
        total = total + (weight * inside)[:, None] * pixel
    return total.reshape(N, C, *at.shape[2:])


def torch_deform_conv(
    x: Any, offset: Any, mask: Any, w: Any, b: Any, *, stride: int, padding: int, dilation: int
) -> Any:
    """Deformable convolution over 2 axes on PyTorch tensors."""
    import torch

    (F, _, *kernel), (N, _, *out) = w.shape, mask.shape
    columns = []
    for tap, k in enumerate(product(*map(range, kernel))):
        base = [stride * torch.arange(n) - padding + dilation * t for n, t in zip(out, k, strict=True)]
        grid = torch.stack(torch.meshgrid(*base, indexing="ij"))  # (2, *out)
        at = grid + offset[:, 2 * tap : 2 * tap + 2]
        columns.append(torch_sample(x, at) * mask[:, tap : tap + 1])
    cols = torch.stack(columns, 2)  # (N, C, K, *out)
    return torch.einsum("fck,nckp->nfp", w.flatten(2), cols.flatten(3)).reshape(N, F, *out) + b[:, None, None]
