"""Cells and stacks with clocks, in the zoo: every case runs across ticks and holds of every clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import map_arrays
from ..cells import (
    ClockStackCell,
    ClockworkLSTMCell,
    ClockworkRNNCell,
    ConvLSTMCell,
    LSTMCell,
    RNNCell,
    TwoMapCell,
)
from .case import Case
from .cells import cell_case
from .zoo_cells import KERNELS, SIZES

Rng = np.random.Generator
CLOCKWORK: dict[str, Callable[..., TwoMapCell]] = {
    "clockwork RNN": ClockworkRNNCell,
    "clockwork LSTM": ClockworkLSTMCell,
}


def clock_cases(rng: Rng) -> list[Case]:
    """Cases of the clockwork cells; every clip begins at a time of its own.

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
            cases.append(timed(rng, f"{name} {detail}", cell, size, **settings))
    return [*cases, *stack_cases(rng)]


def stack_cases(rng: Rng) -> list[Case]:
    """Stacks across ticks and holds of every level: plain ones, pooled ones, with feedback, of other cells."""
    lstm, lengths = ConvLSTMCell, {"lengths": [3, 1, 4], "reverse": True}
    two = lstm(2, 2, (3,)), lstm(2, 3, (3,))
    fed = lstm(2 + 2, 3, (3, 2)), lstm(3 + 2, 2, (2, 3)), lstm(2, 2, (1, 3))
    wide, strided = (lstm(2 + 3, 2, (3,)), lstm(2, 3, (3,), stride=2)), {"top_down": True, "show": 0}
    peeping = lstm(2 + 2, 2, (3,)), lstm(2, 2, (3,), peephole="channel")
    mixed = RNNCell(2 + 2, 3, (3,)), ClockworkLSTMCell(3, 2, (3,), periods=(1, 2))
    stacks: list[tuple[str, Any, Any, dict[str, Any], tuple[int, ...], int, dict[str, Any]]] = [
        ("0d", (LSTMCell(2, 3), LSTMCell(3, 2)), (1, 2), {}, (), 4, {}),
        ("1d lengths, reverse", two, (1, 2), {}, (4,), 4, lengths),
        ("1d truncated", two, (1, 3), {}, (4,), 5, {"mode": "truncated"}),
        ("1d checkpointed", two, (2, 3), {}, (4,), 5, {"mode": "checkpointed"}),
        (
            "2d three levels",
            fed,
            (1, 2, 3),
            {"top_down": True, "pools": ((1, 2), 1), "show": 1},
            (2, 4),
            5,
            {},
        ),
        ("1d strided, shown below", wide, (2, 1), strided, (4,), 5, {}),
        ("1d peephole level", peeping, (1, 2), {"top_down": True}, (4,), 4, {}),
        ("1d other cells, pooled", mixed, (1, 2), {"top_down": True, "pools": (2,)}, (4,), 5, {}),
    ]
    cases = []
    for name, cells, periods, settings, size, steps, scan in stacks:
        cell = ClockStackCell(cells, periods, **settings)
        cases.append(timed(rng, f"clock stack {name}", cell, size, steps=steps, **scan))
    return cases


def timed(rng: Rng, name: str, cell: Any, size: tuple[int, ...], *, steps: int = 3, **settings: Any) -> Case:
    """`cell_case` of a cell with random parameters from a random state, clip n at time n."""
    batch = len(settings.get("lengths", (1, 2)))
    cell = cell.bind({n: 0.5 * rng.standard_normal(a.shape) for n, a in cell.params.items()})
    xs = rng.standard_normal((steps, batch, cell.channels, *size))
    state = map_arrays(lambda a: 0.5 * rng.standard_normal(a.shape), cell.initial_state(xs[0]))
    return cell_case(f"variant/{name}", cell, xs, state._replace(t=np.arange(float(batch))), **settings)
