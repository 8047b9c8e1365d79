"""Does a classifier look where the object is? Saliency, occlusion, gates and the receptive field, measured.

A shape moves over still clutter that is as bright as itself; a ConvLSTM says which of six shapes it is. Then it is
asked where it looked: |d logit / d pixel|, by hand-written backpropagation; and how much the probability of the
right answer falls when a patch is covered. The measure is the share of the map's mass on the object's
pixels (grown by two pixels, as a convolution sees that far), beside the object's share of the area, which is
what an even map would have.

Goal: both maps put at least twice the even map's share on the object, and the saliency of a
trained network more than that of an untrained one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell
from ..data.shapes import SHAPES, draw_shape
from ..layers import Activation, Conv, Dense, GlobalPool, Recurrent, Sequential
from ..ops.activations import softmax_forward
from ..viz.gates import gate_arrays
from ..viz.saliency import mass_on, occlusion, saliency, seen_by
from .learn import accuracy, classification, fit
from .outcome import Outcome

KINDS, FRAMES, CANVAS, RADIUS = tuple(SHAPES), 6, 24, 4.0
SPLITS = ("train", "validation", "test")


def clips(split: str, index: int, size: int, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Frames (T, N, 1, H, W), the kind of shape (N,), and which pixels it touches (T, N, H, W)."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    labels = rng.integers(0, len(KINDS), size)
    start, end = rng.uniform(RADIUS, CANVAS - 1 - RADIUS, (2, size, 2))
    step = (end - start) / (FRAMES - 1)
    step *= np.minimum(1, 1.8 / np.maximum(np.hypot(*step.T), 1e-9))[:, None]
    where = start + step * np.arange(FRAMES)[:, None, None]  # (T, N, 2)
    shape = np.stack(
        [
            draw_shape(KINDS[k], where[:, n], canvas=(CANVAS, CANVAS), radius=RADIUS)
            for n, k in enumerate(labels)
        ],
        1,
    )
    x = shape + 0.1 * rng.standard_normal(shape.shape).astype(np.float32)
    for n in range(size):
        for row, column in rng.integers(0, CANVAS - 2, (5, 2)):  # squares of 2 x 2 that stand still
            x[:, n, row : row + 2, column : column + 2] = np.maximum(
                x[:, n, row : row + 2, column : column + 2], 0.9
            )
    return x[:, :, None], labels, shape > 0


def build(seed: int = 0) -> Sequential:
    """A ConvLSTM, its last state through a convolution, the largest of each feature, and a dense layer."""
    rng = np.random.default_rng(seed)
    return Sequential(
        {
            "cell": Recurrent(ConvLSTMCell(1, 10, (5, 5), stride=2, rng=rng), return_sequences=False),
            "conv": Conv(10, 24, 5, rng=rng),
            "relu": Activation("relu"),
            "pool": GlobalPool("max"),
            "head": Dense(24, len(KINDS), rng=rng),
        }
    )


def grown(mask: Array, by: int = 2) -> Array:
    """A mask (..., H, W) and all pixels up to `by` rows and columns away."""
    wide = np.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(by, by)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * by + 1,) * 2, axis=(-2, -1))
    found: Array = windows.any(axis=(-2, -1))
    return found


def maps(model: Any, x: Array, labels: Array) -> tuple[Array, Array]:
    """Saliency (N, T, H, W) and the positive part of occlusion (N, H, W) for the right labels."""

    def probability(x: Array) -> Array:
        return softmax_forward(model(x))[0][np.arange(len(labels)), labels]

    covered = occlusion(probability, x, patch=6, stride=3)
    return saliency(model, x, labels).swapaxes(0, 1), np.maximum(covered, 0) + 1e-9


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train the classifier, then ask where it and an untrained twin look."""
    model = build(seed)
    fit(
        model,
        classification(),
        lambda step: clips("train", step, 32, seed=seed)[:2],
        steps=2 if quick else 400,
        lr=1e-2,
        seed=seed,
        progress=progress,
    )
    x, labels, there = clips("test", 0, 12 if quick else 100, seed=seed)
    object_ = grown(there).swapaxes(0, 1)  # (N, T, H, W)
    swept = object_.any(axis=1)  # (N, H, W): a patch covers all frames
    right = accuracy(model(x), labels)
    salient, covered = maps(model, x, labels)
    untrained = saliency(build(seed + 1000), x, labels).swapaxes(0, 1)
    scores = {
        "saliency on the object": float(mass_on(salient, object_).mean()),
        "an even map": float(object_.mean()),
        "saliency, untrained": float(mass_on(untrained, object_).mean()),
        "occlusion on its path": float(mass_on(covered, swept).mean()),
        "an even map, of the path": float(swept.mean()),
    }
    first, even, blank, patch, path = scores.values()
    field = seen_by(Recurrent(model.parts["cell"].cell), x[:, :20], (6, 6))
    tape = model.parts["cell"].forward(x[:, :1])[1].tape
    return Outcome(
        task="explain",
        measure=f"share of the map on the object's pixels, mean of {len(labels)} held-out clips",
        scores=scores,
        goal="saliency and occlusion at least twice an even map's share on the object, and above untrained",
        reached=first >= 2 * even and patch >= 2 * path and first > blank,
        figure=lambda: draw(x, labels, there, salient, covered, field, gate_arrays(tape)),
        facts={
            "accuracy": f"{right:.3f} on the same clips, chance {1 / len(KINDS):.3f}",
            "saliency over an even map": f"{first / even:.1f} times",
            "occlusion over an even map": f"{patch / path:.1f} times",
        },
    )


def draw(
    x: Array,
    labels: Array,
    there: Array,
    salient: Array,
    covered: Array,
    field: Array,
    gates: dict[str, Array],
) -> Any:
    """Clips with saliency frame by frame and occlusion; gates over time; what one unit sees."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12, 12), facecolor="white", layout="constrained")
    figure.suptitle(
        "Where does the classifier look? Saliency, occlusion, gates and the receptive field", fontsize=14
    )
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5, 1), hspace=0.04)
    axes = upper.subplots(3, FRAMES + 1)
    chosen = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)[:3]]
    for row, n in zip(axes, chosen, strict=False):
        for t, ax in enumerate(row[:-1]):
            ax.imshow(x[t, n, 0], cmap="gray", vmin=0, vmax=1)
            m = salient[n, t] / salient[n].max()
            ax.imshow(m, cmap="inferno", alpha=np.sqrt(m), vmin=0, vmax=1)
            ax.contour(there[t, n], [0.5], colors="#56b4e9", linewidths=1)
            ax.set_title(f"saliency, frame {t + 1}" if n == chosen[0] else "", fontsize=9)
        row[-1].imshow(covered[n], cmap="inferno")
        row[-1].contour(there[:, n].any(axis=0), [0.5], colors="#56b4e9", linewidths=1)
        row[-1].set_title("occlusion" if n == chosen[0] else "", fontsize=9)
        row[0].set_ylabel(f"a {KINDS[labels[n]]}", fontsize=11)
    table = lower.subplots(4, FRAMES)
    feature = int(gates["h"].std(axis=(0, 2, 3)).argmax())
    for name, row in zip(("i", "f", "o"), table, strict=False):
        for t, ax in enumerate(row):
            image = ax.imshow(gates[name][t, feature], cmap="viridis", vmin=0, vmax=1)
        label = {"i": "input", "f": "forget", "o": "output"}[name]
        row[0].set_ylabel(f"{label}\ngate", fontsize=9)
    lower.colorbar(image, ax=table[:3], label="open (1), shut (0)", fraction=0.02, pad=0.01)
    for t, ax in enumerate(table[3]):
        shown = np.log10(field[t] / field.max() + 1e-6)
        last = ax.imshow(shown, cmap="magma", vmin=-6, vmax=0)
        ax.set_xlabel(f"frame {t + 1}", fontsize=9)
    table[3, 0].set_ylabel("one unit\nsees", fontsize=9)
    lower.colorbar(last, ax=table[3], label="log10 gradient", fraction=0.02, pad=0.01)
    for ax in [*axes.flat, *table.flat]:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure
