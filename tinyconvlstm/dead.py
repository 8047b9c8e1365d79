"""Weights that no gradient ever reaches: counted in the size of a model, and never learned.

They come about by mistake, and no loss curve shows them: a map that is built and not called, peepholes
set to zero at every call, the outer taps of a kernel on a frame too small for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .backend import Array, backend_name, to_backend, to_numpy
from .gradcheck.case import Case
from .gradcheck.layers import layer_case
from .layers.base import Layer
from .ops.conv import im2col_only


class DeadRow(NamedTuple):
    """How much of one parameter is dead."""

    name: str
    dead: int  # elements whose gradient is always zero
    size: int


class DeadReport(NamedTuple):
    """Every parameter of a model, and how much of it is dead; `print(report)` shows the dead ones."""

    rows: tuple[DeadRow, ...]

    @property
    def dead(self) -> int:
        """Dead elements of all parameters."""
        return sum(row.dead for row in self.rows)

    @property
    def size(self) -> int:
        """Elements of all parameters."""
        return sum(row.size for row in self.rows)

    def __str__(self) -> str:
        found = [row for row in self.rows if row.dead]
        lines = [f"{r.name}: {r.dead:,} of {r.size:,} dead ({r.dead / r.size:.1%})" for r in found]
        total = f"{self.dead:,} of {self.size:,} parameters are dead ({self.dead / max(1, self.size):.1%})"
        return "\n".join([*lines, total])


def dead_weights(
    layer: Layer, x: Array, *, trials: int = 3, seed: int = 0, spread: float = 0.1, **settings: Any
) -> DeadReport:
    """Which parameters never get a gradient, whatever is read and whatever is asked of the output.

        dead = for every trial  grad == 0       with random inputs, upstream gradients and parameters

    A weight that is alive has a gradient of zero for almost no random arguments, so that a few trials
    tell the two apart. Parameters are moved in every trial: behind a gate that starts at zero nothing
    is dead for good.

    Args:
        layer: any `Layer` or model; a cell as `Recurrent(cell)`.
        x: its input, three steps or more of a sequence: at the first step from rest, w_h meets h = 0.
            Floating numbers are moved in every trial too; whole ones, as ids, stay.
        trials: how many random trials.
        seed: of the random numbers.
        spread: standard deviation of what is added to parameters and inputs.
        settings: of the layer's forward, such as train, horizon or lengths.
    Returns:
        A `DeadReport` with one row a parameter.
    """
    rng = np.random.default_rng(seed)
    alive = {name: np.zeros(a.shape, bool) for name, a in layer.params.items()}
    for trial in range(trials):
        case = layer_case("model", layer, x, seed=seed + trial, **settings)  # another seed, another dropout
        reached(case, alive, rng, spread)
    return report(alive)


def dead_in_case(case: Case, *, trials: int = 3, seed: int = 0, spread: float = 0.1) -> DeadReport:
    """`dead_weights` of a case of the gradient checker: all its arrays, inputs as well as parameters."""
    rng = np.random.default_rng(seed)
    alive = {name: np.zeros(a.shape, bool) for name, a in case.arrays.items()}
    for _ in range(trials):
        reached(case, alive, rng, spread)
    return report(alive)


def reached(case: Case, alive: dict[str, Any], rng: np.random.Generator, spread: float) -> None:
    """One trial: mark in `alive` every element with a gradient."""
    arrays = {name: a + noise(rng, a, spread) for name, a in case.arrays.items()}
    with im2col_only():  # whose zeros are zeros
        outputs, saved = case.forward(arrays)
        grads = case.backward({name: noise(rng, y, 1.0) for name, y in outputs.items()}, saved)
    for name, seen in alive.items():
        seen |= to_numpy(grads[name]) != 0


def noise(rng: np.random.Generator, like: Array, spread: float) -> Array:
    """Normal numbers with the shape, dtype and backend of an array."""
    drawn = spread * rng.standard_normal(like.shape, dtype=np.float32)
    return to_backend(np.asarray(drawn, dtype=like.dtype), backend_name(like) or "numpy")


def report(alive: dict[str, Any]) -> DeadReport:
    """The rows of what was never marked."""
    return DeadReport(
        tuple(DeadRow(name, int((~seen).sum()), int(seen.size)) for name, seen in alive.items())
    )
