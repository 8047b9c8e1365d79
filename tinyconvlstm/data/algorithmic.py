"""Sequences that need a memory, made by a rule: embedded Reber strings, adding, temporal order, copying.

Every generator draws from the NumPy Generator it is given, `count` sequences at once, time first. Labels follow
from the rule, so they are exact.

Sources: Hochreiter & Schmidhuber 1997, "Long short-term memory", Neural Computation 9(8), sections 5.1 (Reber),
5.4 (adding) and 5.6 (temporal order); copying: Arjovsky, Shah, Bengio 2016, arXiv 1511.06464, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np

from ..backend import Array

REBER = "BTPSXVE"  # the grammar's symbols; their places are the channels

INNER: dict[int, dict[str, int]] = {  # state -> symbol -> next state; from 0 to 7
    0: {"B": 1},
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
    6: {"E": 7},
}

ORDER = "EBabcdXY"  # temporal order: begin, end, four distractors, and the two that count
BLANK, GO = 8, 9  # copying: symbols 0 to 7 are to be copied


class ReberBatch(NamedTuple):
    """Strings as numbers; beyond a string's end everything is 0 or False."""

    xs: Array  # (T, N, 7), one-hot: all symbols but the last
    following: Array  # (T, N) ints, the symbol that came next
    legal: Array  # (T, N, 7) bool, the symbols that could have come next
    lengths: Array  # (N,) steps of each string


def reber_string(rng: np.random.Generator) -> str:
    """One embedded Reber string: B, T or P, an inner string, the same T or P again, E.

    The inner string walks through INNER, each branch with probability 1/2. Between the two outer letters
    lie at least five symbols: the network has to remember the first one past the whole inner string.

    Source: Hochreiter & Schmidhuber 1997, section 5.1, figures 3 and 4.
    """
    outer, inner, state = "TP"[rng.integers(2)], "", 0
    while state in INNER:
        symbol = list(INNER[state])[rng.integers(len(INNER[state]))]
        inner, state = inner + symbol, INNER[state][symbol]
    return f"B{outer}{inner}{outer}E"


def reber_legal(string: str) -> list[str]:
    """After each symbol of an embedded Reber string but the last: the symbols that may follow.

    Raises:
        ValueError: the string is none of the grammar.
    """
    legal, state = ["TP", "B"], 1  # after the outer B; after the outer letter
    for symbol in string[3:-2]:
        legal.append("".join(INNER.get(state, {})))
        state = INNER.get(state, {}).get(symbol, -1)
    legal += [string[1:2], "E"]  # the outer letter again, the outer E
    allowed = zip(legal, string[1:], strict=True) if len(legal) == len(string) - 1 else ()
    if state != 7 or string[:1] != "B" or not allowed or not all(s in options for options, s in allowed):
        raise ValueError(f"string is {string!r}, expected an embedded Reber string")
    return legal


def reber_batch(strings: Sequence[str], dtype: type = np.float32) -> ReberBatch:
    """Embedded Reber strings as a batch for a predictor of the next symbol.

    Args:
        strings: N of them.
        dtype: of xs.
    """
    steps, count = max(map(len, strings)) - 1, len(strings)
    xs: Array = np.zeros((steps, count, len(REBER)), dtype)
    legal = np.zeros(xs.shape, bool)
    following = np.zeros((steps, count), np.int64)
    for n, string in enumerate(strings):
        at = [REBER.index(symbol) for symbol in string]
        xs[range(len(string) - 1), n, at[:-1]] = 1
        following[: len(string) - 1, n] = at[1:]
        for t, options in enumerate(reber_legal(string)):
            legal[t, n, [REBER.index(symbol) for symbol in options]] = True
    return ReberBatch(xs, following, legal, np.array([len(string) - 1 for string in strings]))


def adding(rng: np.random.Generator, count: int, *, length: int = 100) -> tuple[Array, Array]:
    """A row of numbers, two of which are marked: what is their sum?

    Channel 0 is uniform in [-1, 1); channel 1 is 1 at one step of the first half and one of the second, else 0.
    An answer of 0 has a mean squared error of 2/3, the second number alone of 1/3.

    Args:
        rng: where the numbers come from. count: N. length: T, at least 2.
    Returns:
        xs (T, N, 2) and the sums (N, 1), float32.
    Source: Hochreiter & Schmidhuber 1997, section 5.4, with the range and the markers of Le, Jaitly, Hinton 2015,
        arXiv 1504.00941, section 4.1, and numbers of both signs.
    """
    if length < 2:
        raise ValueError(f"length is {length}, expected at least 2 steps")
    xs = np.zeros((length, count, 2), np.float32)
    xs[..., 0] = rng.uniform(-1, 1, (length, count))
    marked = np.stack([rng.integers(length // 2, size=count), rng.integers(length // 2, length, size=count)])
    n = np.arange(count)
    xs[marked, n, 1] = 1
    return xs, xs[marked, n, 0].sum(axis=0)[:, None]


class OrderBatch(NamedTuple):
    """Temporal order; beyond a sequence's end xs is 0."""

    xs: Array  # (T, N, 8), one-hot in ORDER
    labels: Array  # (N,) ints: XX 0, XY 1, YX 2, YY 3
    lengths: Array  # (N,) steps of each sequence


def temporal_order(
    rng: np.random.Generator,
    count: int,
    *,
    length: tuple[int, int] = (100, 110),
    first: tuple[int, int] = (10, 20),
    second: tuple[int, int] = (50, 60),
) -> OrderBatch:
    """E, distractors among which two letters X or Y stand, B: which two were it, in which order?

    Args:
        rng: where the symbols come from. count: N.
        length: shortest and longest sequence. first, second: where the two letters may stand, both ends included.
    Raises:
        ValueError: the places overlap, or leave no room for E and B.
    Source: Hochreiter & Schmidhuber 1997, section 5.6, task 6a, whose ranges are the defaults.
    """
    if not 0 < first[0] <= first[1] < second[0] <= second[1] < length[0] - 1 < length[1]:
        raise ValueError(
            f"first is {first}, second {second}, length {length}, expected growing places inside the shortest sequence"
        )
    lengths = rng.integers(length[0], length[1] + 1, size=count)
    n, steps = np.arange(count), np.arange(length[1])[:, None]
    symbols = rng.integers(ORDER.index("a"), ORDER.index("d") + 1, size=(length[1], count))
    letters = rng.integers(2, size=(2, count))  # 0 is X, 1 is Y
    for letter, (low, high) in zip(letters, (first, second), strict=True):
        symbols[rng.integers(low, high + 1, size=count), n] = ORDER.index("X") + letter
    symbols[0], symbols[lengths - 1, n] = ORDER.index("E"), ORDER.index("B")
    xs = (symbols[..., None] == np.arange(len(ORDER))) & (steps < lengths)[..., None]
    return OrderBatch(xs.astype(np.float32), 2 * letters[0] + letters[1], lengths)


def copying(
    rng: np.random.Generator, count: int, *, delay: int = 100, letters: int = 10
) -> tuple[Array, Array]:
    """Letters, a long blank, a signal: say the letters again.

        input      s s s ... s  - - - ... -  !  - - - ... -      letters, delay - 1 blanks, GO, letters blanks
        output     - - - ... - - - - - - - - -  s s s ... s      letters + delay blanks, then the letters

    Args:
        rng: where the letters come from. count: N.
        delay: T, from the last letter to the first answer, at least 1. letters: L, drawn evenly from 8.
    Returns:
        xs (T + 2 L, N, 10) one-hot, and the labels (T + 2 L, N), ints.
    Source: Arjovsky, Shah, Bengio 2016, section 4.1, where L is 10.
    """
    if delay < 1 or letters < 1:
        raise ValueError(f"delay is {delay} and letters {letters}, expected both at least 1")
    said = rng.integers(BLANK, size=(letters, count))
    symbols = np.full((delay + 2 * letters, count), BLANK)
    labels = symbols.copy()
    symbols[:letters], symbols[letters + delay - 1], labels[letters + delay :] = said, GO, said
    return (symbols[..., None] == np.arange(10)).astype(np.float32), labels


def copying_without_memory(delay: int, letters: int = 10) -> float:
    """Nats per step of the best answer without a memory: letters * log 8 / (delay + 2 letters).

    It says blank while it has to, surely, and then each of the 8 letters with probability 1/8.

    Source: Arjovsky, Shah, Bengio 2016, section 4.1.
    """
    return letters * log(BLANK) / (delay + 2 * letters)
