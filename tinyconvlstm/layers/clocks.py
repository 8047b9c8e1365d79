"""Stacked clocks as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

from ..cells.base import TwoMapCell
from ..cells.clock_stack import ClockStackCell, rest_like
from ..ops.windows import per_axis
from .base import Shape
from .recurrent import Recurrent, check_time
from .summary import Cost


class ClockStack(Recurrent):
    """A `ClockStackCell` scanned over time, as a layer.

    Args: cells, periods, pools, top_down, show: as `ClockStackCell`. settings: those of `Recurrent`, but for
        recurrent_dropout.
    Source: see `ClockStackCell`.
    """

    cell: ClockStackCell  # type: ignore[assignment]

    def __init__(
        self,
        cells: Sequence[TwoMapCell],
        periods: Sequence[int],
        *,
        pools: Sequence[int | tuple[int, ...]] | None = None,
        top_down: bool = False,
        show: int = -1,
        **settings: Any,
    ) -> None:
        if settings.get("recurrent_dropout"):
            raise ValueError(
                f"recurrent_dropout is {settings['recurrent_dropout']}, expected 0: levels draw no masks"
            )
        stack = ClockStackCell(cells, periods, pools=pools, top_down=top_down, show=show)
        super().__init__(stack, **settings)  # type: ignore[arg-type]

    def cost(self, shape: Shape) -> Cost:
        """Every level's maps at each of its ceil(T / T_l) ticks from rest; the states and what was read are kept."""
        T, N, C, *S = check_time(shape, "ClockStack")
        cell, costs = self.cell, []
        first = next(iter(cell.params.values()))
        for k, (level, frame) in enumerate(
            zip(cell.cells, cell.frames(rest_like(first, (N, C, *S))), strict=True)
        ):
            moves, state = ceil(T / cell.periods[k]), level.state_shape(frame)
            pooled = k and prod(per_axis(cell.pools[k - 1], len(S), "pool")) > 1
            read = frame.size if cell.context(k) or pooled else 0
            kept = moves * (N * level.step_kept(state[2:]) + prod(state) * level.states + read)
            macs = moves * N * prod(state[2:]) * level.macs_per_position
            costs.append((str(k), level, Cost((T, *state), macs, kept)))
        shown = costs[cell.show][2].out
        out = shown if self.return_sequences else shown[1:]
        costs[-1] = (*costs[-1][:2], costs[-1][2]._replace(kept=costs[-1][2].kept + prod(shown)))  # ys
        return Cost.of(costs)._replace(out=out)

    def peaks(self, shape: Shape) -> tuple[tuple[str, int], ...]:
        """None: the formula of `Recurrent` is for one cell whose maps stand outside the loop."""
        return ()
