"""Layers with weights: dense, convolution, transposed convolution, embedding."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import Array
from ..init import glorot_uniform
from ..ops.conv import conv_backward, conv_forward
from ..ops.conv_transpose import conv_transpose_backward, conv_transpose_forward, transposed
from ..ops.embedding import embedding_backward, embedding_forward
from ..ops.linear import linear_backward, linear_forward
from ..ops.windows import Padding, Window
from .base import Grads, Layer, Rng, Shape
from .summary import Cost, conv_macs


class Dense(Layer):
    """y = x w^T + b on the last axis; any axes before it are a batch.

    Args:
        channels, features: C and F.
        bias: False leaves b out.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: w (F, C), b (F,).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        bias: bool = True,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.params["w"] = glorot_uniform(np.random.default_rng(rng), (features, channels), dtype)
        if bias:
            self.params["b"] = np.zeros(features, dtype)

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (..., F) of x (..., C)."""
        return linear_forward(x, self.params["w"], self.params.get("b"))

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of w and b."""
        return gradients(linear_backward(dy, saved))

    def cost(self, shape: Shape) -> Cost:
        """C * F multiply-accumulates for each row of the batch."""
        features, channels = self.params["w"].shape
        check_channels(shape, -1, channels, "Dense")
        out = (*shape[:-1], features)
        return Cost(out, prod(shape[:-1]) * features * channels, prod(out))


class Conv(Layer):
    """Convolution (cross-correlation) over 0 to 3 spatial axes.

    Args:
        channels, features: C and F.
        kernel: K, one int a spatial axis; a single int means two axes.
        stride, padding, dilation: as `Window`. groups: as `conv_forward`.
        bias: False leaves b out.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: w (F, C / groups, *K), b (F,).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int | Shape,
        *,
        stride: int | Shape = 1,
        padding: Padding = "same",
        dilation: int | Shape = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        if groups < 1 or channels % groups or features % groups:
            raise ValueError(
                f"groups is {groups}, expected a divisor of {channels} channels and of {features} features"
            )
        self.window, self.groups = Window(kernel, stride, padding, dilation), groups
        shape = self.weight_shape(channels, features, groups, kernel)
        self.params["w"] = glorot_uniform(np.random.default_rng(rng), shape, dtype)
        if bias:
            self.params["b"] = np.zeros(features, dtype)

    @staticmethod
    def weight_shape(channels: int, features: int, groups: int, kernel: Shape) -> Shape:
        """(F, C / groups, *K)."""
        return (features, channels // groups, *kernel)

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, F, *S_out) of x (N, C, *S)."""
        w, b = self.params["w"], self.params.get("b")
        return conv_forward(x, w, b, window=self.window, groups=self.groups)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of w and b."""
        return gradients(conv_backward(dy, saved))

    def cost(self, shape: Shape) -> Cost:
        """prod(w.shape) multiply-accumulates at every output position."""
        w = self.params["w"]
        check_channels(shape, 1, w.shape[1] * self.groups, "Conv")
        sizes = self.window.over(shape[2:]).out
        out = (shape[0], w.shape[0], *sizes)
        return Cost(out, conv_macs(w.shape, shape[0], prod(sizes)), prod(out))


class ConvTranspose(Conv):
    """Transposed convolution, the adjoint of `Conv`: with stride s it enlarges the image s times.

    Args:
        output_padding: pixels added at the end of the output; the others as `Conv`.
    Parameters: w (C, F / groups, *K), b (F,).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int | Shape,
        *,
        output_padding: int | Shape = 0,
        **settings: Any,
    ) -> None:
        super().__init__(channels, features, kernel, **settings)
        self.output_padding = output_padding

    @staticmethod
    def weight_shape(channels: int, features: int, groups: int, kernel: Shape) -> Shape:
        """(C, F / groups, *K)."""
        return (channels, features // groups, *kernel)

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (N, F, *S_out) of x (N, C, *S)."""
        w, b = self.params["w"], self.params.get("b")
        window, groups, more = self.window, self.groups, self.output_padding
        return conv_transpose_forward(x, w, b, window=window, groups=groups, output_padding=more)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and the gradients of w and b."""
        return gradients(conv_transpose_backward(dy, saved))

    def cost(self, shape: Shape) -> Cost:
        """prod(w.shape) multiply-accumulates at every input position."""
        w = self.params["w"]
        check_channels(shape, 1, w.shape[0], "ConvTranspose")
        sizes = transposed(self.window, shape[2:], self.output_padding).sizes
        out = (shape[0], w.shape[1] * self.groups, *sizes)
        return Cost(out, conv_macs(w.shape, shape[0], prod(shape[2:])), prod(out))


class Embedding(Layer):
    """A learned vector for each of `count` ids.

    Args:
        count: ids are 0 .. count - 1.
        features: length D of a vector.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: w (count, D), drawn from a normal distribution of standard deviation 1.
    """

    def __init__(
        self, count: int, features: int, *, rng: np.random.Generator | int = 0, dtype: Any = np.float32
    ) -> None:
        super().__init__()
        self.params["w"] = np.random.default_rng(rng).standard_normal((count, features)).astype(dtype)

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """Vectors (..., D) of the ids x (...)."""
        return embedding_forward(x, self.params["w"])

    def backward(self, dy: Array, saved: Any) -> tuple[None, Grads]:
        """None, because ids have no gradient, and the gradient of w."""
        return None, {"w": embedding_backward(dy, saved)}

    def cost(self, shape: Shape) -> Cost:
        """A look-up multiplies nothing."""
        out = (*shape, self.params["w"].shape[1])
        return Cost(out, 0, prod(out))


def gradients(found: tuple[Any, ...]) -> tuple[Any, Grads]:
    """(dx, dw, db) of a pair as (dx, {"w": dw, "b": db}), without an absent b."""
    dx, dw, db = found
    return dx, {"w": dw} if db is None else {"w": dw, "b": db}


def check_channels(shape: Shape, axis: int, expected: int, kind: str) -> None:
    """ValueError when an input shape has another number of channels than a layer expects."""
    if len(shape) < 2 or shape[axis] != expected:
        raise ValueError(
            f"{kind} expects {expected} channels on axis {axis}, the input shape is {tuple(shape)}"
        )
