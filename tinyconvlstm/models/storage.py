"""Models to and from files: the parameters, and the settings that build the model again.

A file is data from a stranger. Before a model is built, its settings are checked, and the number of
parameters they imply, counted by arithmetic, must be what the file holds: no setting can make the
reader allocate more than the file's own size.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from math import prod
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

from ..backend import Array, to_numpy
from ..files import load, refuse, save
from .forecaster import Forecaster


def save_model(path: Path, model: Forecaster) -> None:
    """Write a model, all or nothing.

    Args:
        path: the file.
        model: one of MODELS, on any backend.
    Raises:
        ValueError: the model is none of MODELS, and could not be read again.
        ModelFileError: the disk refuses.
    """
    if type(model).__name__ not in MODELS:
        raise ValueError(f"model is a {type(model).__name__}, expected one of {sorted(MODELS)}")
    save(path, to_numpy(model.arrays), describe(model), kind="model")


def load_model(path: Path) -> Forecaster:
    """Read a model that `save_model` or a training's checkpoint wrote.

    Args:
        path: the file.
    Returns:
        The model on NumPy, in the file's dtype.
    Raises:
        ModelFileError: whatever is wrong, in one line with the path.
    """
    arrays, config = load(path)
    if any(name.startswith("model.") for name in arrays):  # a checkpoint holds an optimiser beside it
        arrays = part_of(arrays, "model")
        config = config.get("model", {})
    return build(path, arrays, config)


def describe(model: Forecaster) -> dict[str, Any]:
    """The class and settings of a model, as its file holds them."""
    return {"class": type(model).__name__, "settings": {k: plain(v) for k, v in model.config.items()}}


def plain(value: Any) -> Any:
    """A setting as JSON knows it: NumPy's integers as Python's, tuples as lists."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def part_of(arrays: Mapping[str, Array], part: str) -> dict[str, Array]:
    """The arrays whose name begins with `part`, without it."""
    return {name[len(part) + 1 :]: a for name, a in arrays.items() if name.startswith(f"{part}.")}


def build(path: Path, arrays: dict[str, Array], config: Any) -> Forecaster:
    """The model that the settings describe, bound to the arrays; ModelFileError where they do not fit."""
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        refuse(path, "holds no model's settings")
    kind, settings = config.get("class"), config["settings"]
    if not isinstance(kind, str) or kind not in MODELS:
        refuse(path, f"holds a model of class {str(kind)[:40]!r}, expected one of {sorted(MODELS)}")
    model = MODELS[kind]
    if set(settings) - set(model.settings):
        refuse(path, f"has unknown settings {reprlib.repr(sorted(set(settings) - set(model.settings)))}")
    for name, value in settings.items():
        if not model.settings[name](value):
            refuse(path, f"has a setting of a wrong type or size: {name} = {reprlib.repr(value)}")
    dtypes = {str(a.dtype) for a in arrays.values()}
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"}:
        refuse(path, f"has parameters of {sorted(dtypes)}, expected float32 or float64 throughout")
    try:
        held, implied = sum(int(a.size) for a in arrays.values()), model.count(**settings)
        if held != implied:
            refuse(path, f"holds {held} parameters, its settings make {implied}")
        made: Forecaster = model.build(**settings, dtype=dtypes.pop())
        return made.bind(arrays)
    except TypeError as error:  # a setting is missing
        refuse(path, f"has settings of a wrong type: {' '.join(str(error).split())[:120]}")
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        refuse(path, " ".join(str(error).split())[:200])


def parameter_count(
    features: list[int],
    *,
    channels: int = 1,
    size: Any = (64, 64),
    kernel: Any = 5,
    state_kernel: Any = None,
    patch: int = 1,
    peephole: str | None = "channel",
    head: str | None = None,
    feed: bool = False,
) -> int:
    """How many parameters a `Forecaster` of these settings has, without building one."""
    rank, dense = len(size), kernel is None
    grid = [n // patch for n in size]
    depth = channels * patch**rank
    if dense:
        depth, grid = depth * prod(grid), []
    taps_x = prod(spread(kernel, len(grid)))
    taps_h = taps_x if state_kernel is None else prod(spread(state_kernel, len(grid)))
    peepholes = {None: 0, "channel": 3, "map": 3 * prod(grid)}.get(peephole, 0)
    total = 0
    for stack in ("encoder", "forecaster"):
        for k, f in enumerate(features):
            c = features[k - 1] if k else depth
            c = c if stack == "encoder" or k or feed else 0
            total += 4 * f * (c * taps_x + f * taps_h + 1) + peepholes * f
    shown = features[-1] if (head or ("last" if dense else "all")) == "last" else sum(features)
    return int(total + depth * (shown + 1))


def spread(kernel: Any, rank: int) -> list[int]:
    """A kernel's sizes, one an axis; none where there is no axis."""
    if rank == 0:
        return []
    return [kernel] * rank if isinstance(kernel, int) else list(kernel)


def is_size(value: Any) -> bool:
    """Whether a setting is a whole number that can be a size."""
    return type(value) is int and 1 <= value < 2**31  # so that products stay small to compute


def is_sizes(value: Any, most: int = 3) -> bool:
    """Whether a setting is a list of sizes, at most `most` of them."""
    return isinstance(value, list) and len(value) <= most and all(map(is_size, value))


def is_kernel(value: Any) -> bool:
    """Whether a setting is one size for all axes, a list of them, or None."""
    return value is None or is_size(value) or is_sizes(value)


FORECASTER: dict[str, Callable[[Any], bool]] = {  # what each setting may be in a file
    "features": lambda v: is_sizes(v, most=1000),
    "channels": is_size,
    "size": is_sizes,
    "kernel": is_kernel,
    "state_kernel": is_kernel,
    "patch": is_size,
    "peephole": lambda v: v in (None, "channel", "map"),
    "head": lambda v: v in (None, "all", "last"),
    "feed": lambda v: isinstance(v, bool),
}


class Storable(NamedTuple):
    """What reading a model needs: how to build it, to count its parameters and to judge its settings."""

    build: Callable[..., Any]
    count: Callable[..., int]
    settings: dict[str, Callable[[Any], bool]]


MODELS = {"Forecaster": Storable(Forecaster, parameter_count, FORECASTER)}  # a new model adds a line
