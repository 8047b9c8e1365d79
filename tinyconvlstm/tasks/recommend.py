"""What will they watch next? An embedding and an LSTM beside the most frequent successor.

Six series of five episodes. A viewer follows two of them, each in order and from the beginning again after
the end: a habit of one or two episodes of the first, then one or two of the second, and so on. One time in
twenty they watch anything. What comes next depends on the other series' last episode and on the habit, which
the present item does not tell; an LSTM can remember both. First-order Markov knows the successor of an item,
the likeliest of all viewers; second-order that of the last two items.

No split has a history that begins like one of another: a rule on both first episodes and the habit decides
to which split a viewer belongs. Beside the test split there are viewers who follow two series that nobody in
training watched together, which is much harder.

Goal: hit rate of the first suggestion above first-order Markov (and second-order is measured too).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import LSTMCell
from ..layers import Dense, Embedding, Layer, Recurrent, Sequential, TimeDistributed
from .learn import fit
from .outcome import Outcome
from .steps import per_step

SERIES, EPISODES, LONG = 6, 5, 24  # items are numbered series by series; items of a history
ITEMS = SERIES * EPISODES
WHIM = 0.05  # how often anything is watched
SPLITS = ("train", "validation", "test", "pairs")
KEPT_OUT = ({0, 1}, {2, 3}, {4, 5})  # pairs of series in the split "pairs" only


def of_split(episode: Array, habit: Array, new: bool) -> str:
    """The split of a viewer from both first episodes, the habit, and whether the pair of series is kept out."""
    rest = int(episode @ (1, 2) + habit @ (3, 1)) % 5
    return "pairs" if new else {0: "test", 1: "validation"}.get(rest, "train")


def histories(split: str, index: int, size: int, *, seed: int = 0, whim: float = WHIM) -> Array:
    """Batch `index` of a split: ids (LONG, N)."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    ids = np.zeros((LONG, size), np.int64)
    for n in range(size):
        while True:
            both = rng.permutation(SERIES)[:2]
            episode, habit = rng.integers(0, EPISODES, 2), rng.integers(1, 3, 2)
            new = set(both.tolist()) in KEPT_OUT
            if of_split(episode, habit, new) == split:
                break
        who, left = 0, habit[0]
        for t in range(LONG):
            if left == 0:
                who, left = 1 - who, habit[1 - who]
            ids[t, n] = both[who] * EPISODES + episode[who]
            episode[who] = (episode[who] + 1) % EPISODES
            left -= 1
    anything = rng.random(ids.shape) < whim
    return np.where(anything, rng.integers(0, ITEMS, ids.shape), ids)


def build(seed: int = 0) -> Layer:
    """Ids (T, N) to logits of the next item (T, N, ITEMS)."""
    rng = np.random.default_rng(seed)
    head = TimeDistributed(Dense(64, ITEMS, rng=rng))
    return Sequential(Embedding(ITEMS, 24, rng=rng), Recurrent(LSTMCell(24, 64, rng=rng)), head)


def markov(ids: Array, order: int) -> Array:
    """Counts (ITEMS,) * order + (ITEMS,) of what follows the last `order` items."""
    counts = np.zeros((ITEMS,) * (order + 1))
    np.add.at(counts, tuple(ids[k : len(ids) - order + k].ravel() for k in range(order + 1)), 1)
    return counts


def hits(scores: Array, truth: Array, best: int = 1) -> Array:
    """Whether each true item (...) is among the `best` of its scores (..., ITEMS)."""
    first = np.argsort(-scores, axis=-1, kind="stable")[..., :best]
    found: Array = (first == truth[..., None]).any(axis=-1)
    return found


def run(*, seed: int = 0, quick: bool = False, progress: bool = True) -> Outcome:
    """Train on histories, and suggest the next item of new viewers at every place of theirs."""
    model, steps, size = build(seed), 4 if quick else 900, 32

    def batch(step: int) -> tuple[Array, Array]:
        ids = histories("train", step, size, seed=seed)
        return ids[:-1], ids[1:]

    fit(model, per_step(), batch, steps=steps, lr=1e-2, seed=seed, progress=progress)
    seen = np.concatenate([histories("train", k, size, seed=seed) for k in range(steps)], axis=1)
    test = histories("test", 0, 30 if quick else 500, seed=seed)
    before, truth = test[:-1], test[1:]
    first, second = markov(seen, 1), markov(seen, 2)
    two = np.concatenate([first[before[:1]], second[before[:-1], before[1:]]])  # at first only one is known
    suggestions = {
        "LSTM": model(before),
        "most frequent successor": first[before],
        "successor of the last two": two,
        "most watched": np.broadcast_to(first.sum(axis=1), (*truth.shape, ITEMS)),
    }
    found = {name: hits(s, truth) for name, s in suggestions.items()}
    late = slice(LONG // 2, None)
    scores = {name: float(h[late].mean()) for name, h in found.items()}
    pairs = histories("pairs", 0, 30 if quick else 500, seed=seed)
    both = {"LSTM": model(pairs[:-1]), "successor": first[pairs[:-1]]}
    unknown = ", ".join(f"{n} {hits(s, pairs[1:])[late].mean():.3f}" for n, s in both.items())
    ceiling = 1 - WHIM * (ITEMS - 1) / ITEMS
    return Outcome(
        task="recommend",
        measure=f"share of next items suggested first, second half of {truth.shape[1]} new histories",
        scores=scores,
        goal="LSTM above the most frequent successor",
        reached=scores["LSTM"] > scores["most frequent successor"],
        figure=lambda: draw(test, suggestions, found, ceiling),
        facts={
            "among three": ", ".join(
                f"{n} {hits(s, truth, 3)[late].mean():.3f}" for n, s in suggestions.items()
            ),
            "two series never seen together": unknown,
            "nobody can exceed": f"{ceiling:.3f}, for the whims",
        },
    )


def draw(test: Array, suggestions: dict[str, Array], found: dict[str, Array], ceiling: float) -> Any:
    """A history with what is suggested, and the hit rate along histories."""
    from matplotlib.figure import Figure

    colours = ("#0072b2", "#d55e00", "#009e73", "#999999")
    figure: Any = Figure(figsize=(12, 7.6), facecolor="white", layout="constrained")
    figure.suptitle(
        "What will they watch next? Two series in turn, and each suggestion before it is watched", fontsize=14
    )
    upper, lower = figure.subplots(2, 1, height_ratios=(1.2, 1))
    t = np.arange(LONG)
    upper.plot(t + 1, test[:, 0], "s", color="0.75", ms=15, label="watched")
    for (name, s), colour, mark, size in zip(suggestions.items(), colours[:2], "ox", (7, 8), strict=False):
        upper.plot(
            t[1:] + 1, s[:, 0].argmax(axis=-1), mark, color=colour, ms=size, mew=2, label=f"{name} suggests"
        )
    for k in range(1, SERIES):
        upper.axhline(k * EPISODES - 0.5, color="0.85", lw=1)
    upper.set_yticks(
        np.arange(SERIES) * EPISODES + (EPISODES - 1) / 2, [f"series {chr(65 + k)}" for k in range(SERIES)]
    )
    upper.set(xlabel="item of the history", xlim=(0.3, LONG + 0.7), ylim=(-1, ITEMS), xticks=t[::2] + 1)
    upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    for (name, h), colour in zip(found.items(), colours, strict=True):
        lower.plot(t[1:] + 1, h.mean(axis=1), "o-", color=colour, label=name)
    lower.axhline(ceiling, color="0.4", ls=":", label="limit set by whims")
    lower.set(
        xlabel="item of the history", ylabel="share suggested right", ylim=(0, 1.02), xlim=(0.3, LONG + 0.7)
    )
    lower.set_xticks(t[::2] + 1)
    lower.grid(alpha=0.3)
    lower.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
