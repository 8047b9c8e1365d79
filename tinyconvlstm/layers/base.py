"""The layer protocol, the chain of layers, and the table that says what a model costs.

A layer holds parameters and remembers nothing: forward returns what backward needs, backward
returns gradients. So one layer can be used twice, from two threads, or on half a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..parameters import Container, Parametric, prefixed
from .summary import Cost, Summary, summarise

Shape = tuple[int, ...]
Grads = dict[str, Array]
Rng = np.random.Generator | None


class Layer(Parametric):
    """One differentiable block with parameters."""

    takes_lengths = False  # whether forward reads lengths=, (N,) valid steps of each clip

    def __init__(self) -> None:
        self.params, self.buffers = {}, {}

    def forward(self, x: Any, *, train: bool = False, rng: Rng = None) -> tuple[Any, Any]:
        """(y, saved) of x. `train` switches dropout and batch statistics; `rng` draws dropout's masks."""
        raise NotImplementedError(type(self).__name__)

    def backward(self, dy: Any, saved: Any) -> tuple[Any, Grads]:
        """(dx, grads) from the gradient dy of the output; grads has the keys of params."""
        raise NotImplementedError(type(self).__name__)

    def update_buffers(self, saved: Any) -> None:
        """Fold a training batch's statistics into the buffers; most layers have none."""

    def cost(self, shape: Shape) -> Cost:
        """Output shape, multiply-accumulates and kept elements for an input of `shape`."""
        raise NotImplementedError(type(self).__name__)

    def summary(self, shape: Shape) -> Summary:
        """Parameters, multiply-accumulates and activation memory, layer by layer; print it.

        Args:
            shape: of the input, batch and time included: (N, C, *S) or (T, N, C, *S).
        """
        return summarise(self, shape)

    def __call__(self, x: Any) -> Any:
        """The output alone, as at prediction time."""
        return self.forward(x)[0]


class Sequential(Container, Layer):
    """Layers one after another; their parameters are named "0.w", "1.b" and so on.

    Args:
        layers: in order; or a dict, whose keys then name them.
    """

    def __init__(self, *layers: Layer | dict[str, Layer]) -> None:
        if len(layers) == 1 and isinstance(layers[0], dict):
            self.parts = dict(layers[0])
        else:
            self.parts = {str(k): layer for k, layer in enumerate(layers)}

    @property
    def takes_lengths(self) -> bool:  # type: ignore[override]
        """Whether any of the layers reads lengths."""
        return any(getattr(layer, "takes_lengths", False) for layer in self.parts.values())

    def forward(
        self, x: Any, *, train: bool = False, rng: Rng = None, lengths: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """y of the last layer, and every layer's saved by name; lengths go to the layers that read them.

        Raises:
            ValueError: lengths are given and no layer reads them: padding would enter the result.
        """
        if lengths is not None and not self.takes_lengths:
            kinds = ", ".join(type(layer).__name__ for layer in self.parts.values())
            raise ValueError(f"lengths are given, expected None: none of the layers reads them ({kinds})")
        tape = {}
        for name, layer in self.parts.items():
            more = {"lengths": lengths} if layer.takes_lengths and lengths is not None else {}
            x, tape[name] = layer.forward(x, train=train, rng=rng, **more)
        return x, tape

    def backward(self, dy: Any, saved: dict[str, Any]) -> tuple[Any, Grads]:
        """The chain rule: the layers' backward passes, last first."""
        grads: Grads = {}
        for name, layer in reversed(self.parts.items()):
            dy, part = layer.backward(dy, saved[name])
            grads |= prefixed(name, part)
        return dy, {name: grads[name] for name in self.params}

    def update_buffers(self, saved: dict[str, Any]) -> None:
        """Every layer's."""
        for name, layer in self.parts.items():
            layer.update_buffers(saved[name])

    def cost(self, shape: Shape) -> Cost:
        """The layers' costs, added up."""
        rows = []
        for name, layer in self.parts.items():
            cost = layer.cost(shape)
            rows.append((name, layer, cost))
            shape = cost.out
        return Cost.of(rows)


def needed(rng: Rng, what: str) -> np.random.Generator:
    """The generator, or a ValueError saying that training with dropout needs one."""
    if rng is None:
        raise ValueError(f"rng is None: {what} in training draws masks, pass a numpy Generator")
    return rng
