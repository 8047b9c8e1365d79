"""The embedded Reber grammar: say which symbols may come next, the last but one from a choice made long before.

Goal: all 10 seeds solved, in no more sequences on average than the 4800 that a NumPy implementation of the same
size reports (10 of 10 seeds, 8 cells, one string at a time), and than the 8440 of Hochreiter & Schmidhuber 1997.

Solved, as in the paper: at every step of all 256 held-out strings, every symbol that may come next is more active
than every symbol that may not. It is harder than the criterion of the 4800 (the most active symbol may come next at
99.9 % of the steps, and is the right one of T and P at the last choice of every string), which is reported beside it.

Baseline: an Elman network with as many parameters, trained and tested on the same strings.

Sources: Hochreiter & Schmidhuber 1997, section 5.1 and table 1; github.com/npow/schmidhuber-problems, embedded-reber.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..backend import Array
from ..data.algorithmic import REBER, ReberBatch, reber_batch, reber_string
from ..ops.activations import softmax_forward
from .outcome import Outcome
from .race import (
    TEST,
    TRAIN,
    Look,
    Race,
    draw_curves,
    every_step,
    lstm,
    mean_sequences,
    race,
    rnn,
    seeds_of,
    tally,
)

SEEDS, CELLS, LIMIT, EVERY, HELD_OUT = 10, 8, 12_000, 100, 256
LR = {"LSTM": 0.02, "RNN": 0.005}  # each the best of a few on seeds 10 to 19
FORGET_BIAS = 2.5
CLIP = {"LSTM": 0.3, "RNN": 1.0}  # of the gradient's norm; with 1 the LSTM of seed 15 stays unsolved
PUBLISHED, PAPER = 4800, 8440  # mean sequences


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train an LSTM and an Elman network on 10 seeds, or one quick one; see the module."""
    limit = 2 * EVERY if quick else LIMIT
    seeds = seeds_of(seed, 1 if quick else SEEDS)
    races = {name: [raced(name, each, limit, EVERY, progress) for each in seeds] for name in LR}
    return judged(races, limit)


def raced(name: str, seed: int, limit: int, every: int, progress: bool) -> Race:
    """The training of one contestant on one seed."""
    return race(
        contestant(name, seed),
        every_step(),
        partial(string_of, seed),
        partial(look, test=held_out(seed)),
        size=1,
        limit=limit,
        every=every,
        lr=LR[name],
        seed=seed,
        name=name,
        clip_norm=CLIP[name],
        progress=progress,
    )


def judged(races: dict[str, list[Race]], limit: int) -> Outcome:
    """What all trainings together show."""
    mean = {name: mean_sequences(found, limit) for name, found in races.items()}
    return Outcome(
        "reber",
        f"mean sequences until solved, {limit} where it was not",
        {
            f"LSTM, {CELLS} cells": mean["LSTM"],
            "Elman network, equal parameters": mean["RNN"],
            "published, 8 cells": PUBLISHED,
            "Hochreiter & Schmidhuber 1997": PAPER,
        },
        f"all seeds solved, in at most {PUBLISHED} sequences on average",
        all(each.solved for each in races["LSTM"]) and mean["LSTM"] <= PUBLISHED,
        lambda: picture(races, held_out(races["LSTM"][0].seed)),
        {
            "LSTM": tally(races["LSTM"]),
            "LSTM, milder criterion": tally(races["LSTM"], milder=True),
            "Elman network": tally(races["RNN"]),
            "Elman network, milder criterion": tally(races["RNN"], milder=True),
            "parameters": ", ".join(f"{name} {found[0].model.count}" for name, found in races.items()),
        },
        precision=0,
    )


def contestant(name: str, seed: int) -> Any:
    """A fresh "LSTM" or "RNN"."""
    model = lstm(len(REBER), CELLS, len(REBER), seed=seed, forget_bias=FORGET_BIAS, last=False)
    return model if name == "LSTM" else rnn(len(REBER), len(REBER), like=model, seed=seed, last=False)


def string_of(seed: int, step: int) -> tuple[Array, Array]:
    """One training string: its symbols, and those that follow."""
    batch = reber_batch([reber_string(np.random.default_rng([seed, TRAIN, step]))])
    return batch.xs, batch.following


def held_out(seed: int) -> ReberBatch:
    """The test strings."""
    rng = np.random.default_rng([seed, TEST])
    return reber_batch([reber_string(rng) for _ in range(HELD_OUT)])


def look(model: Any, test: ReberBatch) -> Look:
    """The share of strings right at every step; milder is the criterion of the published 4800."""
    logits = model(test.xs)
    over = ~test.legal.any(axis=2)
    least, most = (
        np.where(test.legal, logits, np.inf).min(axis=2),
        np.where(test.legal, -np.inf, logits).max(axis=2),
    )
    right = ((least > most) | over).all(axis=0)
    best = np.take_along_axis(test.legal, logits.argmax(axis=2)[..., None], axis=2)[..., 0]
    outer = best[test.lengths - 2, np.arange(len(test.lengths))]
    return Look(float(right.mean()), bool(right.all()), bool(best[~over].mean() >= 0.999 and outer.all()))


def picture(races: dict[str, list[Race]], test: ReberBatch) -> Any:
    """Above: how often a whole string was right; below: what the LSTM of the first seed expects along one."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.1, 1])
    contestants = {"LSTM": races["LSTM"], "Elman network, equal parameters": races["RNN"]}
    draw_curves(
        above,
        contestants,
        title="Embedded Reber grammar: every seed's training, a dot where it was solved",
        score="held-out strings right\nat every step (share)",
        published=PUBLISHED,
    )

    n = int(np.argsort(test.lengths, kind="stable")[3 * len(test.lengths) // 4])
    T = int(test.lengths[n])
    expected = softmax_forward(races["LSTM"][0].model(test.xs[:T, n : n + 1])[:, 0], axis=1)[0]
    shown = below.imshow(expected.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for t, k in np.argwhere(test.legal[:T, n]):
        below.add_patch(Rectangle((t - 0.48, k - 0.48), 0.96, 0.96, fill=False, ec="#c46a1b", lw=1.4))
    read = [REBER[k] for k in test.xs[:T, n].argmax(axis=1)]
    below.set_xticks(range(T), read)
    below.set_yticks(range(len(REBER)), list(REBER))
    below.set_xlabel("symbol read, one a step")
    below.set_ylabel("symbol expected next")
    below.set_title("What it expects; framed: what the grammar allows. Last but one: the second symbol again",
                    loc="left")  # fmt: skip
    figure.colorbar(shown, ax=below, label="probability", pad=0.01)
    return figure
