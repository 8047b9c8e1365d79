"""Training until a problem is solved: how many sequences does it take, seed by seed?

The algorithmic tasks share this. A contestant is trained on fresh sequences and tested on held-out ones at
regular intervals, until it meets the criterion or has seen as many sequences as it is allowed to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..cells import LSTMCell, RNNCell
from ..layers import Dense, Recurrent, Sequential
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..optim import Adam
from ..train import train
from .learn import Objective, loss_of

TRAIN, TEST = 0, 1  # a random stream each: default_rng([seed, split, step])


class Look(NamedTuple):
    """A look at a contestant during its training."""

    score: float  # what the picture shows
    solved: bool  # whether the criterion is met
    milder: bool = False  # whether another one, easier to meet, is


class Race(NamedTuple):
    """One training."""

    seed: int
    model: Any
    solved: int | None  # sequences seen when the criterion was first met; None: never
    milder: int | None  # the same for the milder criterion
    curve: list[tuple[int, float]]  # (sequences, score)

    def sequences(self, limit: int) -> int:
        """Sequences until solved; `limit`, which all of them have seen, where it never was."""
        return limit if self.solved is None else self.solved


def seeds_of(seed: int, count: int) -> range:
    """The seeds of a task that runs several: seed 0 has the first `count`, seed 1 the next, none shared."""
    return range(seed * count, (seed + 1) * count)


def lstm(channels: int, features: int, classes: int, *, seed: int, forget_bias: float, last: bool) -> Any:
    """An LSTM and a dense layer over every step, or over the `last` one alone."""
    cell = LSTMCell(channels, features, forget_bias=forget_bias, rng=seed)
    return Sequential(
        Recurrent(cell, return_sequences=not last),
        Dense(features, classes, rng=np.random.default_rng([seed, 2])),
    )


def rnn(channels: int, classes: int, *, like: Any, seed: int, last: bool) -> Any:
    """An Elman network with a dense layer, just large enough to have as many parameters as `like`."""
    features = 1
    while elman_count(channels, features, classes) < like.count:
        features += 1
    cell = RNNCell(channels, features, rng=seed)
    return Sequential(
        Recurrent(cell, return_sequences=not last),
        Dense(features, classes, rng=np.random.default_rng([seed, 2])),
    )


def elman_count(channels: int, features: int, classes: int) -> int:
    """Parameters of an Elman network and its dense layer."""
    return features * (channels + features + 1) + classes * (features + 1)


def every_step() -> Objective:
    """Cross-entropy of logits (T, N, classes) and labels (T, N): the mean over all steps of all sequences."""

    def forward(logits: Array, labels: Array) -> tuple[Array, Any]:
        loss, saved = cross_entropy_forward(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
        return loss, (saved, logits.shape)

    def backward(dloss: float, saved: Any) -> Array:
        flat, shape = saved
        return cross_entropy_backward(dloss, flat).reshape(shape)

    return loss_of(forward, backward)


def race(
    model: Any,
    objective: Objective,
    batch: Callable[[int], Any],
    test: Callable[[Any], Look],
    *,
    size: int,
    limit: int,
    every: int,
    lr: Callable[[int], float] | float,
    seed: int,
    name: str,
    clip_norm: float = 1.0,
    progress: bool = True,
) -> Race:
    """Train a model in place with Adam until it is solved.

    Args:
        model, objective: as `learn.fit`.
        batch: step -> data of `size` sequences.
        test: model -> a `Look` on held-out sequences, made after every `every` sequences.
        limit: sequences after which to give up, a multiple of `every`.
        lr: learning rate, or step -> learning rate. seed: kept in the result. clip_norm: of the gradient.
        name: of the contestant, on the progress bar. progress: show it.
    """
    from tqdm import tqdm

    optimizer, curve = Adam(1e-3 if callable(lr) else lr), [(0, test(model).score)]
    milder: int | None = None
    with tqdm(
        total=limit, desc=f"{name}, seed {seed}", unit=" sequences", disable=not progress, leave=False
    ) as bar:
        for seen in range(0, limit, every):
            train(
                model,
                *objective,
                lambda step, begin=seen // size: batch(begin + step),  # type: ignore[misc]
                steps=every // size,
                optimizer=optimizer,
                schedule=(lambda step, begin=seen // size: lr(begin + step)) if callable(lr) else None,  # type: ignore[misc]
                clip_norm=clip_norm,
                progress=False,
            )
            found = test(model)
            curve.append((seen + every, found.score))
            bar.update(every)
            bar.set_postfix(score=f"{found.score:.3f}", refresh=False)
            if found.milder and milder is None:
                milder = seen + every
            if found.solved:
                return Race(seed, model, seen + every, milder, curve)
    return Race(seed, model, None, milder, curve)


def mean_sequences(races: Sequence[Race], limit: int) -> float:
    """The mean number of sequences until solved, an unsolved race counting as `limit`."""
    return float(np.mean([each.sequences(limit) for each in races]))


def tally(races: Sequence[Race], *, milder: bool = False) -> str:
    """How many seeds met the criterion, or the milder one, and after how many sequences each."""
    counts = {each.seed: each.milder if milder else each.solved for each in races}
    met = [count for count in counts.values() if count is not None]
    parts = ", ".join(f"{seed}: {count or 'no'}" for seed, count in counts.items())
    mean = f", mean {np.mean(met):.0f}" if met else ""
    return f"{len(met)} of {len(races)} seeds{mean} (seed: sequences; {parts})"


def draw_curves(
    axis: Any,
    contestants: Mapping[str, Sequence[Race]],
    *,
    title: str,
    score: str,
    published: float | None = None,
) -> None:
    """Every race's score against the sequences seen; a dot where it was solved, a line at the published count."""
    for (name, races), color in zip(contestants.items(), ("#1f6fb4", "#c46a1b"), strict=True):
        for k, each in enumerate(races):
            xs, ys = zip(*each.curve, strict=True)
            axis.plot(xs, ys, color=color, lw=1, alpha=0.6, label=None if k else name)
            if each.solved is not None:
                axis.plot(xs[-1], ys[-1], "o", color=color, ms=5)
    if published is not None:
        axis.axvline(published, color="0.3", ls="--", lw=1, label=f"published: {published:,.0f}")
    axis.set_title(title, loc="left", pad=24)  # the legend stands between it and the axes
    axis.set_xlabel("training sequences")
    axis.set_ylabel(score)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, fontsize=9)
