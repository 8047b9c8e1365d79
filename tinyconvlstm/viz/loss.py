"""The course of a training as a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from .gates import COLOURS


def loss_curves(history: Any) -> Any:
    """Draw training loss, validation and learning rate. Needs matplotlib.

    Args:
        history: rows with step, loss, lr and valid, as `train` returns them; or the path of a log.csv.
    Returns:
        The matplotlib figure.
    Raises:
        ValueError: there is no row.
    """
    from matplotlib.figure import Figure

    rows: list[Any] = read_log(history) if isinstance(history, str | Path) else list(history)
    if not rows:
        raise ValueError("history has no rows, expected at least one step")
    steps = np.array([row["step"] for row in rows], dtype=float) + 1
    loss = np.array([row["loss"] for row in rows], dtype=float)
    figure = Figure(figsize=(7.5, 4.4), facecolor="white", layout="constrained")
    rated = any(row.get("lr") is not None for row in rows)
    if rated:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        bottom.plot(steps, [row.get("lr") or 0.0 for row in rows], color="0.4")
        bottom.set_ylabel("learning rate")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("step")
    else:
        top = figure.subplots()
        top.set_xlabel("step")
    top.plot(steps, loss, color=COLOURS[0], alpha=0.3, lw=0.8, label="training, each batch")
    if len(loss) >= 10:
        top.plot(steps, smooth(loss), color=COLOURS[0], lw=2, label="training, smoothed")
    valid = [(row["step"] + 1, row["valid"]) for row in rows if row.get("valid") is not None]
    if valid:
        top.plot(*zip(*valid, strict=True), "o-", color=COLOURS[1], ms=5, label="validation")
    high = float(np.quantile(loss, 0.98))
    low = min(float(loss.min()), *(v for _, v in valid)) if valid else float(loss.min())
    if high > low:
        top.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
    top.set_ylabel("loss (nats per pixel)")
    top.grid(alpha=0.3)
    top.legend(frameon=False)
    return figure


def smooth(values: Any, share: float = 0.03) -> Any:
    """A running mean over a share of the curve, narrower at both ends so that nothing is shifted."""
    reach = max(1, int(share * len(values)))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    k = np.arange(len(values))
    half = np.minimum(np.minimum(k, len(values) - 1 - k), reach)
    return (sums[k + half + 1] - sums[k - half]) / (2 * half + 1)


def read_log(path: str | Path) -> list[dict[str, float | None]]:
    """The rows of a log.csv; an empty cell is None."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]
