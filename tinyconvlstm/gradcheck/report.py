"""What a gradient check found: a table to read, a picture to look at, a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Row(NamedTuple):
    """The worst element of one argument, by one method."""

    argument: str
    shape: tuple[int, ...]
    method: str  # "central" or "complex"
    error: float  # relative
    at: tuple[int, ...]  # index of the worst element
    analytic: float
    numeric: float
    step: int | None  # time step of the worst element, where the argument is a sequence
    checked: int  # elements compared
    kinks: int  # elements left out because the function has a kink there
    passed: bool


class Direction(NamedTuple):
    """One directional derivative: all arguments moved at once along a random direction."""

    upstream: str  # which outputs carried a gradient
    method: str
    error: float
    analytic: float
    numeric: float
    passed: bool
    kink: bool = False  # the point lies on a kink, so this derivative does not exist: elements decide


@dataclass(frozen=True)
class Report:
    """The result of a gradient check; `bool(report)` is its verdict and `print(report)` its table."""

    name: str
    directions: list[Direction]
    rows: list[Row]
    tolerance: dict[str, float]
    faults: list[str] = field(default_factory=list)  # impurities: a changed input, an unrepeatable backward
    points: list[tuple[str, float, float]] = field(default_factory=list)  # argument, analytic, numeric

    @property
    def passed(self) -> bool:
        """True when every direction and every element agreed and nothing impure was seen."""
        return not self.faults and all(d.passed for d in self.directions) and all(r.passed for r in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def culprits(self) -> list[Row]:
        """The failing rows, worst first."""
        return sorted((row for row in self.rows if not row.passed), key=lambda row: -row.error)

    def worst(self, method: str) -> float | None:
        """Largest relative error of a method over directions and elements; None if it was not used."""
        found = [d.error for d in self.directions if d.method == method and not d.kink]
        found += [row.error for row in self.rows if row.method == method]
        return max(found, default=None)

    def line(self, width: int = 34) -> str:
        """One line: verdict, name (padded to `width`) and the worst error of each method."""
        found = [(method, self.worst(method)) for method in ("central", "complex")]
        errors = "   ".join(f"{method} {error:.1e}" for method, error in found if error is not None)
        return f"{'pass' if self.passed else 'FAIL'}  {self.name:<{width}} {errors}".rstrip()

    def __str__(self) -> str:
        lines = [self.line(), ""]
        lines += [f"  impure: {fault}" for fault in self.faults]
        head = ("argument", "shape", "method", "error", "at index", "step", "analytic", "numeric", "checked")
        table: list[tuple[str, ...]] = [head]
        for row in self.rows:
            kinks = f" ({row.kinks} kinks left out)" if row.kinks else ""
            table.append(
                (
                    row.argument,
                    shape_text(row.shape),
                    row.method,
                    f"{row.error:.1e}{'' if row.passed else ' !'}",
                    ",".join(map(str, row.at)),
                    "" if row.step is None else str(row.step),
                    f"{row.analytic:+.6e}",
                    f"{row.numeric:+.6e}",
                    f"{row.checked}{kinks}",
                )
            )
        lines += aligned(table)
        lines += [""]
        table = [("upstream gradient", "method", "error", "analytic", "numeric")]
        for d in self.directions:
            mark = " kink" if d.kink else "" if d.passed else " !"
            table.append(
                (d.upstream, d.method, f"{d.error:.1e}{mark}", f"{d.analytic:+.6e}", f"{d.numeric:+.6e}")
            )
        lines += aligned(table)
        limits = ", ".join(f"{method} {limit:.0e}" for method, limit in self.tolerance.items())
        lines += ["", f"  passes when every relative error is at most: {limits}"]
        for row in self.culprits[:1]:
            where = "" if row.step is None else f", time step {row.step}"
            lines.append(
                f"  culprit: {row.argument}{list(row.at)}{where}: backward says {row.analytic:.9g}, "
                f"{row.method} difference says {row.numeric:.9g}"
            )
        return "\n".join(lines)

    def draw(self, axes: Any = None) -> Any:
        """Draw analytic against numeric derivatives, and each argument's worst error. Needs matplotlib.

        Args:
            axes: a pair of matplotlib axes; default: a new figure.
        Returns:
            The matplotlib figure.
        """
        from ..viz.checks import draw_report

        return draw_report(self, axes)


def shape_text(shape: tuple[int, ...]) -> str:
    """(2, 3) as "2x3", () as "scalar"."""
    return "x".join(map(str, shape)) or "scalar"


def aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Rows of a text table with padded columns."""
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
    ]
