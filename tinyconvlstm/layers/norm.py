"""Normalisation layers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import Array
from ..ops.norm import (
    BatchNormSaved,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
    group_norm_backward,
    group_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from .base import Grads, Layer, Rng, Shape
from .summary import Cost


class BatchNorm(Layer):
    """Batch normalisation of (N, C, *S): batch statistics in training, running ones otherwise.

    A forward pass changes nothing. `update_buffers(saved)`, which the training loop calls once a
    step, moves the running statistics:  running += momentum * (batch - running), with the unbiased
    variance.

    Args:
        channels: C.
        eps: added to the variance. momentum: share of the new batch, 0.1 as PyTorch has it.
        dtype: of the parameters and buffers.
    Parameters: gamma (C,), beta (C,). Buffers: mean (C,), var (C,).
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, dtype: Any = np.float32
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.params = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
        self.buffers = {"mean": np.zeros(channels, dtype), "var": np.ones(channels, dtype)}

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, C, *S) of x (N, C, *S)."""
        gamma, beta = self.params["gamma"], self.params["beta"]
        if train:
            return batch_norm_forward(x, gamma, beta, eps=self.eps)
        return batch_norm_inference_forward(x, gamma, beta, **self.buffers, eps=self.eps)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of gamma and beta."""
        undo = batch_norm_backward if isinstance(saved, BatchNormSaved) else batch_norm_inference_backward
        return named(undo(dy, saved))

    def update_buffers(self, saved: Any) -> None:
        """Move the running statistics towards those of a training batch."""
        if isinstance(saved, BatchNormSaved):
            unbiased = saved.var * (saved.members / (saved.members - 1))
            self.buffers["mean"] += self.momentum * (saved.mean - self.buffers["mean"])
            self.buffers["var"] += self.momentum * (unbiased - self.buffers["var"])

    def cost(self, shape: Shape) -> Cost:
        """The output and the standardised input are kept, and a few numbers a channel."""
        return Cost(shape, 0, 2 * prod(shape) + 3 * shape[1])


class LayerNorm(Layer):
    """Normalise the last axes of every sample.

    Args:
        shape: of the axes to normalise: (C,) for (N, C), (C, *S) for (N, C, *S).
        eps: added to the variance. dtype: of the parameters.
    Parameters: gamma, beta of that shape.
    """

    def __init__(self, shape: int | Shape, *, eps: float = 1e-5, dtype: Any = np.float32) -> None:
        super().__init__()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.eps = eps
        self.params = {"gamma": np.ones(shape, dtype), "beta": np.zeros(shape, dtype)}

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y of the shape of x."""
        return layer_norm_forward(x, self.params["gamma"], self.params["beta"], eps=self.eps)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of gamma and beta."""
        return named(layer_norm_backward(dy, saved))

    def cost(self, shape: Shape) -> Cost:
        """The output and the standardised input are kept, and one number a sample."""
        return Cost(shape, 0, 2 * prod(shape) + prod(shape) // self.params["gamma"].size)


class GroupNorm(Layer):
    """Normalise groups of channels within every sample.

    Args:
        channels: C. groups: a divisor of C.
        eps: added to the variance. dtype: of the parameters.
    Parameters: gamma (C,), beta (C,).
    """

    def __init__(self, channels: int, groups: int, *, eps: float = 1e-5, dtype: Any = np.float32) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(f"groups is {groups}, expected a divisor of {channels} channels")
        self.groups, self.eps = groups, eps
        self.params = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, C, *S) of x (N, C, *S)."""
        gamma, beta = self.params["gamma"], self.params["beta"]
        return group_norm_forward(x, gamma, beta, groups=self.groups, eps=self.eps)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of gamma and beta."""
        return named(group_norm_backward(dy, saved))

    def cost(self, shape: Shape) -> Cost:
        """The output and the standardised input are kept, and one number a group."""
        return Cost(shape, 0, 2 * prod(shape) + shape[0] * self.groups)


def named(found: tuple[Any, ...]) -> tuple[Any, Grads]:
    """(dx, dgamma, dbeta) as (dx, grads)."""
    dx, dgamma, dbeta = found
    return dx, {"gamma": dgamma, "beta": dbeta}
