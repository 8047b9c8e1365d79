"""Weights of Keras layers, as `get_weights()` lists them, to and from our cells and layers.

Keras stacks an LSTM's gates as we do (it calls the candidate c) and a GRU's as z, r, h: update, reset,
candidate. Its matrices and kernels end with (C, F), its data with the channels: see `batch_first`. Its
"same" padding is ours, for every kernel and stride. Sigmoid and tanh are its default activations;
versions before 3 had a piecewise linear "hard_sigmoid" in ConvLSTM2D, which these cells do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell
from ..layers import Conv
from .layout import (
    GRU_ORDER,
    KERAS_GRU_ORDER,
    Weights,
    bound,
    channels_first,
    channels_last,
    entries,
    keyed,
    of_kind,
    one_kernel,
    pairs,
    plain,
    reorder,
)

RECURRENT = ("kernel", "recurrent_kernel", "bias")
PLAIN = ("kernel", "bias")


def lstm_from_keras(weights: Sequence[Any]) -> LSTMCell:
    """The cell of a Keras `LSTM`.

    Args:
        weights: [kernel (C, 4F), recurrent_kernel (F, 4F), bias (4F,)], or without the bias; of a
            `Bidirectional` one the forward layer's come first.
    Returns:
        The cell; scan it with `Recurrent`. Keras's input is (N, T, C), ours (T, N, C).
    Raises:
        ValueError: an array is missing or one too many, or a shape does not fit.
    """
    taken = Weights(keyed(weights, RECURRENT))
    w_x, w_h, b = recurrent_arrays(taken, 4, 0)
    b = np.zeros(len(w_x), w_x.dtype) if b is None else b
    cell: LSTMCell = bound(
        LSTMCell(w_x.shape[1], w_h.shape[1], dtype=w_x.dtype), {"w_x": w_x, "w_h": w_h, "b": b}
    )
    return cell


def lstm_to_keras(cell: LSTMCell) -> list[Array]:
    """[kernel, recurrent_kernel, bias] of a plain dense LSTM, for `set_weights`."""
    cell = of_kind(cell, [LSTMCell], "Keras")
    plain(cell, "Keras")
    check_dense(cell)
    return in_keras(cell)


def gru_from_keras(weights: Sequence[Any], *, reset_after: bool = True) -> GRUCell | ResetBeforeGRUCell:
    """The cell of a Keras `GRU`.

    Args:
        weights: [kernel (C, 3F), recurrent_kernel (F, 3F), bias], the bias (2, 3F) with reset_after and
            (3F,) without, or none.
        reset_after: as the layer was built: whether the reset gate acts after the state map.
    Returns:
        A `GRUCell` with reset_after, else a `ResetBeforeGRUCell`.
    Raises:
        ValueError: an array is missing or one too many, or a shape does not fit.
    """
    taken = Weights(keyed(weights, RECURRENT))
    w_x, w_h, b = recurrent_arrays(taken, 3, 0, biases=2 if reset_after else 0)
    C, F = w_x.shape[1], w_h.shape[1]
    w_x, w_h = (reorder(w, KERAS_GRU_ORDER, GRU_ORDER) for w in (w_x, w_h))
    b = np.zeros((2, 3 * F) if reset_after else 3 * F, w_x.dtype) if b is None else b
    b = reorder(b, KERAS_GRU_ORDER, GRU_ORDER, axis=-1)
    if not reset_after:
        before: ResetBeforeGRUCell = bound(
            ResetBeforeGRUCell(C, F, dtype=b.dtype), {"w_x": w_x, "w_h": w_h, "b": b}
        )
        return before
    first, second = b[0].copy(), b[1]
    first[: 2 * F] += second[: 2 * F]
    params = {"w_x": w_x, "w_h": w_h, "b": first, "b_hn": second[2 * F :]}
    after: GRUCell = bound(GRUCell(C, F, dtype=b.dtype), params)
    return after


def gru_to_keras(cell: GRUCell | ResetBeforeGRUCell) -> tuple[list[Array], dict[str, Any]]:
    """The weights of a dense GRU, and {"reset_after": ...} to build its Keras layer with."""
    cell = of_kind(cell, [GRUCell, ResetBeforeGRUCell], "Keras")
    check_dense(cell)
    kernel, recurrent, b = (reorder(a, GRU_ORDER, KERAS_GRU_ORDER, axis=-1) for a in in_keras(cell))
    after = isinstance(cell, GRUCell)
    if after:
        second = np.concatenate([np.zeros(2 * cell.features, b.dtype), cell.params["b_hn"]])
        b = np.stack([b, reorder(second, GRU_ORDER, KERAS_GRU_ORDER)])
    return [kernel, recurrent, b], {"reset_after": after}


def convlstm_from_keras(
    weights: Sequence[Any], *, strides: Any = 1, padding: str = "valid", dilation_rate: Any = 1
) -> ConvLSTMCell:
    """The cell of a Keras `ConvLSTM1D`, `ConvLSTM2D` or `ConvLSTM3D`.

    Args:
        weights: [kernel (*K, C, 4F), recurrent_kernel (*K, F, 4F), bias (4F,)], or without the bias.
        strides, padding, dilation_rate: of the input map, as the layer was built, by the same defaults.
    Returns:
        The cell. Keras's input is (N, T, *S, C), ours (T, N, C, *S): see `batch_first`.
    Raises:
        ValueError: an array is missing or one too many, a shape does not fit, or padding is unknown.
    """
    check_padding(padding, ("valid", "same"))
    taken = Weights(keyed(weights, RECURRENT))
    rank = taken.rank("kernel", 3) - 2
    w_x, w_h, b = recurrent_arrays(taken, 4, rank)
    b = np.zeros(len(w_x), w_x.dtype) if b is None else b
    C, F, kernel = w_x.shape[1], w_h.shape[1], w_x.shape[2:]
    settings = {"stride": strides, "padding": padding, "dilation": dilation_rate, "dtype": w_x.dtype}
    cell: ConvLSTMCell = bound(ConvLSTMCell(C, F, kernel, **settings), {"w_x": w_x, "w_h": w_h, "b": b})
    return cell


def convlstm_to_keras(cell: LSTMCell) -> tuple[list[Array], dict[str, Any]]:
    """The weights of a convolutional LSTM, and the keyword arguments to build its Keras layer with.

    Raises:
        ValueError: the cell has peepholes, another kernel or a dilation for the state, or a padding that
            is neither "valid" nor "same".
    """
    cell = of_kind(cell, [LSTMCell, ConvLSTMCell], "Keras")
    plain(cell, "Keras")
    if not 1 <= len(cell.kernel) <= 3:
        raise ValueError(
            f"cell has kernel {cell.kernel}, expected 1 to 3 axes: the dense one is lstm_to_keras"
        )
    one_kernel(cell, "Keras")
    settings = layer_settings(cell.input_map, cell.kernel)
    return in_keras(cell), {"filters": cell.features, **settings}


def conv_from_keras(
    weights: Sequence[Any],
    *,
    strides: Any = 1,
    padding: str = "valid",
    dilation_rate: Any = 1,
    groups: int = 1,
) -> Conv:
    """The layer of a Keras `Conv1D`, `Conv2D` or `Conv3D`.

    Args:
        weights: [kernel (*K, C / groups, F), bias (F,)], or without the bias.
        strides, padding, dilation_rate, groups: as the layer was built, by the same defaults; padding may
            be "valid", "same" or, over one axis, "causal".
    """
    taken = Weights(keyed(weights, PLAIN))
    w = channels_first(taken.take("kernel", (None,) * taken.rank("kernel", 3)))
    b = taken.optional("bias", w.shape[:1])
    kernel = w.shape[2:]
    check_padding(padding, ("valid", "same", "causal") if len(kernel) == 1 else ("valid", "same"))
    pads: Any = padding
    if padding == "causal":
        pads = ((entries(dilation_rate, kernel)[0] * (kernel[0] - 1), 0),)
    settings = {"stride": strides, "padding": pads, "dilation": dilation_rate, "groups": groups}
    layer = Conv(w.shape[1] * groups, w.shape[0], kernel, bias=b is not None, dtype=w.dtype, **settings)
    return layer.bind({"w": w} if b is None else {"w": w, "b": b})


def conv_to_keras(layer: Conv) -> tuple[list[Array], dict[str, Any]]:
    """The weights of a convolution, and the keyword arguments to build its Keras layer with."""
    layer = layer.to_backend("numpy")
    w = layer.params["w"]
    if not 1 <= w.ndim - 2 <= 3:
        raise ValueError(f"w has {w.ndim - 2} spatial axes, expected 1 to 3: Keras has no other convolution")
    settings = layer_settings(layer.window, w.shape[2:], causal=w.ndim == 3)
    bias = [layer.params["b"].copy()] if "b" in layer.params else []
    return [channels_last(w), *bias], {
        "filters": len(w),
        **settings,
        "groups": layer.groups,
        "use_bias": bool(bias),
    }


def recurrent_arrays(
    weights: Weights, blocks: int, rank: int, biases: int = 0
) -> tuple[Array, Array, Array | None]:
    """(w_x, w_h, bias) in our axes; `biases` is the bias's first axis, where it has one."""
    recurrent = weights.take("recurrent_kernel", (None,) * (rank + 2))
    *sizes, F, _ = recurrent.shape
    weights.take("recurrent_kernel", (*sizes, F, blocks * F))
    kernel = weights.take("kernel", (*sizes, None, blocks * F))
    shape = (biases, blocks * F) if biases else (blocks * F,)
    return channels_first(kernel), channels_first(recurrent), weights.optional("bias", shape)


def in_keras(cell: Any) -> list[Array]:
    """[kernel, recurrent_kernel, bias] of a cell, in our order of gates."""
    return [channels_last(cell.params["w_x"]), channels_last(cell.params["w_h"]), cell.params["b"].copy()]


def layer_settings(window: Any, kernel: tuple[int, ...], causal: bool = False) -> dict[str, Any]:
    """What Keras calls kernel, stride, padding and dilation; ValueError where it has no such layer."""
    strides, rates = entries(window.stride, kernel), entries(window.dilation, kernel)
    if set(strides) - {1} and set(rates) - {1}:
        raise ValueError(
            f"stride is {strides}, dilation {rates}, expected 1 for one of them: Keras has not both"
        )
    padding = window.padding
    if not isinstance(padding, str):
        pads = pairs(padding, kernel)
        behind = ((rates[0] * (kernel[0] - 1), 0),)
        padding = "causal" if causal and pads == behind else padding
        padding = "valid" if not any(map(any, pads)) else padding
    padding = "same" if padding == "same_upper" else padding
    if padding not in ("valid", "same", "causal"):
        raise ValueError(f"padding is {window.padding!r}, expected 'valid' or 'same': Keras has no other")
    return {"kernel_size": kernel, "strides": strides, "padding": padding, "dilation_rate": rates}


def check_dense(cell: Any) -> None:
    """ValueError where the cell convolves."""
    if cell.kernel:
        raise ValueError(f"cell has kernel {cell.kernel}, expected (): Keras's LSTM and GRU are dense")


def check_padding(padding: str, names: tuple[str, ...]) -> None:
    """ValueError where Keras has no such padding."""
    if padding not in names:
        raise ValueError(f"padding is {padding!r}, expected one of {names}")
