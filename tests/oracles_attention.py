"""Attention once more, naively: every weight by its own exponential, every sum in a loop.

Nothing here comes from the package.
"""

from __future__ import annotations

import math

import numpy as np


def softmax_row(values: list[float], seen: list[bool]) -> list[float]:
    """exp(v) / sum exp(v) over what is seen, 0 elsewhere."""
    total = sum(math.exp(v) for v, s in zip(values, seen, strict=True) if s)
    return [math.exp(v) / total if s else 0.0 for v, s in zip(values, seen, strict=True)]


def masked_softmax(x: np.ndarray, mask: np.ndarray | None, axis: int) -> np.ndarray:
    """Row by row along an axis."""
    mask = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    y = np.zeros(x.shape)
    others = tuple(n for k, n in enumerate(x.shape) if k != axis % x.ndim)
    for q in np.ndindex(others):
        row = (*q[: axis % x.ndim], slice(None), *q[axis % x.ndim :])
        y[row] = softmax_row(x[row].tolist(), mask[row].tolist())
    return y


def peak_softmax(x: np.ndarray) -> np.ndarray:
    """Every channel's exponentials by the largest of them."""
    y = np.empty_like(x)
    for q in np.ndindex(x.shape):
        y[q] = math.exp(x[q]) / max(math.exp(v) for v in np.ravel(x[q[:2]]))
    return y


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float = 1.0, mask: np.ndarray | None = None
) -> np.ndarray:
    """Place by place, product by product."""
    N, D, P = q.shape
    E, R = v.shape[1:]
    y = np.zeros((N, E, P))
    for n in range(N):
        for p in range(P):
            s = [scale * sum(q[n, d, p] * k[n, d, r] for d in range(D)) for r in range(R)]
            seen = [True] * R if mask is None else [bool(m) for m in np.broadcast_to(mask, (N, P, R))[n, p]]
            a = softmax_row(s, seen)
            for e in range(E):
                for r in range(R):
                    y[n, e, p] += a[r] * v[n, e, r]
    return y
