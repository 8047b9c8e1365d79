"""A dropped frame, filled in from both sides by a bidirectional ConvLSTM.

Two digits move and bounce; of seven frames the one in the middle is lost (all black). One ConvLSTM reads the
clip from the front, one from the back; where both meet, a transposed convolution draws what was lost:

    y_t = decode([forward h_t, backward h_t]),     trained on the lost frame alone

The baselines: the mean of the two neighbours, which shows every digit twice at half its ink, and the frame
before.

Goal: a lower mean squared error than the blend of the two neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.moving_digits import MovingDigits
from ..layers import Bidirectional, Sequential
from ..metrics import mse, psnr, ssim
from ..ops.activations import sigmoid
from ..ops.losses import binary_cross_entropy_backward, binary_cross_entropy_forward
from .films import INK, MARK, MODEL, OTHER, doubled, halved, in_parts, plain, show
from .learn import fit, loss_of
from .outcome import Outcome

FRAMES, LOST = 7, 3
CLIP: dict[str, Any] = {
    "canvas": (28, 28),
    "digits": 2,
    "frames": FRAMES,
    "digit_size": 12,
    "speed": (1.5, 3.5),
}


def without_the_lost(frames: Array) -> Array:
    """The clip with its middle frame black."""
    seen = frames.copy()
    seen[LOST] = 0
    return seen


def network(seed: int) -> Sequential:
    """A ConvLSTM each way at half the resolution; logits of every frame (T, N, 1, H, W)."""
    rng = np.random.default_rng(seed)
    cells = [LSTMCell(8, 16, (3, 3), rng=rng) for _ in range(2)]
    return Sequential(
        {"encode": halved(1, 8, rng), "memory": Bidirectional(*cells), "decode": doubled(32, 1, rng, -2.0)}
    )


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on filling in, then fill in."""
    model = network(seed)
    only_the_lost = (np.arange(FRAMES) == LOST)[:, None, None, None, None]
    data = {split: MovingDigits(split, seed=seed, **CLIP) for split in ("train", "test")}

    def batch(step: int) -> Any:
        frames = data["train"].batch(step, 16)
        return without_the_lost(frames), frames

    fit(
        model,
        loss_of(binary_cross_entropy_forward, binary_cross_entropy_backward, mask=only_the_lost),
        batch,
        steps=2 if quick else 600,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="interpolate",
    )
    frames = data["test"].batch(0, 32 if quick else 256)
    seen = without_the_lost(frames)
    found = {
        "bidirectional ConvLSTM": in_parts(lambda part: sigmoid(model(part))[LOST : LOST + 1], seen),
        "blend of the neighbours": (seen[LOST - 1 : LOST] + seen[LOST + 1 : LOST + 2]) / 2,
        "copy of the frame before": seen[LOST - 1 : LOST],
    }
    truth = frames[LOST : LOST + 1]
    scores = {name: mse(y, truth) for name, y in found.items()}
    best = min(value for name, value in list(scores.items())[1:])
    return Outcome(
        task="interpolate",
        measure=f"mean squared error a pixel of the lost frame, {frames.shape[1]} held-out clips",
        scores=scores,
        goal="a lower error than the blend, and than the copy",
        reached=scores["bidirectional ConvLSTM"] < best,
        figure=lambda: picture(frames, found),
        facts={
            "PSNR": ", ".join(f"{name} {psnr(y, truth):.1f} dB" for name, y in found.items()),
            "SSIM": ", ".join(f"{name} {ssim(y, truth):.3f}" for name, y in found.items()),
        },
        precision=4,
    )


def picture(frames: Array, found: dict[str, Array]) -> Any:
    """The neighbours, the lost frame and what everybody drew; the errors of all clips."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12.5, 6.6), layout="constrained")
    figure.suptitle("A lost frame, filled in from both sides", fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    columns = ["before", "after", "lost (truth)", *found]
    axes = left.subplots(5, len(columns), gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for n, row in enumerate(axes):
        pictures = [frames[LOST - 1, n, 0], frames[LOST + 1, n, 0], frames[LOST, n, 0]]
        pictures += [y[0, n, 0] for y in found.values()]
        for ax, frame, name in zip(row, pictures, columns, strict=True):
            show(ax, frame)
            if n == 0:
                title = name.replace(" ConvLSTM", "\nConvLSTM").replace(" of the ", "\nof the ")
                ax.set_title(title, fontsize=9, color=MODEL if "ConvLSTM" in name else INK)
    ax = right.subplots()
    for (name, y), colour in zip(found.items(), (MODEL, MARK, OTHER), strict=True):
        error = np.sort(((y[0] - frames[LOST]) ** 2).mean(axis=(1, 2, 3)))
        ax.plot(
            error, (np.arange(len(error)) + 1) / len(error), color=colour, label=f"{name}: {error.mean():.4f}"
        )
    ax.set_xlim(0)
    ax.set_ylim(0, 1.02)
    plain(ax, x="mean squared error of a clip's lost frame", y="share of clips with at most this error")
    ax.set_title("All clips (the numbers: their mean)", fontsize=10, loc="left")
    ax.legend(frameon=False, fontsize=9, loc=(0.32, 0.12))
    return figure
