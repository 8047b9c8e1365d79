"""A light student learns from a ConvLSTM teacher: depthwise-separable maps, a fraction of the multiplications.

The teacher names eight motions of a digit (the clips of `retrieve`). The student is the same network with a
`SeparableLSTMCell` of a few more features in the place of `LSTMCell`. It learns from the labels and from
the teacher's softened answers, which also say which motions are alike:

    loss = (1 - w) CE(label, softmax(x)) + w T^2 KL(softmax(v / T), softmax(x / T)),     T = 2, w = 0.5

The baseline is the same student, from the same start, on the same clips for as many steps, without the
teacher. Labels are plentiful here, and it does as well or better: what this shows is that a light network
can take over the teacher's answers. Multiply-accumulates are `Layer.cost`'s, of the whole network, a clip.

Goal: accuracy within two points of the teacher's, at a quarter of its multiply-accumulates or less.
Source: Hinton, Vinyals & Dean 2015, arXiv 1503.02531.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import LSTMCell, SeparableLSTMCell
from ..layers import Activation, Dense, GlobalPool, Recurrent, Sequential
from ..ops.activations import softmax_forward
from ..ops.distillation import distillation_backward, distillation_forward
from .films import INK, MARK, MODEL, OTHER, halved, in_parts, plain
from .learn import accuracy, classification, fit, loss_of
from .outcome import Outcome
from .retrieve import CANVAS, FRAMES, MOTIONS, clips

TEMPERATURE, WEIGHT = 2.0, 0.5
TEACHER, STUDENT = 24, 32  # features


def network(cell: type[LSTMCell], features: int, seed: int) -> Sequential:
    """Any cell at half the resolution, its last state averaged over positions, then classes."""
    rng = np.random.default_rng(seed)
    memory = Recurrent(cell(8, features, (3, 3), rng=rng), return_sequences=False)
    parts = {"encode": halved(1, 8, rng), "relu": Activation("relu"), "memory": memory}
    return Sequential({**parts, "pool": GlobalPool("avg"), "classes": Dense(features, len(MOTIONS), rng=rng)})


def softened(logits: Array, temperature: float = TEMPERATURE) -> Array:
    """softmax(x / T), (N, classes)."""
    p: Array = softmax_forward(logits / temperature, axis=1)[0]
    return p


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train the teacher, then the student twice."""
    teacher = network(LSTMCell, TEACHER, seed)
    helped, alone = (network(SeparableLSTMCell, STUDENT, seed) for _ in range(2))

    def labelled(step: int) -> Any:
        made = clips("train", step, 24, seed=seed)
        return made.frames, made.motion

    def taught(step: int) -> Any:
        frames, motion = labelled(step)
        return frames, (motion, teacher(frames))

    both = loss_of(
        lambda x, wanted, **how: distillation_forward(x, *wanted, **how),
        distillation_backward,
        temperature=TEMPERATURE,
        weight=WEIGHT,
    )
    how: dict[str, Any] = {"seed": seed, "progress": progress}
    steps = (2, 2) if quick else (280, 220)
    fit(teacher, classification(), labelled, steps=steps[0], lr=2e-2, description="distil: teacher", **how)
    fit(helped, both, taught, steps=steps[1], lr=2e-2, description="distil: student", **how)
    fit(
        alone, classification(), labelled, steps=steps[1], lr=2e-2, description="distil: student alone", **how
    )
    test = clips("test", 0, 64 if quick else 800, seed=seed)
    models = {"student of the teacher": helped, "same student alone": alone, "teacher": teacher}
    logits = {name: in_parts(model, test.frames, axis=0) for name, model in models.items()}
    scores = {name: accuracy(x, test.motion) for name, x in logits.items()}
    macs = {name: model.cost((FRAMES, 1, 1, *CANVAS)).macs for name, model in models.items()}
    share = macs["student of the teacher"] / macs["teacher"]
    said = softened(logits["teacher"])
    far = {name: float((said * np.log(said / softened(x))).sum(axis=1).mean()) for name, x in logits.items()}
    return Outcome(
        task="distil",
        measure=f"accuracy on {len(test.motion)} held-out clips of {len(MOTIONS)} motions",
        scores=scores,
        goal="within 0.02 of the teacher, at a quarter of its multiply-accumulates or less",
        reached=scores["student of the teacher"] >= scores["teacher"] - 0.02 and share <= 0.25,
        figure=lambda: picture(test.motion, logits, scores, macs),
        facts={
            "multiply-accumulates a clip": (
                f"teacher {macs['teacher']:,}, student {share * macs['teacher']:,.0f}: {share:.3f} of it"
            ),
            "parameters": f"teacher {teacher.count:,}, student {helped.count:,}",
            "nats from the teacher's softened answers": ", ".join(
                f"{n} {v:.3f}" for n, v in far.items() if v
            ),
            "read it so": "labels are plentiful, so the student alone does as well or better: what is shown is that "
            "a teacher's answers suffice, not that they win",
        },
    )


def picture(motion: Array, logits: dict[str, Array], scores: dict[str, float], macs: dict[str, int]) -> Any:
    """Softened answers of all three, motion by motion; accuracy beside multiply-accumulates."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12.5, 7.4), layout="constrained")
    figure.suptitle(
        "A student learns from the teacher's softened answers which motions are alike", fontsize=13
    )
    top, low = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = top.subplots(1, 3, sharey=True)
    for ax, name in zip(axes, ("teacher", "student of the teacher", "same student alone"), strict=True):
        mean = np.stack([softened(logits[name])[motion == k].mean(axis=0) for k in range(len(MOTIONS))])
        image = ax.imshow(np.log10(np.maximum(mean, 1e-6)), cmap="magma", vmin=-3, vmax=0)
        ax.set_xticks(range(len(MOTIONS)), MOTIONS, rotation=45, ha="right", fontsize=8)
        ax.set_yticks(range(len(MOTIONS)), MOTIONS, fontsize=8)
        ax.set_title(name, fontsize=10, color=INK)
    axes[0].set_ylabel("motion seen")
    bar = top.colorbar(image, ax=axes, shrink=0.8, ticks=[-3, -2, -1, 0])
    bar.ax.set_yticklabels(["0.001", "0.01", "0.1", "1"], fontsize=8)
    bar.set_label(f"mean probability at T = {TEMPERATURE:g}", fontsize=9)
    left, right = low.subplots(1, 2)
    names, colours = list(scores), (MODEL, MARK, OTHER)
    for ax, values, label, form in (
        (left, scores, "accuracy (share of held-out clips)", "{:.3f}"),
        (
            right,
            {name: count / 1e6 for name, count in macs.items()},
            "multiply-accumulates a clip (millions)",
            "{:.2f}",
        ),
    ):
        places = range(len(names))[::-1]
        ax.barh(places, [values[name] for name in names], 0.6, color=colours)
        for place, name in zip(places, names, strict=True):
            ax.text(values[name], place, " " + form.format(values[name]), va="center", fontsize=9)
        ax.set_yticks(places, names)
        ax.set_xlim(0, 1.15 * max(values.values()))
        plain(ax, x=label)
    left.axvline(scores["teacher"] - 0.02, color=INK, lw=0.8, ls=":")
    left.set_title("dots: two points below the teacher", fontsize=9, loc="left")
    return figure
