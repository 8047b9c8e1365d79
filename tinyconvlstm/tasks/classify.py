"""Name the motion of a digit: right, left, down, up, clockwise, anticlockwise, along a row, along a column.

Every class is a class of motion; which digit moves, where, how fast, and its phase are chance. So a single
frame says next to nothing, and neither does the mean of frames. Four networks that see time are trained
on the same clips, Adam at a falling rate, batches of 32, L2 on the weights: a ConvLSTM, a CNN with
an LSTM on top, 3-d convolutions, and factorised ones. The baselines are a network that sees one
frame, and hand-made features: histograms of oriented gradients averaged over time, and a linear classifier.

Goal: the ConvLSTM is right in at least 90 % of held-out clips, and both baselines in fewer than half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..data.hand_features import oriented_gradients
from ..layers import Dense, Sequential
from ..layers.base import Layer
from ..models.classifier import VideoClassifier
from ..models.networks import cnn_lstm, conv3d_network, factorised_network, frame_network
from .films import in_parts, plain, show
from .learn import accuracy, classification, fit
from .outcome import Outcome
from .retrieve import CANVAS, FRAMES, MOTIONS, clips, network

STEPS, BATCH, HELD_OUT = 220, 32, 320
K = len(MOTIONS)
CONVLSTM = "ConvLSTM"


def single_frame(rng: np.random.Generator) -> Sequential:
    """Convolutions on one frame (N, 1, H, W), places kept, and a dense head."""
    trunk = frame_network(1, (8, 16), keep_places=True, rng=rng)
    return Sequential(trunk, Dense(trunk.cost((1, 1, *CANVAS)).out[1], K, rng=rng))


def contestants(seed: int) -> dict[str, tuple[Layer, float, Any]]:
    """Each network, its learning rate, and what it sees of a clip (T, N, 1, H, W)."""

    def whole(x: Array) -> Array:
        return x

    rng = np.random.default_rng(seed)
    cells = -(-CANVAS[0] // 6) * -(-CANVAS[1] // 6) * 9
    return {
        CONVLSTM: (network(seed), 5e-3, whole),
        "CNN + LSTM": (cnn_lstm(1, K, features=(8, 16), hidden=32, size=CANVAS, rng=rng), 5e-3, whole),
        "3-d convolutions": (conv3d_network(1, K, features=(8, 24), rng=rng), 1e-2, whole),
        "(2+1)-d convolutions": (factorised_network(1, K, features=(8, 24), rng=rng), 1e-2, whole),
        "one frame": (single_frame(rng), 3e-3, lambda x: x[FRAMES // 2]),
        "gradient histograms": (
            Dense(cells, K, rng=rng),
            3e-2,
            lambda x: oriented_gradients(x[:, :, 0]).mean(axis=0).astype(np.float32),
        ),
    }


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train every contestant on the same clips, and measure them on others."""
    made = clips("test", 0, 64 if quick else HELD_OUT, seed=seed)
    scores, models = {}, {}
    for name, (model, lr, view) in contestants(seed).items():

        def batch(step: int, view: Any = view) -> Any:
            train = clips("train", step, BATCH, seed=seed)
            return view(train.frames), train.motion

        fit(
            model,
            classification(),
            batch,
            steps=2 if quick else STEPS,
            lr=lr,
            l2=1e-4,
            seed=seed,
            progress=progress,
            description=name,
        )
        seen = view(made.frames)
        logits = in_parts(model, seen, axis=0) if seen.ndim == 5 else model(seen)
        scores[name], models[name] = accuracy(logits, made.motion), model
    weak = max(scores["one frame"], scores["gradient histograms"])
    return Outcome(
        "classify",
        f"accuracy on {len(made.motion)} held-out clips of {K} motions",
        scores,
        "the ConvLSTM at least 0.9, one frame and gradient histograms below 0.5",
        scores[CONVLSTM] >= 0.9 and weak < 0.5,
        lambda: figure(models[CONVLSTM], made, scores),
        {"parameters": ", ".join(f"{name} {model.count:,}" for name, model in models.items())},
    )


def over_time(model: Any, frames: Array) -> Array:
    """Class probabilities of the ConvLSTM after every frame, (T, N, K)."""
    parts = model.parts
    head = Sequential({"pool": parts["pool"], "classes": parts["classes"]})
    return VideoClassifier([parts["memory"]], head, backbone=parts["encode"].parts["layer"]).over_time(frames)


def figure(model: Any, made: Any, scores: dict[str, float]) -> Any:
    """Two clips with the ConvLSTM's probabilities after every frame, and all scores."""
    from matplotlib.figure import Figure

    page: Any = Figure(figsize=(12, 5.6), layout="constrained")
    left, right = page.subfigures(1, 2, width_ratios=(8, 4))
    chosen = [0, 4]  # a straight motion and a round one
    p = over_time(model, made.frames[:, chosen])
    rows = left.subfigures(2, 1)
    for k, (row, clip) in enumerate(zip(rows, chosen, strict=True)):
        grid = row.add_gridspec(2, FRAMES, height_ratios=(1, 1.7))
        for t in range(FRAMES):
            show(row.add_subplot(grid[0, t]), made.frames[t, clip, 0])
        ax = row.add_subplot(grid[1, :])
        truth = int(made.motion[clip])
        for c, name in enumerate(MOTIONS):
            if c == truth or p[:, k, c].max() > 0.2:
                ax.plot(
                    np.arange(1, FRAMES + 1),
                    p[:, k, c],
                    label=name + (" (true)" if c == truth else ""),
                    color="#c44e00" if c == truth else None,
                    linewidth=2.4 if c == truth else 1.2,
                )
        ax.set_ylim(0, 1.02)
        ax.set_xlim(0.5, FRAMES + 0.5)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        plain(
            ax,
            x="frames seen" if k else "",
            y="probability",
            title="what the ConvLSTM thinks after each frame",
        )
    bars = right.subplots()
    names = list(scores)[::-1]
    colours = ["#9a9a9a" if n in ("one frame", "gradient histograms") else "#1f6f8b" for n in names]
    colours[-1] = "#c44e00"
    bars.barh(names, [scores[n] for n in names], color=colours)
    for k, name in enumerate(names):
        inside = scores[name] > 0.25
        bars.text(
            scores[name] + (-0.02 if inside else 0.02),
            k,
            f"{scores[name]:.2f}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
        )
    bars.axvline(1 / K, color="black", linestyle="--", linewidth=1)
    bars.set_xlim(0, 1)
    plain(bars, x="accuracy on held-out clips; dashed: chance", title="who sees motion")
    return page
