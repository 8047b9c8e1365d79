"""Recurrent cells once more, naively: every gate by its own name, every pixel and tap in a loop.

Nothing here comes from the package. A step takes one clip: x (C, *S), h (F, *S) and a dict of
parameters in the package's layout; it returns the new state as a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

Params = dict[str, np.ndarray]


def sigmoid(v: float) -> float:
    return 1.0 / (1.0 + np.exp(-v))


def padding_before(kernel: tuple[int, ...], dilation: int) -> tuple[int, ...]:
    """Of a "same" window at stride 1: the odd pixel of an even kernel goes after the end."""
    return tuple(dilation * (k - 1) // 2 for k in kernel)


def taps_at(
    x: np.ndarray,
    w: np.ndarray,
    p: tuple[int, ...],
    *,
    stride: tuple[int, ...] | None = None,
    before: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | int = 1,
) -> float:
    """sum_{c, k} w[c, k] x[c, stride p + dilation k - before], zero outside the frame."""
    rank, kernel = x.ndim - 1, w.shape[1:]
    before = padding_before(kernel, dilation) if before is None else before  # type: ignore[arg-type]
    stride = (1,) * rank if stride is None else stride
    steps = (dilation,) * rank if isinstance(dilation, int) else dilation
    total = 0.0
    for k in product(*map(range, kernel)):
        q = tuple(s * a + d * b - o for s, a, d, b, o in zip(stride, p, steps, k, before, strict=True))
        if all(0 <= a < n for a, n in zip(q, x.shape[1:], strict=True)):
            for c in range(x.shape[0]):
                total += w[(c, *k)] * x[(c, *q)]
    return total


def reader(p: Params, x: np.ndarray, h: np.ndarray, **window: Any) -> tuple[Callable[..., float], ...]:
    """from_x(block, f, q) = w_x's row on x plus bias, from_h(block, f, q, h) = w_h's row on h."""
    F = h.shape[0]

    def from_x(block: int, f: int, q: tuple[int, ...]) -> float:
        row = block * F + f
        return p["b"][row] + (taps_at(x, p["w_x"][row], q, **window) if "w_x" in p else 0.0)

    def from_h(block: int, f: int, q: tuple[int, ...], seen: np.ndarray = h) -> float:
        return taps_at(seen, p["w_h"][block * F + f], q)

    return from_x, from_h


def lstm_step(
    x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, **window: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Shi et al. 2015, equation 3; the blocks of the weights are i, f, g, o."""
    h, c = state
    from_x, from_h = reader(p, x, h, **window)
    new_h, new_c = np.empty_like(h), np.empty_like(c)
    for q in np.ndindex(h.shape):
        f, pixel = q[0], q[1:]

        def peep(row: int, f: int = f, pixel: tuple[int, ...] = pixel) -> float:
            if "w_c" not in p:
                return 0.0
            return p["w_c"][row, f] if p["w_c"].ndim == 2 else p["w_c"][(row, f, *pixel)]

        in_gate = sigmoid(from_x(0, f, pixel) + from_h(0, f, pixel) + peep(0) * c[q])
        forget = sigmoid(from_x(1, f, pixel) + from_h(1, f, pixel) + peep(1) * c[q])
        candidate = np.tanh(from_x(2, f, pixel) + from_h(2, f, pixel))
        new_c[q] = forget * c[q] + in_gate * candidate
        out_gate = sigmoid(from_x(3, f, pixel) + from_h(3, f, pixel) + peep(2) * new_c[q])
        new_h[q] = out_gate * np.tanh(new_c[q])
    return new_h, new_c


def rnn_step(
    x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, **window: Any
) -> tuple[np.ndarray, ...]:
    """h' = tanh(w_x x + w_h h + b)."""
    (h,) = state
    from_x, from_h = reader(p, x, h, **window)
    new = np.empty_like(h)
    for q in np.ndindex(h.shape):
        new[q] = np.tanh(from_x(0, q[0], q[1:]) + from_h(0, q[0], q[1:]))
    return (new,)


def gru_step(
    x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, **window: Any
) -> tuple[np.ndarray, ...]:
    """Reset gate after the state map; the blocks of the weights are r, u, n."""
    (h,) = state
    from_x, from_h = reader(p, x, h, **window)
    new = np.empty_like(h)
    for q in np.ndindex(h.shape):
        f, pixel = q[0], q[1:]
        r = sigmoid(from_x(0, f, pixel) + from_h(0, f, pixel))
        u = sigmoid(from_x(1, f, pixel) + from_h(1, f, pixel))
        n = np.tanh(from_x(2, f, pixel) + r * (from_h(2, f, pixel) + p["b_hn"][f]))
        new[q] = (1 - u) * n + u * h[q]
    return (new,)


def gru_reset_before_step(
    x: np.ndarray, state: tuple[np.ndarray, ...], p: Params, **window: Any
) -> tuple[np.ndarray, ...]:
    """Reset gate before the state map, as Cho et al. 2014 wrote it."""
    (h,) = state
    from_x, from_h = reader(p, x, h, **window)
    r, new = np.empty_like(h), np.empty_like(h)
    for q in np.ndindex(h.shape):
        r[q] = sigmoid(from_x(0, q[0], q[1:]) + from_h(0, q[0], q[1:]))
    for q in np.ndindex(h.shape):
        f, pixel = q[0], q[1:]
        u = sigmoid(from_x(1, f, pixel) + from_h(1, f, pixel))
        n = np.tanh(from_x(2, f, pixel) + from_h(2, f, pixel, r * h))
        new[q] = (1 - u) * n + u * h[q]
    return (new,)


STEPS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "RNNCell": rnn_step,
    "LSTMCell": lstm_step,
    "ConvLSTMCell": lstm_step,
    "GRUCell": gru_step,
    "ResetBeforeGRUCell": gru_reset_before_step,
}


def run(
    kind: str,
    xs: np.ndarray,
    state: tuple[np.ndarray, ...],
    params: Params,
    *,
    lengths: list[int] | None = None,
    reverse: bool = False,
    **window: Any,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Every clip on its own, over its valid steps only: ys (T, N, F, *S), zero beyond, and the last states."""
    T, N = xs.shape[:2]
    ys = np.zeros((T, *state[0].shape))
    last = tuple(np.empty_like(a) for a in state)
    for n in range(N):
        clip = tuple(a[n] for a in state)
        steps = list(range(T if lengths is None else lengths[n]))
        for t in reversed(steps) if reverse else steps:
            clip = STEPS[kind](xs[t, n], clip, params, **window)
            ys[t, n] = clip[0]
        for whole, own in zip(last, clip, strict=True):
            whole[n] = own
    return ys, last
