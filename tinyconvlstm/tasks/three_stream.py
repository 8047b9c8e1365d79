"""Three streams: label = shape x motion x tone, and no two of pictures, flow and sound suffice.

The factors are independent and even, and each shows in one stream alone (`data.three_stream`), so two
streams can be right in half of the clips at most. One network is trained on all three jointly; the
baselines are the same network with one stream withheld at prediction.

Goal: the joint model passes 95 % on held-out clips, and stays below 75 % whenever a stream is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.three_stream import KINDS, MOTIONS, TONES, ThreeStreamClips
from ..models.three_stream import NAMES, ThreeStream, three_stream
from .learn import accuracy, classification, fit
from .outcome import Outcome

STEPS, BATCH, HELD_OUT = 300, 24, 480
BLUE = "#1f5fa8"
SHOWN = {"rgb": "pictures", "flow": "flow", "audio": "sound"}


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on all three streams, measure with all and with each one withheld."""
    train = ThreeStreamClips("train", seed=seed)
    x, labels = ThreeStreamClips("test", seed=seed).batch(0, 48 if quick else HELD_OUT)
    model = three_stream(train.classes, bands=train.bands, steps=train.frames - 1, features=(8, 12), rng=seed)
    fit(
        model,
        classification(),
        lambda step: train.batch(step, BATCH),
        steps=3 if quick else STEPS,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="three streams",
    )
    scores = {"all three streams": right(model, x, labels)}
    for name in NAMES:
        left = {other: a for other, a in x.items() if other != name}
        scores[f"without {SHOWN[name]}"] = right(model, left, labels)
    first, *rest = scores.values()
    return Outcome(
        "three-stream",
        f"accuracy on {len(labels)} held-out clips of {train.classes} classes",
        scores,
        "above 0.95 with all three streams, below 0.75 without any one of them",
        first > 0.95 and max(rest) < 0.75,
        lambda: figure(x, labels, scores),
        {
            "most that two streams allow": "0.500, by construction",
            "parameters": f"{model.count:,}",
            "fusion": "concatenation",
        },
    )


def right(model: ThreeStream, x: dict[str, Any], labels: Any) -> float:
    """Accuracy, in pieces of 48 clips so that memory stays small."""
    logits = [
        model.forward({name: a[:, n : n + 48] for name, a in x.items()})[0] for n in range(0, len(labels), 48)
    ]
    return accuracy(np.concatenate(logits), labels)


def figure(x: dict[str, Any], labels: Any, scores: dict[str, float]) -> Any:
    """One clip as its three streams, and the scores."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(11, 5.2), layout="constrained")
    grid = page.add_gridspec(3, 2, width_ratios=(7, 4), height_ratios=(1, 1, 1.5))
    strip, field, sound = (page.add_subplot(grid[k, 0]) for k in range(3))
    bars = page.add_subplot(grid[:, 1])
    rgb, flow, audio = (x[name][:, 0] for name in NAMES)
    T, _, H, W = rgb.shape
    wide = np.ones((H, T * (W + 2) - 2, 3))
    for t in range(T):
        wide[:, t * (W + 2) : t * (W + 2) + W] = np.clip(rgb[t].transpose(1, 2, 0), 0, 1)
    strip.imshow(wide, interpolation="nearest")
    kind, motion, tone = np.unravel_index(int(labels[0]), (len(KINDS), len(MOTIONS), len(TONES)))
    strip.set_title(f"pictures: a {KINDS[kind]}, somewhere else in every frame", fontsize=10)
    strip.set_axis_off()
    step = 2
    rows, columns = np.mgrid[0:H:step, 0:W:step]
    for t in range(len(flow)):
        v = flow[t][:, ::step, ::step]
        field.quiver(
            columns + t * (W + 2),
            rows,
            v[1],
            v[0],
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0016,
            color="#1f5fa8",
        )
    field.set_xlim(-1, T * (W + 2) - 2)
    field.set_ylim(H, -1)
    field.set_aspect("equal")
    field.set_axis_off()
    field.set_title(f"flow: a disc goes {MOTIONS[motion]}, an arrow a pixel in two", fontsize=10)
    sound.imshow(audio.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    sound.set_title(f"sound: a tone in band {TONES[tone]}, in noise of six times its power", fontsize=10)
    sound.plot(
        [-0.02], [TONES[tone]], ">", color="#c44e00", transform=sound.get_yaxis_transform(), clip_on=False
    )
    sound.set_xlabel("window of sound", fontsize=9)
    sound.set_ylabel("band", fontsize=9)
    names = list(scores)[::-1]
    bars.barh(names, [scores[n] for n in names], color=["#9aa7b4"] * (len(names) - 1) + ["#c44e00"])
    bars.axvline(0.5, color="#1a1a1a", ymax=0.9, linewidth=1, linestyle="--")
    bars.text(0.5, len(names) - 0.42, "the most that two streams allow", fontsize=8, ha="center")
    for k, name in enumerate(names):
        bars.text(0.02, k, f"{scores[name]:.3f}", va="center", color="white", fontsize=10)
    bars.set_xlim(0, 1)
    bars.set_ylim(-0.6, len(names) - 0.2)
    bars.spines["left"].set_visible(False)
    bars.tick_params(left=False)
    bars.set_xlabel("accuracy on held-out clips, 8 classes", fontsize=9)
    bars.set_title("who needs all three streams", fontsize=10)
    for side in ("top", "right"):
        bars.spines[side].set_visible(False)
    return page
