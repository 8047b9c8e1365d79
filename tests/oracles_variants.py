"""The variants of the LSTM once more, naively, in the manner of `oracles_recurrent`, whose `run` runs them.

Nothing here comes from the package. A step takes one clip: x (C, *S), a tuple of states (F, *S) and a dict
of parameters in the package's layout; it returns the new state as a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .oracles_recurrent import STEPS, Params, lstm_step, reader, sigmoid, taps_at

Clip = tuple[np.ndarray, ...]


def conv_peephole_step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
    """Peepholes that see neighbours: c' must be complete before any o is computed."""
    h, c = state
    F = len(h)
    from_x, from_h = reader(p, x, h, **window)
    new_h, new_c = np.empty_like(h), np.empty_like(c)
    for q in np.ndindex(h.shape):
        f, s = q[0], q[1:]
        in_gate = sigmoid(from_x(0, f, s) + from_h(0, f, s) + taps_at(c, p["w_cif"][f], s))
        forget = sigmoid(from_x(1, f, s) + from_h(1, f, s) + taps_at(c, p["w_cif"][F + f], s))
        new_c[q] = forget * c[q] + in_gate * np.tanh(from_x(2, f, s) + from_h(2, f, s))
    for q in np.ndindex(h.shape):
        f, s = q[0], q[1:]
        out_gate = sigmoid(from_x(3, f, s) + from_h(3, f, s) + taps_at(new_c, p["w_co"][f], s))
        new_h[q] = out_gate * np.tanh(new_c[q])
    return new_h, new_c


def separable_kernel(p: Params, name: str) -> np.ndarray:
    """w[f, c, k] = point[f, c] depth[c, k], entry by entry."""
    depth, point = p[f"{name}_depth"], p[f"{name}_point"]
    w = np.empty((len(point), len(depth), *depth.shape[2:]))
    for q in np.ndindex(w.shape):
        f, c, k = q[0], q[1], q[2:]
        w[q] = point[(f, c, *(0,) * len(k))] * depth[(c, 0, *k)]
    return w


def low_rank_kernel(p: Params, name: str) -> np.ndarray:
    """w[f, c, k] = sum_r u[f, r] v[r, c, k], entry by entry."""
    v, u = p[f"{name}_v"], p[f"{name}_u"]
    w = np.zeros((len(u), *v.shape[1:]))
    for q in np.ndindex(w.shape):
        for r in range(len(v)):
            w[q] += u[(q[0], r, *(0,) * (len(q) - 2))] * v[(r, *q[1:])]
    return w


def with_kernels(kernel: Callable[[Params, str], np.ndarray]) -> Callable[..., Clip]:
    """The plain LSTM step on kernels that are written out first."""

    def step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
        whole = {name: kernel(p, name) for name in ("w_x", "w_h")}
        return lstm_step(x, state, {**p, **whole}, **window)

    return step


def normalised(z: np.ndarray, gamma: np.ndarray, groups: int) -> np.ndarray:
    """Mean 0 and variance 1 over each of `groups` parts of z (channels, *S), times gamma of the channel."""
    y = np.empty_like(z)
    size = len(z) // groups
    for part in range(groups):
        rows = slice(part * size, (part + 1) * size)
        values = [float(v) for v in z[rows].ravel()]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        for q in np.ndindex(z[rows].shape):
            row = part * size + q[0]
            y[(row, *q[1:])] = gamma[row] * (z[(row, *q[1:])] - mean) / np.sqrt(var + 1e-5)
    return y


def layer_norm_step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
    """Ba et al. 2016, equations 20 to 22, each gate normalised by itself."""
    h, c = state
    F, S = len(h), h.shape[1:]
    z_x, z_h = np.empty((4 * F, *S)), np.empty((4 * F, *S))
    for q in np.ndindex(z_x.shape):
        z_x[q] = taps_at(x, p["w_x"][q[0]], q[1:], **window)
        z_h[q] = taps_at(h, p["w_h"][q[0]], q[1:])
    z_x, z_h = normalised(z_x, p["gamma_x"], 4), normalised(z_h, p["gamma_h"], 4)
    z = np.empty_like(z_x)
    for q in np.ndindex(z.shape):
        z[q] = z_x[q] + z_h[q] + p["b"][q[0]]
    new_h, new_c = np.empty_like(h), np.empty_like(c)
    for q in np.ndindex(h.shape):
        f, s = q[0], q[1:]
        new_c[q] = sigmoid(z[(F + f, *s)]) * c[q] + sigmoid(z[q]) * np.tanh(z[(2 * F + f, *s)])
    n = normalised(new_c, p["gamma_c"], 1)
    for q in np.ndindex(h.shape):
        new_h[q] = sigmoid(z[(3 * F + q[0], *q[1:])]) * np.tanh(n[q] + p["beta_c"][q[0]])
    return new_h, new_c


def candidate_step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
    """Input gate, forget gate and candidate read the old candidate; the output gate reads the new one."""
    h, c, old = state
    from_x, from_h = reader(p, x, old, **window)
    new_h, new_c, new = np.empty_like(h), np.empty_like(c), np.empty_like(old)
    for q in np.ndindex(h.shape):
        f, s = q[0], q[1:]
        new[q] = np.tanh(from_x(2, f, s) + from_h(2, f, s))
        in_gate, forget = (sigmoid(from_x(k, f, s) + from_h(k, f, s)) for k in (0, 1))
        new_c[q] = forget * c[q] + in_gate * new[q]
    for q in np.ndindex(h.shape):
        f, s = q[0], q[1:]
        new_h[q] = sigmoid(from_x(3, f, s) + from_h(3, f, s, new)) * np.tanh(new_c[q])
    return new_h, new_c, new


def odyssey(name: str) -> Callable[..., Clip]:
    """The step of a variant of Greff et al. 2017 by its name there."""
    blocks = {"NIG": "fgo", "NFG": "igo", "NOG": "ifg", "CIFG": "igo"}.get(name, "ifgo")
    peeps = "" if name == "NP" else [gate for gate in "ifo" if gate in blocks]

    def step(x: np.ndarray, state: Clip, p: Params, **window: Any) -> Clip:
        h, c, *before = state
        F = len(h)
        from_x, from_h = reader(p, x, h, **window)
        new = [np.empty_like(a) for a in state]
        for q in np.ndindex(h.shape):
            f, s = q[0], q[1:]

            def z(gate: str, seen: float, f: int = f, s: tuple[int, ...] = s) -> float:
                total = from_x(blocks.index(gate), f, s) + from_h(blocks.index(gate), f, s)
                if gate in peeps:
                    total += p["w_c"][peeps.index(gate), f] * seen
                if name == "FGR" and gate != "g":
                    row = "ifo".index(gate) * F + f
                    for source in range(3):
                        total += taps_at(before[source], p["w_r"][row, source * F : (source + 1) * F], s)
                return total

            in_gate = 1.0 if name == "NIG" else sigmoid(z("i", c[q]))
            if name == "CIFG":
                forget = 1.0 - in_gate
            else:
                forget = 1.0 if name == "NFG" else sigmoid(z("f", c[q]))
            candidate = z("g", 0.0) if name == "NIAF" else np.tanh(z("g", 0.0))
            cell = forget * c[q] + in_gate * candidate
            out_gate = 1.0 if name == "NOG" else sigmoid(z("o", cell))
            shown = out_gate * (cell if name == "NOAF" else np.tanh(cell))
            values = (shown, cell, in_gate, forget, out_gate)
            for array, value in zip(new, values, strict=False):
                array[q] = value
        return tuple(new)

    return step


STEPS |= {
    "ConvPeepholeLSTMCell": conv_peephole_step,
    "SeparableLSTMCell": with_kernels(separable_kernel),
    "LowRankLSTMCell": with_kernels(low_rank_kernel),
    "LayerNormLSTMCell": layer_norm_step,
    "CandidateLSTMCell": candidate_step,
    "VanillaLSTMCell": odyssey("vanilla"),
}
STEPS |= {f"{name}Cell": odyssey(name) for name in ("NIG", "NFG", "NOG", "NIAF", "NOAF", "NP", "CIFG", "FGR")}
