"""Two orderings of the published Moving MNIST table, on small moving digits, with equal numbers of parameters.

Goal: on each of 3 seeds, in nats per pixel of held-out clips, ConvLSTM below FC-LSTM, and a 5x5 state kernel below a
1x1 state kernel. In the table these are 0.0949 below 0.1180 (5x5-5x5-256 beside FC-LSTM 2048-2048), and 0.0912 below
0.1168 (5x5-5x5-128-128 beside 9x9-1x1-128-128), though with unequal numbers of parameters. Here the three models have
as many parameters as each other, to within 2 %: 5x5-5x5 with 16 features, 9x9-1x1 with 36, FC-LSTM with 36.

A clip is one digit of 10 pixels on 16 x 16 pixels at 1 to 2 pixels a frame: 5 frames are read, 5 forecast. All models
see the same training clips in the same order, with the same optimiser.

Baselines: FC-LSTM and the 1x1 state kernel; each pixel's mean in the training clips, which knows nothing of the clip;
and, in squared error, copying the last frame and moving it on at its velocity.

Source: Shi et al. 2015, arXiv 1506.04214, table 1 (their sums per sequence divided by 40,960 pixels).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..job import Evaluation, Job, evaluate
from ..models.forecaster import Forecaster
from ..models.objective import forecast_loss_backward, forecast_loss_forward
from ..ops.losses import binary_cross_entropy_forward
from ..train import train
from .outcome import Outcome
from .race import seeds_of

SEEDS, HELD_OUT = 3, 512
BASE: dict[str, Any] = {
    "canvas": 16,
    "digits": 1,
    "digit_size": 10,
    "speed": (1.0, 2.0),
    "observed": 5,
    "horizon": 5,
    "patch": 2,
    "batch": 8,
    "steps": 600,
}
MODELS: dict[str, dict[str, Any]] = {  # input kernel - state kernel - features
    "ConvLSTM 5x5-5x5-16": {"features": (16,), "kernel": 5},
    "ConvLSTM 9x9-1x1-36": {"features": (36,), "kernel": 9, "state_kernel": 1},
    "FC-LSTM 36": {"features": (36,), "kernel": None},
}
WIDE, POINT, DENSE = MODELS
MEAN = "each pixel's mean"


class Result(NamedTuple):
    """What one model made of one seed."""

    nats: float  # per pixel of the held-out clips
    parameters: int
    losses: list[float]  # of every training step
    evaluation: Evaluation  # forecasts of 200 held-out clips


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train the three models on 3 seeds, or one quick one; see the module."""
    seeds = seeds_of(seed, 1 if quick else SEEDS)
    more = {"steps": 3} if quick else {}
    results = {name: {each: trained(name, each, progress, **more) for each in seeds} for name in MODELS}
    return judged(results)


def judged(results: dict[str, dict[int, Result]]) -> Outcome:
    """What all trainings together show."""
    seeds = list(results[WIDE])
    means = {each: mean_nats(Job(**BASE, seed=each)) for each in seeds}
    nats = {name: float(np.mean([r.nats for r in found.values()])) for name, found in results.items()}
    holds = all(results[WIDE][k].nats < min(results[DENSE][k].nats, results[POINT][k].nats) for k in seeds)
    squared = {
        name: np.mean([results[WIDE][k].evaluation.scores[name]["mse"] for k in seeds])
        for name in ("copy last frame", "constant velocity")
    }
    squared |= {
        name: np.mean([next(iter(r.evaluation.scores.values()))["mse"] for r in found.values()])
        for name, found in results.items()
    }
    return Outcome(
        "orderings",
        f"nats per pixel on {HELD_OUT} held-out clips, mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}",
        {**nats, MEAN: float(np.mean(list(means.values())))},
        f"on every seed {WIDE} below {POINT} and below {DENSE}",
        holds,
        lambda: picture(results, means),
        {
            **{
                f"{name}, by seed": ", ".join(f"{k}: {r.nats:.4f}" for k, r in found.items())
                for name, found in results.items()
            },
            "parameters": ", ".join(
                f"{name}: {found[seeds[0]].parameters}" for name, found in results.items()
            ),
            "squared error per pixel": ", ".join(f"{name} {value:.4f}" for name, value in squared.items()),
        },
        precision=4,
    )


def trained(name: str, seed: int, progress: bool, **more: Any) -> Result:
    """Train one model on one seed, and measure it on held-out clips."""
    job = Job(**{**BASE, **MODELS[name], "seed": seed, **more})
    model, clips = job.model(), job.clips("train")
    history = train(
        model,
        partial(forecast_loss_forward, observed=job.observed),
        forecast_loss_backward,
        lambda step: clips.batch(step, job.batch),
        steps=job.steps,
        optimizer=job.learner(),
        schedule=job.schedule(),
        clip_norm=job.clip,
        seed=job.seed,
        progress=progress,
        description=f"{name}, seed {job.seed}",
    )
    losses = [float(row["loss"] or 0) for row in history.rows]
    return Result(nats_of(model, job), model.count, losses, evaluate(model, job))


def nats_of(model: Forecaster, job: Job, *, at_once: int = 64) -> float:
    """Cross-entropy per pixel of the model's forecasts of the test clips."""
    found = []
    for part in range(HELD_OUT // at_once):
        frames = job.frames("test", part, at_once)
        logits, _ = model.forward(frames[: job.observed], horizon=job.horizon)
        found.append(float(binary_cross_entropy_forward(logits, frames[job.observed :])[0]))
    return float(np.mean(found))


def mean_nats(job: Job, *, clips: int = 2048) -> float:
    """Cross-entropy per pixel of forecasting each pixel's mean in training clips."""
    mean = job.frames("train", 0, clips).mean(axis=(0, 1), dtype=np.float64).clip(1e-4, 1 - 1e-4)
    truth = job.frames("test", 0, HELD_OUT)[job.observed :].astype(np.float64)
    return float(-(truth * np.log(mean) + (1 - truth) * np.log(1 - mean)).mean())


def picture(results: dict[str, dict[int, Result]], means: dict[int, float]) -> Any:
    """Above: nats per pixel by seed, and the training's losses; below: forecasts of one held-out clip."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    top, bottom = halves
    bars, curves = top.subplots(1, 2, width_ratios=[1, 1.3])
    colors = ("#1f6fb4", "#c46a1b", "#6a8f3a")
    seeds = list(means)
    for k, (found, color) in enumerate(zip(results.values(), colors, strict=True)):
        bars.plot([k] * len(seeds), [found[s].nats for s in seeds], "o", color=color, ms=7, alpha=0.8)
        losses = np.mean([found[s].losses for s in seeds], axis=0)
        width = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        curves.plot(np.arange(len(smooth)) + width / 2, smooth, color=color, label=list(results)[k])
    bars.axhline(np.mean(list(means.values())), color="0.5", ls=":", lw=1)
    bars.text(2.4, np.mean(list(means.values())), MEAN, color="0.4", fontsize=8, va="bottom", ha="right")
    bars.set_xlim(-0.5, 2.5)
    bars.set_xticks(range(len(results)), [name.replace(" ", "\n") for name in results])
    bars.set_ylabel("nats per pixel, held-out clips")
    bars.set_title("Equal parameters: a dot a seed", loc="left")
    curves.set_xlabel("training step")
    curves.set_ylabel("training loss, nats per pixel")
    curves.set_title("Mean of the seeds, smoothed", loc="left")
    curves.legend(frameon=False)
    for axis in (bars, curves):
        axis.spines[["top", "right"]].set_visible(False)
    draw_forecasts(bottom, {name: found[seeds[0]].evaluation for name, found in results.items()})
    return figure


def draw_forecasts(figure: Any, found: dict[str, Evaluation]) -> None:
    """Rows of frames: the clip, and what each model and baseline says of it."""
    first = found[WIDE]
    n = first.spread()[1]
    whole: Array = np.concatenate([first.past, first.truth])[:, n, 0]
    rows = {"clip": whole}
    for name, evaluation in found.items():
        rows[name] = next(iter(evaluation.forecasts.values()))[:, n, 0]
    rows["constant velocity"] = first.forecasts["constant velocity"][:, n, 0]
    axes = figure.subplots(len(rows), len(whole), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for row, (name, frames) in zip(axes, rows.items(), strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_visible(len(frames) == len(whole))
        for axis, frame in zip(row[-len(frames) :], frames, strict=True):
            axis.set_visible(True)
            axis.imshow(frame, cmap="gray", vmin=0, vmax=1)
        row[-len(frames)].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for t, axis in enumerate(axes[0]):
        axis.set_title(f"{t + 1}" if t < len(first.past) else f"+{t + 1 - len(first.past)}", fontsize=9)
    figure.suptitle("A held-out clip of the first seed: frames read, frames forecast", fontsize=11)
