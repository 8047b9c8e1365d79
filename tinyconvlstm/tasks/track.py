"""Follow a shape that disappears behind a band: where is it while nobody can see it?

A shape crosses the picture, bounces off the upper and lower walls, and passes behind a band wider than
itself. The network answers every frame with a heat map, a softmax over places two pixels apart; its mean is
the centre. A ConvLSTM remembers row and speed; a network that sees one frame knows, during the occlusion,
that the shape is behind the band, but not where. "Last seen" stays where the shape was before it vanished.

Goal: mean distance from the true centre below 1.5 pixels over all frames, and during the occlusion below the
network that sees one frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell
from ..data.shapes import SHAPES, bounce, draw_shape
from ..layers import Activation, Conv, Layer, Recurrent, Sequential, TimeDistributed
from ..ops.activations import softmax_forward
from .learn import fit
from .outcome import Outcome
from .steps import per_step

CANVAS, FRAMES, RADIUS, BAND = 28, 16, 2.5, 11  # pixels, frames, pixels, pixels
GRID, PITCH, OFFSET = 14, 2.0, 0.5  # places of the heat map along an axis; place g is pixel 2 g + 1/2
SPLITS = ("train", "validation", "test")
KINDS = tuple(SHAPES)


class Clips(NamedTuple):
    """A batch of clips and where the shape is."""

    x: Array  # (T, N, 1, H, W)
    centres: Array  # (T, N, 2) pixels
    hidden: Array  # (T, N) True where no pixel of the shape is seen


def clips(split: str, index: int, size: int, *, seed: int = 0) -> Clips:
    """Batch `index` of a split."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    start = np.stack([rng.uniform(3, CANVAS - 4, size), rng.uniform(2.5, 5, size)], -1)
    velocity = np.stack([rng.uniform(-1.5, 1.5, size), rng.uniform(1.2, 1.7, size)], -1)
    centres = bounce(start, velocity, FRAMES, np.array([2.5, -99.0]), np.array([CANVAS - 3.5, 99.0]))
    mirrored = rng.random(size) < 0.5
    centres[:, mirrored, 1] = CANVAS - 1 - centres[:, mirrored, 1]
    left = rng.integers(8, CANVAS - 8 - BAND + 1, size)
    column = np.arange(CANVAS)
    band = (column >= left[:, None]) & (column < left[:, None] + BAND)  # (N, W)
    kinds = rng.integers(0, len(KINDS), size)
    x, hidden = np.zeros((FRAMES, size, 1, CANVAS, CANVAS), np.float32), np.zeros((FRAMES, size), bool)
    for n, kind in enumerate(kinds):
        drawn = draw_shape(KINDS[kind], centres[:, n], canvas=(CANVAS, CANVAS), radius=RADIUS)
        hidden[:, n] = (drawn * ~band[n]).sum(axis=(1, 2)) == 0
        x[:, n, 0] = np.where(band[n], 0.5, drawn)
    x += 0.05 * rng.standard_normal(x.shape).astype(np.float32)
    return Clips(x, centres, hidden)


def places(centres: Array) -> Array:
    """Soft labels (T, N, GRID * GRID): weights of the four places around a centre, whose mean is the centre."""
    u = np.clip((centres - OFFSET) / PITCH, 0, GRID - 1)[..., None]
    near = np.maximum(0, 1 - abs(u - np.arange(GRID)))  # (T, N, 2, GRID)
    maps = near[..., 0, :, None] * near[..., 1, None, :]
    return maps.reshape(*centres.shape[:2], -1).astype(np.float32)


def heat(logits: Array) -> Array:
    """Heat maps (T, N, GRID, GRID), each of sum 1, from logits (T, N, 1, GRID, GRID)."""
    p = softmax_forward(logits.reshape(*logits.shape[:2], -1), axis=2)[0]
    return p.reshape(*logits.shape[:2], GRID, GRID)


def centre(maps: Array) -> Array:
    """The mean place (T, N, 2) of heat maps, in pixels."""
    g = np.arange(GRID)
    where = np.stack([(maps.sum(axis=3) * g).sum(axis=2), (maps.sum(axis=2) * g).sum(axis=2)], -1)
    return PITCH * where + OFFSET


def tracker(seed: int = 0) -> Layer:
    """A ConvLSTM that halves the picture, and a head."""
    rng = np.random.default_rng(seed)
    cell = ConvLSTMCell(1, 12, (5, 5), stride=2, rng=rng)
    head = Sequential(Conv(12, 16, 3, rng=rng), Activation("relu"), Conv(16, 1, 3, rng=rng))
    return Sequential(Recurrent(cell), TimeDistributed(head))


def frame_wise(seed: int = 0) -> Layer:
    """Convolutions that see one frame, with a field of view as wide as the picture."""
    rng = np.random.default_rng(seed)
    return TimeDistributed(
        Sequential(
            Conv(1, 12, 5, stride=2, rng=rng),
            Activation("relu"),
            Conv(12, 16, 5, dilation=2, rng=rng),
            Activation("relu"),
            Conv(16, 16, 5, rng=rng),
            Activation("relu"),
            Conv(16, 1, 3, rng=rng),
        )
    )


def last_seen(made: Clips) -> Array:
    """The true centre while the shape is seen, and then the last one seen."""
    found = made.centres.copy()
    for t in range(1, FRAMES):
        found[t] = np.where(made.hidden[t][:, None], found[t - 1], found[t])
    return found


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train both networks on the same clips, and measure the distance from the truth."""

    def batch(step: int) -> tuple[Array, Array]:
        made = clips("train", step, 16, seed=seed)
        return made.x, places(made.centres)

    test = clips("test", 0, 12 if quick else 200, seed=seed)
    maps = {}
    for name, model in (("ConvLSTM", tracker(seed)), ("one frame", frame_wise(seed))):
        fit(
            model,
            per_step(),
            batch,
            steps=2 if quick else 300,
            lr=1e-2,
            seed=seed,
            progress=progress,
            description=name,
        )
        maps[name] = heat(model(test.x))
    found = {name: centre(m) for name, m in maps.items()} | {"last seen": last_seen(test)}
    off = {name: np.hypot(*np.moveaxis(c - test.centres, -1, 0)) for name, c in found.items()}  # (T, N)
    scores = {name: float(d[test.hidden].mean()) for name, d in off.items()}
    everywhere = {name: float(d.mean()) for name, d in off.items()}
    return Outcome(
        task="track",
        measure=f"mean distance from the centre while hidden, pixels, {test.hidden.sum()} frames",
        scores=scores,
        goal="ConvLSTM below 1.5 px over all frames, and while hidden below a network that sees one frame",
        reached=everywhere["ConvLSTM"] < 1.5 and scores["ConvLSTM"] < scores["one frame"],
        figure=lambda: draw(test, maps, found, off),
        facts={
            "over all frames": ", ".join(f"{name} {value:.2f} px" for name, value in everywhere.items()),
            "frames hidden": f"{test.hidden.mean():.0%}",
        },
        precision=2,
    )


def draw(test: Clips, maps: dict[str, Array], found: dict[str, Array], off: dict[str, Array]) -> Any:
    """One clip with both heat maps over its frames, and the error around the occlusion."""
    from matplotlib.figure import Figure

    n = int(np.argmax(test.hidden.sum(axis=0) + 0.01 * np.ptp(test.centres[..., 0], axis=0)))
    hidden = np.flatnonzero(test.hidden[:, n])
    times = range(max(0, hidden[0] - 2), min(FRAMES, hidden[-1] + 3))
    figure: Any = Figure(figsize=(1.35 * len(times) + 1.5, 7.2), facecolor="white", layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1), hspace=0.05)
    upper.suptitle(
        "Where is the shape while the band hides it? (+ truth, o mean of the heat map)", fontsize=13
    )
    axes = upper.subplots(2, len(times), squeeze=False)
    edges = (OFFSET - PITCH / 2, OFFSET + PITCH * (GRID - 0.5)) * 2
    extent = (edges[0], edges[1], edges[1], edges[0])
    for row, (name, colour) in zip(axes, (("ConvLSTM", "#0072b2"), ("one frame", "#d55e00")), strict=True):
        for ax, t in zip(row, times, strict=True):
            ax.imshow(test.x[t, n, 0], cmap="gray", vmin=0, vmax=1)
            m = maps[name][t, n]
            ax.imshow(m, cmap="inferno", alpha=np.sqrt(m / m.max()) * 0.85, extent=extent)
            for point, mark, ink in ((test.centres, "+", "white"), (found[name], "o", "#7fd4ff")):
                y, x = point[t, n]
                ax.plot(x, y, mark, color=ink, ms=9, mew=2, mfc="none")
            ax.set(xlim=(-0.5, CANVAS - 0.5), ylim=(CANVAS - 0.5, -0.5), xticks=[], yticks=[])
            if name == "ConvLSTM":
                ax.set_title(f"frame {t + 1}" + (", hidden" if test.hidden[t, n] else ""), fontsize=9)
        row[0].set_ylabel(name, fontsize=11, color=colour)
    since = np.full(test.hidden.shape, -99)  # frames since the shape vanished
    for k in range(test.hidden.shape[1]):
        gone = np.flatnonzero(test.hidden[:, k])
        if len(gone):
            since[:, k] = np.arange(FRAMES) - gone[0]
    ax = lower.subplots()
    reach = np.arange(-5, 9)
    for (name, d), colour in zip(off.items(), ("#0072b2", "#d55e00", "#009e73"), strict=True):
        curve = [d[since == s].mean() if (since == s).any() else np.nan for s in reach]
        ax.plot(reach, curve, "o-", color=colour, label=name)
    ax.axvspan(-0.5, 3.5, color="0.9", label="mostly hidden")
    ax.set_xlabel("frames since the shape vanished")
    ax.set_ylabel("distance from the truth / pixels")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, ncols=2)
    return figure
