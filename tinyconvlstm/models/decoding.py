"""How a decoder writes: greedily, or with a beam of the best beginnings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, map_arrays
from .captioner import CaptionDecoder


class Written(NamedTuple):
    """Sentences for a batch of clips."""

    words: Array  # (L, N) ids; all after the end word is the end word again
    log_p: Array  # (N,) log-probability of the sentence, its end included
    attention: Array  # (L, T, N) weights of the frames when word l was written


def greedy(
    decoder: CaptionDecoder,
    values: Array,
    *,
    begin: int,
    end: int,
    longest: int,
    lengths: Array | None = None,
) -> Written:
    """The likeliest word, then the likeliest after it, and so on to the end word.

    Args:
        decoder: the decoder.
        values: features of the frames (T, N, D). lengths: (N,) frames of each clip.
        begin, end: ids of the words that begin and end a sentence; `begin` is not written.
        longest: words at most, the end word included.
    """
    xp = array_module(values)
    clip, state, _ = decoder.look(values, lengths)
    last = xp.full(values.shape[1], begin, dtype=np.int64)
    done = xp.zeros(values.shape[1], dtype=bool)
    total, words, weights = xp.zeros(values.shape[1], dtype=values.dtype), [], []
    for _ in range(longest):
        log_p, state, a = decoder.next(last, state, clip)
        log_p = ended(log_p, done, end)
        last = log_p.argmax(axis=1)
        total = total + log_p.max(axis=1)
        done = done | (last == end)
        words.append(last)
        weights.append(a)
    return Written(xp.stack(words), total, xp.stack(weights))


def beam_search(
    decoder: CaptionDecoder,
    values: Array,
    *,
    width: int,
    begin: int,
    end: int,
    longest: int,
    lengths: Array | None = None,
) -> Written:
    """Keep the `width` likeliest beginnings, lengthen each by every word, and keep the likeliest again.

    With width 1 this is `greedy`; with V ** (longest - 1) it is an exhaustive search. In between, a wider
    beam mostly finds likelier sentences, which is no theorem.

    Args:
        width: beginnings kept, from 1. The others as `greedy`.
    Returns:
        The best sentence of every clip's beam.
    Raises:
        ValueError: width or longest below 1.
    Source: Graves 2012, arXiv 1211.3711, section 2.5; Sutskever et al. 2014, arXiv 1409.3215, section 3.2.
    """
    if width < 1 or longest < 1:
        raise ValueError(f"width is {width} and longest {longest}, expected at least 1")
    xp = array_module(values)
    N = values.shape[1]
    clip, state, _ = decoder.look(values, lengths)
    each = xp.repeat(xp.arange(N), width)  # row n * width + k is beginning k of clip n
    clip, state = map_arrays(lambda a: a[:, each], clip), map_arrays(lambda a: a[each], state)
    total = xp.zeros((N, width), dtype=values.dtype)
    total[:, 1:] = -xp.inf  # at first all beginnings are the same, and one is enough
    done, last = xp.zeros(N * width, dtype=bool), xp.full(N * width, begin, dtype=np.int64)
    words: list[Array] = []
    weights: list[Array] = []
    for _ in range(longest):
        log_p, state, a = decoder.next(last, state, clip)
        log_p = ended(log_p, done, end)
        V = log_p.shape[1]
        scores = (total[..., None] + log_p.reshape(N, width, V)).reshape(N, width * V)
        best = xp.argsort(-scores, axis=1, kind="stable")[:, :width]
        total = xp.take_along_axis(scores, best, axis=1)
        parent = (best // V + width * xp.arange(N)[:, None]).reshape(-1)
        last = (best % V).reshape(-1)
        done = done[parent] | (last == end)
        state = map_arrays(lambda a, rows=parent: a[rows], state)
        words = [w[parent] for w in words] + [last]
        weights = [w[:, parent] for w in weights] + [a[:, parent]]
    first = width * xp.arange(N)  # the beam is sorted
    return Written(xp.stack(words)[:, first], total[:, 0], xp.stack(weights)[:, :, first])


def ended(log_p: Array, done: Array, end: int) -> Array:
    """log_p, but a sentence that is done goes on with the end word, surely and for nothing."""
    xp = array_module(log_p)
    after = xp.where(xp.arange(log_p.shape[1]) == end, 0, -xp.inf).astype(log_p.dtype)
    return xp.where(done[:, None], after, log_p)


def sentence(words: Any, vocabulary: tuple[str, ...], end: int) -> str:
    """The words of one column up to the end word, as text."""
    ids = [int(w) for w in words]
    return " ".join(vocabulary[w] for w in (ids[: ids.index(end)] if end in ids else ids))
