"""Where frameworks put the same numbers: gate orders, axes, and the checks of what is read.

Every LSTM has the gates input i, forget f, candidate g and output o; every GRU reset r, update u and
candidate n. Frameworks stack them in one array in orders of their own, written here as strings, and
call the candidate c or h and the update gate z. Convolution kernels begin or end with their channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import TwoMapCell
from ..layers import Bidirectional, Layer, Recurrent, Sequential
from ..ops.gates import GATES, GRU_GATES, PEEPHOLES

LSTM_ORDER = "".join(GATES)  # ours: ifgo, which is also PyTorch's, Keras's (i, f, c, o) and OpenSTL's
GRU_ORDER = "".join(GRU_GATES)  # ours: run, which is also PyTorch's (r, z, n)
PEEPHOLE_ORDER = "".join(PEEPHOLES)  # ours: ifo
KERAS_GRU_ORDER = "urn"  # z, r, h
ONNX_LSTM_ORDER = "iofg"  # i, o, f, c
ONNX_PEEPHOLE_ORDER = "iof"
ONNX_GRU_ORDER = "urn"  # z, r, h
CONCAT_ORDER = "ifog"  # of the common cell that convolves [x, h]

Shape = tuple[int, ...]


def reorder(a: Array, source: str, target: str, axis: int = 0) -> Array:
    """Equal blocks along an axis, one a letter, from the order `source` to the order `target`.

    Args:
        a: its size along `axis` is a multiple of the number of letters.
        source, target: the same letters, each once.
        axis: along which the blocks lie.
    Returns:
        An array of the same shape.
    Raises:
        ValueError: the letters differ or the size does not divide.
    """
    if sorted(source) != sorted(target) or len(set(source)) != len(source):
        raise ValueError(f"order is {source!r}, expected the letters of {target!r} in any order")
    if a.shape[axis] % len(source):
        raise ValueError(
            f"axis {axis} of shape {a.shape} does not divide into the {len(source)} gates {source!r}"
        )
    if source == target:
        return a
    blocks = dict(zip(source, np.split(a, len(source), axis=axis), strict=True))
    return np.concatenate([blocks[gate] for gate in target], axis=axis)


def channels_first(kernel: Array) -> Array:
    """A kernel (*K, C, F) as (F, C, *K); with no K a matrix transposed."""
    return np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))


def channels_last(w: Array) -> Array:
    """A kernel (F, C, *K) as (*K, C, F): the inverse of `channels_first`."""
    return np.ascontiguousarray(np.moveaxis(w, (0, 1), (-1, -2)))


def batch_first(xs: Array) -> Array:
    """A sequence (T, N, C, *S) as Keras lays it out, (N, T, *S, C)."""
    return np.ascontiguousarray(np.moveaxis(xs, 2, -1).swapaxes(0, 1))


def time_first(xs: Array) -> Array:
    """A sequence (N, T, *S, C) as (T, N, C, *S): the inverse of `batch_first`."""
    return np.ascontiguousarray(np.moveaxis(xs.swapaxes(0, 1), -1, 2))


class Weights:
    """Foreign arrays by key, taken one by one; `done` refuses what nobody took.

    Args:
        arrays: by key; anything `np.asarray` reads, as the tensors of a state_dict on a CPU.
        prefix: of the keys that count, and left out of them: "lstm." in the state_dict of a larger model.
    """

    def __init__(self, arrays: Mapping[str, Any], prefix: str = "") -> None:
        self.arrays = {k: np.asarray(a).copy() for k, a in arrays.items() if k.startswith(prefix)}
        self.prefix, self.taken = prefix, set[str]()
        self.dtype: Any = None  # of the first array taken; all must have it

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.arrays

    def take(self, key: str, shape: tuple[int | None, ...]) -> Array:
        """The array of a key; None in `shape` stands for any size.

        Raises:
            ValueError: the key is missing, or the array has another shape or dtype than expected.
        """
        key = self.prefix + key
        expected = f"({', '.join('*' if n is None else str(n) for n in shape)})"
        if key not in self.arrays:
            raise ValueError(
                f"key {key!r} is missing: expected shape {expected}, received keys {sorted(self.arrays)}"
            )
        a = self.arrays[key]
        if a.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, a.shape, strict=True)):
            raise ValueError(f"{key} has shape {a.shape}, expected {expected}")
        if a.dtype not in (np.float32, np.float64) or a.dtype != (self.dtype or a.dtype):
            raise ValueError(f"{key} has dtype {a.dtype}, expected {self.dtype or 'float32 or float64'}")
        self.dtype = a.dtype
        self.taken.add(key)
        return a

    def rank(self, key: str, least: int) -> int:
        """Number of axes of a key's array, at least `least`, for a `shape` of as many None."""
        return max(least, self.arrays[self.prefix + key].ndim) if key in self else least

    def optional(self, key: str, shape: tuple[int | None, ...]) -> Array | None:
        """The array of a key, or None where the key is missing."""
        return self.take(key, shape) if key in self else None

    def done(self) -> None:
        """ValueError where a key was not taken."""
        if unknown := sorted(set(self.arrays) - self.taken):
            raise ValueError(
                f"key {unknown[0]!r} is unknown: expected only {sorted(self.taken)}, received {unknown}"
            )


def keyed(arrays: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """A list of weights, as `layer.get_weights()` gives it, by name; trailing names may be missing."""
    if len(arrays) > len(names):
        raise ValueError(
            f"weights has {len(arrays)} arrays, expected at most {len(names)}: {', '.join(names)}"
        )
    return dict(zip(names, arrays, strict=False))


def features_of(weights: Weights, key: str, blocks: int) -> int:
    """F, from a matrix or kernel of F inputs and blocks * F outputs in the layout (blocks * F, F, *K)."""
    shape = weights.take(key, (None,) * weights.rank(key, 2)).shape
    if shape[0] != blocks * shape[1]:
        raise ValueError(
            f"{weights.prefix}{key} has shape {shape}, expected ({blocks * shape[1]}, {shape[1]}, ...), {blocks} gates"
        )
    return int(shape[1])


def bound(cell: TwoMapCell, params: Mapping[str, Array]) -> Any:
    """The cell with these parameters, each contiguous."""
    return cell.bind({name: np.ascontiguousarray(a) for name, a in params.items()})


def of_kind(cell: Any, kinds: Iterable[type], framework: str) -> Any:
    """The cell on NumPy, or a ValueError: its exact class must be one of `kinds`, and it must read an input."""
    kinds = tuple(kinds)
    if type(cell) not in kinds:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"cell is a {type(cell).__name__}, expected {names}: {framework} has no such layer")
    if not cell.channels:
        raise ValueError(f"cell has 0 channels, expected an input: {framework} has no cell without one")
    return cell.to_backend("numpy")


def plain(cell: Any, framework: str) -> None:
    """ValueError where an LSTM has peepholes."""
    if "w_c" in cell.params:
        raise ValueError(f"cell has peepholes w_c {cell.params['w_c'].shape}: {framework} has no peepholes")


def one_kernel(cell: Any, framework: str) -> None:
    """ValueError where the state map's kernel is not the input map's, or is dilated."""
    if cell.state_map.kernel != cell.kernel:
        raise ValueError(
            f"state_kernel is {cell.state_map.kernel}, expected {cell.kernel} as kernel: {framework} has one for both"
        )
    if set(entries(cell.state_map.dilation, cell.kernel)) - {1}:
        raise ValueError(f"state_dilation is {cell.state_map.dilation}, expected 1: {framework} has no other")


def entries(value: int | Shape, kernel: Shape) -> Shape:
    """A setting with one entry an axis of the kernel."""
    return (value,) * len(kernel) if isinstance(value, int) else tuple(value)


def pairs(padding: Any, kernel: Shape) -> tuple[tuple[int, int], ...]:
    """A padding in pixels as one (before, after) pair an axis of the kernel."""
    each = (padding,) * len(kernel) if isinstance(padding, int) else padding
    return tuple(tuple(p) if isinstance(p, tuple | list) else (p, p) for p in each)


def stack(layer: Layer | TwoMapCell) -> list[Layer]:
    """The recurrent layers of a model, on NumPy: of a Sequential, of one layer, or of a cell."""
    layer = layer.to_backend("numpy")
    if isinstance(layer, TwoMapCell):
        return [Recurrent(layer)]
    found = list(layer.parts.values()) if isinstance(layer, Sequential) else [layer]
    for part in found:
        if not isinstance(part, Recurrent | Bidirectional):
            raise ValueError(
                f"layer is a {type(part).__name__}, expected Recurrent, Bidirectional or a chain of them"
            )
    return found


def directions(layer: Any) -> list[tuple[TwoMapCell, bool]]:
    """(cell, whether it reads backwards) of a Recurrent, or of both halves of a Bidirectional."""
    if not isinstance(layer, Bidirectional):
        return [(layer.cell, layer.reverse)]
    if layer.merge != "concat":
        raise ValueError(f"merge is {layer.merge!r}, expected 'concat'")
    return [(half.cell, half.reverse) for half in layer.parts.values()]
