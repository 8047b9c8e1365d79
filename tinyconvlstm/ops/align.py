"""Bring sequences of different rates to one clock: each new step is the mean of what it overlaps.

Both sequences cover the same span of time. Step t of T covers the share [t/T, (t+1)/T) of it, step s of
S the share [s/S, (s+1)/S), and

    y[t] = sum over s of  W[t, s] x[s],    W[t, s] = T * |[t/T, (t+1)/T) and [s/S, (s+1)/S) overlap|

so a faster sequence is averaged, a slower one held, a sequence of T steps stays as it is, exactly, and a
constant stays constant. Nothing is interpolated: a step sees only what lies within its own span.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module


class AlignSaved(NamedTuple):
    """What `align_steps_backward` needs."""

    w: Array | None  # (T, S); None where nothing changes


def align_steps_forward(x: Array, *, steps: int) -> tuple[Array, AlignSaved]:
    """y[t] = sum_s W[t, s] x[s].

    Args:
        x: (S, N, ...), time first.
        steps: T.
    Returns:
        y (T, N, ...) and what `align_steps_backward` needs.
    Raises:
        ValueError: no step, here or there.
    """
    if steps < 1 or len(x) < 1:
        raise ValueError(f"x has {len(x)} steps and steps is {steps}, expected at least 1 of each")
    if steps == len(x):
        return x, AlignSaved(None)
    w = array_module(x).asarray(overlaps(len(x), steps).astype(x.real.dtype))
    return apply(w, x), AlignSaved(w)


def align_steps_backward(dy: Array, saved: AlignSaved) -> Array:
    """dx[s] = sum_t W[t, s] dy[t], of the shape of x."""
    return dy if saved.w is None else apply(saved.w.T, dy)


def overlaps(old: int, new: int) -> Array:
    """W (new, old) on NumPy, float64; whole numbers over `old`, so that every row sums to 1."""
    t, s = np.arange(new)[:, None], np.arange(old)
    shared = np.minimum((t + 1) * old, (s + 1) * new) - np.maximum(t * old, s * new)
    return np.maximum(shared, 0) / old


def apply(w: Array, x: Array) -> Array:
    """The matrix w on the first axis of x."""
    return (w @ x.reshape(len(x), -1)).reshape(len(w), *x.shape[1:])
