"""Mistakes in what the tasks are made of: the captioner, searches, filters, classic models of sequences."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_captioner, test_classic, test_events, test_saliency
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
    Mutant("frames after the end attended to", ATTEND, "mask=mask, axis=0", "mask=None, axis=0", LOOPS),
    Mutant("weights normalised over clips", ATTEND, "mask=mask, axis=0", "mask=mask, axis=1", LOOPS),
    Mutant("keys mixed instead of values", ATTEND, "(a[..., None] * values)", "(a[..., None] * keys[..., :values.shape[2]])", LOOPS),
    Mutant("softmax left out", BACK, "masked_softmax_backward(da, AxisSaved(a, 0))", "a * da", MASKED),
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

DTW, PATHS = "models.classic:dtw", test(test_classic.test_dtw_is_the_least_over_all_paths)
SUM = test(test_classic.test_the_forward_algorithm_sums_over_all_paths)
COUNTS = test(test_classic.test_baum_welch_is_the_weighted_average_over_all_paths)
BAUM = "models.classic:baum_welch_step"
CLASSIC = [
    Mutant("squared distances", DTW, "np.sqrt(((a[:, None, None] - bs) ** 2).sum(axis=-1))", "((a[:, None, None] - bs) ** 2).sum(axis=-1)", PATHS),
    Mutant("no diagonal steps", DTW, "np.minimum(above[1:], above[:-1])", "above[1:]", PATHS),
    Mutant("no steps along one sequence", DTW, "np.minimum(diagonal[j - 1], here[j - 1])", "diagonal[j - 1]", test(test_classic.test_dtw_by_hand)),
    Mutant("first column not summed", DTW, "here[0] = above[0] + row[0]", "here[0] = row[0]", PATHS),
    Mutant("read at the longest one's end", DTW, "above[lengths - 1,", "above[lengths * 0 - 1,", PATHS),
    Mutant("moves transposed", "models.classic:forward_pass", "+ hmm.log_move, axis=1", "+ hmm.log_move.T, axis=1", SUM),
    Mutant("start forgotten", "models.classic:forward_pass", "hmm.log_start + e[0]", "e[0]", SUM),
    Mutant("frames after the end counted", "models.classic:log_likelihood", "alpha[lengths - 1,", "alpha[lengths * 0 - 1,", SUM),
    Mutant("half of the normalisation", "models.classic:emissions", "np.log(2 * np.pi * hmm.var)", "np.log(hmm.var)", SUM),
    Mutant("backward pass goes on after the end", "models.classic:backward_pass", "np.where((t + 1 < lengths)[:, None], before, 0)", "before", COUNTS),
    Mutant("moves into dead frames counted", BAUM, "np.where(alive[1:, :, None, None], np.exp(np.minimum(moves, 0)), 0)", "np.exp(np.minimum(moves, 0))", COUNTS),
    Mutant("moves normalised over where they come from", BAUM, "xi.sum(axis=1, keepdims=True)", "xi.sum(axis=0, keepdims=True)", COUNTS),
    Mutant("variance about zero", BAUM, "(x[:, :, None] - mean) ** 2", "(x[:, :, None] - 0 * mean) ** 2", COUNTS),
    Mutant("emission of the next frame forgotten", BAUM, "(e[1:] + beta[1:])", "beta[1:]", COUNTS),
    Mutant("likelihoods multiplied without logarithms", "models.classic:log_sum", "peak = x.max(axis=axis, keepdims=True)", "peak = np.zeros_like(x.max(axis=axis, keepdims=True))", test(test_classic.test_long_sequences_do_not_underflow)),
]  # fmt: skip

KEPT = test(test_events.test_what_is_kept_does_not_overlap_and_what_is_not_does)
FOUND, F1 = (
    test(test_events.test_a_true_event_is_found_once),
    test(test_events.test_f1_is_the_harmonic_mean_of_precision_and_recall),
)
PROPOSED = test(test_events.test_proposals)
EVENTS = [
    Mutant("frames of both counted twice", "events:temporal_iou", "(b.end - b.begin) - both", "(b.end - b.begin)", test(test_events.test_overlap_counts_frames)),
    Mutant("distance taken for overlap", "events:temporal_iou", "max(0, min(a.end, b.end) - max(a.begin, b.begin))", "min(a.end, b.end) - max(a.begin, b.begin)", test(test_events.test_overlap_counts_frames)),
    Mutant("worst first", "events:suppress", "-e.score", "e.score", KEPT),
    Mutant("compared with the last one kept only", "events:suppress", "for other in kept)", "for other in kept[-1:])", KEPT),
    Mutant("only one event kept", "events:suppress", "<= overlap for", "<= 0 * overlap - 1 for", KEPT),
    Mutant("a true event found twice", "events:matches", "free.remove(max(fitting, key=lambda t: temporal_iou(event, t)))", "max(fitting, key=lambda t: temporal_iou(event, t))", FOUND),
    Mutant("class ignored", "events:matches", "t.kind == event.kind and", "", FOUND),
    Mutant("precision instead of F1", "events:event_f1", "sum(map(len, found)) + sum(map(len, truth))", "2 * sum(map(len, found))", F1),
    Mutant("single frames proposed", "events:propose", ">= shortest", ">= 1", PROPOSED),
    Mutant("the frame before taken twice", "events:propose", "padded[run.begin] + padded[run.end + 1]", "2 * padded[run.begin + 1]", PROPOSED),
    Mutant("background is an event", "events:runs", "e > b and labels[b] != background", "e > b", test(test_events.test_runs)),
]  # fmt: skip

OVERLAP, WHOLE = (
    test(test_saliency.test_patches_that_overlap_are_averaged),
    test(test_saliency.test_the_occlusion_of_a_linear_model_is_what_the_patch_held),
)
LOOKING = [
    Mutant("gradient of all logits", "viz.saliency:saliency", "dy[xp.arange(len(y)), labels] = 1", "dy[:] = 1", test(test_saliency.test_the_saliency_of_a_linear_model_is_its_weights)),
    Mutant("channels cancel", "viz.saliency:saliency", ".max(axis=2)", ".mean(axis=2)", test(test_saliency.test_the_saliency_of_a_linear_model_is_its_weights)),
    Mutant("sign of the fall", "viz.saliency:occlusion", "(whole - score(covered))", "(score(covered) - whole)", WHOLE),
    Mutant("clips covered for good", "viz.saliency:occlusion", "x.copy()", "x", OVERLAP),
    Mutant("patches added up", "viz.saliency:occlusion", "total / count", "total", OVERLAP),
    Mutant("fill ignored", "viz.saliency:occlusion", "= fill", "= 0", WHOLE),
    Mutant("last pixels left out", "viz.saliency:corners", "else [*found, size - patch]", "else found", OVERLAP),
    Mutant("share of the mask's pixels", "viz.saliency:mass_on", "/ size.sum(axis=1)", "/ mask.reshape(len(maps), -1).sum(axis=1)", test(test_saliency.test_the_share_of_a_mass)),
]  # fmt: skip

TASKS: dict[str, list[Mutant]] = {
    "The captioner": CAPTIONER,
    "Time warping and hidden Markov models": CLASSIC,
    "Events": EVENTS,
    "Where a network looks": LOOKING,
}
