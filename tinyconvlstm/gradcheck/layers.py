"""Cases for layers, models and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array
from ..layers import Bidirectional, Layer, Recurrent, Sequential, TimeDistributed
from .case import Arrays, Case


def layer_case(
    name: str,
    layer: Layer,
    x: Array,
    *,
    train: bool = False,
    seed: int = 0,
    analytic: bool = True,
    sequence: bool | None = None,
    **settings: Any,
) -> Case:
    """A case from a layer or a model: inputs x and all parameters, outputs whatever forward returns.

    Args:
        name: how the report calls it.
        layer: any `Layer`, with float64 parameters (`layer.astype(np.float64)`).
        x: its input, float64. Whole numbers (ids for an embedding) are data and not differentiated.
        train: as `Layer.forward`; dropout's masks are drawn anew from `seed` in every call, so that
            all calls see the same ones.
        seed: of the generator that forward receives.
        analytic: False for a layer with max, ReLU or abs inside.
        sequence: whether x's first axis is time, so that a report names the step; default: it is
            where a recurrent or time-distributed layer reads x.
        settings: further keyword arguments of the layer's forward, such as lengths or horizon.
    """
    differentiable = x.dtype.kind in "fc"
    arrays: Arrays = {**({"x": x} if differentiable else {}), **layer.params}
    if "x" in layer.params:
        raise ValueError(f"{name} has a parameter named 'x', which is the name of the input; rename it")
    if sequence is None:
        sequence = reads_sequence(layer)
    structure: list[Any] = []  # the shape of the output tree, known after the first forward

    def forward(values: Arrays) -> tuple[Arrays, Any]:
        bound = layer.bind({n: values[n] for n in layer.params})
        rng = np.random.default_rng(seed)
        y, saved = bound.forward(values.get("x", x), train=train, rng=rng, **settings)
        structure[:] = [y]
        return dict(leaves(y)), (bound, saved)

    def backward(upstream: dict[str, Any], saved: Any) -> Arrays:
        bound, tape = saved
        dx, grads = bound.backward(rebuilt(structure[0], upstream), tape)
        return {**({"x": dx} if differentiable else {}), **grads}

    return Case(name, arrays, forward, backward, analytic, ("x",) if sequence else ())


def loss_case(
    name: str,
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    prediction: Array,
    target: Array,
    *,
    analytic: bool = True,
    **settings: Any,
) -> Case:
    """A case from a loss, as a function of its prediction alone; the target is data.

    Args:
        name: how the report calls it.
        forward: `forward(prediction, target, **settings) -> (loss, saved)`.
        backward: `backward(dloss, saved) -> dprediction`.
        prediction: float64, of any shape.
        target: labels or values, as forward takes them.
        analytic: False where abs, max or a branch takes part (MAE, Huber).
        settings: keyword arguments of forward, such as reduction or mask.
    """

    def run(values: Arrays) -> tuple[Arrays, Any]:
        loss, saved = forward(values["prediction"], target, **settings)
        return {"loss": loss}, saved

    def back(upstream: dict[str, Any], saved: Any) -> Arrays:
        return {"prediction": backward(upstream["loss"], saved)}

    return Case(name, {"prediction": prediction}, run, back, analytic)


def reads_sequence(layer: Layer) -> bool:
    """True where the layer's input is (T, N, ...)."""
    if isinstance(layer, Sequential):
        return any(reads_sequence(part) for part in list(layer.parts.values())[:1])
    return isinstance(layer, Recurrent | Bidirectional | TimeDistributed)


def leaves(y: Any, name: str = "y") -> list[tuple[str, Array]]:
    """The arrays of an output tree of tuples by path: "y", or "y.0", "y.1.h" ..."""
    if not isinstance(y, tuple):
        return [(name, y)]
    fields = getattr(y, "_fields", range(len(y)))
    return [leaf for field, part in zip(fields, y, strict=True) for leaf in leaves(part, f"{name}.{field}")]


def rebuilt(y: Any, values: dict[str, Any], name: str = "y") -> Any:
    """A tree of y's structure with values by path."""
    if not isinstance(y, tuple):
        return values[name]
    fields = getattr(y, "_fields", range(len(y)))
    parts = [rebuilt(part, values, f"{name}.{field}") for field, part in zip(fields, y, strict=True)]
    return type(y)(*parts) if hasattr(y, "_fields") else tuple(parts)
