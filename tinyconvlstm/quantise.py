"""Weights in eight bits: a quarter of the file, and a report of what that costs.

Each output channel (the first axis of a weight) has one scale, so that a channel of small weights
keeps its resolution beside one of large weights. Biases, gains and everything else with one axis stay
as they are: they are few, and an error in them does not average out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from .backend import Array, array_module, to_numpy
from .files import Path, load, refuse, save
from .parameters import Parametric

Model = TypeVar("Model", bound=Parametric)
LEVELS = 127  # -127 .. 127: symmetric, so that 0 is 0; -128 is not used


class Quantised(NamedTuple):
    """An array in eight bits: w is about q * scale."""

    q: Array  # int8, like w
    scale: Array  # (F, 1, ...), the step between two levels, of w's dtype


class WeightError(NamedTuple):
    """What eight bits do to one array."""

    name: str
    shape: tuple[int, ...]
    largest: float  # max |w - q scale|
    bound: float  # max scale / 2, which `largest` cannot pass but for rounding
    relative: float  # root mean square of the error over that of w
    bytes: tuple[int, int]  # before, after


@dataclass(frozen=True)
class QuantisationReport:
    """Errors of every weight, and of the output where an input was given; `print(report)` shows it.

    Attributes:
        rows: one `WeightError` a quantised array.
        bytes: of all parameters, before and after.
        output: root mean square of the output's error over that of the output; None without an input.
    """

    rows: tuple[WeightError, ...]
    bytes: tuple[int, int]
    output: float | None

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows) if self.rows else 0
        lines = [
            f"{row.name:{width}}  {'x'.join(map(str, row.shape)):>14}  largest {row.largest:.2e}"
            f" <= {row.bound:.2e}  relative {row.relative:.2%}"
            for row in self.rows
        ]
        before, after = self.bytes
        lines.append(f"{before:,} bytes -> {after:,} ({after / before:.0%})")
        return "\n".join([*lines, *([] if self.output is None else [f"output: relative {self.output:.2%}"])])


def quantise(w: Array) -> Quantised:
    """Round w to 255 levels, evenly spaced around 0, for each output channel.

        scale_f = max |w_f| / 127        q = round(w / scale)        |w - q scale| <= scale / 2

    Args:
        w: (F, ...), floating, at least two axes.
    Returns:
        q (int8) and scale (F, 1, ...); a channel of zeros has scale 1.
    Raises:
        ValueError: w has fewer than two axes or a number that is not finite.
    Source: Jacob et al. 2018, arXiv 1712.05877, equation 1 with zero point 0; one scale for each output
        channel: Krishnamoorthi 2018, arXiv 1806.08342.
    """
    xp = array_module(w=w)
    if w.ndim < 2:
        raise ValueError(f"w.shape is {tuple(w.shape)}, expected (F, ...) with at least two axes")
    if not bool(xp.isfinite(w).all()):
        raise ValueError("w has a number that is not finite; eight bits cannot hold it")
    scale = xp.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / LEVELS
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    return Quantised(xp.clip(xp.rint(w / scale), -LEVELS, LEVELS).astype(xp.int8), scale)


def dequantise(quantised: Quantised) -> Array:
    """w = q * scale, in scale's dtype."""
    return quantised.q.astype(quantised.scale.dtype) * quantised.scale


def quantise_params(params: Mapping[str, Array]) -> dict[str, Array | Quantised]:
    """Every floating array of two or more axes quantised, the others as they are."""
    return {n: quantise(a) if a.ndim > 1 and a.dtype.kind == "f" else a for n, a in params.items()}


def dequantise_params(params: Mapping[str, Array | Quantised]) -> dict[str, Array]:
    """The inverse of `quantise_params`, but for the rounding."""
    return {n: dequantise(a) if isinstance(a, Quantised) else a for n, a in params.items()}


def rounded(model: Model) -> Model:
    """A copy of a model (or layer, or cell) that computes with the weights that eight bits leave."""
    return model.bind({**model.arrays, **dequantise_params(quantise_params(model.params))})


def quantisation_report(model: Any, x: Array | None = None) -> QuantisationReport:
    """What eight bits do to a model's weights and, with an input, to its output.

    Args:
        model: anything with parameters; with x a layer or a model that is called with it.
        x: an input; the output must be one array.
    """
    rows, before, after = [], 0, 0
    for name, a in quantise_params(model.params).items():
        w = to_numpy(model.params[name])
        before += w.nbytes
        if not isinstance(a, Quantised):
            after += w.nbytes
            continue
        error = to_numpy(dequantise(a)) - w
        size = int(a.q.nbytes + a.scale.nbytes)
        after += size
        bound = float(to_numpy(a.scale).max()) / 2
        largest = float(abs(error).max())
        rows.append(WeightError(name, tuple(w.shape), largest, bound, ratio(error, w), (w.nbytes, size)))
    output = None
    if x is not None:
        y = to_numpy(model(x))
        output = ratio(to_numpy(rounded(model)(x)) - y, y)
    return QuantisationReport(tuple(rows), (before, after), output)


def ratio(error: Array, whole: Array) -> float:
    """Root mean square of the error over that of the whole; 0 where both are 0."""
    norm = float((whole * whole).sum()) ** 0.5
    return float((error * error).sum()) ** 0.5 / norm if norm else 0.0


def save_quantised(path: Path, model: Parametric, config: Mapping[str, Any] | None = None) -> None:
    """Write a model's arrays, weights as int8 `name` and `name.scale`, all or nothing.

    Args:
        path: the file.
        model: anything with parameters.
        config: whatever JSON can hold, to build the model again.
    Raises:
        ModelFileError: the disk refuses.
    """
    arrays: dict[str, Array] = dict(model.buffers)
    for name, a in quantise_params(model.params).items():
        if isinstance(a, Quantised):
            arrays |= {name: a.q, f"{name}.scale": a.scale}
        else:
            arrays[name] = a
    save(path, to_numpy(arrays), config or {}, kind="quantised")


def load_quantised(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `save_quantised` wrote: arrays by name, weights no longer in eight bits, and the configuration.

    Raises:
        ModelFileError: whatever is wrong, in one line with the path.
    """
    arrays, config = load(path, kind="quantised")
    for name in [n for n, a in arrays.items() if a.dtype.kind == "i" and f"{n}.scale" in arrays]:
        q, scale = arrays[name], arrays.pop(f"{name}.scale")
        if q.dtype.itemsize != 1 or scale.shape != (*q.shape[:1], *(1,) * (q.ndim - 1)):
            refuse(path, f"has a scale of shape {scale.shape} for {name}, {q.dtype} of shape {q.shape}")
        arrays[name] = dequantise(Quantised(q, scale))
    return arrays, config
