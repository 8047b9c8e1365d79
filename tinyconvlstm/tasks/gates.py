"""What do convolutions in the gates add? Gestures, told apart with and without them.

A shape strokes up, down, left or right, turns in a circle either way, or waves along or across: eight gestures of ten
frames, begun anywhere, at any speed and size, beside a second shape that rests, in pixel noise.

Goal: over 3 seeds the ConvLSTM whose gates i, f, o see only the mean over all positions names the gestures of held-out
clips as well as the plain one, to within 2 points of accuracy, with less than half of its multiply-accumulates: what
Zhang et al. 2018 found on recorded gestures. As there, short motions are in the features before the cell sees them:
there by 3-d convolutions, here by two convolutions over a frame and the one before it. With less than that it does
not hold, see docs/algorithmic.md. Attention in place of the input gate, their variant (c), stands beside.

Baseline: the plain ConvLSTM of as many features, trained and tested on the same clips; chance, 1/8.

Source: Zhang, Zhu, Mei, Shen, Shah, Bennamoun 2018, "Attention in convolutional LSTM for gesture recognition".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import ContextGateLSTMCell, ConvLSTMCell, InputGateAttentionLSTMCell
from ..data.shapes import draw_shape
from ..layers import Activation, Conv, Dense, GlobalPool, Recurrent, Sequential, TimeDistributed
from .films import in_parts, plain, rng_of, show
from .learn import accuracy, classification, fit
from .outcome import Outcome
from .race import seeds_of

GESTURES = ("up", "down", "left", "right", "clockwise", "anticlockwise", "along", "across")
KINDS = ("disc", "square", "diamond", "cross", "ring", "bar")
SEEDS, FRAMES, SIDE, FEATURES, STEPS, SIZE, HELD_OUT, NOISE = 3, 10, 16, 16, 800, 16, 512, 0.15
CELLS: dict[str, Any] = {
    "gates of the pooled frame": ContextGateLSTMCell,
    "plain ConvLSTM": ConvLSTMCell,
    "input gate by attention": InputGateAttentionLSTMCell,
}
POOLED, PLAIN, ATTENTION = CELLS


class Trained(NamedTuple):
    """One cell on one seed."""

    accuracy: float
    right: Array  # (classes,) share of each gesture that was named
    parameters: int  # of the cell
    macs: int  # of the cell, a clip


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train three cells on 3 seeds, or one quick one; see the module."""
    seeds = seeds_of(seed, 1 if quick else SEEDS)
    steps = 3 if quick else STEPS
    return judged({name: [trained(name, each, steps, progress) for each in seeds] for name in CELLS}, seeds)


def judged(found: dict[str, list[Trained]], seeds: range) -> Outcome:
    """What all trainings together show."""
    mean = {name: float(np.mean([each.accuracy for each in ones])) for name, ones in found.items()}
    share = found[POOLED][0].macs / found[PLAIN][0].macs
    return Outcome(
        "gates",
        f"accuracy on {HELD_OUT} held-out clips, mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}",
        {**mean, "chance": 1 / len(GESTURES)},
        "gates of the pooled frame at most 0.02 below plain ones, with less than half of the multiply-accumulates",
        mean[POOLED] >= mean[PLAIN] - 0.02 and share < 0.5,
        lambda: picture(found, clips(seeds[0], "test", 0, 64)),
        {
            **{
                f"{name}, by seed": ", ".join(
                    f"{k}: {one.accuracy:.3f}" for k, one in zip(seeds, ones, strict=True)
                )
                for name, ones in found.items()
            },
            "parameters of the cell": ", ".join(
                f"{name} {ones[0].parameters}" for name, ones in found.items()
            ),
            "multiply-accumulates of the cell, a clip": ", ".join(
                f"{name} {ones[0].macs:,}" for name, ones in found.items()
            ),
        },
    )


def trained(name: str, seed: int, steps: int, progress: bool) -> Trained:
    """Train one cell on one seed, and test it."""
    model = network(name, seed)
    fit(
        model,
        classification(),
        lambda step: clips(seed, "train", step, SIZE),
        steps=steps,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description=f"{name}, seed {seed}",
    )
    x, labels = clips(seed, "test", 0, HELD_OUT)
    logits = in_parts(model, x, axis=0)
    right = logits.argmax(axis=1) == labels
    memory = model.parts["memory"]
    cost = memory.cost((FRAMES - 1, 1, FEATURES, SIDE // 4, SIDE // 4))
    by_class = np.array([right[labels == k].mean() for k in range(len(GESTURES))])
    return Trained(accuracy(logits, labels), by_class, memory.count, cost.macs)


def network(name: str, seed: int) -> Sequential:
    """Two convolutions that halve each frame, a cell over time, and the largest of its last state to eight logits."""
    rng = np.random.default_rng(seed)
    bent = {"slope": 0.1}
    stem = Sequential(
        Conv(2, FEATURES, 3, stride=2, padding=1, rng=rng),
        Activation("leaky_relu", **bent),
        Conv(FEATURES, FEATURES, 3, stride=2, padding=1, rng=rng),
        Activation("leaky_relu", **bent),
    )
    cell = CELLS[name](FEATURES, FEATURES, (3, 3), rng=rng)
    return Sequential(
        {
            "stem": TimeDistributed(stem),
            "memory": Recurrent(cell, return_sequences=False),
            "pool": GlobalPool("max"),
            "name": Dense(FEATURES, len(GESTURES), rng=rng),
        }
    )


def clips(seed: int, split: str, index: int, size: int) -> tuple[Array, Array]:
    """Batch `index` of a split: frames (T - 1, N, 2, H, W), each with the one before it, and gestures (N,)."""
    rng = rng_of(seed, split, index)
    labels = rng.integers(len(GESTURES), size=size)
    path = paths(labels, rng)
    rest = rng.uniform(2, SIDE - 3, (1, size, 2))
    kinds = rng.integers(len(KINDS), size=(2, size))
    x = rng.standard_normal((FRAMES, size, 1, SIDE, SIDE)).astype(np.float32) * np.float32(NOISE)
    radius = rng.uniform(1.5, 2.5, (2, size))
    for n in range(size):
        for where, kind, r in ((path, kinds[0, n], radius[0, n]), (rest, kinds[1, n], radius[1, n])):
            drawn = draw_shape(KINDS[kind], where[:, n], canvas=(SIDE, SIDE), radius=r)
            x[:, n, 0] = np.maximum(x[:, n, 0], drawn)
    return np.concatenate([x[1:], x[:-1]], axis=2), labels


def paths(labels: Array, rng: np.random.Generator) -> Array:
    """Centres (T, N, 2) of the moving shape, (row, column) in pixels; row 0 is above."""
    size = len(labels)
    t = np.arange(FRAMES)[:, None] - (FRAMES - 1) / 2  # (T, 1)
    speed = rng.uniform(0.6, 1.1, size)  # pixels a frame
    radius, turn, begin = (
        rng.uniform(2.5, 4.5, size),
        rng.uniform(0.6, 0.9, size),
        rng.uniform(0, 2 * np.pi, size),
    )
    middle = rng.uniform(-2, 2, (size, 2)) + (SIDE - 1) / 2
    angle = begin + turn * t
    wave = radius * np.sin(angle)
    none = 0 * wave
    moves = {  # rows, columns
        "up": (-speed * t, none),
        "down": (speed * t, none),
        "left": (none, -speed * t),
        "right": (none, speed * t),
        "clockwise": (radius * np.sin(angle), radius * np.cos(angle)),
        "anticlockwise": (-radius * np.sin(angle), radius * np.cos(angle)),
        "along": (none, wave),
        "across": (wave, none),
    }
    table = np.stack([np.stack(moves[name], axis=-1) for name in GESTURES])  # (8, T, N, 2)
    found: Array = middle + table[labels, :, np.arange(size)].swapaxes(0, 1)
    return found


def picture(found: dict[str, list[Trained]], examples: tuple[Array, Array]) -> Any:
    """Above: accuracy by gesture; below: a clip of each gesture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.25])  # type: ignore[misc]
    ax = top.subplots()
    for k, (name, ones) in enumerate(found.items()):
        shares = np.mean([one.right for one in ones], axis=0)
        mean, macs = np.mean([one.accuracy for one in ones]), ones[0].macs / found[PLAIN][0].macs
        places = np.arange(len(GESTURES)) + 0.27 * (k - 1)
        label = f"{name}: {mean:.3f}, {macs:.2f} of the multiply-accumulates"
        ax.bar(places, shares, 0.25, label=label, color=("#1f6fb4", "#9a9a9a", "#c46a1b")[k])
    ax.axhline(1 / len(GESTURES), color="0.4", ls=":", lw=1)
    right = ax.get_yaxis_transform()  # along x in shares of the axis
    ax.text(1, 1 / len(GESTURES), "chance", color="0.4", va="bottom", ha="right", fontsize=9, transform=right)
    ax.set_xlim(-0.6, len(GESTURES))
    ax.set_xticks(range(len(GESTURES)), GESTURES)
    plain(ax, y="share named rightly", title="Held-out gestures, mean of the seeds")
    ax.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    x, labels = examples
    axes = bottom.subplots(len(GESTURES), FRAMES - 1, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for line, (k, name) in zip(axes, enumerate(GESTURES), strict=True):
        n = int(np.flatnonzero(labels == k)[0])
        for frame, axis in zip(x[:, n, 0], line, strict=True):
            show(axis, frame)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    bottom.suptitle("A held-out clip of each, frame 2 to 10 from left to right", fontsize=10)
    return figure
