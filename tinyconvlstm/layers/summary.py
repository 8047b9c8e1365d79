"""What a model costs, layer by layer: parameters, multiply-accumulates, activation memory.

Activation memory counts what a layer's forward makes and keeps, its output included. It is exact for a
layer alone; in a chain an output that nobody saved (before a sigmoid, which keeps its own output) is
freed and still counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class CostRow(NamedTuple):
    """One layer's line in the table."""

    name: str
    kind: str
    out: Shape
    params: int
    macs: int  # multiply-accumulates of one forward pass; a backward pass takes about twice as many
    kept: int  # numbers that a forward pass makes and keeps until its backward pass


class Cost(NamedTuple):
    """Cost of a layer for one input shape, and the rows of its parts."""

    out: Shape
    macs: int
    kept: int
    rows: tuple[CostRow, ...] = ()

    @classmethod
    def of(cls, parts: list[tuple[str, Any, Cost]]) -> Cost:
        """Add up named parts, given in order as (name, layer, cost); the last one's output is the whole's."""
        rows: list[CostRow] = []
        for name, layer, cost in parts:
            if cost.rows:
                rows += [row._replace(name=f"{name}.{row.name}") for row in cost.rows]
            else:
                rows.append(CostRow(name, type(layer).__name__, cost.out, layer.count, cost.macs, cost.kept))
        macs, kept = sum(row.macs for row in rows), sum(row.kept for row in rows)
        return cls(parts[-1][2].out, macs, kept, tuple(rows))


@dataclass(frozen=True)
class Summary:
    """The cost table of a model; `print(summary)` shows it.

    Attributes:
        rows: one `CostRow` a layer.
        shape: the input shape it holds for.
        itemsize: bytes of a number (4 for float32).
        peaks: for a recurrent layer, what a training step needs at its peak, in each way back.
    """

    rows: tuple[CostRow, ...]
    shape: Shape
    itemsize: int
    peaks: tuple[
        tuple[str, int], ...
    ] = ()  # of a recurrent layer: (way back through time, numbers at the peak)

    @property
    def params(self) -> int:
        """Learned parameters."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes that a forward pass makes and keeps until its backward pass."""
        return sum(row.kept for row in self.rows) * self.itemsize

    def __str__(self) -> str:
        head = ("layer", "kind", "output shape", "parameters", "MACs", "activations")
        body = [
            (
                row.name,
                row.kind,
                "x".join(map(str, row.out)),
                f"{row.params:,}",
                si(row.macs),
                f"{si(row.kept * self.itemsize)}B",
            )
            for row in self.rows
        ]
        total = ("total", "", "", f"{self.params:,}", si(self.macs), f"{si(self.activation_bytes)}B")
        table = [head, *body, total]
        widths = [max(len(line[k]) for line in table) for k in range(len(head))]
        lines = []
        for line in table:
            left = [cell.ljust(w) for cell, w in zip(line[:3], widths[:3], strict=True)]
            right = [cell.rjust(w) for cell, w in zip(line[3:], widths[3:], strict=True)]
            lines.append("  ".join(left + right))
        rule = "-" * len(lines[0])
        note = f"input {sizes(self.shape)}; MACs of one forward pass; activations kept for backward"
        peaks = [f"peak of a step, {name}: {si(numbers * self.itemsize)}B" for name, numbers in self.peaks]
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], note, *peaks])


def sizes(shape: Any) -> str:
    """(2, 3) as "2x3", and several shapes with "and" between them."""
    if shape and isinstance(shape[0], tuple):
        return " and ".join(map(sizes, shape))
    return "x".join(map(str, shape))


def summarise(layer: Any, shape: Shape) -> Summary:
    """The summary of a layer for an input of `shape`."""
    cost = layer.cost(tuple(shape))
    rows = cost.rows or Cost.of([("0", layer, cost)]).rows
    itemsize = next((int(a.dtype.itemsize) for a in layer.params.values()), 4)
    return Summary(rows, tuple(shape), itemsize, layer.peaks(tuple(shape)) if hasattr(layer, "peaks") else ())


def si(number: int) -> str:
    """12,345,678 as "12.3 M"."""
    value = float(number)
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {unit}".rstrip() if unit or value % 1 else f"{int(value)} "
        value /= 1000
    return f"{value:.3g} T"


def conv_macs(w_shape: Shape, batch: int, positions: int) -> int:
    """Multiply-accumulates of a convolution with weights (F, C / groups, *K) at that many positions."""
    return batch * positions * prod(w_shape)
