"""Where did it go wrong? The first array of a forward pass that holds a NaN or an infinity.

Every `saved` names what was computed, in the order of computation. So the place where a forward pass
went non-finite is found by walking what it saved: layer by layer, step by step, gate by gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .backend import Array, array_module, backend_name

PARAMETERS = ("w", "w_c", "gamma")  # fields of a saved that refer to parameters


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became NaN or infinite; the message says where it began."""


class Where(NamedTuple):
    """A place in a tree of saved arrays."""

    layer: str  # path of the layer, as in its parameters' names: "encoder.0"
    step: int | None  # time step, in the order in which the cell read them
    field: str  # name of the array: a gate i, f, g, o, or c, tanh_c, x ...

    def __str__(self) -> str:
        place = f"layer {self.layer}" if self.layer else "the model"
        time = "" if self.step is None else f", time step {self.step}"
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
            yield from leaves(value, (*path, str(key)))
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for name in in_order(tree._fields):
            if name in PARAMETERS:
                continue  # a weight that is NaN shows in the first gate that it feeds
            yield from leaves(getattr(tree, name), (*path, name))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from leaves(value, (*path, number))


def in_order(names: tuple[str, ...]) -> list[str]:
    """Fields in order of computation: what a step reads, its map's input, comes before its gates."""
    first = [name for name in names if name in ("projection", "projections", "state_map", "gates_map")]
    return [*first, *(name for name in names if name not in first)]


def place(path: tuple[Any, ...]) -> Where:
    """A path of fields as layer, time step and field."""
    step = None
    for k, part in enumerate(path):
        if part == "steps" and k + 1 < len(path) and isinstance(path[k + 1], int):
            step = path[k + 1]
            break
    structure = {"tape", "steps", "encoder", "forecaster", "gates", "saved", "loss", "projection"}
    names = [part for part in path[:-1] if isinstance(part, str)]
    layer = next((name for name in names if "." in name), None)
    if layer is None:
        layer = ".".join(name for name in names if name not in structure and name != "state_map")
    return Where(layer, step, str(path[-1]))


def all_finite(array: Array) -> bool:
    """True when no element is NaN or infinite."""
    return bool(array_module(array).isfinite(array).all())
