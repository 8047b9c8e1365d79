"""The recurrent part of the zoo: gate arithmetic, and every cell scanned over time.

Sizes are odd and unequal, every parameter is random (peepholes and biases too), every scan begins at
a random state and is longer than the longest path a mistake could hide behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell, RNNCell, TwoMapCell
from ..ops import gates
from .case import Case, pair_case
from .cells import cell_case

Rng = np.random.Generator

CELLS: dict[str, Callable[..., TwoMapCell]] = {
    "RNN": RNNCell,
    "LSTM": LSTMCell,
    "GRU": GRUCell,
    "GRU reset before": ResetBeforeGRUCell,
}
KERNELS: dict[int, tuple[int, ...]] = {0: (), 1: (3,), 2: (3, 2), 3: (2, 1, 3)}  # by number of spatial axes
SIZES: dict[int, tuple[int, ...]] = {0: (), 1: (5,), 2: (3, 4), 3: (2, 3, 2)}


def cell_cases(rng: Rng) -> list[Case]:
    """Cases of the gate pairs and of every cell.

    Args:
        rng: a NumPy Generator; it draws parameters, inputs and states.
    Returns:
        Cases with float64 arguments, all of them analytic.
    """
    return [
        *gate_cases(rng),
        *plain_cases(rng),
        *peephole_cases(rng),
        *map_cases(rng),
        *time_cases(rng),
        *truncated_cases(rng),
        *checkpointed_cases(rng),
    ]


def gate_cases(rng: Rng) -> list[Case]:
    """The pairs of `ops.gates`."""

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape)

    cases = []
    for name, w_shape in [
        ("no peephole", None),
        ("peephole channel", (3, 3)),
        ("peephole map", (3, 3, 2, 5)),
    ]:
        arrays = {"z": normal(2, 12, 2, 5), "c_prev": normal(2, 3, 2, 5)}
        if w_shape is not None:
            arrays["w_c"] = normal(*w_shape)
        cases.append(
            pair_case(
                f"lstm_gates {name}",
                gates.lstm_gates_forward,
                lambda dstate, saved: present(gates.lstm_gates_backward(filled(dstate, saved.c), saved)),
                arrays,
                outputs=("h", "c"),
            )
        )
    return [
        *cases,
        pair_case(
            "gru_gates",
            gates.gru_gates_forward,
            gates.gru_gates_backward,
            {"z_x": normal(2, 9, 4), "z_h": normal(2, 9, 4), "h_prev": normal(2, 3, 4)},
            outputs=("h",),
        ),
        pair_case(
            "gru_reset",
            gates.gru_reset_forward,
            lambda dy, saved: gates.gru_reset_backward(filled(dy, saved.h), saved),
            {"z": normal(2, 6, 4), "h": normal(2, 3, 4)},
            outputs=("u", "v"),
        ),
        pair_case(
            "gru_update",
            gates.gru_update_forward,
            gates.gru_update_backward,
            {"z_n": normal(2, 3, 4), "u": rng.uniform(0.1, 0.9, (2, 3, 4)), "h_prev": normal(2, 3, 4)},
            outputs=("h",),
        ),
    ]


def plain_cases(rng: Rng) -> list[Case]:
    """Every cell over 0 to 3 spatial axes, full backpropagation through time."""
    return [
        scanned(rng, f"{conv(rank)}{name} {rank}d", build(3, 2, KERNELS[rank]), SIZES[rank])
        for name, build in CELLS.items()
        for rank in KERNELS
    ]


def peephole_cases(rng: Rng) -> list[Case]:
    """Peepholes per channel and as a map, over 0 to 3 spatial axes."""
    cases = []
    for peephole in ("channel", "map"):
        for rank in KERNELS:
            size = SIZES[rank] if peephole == "map" else None
            cell = LSTMCell(2, 3, KERNELS[rank], peephole=peephole, size=size)
            cases.append(scanned(rng, f"{conv(rank)}LSTM {rank}d peephole {peephole}", cell, SIZES[rank]))
    return cases


def map_cases(rng: Rng) -> list[Case]:
    """Even kernels, input maps that shrink the frame, dilated maps, and no input at all."""
    shrink: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "state_kernel": (2, 3)}
    return [
        scanned(rng, "ConvLSTM 2d even kernel", ConvLSTMCell(2, 2, (2, 4)), (3, 5)),
        scanned(rng, "ConvLSTM 2d strided, dilated", ConvLSTMCell(2, 2, (3, 2), **shrink), (5, 4)),
        scanned(rng, "ConvLSTM 1d state dilated", ConvLSTMCell(2, 2, (3,), state_dilation=2), (7,)),
        scanned(rng, "ConvGRU 2d strided, dilated", GRUCell(2, 2, (3, 2), **shrink), (5, 4)),
        scanned(rng, "ConvLSTM 2d without input", ConvLSTMCell(0, 2, (3, 2)), (3, 4)),
        scanned(rng, "LSTM 0d without input", LSTMCell(0, 3), ()),
        scanned(rng, "ConvGRU 1d without input", GRUCell(0, 2, (3,)), (4,)),
    ]


def time_cases(rng: Rng) -> list[Case]:
    """Variable lengths, reversed reading, recurrent dropout."""
    cases = []
    for name, build in CELLS.items():
        cell = build(2, 2, (3,))
        mask = (rng.random((3, 2, 4)) > 0.4) / 0.6
        cases += [
            scanned(rng, f"Conv{name} 1d lengths", cell, (4,), steps=4, lengths=[2, 4, 1]),
            scanned(rng, f"Conv{name} 1d reverse", cell, (4,), reverse=True),
            scanned(
                rng, f"Conv{name} 1d lengths, reverse", cell, (4,), steps=4, lengths=[3, 1, 4], reverse=True
            ),
            scanned(rng, f"Conv{name} 1d recurrent dropout", cell, (4,), batch=3, h_mask=mask),
        ]
    everything = ConvLSTMCell(2, 2, (3, 2), peephole="map", size=(3, 4))
    mask = (rng.random((3, 2, 1, 1)) > 0.4) / 0.6
    settings: dict[str, Any] = {"lengths": [2, 4, 3], "reverse": True, "h_mask": mask}
    return [*cases, scanned(rng, "ConvLSTM 2d all at once", everything, (3, 4), steps=4, **settings)]


def truncated_cases(rng: Rng) -> list[Case]:
    """Truncated backpropagation through time against differences with frozen boundary states."""
    cases = []
    for k1, k2 in [(1, 1), (1, 3), (2, 2), (2, 3), (2, 5), (3, 4), (5, 5)]:
        cell = LSTMCell(2, 3, peephole="channel")
        cases.append(truncated(rng, "LSTM 0d peephole channel", cell, (), k1, k2))
    for name, build in CELLS.items():
        cases.append(truncated(rng, f"Conv{name} 1d", build(2, 2, (3,)), (4,), 2, 3))
    cell = ConvLSTMCell(2, 2, (3, 2), peephole="map", size=(3, 4))
    cases.append(truncated(rng, "ConvLSTM 2d peephole map", cell, (3, 4), 2, 3))
    mask = (rng.random((2, 2, 3, 4)) > 0.4) / 0.6
    cell = ConvLSTMCell(2, 2, (3, 2))
    return [*cases, truncated(rng, "ConvLSTM 2d recurrent dropout", cell, (3, 4), 1, 2, h_mask=mask)]


def checkpointed_cases(rng: Rng) -> list[Case]:
    """Checkpointed backpropagation through time, segments that divide the sequence and that do not."""
    cases = []
    for name, build in CELLS.items():
        for every in (1, 2, 5):
            cell, detail = build(2, 2, (3,)), f"Conv{name} 1d, checkpointed every={every}"
            cases.append(scanned(rng, detail, cell, (4,), steps=5, mode="checkpointed", every=every))
    cell = ConvLSTMCell(2, 2, (3, 2), peephole="map", size=(3, 4))
    settings: dict[str, Any] = {"lengths": [2, 5, 3], "reverse": True, "mode": "checkpointed"}
    detail = "ConvLSTM 2d peephole map, lengths, reverse, checkpointed"
    return [*cases, scanned(rng, detail, cell, (3, 4), steps=5, **settings)]


def truncated(
    rng: Rng, name: str, cell: TwoMapCell, size: tuple[int, ...], k1: int, k2: int, **settings: Any
) -> Case:
    """A case of five steps, truncated."""
    name = f"{name}, truncated k1={k1} k2={k2}"
    return scanned(rng, name, cell, size, steps=5, mode="truncated", k1=k1, k2=k2, **settings)


def scanned(
    rng: Rng,
    name: str,
    cell: TwoMapCell,
    size: tuple[int, ...],
    *,
    steps: int = 3,
    batch: int = 2,
    **settings: Any,
) -> Case:
    """`cell_case` of a cell with random parameters on a random sequence."""
    cell = randomised(cell, rng)
    if settings.get("lengths") is not None:
        batch = len(settings["lengths"])
    xs = rng.standard_normal((steps, batch, cell.channels, *size))
    return cell_case(f"cell {name}", cell, xs, seed=int(rng.integers(1 << 31)), **settings)


def randomised(cell: TwoMapCell, rng: Rng) -> TwoMapCell:
    """The cell in float64 with every parameter random: a zero peephole or bias would hide mistakes."""
    return cell.bind({name: 0.5 * rng.standard_normal(a.shape) for name, a in cell.params.items()})


def conv(rank: int) -> str:
    """ "Conv" where there is space."""
    return "Conv" if rank else ""


def filled(dys: tuple[Any, ...], like: Array) -> Any:
    """Upstream gradients with zeros for absent ones: the scan, not the gates, knows what is absent."""
    return tuple(np.zeros_like(like) if dy is None else dy for dy in dys)


def present(grads: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gradients of the arguments that were given."""
    return tuple(g for g in grads if g is not None)
