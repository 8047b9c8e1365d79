"""Weights of `torch.nn.LSTM`, `GRU`, `Linear` and `Conv1d` to `Conv3d`, as state_dicts, to and from ours.

Both sides stack gates in the same order. PyTorch keeps two biases where one would do: they are added on
reading, and the second is zero on writing; of a GRU the second one's candidate block is our b_hn,
which stands inside the reset gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import GRUCell, LSTMCell, TwoMapCell
from ..layers import Bidirectional, Conv, Dense, Layer, Recurrent, Sequential
from .layout import Weights, bound, directions, entries, features_of, of_kind, pairs, plain, stack

State = Mapping[str, Any]


def lstm_from_pytorch(state: State, *, prefix: str = "") -> Sequential:
    """The layers of a `torch.nn.LSTM`, by the keys of its state_dict.

    Args:
        state: "weight_ih_l0" (4F, C), "weight_hh_l0" (4F, F), "bias_ih_l0", "bias_hh_l0" (4F,), or no
            biases; "..._l1" and so on; with "_reverse" of a bidirectional one.
        prefix: of the keys that count, as "lstm." in the state_dict of a larger model.
    Returns:
        A chain of `Recurrent`, or `Bidirectional`, layers in float32 or float64 as given; its input and
        output are (T, N, C). Its `params` are what a model with such a part `bind`s.
    Raises:
        ValueError: a key is missing or unknown, a shape does not fit, or the LSTM projects its h.
    """
    if any(key.startswith(f"{prefix}weight_hr") for key in state):
        raise ValueError(
            "key 'weight_hr_l0' is unknown: an LSTM with proj_size projects its h, ours does not"
        )
    return layers_from(state, prefix, lstm_cell_from)


def lstm_to_pytorch(layer: Layer | TwoMapCell) -> dict[str, Array]:
    """The state_dict of the `torch.nn.LSTM` that computes what these layers do.

    Args:
        layer: a chain of `Recurrent` or `Bidirectional` layers, one of them, or an `LSTMCell`.
    Returns:
        Arrays by PyTorch's keys, for `load_state_dict` once they are tensors.
    Raises:
        ValueError: a cell is no plain dense LSTM, or layers differ in kind or size.
    """
    return layers_to(layer, LSTMCell, lstm_cell_to)


def gru_from_pytorch(state: State, *, prefix: str = "") -> Sequential:
    """The layers of a `torch.nn.GRU`, as `lstm_from_pytorch` with three gates and `GRUCell`s."""
    return layers_from(state, prefix, gru_cell_from)


def gru_to_pytorch(layer: Layer | TwoMapCell) -> dict[str, Array]:
    """The state_dict of the `torch.nn.GRU` that computes what these layers do; as `lstm_to_pytorch`.

    Its reset gate acts after the state map, so a `ResetBeforeGRUCell` is refused.
    """
    return layers_to(layer, GRUCell, gru_cell_to)


def lstm_cell_from(weights: Weights, end: str) -> LSTMCell:
    """One direction of one layer; `end` is "_l0", "_l1_reverse" ..."""
    F, arrays = cell_arrays(weights, end, 4)
    b = arrays["bias_ih"] + arrays["bias_hh"]
    params = {"w_x": arrays["weight_ih"], "w_h": arrays["weight_hh"], "b": b}
    cell: LSTMCell = bound(LSTMCell(params["w_x"].shape[1], F, dtype=weights.dtype), params)
    return cell


def lstm_cell_to(cell: LSTMCell) -> dict[str, Array]:
    """PyTorch's four arrays of one direction of one layer."""
    plain(cell, "PyTorch")
    p = cell.params
    return {"weight_ih": p["w_x"], "weight_hh": p["w_h"], "bias_ih": p["b"], "bias_hh": np.zeros_like(p["b"])}


def gru_cell_from(weights: Weights, end: str) -> GRUCell:
    """One direction of one layer: the second bias's blocks for r and u join the first, that for n is b_hn."""
    F, arrays = cell_arrays(weights, end, 3)
    b, second = arrays["bias_ih"].copy(), arrays["bias_hh"]
    b[: 2 * F] += second[: 2 * F]
    params = {"w_x": arrays["weight_ih"], "w_h": arrays["weight_hh"], "b": b, "b_hn": second[2 * F :]}
    cell: GRUCell = bound(GRUCell(params["w_x"].shape[1], F, dtype=weights.dtype), params)
    return cell


def gru_cell_to(cell: GRUCell) -> dict[str, Array]:
    """PyTorch's four arrays of one direction of one layer."""
    p, F = cell.params, cell.features
    second = np.concatenate([np.zeros(2 * F, p["b"].dtype), p["b_hn"]])
    return {"weight_ih": p["w_x"], "weight_hh": p["w_h"], "bias_ih": p["b"], "bias_hh": second}


def cell_arrays(weights: Weights, end: str, blocks: int) -> tuple[int, dict[str, Array]]:
    """F and the four arrays of one direction of one layer; biases that are missing are zero."""
    rows = blocks * (F := features_of(weights, f"weight_hh{end}", blocks))
    arrays = {
        "weight_ih": weights.take(f"weight_ih{end}", (rows, None)),
        "weight_hh": weights.take(f"weight_hh{end}", (rows, F)),
    }
    both = f"bias_ih{end}" in weights or f"bias_hh{end}" in weights
    for bias in ("bias_ih", "bias_hh"):
        arrays[bias] = weights.take(f"{bias}{end}", (rows,)) if both else np.zeros(rows, weights.dtype)
    return F, arrays


def layers_from(state: State, prefix: str, cell_from: Callable[[Weights, str], TwoMapCell]) -> Sequential:
    """A chain of layers, as many as there are keys for."""
    weights, layers = Weights(state, prefix), list[Layer]()
    given: int | None = None  # features that the layer below gives
    while not layers or f"weight_ih_l{len(layers)}" in weights:
        end = f"_l{len(layers)}"
        cells = [cell_from(weights, end)]
        if f"weight_ih{end}_reverse" in weights:
            cells.append(cell_from(weights, f"{end}_reverse"))
        for way, cell in zip(("", "_reverse"), cells, strict=False):
            expected = (cells[0].channels if given is None else given, cells[0].features)
            if (cell.channels, cell.features) != expected:
                raise ValueError(
                    f"{prefix}weight_ih{end}{way} is of {cell.channels} inputs and {cell.features} features, "
                    f"expected {expected[0]} and {expected[1]}, as the layer below and the other direction have"
                )
        given = len(cells) * cells[0].features
        layers.append(Bidirectional(*cells) if len(cells) == 2 else Recurrent(cells[0]))
    weights.done()
    return Sequential(*layers)


def layers_to(layer: Any, kind: type, cell_to: Callable[[Any], dict[str, Array]]) -> dict[str, Array]:
    """The state_dict of a chain of layers of one kind."""
    state, layers = dict[str, Array](), stack(layer)
    sizes = {
        (len(ways := directions(part)), cell.features) for part in layers for cell, _ in directions(part)
    }
    if len(sizes) > 1:
        raise ValueError(
            f"layers have (directions, features) {sorted(sizes)}, expected the same in every layer"
        )
    for k, part in enumerate(layers):
        ways = directions(part)
        if [reverse for _, reverse in ways] not in ([False], [False, True]):
            raise ValueError("layer reads backwards only, expected Bidirectional: PyTorch has no such layer")
        for (cell, _), end in zip(ways, ("", "_reverse"), strict=False):
            of_kind(cell, [kind], "PyTorch")
            if cell.kernel:
                raise ValueError(
                    f"cell has kernel {cell.kernel}, expected (): torch.nn has no convolutional {kind}"
                )
            state |= {f"{name}_l{k}{end}": a.copy() for name, a in cell_to(cell).items()}
    return state


def dense_from_pytorch(state: State, *, prefix: str = "") -> Dense:
    """The layer of a `torch.nn.Linear`: "weight" (F, C) and "bias" (F,), or no bias."""
    weights = Weights(state, prefix)
    w = weights.take("weight", (None, None))
    b = weights.optional("bias", w.shape[:1])
    weights.done()
    layer = Dense(w.shape[1], w.shape[0], bias=b is not None, dtype=w.dtype)
    return layer.bind({"w": w} if b is None else {"w": w, "b": b})


def dense_to_pytorch(layer: Dense) -> dict[str, Array]:
    """The state_dict of the `torch.nn.Linear` that computes what the layer does."""
    return renamed(layer.to_backend("numpy").params)


def conv_from_pytorch(
    state: State, *, prefix: str = "", stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Conv:
    """The layer of a `torch.nn.Conv1d`, `Conv2d` or `Conv3d`.

    Args:
        state: "weight" (F, C / groups, *K) and "bias" (F,), or no bias.
        prefix: of the keys that count.
        stride, padding, dilation, groups: as the module was built, by the same defaults; padding may be
            "valid" or, with stride 1, "same".
    Returns:
        A `Conv` with equal output.
    Raises:
        ValueError: a key is missing or unknown, a shape does not fit, or padding="same" has a stride.
    """
    if padding == "same" and set(np.atleast_1d(stride)) != {1}:
        raise ValueError(f"stride is {stride} with padding='same', expected 1: PyTorch has no strided 'same'")
    weights = Weights(state, prefix)
    w = weights.take("weight", (None,) * weights.rank("weight", 2))
    b = weights.optional("bias", w.shape[:1])
    weights.done()
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = Conv(w.shape[1] * groups, w.shape[0], w.shape[2:], bias=b is not None, dtype=w.dtype, **settings)
    return layer.bind({"w": w} if b is None else {"w": w, "b": b})


def conv_to_pytorch(layer: Conv) -> tuple[dict[str, Array], dict[str, Any]]:
    """The state_dict of the convolution that computes what the layer does, and how to build it.

    Args:
        layer: a `Conv` over 1 to 3 spatial axes.
    Returns:
        Arrays by PyTorch's keys; keyword arguments of `torch.nn.Conv1d` to `Conv3d`.
    Raises:
        ValueError: PyTorch pads both ends alike, and has no strided "same".
    """
    window, rank = layer.window, layer.params["w"].ndim - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"w has {rank} spatial axes, expected 1 to 3: torch.nn has no other convolution")
    settings = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    return renamed(layer.to_backend("numpy").params), settings | {
        "padding": alike(layer),
        "groups": layer.groups,
    }


def alike(layer: Conv) -> Any:
    """The padding of a convolution as PyTorch takes it, the same at both ends of an axis."""
    window, kernel = layer.window, layer.params["w"].shape[2:]
    padding: Any = window.padding
    if padding == "valid":
        return "valid"
    if isinstance(padding, str):
        if set(entries(window.stride, kernel)) != {1}:
            raise ValueError(
                f"stride is {window.stride} with padding={padding!r}: PyTorch has no strided 'same'"
            )
        uneven = any(d * (k - 1) % 2 for d, k in zip(entries(window.dilation, kernel), kernel, strict=True))
        if padding == "same_lower" and uneven:
            raise ValueError(
                "padding is 'same_lower' with an even kernel: PyTorch's 'same' pads the other end more"
            )
        return "same"
    pads = pairs(padding, kernel)
    if any(before != after for before, after in pads):
        raise ValueError(
            f"padding is {padding}, expected the same at both ends of an axis: PyTorch has no other"
        )
    return tuple(before for before, _ in pads)


def renamed(params: Mapping[str, Array]) -> dict[str, Array]:
    """w and b under PyTorch's names, copied."""
    return {{"w": "weight", "b": "bias"}[name]: a.copy() for name, a in params.items()}
