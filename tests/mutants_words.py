"""Mistakes in what the tasks are made of: the captioner, searches, filters, classic models of sequences."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_captioner
from .killers import gradient, test
from .mutation import Mutant

ATTEND, BACK = "models.additive:additive_attention_forward", "models.additive:additive_attention_backward"
LOOPS, MASKED = test(test_captioner.test_attention_equals_loops), gradient("additive_attention/masked")
DECODER, PLAIN = "models.captioner:CaptionDecoder", test(test_captioner.test_the_decoder_equals_plain_loops)
MODEL = gradient("model/caption decoder, lengths")
BEAM = "models.decoding:beam_search"
WIDER = test(test_captioner.test_a_wider_beam_is_not_less_likely_on_these_clips)
ONE = test(test_captioner.test_a_beam_of_one_is_greedy, 0, backend="numpy")
SCORE = test(test_captioner.test_the_log_probability_is_that_of_the_sentence)
CAPTIONER = [
    Mutant("query not added to the keys", ATTEND, "xp.tanh(keys + query)", "xp.tanh(keys)", LOOPS),
    Mutant("frames after the end attended to", ATTEND, "p = xp.where(mask, xp.exp(xp.where(mask, e - peak, 0)), 0)", "p = xp.exp(e - peak)", LOOPS),
    Mutant("weights normalised over clips", ATTEND, "a = p / p.sum(axis=0)", "a = p / p.sum(axis=1, keepdims=True)", LOOPS),
    Mutant("peak not subtracted", ATTEND, "e - peak", "e", test(test_captioner.test_large_scores_do_not_overflow)),
    Mutant("keys mixed instead of values", ATTEND, "(a[..., None] * values)", "(a[..., None] * keys[..., :values.shape[2]])", LOOPS),
    Mutant("softmax's sum left out", BACK, "(da - (a * da).sum(axis=0))", "da", MASKED),
    Mutant("derivative of tanh left out", BACK, " * (1 - s * s)", "", MASKED),
    Mutant("query learns from the first frame", BACK, "dkeys.sum(axis=0)", "dkeys[0]", MASKED),
    Mutant("values' gradient evenly spread", BACK, "a[..., None] * dcontext", "a.mean(axis=0)[:, None] * dcontext + 0 * a[..., None]", MASKED),
    Mutant("mean over all frames, the clip's or not", f"{DECODER}.look", "(mask / mask.sum(axis=0))", "((mask + 1.0) / (mask + 1.0).sum(axis=0))", PLAIN),
    Mutant("query from the state after the step", f"{DECODER}.word", 'parts["query"].forward(state.h)', 'parts["query"].forward(parts["cell"].step(z + 0, state)[0].h)', PLAIN),
    Mutant("context not shown to the cell", f"{DECODER}.word", "z + seen", "z + 0 * seen", PLAIN),
    Mutant("h and context exchanged in the head", f"{DECODER}.forward", "[state.h, context]", "[context, state.h]", PLAIN),
    Mutant("context's gradient from the head dropped", f"{DECODER}.backward", "dout[:, H:] + back(", "back(", MODEL),
    Mutant("context's gradient from the cell dropped", f"{DECODER}.backward", 'dout[:, H:] + back("context", dz, word.context)', 'dout[:, H:] + 0 * back("context", dz, word.context)', MODEL),
    Mutant("query's path to h dropped", f"{DECODER}.backward", 'dh = dh + back("query"', '_ = dh + back("query"', MODEL),
    Mutant("h of the head dropped", f"{DECODER}.backward", "dh + dout[:, :H]", "dh", MODEL),
    Mutant("start's tanh not differentiated", f"{DECODER}.backward", "dh * (1 - saved.h_0 * saved.h_0)", "dh", MODEL),
    Mutant("mean's gradient to every frame alike", f"{DECODER}.backward", "saved.share * dmean", "dmean / len(saved.share)", MODEL),
    Mutant("keys' gradient of the first word alone", f"{DECODER}.backward", "dkeys, dvalues = dkeys + dk, dvalues + dv", "dkeys, dvalues = dk, dvalues + dv", MODEL),
    Mutant("words in reverse for the embedding", f"{DECODER}.backward", "dzs.insert(0, dz)", "dzs.append(dz)", MODEL),
    Mutant("loss predicts the word just read", "models.captioner:caption_loss_forward", "words[1:].reshape(-1)", "words[:-1].reshape(-1)", test(test_captioner.test_the_loss_is_the_mean_over_the_words_of_the_sentences)),
    Mutant("a word too many counts", "models.captioner:caption_loss_forward", "xp.arange(1, L + 1)", "xp.arange(L)", test(test_captioner.test_the_loss_is_the_mean_over_the_words_of_the_sentences)),
    Mutant("beginnings of a beam counted twice", BEAM, "total[:, 1:] = -xp.inf", "pass", WIDER),
    Mutant("state not handed on to the best", BEAM, "state = map_arrays(lambda a, rows=parent: a[rows], state)", "pass", SCORE),
    Mutant("words before not handed on", BEAM, "[w[parent] for w in words] + [last]", "words + [last]", SCORE),
    Mutant("worst beginnings kept", BEAM, "argsort(-scores", "argsort(scores", ONE),
    Mutant("parents of the wrong clip", BEAM, "width * xp.arange(N)[:, None]", "0 * xp.arange(N)[:, None]", SCORE),
    Mutant("a sentence pays after its end", "models.decoding:ended", "xp.where(done[:, None], after, log_p)", "log_p", SCORE),
]  # fmt: skip

TASKS: dict[str, list[Mutant]] = {"The captioner": CAPTIONER}
