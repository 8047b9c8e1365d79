"""The picture of a gradient check."""

from __future__ import annotations

from typing import Any

import numpy as np

SMALLEST = 1e-17  # errors of exactly 0 are drawn here, because a logarithmic axis has no 0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = {"central": "o", "complex": "D"}
LABELS = {"central": "central difference", "complex": "complex step"}


def draw_report(report: Any, axes: Any = None) -> Any:
    """Draw analytic against numeric derivatives, and each argument's worst error.

    Left: every compared element, |analytic| against |numeric| on logarithmic axes; a right gradient
    lies on the diagonal, and a wrong sign is drawn as a cross. Right: the worst relative error of each
    argument by each method, with the tolerances as dashed lines.

    Args:
        report: of `gradcheck`.
        axes: two matplotlib axes; default: a new figure.
    Returns:
        The matplotlib figure.
    """
    if axes is None:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
        verdict = "passed" if report.passed else "FAILED"
        figure.suptitle(f"gradient check {verdict}: {report.name}")
    left, right = axes
    draw_elements(report, left)
    draw_errors(report, right)
    return left.figure


def draw_elements(report: Any, axes: Any) -> None:
    """|analytic| against |numeric|, one dot an element."""
    sizes = [abs(v) for _, a, n in report.points for v in (a, n) if np.isfinite(v) and v != 0]
    low, high = (min(sizes), max(sizes)) if sizes else (0.1, 1.0)
    low = max(low, 1e-12 * high) / 2
    axes.plot([low, 2 * high], [low, 2 * high], color="0.7", linewidth=1, zorder=0)
    for k, name in enumerate(arguments(report)):
        points = np.array([(a, n) for argument, a, n in report.points if argument == name])
        points = points.reshape(-1, 2)
        wrong_sign = points[:, 0] * points[:, 1] < 0
        x, y = np.maximum(np.abs(points[:, 1]), low), np.maximum(np.abs(points[:, 0]), low)
        colour = COLOURS[k % len(COLOURS)]
        axes.scatter(x[~wrong_sign], y[~wrong_sign], s=20, color=colour, alpha=0.7, label=name, linewidth=0)
        axes.scatter(x[wrong_sign], y[wrong_sign], s=36, color=colour, marker="x")
    axes.set(xscale="log", yscale="log", xlabel="|numeric derivative|", ylabel="|analytic gradient|")
    axes.set_title("every compared element (x: wrong sign)", fontsize="medium")
    if arguments(report):
        axes.legend(title="argument", fontsize="small")


def draw_errors(report: Any, axes: Any) -> None:
    """The worst relative error of every argument, by method."""
    names = arguments(report)
    for method, marker in MARKERS.items():
        rows = [row for row in report.rows if row.method == method]
        if not rows:
            continue
        colour = "0.25" if method == "central" else "0.55"
        errors = [max(min(row.error, 1e3), SMALLEST) for row in rows]
        places = [names.index(row.argument) for row in rows]
        faces = [colour if row.passed else "red" for row in rows]
        axes.scatter(errors, places, color=faces, marker=marker, s=42, label=LABELS[method], zorder=3)
        limit = report.tolerance[method]
        axes.axvline(limit, color=colour, linestyle="--", linewidth=1)
        axes.annotate(
            f"{method} {limit:.0e}",
            (limit, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -4),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize="small",
            color=colour,
        )
    axes.set(xscale="log", xlabel="worst relative error (red: too large)", xlim=(SMALLEST / 3, 3e3))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(axis="x", color="0.92")
    axes.set_title("worst error of each argument", fontsize="medium")
    if report.rows:
        axes.legend(fontsize="small", loc="lower right")


def arguments(report: Any) -> list[str]:
    """Names of the arguments, in order."""
    return list(dict.fromkeys(row.argument for row in report.rows))
