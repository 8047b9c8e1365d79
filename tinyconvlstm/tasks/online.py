"""Recognise frame by frame: which digit hides in the noise, said anew after every frame, at once.

A stream gives one frame at a time. `Online` keeps the state of a ConvLSTM between frames: for each it makes one
projection and one step, the two calls of which a scan consists, and reads the logits off h. A clip so read
gives the batch run's numbers bit for bit. The digit moves under strong noise, so that one frame tells little
and every further one adds something.

Goal: logits bit for bit those of the batch run, and accuracy after the last frame above that of the same
network on a single frame. The latency of a step is reported in percentiles, and judged by nobody.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell
from ..data.moving_digits import MovingDigits
from ..layers import Conv, Flatten, Pool, Recurrent, Sequential, TimeDistributed
from .learn import fit
from .outcome import Outcome
from .steps import per_step

FRAMES, CANVAS, NOISE = 8, 20, 0.9  # frames; pixels; standard deviation of the noise, ink is 1
SPLITS = ("train", "validation", "test")


def clips(split: str, index: int, size: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Frames (T, N, 1, H, W) of one moving digit under noise, and which digit it is (N,)."""
    source = MovingDigits(
        split, canvas=(CANVAS, CANVAS), digits=1, frames=FRAMES, speed=(0.5, 1.5), digit_size=16, seed=seed
    )
    x, labels = source.batch_with_labels(index, size)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    return x + NOISE * rng.standard_normal(x.shape).astype(np.float32), labels[:, 0]


def build(seed: int = 0) -> Sequential:
    """A ConvLSTM at half the resolution, pooled, and logits (T, N, 10) at every frame.

    The last layer is a convolution whose window is the whole map. A `Dense` layer would do the same, but BLAS
    multiplies one row in another order than many, and the last bits would differ.
    """
    rng = np.random.default_rng(seed)
    cell = ConvLSTMCell(1, 12, (5, 5), state_kernel=(3, 3), stride=2, rng=rng)
    head = Sequential(Pool("max", 2), Conv(12, 10, 5, padding=0, rng=rng), Flatten())
    return Sequential({"cell": Recurrent(cell), "head": TimeDistributed(head)})


class Online:
    """A recogniser that is given one frame at a time; the state in between is all it remembers.

    Args:
        model: as `build` makes it.
    """

    def __init__(self, model: Sequential) -> None:
        self.cell = model.parts["cell"].cell
        self.head = model.parts["head"].parts["layer"]

    def start(self, frame: Array) -> Any:
        """The state before the first frame, for frames like this one (N, 1, H, W)."""
        return self.cell.initial_state(frame)

    def step(self, frame: Array, state: Any) -> tuple[Array, Any]:
        """Logits (N, 10) after one more frame (N, 1, H, W), and the new state."""
        zs, _ = self.cell.project(frame[None])
        state, _ = self.cell.step(zs[0], state)
        return self.head(state.h), state


def stream(online: Online, frames: Array) -> tuple[Array, Array]:
    """Logits (T, N, 10) of frames (T, N, 1, H, W) given one by one, and the seconds (T,) that each took."""
    state, found, seconds = online.start(frames[0]), [], []
    for frame in frames:
        began = time.perf_counter()
        logits, state = online.step(frame, state)
        seconds.append(time.perf_counter() - began)
        found.append(logits)
    return np.stack(found), np.array(seconds)


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on clips, then read new ones frame by frame."""
    model = build(seed)

    def batch(step: int) -> tuple[Array, Array]:
        x, labels = clips("train", step, 32, seed=seed)
        return x, np.broadcast_to(labels, (FRAMES, 32))

    fit(model, per_step(), batch, steps=2 if quick else 400, lr=1e-2, seed=seed, progress=progress)
    x, labels = clips("test", 0, 20 if quick else 400, seed=seed)
    online = Online(model)
    stream(online, x[:, :1])  # a first time, for caches
    pairs = [stream(online, x[:, n : n + 1]) for n in range(x.shape[1])]  # one camera at a time
    logits = np.concatenate([found for found, _ in pairs], axis=1)
    seconds = np.concatenate([took for _, took in pairs])
    batch_run = np.concatenate([model(x[:, n : n + 1]) for n in range(x.shape[1])], axis=1)
    same = bool((logits == batch_run).all())
    again = []  # the whole clip read anew at every frame, as without a state that is kept
    for n in range(min(10, x.shape[1])):
        for t in range(FRAMES):
            began = time.perf_counter()
            model(x[: t + 1, n : n + 1])
            again.append(time.perf_counter() - began)
    alone = np.concatenate([model(frame[None]) for frame in x])  # (T, N, 10): each frame for itself
    right = (logits.argmax(axis=2) == labels).mean(axis=1)
    single = (alone.argmax(axis=2) == labels).mean(axis=1)
    scores = {
        f"after {FRAMES} frames, online": float(right[-1]),
        "batch run": float((batch_run[-1].argmax(axis=1) == labels).mean()),
        "single frames": float(single.mean()),
        "chance": 0.1,
    }
    return Outcome(
        task="online",
        measure=f"accuracy on {len(labels)} held-out clips of a digit under noise",
        scores=scores,
        goal="frame by frame bit for bit as the batch run, and above single frames",
        reached=same and scores[f"after {FRAMES} frames, online"] > scores["single frames"],
        figure=lambda: draw(x, labels, logits, right, single, seconds, np.array(again)),
        facts={
            "equal bit for bit": "yes" if same else f"no, by up to {abs(logits - batch_run).max():.1e}",
            "latency of a frame": f"p50 {percentile(seconds, 50)}, p95 {percentile(seconds, 95)}",
            "reading the clip anew": f"p50 {percentile(np.array(again), 50)}, p95 {percentile(np.array(again), 95)}",
        },
    )


def percentile(seconds: Array, share: float) -> str:
    """A percentile of times, as text in milliseconds."""
    return f"{1e3 * np.percentile(seconds, share):.2f} ms"


def draw(
    x: Array, labels: Array, logits: Array, right: Array, single: Array, seconds: Array, again: Array
) -> Any:
    """A clip with what is believed after each frame; accuracy over frames; and the latencies."""
    from matplotlib.figure import Figure

    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p = p / p.sum(axis=2, keepdims=True)
    truth = p[:, np.arange(len(labels)), labels]
    n = int(np.argmax(truth[-1] - truth[0]))
    figure: Any = Figure(figsize=(12, 8), facecolor="white", layout="constrained")
    figure.suptitle(
        f"Which digit hides in the noise? It is a {labels[n]}; belief after every frame", fontsize=14
    )
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.2, 1), hspace=0.04)
    axes = upper.subplots(2, FRAMES, gridspec_kw={"height_ratios": (1, 0.8)})
    for t in range(FRAMES):
        axes[0, t].imshow(x[t, n, 0], cmap="gray", vmin=-1, vmax=2)
        axes[0, t].set_title(f"frame {t + 1}", fontsize=10)
        axes[0, t].set_axis_off()
        colours = ["#d55e00" if k == labels[n] else "#9ab8cc" for k in range(10)]
        axes[1, t].bar(range(10), p[t, n], color=colours)
        axes[1, t].set(ylim=(0, 1), xticks=range(10), yticks=[0, 0.5, 1] if t == 0 else [])
        axes[1, t].tick_params(labelsize=7)
    axes[1, 0].set_ylabel("belief")
    left, times = lower.subplots(1, 2)
    frames = np.arange(1, FRAMES + 1)
    left.plot(frames, right, "o-", color="#0072b2", label="online: state kept")
    left.plot(frames, single, "s--", color="#d55e00", label="each frame for itself")
    left.axhline(0.1, color="0.5", ls=":", label="chance")
    left.set(xlabel="frames seen", ylabel="accuracy", ylim=(0, 1), xticks=frames)
    left.grid(alpha=0.3)
    left.legend(frameon=False, loc="upper left")
    high = 4e3 * float(np.median(again))  # what takes longer is counted at the edge
    bins = np.linspace(0, high, 50)
    for values, colour, name in ((seconds, "#0072b2", "a step"), (again, "#d55e00", "the clip read anew")):
        share = np.full(len(values), 1 / len(values))
        text = f"{name}: p50 {percentile(values, 50)}, p95 {percentile(values, 95)}"
        times.hist(np.clip(1e3 * values, 0, high), bins, weights=share, color=colour, alpha=0.65, label=text)
    times.set(xlabel="time for one more frame / ms", ylabel="share of frames")
    times.legend(frameon=False)
    return figure
