"""Key frames where the state of a ConvLSTM changes most: one for every scene.

A clip is four scenes after one another; each shows one moving shape, and a cut brings another kind of
shape, elsewhere, with another speed. Now and then a frame is under-exposed, and some shapes are fast:
frames then differ as much as across a cut. A ConvLSTM that has learned to name the shape in every frame
has a state that stays when a shape merely moves or fades:

    s_t = maximum over positions of h_t,     change_t = |s_t - s_{t-1}|

Key frames are the first frame and the largest changes, at least three frames apart, as many as there are
scenes. A cut is covered when one of the first three frames of its scene is a key frame. The baselines pick
as many: the largest differences between frames by the same rule, and equally spaced frames.

Goal: every cut of every test clip covered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..data.shapes import bounce, draw_shape
from ..layers import Activation, Dense, GlobalPool, Recurrent, Sequential, TimeDistributed
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from .films import INK, MARK, MODEL, OTHER, halved, headings, in_parts, plain, rng_of, show, without_last
from .learn import fit, loss_of
from .outcome import Outcome

CANVAS, RADIUS, SCENES, FRAMES = (24, 24), 5.0, 4, 32
SHORTEST, APART, EARLY = 5, 3, 3  # frames: of a scene at least; between key frames at least; that cover a cut
KINDS = ("disc", "ring", "cross")


class Clips(NamedTuple):
    """A batch, its cuts and what is seen."""

    frames: Array  # (T, N, 1, H, W)
    kind: Array  # (T, N) index into KINDS
    cuts: Array  # (N, SCENES - 1) the first frames of the scenes after the first


def clips(
    split: str, index: int, size: int, *, seed: int, frames: int = FRAMES, scenes: int = SCENES
) -> Clips:
    """Batch number `index` of a split."""
    rng = rng_of(seed, split, index)
    free = frames - scenes * SHORTEST
    spare = np.sort(rng.integers(0, free + 1, (size, scenes - 1)), axis=1)
    cuts = spare + SHORTEST * np.arange(1, scenes)
    step = rng.integers(1, len(KINDS), (size, scenes))
    kinds = np.cumsum(step, axis=1) % len(KINDS)  # a neighbour is always another kind
    scene = (np.arange(frames)[:, None, None] >= cuts).sum(axis=2)  # (T, N)
    start = rng.uniform(RADIUS, CANVAS[0] - 1 - RADIUS, (size, scenes, 2))
    velocity = headings(rng, size * scenes, 0.3, 3.5).reshape(size, scenes, 2)
    places = bounce(start, velocity, frames, RADIUS, CANVAS[0] - 1 - RADIUS)  # (T, N, scenes, 2)
    every = np.arange(size)
    place = places[np.arange(frames)[:, None], every, scene]
    kind = kinds[every, scene]
    drawn = np.zeros((frames, size, *CANVAS), np.float32)
    for k, name in enumerate(KINDS):
        drawn[kind == k] = draw_shape(name, place[kind == k], canvas=CANVAS, radius=RADIUS)
    light = np.where(rng.random((frames, size)) < 0.08, rng.uniform(0.4, 0.7, (frames, size)), 1)
    return Clips((drawn * light[..., None, None]).astype(np.float32)[:, :, None], kind, cuts)


def frames_loss_forward(logits: Array, labels: Array) -> tuple[Array, Any]:
    """Cross-entropy of logits (T, N, K) and labels (T, N): every frame of every clip counts alike."""
    loss, saved = cross_entropy_forward(logits.reshape(-1, logits.shape[2]), labels.reshape(-1))
    return loss, (saved, logits.shape)


def frames_loss_backward(dloss: Array, saved: Any) -> Array:
    """The gradient of the logits (T, N, K)."""
    inner, shape = saved
    return cross_entropy_backward(dloss, inner).reshape(shape)


def network(seed: int) -> Sequential:
    """ConvLSTM at half the resolution, the largest of every feature's states, the kind of shape in every frame."""
    rng = np.random.default_rng(seed)
    parts = {"encode": halved(1, 12, rng), "relu": Activation("relu")}
    parts |= {
        "memory": Recurrent(LSTMCell(12, 16, (3, 3), rng=rng)),
        "pool": TimeDistributed(GlobalPool("max")),
    }
    return Sequential({**parts, "kinds": TimeDistributed(Dense(16, len(KINDS), rng=rng))})


def state_change(model: Sequential, frames: Array) -> Array:
    """|s_t - s_{t-1}| (T, N), 0 at the first frame."""
    return change(in_parts(without_last(model), frames))


def change(x: Array) -> Array:
    """The norm of the difference of each step (T, N, ...) from the one before: (T, N), 0 at the first."""
    norms = np.sqrt((np.diff(x.reshape(*x.shape[:2], -1), axis=0) ** 2).sum(axis=2))
    return np.concatenate([np.zeros_like(norms[:1]), norms])


def peaks(scores: Array, count: int) -> Array:
    """Key frames (N, count), sorted: frame 0, then the largest scores (T, N) at least APART from those taken."""
    left = scores.astype(np.float64).copy()
    t = np.arange(len(left))[:, None]
    chosen = [np.zeros(left.shape[1], np.int64)]
    while len(chosen) < count:
        left[abs(t - chosen[-1]) < APART] = -np.inf
        chosen.append(left.argmax(axis=0))
    return np.sort(np.stack(chosen, axis=1), axis=1)


def equally_spaced(frames: int, size: int, count: int) -> Array:
    """The middles of `count` equal parts, for every clip."""
    return np.tile(((np.arange(count) + 0.5) * frames / count).astype(np.int64), (size, 1))


def covered(keys: Array, cuts: Array) -> Array:
    """Which cuts (N, SCENES - 1) have a key frame among the first EARLY frames of their scene."""
    late = keys[:, :, None] - cuts[:, None]
    hit: Array = ((late >= 0) & (late < EARLY)).any(axis=1)
    return hit


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on naming shapes, then pick key frames."""
    model = network(seed)

    def batch(step: int) -> Any:
        made = clips("train", step, 16, seed=seed, frames=16, scenes=2)
        return made.frames, made.kind

    fit(
        model,
        loss_of(frames_loss_forward, frames_loss_backward),
        batch,
        steps=2 if quick else 600,
        lr=1e-2,
        seed=seed,
        progress=progress,
        description="summarise",
    )
    test = clips("test", 0, 24 if quick else 200, seed=seed)
    changes = {"ConvLSTM": state_change(model, test.frames), "frame difference": change(test.frames)}
    keys = {name: peaks(d, SCENES) for name, d in changes.items()}
    keys["equally spaced"] = equally_spaced(FRAMES, test.frames.shape[1], SCENES)
    hits = {name: covered(k, test.cuts) for name, k in keys.items()}
    facts = {
        "clips with every cut covered": ", ".join(f"{n} {h.all(axis=1).mean():.3f}" for n, h in hits.items())
    }
    return Outcome(
        task="summarise",
        measure=f"share of {test.cuts.size} cuts in {len(test.cuts)} held-out clips that {SCENES} key frames cover",
        scores={name: float(h.mean()) for name, h in hits.items()},
        goal="the ConvLSTM's key frames cover every cut",
        reached=bool(hits["ConvLSTM"].all()),
        figure=lambda: picture(test, changes, keys, hits),
        facts=facts,
    )


def picture(test: Clips, changes: dict[str, Array], keys: dict[str, Array], hits: dict[str, Array]) -> Any:
    """A clip that fools the frame difference: both curves with the cuts, and everybody's key frames."""
    from matplotlib.figure import Figure

    n = int(hits["frame difference"].sum(axis=1).argmin())
    figure: Any = Figure(figsize=(12.5, 8.2), layout="constrained")
    figure.suptitle("Key frames: the state changes at cuts, the pixels change all the time", fontsize=13)
    top, middle, low = figure.subfigures(3, 1, height_ratios=(0.85, 1.5, 0.65))
    axes = top.subplots(2, FRAMES // 2, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for t, ax in enumerate(axes.flat):
        cut = t in test.cuts[n]
        show(ax, test.frames[t, n, 0], f"{t + 1}", MARK if cut else INK)
    for ax, (name, d), colour in zip(
        middle.subplots(2, 1, sharex=True), changes.items(), (MODEL, OTHER), strict=True
    ):
        ax.plot(np.arange(FRAMES) + 1, d[:, n], color=colour)
        chosen = keys[name][n]
        ax.plot(chosen + 1, d[chosen, n], "o", color=colour, label="key frames")
        for c in test.cuts[n]:
            ax.axvline(c + 1, color=MARK, lw=1, ls=":", label="cut" if c == test.cuts[n][0] else None)
        title = f"{name}: {hits[name][n].sum()} of {SCENES - 1} cuts covered here"
        plain(
            ax,
            y="change",
            title=title,
            x="frame (orange numbers: the first of a scene)" if colour == OTHER else "",
        )
        ax.set_ylim(0)
        ax.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    for part, (name, chosen) in zip(low.subfigures(1, len(keys)), keys.items(), strict=True):
        part.suptitle(f"{name}: {hits[name].mean():.1%} of all cuts", fontsize=10)
        for ax, t in zip(part.subplots(1, SCENES), chosen[n], strict=True):
            show(ax, test.frames[t, n, 0], f"{t + 1}")
    return figure
