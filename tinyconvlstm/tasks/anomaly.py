"""Anomalies by prediction error: a ConvLSTM that has only seen ordinary motion is surprised by the rest.

A disc, a square or a diamond moves straight and bounces. In half of the test clips something happens at a
frame s: the shape stops dead or triples its speed (an anomaly in speed), or it becomes a cross, a ring or a
bar (in looks). The score of a clip is the mean of its three largest errors of forecasts:

    e_t   = |y_t - x_t|^2 / |x_t|^2            y_t the forecast of frame x_t from x_1 .. x_{t-1}, t >= 4
    score = mean of the three largest e_t

The network is trained on ordinary clips alone, which bounce too: bounces are no anomaly, and telling
them from a change of speed is what the walls teach. Baselines score by the same error of other
forecasts: the frame before, and the frame before moved on at constant velocity.

Goal: AUC >= 0.9 on injected anomalies in speed, and on those in looks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..data.shapes import bounce, draw_shape
from ..metrics import auc
from ..models import constant_velocity
from ..ops.activations import sigmoid
from ..ops.losses import binary_cross_entropy_backward, binary_cross_entropy_forward
from .films import INK, MARK, MODEL, OTHER, frame_predictor, headings, in_parts, plain, rng_of, show
from .learn import fit, loss_of
from .outcome import Outcome

CANVAS, RADIUS, FRAMES = (24, 24), 4.0, 12
KNOWN, STRANGE = ("disc", "square", "diamond"), ("cross", "ring", "bar")
KINDS = ("ordinary", "speed", "looks")
WORST = 3  # frames whose errors make the score
FIRST = 3  # the first frame that is judged: speed is seen from two frames on


class Clips(NamedTuple):
    """A batch with what was done to it."""

    frames: Array  # (T, N, 1, H, W)
    kind: Array  # (N,) index into KINDS
    since: Array  # (N,) the first frame that is out of the ordinary; T where none is
    centres: Array  # (T, N, 2) pixels
    shape: Array  # (T, N) index into KNOWN + STRANGE


def clips(split: str, index: int, size: int, *, seed: int, kinds: tuple[int, ...] = (0,)) -> Clips:
    """Batch number `index` of a split; the kinds take turns."""
    rng = rng_of(seed, split, index)
    kind = np.resize(kinds, size)
    since = np.where(kind == 0, FRAMES, rng.integers(FIRST + 1, FRAMES - 2, size))
    known, strange = rng.integers(3, size=(2, size))
    factor = np.where(kind == 1, rng.choice([0.0, 3.0], size), 1.0)
    low, high = RADIUS, CANVAS[0] - 1 - RADIUS
    start, velocity = rng.uniform(low, high, (size, 2)), headings(rng, size, 1.0, 2.0)
    t = np.arange(FRAMES)[:, None]
    path = t + (factor - 1) * np.maximum(t - since + 1, 0)  # frames' worth of ordinary motion
    centres = bounce(start + velocity * path[..., None], np.zeros(2), 1, low, high)[0]
    shape = np.where((kind == 2) & (t >= since), len(KNOWN) + strange, known)
    frames = np.zeros((FRAMES, size, *CANVAS), np.float32)
    for k, name in enumerate(KNOWN + STRANGE):
        frames[shape == k] = draw_shape(name, centres[shape == k], canvas=CANVAS, radius=RADIUS)
    return Clips(frames[:, :, None], kind, since, centres, shape)


def errors(forecast: Array, frames: Array) -> Array:
    """Relative squared error (T - FIRST, N) of forecasts (T - 1, ...) of frames 1, 2, ... of a clip."""
    d = (forecast - frames[1:]) ** 2
    return (d.sum((2, 3, 4)) / (frames[1:] ** 2).sum((2, 3, 4)))[FIRST - 1 :]


def score(e: Array) -> Array:
    """The mean of the three largest errors (T', N) of each clip: one bounce alone does not count for much."""
    worst: Array = np.sort(e, axis=0)[-WORST:].mean(axis=0)
    return worst


def moved_on(frames: Array) -> Array:
    """Constant velocity's forecast of frames 1, 2, ...: (T - 1, N, 1, H, W); of frame 1 the frame before."""
    later = [constant_velocity(frames[t - 2 : t], 1) for t in range(2, len(frames))]
    return np.concatenate([frames[:1], *later])


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on ordinary clips, then score ordinary and strange ones."""
    model = frame_predictor(16, kernel=3, seed=seed)

    def batch(step: int) -> Any:
        frames = clips("train", step, 16, seed=seed).frames
        return frames[:-1], frames[1:]

    fit(
        model,
        loss_of(binary_cross_entropy_forward, binary_cross_entropy_backward),
        batch,
        steps=2 if quick else 900,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="anomaly",
    )
    test = clips("test", 0, 40 if quick else 480, seed=seed, kinds=(0, 1, 0, 2))
    x = test.frames
    forecasts = {
        "ConvLSTM": in_parts(lambda part: sigmoid(model(part[:-1])), x),
        "constant velocity": moved_on(x),
        "copy of the frame before": x[:-1],
    }
    found = {name: errors(y, x) for name, y in forecasts.items()}
    scores = {name: score(e) for name, e in found.items()}
    by_kind = {
        KINDS[k]: {
            name: auc(s[np.isin(test.kind, (0, k))], test.kind[np.isin(test.kind, (0, k))] == k)
            for name, s in scores.items()
        }
        for k in (1, 2)
    }
    facts = {
        f"anomalies in {kind}": ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        for kind, values in by_kind.items()
    }
    return Outcome(
        task="anomaly",
        measure=f"AUC of the {WORST} largest errors' mean, {len(test.kind)} held-out clips, half of them strange",
        scores={name: auc(s, test.kind > 0) for name, s in scores.items()},
        goal="AUC of the ConvLSTM at least 0.9, for speed and for looks",
        reached=all(values["ConvLSTM"] >= 0.9 for values in by_kind.values()),
        figure=lambda: picture(test, forecasts["ConvLSTM"], found, scores),
        facts=facts,
    )


def picture(test: Clips, forecast: Array, found: dict[str, Array], scores: dict[str, Array]) -> Any:
    """A strange clip of either kind with its errors, and the ROC curves."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12, 6.6), layout="constrained")
    figure.suptitle("A predictor of ordinary motion is surprised by what is not", fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    for part, kind in zip(left.subfigures(2, 1), (1, 2), strict=True):
        n = int(np.flatnonzero(test.kind == kind)[1])
        films, curve = part.subfigures(2, 1, height_ratios=(1, 1.05))
        axes = films.subplots(2, FRAMES - FIRST, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
        for column, t in enumerate(range(FIRST, FRAMES)):
            late = t >= test.since[n]
            show(axes[0, column], test.frames[t, n, 0], f"{t + 1}", MARK if late else INK)
            show(axes[1, column], forecast[t - 1, n, 0])
        for ax, name in zip(axes[:, 0], ("seen", "forecast"), strict=True):
            ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ax = curve.subplots()
        for e, colour in zip(found.values(), (MODEL, MARK, OTHER), strict=True):
            ax.plot(np.arange(FIRST, FRAMES) + 1, e[:, n], color=colour, marker="o", ms=3)
        ax.axvline(test.since[n] + 1, color=INK, lw=0.8, ls=":")
        ax.set_ylim(0)
        x = "frame (orange numbers, and from the dots on: after the change)"
        plain(ax, x=x, y="relative error", title=f"anomaly in {KINDS[kind]}; colours as on the right")
    ax = right.subplots()
    for (name, s), colour in zip(scores.items(), (MODEL, MARK, OTHER), strict=True):
        order = np.argsort(-s, kind="stable")
        strange = test.kind[order] > 0
        rates = [np.concatenate([[0], np.cumsum(hit) / hit.sum()]) for hit in (~strange, strange)]
        ax.plot(*rates, color=colour, label=f"{name}\nAUC {auc(s, test.kind > 0):.3f}")
    ax.plot([0, 1], [0, 1], color=OTHER, lw=0.8, ls=":")
    ax.set_aspect("equal")
    plain(ax, x="ordinary clips called strange (share)", y="strange clips found (share)", title="All clips")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
