"""Mistakes in clip classifiers, volumes, alignment and fusion."""
# ruff: noqa: E501

from __future__ import annotations

from . import (
    test_augment,
    test_classifiers,
    test_clips,
    test_conv,
    test_hand_features,
    test_three_stream,
)
from .killers import gradient, test
from .mutation import Killer, Mutant


def fused(name: str) -> Killer:
    """A fusion against its equation."""
    return test(test_three_stream.test_fusion_against_its_equation, backend="numpy", name=name)


def missing(name: str) -> Killer:
    """A missing stream changes nothing."""
    return test(
        test_three_stream.test_a_missing_stream_changes_nothing_whatever_stands_in_its_place, name=name
    )


PADDED = test(
    test_classifiers.test_a_padded_batch_gives_what_its_clips_give_alone, backend="numpy", name="cnn_lstm"
)
INFLATED = test(
    test_clips.test_an_inflated_network_answers_a_static_clip_as_the_first_answers_its_frame,
    backend="numpy",
    frames=2,
)
ALIGNED = test(test_clips.test_alignment_is_the_mean_of_what_overlaps, backend="numpy", old=7, new=3)
SPARSE = test(test_three_stream.test_dropping_streams_in_training_never_drops_all_of_a_sample)

NETWORKS = [
    Mutant("lengths are not handed on", "layers.base:Sequential.forward", "lengths is not None else {}", "False else {}", PADDED),
    Mutant("time and channels exchanged on the way back", "layers.clips:ToVolume.backward", "moveaxis(dy, 2, 0)", "moveaxis(dy, 1, 0)", gradient("layer/to volume")),
    Mutant("an inflated kernel is not divided", "layers.clips:inflated", "/ frames", "/ 1", INFLATED),
    Mutant("an inflated kernel padded along time", "layers.clips:with_time", "((0, 0), *pads)", "((frames // 2, frames // 2), *pads)", INFLATED),
    Mutant("a pool inflated over all frames", "layers.clips:inflated", "with_time(layer.window, rank, 1)", "with_time(layer.window, rank, frames)", INFLATED),
    Mutant("the middle of a factorised convolution is F", "layers.clips:FactorisedConv.__init__", "middle = max(", "middle = features + 0 * max(", test(test_clips.test_factorised_conv_has_the_middle_of_the_paper_and_no_more_weights_than_the_full_one, 3, 8, (3, 3, 3))),
    Mutant("nearest step in place of the mean", "ops.align:overlaps", "np.maximum(shared, 0) / old", "(shared == shared.max(axis=1, keepdims=True)) * 1.0", ALIGNED),
    Mutant("alignment's gradient not transposed", "ops.align:align_steps_backward", "apply(saved.w.T, dy)", "apply(overlaps(len(dy), saved.w.shape[1]), dy)", gradient("align_steps/7 to 3 steps")),
    Mutant("head reads every frame's softmax over time", "models.classifier:VideoClassifier.over_time", "axis=2)", "axis=0)", test(test_classifiers.test_probabilities_over_time_are_those_of_the_clip_so_far, name="convlstm")),
]  # fmt: skip

FUSION = [
    Mutant("mean over all sources, missing ones too", "ops.mean_score:mean_score_forward", "xp.log(m.sum(axis=0)", "xp.log((m | True).sum(axis=0)", fused("score-average")),
    Mutant("the score's gradient shared evenly", "ops.mean_score:mean_score_backward", "saved.share * dy", "saved.share.mean(axis=0, keepdims=True) * dy", gradient("mean_score/with missing sources")),
    Mutant("logits averaged in place of scores", "ops.mean_score:mean_score_forward", "y = top + xp.log(total)", "y = xp.where(m, log_p, 0).sum(axis=0) + 0 * xp.log(total)", fused("score-average")),
    Mutant("the sum is not made up for missing streams", "layers.fusion:SumFusion.forward", "* len(hs)", "* 1", fused("sum")),
    Mutant("a missing stream's bias is added", "layers.fusion:share", "m / m.sum(axis=0)", "(0 * m + 1) / m.sum(axis=0)", fused("sum")),
    Mutant("the gate's path to h dropped", "layers.fusion:GatedFusion.backward", "dhs = apart(dbeside, self.features, present)", "dhs = apart(0 * dbeside, self.features, present)", gradient("layer/fusion, gated")),
    Mutant("the gate weighs missing streams", "layers.fusion:GatedFusion.forward", "xp.where(m, scores, -1e30)", "scores", fused("gated")),
    Mutant("the derivative of tanh forgotten", "layers.fusion:GatedFusion.backward", "(1 - u[s] * u[s])", "1", gradient("layer/fusion, gated")),
    Mutant("streams' columns exchanged", "layers.fusion:apart", "zip(ends, features, present, strict=True)", "zip(ends[::-1], features, present, strict=True)", gradient("layer/fusion, concat")),
    Mutant("a missing stream is not zeroed", "layers.fusion:kept", "where(present[:, None] != 0, h, 0)", "where(present[:, None] != 2, h, 0)", missing("concat")),
    Mutant("the features' mean back as a sum", "models.three_stream:Stream.backward", "/ len(dv)", "/ 1", gradient("model/stream, skip concat")),
    Mutant("the clock ignored", "models.three_stream:Stream.forward", "steps=len(u) if steps is None else steps", "steps=len(u)", test(test_three_stream.test_the_clock_counts)),
    Mutant("a sample left without any stream", "models.three_stream:dropped", "|= mask.any(axis=0)", "&= mask.any(axis=0)", SPARSE),
]  # fmt: skip

DATA = [
    Mutant("a flow flipped like a picture", "data.augment:flip_clips", "*= -1", "*= 1", test(test_augment.test_a_flipped_flow_tells_what_the_flipped_frames_show, "rows, columns", 4)),
    Mutant("rows and columns of a flow exchanged", "data.augment:flip_clips", "(axis == 4) if rows_first", "(axis == 3) if rows_first", test(test_augment.test_a_flipped_flow_tells_what_the_flipped_frames_show, "rows, columns", 4)),
    Mutant("a crop for every frame's own place", "data.augment:crop_clips", "x[:, n, :, i : i + h, j : j + w]", "x[:, n, :, j : j + h, i : i + w]", test(test_augment.test_crop_cuts_where_it_is_told)),
    Mutant("angles modulo a whole turn", "data.hand_features:oriented_gradients", "% bins  #", "% (2 * bins)  #", test(test_hand_features.test_an_angle_between_two_bins_is_shared_and_the_last_bins_neighbour_is_the_first)),
    Mutant("convolution that does not flip", "ops.convolve:convolve_forward", "mirrored(w)", "w", test(test_conv.test_convolve_flips_and_conv_does_not, backend="numpy", rank=1)),
    Mutant("dw not flipped back", "ops.convolve:convolve_backward", "mirrored(dw)", "dw", gradient("convolve/2d strided, dilated, grouped")),
]  # fmt: skip

MODELS: dict[str, list[Mutant]] = {
    "Networks for clips": NETWORKS,
    "Fusion of streams": FUSION,
    "Augmentation, features by hand, convolution": DATA,
}
