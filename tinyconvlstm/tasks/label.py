"""Name what happens in every frame, and find events: onset and end by non-maximum suppression.

A disc rests and moves left, right, up or down by turns, three to seven frames at a time. No frame shows what
happens: it is in the difference to the frame before. Stacked LSTMs of 128 and 64 features label every frame; a
network of the same widths that sees one frame at a time is the baseline. The two correct forms of a
per-frame head: keep the sequence (here) and apply the dense layer at every step; or give the last h to a plain
dense layer. A time-distributed layer on the last h alone has no time axis to work on, and the library says so.

Events are then found among runs of likely frames (`tinyconvlstm.events`); one is right if it has the class of
a true one and half their union in common.

Goal: accuracy per frame and F1 of events above the network that sees single frames, F1 at least 0.9.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.shapes import draw_shape
from ..events import Event, event_f1, propose, runs, suppress
from ..layers import Activation, Dense, Recurrent, Sequential, TimeDistributed
from ..ops.activations import softmax_forward
from .learn import fit
from .outcome import Outcome
from .steps import per_step

KINDS = ("rest", "left", "right", "up", "down")
WAYS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
CANVAS, FRAMES, RADIUS = 12, 40, 2.2
NOISE = 0.4  # standard deviation, ink is 1
SPLITS = ("train", "validation", "test")


class Clips(NamedTuple):
    """A batch of clips."""

    x: Array  # (T, N, H * W)
    labels: Array  # (T, N): how the disc came to where it is in this frame
    positions: Array  # (T, N, 2)


def clips(split: str, index: int, size: int, *, seed: int = 0) -> Clips:
    """Batch `index` of a split."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    positions, labels = np.zeros((FRAMES, size, 2)), np.zeros((FRAMES, size), np.int64)
    low, high = RADIUS, CANVAS - 1 - RADIUS
    for n in range(size):
        place, t = rng.uniform(low, high, 2), 0
        while t < FRAMES:
            rest = int(rng.integers(2, 6))
            positions[t : t + rest, n] = place
            t += rest
            long, kind, pace = int(rng.integers(3, 8)), int(rng.integers(1, 5)), float(rng.uniform(0.7, 1.2))
            step = pace * np.array(WAYS[kind])
            room = (high - place if step.sum() > 0 else place - low)[np.flatnonzero(step)[0]]
            if room < 3 * pace:
                kind, step = (2, 1, 4, 3)[kind - 1], -step  # no room: the other way
                room = (high - place if step.sum() > 0 else place - low)[np.flatnonzero(step)[0]]
            for _ in range(min(long, int(room / pace))):
                if t < FRAMES:
                    place = place + step
                    positions[t, n], labels[t, n] = place, kind
                    t += 1
    drawn = draw_shape("disc", positions, canvas=(CANVAS, CANVAS), radius=RADIUS)
    x = drawn.reshape(FRAMES, size, -1)
    x = x + NOISE * rng.standard_normal(x.shape).astype(np.float32)
    return Clips(x, labels, positions)


def stacked(seed: int = 0) -> Sequential:
    """Two LSTMs, 128 and 64 features, both giving their sequence, and a dense layer at every frame."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Recurrent(LSTMCell(CANVAS**2, 128, rng=rng)),
        Recurrent(LSTMCell(128, 64, rng=rng)),
        TimeDistributed(Dense(64, len(KINDS), rng=rng)),
    )


def single(seed: int = 0) -> TimeDistributed:
    """Dense layers of the same widths on one frame."""
    rng = np.random.default_rng(seed)
    relu = Activation("relu")
    first, second = Dense(CANVAS**2, 128, rng=rng), Dense(128, 64, rng=rng)
    return TimeDistributed(Sequential(first, relu, second, relu, Dense(64, len(KINDS), rng=rng)))


def events(p: Array) -> list[list[Event]]:
    """The events of each clip from probabilities (T, N, V)."""
    return [suppress(propose(p[:, n])) for n in range(p.shape[1])]


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train both networks on the same clips; label every frame of new ones, and find their events."""

    def batch(step: int) -> tuple[Array, Array]:
        return clips("train", step, 16, seed=seed)[:2]

    test = clips("test", 0, 10 if quick else 200, seed=seed)
    truth = [runs(column) for column in test.labels.T]
    p = {}
    for name, model in (("stacked LSTM", stacked(seed)), ("single frames", single(seed))):
        fit(
            model,
            per_step(),
            batch,
            steps=2 if quick else 400,
            lr=5e-3,
            seed=seed,
            progress=progress,
            description=name,
        )
        p[name] = softmax_forward(model(test.x), axis=2)[0]
    found = {name: events(each) for name, each in p.items()}
    scores = {name: event_f1(each, truth) for name, each in found.items()}
    plain = event_f1([runs(column) for column in p["stacked LSTM"].argmax(axis=2).T], truth)
    right = {name: float((each.argmax(axis=2) == test.labels).mean()) for name, each in p.items()}
    return Outcome(
        task="label",
        measure=f"F1 of {sum(map(len, truth))} events in {len(truth)} held-out clips, overlap at least one half",
        scores=scores | {"stacked LSTM, no suppression": plain},
        goal="F1 at least 0.9, and F1 and accuracy per frame above a network that sees single frames",
        reached=scores["stacked LSTM"] >= max(0.9, scores["single frames"])
        and right["stacked LSTM"] > right["single frames"],
        figure=lambda: draw(test, p, found, truth),
        facts={
            "accuracy per frame": ", ".join(f"{name} {value:.3f}" for name, value in right.items())
            + f", always rest {(test.labels == 0).mean():.3f}",
        },
    )


def draw(
    test: Clips, p: dict[str, Array], found: dict[str, list[list[Event]]], truth: list[list[Event]]
) -> Any:
    """One clip: frames, the probabilities over time, and the events found beside the true ones."""
    from matplotlib.figure import Figure

    n = int(np.argmax([len({e.kind for e in each}) for each in truth]))
    colours = ("#bbbbbb", "#0072b2", "#d55e00", "#009e73", "#cc79a7")
    figure: Any = Figure(figsize=(13, 7.6), facecolor="white", layout="constrained")
    figure.suptitle("What happens in every frame, and the events it makes", fontsize=14)
    axes = figure.subplots(4, 1, height_ratios=(0.55, 1, 1, 1))
    chosen = range(0, FRAMES, 2)
    frames = [np.pad(test.x[t, n].reshape(CANVAS, CANVAS), 1, constant_values=1) for t in chosen]
    extent = (0.5, FRAMES + 0.5, 0, 1)
    axes[0].imshow(np.concatenate(frames, axis=1), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent)
    axes[0].set_yticks([])
    axes[0].set_title("every second frame", fontsize=10)
    t = np.arange(1, FRAMES + 1)
    for ax, (name, each) in zip(axes[1:3], p.items(), strict=True):
        for kind, colour in enumerate(colours):
            ax.plot(t, each[:, n, kind], "-", color=colour, lw=2, label=KINDS[kind])
        ax.set(ylim=(-0.03, 1.03), ylabel="probability")
        ax.set_title(name, fontsize=10)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    rows = {"truth": truth[n], **{name: each[n] for name, each in found.items()}}
    for y, (_, each) in enumerate(rows.items()):
        for event in each:
            length = event.end - event.begin
            axes[3].barh(y, length, left=event.begin + 0.5, color=colours[event.kind], height=0.7)
            middle = (event.begin + event.end + 1) / 2
            axes[3].text(middle, y, KINDS[event.kind], ha="center", va="center", color="white", fontsize=9)
    axes[3].set_yticks(range(len(rows)), rows)
    axes[3].set_ylim(len(rows) - 0.4, -0.6)
    axes[3].set_xlabel("frame")
    axes[3].set_title("events", fontsize=10)
    for ax in axes:
        ax.set_xlim(0.5, FRAMES + 0.5)
    return figure
