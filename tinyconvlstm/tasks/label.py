"""Name what happens in every frame, and find when it begins.

A disc rests, goes to and fro along its row or its column, or blinks; what it does changes now and then, and it
rests in between. Every frame is labelled by what has happened since the frame before, so a frame by
itself says little. The network is a stack of LSTMs, 128 then 64 features, that reads the pixels of each
frame and has one softmax for all steps. An event is the first frame of an action. Its score is how much
the action's probability rises, p_t - p_{t-1}; non-maximum suppression over time makes moments of the
scores. The threshold is chosen on validation clips.

Goal: 0.9 of frames right, F1 of events at least 0.9 (one frame off counts), both above a network that sees
one frame at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..data.shapes import draw_shape
from ..events import EventCounts, match_events, peaks_in_time, total
from ..layers import Dense, Flatten, Recurrent, Sequential, TimeDistributed
from ..layers.base import Layer
from ..models.classifier import FrameLabeller
from ..models.networks import frame_network
from ..ops.activations import softmax_forward
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from .films import plain, rng_of, show
from .learn import fit
from .outcome import Outcome

ACTIONS = ("rests", "moves along its row", "moves along its column", "blinks")
CANVAS, RADIUS, FRAMES = (16, 16), 2.5, 30
STEPS, BATCH, HELD_OUT = 400, 24, 160
APART, TOLERANCE = 3, 1


class Film(NamedTuple):
    """A batch and its labels."""

    frames: Array  # (T, N, 1, H, W)
    labels: Array  # (T, N), what has happened since the frame before


def schedule(rng: np.random.Generator) -> Array:
    """The action of every frame of a clip, (T,): rests of 3 to 7 frames between actions of 4 to 8."""
    actions: list[int] = []
    while len(actions) < FRAMES:
        actions += [0] * rng.integers(3, 8) + [int(rng.integers(1, len(ACTIONS)))] * rng.integers(4, 9)
    return np.array(actions[:FRAMES])


def films(split: str, index: int, size: int, *, seed: int) -> Film:
    """Batch number `index` of a split."""
    rng = rng_of(seed, split, index)
    labels = np.stack([schedule(rng) for _ in range(size)], axis=1)  # (T, N)
    low, high = RADIUS + 0.5, np.array(CANVAS) - RADIUS - 1.5
    place, speed = rng.uniform(low, high, (size, 2)), rng.uniform(0.8, 1.6, (size, 2))
    speed *= rng.choice([-1.0, 1.0], (size, 2))
    light = np.ones(size)
    path, lights = np.empty((FRAMES, size, 2)), np.empty((FRAMES, size))
    for t in range(FRAMES):
        moves = labels[t][:, None] == np.array(
            [2, 1]
        )  # along the column: rows change; along the row: columns
        place = place + moves * speed
        turn = (place < low) | (place > high)  # back from a wall
        place = np.where(place < low, 2 * low - place, np.where(place > high, 2 * high - place, place))
        speed = np.where(turn, -speed, speed)
        light = np.where(
            labels[t] == 3, np.where(light == 1, 0.35, 1.0), light
        )  # stays as the blinking left it
        path[t], lights[t] = place, light
    ink = draw_shape("disc", path, canvas=CANVAS, radius=RADIUS) * lights[..., None, None]
    noisy = ink + 0.05 * rng.standard_normal(ink.shape)
    return Film(noisy[:, :, None].astype(np.float32), labels)


def onsets(labels: Array, action: int) -> list[int]:
    """The frames (of one clip's labels (T,)) in which an action begins."""
    now = labels == action
    return [int(t) for t in np.flatnonzero(now & ~np.concatenate([[False], now[:-1]]))]


def objective() -> Any:
    """Cross-entropy of logits (T, N, K) and labels (T, N), the mean over all frames."""

    def forward(model: Any, data: Any, *, train: bool, rng: Any) -> Any:
        logits, tape = model.forward(data.frames, train=train, rng=rng)
        loss, saved = cross_entropy_forward(logits.reshape(-1, len(ACTIONS)), data.labels.reshape(-1))
        return loss, (tape, saved, logits.shape)

    def backward(model: Any, saved: Any) -> Any:
        tape, loss, shape = saved
        return model.backward(cross_entropy_backward(1.0, loss).reshape(shape), tape)[1]

    return forward, backward


def contestants(seed: int) -> dict[str, Layer]:
    """The stack of LSTMs, and a network for single frames."""
    from ..cells import LSTMCell

    rng = np.random.default_rng(seed)
    pixels = CANVAS[0] * CANVAS[1]
    stack = [Recurrent(LSTMCell(c, f, rng=rng)) for c, f in ((pixels, 128), (128, 64))]
    trunk = frame_network(1, (8, 16), keep_places=True, rng=rng)
    one = Sequential(trunk, Dense(trunk.cost((1, 1, *CANVAS)).out[1], len(ACTIONS), rng=rng))
    return {
        "LSTM 128, LSTM 64": FrameLabeller(stack, Dense(64, len(ACTIONS), rng=rng), backbone=Flatten()),
        "one frame": TimeDistributed(one),
    }


def probabilities(model: Any, film: Film) -> Array:
    """(T, N, K), the probability of every action in every frame."""
    return softmax_forward(model.forward(film.frames)[0], axis=2)[0]


def events(p: Array, film: Film, threshold: float) -> EventCounts:
    """How the beginnings found in p pair up with the true ones, over all clips and actions."""
    counts = []
    for n in range(p.shape[1]):
        for action in range(1, len(ACTIONS)):
            rise = np.diff(p[:, n, action], prepend=0.0)
            found = peaks_in_time(rise, threshold=threshold, apart=APART)
            counts.append(match_events(found, onsets(film.labels[:, n], action), tolerance=TOLERANCE))
    return total(counts)


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train both, choose thresholds on validation clips, and measure on test clips."""
    valid, test = (films(s, 0, 32 if quick else HELD_OUT, seed=seed) for s in ("validation", "test"))
    scores, facts, shown = {}, {}, {}
    for name, model in contestants(seed).items():
        fit(
            model,
            objective(),
            lambda step: films("train", step, BATCH, seed=seed),
            steps=3 if quick else STEPS,
            lr=3e-3,
            seed=seed,
            progress=progress,
            description=name,
        )
        p = probabilities(model, valid)
        threshold = max(np.arange(0.1, 0.95, 0.05), key=lambda level: events(p, valid, level).f1)
        p = shown[name] = probabilities(model, test)
        found = events(p, test, threshold)
        scores[f"{name}: frames right"] = float((p.argmax(axis=2) == test.labels).mean())
        scores[f"{name}: F1 of events"] = found.f1
        facts[f"{name}: events"] = (
            f"precision {found.precision:.3f}, recall {found.recall:.3f}, threshold {threshold:.2f}"
        )
    (frames, f1, other_frames, other_f1), K = scores.values(), len(ACTIONS)
    scores["most frequent label: frames right"] = float(
        np.bincount(test.labels.ravel(), minlength=K).max() / test.labels.size
    )
    return Outcome(
        "label",
        f"frames right and F1 of the beginnings of actions, {test.labels.shape[1]} held-out clips of {FRAMES} frames",
        scores,
        "0.9 of frames and F1 0.9, both above one frame at a time",
        frames >= 0.9 and f1 >= 0.9 and frames > other_frames and f1 > other_f1,
        lambda: figure(shown, test),
        facts,
    )


def figure(shown: dict[str, Array], test: Film) -> Any:
    """The first clip with the most actions: frames, truth, and what both networks say of every frame."""
    from matplotlib.figure import Figure

    clip = max(range(test.labels.shape[1]), key=lambda n: len(set(test.labels[:, n])))
    colours = ("#d9d9d9", "#0072b2", "#e69f00", "#009e73")
    page: Any = Figure(figsize=(13, 5.4), layout="constrained")
    every = range(0, FRAMES, 2)
    grid = page.add_gridspec(2 + len(shown), len(every), height_ratios=(1.1, 0.35, *(1.3 for _ in shown)))
    for k, t in enumerate(every):
        show(page.add_subplot(grid[0, k]), test.frames[t, clip, 0], f"{t + 1}")
    truth = page.add_subplot(grid[1, :])
    for t, action in enumerate(test.labels[:, clip]):
        truth.axvspan(t + 0.5, t + 1.5, color=colours[action])
    truth.set_yticks([])
    truth.set_xticks([])
    truth.set_ylabel("truth", rotation=0, ha="right", va="center")
    truth.set_xlim(0.5, FRAMES + 0.5)
    truth.spines[:].set_visible(False)
    for row, (name, p) in enumerate(shown.items()):
        ax = page.add_subplot(grid[2 + row, :])
        ax.stackplot(np.arange(1, FRAMES + 1), p[:, clip].T, colors=colours, step="mid", labels=ACTIONS)
        ax.set_xlim(0.5, FRAMES + 0.5)
        ax.set_ylim(0, 1)
        plain(ax, x="frame" if row == len(shown) - 1 else "", y="probability", title=name)
        if row == 0:
            ax.legend(ncols=len(ACTIONS), fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return page
