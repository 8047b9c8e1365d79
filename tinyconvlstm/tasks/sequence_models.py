"""Whose trajectory is it? An LSTM beside nearest neighbours under time warping and hidden Markov models.

Four ways to wander: a circle, a figure of eight, a square, and a zigzag; each from a random phase, in either
direction, tilted, of any size, 24 to 36 frames long, faster and slower on its way, and noisy. All three see
the same 240 training trajectories, forwards and backwards, as the same two numbers a frame, the step divided
by the trajectory's mean step:

    LSTM         trained on them, each tilted, scaled and shaken a little differently in every batch
    DTW-1NN      the label of the nearest one under dynamic time warping
    HMM          one model of 6 states a label, by Baum-Welch; the likeliest label

Goal: accuracy of the LSTM above both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..layers import Bidirectional, Dense, Sequential
from ..models.classic import fit_hmm, log_likelihood, nearest_by_dtw
from .learn import accuracy, classification, fit
from .outcome import Outcome

KINDS = ("circle", "figure of eight", "square", "zigzag")
FRAMES = (24, 36)
SPLITS = ("train", "validation", "test")


class Paths(NamedTuple):
    """Trajectories with their labels."""

    positions: Array  # (T, N, 2)
    lengths: Array  # (N,)
    labels: Array  # (N,)


def curve(kind: str, phase: Array) -> Array:
    """Points (..., 2) of a curve at phases; one round, or one zig and zag, is 2 pi."""
    a = phase % (2 * np.pi)
    if kind == "circle":
        return np.stack([np.sin(phase), np.cos(phase)], -1)
    if kind == "figure of eight":
        return np.stack([np.sin(2 * phase), 1.3 * np.sin(phase)], -1)
    if kind == "square":
        side, s = np.floor(a / (np.pi / 2)), (a % (np.pi / 2)) / (np.pi / 2)
        x = np.select([side == 0, side == 1, side == 2], [2 * s, 2 + 0 * s, 2 - 2 * s], 0 * s)
        y = np.select([side == 0, side == 1, side == 2], [0 * s, 2 * s, 2 + 0 * s], 2 - 2 * s)
        return np.stack([x - 1, y - 1], -1)
    return np.stack([0.45 * phase, 1 - abs(a / np.pi - 1) * 2], -1)  # zigzag


def paths(split: str, size: int, *, seed: int = 0, index: int = 0) -> Paths:
    """Trajectories of a split, all kinds equally often."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    labels = np.arange(size) % len(KINDS)
    lengths = rng.integers(FRAMES[0], FRAMES[1] + 1, size)
    positions = np.zeros((FRAMES[1], size, 2))
    for n, (label, T) in enumerate(zip(labels, lengths, strict=True)):
        pace = np.exp(0.35 * np.sin(rng.uniform(0, 6.3) + rng.uniform(0.1, 0.4) * np.arange(T)))
        phase = np.cumsum(pace) * rng.uniform(0.25, 0.4) * rng.choice([-1, 1]) + rng.uniform(0, 2 * np.pi)
        tilt = rng.uniform(-0.5, 0.5)
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        path = rng.uniform(5, 10) * curve(KINDS[label], phase) @ turn
        positions[:T, n] = path + 0.3 * rng.standard_normal((T, 2))
    return Paths(positions, lengths, labels)


def features(made: Paths) -> tuple[Array, Array]:
    """Steps (T - 1, N, 2) over each trajectory's mean step, 0 after the end; and their number (N,)."""
    steps = np.diff(made.positions, axis=0)
    alive = (np.arange(len(steps))[:, None] < made.lengths - 1)[..., None]
    steps = np.where(alive, steps, 0)
    pace = np.hypot(*np.moveaxis(steps, -1, 0)).sum(axis=0) / (made.lengths - 1)
    return (steps / pace[:, None]).astype(np.float32), made.lengths - 1


def backwards(steps: Array, lengths: Array) -> Array:
    """The steps of the same trajectories (T, N, 2) from their ends to their beginnings."""
    t = np.arange(len(steps))[:, None]
    return -np.take_along_axis(steps, np.where(t < lengths, lengths - 1 - t, t)[..., None], axis=0)


def build(seed: int = 0) -> Reader:
    """An LSTM each way, and a dense layer on both last states."""
    rng = np.random.default_rng(seed)
    both = Bidirectional(LSTMCell(2, 32, rng=rng), LSTMCell(2, 32, rng=rng), return_sequences=False)
    return Reader({"lstm": both, "head": Dense(64, len(KINDS), rng=rng)})


class Reader(Sequential):
    """A chain whose first layer is told the lengths."""

    def forward(self, x: Array, *, lengths: Any = None, train: bool = False, rng: Any = None) -> Any:
        """Logits (N, V) of x (T, N, D)."""
        h, first = self.parts["lstm"].forward(x, lengths=lengths, train=train, rng=rng)
        y, second = self.parts["head"].forward(h)
        return y, {"lstm": first, "head": second}


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Give all three the same training trajectories, and ask about the same new ones."""
    train, test = (
        paths("train", 48 if quick else 240, seed=seed),
        paths("test", 20 if quick else 400, seed=seed),
    )
    (x, lengths), (new, ends) = features(train), features(test)
    x, lengths = np.concatenate([x, backwards(x, lengths)], axis=1), np.tile(lengths, 2)
    labels = np.tile(train.labels, 2)
    model = build(seed)

    def batch(step: int) -> Any:
        rng = np.random.default_rng([seed, 3, step])
        chosen = rng.integers(0, x.shape[1], 48)
        tilt = rng.normal(0, 0.25, 48)
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        turned = np.einsum("tnd,den->tne", x[:, chosen], turn) * np.exp(rng.normal(0, 0.1, (48, 1)))
        turned += 0.1 * rng.standard_normal(turned.shape)
        return turned.astype(np.float32), labels[chosen], {"lengths": lengths[chosen]}

    fit(model, classification(), batch, steps=4 if quick else 600, lr=1e-2, seed=seed, progress=progress)
    said = {"LSTM": model.forward(new, lengths=ends)[0].argmax(axis=1)}
    said["DTW, nearest neighbour"] = nearest_by_dtw(new, ends, x, lengths, labels)
    models = [
        fit_hmm(x[:, own], lengths[own], states=6, iterations=3 if quick else 30, rng=seed)
        for own in (labels == k for k in range(len(KINDS)))
    ]
    said["hidden Markov models"] = np.argmax([log_likelihood(m, new, ends) for m in models], axis=0)
    scores = {name: float((found == test.labels).mean()) for name, found in said.items()}
    first, *others = scores.values()
    return Outcome(
        task="sequence-models",
        measure=f"accuracy on {len(test.labels)} new trajectories of {len(KINDS)} kinds",
        scores=scores | {"chance": 1 / len(KINDS)},
        goal="LSTM above time warping and hidden Markov models",
        reached=first > max(others),
        figure=lambda: draw(test, said),
        facts={"seen in training by each": f"{len(train.labels)} trajectories, forwards and backwards"},
    )


def draw(test: Paths, said: dict[str, Array]) -> Any:
    """Trajectories of each kind, and who takes which for which."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12, 7.4), facecolor="white", layout="constrained")
    figure.suptitle("Whose trajectory is it? Four kinds, and who takes which for which", fontsize=14)
    upper, lower = figure.subfigures(2, 1, height_ratios=(0.8, 1), hspace=0.04)
    for k, ax in enumerate(upper.subplots(1, len(KINDS))):
        for row, n in enumerate(np.flatnonzero(test.labels == k)[:4]):
            path = test.positions[: test.lengths[n], n]
            path = (path - path.mean(axis=0)) / np.ptp(path, axis=0).max()
            path = path + 1.25 * np.array([row // 2, row % 2])
            ax.plot(*path[:, ::-1].T, ".-", ms=4, lw=1.2)
            ax.plot(*path[0, ::-1], "ko", ms=5)
        ax.set_title(KINDS[k], fontsize=11)
        ax.set_aspect("equal")
        ax.set_axis_off()
    axes = lower.subplots(1, len(said), sharey=True)
    for ax, (name, found) in zip(axes, said.items(), strict=True):
        table = np.zeros((len(KINDS), len(KINDS)))
        np.add.at(table, (test.labels, found), 1)
        table /= table.sum(axis=1, keepdims=True)
        ax.imshow(table, cmap="Blues", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(table):
            if share:
                colour = "white" if share > 0.6 else "black"
                ax.text(j, i, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=10)
        right = accuracy(np.eye(len(KINDS))[found], test.labels)
        ax.set_title(f"{name}: {right:.1%} right", fontsize=11)
        ax.set_xticks(range(len(KINDS)), [kind.replace(" of ", "\nof ") for kind in KINDS], fontsize=9)
        ax.set_yticks(range(len(KINDS)), KINDS)
        ax.set_xlabel("answer")
    axes[0].set_ylabel("truth")
    return figure
