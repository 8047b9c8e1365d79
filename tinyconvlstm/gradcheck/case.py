"""A case: a differentiable function with named inputs and outputs, and its hand-written gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..backend import Array

Arrays = dict[str, Array]


class Case(NamedTuple):
    """What the checker needs to know of a function. Pairs, layers, cells, models and losses become one."""

    name: str
    arrays: Arrays  # the inputs that are differentiated, float64, by name
    forward: Callable[[Arrays], tuple[Arrays, Any]]  # arrays -> outputs by name, saved
    backward: Callable[
        [dict[str, Any], Any], Arrays
    ]  # upstream by output name (None: absent), saved -> grads
    analytic: bool = True  # no max, ReLU or abs inside: the complex step applies
    sequences: tuple[str, ...] = ()  # names of arrays whose first axis is time


def pair_case(
    name: str,
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    arrays: Arrays,
    *,
    outputs: tuple[str, ...] = ("y",),
    analytic: bool = True,
    sequences: tuple[str, ...] = (),
    **settings: Any,
) -> Case:
    """A case from a pure pair.

    Args:
        name: how the report calls it.
        forward: `forward(*arrays, **settings) -> (y, saved)`.
        backward: `backward(dy, saved) -> one gradient per array`, in the order of the arguments;
            a single gradient may come without its tuple.
        arrays: the positional arguments by name, in order.
        outputs: names of the outputs; with more than one, y and dy are tuples.
        analytic: False where max, ReLU or abs take part.
        sequences: names of arrays whose first axis is time, so that a report can name the step.
        settings: keyword arguments of `forward`.
    """

    def run(values: Arrays) -> tuple[Arrays, Any]:
        y, saved = forward(*values.values(), **settings)
        return dict(zip(outputs, y if len(outputs) > 1 else (y,), strict=True)), saved

    def back(upstream: dict[str, Any], saved: Any) -> Arrays:
        dys = tuple(upstream[key] for key in outputs)
        grads = backward(dys if len(outputs) > 1 else dys[0], saved)
        return dict(zip(arrays, grads if type(grads) is tuple else (grads,), strict=True))

    return Case(name, arrays, run, back, analytic, sequences)
