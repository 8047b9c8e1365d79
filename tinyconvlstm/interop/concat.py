"""The common PyTorch ConvLSTM cell, which convolves [x, h] with one kernel; and the LSTM on [h, x].

One convolution of the concatenation is the sum of two: the kernel's first channels are w_x and the rest
w_h, or the other way round. Implementations differ in what comes first and in the order of the gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell, LSTMCell, TwoMapCell
from ..layers import Layer, Recurrent, Sequential
from ..ops.windows import Window
from .layout import (
    CONCAT_ORDER,
    LSTM_ORDER,
    Weights,
    bound,
    directions,
    of_kind,
    one_kernel,
    plain,
    reorder,
    stack,
)

CELLS = "cell_list.{}.conv."  # the usual names of a module's keys; {} is the number of the layer


def convlstm_from_pytorch(
    state: Mapping[str, Any], *, prefix: str = CELLS, order: str = CONCAT_ORDER, concat: str = "xh"
) -> Sequential:
    """The layers of a ConvLSTM whose cells have one convolution, "weight" (4F, C + F, *K), "bias" (4F,).

        z = weight * [x, h] + bias = w_x * x + w_h * h + b

    Without spatial axes it is the LSTM that multiplies one matrix with [x, h] or [h, x].

    Args:
        state: a state_dict; biases may be missing.
        prefix: of the keys of one layer, with {} for its number; without {} there is one layer.
        order: of the gates along the first axis; g is the candidate.
        concat: "xh" where the input comes first, "hx" where the state does.
    Returns:
        A chain of `Recurrent` layers, on (T, N, C, *S).
    Raises:
        ValueError: a key is missing or unknown, a shape does not fit, or a kernel is even: such a cell
            pads k // 2 pixels at both ends, and its state would grow by one at every step.
    """
    check_concat(concat)
    before, braces, after = prefix.partition("{}")
    weights, layers = Weights(state, before), list[Layer]()
    while True:
        key = f"{len(layers) if braces else ''}{after}"
        layers.append(Recurrent(cell_from(weights, key, order, concat)))
        if not braces or f"{len(layers)}{after}weight" not in weights:
            break
    weights.done()
    return Sequential(*layers)


def convlstm_to_pytorch(
    layer: Layer | TwoMapCell, *, prefix: str = CELLS, order: str = CONCAT_ORDER, concat: str = "xh"
) -> dict[str, Array]:
    """The state_dict that `convlstm_from_pytorch` reads.

    Args:
        layer: a chain of `Recurrent` layers, one of them, or a cell.
        prefix, order, concat: as there.
    Raises:
        ValueError: a cell is no plain LSTM with one odd kernel, padded by k // 2, or reads backwards.
    """
    check_concat(concat)
    layers, state = stack(layer), dict[str, Array]()
    if len(layers) > 1 and "{}" not in prefix:
        raise ValueError(f"prefix is {prefix!r}, expected {{}} in it for the numbers of {len(layers)} layers")
    for k, part in enumerate(layers):
        ways = directions(part)
        if [reverse for _, reverse in ways] != [False]:
            raise ValueError("layer reads backwards, expected one that reads forwards")
        state |= {prefix.replace("{}", str(k)) + n: a for n, a in cell_to(ways[0][0], order, concat).items()}
    return state


def cell_from(weights: Weights, key: str, order: str, concat: str) -> LSTMCell:
    """One cell, from the kernel of the concatenation."""
    w = weights.take(f"{key}weight", (None,) * weights.rank(f"{key}weight", 2))
    F, kernel = w.shape[0] // 4, w.shape[2:]
    C = w.shape[1] - F
    if w.shape[0] % 4 or C < 1:
        raise ValueError(
            f"{weights.prefix}{key}weight has shape {w.shape}, expected (4 F, C + F, *K) with C at least 1"
        )
    check_odd(kernel)
    b = weights.optional(f"{key}bias", w.shape[:1])
    w = reorder(w, order, LSTM_ORDER)
    w_x, w_h = (w[:, :C], w[:, C:]) if concat == "xh" else (w[:, F:], w[:, :F])
    b = np.zeros(4 * F, w.dtype) if b is None else reorder(b, order, LSTM_ORDER)
    build = ConvLSTMCell if kernel else LSTMCell
    cell: LSTMCell = bound(build(C, F, kernel, dtype=w.dtype), {"w_x": w_x, "w_h": w_h, "b": b})
    return cell


def cell_to(cell: Any, order: str, concat: str) -> dict[str, Array]:
    """The kernel of the concatenation, and the bias."""
    framework = "a convolution of [x, h]"
    cell = of_kind(cell, [LSTMCell, ConvLSTMCell], framework)
    plain(cell, framework)
    one_kernel(cell, framework)
    check_odd(cell.kernel)
    half, m = tuple((k // 2, k // 2) for k in cell.kernel), cell.input_map
    if m.over(cell.kernel) != Window(cell.kernel, padding=half).over(cell.kernel):
        raise ValueError(
            f"stride, padding, dilation are {m.stride}, {m.padding!r}, {m.dilation}, "
            f"expected 1, 'same', 1: {framework} reads both alike"
        )
    w_x, w_h = cell.params["w_x"], cell.params["w_h"]
    w = np.concatenate([w_x, w_h] if concat == "xh" else [w_h, w_x], axis=1)
    return {
        "weight": reorder(w, LSTM_ORDER, order),
        "bias": reorder(cell.params["b"], LSTM_ORDER, order).copy(),
    }


def check_odd(kernel: tuple[int, ...]) -> None:
    """ValueError where a size of the kernel is even."""
    if any(k % 2 == 0 for k in kernel):
        raise ValueError(
            f"kernel is {kernel}, expected odd sizes: padded by k // 2 at both ends, an even one lets the state grow"
        )


def check_concat(concat: str) -> None:
    """ValueError unless it says which comes first."""
    if concat not in ("xh", "hx"):
        raise ValueError(f"concat is {concat!r}, expected 'xh' or 'hx'")
