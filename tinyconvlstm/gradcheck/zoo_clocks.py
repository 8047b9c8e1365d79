"""Cells and stacks with clocks, in the zoo: every case runs across ticks and holds of every clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cells import ClockworkLSTMCell, ClockworkRNNCell, TwoMapCell
from .case import Case
from .zoo_cells import KERNELS, SIZES, scanned

Rng = np.random.Generator
CLOCKWORK: dict[str, Callable[..., TwoMapCell]] = {
    "clockwork RNN": ClockworkRNNCell,
    "clockwork LSTM": ClockworkLSTMCell,
}


def clock_cases(rng: Rng) -> list[Case]:
    """Cases of the clockwork cells; random states begin at random times, another for each clip.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments, all of them analytic.
    """
    cases = []
    for name, build in CLOCKWORK.items():
        mask, two = (rng.random((2, 2, 4)) > 0.4) / 0.6, build(2, 2, (3,), periods=(1, 2))
        lengths: dict[str, Any] = {"lengths": [3, 1, 4], "reverse": True, "steps": 4}
        each = [
            (f"{rank}d", build(3, 3, KERNELS[rank], periods=(3, 1, 2)), SIZES[rank], {"steps": 5})
            for rank in (0, 1, 2)
        ]
        for detail, cell, size, settings in [
            *each,
            ("1d lengths, reverse", two, (4,), lengths),
            ("1d recurrent dropout", two, (4,), {"h_mask": mask}),
            ("1d truncated", two, (4,), {"steps": 4, "mode": "truncated"}),
            ("1d checkpointed", two, (4,), {"steps": 5, "mode": "checkpointed"}),
        ]:
            cases.append(scanned(rng, "", cell, size, **settings)._replace(name=f"variant/{name} {detail}"))
    return cases
