"""Layers without weights: activations, pooling, flattening, dropout."""

from __future__ import annotations

from math import prod
from typing import Any

from ..backend import Array, backend_name
from ..ops import activations, pooling
from ..ops.dropout import dropout_backward, dropout_forward, dropout_mask
from ..ops.windows import Padding, Window
from .base import Grads, Layer, Rng, Shape, needed
from .summary import Cost

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "gelu", "softmax", "log_softmax")


class Activation(Layer):
    """One of the functions of `ops.activations` by name.

    Args:
        name: "sigmoid", "tanh", "relu", "leaky_relu", "gelu", "softmax" or "log_softmax".
        settings: keyword arguments of the function: slope, approximate, axis.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise ValueError(f"name is {name!r}, expected one of {ACTIVATIONS}")
        self.name, self.settings = name, settings

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y of the shape of x."""
        y, saved = getattr(activations, f"{self.name}_forward")(x, **self.settings)
        return y, saved

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx of the shape of dy."""
        return getattr(activations, f"{self.name}_backward")(dy, saved), {}

    def cost(self, shape: Shape) -> Cost:
        """The output is kept."""
        return Cost(shape, 0, prod(shape))


class Pool(Layer):
    """Maximum or average of sliding windows.

    Args:
        kind: "max" or "avg".
        kernel: K, one int a spatial axis; a single int stands for every axis.
        stride: default the kernel, so that windows do not overlap.
        padding, dilation, ceil: as `Window`.
        count_include_pad: as `avg_pool_forward`; for "avg" only.
    """

    def __init__(
        self,
        kind: str,
        kernel: int | Shape,
        *,
        stride: int | Shape | None = None,
        padding: Padding = 0,
        dilation: int | Shape = 1,
        ceil: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        if kind not in ("max", "avg"):
            raise ValueError(f"kind is {kind!r}, expected 'max' or 'avg'")
        self.kind, self.count_include_pad = kind, count_include_pad
        self.window = Window(kernel, kernel if stride is None else stride, padding, dilation, ceil)

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, C, *S_out) of x (N, C, *S)."""
        if self.kind == "max":
            return pooling.max_pool_forward(x, window=self.window)
        return pooling.avg_pool_forward(x, window=self.window, count_include_pad=self.count_include_pad)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx (N, C, *S)."""
        undo = pooling.max_pool_backward if self.kind == "max" else pooling.avg_pool_backward
        return undo(dy, saved), {}

    def cost(self, shape: Shape) -> Cost:
        """The output is kept; max pooling also keeps which tap won."""
        out = (*shape[:2], *self.window.over(shape[2:]).out)
        return Cost(out, 0, prod(out))


class GlobalPool(Layer):
    """Maximum or average over all positions: (N, C, *S) becomes (N, C).

    Args:
        kind: "max" or "avg".
    """

    def __init__(self, kind: str = "avg") -> None:
        super().__init__()
        if kind not in ("max", "avg"):
            raise ValueError(f"kind is {kind!r}, expected 'max' or 'avg'")
        self.kind = kind

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, C) of x (N, C, *S)."""
        return (
            pooling.global_max_pool_forward(x) if self.kind == "max" else pooling.global_avg_pool_forward(x)
        )

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx (N, C, *S)."""
        undo = pooling.global_max_pool_backward if self.kind == "max" else pooling.global_avg_pool_backward
        return undo(dy, saved), {}

    def cost(self, shape: Shape) -> Cost:
        """One number a channel."""
        return Cost(tuple(shape[:2]), 0, prod(shape[:2]))


class Flatten(Layer):
    """(N, C, *S) as (N, C * prod(S)): a view."""

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Shape]:
        """y (N, C * prod(S))."""
        return x.reshape(x.shape[0], prod(x.shape[1:])), x.shape

    def backward(self, dy: Array, saved: Shape) -> tuple[Array, Grads]:
        """dx (N, C, *S)."""
        return dy.reshape(saved), {}

    def cost(self, shape: Shape) -> Cost:
        """Nothing is made."""
        return Cost((shape[0], prod(shape[1:])), 0, 0)


class Dropout(Layer):
    """Inverted dropout: in training an element is 0 with probability `rate`, else scaled by 1 / (1 - rate).

    Args:
        rate: from 0 up to but not including 1.
    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from
        overfitting", section 10 (the scaling at training time).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate is {rate}, expected a number from 0 up to but not including 1")
        self.rate = rate

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y of x; x itself outside training."""
        if not train or self.rate == 0:
            return x, None
        mask = dropout_mask(needed(rng, "Dropout"), x.shape, self.rate, x.dtype, backend_name(x) or "numpy")
        return dropout_forward(x, mask)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx: the same elements dropped."""
        return (dy if saved is None else dropout_backward(dy, saved)), {}

    def cost(self, shape: Shape) -> Cost:
        """The output and the mask are kept, in training."""
        return Cost(shape, 0, 2 * prod(shape))
