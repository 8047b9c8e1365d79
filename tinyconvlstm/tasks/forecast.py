"""The next frames of moving digits, every forecast fed back in: closed loop over six frames.

An encoder ConvLSTM reads six frames; the forecaster goes on from its state and reads the frame before: in
training the true one with a probability that falls from 1 to 0 (scheduled sampling), in use its own
forecast. One step ahead is the next-frame forecast; the sixth has passed five times through the loop.

The baselines: copying the last frame, moving it on at constant velocity, and the mean of all training
frames, a grey blur that no bounce can hurt.

Goal: a lower mean squared error than every baseline's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import metrics
from ..backend import Array
from ..data.moving_digits import MovingDigits
from ..layers.base import Rng
from ..models import Forecaster, constant_velocity, copy_last_frame
from ..models.objective import forecast_loss_backward, forecast_loss_forward
from .films import INK, MARK, MODEL, OTHER, plain, show
from .learn import fit
from .outcome import Outcome

SEEN, AHEAD, CANVAS = 6, 6, (32, 32)
CLIP: dict[str, Any] = {"canvas": CANVAS, "frames": SEEN + AHEAD, "digit_size": 13, "speed": (1.0, 3.0)}
COLOURS = (MODEL, OTHER, MARK, "#c9b458")  # of the contestants, in order
MEASURES = {"MSE": metrics.mse, "MAE": metrics.mae, "PSNR (dB)": metrics.psnr, "SSIM": metrics.ssim}


def digits(split: str, seed: int, count: int = 2) -> MovingDigits:
    """The clips of a split, with so many digits."""
    return MovingDigits(split, seed=seed, digits=count, **CLIP)


def network(seed: int) -> Forecaster:
    """One ConvLSTM each way over patches of 4x4 pixels."""
    return Forecaster((48,), size=CANVAS, kernel=3, patch=4, feed=True, prior=0.1, rng=seed)


def sampled_loss_forward(
    model: Forecaster, data: tuple[Array, float], *, train: bool = False, rng: Rng = None
) -> tuple[Array, Any]:
    """`forecast_loss_forward` of frames that come with their probability of feeding the truth."""
    frames, rate = data
    return forecast_loss_forward(model, frames, observed=SEEN, train=train, rng=rng, truth_rate=rate)


def trained(seed: int, *, steps: int, progress: bool, description: str) -> Forecaster:
    """A forecaster trained on two digits, the truth fed ever more rarely and in the last third never."""
    model, data = network(seed), digits("train", seed)
    fit(
        model,
        (sampled_loss_forward, forecast_loss_backward),
        lambda step: (data.batch(step, 16), max(0.0, 1 - 1.5 * step / steps)),
        steps=steps,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description=description,
    )
    return model


def forecasts(model: Forecaster, past: Array, seed: int) -> dict[str, Array]:
    """What each contestant says comes next, (AHEAD, N, 1, H, W); the mean is that of two digits' training clips."""
    mean = digits("train", seed).batch(0, 256).mean(axis=(0, 1))
    return {
        "ConvLSTM": model.predict(past, AHEAD),
        "copy of the last frame": copy_last_frame(past, AHEAD),
        "constant velocity": constant_velocity(past, AHEAD),
        "mean training frame": np.broadcast_to(mean, (AHEAD, past.shape[1], *mean.shape)),
    }


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on two digits, forecast two others."""
    model = trained(seed, steps=2 if quick else 500, progress=progress, description="forecast")
    frames = digits("test", seed).batch(0, 32 if quick else 192)
    past, truth = frames[:SEEN], frames[SEEN:]
    found = forecasts(model, past, seed)
    scores = {name: metrics.mse(y, truth) for name, y in found.items()}
    curves = {
        name: {m: [f(y[t : t + 1], truth[t : t + 1]) for t in range(AHEAD)] for m, f in MEASURES.items()}
        for name, y in found.items()
    }
    facts = {
        measure: ", ".join(f"{name} {f(y, truth):.3g}" for name, y in found.items())
        for measure, f in MEASURES.items()
        if measure != "MSE"
    }
    facts["MSE one frame ahead"] = ", ".join(f"{name} {c['MSE'][0]:.4f}" for name, c in curves.items())
    facts[f"MSE {AHEAD} frames ahead"] = ", ".join(f"{name} {c['MSE'][-1]:.4f}" for name, c in curves.items())
    best = min(value for name, value in scores.items() if name != "ConvLSTM")
    return Outcome(
        task="forecast",
        measure=f"mean squared error a pixel over {AHEAD} frames in closed loop, {frames.shape[1]} held-out clips",
        scores=scores,
        goal="a lower error than every baseline",
        reached=scores["ConvLSTM"] < best,
        figure=lambda: picture(past, truth, found, curves),
        facts=facts,
        precision=4,
    )


def films(figure: Any, past: Array, truth: Array, found: dict[str, Array], n: int) -> None:
    """One clip: seen, come, and every forecast of what came."""
    rows = [("seen", past), ("what came", truth), *found.items()]
    axes = figure.subplots(len(rows), AHEAD, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for row, (name, frames) in zip(axes, rows, strict=True):
        for t, ax in enumerate(row):
            show(ax, frames[t, n, 0])
        label = (
            name.replace(" of the ", "\nof the ")
            .replace("constant ", "constant\n")
            .replace(" training", "\ntraining")
        )
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        row[0].yaxis.label.set_color(MODEL if name == "ConvLSTM" else INK)
    for t in range(AHEAD):
        axes[0, t].set_title(f"{t + 1}", fontsize=9, color=INK)
        axes[1, t].set_title(f"{SEEN + t + 1}", fontsize=9, color=MARK)


def picture(past: Array, truth: Array, found: dict[str, Array], curves: dict[str, Any]) -> Any:
    """Two clips, and every measure over the horizon."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12.5, 9.6), layout="constrained")
    figure.suptitle("Six frames ahead in closed loop: every forecast is the next one's input", fontsize=13)
    top, low = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    for n, part in enumerate(top.subfigures(1, 2)):
        films(part, past, truth, found, n)
    ahead = np.arange(1, AHEAD + 1)
    for ax, measure in zip(low.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=True):
            ax.plot(ahead, curve[measure], color=colour, marker="o", ms=3, label=name)
        ax.set_xticks(ahead)
        plain(ax, x="frames ahead", title=measure)
        if measure in ("MSE", "MAE"):
            ax.set_ylim(0)
    low.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return figure
