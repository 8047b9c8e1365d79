"""Models to and from files: the parameters, and the settings that build the model again.

A file is data from a stranger. Before a model is built, its settings are checked, and the number of
parameters they imply, counted by arithmetic, must be what the file holds: no setting can make the
reader allocate more than the file's own size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ..backend import Array, to_numpy
from ..files import load, refuse, save
from .forecaster import Forecaster

MODELS: dict[str, type[Forecaster]] = {"Forecaster": Forecaster}  # a new model adds itself here


def save_model(path: Path, model: Forecaster) -> None:
    """Write a model, all or nothing.

    Args:
        path: the file.
        model: one of MODELS, on any backend.
    Raises:
        ModelFileError: the disk refuses.
    """
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
    return {"class": type(model).__name__, "settings": model.config}


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
    known = set(inspect.signature(MODELS[kind].__init__).parameters) - {"self", "rng", "dtype", "prior"}
    if set(settings) - known:
        refuse(path, f"has unknown settings {sorted(map(str, set(settings) - known))[:5]}")
    dtypes = {str(a.dtype) for a in arrays.values()}
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"}:
        refuse(path, f"has parameters of {sorted(dtypes)}, expected float32 or float64 throughout")
    try:
        held, implied = sum(int(a.size) for a in arrays.values()), parameter_count(**settings)
        if held != implied:
            refuse(path, f"holds {held} parameters, its settings make {implied}")
        return MODELS[kind](**settings, dtype=dtypes.pop()).bind(arrays)
    except (TypeError, AttributeError, OverflowError) as error:
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
    """A kernel's sizes, one an axis."""
    return [kernel] * rank if isinstance(kernel, int) else list(kernel or [])
