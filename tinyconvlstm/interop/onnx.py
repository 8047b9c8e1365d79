"""Tensors and attributes of the ONNX operators LSTM, GRU and Conv, to and from our layers.

ONNX stacks an LSTM's gates as i, o, f, c, its peepholes as i, o, f and a GRU's gates as z, r, h (update,
reset, candidate); the first axis of every tensor is the direction, and B holds two biases one after the
other. Sequences are (T, N, C), as ours; of two directions Y is (T, 2, N, F), ours (T, N, 2F).

Source: the operator specification at onnx.ai/onnx/operators, LSTM-22, GRU-22 and Conv-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import GRUCell, LSTMCell, ResetBeforeGRUCell, TwoMapCell
from ..layers import Bidirectional, Conv, Layer, Recurrent
from .layout import (
    GRU_ORDER,
    LSTM_ORDER,
    ONNX_GRU_ORDER,
    ONNX_LSTM_ORDER,
    ONNX_PEEPHOLE_ORDER,
    PEEPHOLE_ORDER,
    Weights,
    bound,
    directions,
    entries,
    of_kind,
    pairs,
    reorder,
    stack,
)

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
AUTO_PAD = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}
NAMED = {"valid": "VALID", "same": "SAME_UPPER", "same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def lstm_from_onnx(
    tensors: Mapping[str, Any], *, direction: str = "forward", **attributes: Any
) -> Recurrent | Bidirectional:
    """The layer of an LSTM node.

    Args:
        tensors: "W" (D, 4F, C), "R" (D, 4F, F), and where the node has them "B" (D, 8F), "P" (D, 3F); D is
            1, or 2 when bidirectional.
        direction: "forward", "reverse" or "bidirectional".
        attributes: the node's others; what changes the equations is refused.
    Returns:
        A `Recurrent` or `Bidirectional` layer on (T, N, C); P becomes peepholes, a weight a channel.
    Raises:
        ValueError: a tensor is missing or unknown, a shape does not fit, or an attribute has no equal here.
    """
    weights, D, F = opened(tensors, direction, 4, attributes, ("Sigmoid", "Tanh", "Tanh"))
    if attributes.get("input_forget"):
        raise ValueError("input_forget is 1, expected 0: the gates of LSTMCell are not coupled")
    w_x, w_h, both = gate_arrays(weights, D, F, 4, ONNX_LSTM_ORDER, LSTM_ORDER)
    peepholes = weights.optional("P", (D, 3 * F))
    weights.done()
    cells = []
    for d in range(D):
        params = {"w_x": w_x[d], "w_h": w_h[d], "b": both[d, 0] + both[d, 1]}
        if peepholes is not None:
            params["w_c"] = reorder(peepholes[d], ONNX_PEEPHOLE_ORDER, PEEPHOLE_ORDER).reshape(3, F)
        peephole = None if peepholes is None else "channel"
        cells.append(bound(LSTMCell(w_x.shape[2], F, peephole=peephole, dtype=w_x.dtype), params))
    return layer_of(cells, direction)


def lstm_to_onnx(layer: Layer | TwoMapCell) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and attributes of the LSTM node that computes what the layer does.

    Args:
        layer: a `Recurrent` or `Bidirectional` layer of dense LSTMs, or an `LSTMCell`; peepholes may be
            "channel".
    Returns:
        "W", "R", "B" and, with peepholes, "P"; {"direction": ..., "hidden_size": ...}.
    """
    cells, attributes = parts_of(layer, [LSTMCell])
    tensors = gate_tensors(cells, LSTM_ORDER, ONNX_LSTM_ORDER)
    with_peepholes = ["w_c" in cell.params for cell in cells]
    if any(with_peepholes):
        if not all(with_peepholes):
            raise ValueError("one direction has peepholes w_c, expected both or none")
        rows = [cell.params["w_c"].reshape(-1) for cell in cells]
        tensors["P"] = np.stack([reorder(row, PEEPHOLE_ORDER, ONNX_PEEPHOLE_ORDER) for row in rows])
    return tensors, attributes


def gru_from_onnx(
    tensors: Mapping[str, Any], *, direction: str = "forward", linear_before_reset: int = 0, **attributes: Any
) -> Recurrent | Bidirectional:
    """The layer of a GRU node.

    Args:
        tensors: "W" (D, 3F, C), "R" (D, 3F, F) and, where the node has it, "B" (D, 6F).
        direction: "forward", "reverse" or "bidirectional".
        linear_before_reset: 1 makes `GRUCell`s, the default 0 `ResetBeforeGRUCell`s.
        attributes: the node's others; what changes the equations is refused.
    Returns:
        A `Recurrent` or `Bidirectional` layer on (T, N, C).
    """
    weights, D, F = opened(tensors, direction, 3, attributes, ("Sigmoid", "Tanh"))
    w_x, w_h, both = gate_arrays(weights, D, F, 3, ONNX_GRU_ORDER, GRU_ORDER)
    weights.done()
    cells = []
    for d in range(D):
        params, settings = {"w_x": w_x[d], "w_h": w_h[d]}, {"dtype": w_x.dtype}
        if linear_before_reset:
            inside = np.arange(3 * F) >= 2 * F  # the candidate's second bias stands inside the reset gate
            params |= {"b": both[d, 0] + np.where(inside, 0, both[d, 1]), "b_hn": both[d, 1, 2 * F :]}
            cells.append(bound(GRUCell(w_x.shape[2], F, **settings), params))
        else:
            params["b"] = both[d, 0] + both[d, 1]
            cells.append(bound(ResetBeforeGRUCell(w_x.shape[2], F, **settings), params))
    return layer_of(cells, direction)


def gru_to_onnx(layer: Layer | TwoMapCell) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and attributes, linear_before_reset among them, of the GRU node that computes what the layer does."""
    cells, attributes = parts_of(layer, [GRUCell, ResetBeforeGRUCell])
    kinds = {type(cell) for cell in cells}
    if len(kinds) > 1:
        raise ValueError("one direction is a GRUCell and one a ResetBeforeGRUCell, expected two of a kind")
    tensors = gate_tensors(cells, GRU_ORDER, ONNX_GRU_ORDER)
    return tensors, attributes | {"linear_before_reset": int(kinds == {GRUCell})}


def conv_from_onnx(tensors: Mapping[str, Any], **attributes: Any) -> Conv:
    """The layer of a Conv node.

    Args:
        tensors: "W" (F, C / group, *K) and, where the node has it, "B" (F,).
        attributes: the node's: strides, pads (all beginnings, then all ends), dilations, group, auto_pad,
            kernel_shape; what is left out has ONNX's default.
    """
    weights = Weights(tensors)
    w = weights.take("W", (None,) * weights.rank("W", 3))
    b = weights.optional("B", w.shape[:1])
    weights.done()
    kernel, rank = w.shape[2:], w.ndim - 2
    known = {"strides", "pads", "dilations", "group", "auto_pad", "kernel_shape"}
    if set(attributes) - known:
        raise ValueError(
            f"attribute {min(set(attributes) - known)!r} is unknown, expected one of {sorted(known)}"
        )
    if tuple(attributes.get("kernel_shape", kernel)) != kernel:
        raise ValueError(f"kernel_shape is {attributes['kernel_shape']}, expected {kernel} as W's")
    auto, pads = attributes.get("auto_pad", "NOTSET"), tuple(attributes.get("pads", (0,) * 2 * rank))
    if auto not in (*AUTO_PAD, "NOTSET"):
        raise ValueError(f"auto_pad is {auto!r}, expected one of {(*AUTO_PAD, 'NOTSET')}")
    if len(pads) != 2 * rank:
        raise ValueError(f"pads has {len(pads)} entries, expected {2 * rank}, two an axis")
    padding: Any = AUTO_PAD.get(auto, tuple(zip(pads[:rank], pads[rank:], strict=True)))
    group = attributes.get("group", 1)
    layer = Conv(
        w.shape[1] * group,
        w.shape[0],
        kernel,
        stride=tuple(attributes.get("strides", (1,) * rank)),
        padding=padding,
        dilation=tuple(attributes.get("dilations", (1,) * rank)),
        groups=group,
        bias=b is not None,
        dtype=w.dtype,
    )
    return layer.bind({"w": w} if b is None else {"w": w, "b": b})


def conv_to_onnx(layer: Conv) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and attributes of the Conv node that computes what the layer does."""
    layer = layer.to_backend("numpy")
    window, kernel = layer.window, layer.params["w"].shape[2:]
    if not kernel:
        raise ValueError("w has 0 spatial axes, expected at least 1: ONNX calls that one Gemm")
    attributes: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(entries(window.stride, kernel)),
        "dilations": list(entries(window.dilation, kernel)),
        "group": layer.groups,
    }
    if isinstance(window.padding, str):
        attributes["auto_pad"] = NAMED[window.padding]
    else:
        before, after = zip(*pairs(window.padding, kernel), strict=True)
        attributes["pads"] = [*before, *after]
    return {{"w": "W", "b": "B"}[name]: a.copy() for name, a in layer.params.items()}, attributes


def opened(
    tensors: Mapping[str, Any],
    direction: str,
    blocks: int,
    attributes: Mapping[str, Any],
    usual: tuple[str, ...],
) -> tuple[Weights, int, int]:
    """(weights, D, F) of a recurrent node whose attributes are those of our equations."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}, expected one of {tuple(DIRECTIONS)}")
    weights, D = Weights(tensors), DIRECTIONS[direction]
    F = weights.take("R", (D, None, None)).shape[2]
    weights.take("R", (D, blocks * F, F))
    known = {"activations", "clip", "hidden_size", "input_forget", "layout"}
    if set(attributes) - known:
        raise ValueError(
            f"attribute {min(set(attributes) - known)!r} is unknown, expected one of {sorted(known)}"
        )
    for name, expected in (
        ("activations", list(usual) * D),
        ("hidden_size", F),
        ("clip", 0.0),
        ("layout", 0),
    ):
        found = attributes.get(name, expected)
        if (list(found) if name == "activations" else found) != expected:
            raise ValueError(f"{name} is {found}, expected {expected}")
    return weights, D, F


def gate_arrays(
    weights: Weights, D: int, F: int, blocks: int, theirs: str, ours: str
) -> tuple[Array, Array, Array]:
    """w_x (D, blocks * F, C), w_h (D, blocks * F, F) and both biases (D, 2, blocks * F), gates in our order."""
    rows = blocks * F
    w_h = weights.take("R", (D, rows, F))
    w_x = weights.take("W", (D, rows, None))
    b = weights.optional("B", (D, 2 * rows))
    b = np.zeros((D, 2 * rows), w_x.dtype) if b is None else b
    w_x, w_h = (reorder(a, theirs, ours, axis=1) for a in (w_x, w_h))
    return w_x, w_h, reorder(b.reshape(D, 2, rows), theirs, ours, axis=2)


def gate_tensors(cells: list[Any], ours: str, theirs: str) -> dict[str, Array]:
    """W, R and B of one or two cells; the second bias is zero, but for a GRU's b_hn."""
    tensors = {}
    for name, key in (("W", "w_x"), ("R", "w_h")):
        tensors[name] = np.stack([reorder(cell.params[key], ours, theirs) for cell in cells])
    biases = []
    for cell in cells:
        second = np.zeros_like(cell.params["b"])
        if "b_hn" in cell.params:
            second[2 * cell.features :] = cell.params["b_hn"]
        biases.append(np.concatenate([reorder(a, ours, theirs) for a in (cell.params["b"], second)]))
    return tensors | {"B": np.stack(biases)}


def parts_of(layer: Any, kinds: list[type]) -> tuple[list[Any], dict[str, Any]]:
    """The cells of the one layer that a node is, and its attributes."""
    layers = stack(layer)
    if len(layers) != 1:
        raise ValueError(f"layer is a chain of {len(layers)}, expected one: an ONNX node is one layer")
    ways = directions(layers[0])
    for cell, _ in ways:
        of_kind(cell, kinds, "ONNX")
        if cell.kernel:
            raise ValueError(f"cell has kernel {cell.kernel}, expected (): ONNX's LSTM and GRU are dense")
    if len({(cell.features, cell.channels) for cell, _ in ways}) > 1:
        raise ValueError("the two directions differ in size, expected the same: they share one tensor")
    direction = "bidirectional" if len(ways) == 2 else ("reverse" if ways[0][1] else "forward")
    return [cell for cell, _ in ways], {"direction": direction, "hidden_size": ways[0][0].features}


def layer_of(cells: list[TwoMapCell], direction: str) -> Recurrent | Bidirectional:
    """The cells as a layer."""
    return Bidirectional(*cells) if len(cells) == 2 else Recurrent(cells[0], reverse=direction == "reverse")
