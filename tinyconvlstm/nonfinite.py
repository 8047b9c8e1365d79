"""Where did it go wrong? The first array of a forward pass that holds a NaN or an infinity.

Every `saved` names what was computed, in the order of computation. So the place where a forward pass
went non-finite is found by walking what it saved: layer by layer, step by step, gate by gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .backend import Array, array_module, backend_name

PARAMETERS = ("w", "w_c", "gamma")  # fields of a saved that refer to parameters


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became NaN or infinite; the message says where it began."""


class Part(str):
    """In a path: the name of a layer, as opposed to the field of a saved."""


class Where(NamedTuple):
    """A place in a tree of saved arrays."""

    layer: str  # path of the layer, as in its parameters' names: "encoder.0"
    step: int | None  # time step, in the order in which the cell read them
    field: str  # name of the array: a gate i, f, g, o, or c, tanh_c, x ...
    reverse: bool = False  # whether the cell read the last frame first

    def __str__(self) -> str:
        place = f"layer {self.layer}" if self.layer else "the model"
        time = "" if self.step is None else f", time step {self.step}"
        time += " of the reading order, last frame first" if self.reverse else ""
        kind = f"gate {self.field}" if self.field in ("i", "f", "g", "o", "r", "u", "n") else self.field
        return f"{place}{time}, {kind}"


def first_nonfinite(saved: Any) -> Where | None:
    """The first array with a NaN or an infinity in what a forward pass saved, or None.

    Args:
        saved: what `forward` returned beside its result, however nested.
    """
    for path, array in leaves(saved):
        if not all_finite(array):
            return place(path)
    return None


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Array]]:
    """Every floating array of a tree with its path: names of fields and keys, numbers of list entries."""
    if backend_name(tree) is not None:
        if tree.dtype.kind in "fc":
            yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, Part(key)))
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for names, value in fields_in_order(tree):
            yield from leaves(value, (*path, *names))
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for number, value in enumerate(tree):
            yield from leaves(value, (*path, number))


def fields_in_order(saved: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Fields in order of computation: what a step reads, its map's input, comes before its gates.

    Parameters are left out: a weight that is NaN shows in the first gate that it feeds.
    """
    names = [name for name in saved._fields if name not in PARAMETERS]
    if "tapes" in names:  # a batch that was cut into parts: look at it as a whole, step by step
        names = ["projection", "steps"]
    early = [name for name in names if name in ("projection", "state_map", "gates_map")]
    for name in [*early, *(name for name in names if name not in early)]:
        if name == "projections":  # a fed forecaster's step: every layer projects, then steps
            for k, pair in enumerate(zip(saved.projections, saved.steps, strict=True)):
                yield ("projections", k), pair[0]
                yield ("steps", k), pair[1]
        elif name == "steps" and getattr(saved, "reverse", False):
            yield ("steps reversed",), saved.steps
        elif name != "steps" or "projections" not in names:
            yield (name,), getattr(saved, name)


def place(path: tuple[Any, ...]) -> Where:
    """A path of fields as layer, time step and field."""
    lists = ("steps", "steps reversed", "projections")
    numbered = [(a, b) for a, b in pairwise(path) if a in lists and isinstance(b, int)]
    layer = [str(part) for part in path if isinstance(part, Part)]
    if len(numbered) > 1:  # a fed forecaster: time steps, and within each its layers
        layer.append(f"forecaster.{numbered[1][1]}")
    elif "head" in path:
        layer.append("head")
    step = numbered[0][1] if numbered else None
    return Where(".".join(layer), step, str(path[-1]) if path else "array", "steps reversed" in path)


def all_finite(array: Array) -> bool:
    """True when no element is NaN or infinite."""
    return bool(array_module(array).isfinite(array).all())
