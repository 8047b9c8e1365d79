"""Clips of the same motion, found by the cosine of ConvLSTM states.

A digit moves in one of eight ways: to the right, left, down or up, round clockwise or the other way, or
to and fro along a row or a column; digit, place, speed and phase are chance. A ConvLSTM learns to name
the motion on training clips; what it is used for is its last state, averaged over all positions:

    e = mean over positions of h_T,     similarity of two clips = e . e' / (|e| |e'|)

Every test clip asks for its nearest neighbour among the other test clips; no two of them show the same
digit image, and none of those was seen in training. The baseline compares pixels averaged over time.

Goal: recall@1 of the same motion at least 0.9.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.drawing import draw_digits, split_digits
from ..layers import Dense, GlobalPool, Recurrent, Sequential
from .films import INK, MARK, MODEL, OTHER, halved, in_parts, plain, rng_of, show, without_last
from .learn import classification, fit
from .outcome import Outcome

CANVAS, SIDE, FRAMES = (24, 24), 9, 10
MOTIONS = ("right", "left", "down", "up", "clockwise", "anticlockwise", "along a row", "along a column")


class Clips(NamedTuple):
    """A batch and its labels."""

    frames: Array  # (T, N, 1, H, W)
    motion: Array  # (N,) index into MOTIONS
    corners: Array  # (T, N, 2) pixels
    glyph: Array  # (N,) index of the digit's image in its split


def corners_of(motion: Array, rng: np.random.Generator) -> Array:
    """Paths (T, N, 2) of the top left corner, in pixels; rows count downwards.

    Straight ones cover 0.7 to 1.5 pixels a frame, the round ones have radii of 2.5 to 6 pixels and turn
    0.5 to 0.9 radians a frame, those to and fro swing as far.
    """
    size = len(motion)
    t = np.arange(FRAMES)[:, None]
    reach = t * rng.uniform(0.7, 1.5, size)  # pixels
    phase = rng.uniform(0, 2 * np.pi, size) + t * rng.uniform(0.5, 0.9, size)
    radius = rng.uniform(2.5, 6, size)
    swing, other, still = radius * np.sin(phase), radius * np.cos(phase), np.zeros((FRAMES, size))
    ways = [(still, reach), (still, -reach), (reach, still), (-reach, still)]
    ways += [(swing, other), (-swing, other), (still, swing), (swing, still)]
    path = np.stack([np.stack(way, axis=-1) for way in ways])[motion, :, np.arange(size)].swapaxes(0, 1)
    room = np.array(CANVAS) - SIDE
    low, high = path.min(axis=0), path.max(axis=0)
    moved: Array = path - low + rng.random((size, 2)) * (room - (high - low))
    return moved


def clips(split: str, index: int, size: int, *, seed: int, unique: bool = False) -> Clips:
    """Batch number `index` of a split; the motions take turns. `unique`: no digit image twice."""
    rng = rng_of(seed, split, index)
    ink, _ = split_digits(split, SIDE)
    glyph = rng.permutation(len(ink))[:size] if unique else rng.integers(len(ink), size=size)
    motion = np.arange(size) % len(MOTIONS)
    corners = corners_of(motion, rng)
    frames = draw_digits(ink[glyph][:, None], corners[:, :, None], canvas=CANVAS)
    return Clips(frames[:, :, None], motion, corners, glyph)


def network(seed: int) -> Sequential:
    """ConvLSTM at half the resolution, its last state averaged over positions, then classes."""
    rng = np.random.default_rng(seed)
    memory = Recurrent(LSTMCell(8, 24, (3, 3), rng=rng), return_sequences=False)
    parts = {"encode": halved(1, 8, rng), "memory": memory, "pool": GlobalPool("avg")}
    return Sequential({**parts, "classes": Dense(24, len(MOTIONS), rng=rng)})


def embedding(model: Sequential, frames: Array) -> Array:
    """e (N, F) of clips (T, N, 1, H, W): all but the last layer."""
    return in_parts(without_last(model), frames, axis=0)


def neighbours(features: Array) -> Array:
    """The clips most like each clip by cosine, best first, itself left out: (N, N - 1)."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    ranked: Array = np.argsort(-cosine, axis=1, kind="stable")[:, :-1]
    return ranked


def recall_at_1(features: Array, labels: Array) -> float:
    """The share of clips whose nearest neighbour has their label."""
    return float((labels[neighbours(features)[:, 0]] == labels).mean())


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on naming motions, then retrieve."""
    model = network(seed)

    def batch(step: int) -> Any:
        made = clips("train", step, 32, seed=seed)
        return made.frames, made.motion

    fit(
        model,
        classification(),
        batch,
        steps=2 if quick else 400,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="retrieve",
    )
    test = clips("test", 0, 64 if quick else 288, seed=seed, unique=True)
    pixels = test.frames.mean(axis=0).reshape(len(test.motion), -1)
    untrained = network(seed)
    features = {
        "ConvLSTM": embedding(model, test.frames),
        "untrained ConvLSTM": embedding(untrained, test.frames),
        "mean pixels": pixels,
    }
    scores = {name: recall_at_1(f, test.motion) for name, f in features.items()}
    return Outcome(
        task="retrieve",
        measure=f"recall@1 of the same motion among {len(pixels)} held-out clips, no digit image twice",
        scores=scores,
        goal="recall@1 of the ConvLSTM at least 0.9",
        reached=scores["ConvLSTM"] >= 0.9,
        figure=lambda: picture(test, features, scores),
        facts={"chance": f"{1 / len(MOTIONS):.3f}"},
    )


def trace(ax: Any, made: Clips, n: int, title: str, colour: str) -> None:
    """A clip in one picture: the brightest of its frames, and the digit's path with its end."""
    show(ax, 0.45 * made.frames[:, n, 0].max(axis=0))
    path = made.corners[:, n] + (SIDE - 1) / 2
    ax.plot(path[:, 1], path[:, 0], color="#ffd23f", lw=1.4)
    ax.plot(*path[-1, ::-1], "o", color="#ffd23f", ms=5)
    ax.set_title(title, fontsize=8.5, color=colour)


def picture(test: Clips, features: dict[str, Array], scores: dict[str, float]) -> Any:
    """What is found for one clip of each motion, by states and by pixels; the recall of each motion."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(11.5, 10), layout="constrained")
    figure.suptitle("The nearest clips by ConvLSTM state move alike; by pixels they lie alike", fontsize=13)
    films, bars = figure.subfigures(1, 2, width_ratios=(1.6, 1))
    films.supxlabel("yellow: path of the digit, the dot its end; orange titles: another motion", fontsize=9)
    asked, *others = films.subfigures(1, 3, width_ratios=(1, 2, 2))
    asked.suptitle("asked", fontsize=10)
    for k, ax in enumerate(asked.subplots(len(MOTIONS), 1)):
        trace(ax, test, k, MOTIONS[test.motion[k]], INK)
    for part, name in zip(others, ("ConvLSTM", "mean pixels"), strict=True):
        part.suptitle(f"two nearest by {name}", fontsize=10)
        ranked = neighbours(features[name])
        for k, row in enumerate(part.subplots(len(MOTIONS), 2)):
            for ax, n in zip(row, ranked[k], strict=False):
                same = test.motion[n] == test.motion[k]
                trace(ax, test, int(n), MOTIONS[test.motion[n]], INK if same else MARK)
    ax = bars.subplots()
    places = np.arange(len(MOTIONS))[::-1]
    for shift, (name, f), colour in zip(
        (0.27, 0, -0.27), features.items(), (MODEL, OTHER, MARK), strict=True
    ):
        hit = test.motion[neighbours(f)[:, 0]] == test.motion
        shares = [hit[test.motion == k].mean() for k in range(len(MOTIONS))]
        ax.barh(places + shift, shares, 0.25, color=colour, label=f"{name}: {scores[name]:.3f}")
    ax.set_yticks(places, MOTIONS)
    ax.axvline(1 / len(MOTIONS), color=INK, lw=0.8, ls=":")
    ax.set_xlim(0, 1)
    plain(ax, x="recall@1 (share of clips; dots: chance)", title="Same motion found first")
    ax.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.4, -0.07))
    return figure
