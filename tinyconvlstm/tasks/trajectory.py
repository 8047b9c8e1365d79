"""Where will a bouncing point be? An LSTM reads eight positions and writes the next twelve, fed back.

The point moves in a square room and bounces off its walls, which nobody tells the model of. Before the first
bounce a constant velocity is exactly right (there is no noise), and no model can do better; after it, it
runs through the wall. The LSTM predicts the next displacement from position and displacement.

Goal: average displacement error (ADE, the mean distance from the true position) after the first bounce below
that of constant velocity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.shapes import bounce
from ..layers import Dense, Layer, Recurrent, Sequential, TimeDistributed
from .learn import fit, regression
from .outcome import Outcome

ROOM, SEEN, AHEAD = 10.0, 8, 12  # pixels from wall to wall; frames
SPLITS = ("train", "validation", "test")
UNIT = 5.0  # pixels; what the network calls 1


def points(split: str, index: int, size: int, *, seed: int = 0) -> Array:
    """Batch `index` of a split: positions (SEEN + AHEAD, N, 2) in pixels."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    angle, speed = rng.uniform(0, 2 * np.pi, size), rng.uniform(0.5, 1.5, size)
    velocity = speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], -1)
    return bounce(rng.uniform(0, ROOM, (size, 2)), velocity, SEEN + AHEAD, 0.0, ROOM)


def features(positions: Array, steps: Array) -> Array:
    """What the network reads, (..., 4): the position about the room's middle, and the step that led to it."""
    return np.concatenate([(positions - ROOM / 2) / UNIT, steps], axis=-1).astype(np.float32)


def build(seed: int = 0) -> Layer:
    """An LSTM over time and a dense layer: features (T, N, 4) to the next step (T, N, 2)."""
    rng = np.random.default_rng(seed)
    return Sequential(Recurrent(LSTMCell(4, 64, rng=rng)), TimeDistributed(Dense(64, 2, rng=rng)))


def forecast(model: Any, seen: Array) -> Array:
    """Positions (AHEAD, N, 2) after those seen (SEEN, N, 2): each predicted step is read as the next one."""
    cell, head = model.parts["0"].cell, model.parts["1"].parts["layer"]
    steps = np.diff(seen, axis=0)
    zs, _ = cell.project(features(seen[1:], steps))
    state = cell.initial_state(features(seen[0], steps[0]))
    for z in zs:
        state, _ = cell.step(z, state)
    position, found = seen[-1], []
    for _ in range(AHEAD):
        step = head(state.h)
        position = position + step
        found.append(position)
        state, _ = cell.step(cell.project(features(position, step)[None])[0][0], state)
    return np.stack(found)


def constant_velocity(seen: Array) -> Array:
    """Positions (AHEAD, N, 2) if the last step is taken again and again."""
    return seen[-1] + (seen[-1] - seen[-2]) * np.arange(1, AHEAD + 1)[:, None, None]


def bounced(positions: Array) -> Array:
    """(AHEAD, N), True from the first step on that is not the one before it: a wall was met after SEEN."""
    steps = np.diff(positions, axis=0)
    turned = np.hypot(*np.moveaxis(np.diff(steps, axis=0), -1, 0))[SEEN - 2 :] > 1e-6
    return np.logical_or.accumulate(turned, axis=0)


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on steps with the truth before them; forecast held-out points with nothing but eight positions."""
    model = build(seed)

    def batch(step: int) -> tuple[Array, Array]:
        path = points("train", step, 64, seed=seed)
        steps = np.diff(path, axis=0)
        noise = np.random.default_rng([seed, 3, step]).normal(0, 0.03, (2, *steps[:-1].shape))
        x = features(path[1:-1] + noise[0], steps[:-1] + noise[1])  # noise, as its own errors will be
        return x, (steps[1:] - noise[0]).astype(np.float32)

    fit(model, regression(), batch, steps=4 if quick else 2000, lr=1e-2, seed=seed, progress=progress)
    test = points("test", 0, 100 if quick else 1000, seed=seed)
    seen, truth = test[:SEEN], test[SEEN:]
    found = {
        "LSTM": forecast(model, seen),
        "constant velocity": constant_velocity(seen),
        "stands still": np.broadcast_to(seen[-1], truth.shape),
    }
    off = {name: np.hypot(*np.moveaxis(p - truth, -1, 0)) for name, p in found.items()}
    after = bounced(test)
    scores = {name: float(d[after].mean()) for name, d in off.items()}
    return Outcome(
        task="trajectory",
        measure=f"ADE after a bounce, pixels, {truth.shape[1]} held-out points, {AHEAD} frames ahead",
        scores=scores,
        goal="ADE after bounces below constant velocity",
        reached=scores["LSTM"] < scores["constant velocity"],
        figure=lambda: draw(test, found, off, after),
        facts={
            "ADE before any bounce": ", ".join(f"{n} {d[~after].mean():.2f} px" for n, d in off.items()),
            "ADE over all frames": ", ".join(f"{n} {d.mean():.2f} px" for n, d in off.items()),
            "steps after a bounce": f"{after.mean():.0%}",
        },
        precision=2,
    )


def draw(test: Array, found: dict[str, Array], off: dict[str, Array], after: Array) -> Any:
    """Six held-out points, and the error over the frames ahead."""
    from matplotlib.figure import Figure

    colours = {"LSTM": "#0072b2", "constant velocity": "#d55e00", "stands still": "#999999"}
    figure: Any = Figure(figsize=(12.5, 6.6), facecolor="white", layout="constrained")
    figure.suptitle("Where will a bouncing point be? Eight positions seen, twelve forecast", fontsize=14)
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    early = np.flatnonzero(after.any(axis=0) & (after.sum(axis=0) > 5))
    for ax, n in zip(left.subplots(2, 3).flat, early[:6], strict=False):
        ax.add_patch(_wall())
        ax.plot(*test[:SEEN, n, ::-1].T, "o-", color="0.25", ms=4, lw=1, label="seen")
        path = np.concatenate([test[SEEN - 1 : SEEN, n], test[SEEN:, n]])
        ax.plot(*path[:, ::-1].T, "-", color="0.75", lw=5, label="truth", solid_joinstyle="round")
        for name in ("LSTM", "constant velocity"):
            p = np.concatenate([test[SEEN - 1 : SEEN, n], found[name][:, n]])
            ax.plot(*p[:, ::-1].T, ".-", color=colours[name], ms=5, lw=1.1, label=name)
        ax.set(xlim=(-4, ROOM + 4), ylim=(-4, ROOM + 4), aspect="equal")
        ax.set_axis_off()
    left.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    ax = right.subplots()
    ahead = np.arange(1, AHEAD + 1)
    for name, d in off.items():
        curve = [row[a].mean() if a.any() else np.nan for row, a in zip(d, after, strict=True)]
        ax.plot(ahead, curve, "o-", color=colours[name], label=f"{name}, after a bounce")
    for name in ("LSTM", "constant velocity"):
        curve = [row[~a].mean() if (~a).any() else np.nan for row, a in zip(off[name], after, strict=True)]
        ax.plot(ahead, curve, "s:", ms=4, color=colours[name], label=f"{name}, before any")
    ax.set_xlabel("frames ahead")
    ax.set_ylabel("mean distance from the truth / pixels")
    ax.set_xticks(ahead)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def _wall() -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), ROOM, ROOM, fill=False, ec="black", lw=2)
