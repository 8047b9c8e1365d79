"""Copying: ten letters, a blank of a given length, a signal; then the ten letters again, in their order.

Goal: on all 5 seeds a held-out cross-entropy below a tenth of what is possible without a memory, which is
10 log 8 / (T + 20) nats a step, T the delay. The literature counts no sequences for delays as short as this one, so the
figure to beat is that level.

Baseline: an Elman network with as many parameters, trained and tested on the same sequences; the level.

The LSTM's gates begin with memories as long as the task's (`init.chrono_bias`).

Source: Arjovsky, Shah, Bengio 2016, arXiv 1511.06464, section 4.1; the gates: Tallec & Ollivier 2018, arXiv 1804.11188.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..backend import Array
from ..data.algorithmic import copying, copying_without_memory
from ..init import chrono_bias
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

FRESH = 3  # stream of the sequences that are looked at once, in the end
SEEDS, CELLS, DELAY, LETTERS, SIZE, LIMIT, EVERY, HELD_OUT = 5, 64, 30, 10, 32, 224_000, 3200, 500
LR = {"LSTM": 0.01, "RNN": 0.001}
SHARE = 0.1  # of the level without a memory: below it a race is solved
LEVEL = copying_without_memory(DELAY, LETTERS)


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train an LSTM and an Elman network on 5 seeds, or one quick one; see the module."""
    limit, every = (10 * SIZE, 5 * SIZE) if quick else (LIMIT, EVERY)
    seeds = seeds_of(seed, 1 if quick else SEEDS)
    races = {name: [raced(name, each, limit, every, progress) for each in seeds] for name in LR}
    return judged(races, limit)


def raced(name: str, seed: int, limit: int, every: int, progress: bool) -> Race:
    """The training of one contestant on one seed."""
    return race(
        contestant(name, seed),
        every_step(),
        partial(training, seed),
        partial(look, test=held_out(seed)),
        size=SIZE,
        limit=limit,
        every=every,
        lr=LR[name],
        seed=seed,
        name=name,
        progress=progress,
    )


def judged(races: dict[str, list[Race]], limit: int) -> Outcome:
    """What all trainings together show."""
    tests = {each.seed: held_out(each.seed, FRESH) for each in races["LSTM"]}
    last = {
        name: [LEVEL * look(each.model, tests[each.seed]).score for each in found]
        for name, found in races.items()
    }
    rights = {
        name: np.mean([letters_right(each.model, tests[each.seed]) for each in found])
        for name, found in races.items()
    }
    return Outcome(
        "copy",
        f"nats per step on {HELD_OUT} fresh sequences of {DELAY + 2 * LETTERS} steps, mean of the seeds",
        {
            f"LSTM, {CELLS} cells": float(np.mean(last["LSTM"])),
            "Elman network, equal parameters": float(np.mean(last["RNN"])),
            f"without a memory, {LETTERS} log 8 / {DELAY + 2 * LETTERS}": LEVEL,
        },
        f"below {SHARE * LEVEL:.4f}, a tenth of the level without a memory, on the watched sequences of every seed",
        all(each.solved for each in races["LSTM"]),
        lambda: picture(races, tests[races["LSTM"][0].seed]),
        {
            "LSTM solved": tally(races["LSTM"]),
            "Elman network solved": tally(races["RNN"]),
            "LSTM, nats of each seed": ", ".join(f"{nats:.4f}" for nats in last["LSTM"]),
            "Elman network, nats of each seed": ", ".join(f"{nats:.4f}" for nats in last["RNN"]),
            "letters right": ", ".join(f"{name} {right:.3f}" for name, right in rights.items())
            + ", by chance 0.125",
            "mean sequences": f"LSTM {mean_sequences(races['LSTM'], limit):.0f}; training stops when solved, "
            f"or after {limit}",
            "parameters": ", ".join(f"{name} {found[0].model.count}" for name, found in races.items()),
        },
        precision=4,
    )


def contestant(name: str, seed: int) -> Any:
    """A fresh "LSTM" or "RNN"."""
    model = lstm(10, CELLS, 9, seed=seed, forget_bias=0, last=False)
    model.parts["0"].cell.params["b"] = chrono_bias(np.random.default_rng([seed, 3]), CELLS, DELAY + LETTERS)
    return model if name == "LSTM" else rnn(10, 9, like=model, seed=seed, last=False)


def training(seed: int, step: int) -> tuple[Array, Array]:
    """A batch of sequences, and what to say at each step."""
    return copying(np.random.default_rng([seed, TRAIN, step]), SIZE, delay=DELAY, letters=LETTERS)


def held_out(seed: int, stream: int = TEST) -> tuple[Array, Array]:
    """Sequences that are not trained on."""
    return copying(np.random.default_rng([seed, stream]), HELD_OUT, delay=DELAY, letters=LETTERS)


def look(model: Any, test: tuple[Array, Array]) -> Look:
    """The cross-entropy as a share of the level without a memory."""
    share = float(every_step()[0](model, test, train=False, rng=None)[0]) / LEVEL
    return Look(share, share < SHARE)


def letters_right(model: Any, test: tuple[Array, Array]) -> float:
    """The share of letters said again rightly."""
    xs, labels = test
    return float((model(xs)[-LETTERS:].argmax(axis=2) == labels[-LETTERS:]).mean())


def picture(races: dict[str, list[Race]], test: tuple[Array, Array]) -> Any:
    """Above: cross-entropy along the training; below: input, and the answers of both, along one sequence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    above, *below = figure.subplots(4, 1, height_ratios=[2.2, 1, 1, 1])
    contestants = {"LSTM": races["LSTM"], "Elman network, equal parameters": races["RNN"]}
    draw_curves(
        above,
        contestants,
        title=f"Copying {LETTERS} letters after {DELAY} steps: a line a seed, a dot where solved",
        score="nats, as a share of\nthe memoryless level",
    )
    above.set_yscale("log")
    above.axhline(1, color="0.4", ls=":", lw=1)
    above.axhline(SHARE, color="0.4", ls="--", lw=1)
    above.text(0, 1.04, "without a memory", color="0.4", fontsize=9, va="bottom")
    above.text(0, SHARE * 1.04, "solved", color="0.4", fontsize=9, va="bottom")
    xs, labels = test
    rows = {"input": xs[:, 0].T, **{name: chances(races[name][0].model, xs[:, :1]) for name in races}}
    for axis, (name, row) in zip(below, rows.items(), strict=True):
        axis.imshow(row, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_yticks(range(len(row)), [*"abcdefgh-!"][: len(row)], fontsize=7)
        axis.set_xlim(-0.5, len(xs) - 0.5)
        axis.set_ylabel(name)
        if name != "input":
            axis.plot(range(len(labels)), labels[:, 0], "s", mfc="none", mec="#c46a1b", ms=7)
            axis.set_title(f"{name}: probabilities; framed: what it has to say", loc="left", fontsize=10)
    below[0].set_title("One held-out sequence: letters, blanks (-), the signal (!)", loc="left", fontsize=10)
    below[-1].set_xlabel("step")
    return figure


def chances(model: Any, xs: Array) -> Array:
    """Probabilities (9, T) of what a model says along one sequence."""
    found: Array = softmax_forward(model(xs)[:, 0], axis=1)[0].T
    return found
