"""The two axes of a batch of sequences: clips of unequal length in time, and parts of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Array, array_module, backend_name, map_arrays, to_backend

State = Any  # a NamedTuple of arrays (N, ...)


class Remaining(NamedTuple):
    """Lengths inside a segment, already checked; a clip that ended before the segment has 0."""

    lengths: Array


def check_sequence(xs: Array, lengths: Any) -> Array | None:
    """lengths as an int array on xs's backend, or None; a ValueError where xs or lengths are wrong."""
    if isinstance(lengths, Remaining):
        return lengths.lengths
    if xs.ndim < 3 or len(xs) == 0:
        raise ValueError(f"xs.shape is {tuple(xs.shape)}, expected (T, N, C, *S) with at least one step T")
    if lengths is None:
        return None
    host = np.asarray(to_backend(lengths, "numpy"))
    T, N = xs.shape[:2]
    if host.shape != (N,) or host.dtype.kind not in "iu":
        raise ValueError(
            f"lengths has shape {host.shape} and dtype {host.dtype}, "
            f"expected one integer for each of {N} clips"
        )
    if host.min() < 1 or host.max() > T:
        raise ValueError(f"lengths are in {host.min()}..{host.max()}, expected 1..{T}, the steps of xs")
    return to_backend(host, backend_name(xs) or "numpy")


def alive_steps(T: int, lengths: Array | None) -> Array | None:
    """(T, N) True where t < lengths[n]; None when all clips are whole."""
    return None if lengths is None else array_module(lengths).arange(T)[:, None] < lengths


def reverse_in_time(xs: Array, lengths: Array | None) -> Array:
    """Turn every clip (T, N, ...) around within its length; the padding stays at the end. An involution."""
    if lengths is None:
        return xs[::-1]
    xp = array_module(xs)
    t = xp.arange(len(xs))[:, None]  # (T, 1)
    source = xp.where(t < lengths, lengths - 1 - t, t)  # (T, N)
    return xs[source, xp.arange(xs.shape[1])]


def where(alive: Array, a: Array, b: Array | float) -> Array:
    """a where a clip (N,) is alive, else b; arrays are (N, ...)."""
    return array_module(a).where(alive.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


def hold(alive: Array, new: State, old: State) -> State:
    """The new state of the clips that go on, the old one of those that are over."""
    return map_arrays(lambda a, b: where(alive, a, b), new, old)


def filled(dstate: State | None, like: State) -> State:
    """dstate with zeros where it or one of its fields is None."""
    if dstate is None:
        return map_arrays(lambda a: array_module(a).zeros_like(a), like)
    if isinstance(dstate, tuple):
        fields = [filled(d, a) for d, a in zip(dstate, like, strict=True)]
        return type(like)(*fields) if hasattr(like, "_fields") else tuple(fields)
    return dstate


def cut(tree: Any, part: slice) -> Any:
    """The part of every array (N, ...) of a tree; arrays (1, ...), which serve all clips, stay whole."""
    return map_arrays(lambda a: a[part] if a.shape[0] > 1 else a, tree)


def join(trees: Sequence[Any], axis: int = 0) -> Any:
    """Put the parts of a batch together again; what all parts share stays as it is."""
    first = trees[0]
    if all(tree is first for tree in trees):
        return first
    if backend_name(first) is not None:
        return array_module(first).concatenate(list(trees), axis=axis)
    if isinstance(first, dict):
        return {key: join([tree[key] for tree in trees], axis) for key in first}
    if isinstance(first, list | tuple):
        joined = [join(values, axis) for values in zip(*trees, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)
    return first


class Parts(NamedTuple):
    """The tapes, or checkpoints, of a scan whose batch was cut into parts."""

    slices: list[slice]  # of the batch
    tapes: list[Any]

    @property
    def steps(self) -> JoinedSteps:
        """As of one tape, for those who want to look."""
        return JoinedSteps([tape.steps for tape in self.tapes])

    @property
    def last(self) -> State:
        """The final state of the whole batch."""
        return join([tape.last for tape in self.tapes])

    @property
    def projection(self) -> Any:
        """What the input map kept, for the whole batch."""
        return join([tape.projection for tape in self.tapes], axis=1)

    @property
    def reverse(self) -> bool:
        """Whether the scan read its clips backwards."""
        return bool(self.tapes[0].reverse)


class JoinedSteps(Sequence[Any]):
    """Steps of the parts, put together one at a time, when asked for."""

    def __init__(self, parts: list[list[Any]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, t: Any) -> Any:
        if isinstance(t, slice):
            return [self[k] for k in range(*t.indices(len(self)))]
        return join([steps[t] for steps in self.parts])
