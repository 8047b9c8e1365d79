"""Trained on two digits, tested on three: how much worse does a forecaster get outside of what it knows?

The forecaster of `forecast` never sees three digits in training. Its loss is measured on held-out digits,
two at a time and three at a time, in closed loop. More ink is harder for everybody, so the baselines'
increase stands beside the model's.

Goal: both losses and their ratio measured, and on three digits still a lower error than copying.
Source: the out-of-domain runs of Shi et al. 2015, arXiv 1506.04214, section 4.1: trained on two digits,
tested on three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import metrics
from ..backend import Array
from .films import in_parts, plain
from .forecast import AHEAD, COLOURS, SEEN, digits, films, forecasts, trained
from .outcome import Outcome

COUNTS = (2, 3)


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on two digits, forecast two and three."""
    model = trained(seed, steps=2 if quick else 500, progress=progress, description="generalise")
    clips = {count: digits("test", seed, count).batch(0, 32 if quick else 192) for count in COUNTS}
    found = {count: forecasts(model, frames[:SEEN], seed) for count, frames in clips.items()}
    errors = {
        count: {name: metrics.mse(y, clips[count][SEEN:]) for name, y in ways.items()}
        for count, ways in found.items()
    }
    nats = {}
    for count, frames in clips.items():
        logits = in_parts(lambda part: model.forward(part, horizon=AHEAD)[0], frames[:SEEN])
        nats[count] = metrics.nats_per_pixel(logits, frames[SEEN:], logits=True)
    within, beyond = errors[2], errors[3]
    return Outcome(
        task="generalise",
        measure=f"mean squared error a pixel on three digits after training on two, {clips[3].shape[1]} held-out clips",
        scores=beyond,
        goal="on three digits a lower error than copying the last frame; the increase is measured",
        reached=beyond["ConvLSTM"] < beyond["copy of the last frame"]
        and bool(np.isfinite(nats[3] / nats[2])),
        figure=lambda: picture(clips, found, errors, nats),
        facts={
            "on two digits": ", ".join(f"{name} {value:.4f}" for name, value in within.items()),
            "three over two": ", ".join(
                f"{name} {beyond[name] / value:.2f}" for name, value in within.items()
            ),
            "nats a pixel": f"{nats[2]:.4f} on two, {nats[3]:.4f} on three: {nats[3] / nats[2]:.2f} times",
        },
        precision=4,
    )


def picture(
    clips: dict[int, Array],
    found: dict[int, dict[str, Array]],
    errors: dict[int, dict[str, float]],
    nats: dict[int, float],
) -> Any:
    """A clip of two digits and one of three, and the errors of both."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12.5, 9.6), layout="constrained")
    figure.suptitle("Trained on two digits, tested on three", fontsize=13)
    top, low = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    for part, count in zip(top.subfigures(1, 2), COUNTS, strict=True):
        part.suptitle(f"{count} digits: {nats[count]:.3f} nats a pixel", fontsize=10)
        films(part, clips[count][:SEEN], clips[count][SEEN:], found[count], 1)
    left, right = low.subplots(1, 2, width_ratios=(1, 1.2))
    names = list(errors[2])
    for k, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
        values = [errors[count][name] for count in COUNTS]
        left.bar([k - 0.2, k + 0.2], values, 0.36, color=colour)
        for x, value, count in zip((k - 0.2, k + 0.2), values, COUNTS, strict=True):
            left.text(x, value, f"{count} digits\n{value:.3f}", ha="center", va="bottom", fontsize=7)
    left.set_xticks(
        range(len(names)),
        [
            name.replace(" of the ", "\nof the ").replace(" velo", "\nvelo").replace(" train", "\ntrain")
            for name in names
        ],
    )
    left.set_ylim(0, 1.2 * max(max(e.values()) for e in errors.values()))
    plain(left, y="mean squared error", title="All clips, all frames ahead")
    ahead = np.arange(1, AHEAD + 1)
    for name, colour in zip(names, COLOURS, strict=True):
        for count, style in zip(COUNTS, ("-", "--"), strict=True):
            truth, y = clips[count][SEEN:], found[count][name]
            curve = [metrics.mse(y[t : t + 1], truth[t : t + 1]) for t in range(AHEAD)]
            right.plot(ahead, curve, style, color=colour, marker="o", ms=3, label=f"{name}, {count} digits")
    right.set_ylim(0)
    plain(right, x="frames ahead", y="mean squared error", title="Over the horizon")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
