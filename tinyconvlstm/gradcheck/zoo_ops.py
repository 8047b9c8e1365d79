"""The operations' part of the zoo: small random cases of every pure pair but the gates.

Sizes are odd and unequal on every axis and weights are asymmetric, so that exchanged axes, flipped
kernels and swapped arguments change the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array
from ..ops import Geometry, Window
from .case import Case, pair_case

Rng = np.random.Generator


def op_cases(rng: Rng) -> list[Case]:
    """Cases of every operation.

    Args:
        rng: a NumPy Generator; it draws the arguments.
    Returns:
        Cases with float64 arguments. Where max, ReLU or abs take part, the values keep well away from
        the kinks, and `analytic` is False.
    """
    return [
        *window_cases(rng),
        *conv_cases(rng),
        *pool_cases(rng),
        *activation_cases(rng),
        *norm_cases(rng),
        *loss_cases(rng),
        *other_cases(rng),
    ]


def window_cases(rng: Rng) -> list[Case]:
    """im2col and col2im, each the other's backward."""
    cases = []
    for name, shape, window in [
        ("1d", (2, 3, 7), Window(3, 2, 1, 2)),
        ("2d", (2, 2, 5, 4), Window((3, 2), (2, 1), ((1, 0), (0, 2)))),
        ("3d", (1, 2, 3, 4, 2), Window(2, padding="same")),
        ("0d", (3, 2), Window(())),
    ]:
        g = window.over(shape[2:])
        columns = (shape[0], shape[1] * g.taps, g.positions)
        cases += [
            map_case(f"im2col {name}", ops.im2col, ops.col2im, g, normal(rng, *shape)),
            map_case(f"col2im {name}", ops.col2im, ops.im2col, g, normal(rng, *columns)),
        ]
    return cases


def conv_cases(rng: Rng) -> list[Case]:
    """Convolution, transposed convolution, linear and patches."""

    def conv(noun: str, detail: str, x: Any, w: Any, b: int, *window: Any, **settings: Any) -> Case:
        arrays = {"x": normal(rng, *x), "w": normal(rng, *w), "b": normal(rng, b)}
        if window:
            settings["window"] = Window(w[2:], *window)  # stride, padding, dilation
        return op_case(noun, detail, arrays, **settings)

    uneven = ((2, 1), ((2, 0), (0, 1)), (1, 2))
    up = "conv_transpose"
    return [
        conv("conv", "1d", (2, 3, 7), (4, 3, 3), 4, 2, "same_lower"),
        conv("conv", "2d even kernel", (2, 3, 4, 5), (4, 3, 2, 3), 4, 1, "same"),
        conv("conv", "2d strided, dilated, grouped", (2, 4, 5, 6), (6, 2, 3, 2), 6, *uneven, groups=2),
        conv("convolve", "2d strided, dilated, grouped", (2, 4, 5, 6), (6, 2, 3, 2), 6, *uneven, groups=2),
        conv("conv", "2d depthwise", (1, 3, 4, 5), (3, 1, 3, 2), 3, groups=3),
        conv("conv", "3d", (2, 2, 3, 4, 3), (3, 2, 2, 3, 1), 3, 1, 1),
        conv("conv", "0d", (3, 4), (5, 4), 5),
        conv("conv", "2d by Winograd", (1, 96, 12, 16), (96, 96, 3, 3), 96, 1, "same"),
        conv("conv", "2d dilated by Winograd", (1, 96, 16, 16), (96, 96, 3, 3), 96, 1, "same", 2),
        conv("conv", "3d by Winograd", (1, 36, 4, 8, 8), (36, 36, 3, 3, 3), 36, 1, "same"),
        conv(up, "1d grouped", (2, 4, 3), (4, 3, 3), 6, 2, 1, groups=2, output_padding=1),
        conv(up, "2d", (2, 3, 3, 4), (3, 2, 3, 2), 2, (2, 3), (1, 0), output_padding=(1, 2)),
        conv(up, "2d same", (1, 2, 2, 3), (2, 3, 2, 3), 3, 2, "same"),
        conv(up, "3d dilated", (1, 2, 2, 3, 2), (2, 3, 2, 1, 3), 3, 1, 0, 2),
        conv(up, "0d", (3, 4), (4, 2), 2),
        conv("linear", "", (2, 3, 4), (5, 4), 5),
        op_case("space_to_depth", "", {"x": normal(rng, 2, 3, 4, 6)}, patch=(2, 3)),
        op_case("depth_to_space", "", {"x": normal(rng, 2, 12, 3, 2)}, patch=(2, 3)),
    ]


def pool_cases(rng: Rng) -> list[Case]:
    """Pooling: the largest pixels, away from ties, and the means."""
    hanging = Window((3, 2), (2, 3), (1, 0), ceil=True)
    image = {"x": separated(rng, 2, 3, 6, 5)}
    line, volume = {"x": separated(rng, 2, 3, 7)}, {"x": separated(rng, 1, 2, 3, 4, 3)}
    dilated = Window((2, 3), (2, 1), (1, 0), (2, 1))
    return [
        op_case("max_pool", "1d", line, analytic=False, window=Window(3, 2)),
        op_case("max_pool", "2d dilated", image, analytic=False, window=dilated),
        op_case("max_pool", "2d ceil", image, analytic=False, window=hanging),
        op_case("max_pool", "3d", volume, analytic=False, window=Window(2)),
        op_case("avg_pool", "1d", line, window=Window(3, 2, 1)),
        op_case("avg_pool", "2d ceil", image, window=hanging),
        op_case("avg_pool", "2d ceil, without pad", image, window=hanging, count_include_pad=False),
        op_case("avg_pool", "3d", volume, window=Window(2, padding="same")),
        op_case("global_max_pool", "", image, analytic=False),
        op_case("global_avg_pool", "", image),
    ]


def activation_cases(rng: Rng) -> list[Case]:
    """Activation functions; ReLU and leaky ReLU away from 0."""
    x, apart = {"x": 2 * normal(rng, 2, 4, 3)}, {"x": separated(rng, 2, 4, 3)}
    return [
        op_case("sigmoid", "", x),
        op_case("tanh", "", x),
        op_case("relu", "", apart, analytic=False),
        op_case("leaky_relu", "", apart, analytic=False, slope=0.1),
        op_case("gelu", "", x),
        op_case("gelu", "tanh", x, approximate="tanh"),
        op_case("softmax", "", x),
        op_case("softmax", "last axis", x, axis=-1),
        op_case("log_softmax", "", x),
        op_case("log_softmax", "last axis", x, axis=-1),
    ]


def norm_cases(rng: Rng) -> list[Case]:
    """Normalisations, training and inference."""
    image = {"x": normal(rng, 3, 4, 2, 5) + 1, "gamma": normal(rng, 4), "beta": normal(rng, 4)}
    vector = {"x": normal(rng, 5, 3), "gamma": normal(rng, 3), "beta": normal(rng, 3)}
    whole = {"x": normal(rng, 3, 4, 5), "gamma": normal(rng, 4, 5), "beta": normal(rng, 4, 5)}
    running = {"mean": normal(rng, 4), "var": rng.uniform(0.5, 2, 4)}
    return [
        op_case("batch_norm", "2d", image),
        op_case("batch_norm", "0d", vector),
        op_case("batch_norm_inference", "", image, **running),
        op_case("layer_norm", "", vector),
        op_case("layer_norm", "two axes", whole, eps=0.01),
        op_case("group_norm", "", image, groups=2),
    ]


def loss_cases(rng: Rng) -> list[Case]:
    """Losses, mean and sum, with and without mask; the distance to the target is never 0 nor delta."""
    mask = np.array([[True, False, True], [True, True, False]])  # (N, S)
    pixels = mask[:, None]
    y, target = normal(rng, 2, 4, 3), normal(rng, 2, 4, 3)
    apart = target + separated(rng, 2, 4, 3)
    q = rng.dirichlet(np.ones(4), (2, 3)).swapaxes(1, 2)  # (N, C, S), sums to 1 over C
    labels = rng.integers(0, 4, (2, 3))
    bce, ce = "binary_cross_entropy", "cross_entropy"
    return [
        loss_case("mse", "", y, target),
        loss_case("mse", "sum, masked", y, target, reduction="sum", mask=pixels),
        loss_case("mae", "", apart, target, analytic=False),
        loss_case("mae", "masked", apart, target, analytic=False, mask=pixels),
        loss_case("huber", "masked", apart, target, analytic=False, delta=0.6, mask=pixels),
        loss_case(bce, "sum", 3 * y, q, reduction="sum"),
        loss_case(bce, "masked", 3 * y, q, mask=pixels),
        loss_case(ce, "smoothed", y, labels, label_smoothing=0.1),
        loss_case(ce, "masked", y, labels, mask=mask),
        loss_case(ce, "soft, sum", y, q, reduction="sum"),
        loss_case(ce, "soft, smoothed, masked", y, q, label_smoothing=0.2, mask=mask),
        loss_case("distillation", "", y, labels, teacher=2 * target, temperature=1.7, weight=0.6),
        loss_case(
            "distillation", "masked", y, labels, teacher=target, temperature=0.8, weight=0.3, mask=mask
        ),
        loss_case("distillation", "soft, sum", y, q, teacher=target, weight=0.8, reduction="sum"),
    ]


def other_cases(rng: Rng) -> list[Case]:
    """Dropout with a fixed mask, and embedding with repeated indices."""
    mask = ops.dropout_mask(rng, (2, 4, 3), 0.3, np.float64)
    indices = np.array([[0, 3, 3], [1, 0, 3]])  # 2 is never looked up, 3 three times
    dropout, embedding = pair("dropout"), pair("embedding")
    return [
        pair_case("dropout", lambda x: dropout[0](x, mask), dropout[1], {"x": normal(rng, 2, 4, 3)}),
        pair_case("embedding", lambda w: embedding[0](indices, w), embedding[1], {"w": normal(rng, 5, 4)}),
    ]


def pair(noun: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`noun_forward` and `noun_backward` of the operations."""
    return getattr(ops, f"{noun}_forward"), getattr(ops, f"{noun}_backward")


def op_case(noun: str, detail: str, arrays: dict[str, Array], **settings: Any) -> Case:
    """A case of the pair `noun`; the settings are those of `pair_case` and of its forward."""
    return pair_case(f"{noun} {detail}".strip(), *pair(noun), arrays, **settings)


def map_case(
    name: str, linear: Callable[..., Array], adjoint: Callable[..., Array], geometry: Geometry, x: Array
) -> Case:
    """A linear map whose backward is its adjoint."""
    return pair_case(name, lambda x: (linear(x, geometry), geometry), adjoint, {"x": x})


def loss_case(
    noun: str, detail: str, y: Array, target: Array, *, analytic: bool = True, **settings: Any
) -> Case:
    """A loss as a function of its prediction alone; its target is data."""
    forward, backward = pair(noun)
    return pair_case(
        f"{noun} {detail}".strip(),
        lambda y: forward(y, target, **settings),
        backward,
        {"y": y},
        outputs=("loss",),
        analytic=analytic,
    )


def normal(rng: Rng, *shape: int) -> Array:
    """Standard normal numbers."""
    return rng.standard_normal(shape)


def separated(rng: Rng, *shape: int) -> Array:
    """Numbers on both sides of 0, all at least 0.1 apart and none nearer to 0 than 0.03."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size // 2) * 0.1 + 0.03).reshape(shape)
