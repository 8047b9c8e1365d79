"""One function that takes whatever has a gradient."""

from __future__ import annotations

import inspect
from typing import Any

from ..backend import Array
from ..cells.base import Cell
from ..layers import Layer
from .case import Case, pair_case
from .cells import cell_case
from .engine import gradcheck
from .layers import layer_case, leaves
from .report import Report

ENGINE = ("tolerance", "complex_tolerance", "step", "elements")  # settings of `gradcheck`


def check(subject: Any, *arrays: Array, name: str | None = None, **settings: Any) -> Report:
    """Check a gradient: of a case, a cell, a layer, a model or a pair of functions.

        print(check((conv_forward, conv_backward), x, w, b, window=Window(3)))
        print(check(ConvLSTMCell(2, 3, (3, 3), dtype=np.float64), xs, lengths=[3, 2]))
        print(check(Dense(4, 5, dtype=np.float64), x))

    Args:
        subject: a `Case`; a `Cell`; a `Layer`; or (forward, backward), two functions of a pair.
        arrays: float64. A cell: its sequence xs (T, N, C, *S). A layer: its input x. A pair: the
            arguments of forward that are differentiated, in order. A case: none.
        name: how the report calls it; default: the function's or class's name.
        settings: tolerance, complex_tolerance, step and elements are those of `gradcheck`; all others
            those of `cell_case`, `layer_case` or, for a pair, `pair_case` and forward.
    Returns:
        A `Report`: `bool(report)` is the verdict, `print(report)` the table, `report.draw()` a picture.
    Raises:
        TypeError: subject is nothing with a gradient, or an array is not float64.
        ValueError: the number of arrays does not fit the subject.
    """
    engine = {key: settings.pop(key) for key in ENGINE if key in settings}
    return gradcheck(case_of(subject, arrays, name, settings), **engine)


def case_of(subject: Any, arrays: tuple[Array, ...], name: str | None, settings: dict[str, Any]) -> Case:
    """The case that a subject and its arrays make."""
    if isinstance(subject, Case):
        expect(arrays, (), "a Case, which has its own arrays")
        if settings:
            raise TypeError(f"settings {sorted(settings)} do not apply to a Case; give them where it is made")
        return subject
    kind = type(subject).__name__
    if isinstance(subject, Cell):
        expect(arrays, ("xs",), f"the {kind}")
        return cell_case(name or kind, subject, arrays[0], **settings)
    if isinstance(subject, Layer):
        expect(arrays, ("x",), f"the {kind}")
        return layer_case(name or kind, subject, arrays[0], **settings)
    if isinstance(subject, tuple) and len(subject) == 2 and all(map(callable, subject)):
        return case_of_pair(*subject, arrays, name, settings)
    raise TypeError(
        f"subject is a {kind}, expected a Case, a Cell, a Layer or a pair of functions (forward, backward)"
    )


def case_of_pair(
    forward: Any, backward: Any, arrays: tuple[Array, ...], name: str | None, settings: dict[str, Any]
) -> Case:
    """`pair_case`, with names from the function's signature and outputs from one call of it."""
    label = name or getattr(forward, "__name__", "pair").removesuffix("_forward")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds]
    if not arrays or len(arrays) > len(names):
        raise ValueError(
            f"{len(arrays)} arrays were given, {label} takes 1 to {len(names)}: {', '.join(names)}"
        )
    own = {key: settings.pop(key) for key in ("analytic", "sequences") if key in settings}
    found = forward(*arrays, **settings)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"{label}'s forward returned a {type(found).__name__}, expected a tuple (y, saved)")
    outputs = tuple(path.removeprefix("y.") for path, _ in leaves(found[0]))
    named = dict(zip(names, arrays, strict=False))
    return pair_case(label, forward, backward, named, outputs=outputs, **own, **settings)


def expect(arrays: tuple[Array, ...], names: tuple[str, ...], what: str) -> None:
    """ValueError unless there are as many arrays as names."""
    if len(arrays) != len(names):
        wanted = ", ".join(names) or "none"
        raise ValueError(f"{len(arrays)} arrays were given with {what}, expected {wanted}")
