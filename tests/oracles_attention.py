"""Attention once more, naively: every weight by its own exponential, every sum in a loop.

Nothing here comes from the package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .oracles_recurrent import STEPS, Params, lstm_step, sigmoid, taps_at

Clip = tuple[np.ndarray, ...]


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


def hidden(
    x: np.ndarray, h: np.ndarray, p: Params, names: tuple[str, str, str], rows: slice, **window: Any
) -> np.ndarray:
    """tanh(w_x * x + w_h * h + b) of some rows of the weights, pixel by pixel."""
    w_x, w_h, b = (p[name][rows] if name in p else None for name in names)
    a = np.empty((len(b), *h.shape[1:]))
    for q in np.ndindex(a.shape):
        f, s = q[0], q[1:]
        from_x = 0.0 if w_x is None else taps_at(x, w_x[f], s, **window)
        a[q] = np.tanh(from_x + taps_at(h, w_h[f], s) + b[f])
    return a


def input_attention_step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
    """Scores of every position, exponentials by their sum, and the plain step on the weighted frame."""
    h, _ = state
    a = hidden(x, h, p, ("w_xa", "w_ha", "b_a"), slice(None), **window)
    positions = list(np.ndindex(h.shape[1:]))
    scores = [taps_at(a, p["w_z"][0], s) for s in positions]
    seen = np.empty_like(x)
    for s, weight in zip(positions, softmax_row(scores, [True] * len(scores)), strict=True):
        for c in range(len(x)):
            seen[(c, *s)] = weight * x[(c, *s)]
    return lstm_step(seen, state, p, **window)


def mean_of(x: np.ndarray, c: int) -> float:
    """The mean of a channel over its positions."""
    values = [float(v) for v in np.ravel(x[c])]
    return sum(values) / len(values)


def context_step(pooled: str, attends: str | None) -> Any:
    """A step whose gates `pooled` read means; `attends` is by attention, and g by convolution."""

    def step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
        h, c = state
        F = len(h)
        blocks = ["a", "g"] if attends else ["g"]
        rows = {name: slice(k * F, (k + 1) * F) for k, name in enumerate(blocks)}
        gate = {"g": hidden(x, h, p, ("w_x", "w_h", "b"), rows["g"], **window)}
        if attends:
            a, scores = hidden(x, h, p, ("w_x", "w_h", "b"), rows["a"], **window), np.empty_like(h)
            for q in np.ndindex(h.shape):
                scores[q] = taps_at(a, p["w_z"][q[0]], q[1:])
            gate[attends] = peak_softmax(scores[None])[0]
        for k, name in enumerate(pooled):
            gate[name] = np.empty_like(h)
            for f in range(F):
                row = k * F + f
                z = p["b_p"][row] + sum(p["w_hp"][row, j] * mean_of(h, j) for j in range(F))
                z += sum(p["w_xp"][row, j] * mean_of(x, j) for j in range(len(x)))
                gate[name][f] = sigmoid(z)
        new_h, new_c = np.empty_like(h), np.empty_like(c)
        for q in np.ndindex(h.shape):
            new_c[q] = gate["f"][q] * c[q] + gate["i"][q] * gate["g"][q]
            new_h[q] = gate["o"][q] * np.tanh(new_c[q])
        return new_h, new_c

    return step


def mapped(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """w x at every position: y[a, p] = sum_b w[a, b] x[b, p]."""
    y = np.zeros((len(w), x.shape[1]))
    for a, p in np.ndindex(y.shape):
        y[a, p] = sum(w[a, b] * x[b, p] for b in range(len(x)))
    return y


def self_attention(h: np.ndarray, m: np.ndarray, p: Params) -> Clip:
    """The memory module on one clip, h and m (F, *S)."""
    F, shape = len(h), h.shape
    h, m = h.reshape(F, -1), m.reshape(F, -1)
    q = mapped(p["w_q"], h)[None]
    z_h = attend(q, mapped(p["w_kh"], h)[None], mapped(p["w_vh"], h)[None])[0]
    z_m = attend(q, mapped(p["w_km"], m)[None], mapped(p["w_vm"], m)[None])[0]
    z = mapped(p["w_z"], np.concatenate([z_h, z_m]))
    gates = mapped(p["w_m"], np.concatenate([z, h]))
    new_h, new_m = np.empty_like(h), np.empty_like(m)
    for f, s in np.ndindex(h.shape):
        i, g, o = (gates[k * F + f, s] + p["b_m"][k * F + f] for k in range(3))
        new_m[f, s] = (1 - sigmoid(i)) * m[f, s] + sigmoid(i) * np.tanh(g)
        new_h[f, s] = sigmoid(o) * new_m[f, s]
    return new_h.reshape(shape), new_m.reshape(shape)


def sa_step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
    """The plain step, and the memory module on what it shows."""
    h, c, m = state
    h, c = lstm_step(x, (h, c), p, **window)
    h, m = self_attention(h, m, p)
    return h, c, m


STEPS |= {
    "SAConvLSTMCell": sa_step,
    "InputAttentionLSTMCell": input_attention_step,
    "ContextGateLSTMCell": context_step("ifo", None),
    "InputGateAttentionLSTMCell": context_step("fo", "i"),
    "OutputGateAttentionLSTMCell": context_step("if", "o"),
}


def temporal_attention(
    x: np.ndarray, p: Params, lengths: list[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """y (N, F, *S) and the weights (T, N): clip by clip, over its valid steps only."""
    T, N = x.shape[:2]
    y, weights = np.zeros(x.shape[1:]), np.zeros((T, N))
    for n in range(N):
        steps = range(T if lengths is None else lengths[n])
        scores = []
        for t in steps:
            m = [mean_of(x[t, n], f) for f in range(x.shape[2])]
            rows = zip(p["v"], p["w"], p["b"], strict=True)
            scores.append(
                sum(v * math.tanh(b + sum(w * a for w, a in zip(row, m, strict=True))) for v, row, b in rows)
            )
        for t, weight in zip(steps, softmax_row(scores, [True] * len(scores)), strict=True):
            weights[t, n] = weight
            for q in np.ndindex(x.shape[2:]):
                y[(n, *q)] += weight * x[(t, n, *q)]
    return y, weights
