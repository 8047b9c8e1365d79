"""Activation functions, element by element, and the two that look along an axis.

Each keeps only what its derivative needs: the output where that is enough, for it exists anyway.
Branches are chosen by the real part, so that the complex-step check can run through them.

Sources: Nair & Hinton 2010 (ReLU); Maas, Hannun, Ng 2013 (leaky ReLU); Hendrycks & Gimpel 2016,
arXiv 1606.08415 (GELU and its tanh form).
"""

from __future__ import annotations

from math import pi, sqrt
from typing import NamedTuple

from ..backend import Array, array_module
from .erf import REACH, erf


class OutputSaved(NamedTuple):
    """The output of the forward call; enough where the derivative can be read off it."""

    y: Array


class InputSaved(NamedTuple):
    """The input of the forward call, and its setting."""

    x: Array
    setting: float | str


class AxisSaved(NamedTuple):
    """The output of the forward call, and the axis along which it was normalised."""

    y: Array
    axis: int


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) = (tanh(x / 2) + 1) / 2, in which no exponential overflows."""
    return sigmoid_in_place(array_module(x).asarray(0.5 * x))


def sigmoid_in_place(half: Array) -> Array:
    """sigmoid(2 * half), written over `half`, which belongs to the caller."""
    array_module(half).tanh(half, out=half)
    half *= 0.5
    half += 0.5
    return half


def sigmoid_forward(x: Array) -> tuple[Array, OutputSaved]:
    """y = 1 / (1 + exp(-x)) = (tanh(x / 2) + 1) / 2."""
    y = sigmoid(x)
    return y, OutputSaved(y)


def sigmoid_backward(dy: Array, saved: OutputSaved) -> Array:
    """dx = dy * y * (1 - y)."""
    return dy * saved.y * (1 - saved.y)


def tanh_forward(x: Array) -> tuple[Array, OutputSaved]:
    """y = tanh(x)."""
    y = array_module(x).tanh(x)
    return y, OutputSaved(y)


def tanh_backward(dy: Array, saved: OutputSaved) -> Array:
    """dx = dy * (1 - y^2)."""
    return dy * (1 - saved.y * saved.y)


def relu_forward(x: Array) -> tuple[Array, OutputSaved]:
    """y = max(x, 0); NaN stays NaN."""
    y = array_module(x).where(x.real <= 0, 0, x)
    return y, OutputSaved(y)


def relu_backward(dy: Array, saved: OutputSaved) -> Array:
    """dx = dy where x > 0, else 0: of the subgradients at x = 0, the 0."""
    return array_module(dy=dy, y=saved.y).where(saved.y.real <= 0, 0, dy)


def leaky_relu_forward(x: Array, *, slope: float = 0.01) -> tuple[Array, InputSaved]:
    """y = x where x > 0, else slope * x; `slope` 0.01 as in Maas et al. 2013."""
    return array_module(x).where(x.real > 0, x, slope * x), InputSaved(x, slope)


def leaky_relu_backward(dy: Array, saved: InputSaved) -> Array:
    """dx = dy where x > 0, else slope * dy."""
    x, slope = saved
    return array_module(dy=dy, x=x).where(x.real > 0, dy, slope * dy)


def gelu_forward(x: Array, *, approximate: str = "none") -> tuple[Array, InputSaved]:
    """x times the probability that a standard normal number is smaller.

        y = x * Phi(x)          Phi(x) = (1 + erf(x / sqrt(2))) / 2
        y = x * P(x)            P(x)   = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2

    Args:
        x: any shape.
        approximate: "none" for the first line, "tanh" for the second.
    Returns:
        y like x and what `gelu_backward` needs.
    Source: Hendrycks & Gimpel 2016, section 2.
    """
    return x * gelu_gate(x, approximate)[0], InputSaved(x, approximate)


def gelu_backward(dy: Array, saved: InputSaved) -> Array:
    """dx = dy * (P(x) + x * P'(x)).

        Phi'(x) = exp(-x^2 / 2) / sqrt(2 pi)
        P'(x)   = 2 P (1 - P) * sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)       P = (1 + tanh(u)) / 2

    Args:
        dy: like y.
        saved: from `gelu_forward`.
    Returns:
        dx like x.
    """
    x, approximate = saved
    gate, x_slope = gelu_gate(x, str(approximate))
    return dy * (gate + x_slope)


def gelu_gate(x: Array, approximate: str) -> tuple[Array, Array]:
    """P(x) and x * P'(x). Beyond |x| = sqrt(2) REACH, P is 0 or 1 and the slope 0 to rounding."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is {approximate!r}, expected 'none' or 'tanh'")
    xp = array_module(x)
    edge = sqrt(2) * REACH
    x = xp.where(x.real > edge, edge, xp.where(x.real < -edge, -edge, x))  # no overflow in x^2, x^3
    if approximate == "none":
        return 0.5 * (1 + erf(x / sqrt(2))), x * xp.exp(-0.5 * x * x) / sqrt(2 * pi)
    gate = sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x * x * x))  # (1 + tanh(u)) / 2 = sigmoid(2 u)
    return gate, x * 2 * gate * (1 - gate) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)


def softmax_forward(x: Array, *, axis: int = 1) -> tuple[Array, AxisSaved]:
    """y = exp(x) / sum exp(x) along `axis`; the largest x is subtracted first, so nothing overflows."""
    e = array_module(x).exp(x - x.real.max(axis=axis, keepdims=True))
    y = e / e.sum(axis=axis, keepdims=True)
    return y, AxisSaved(y, axis)


def softmax_backward(dy: Array, saved: AxisSaved) -> Array:
    """dx = y * (dy - sum(dy * y)), for dy_i / dx_j = y_i (1[i = j] - y_j)."""
    y, axis = saved
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


def log_softmax_forward(x: Array, *, axis: int = 1) -> tuple[Array, AxisSaved]:
    """y = x - log sum exp(x) along `axis`, the largest x subtracted first."""
    xp = array_module(x)
    x = x - x.real.max(axis=axis, keepdims=True)
    y = x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True))
    return y, AxisSaved(y, axis)


def log_softmax_backward(dy: Array, saved: AxisSaved) -> Array:
    """dx = dy - softmax(x) * sum(dy), and softmax(x) = exp(y)."""
    y, axis = saved
    return dy - array_module(dy=dy, y=y).exp(y) * dy.sum(axis=axis, keepdims=True)
