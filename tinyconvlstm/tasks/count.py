"""How many digits move in a clip, as the sum of a density map.

One to six digits, bright and dim ones, move over a small canvas and often over one another. A ConvLSTM
reads the clip; from its last state a 1x1 convolution draws a map whose sum is the number of digits:

    y = w * h_T + b,     count = sum over pixels of y / 100,     loss = mean over pixels of (y - 100 d)^2

d is the density to learn: a bell of sum 1 on the centre of every digit. The baselines know the training
clips' mean count, and the line fitted to the ink of the last frame or of its brightest moment at every pixel.

Goal: a mean absolute error of at most half a digit, below every baseline's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.drawing import draw_digits, split_digits
from ..data.shapes import bounce
from ..layers import Conv, Recurrent, Sequential
from .films import INK, MARK, MODEL, OTHER, halved, headings, in_parts, plain, rng_of, show
from .learn import fit, regression
from .outcome import Outcome

CANVAS, SIDE, FRAMES, MOST = (32, 32), 10, 6, 6
SCALE = 100.0  # of the map that is learned: densities are small numbers
BELL = 1.2  # standard deviation of a digit's bell, in pixels of the map, which are two of a frame


class Clips(NamedTuple):
    """A batch and its labels."""

    frames: Array  # (T, N, 1, H, W)
    count: Array  # (N,) digits
    density: Array  # (N, 1, H/2, W/2), its sum is count
    centres: Array  # (N, MOST, 2) pixels, in the last frame; the first `count` of them are there


def clips(split: str, index: int, size: int, *, seed: int) -> Clips:
    """Batch number `index` of a split."""
    rng = rng_of(seed, split, index)
    ink, _ = split_digits(split, SIDE)
    count = rng.integers(1, MOST + 1, size)
    there = np.arange(MOST) < count[:, None]  # (N, MOST)
    bright = there * rng.uniform(0.25, 1, (size, MOST))
    drawn = ink[rng.integers(len(ink), size=(size, MOST))] * bright[..., None, None]
    room = np.array(CANVAS) - SIDE
    start = rng.uniform(0, room, (size, MOST, 2))
    velocity = headings(rng, size * MOST, 1.0, 3.0).reshape(size, MOST, 2)
    corners = bounce(start, velocity, FRAMES, 0, room)  # (T, N, MOST, 2)
    frames = draw_digits(drawn, corners, canvas=CANVAS)[:, :, None]
    centres = corners[-1] + (SIDE - 1) / 2
    return Clips(frames, count, density(centres, there), centres)


def density(centres: Array, there: Array) -> Array:
    """Bells of sum 1, (N, 1, H/2, W/2), at centres (N, MOST, 2) in pixels of a frame, where they are there."""
    bells = []
    for axis in (0, 1):
        middle = (centres[..., axis, None] - 0.5) / 2  # map pixel k covers the frame's 2 k and 2 k + 1
        bell = np.exp(-(((np.arange(CANVAS[axis] // 2) - middle) / BELL) ** 2) / 2)
        bells.append(bell / bell.sum(axis=-1, keepdims=True))  # cut off at the border, still of sum 1
    return np.einsum("nd,ndh,ndw->nhw", there, *bells)[:, None].astype(np.float32)


def network(seed: int) -> Sequential:
    """ConvLSTM at half the resolution, and the density map of its last state."""
    rng = np.random.default_rng(seed)
    memory = Recurrent(LSTMCell(12, 24, (5, 5), rng=rng), return_sequences=False)
    return Sequential({"encode": halved(1, 12, rng), "memory": memory, "density": Conv(24, 1, 1, rng=rng)})


def ink_fit(train: list[Clips], test: Clips) -> dict[str, Array]:
    """Counts by lines fitted to the ink of training clips: of the last frame, and of all frames' brightest."""
    views: dict[str, Callable[[Array], Array]] = {
        "line on the last frame's ink": lambda x: x[-1].sum(axis=(1, 2, 3)),
        "line on all frames' ink": lambda x: x.max(axis=0).sum(axis=(1, 2, 3)),
    }
    counts = np.concatenate([made.count for made in train])
    found = {}
    for name, view in views.items():
        slope, level = np.polyfit(np.concatenate([view(made.frames) for made in train]), counts, 1)
        found[name] = slope * view(test.frames) + level
    return found


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on density maps, then count."""
    model = network(seed)

    def batch(step: int) -> Any:
        made = clips("train", step, 16, seed=seed)
        return made.frames, SCALE * made.density

    fit(
        model,
        regression(),
        batch,
        steps=2 if quick else 500,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="count",
    )
    test = clips("test", 0, 32 if quick else 256, seed=seed)
    maps = in_parts(model, test.frames, axis=0) / SCALE
    train = [clips("train", step, 16, seed=seed) for step in range(64)]
    found = {"ConvLSTM": maps.sum(axis=(1, 2, 3))} | ink_fit(train, test)
    found["mean count"] = np.full(len(test.count), np.mean([made.count.mean() for made in train]))
    scores = {name: float(abs(c - test.count).mean()) for name, c in found.items()}
    best = min(value for name, value in scores.items() if name != "ConvLSTM")
    exact = {name: float((np.rint(c) == test.count).mean()) for name, c in found.items()}
    return Outcome(
        task="count",
        measure=f"mean absolute error of the count of 1 to {MOST} digits, {len(test.count)} held-out clips",
        scores=scores,
        goal="at most 0.5 digits, and below every baseline",
        reached=scores["ConvLSTM"] <= 0.5 and scores["ConvLSTM"] < best,
        figure=lambda: picture(test, maps, found),
        facts={"exact when rounded": ", ".join(f"{name} {share:.3f}" for name, share in exact.items())},
    )


def picture(test: Clips, maps: Array, found: dict[str, Array]) -> Any:
    """Last frames with their maps, and counts against the truth."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12.5, 5.6), layout="constrained")
    figure.suptitle("Counting moving digits by a density map", fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    axes = left.subplots(3, MOST, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    top = float(test.density.max()) * 0.8
    for count, column in zip(range(1, MOST + 1), axes.T, strict=True):
        n = int(np.flatnonzero(test.count == count)[0])
        show(column[0], test.frames[-1, n, 0], f"{count} there")
        column[0].plot(*test.centres[n, :count, ::-1].T, "+", color="#ffd23f", ms=7)
        show(column[1], test.density[n, 0], cmap="magma", vmax=top)
        show(column[2], maps[n, 0], f"sum {maps[n].sum():.2f}", MODEL, cmap="magma", vmax=top)
    for ax, name in zip(axes[:, 0], ("last frame,\ncentres", "density\nto learn", "ConvLSTM"), strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    ax = right.subplots()
    spread = np.random.default_rng(0).uniform(-0.16, 0.16, len(test.count))
    shown = ("line on the last frame's ink", "ConvLSTM")
    for name, colour, shift in zip(shown, (OTHER, MODEL), (0.2, -0.2), strict=True):
        error = abs(found[name] - test.count).mean()
        label = f"{name}: {error:.2f} off on average"
        ax.plot(
            test.count + shift + spread * 0.8, found[name], "o", color=colour, ms=3.5, alpha=0.6, label=label
        )
    for count in range(1, MOST + 1):
        ax.plot([count - 0.4, count + 0.4], [count, count], color=MARK, lw=1.5, zorder=3)
    ax.set_xticks(range(1, MOST + 1))
    plain(ax, x="digits in the clip", y="digits counted", title="All clips (orange: the truth)")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.tick_params(colors=INK)
    return figure
