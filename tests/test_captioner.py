"""Additive attention, the caption decoder beside plain loops, and how sentences are searched."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.cells import GRUCell
from tinyconvlstm.layers import Dense, Recurrent, TimeDistributed
from tinyconvlstm.models.additive import additive_attention_forward
from tinyconvlstm.models.captioner import (
    CaptionDecoder,
    Captioner,
    caption_loss_backward,
    caption_loss_forward,
)
from tinyconvlstm.models.decoding import beam_search, greedy, sentence

BEGIN, END = 0, 1


def decoder_of(rng: np.random.Generator, vocabulary: int = 5, scale: float = 1.0) -> CaptionDecoder:
    decoder = CaptionDecoder(vocabulary, 3, 4, attention=2, embedding=2, dtype=np.float64)
    return decoder.bind({n: scale * rng.standard_normal(a.shape) for n, a in decoder.params.items()})


def attend(query, keys, u, values, length):
    """One clip, frame by frame."""
    e = [sum(u[k] * np.tanh(keys[t, k] + query[k]) for k in range(len(u))) for t in range(length)]
    a = np.exp(e) / np.exp(e).sum()
    return sum(a[t] * values[t] for t in range(length)), a


def plain(decoder, v, words, lengths):
    """Logits (L, N, V), clip by clip and gate by gate."""
    p = decoder.params
    sig = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    logits = np.zeros((*words.shape, len(p["head.w"])))
    for n in range(v.shape[1]):
        T = lengths[n]
        h, c = np.tanh(p["start.w"] @ v[:T, n].mean(axis=0) + p["start.b"]), 0
        keys = np.array([p["key.w"] @ v[t, n] + p["key.b"] for t in range(T)])
        for l, word in enumerate(words[:, n]):
            context, _ = attend(p["query.w"] @ h, keys, p["attention.u"], v[:, n], T)
            z = p["cell.w_x"] @ p["embedding.w"][word] + p["cell.b"] + p["cell.w_h"] @ h
            z_i, z_f, z_g, z_o = np.split(z + p["context.w"] @ context, 4)
            c = sig(z_f) * c + sig(z_i) * np.tanh(z_g)
            h = sig(z_o) * np.tanh(c)
            logits[l, n] = p["head.w"] @ np.concatenate([h, context]) + p["head.b"]
    return logits


def test_attention_equals_loops(rng):
    arrays = [rng.standard_normal(s) for s in ((3, 4), (5, 3, 4), (4,), (5, 3, 2))]
    lengths = [2, 5, 1]
    context, saved = additive_attention_forward(*arrays, mask=np.arange(5)[:, None] < np.array(lengths))
    query, keys, u, values = arrays
    for n, T in enumerate(lengths):
        expected, a = attend(query[n], keys[:, n], u, values[:, n], T)
        np.testing.assert_allclose(context[n], expected, rtol=1e-12)
        np.testing.assert_allclose(saved.a[:T, n], a, rtol=1e-12)
        assert (saved.a[T:, n] == 0).all()


def test_frames_after_the_end_are_not_read(rng):
    """Not even where they are huge, infinite in score, or nearly so."""
    query, keys, u, values = (rng.standard_normal(s) for s in ((2, 4), (5, 2, 4), (4,), (5, 2, 3)))
    mask = np.arange(5)[:, None] < np.array([2, 4])
    before, _ = additive_attention_forward(query, keys, u, values, mask=mask)
    keys[~mask], values[~mask] = 1e30, 1e30
    after, _ = additive_attention_forward(query, keys, 1e3 * u / 1e3, values, mask=mask)
    np.testing.assert_allclose(after, before, rtol=1e-13)


def test_large_scores_do_not_overflow():
    query, keys, u = np.zeros((1, 1)), np.array([[[9.0]], [[-9.0]]]), np.array([2000.0])
    context, _ = additive_attention_forward(query, keys, u, np.array([[[3.0]], [[7.0]]]))
    np.testing.assert_allclose(context, [[3.0]])


def test_equal_keys_give_the_mean(rng):
    values = rng.standard_normal((4, 2, 3))
    keys = np.broadcast_to(rng.standard_normal((2, 5)), (4, 2, 5))
    context, _ = additive_attention_forward(rng.standard_normal((2, 5)), keys, rng.random(5), values)
    np.testing.assert_allclose(context, values.mean(axis=0), rtol=1e-12)


def test_wrong_shapes_are_named(rng):
    good = [np.zeros((2, 3)), np.zeros((4, 2, 3)), np.zeros(3), np.zeros((4, 2, 5))]
    additive_attention_forward(*good)
    with pytest.raises(ValueError, match=r"query \(2, 3\), keys \(4, 2, 3\) and u \(2,\)"):
        additive_attention_forward(good[0], good[1], np.zeros(2), good[3])
    with pytest.raises(ValueError, match=r"values.shape is \(3, 2, 5\)"):
        additive_attention_forward(*good[:3], np.zeros((3, 2, 5)))
    with pytest.raises(ValueError, match="a True for every clip"):
        additive_attention_forward(*good, mask=np.zeros((4, 2), bool))
    with pytest.raises(TypeError):
        additive_attention_forward(*good[:3], np.zeros((4, 2, 5), np.float32))


def test_the_decoder_equals_plain_loops(rng):
    decoder, v, lengths = decoder_of(rng), rng.standard_normal((4, 3, 3)), np.array([2, 4, 3])
    words = rng.integers(0, 5, (6, 3))
    logits, _ = decoder.forward(v, words, lengths=lengths)
    np.testing.assert_allclose(logits, plain(decoder, v, words, lengths), rtol=1e-11, atol=1e-12)


def test_writing_word_by_word_gives_the_same_probabilities(rng, backend):
    """`next`, one word at a time, beside `forward` with all words known."""
    decoder, v, words = decoder_of(rng), rng.standard_normal((4, 3, 3)), rng.integers(0, 5, (6, 3))
    lengths = np.array([2, 4, 3])
    logits = decoder.forward(v, words, lengths=lengths)[0]
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    there = decoder.to_backend(backend)
    v, words, lengths = to_backend((v, words, lengths), backend)
    clip, state, _ = there.look(v, lengths)
    for l in range(len(words)):
        found, state, a = there.next(words[l], state, clip)
        np.testing.assert_allclose(to_numpy(found), log_p[l], rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(to_numpy(a).sum(axis=0), 1)


def captioner(rng):
    model = Captioner(
        TimeDistributed(Dense(2, 4, dtype=np.float64)),
        Recurrent(GRUCell(4, 3, dtype=np.float64)),
        CaptionDecoder(5, 3, 4, attention=2, embedding=2, dtype=np.float64),
    )
    return model.bind({n: rng.standard_normal(a.shape) for n, a in model.params.items()})


def data_of(rng):
    words, counts = rng.integers(2, 5, (6, 3)), np.array([6, 3, 4])
    return rng.standard_normal((4, 3, 2)), np.array([2, 4, 3]), words, counts


def test_the_loss_is_the_mean_over_the_words_of_the_sentences(rng):
    model, data = captioner(rng), data_of(rng)
    x, lengths, words, counts = data
    loss, _ = caption_loss_forward(model, data)
    logits = model.forward(x, words[:-1], lengths=lengths)[0]
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    said = [-log_p[l, n, words[l + 1, n]] for n in range(3) for l in range(counts[n] - 1)]
    np.testing.assert_allclose(loss, np.mean(said), rtol=1e-12)


def test_words_after_the_end_do_not_count(rng):
    model, (x, lengths, words, counts) = captioner(rng), data_of(rng)
    results = []
    for other in (2, 4):
        filled = np.where(np.arange(6)[:, None] < counts, words, other)
        loss, saved = caption_loss_forward(model, (x, lengths, filled, counts))
        results.append((loss, caption_loss_backward(model, saved)))
    (a, da), (b, db) = results
    assert a == b
    assert da.keys() == model.params.keys()
    for name, g in da.items():
        np.testing.assert_allclose(g, db[name], rtol=1e-12, atol=1e-15)


def test_the_gradient_of_the_loss(rng):
    model, data = captioner(rng), data_of(rng)
    grads = caption_loss_backward(model, caption_loss_forward(model, data)[1])
    step = {n: rng.standard_normal(a.shape) for n, a in model.params.items()}

    def at(e):
        return caption_loss_forward(model.bind({n: a + e * step[n] for n, a in model.params.items()}), data)[
            0
        ]

    slope = sum((grads[n] * step[n]).sum() for n in step)
    np.testing.assert_allclose((at(1e-6) - at(-1e-6)) / 2e-6, slope, rtol=1e-7)


# --- searching ---

RULES = {"begin": BEGIN, "end": END}


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed, backend):
    rng = np.random.default_rng(seed)
    decoder, v = decoder_of(rng, 6).to_backend(backend), to_backend(rng.standard_normal((4, 7, 3)), backend)
    lengths = to_backend(rng.integers(1, 5, 7), backend)
    one = beam_search(decoder, v, width=1, longest=5, lengths=lengths, **RULES)
    other = greedy(decoder, v, longest=5, lengths=lengths, **RULES)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def log_probability(decoder, v, words):
    """Of one sentence for one clip, by the forward pass."""
    ids = np.array([BEGIN, *words])[:, None]
    logits = decoder.forward(v, ids[:-1])[0][:, 0]
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return sum(log_p[l, w] for l, w in enumerate(words))


def every_sentence(vocabulary, longest):
    """All that ends with END or is as long as allowed."""
    for length in range(1, longest + 1):
        for words in itertools.product(range(vocabulary), repeat=length):
            if END not in words[:-1] and (words[-1] == END or length == longest):
                yield words


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_enough_beam_is_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    V, longest = 4, 3
    decoder, v = decoder_of(rng, V), rng.standard_normal((4, 3, 3))
    found = beam_search(decoder, v, width=V ** (longest - 1), longest=longest, **RULES)
    for n in range(3):
        scores = {s: log_probability(decoder, v[:, n : n + 1], s) for s in every_sentence(V, longest)}
        np.testing.assert_allclose(np.logaddexp.reduce(list(scores.values())), 0, atol=1e-12)  # all there is
        best = max(scores, key=scores.get)
        words = tuple(found.words[:, n])
        assert (words[: words.index(END) + 1] if END in words else words) == best
        np.testing.assert_allclose(found.log_p[n], scores[best], rtol=1e-11)


def test_a_wider_beam_is_not_less_likely_on_these_clips():
    rng = np.random.default_rng(1)
    decoder, v = decoder_of(rng, 6), rng.standard_normal((4, 30, 3))
    narrow = greedy(decoder, v, longest=5, **RULES).log_p
    likeliest = [beam_search(decoder, v, width=w, longest=5, **RULES).log_p for w in (4, 16, 6**4)]
    assert (likeliest[2] >= narrow - 1e-12).all()  # exhaustive: a theorem
    assert (likeliest[0] >= narrow - 1e-12).all()
    assert (likeliest[1] >= likeliest[0] - 1e-12).all()
    assert (likeliest[0] > narrow + 1e-6).any()


def test_the_log_probability_is_that_of_the_sentence(rng):
    decoder, v = decoder_of(rng, 5), rng.standard_normal((4, 30, 3))
    for found in (
        greedy(decoder, v, longest=4, **RULES),
        beam_search(decoder, v, width=3, longest=4, **RULES),
    ):
        assert found.attention.shape == (4, 4, 30)
        for n in range(30):
            words = list(found.words[:, n])
            if END in words:
                assert set(words[words.index(END) :]) == {END}
                words = words[: words.index(END) + 1]
            score = log_probability(decoder, v[:, n : n + 1], words)
            np.testing.assert_allclose(found.log_p[n], score, rtol=1e-11)


def test_a_beam_needs_a_width(rng):
    for width, longest in ((0, 3), (2, 0)):
        with pytest.raises(ValueError, match=f"width is {width} and longest {longest}"):
            beam_search(decoder_of(rng), np.zeros((2, 1, 3)), width=width, longest=longest, **RULES)


def test_a_sentence_ends_with_its_end():
    words = ("<begin>", "<end>", "a", "ring")
    assert sentence([2, 3, 1, 1], words, END) == "a ring"
    assert sentence([2, 3], words, END) == "a ring"
