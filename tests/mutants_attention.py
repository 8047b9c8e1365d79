"""Mistakes in attention: its pairs, the cells that attend, pooling over time."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_attention as tests
from .killers import gradient, test
from .mutation import Mutant

SOFT, PEAK = "ops.attention:masked_softmax_forward", "ops.attention:peak_softmax"
ATTEND = "ops.attention:attend"
SOFT_LOOPS = test(tests.test_masked_softmax_equals_naive_loops, 0, backend="numpy")
PEAK_LOOPS = test(tests.test_peak_softmax_equals_naive_loops, (2, 3, 5), backend="numpy")
ATTEND_LOOPS = test(tests.test_attend_equals_naive_loops, 3**-0.5, backend="numpy")
UNREAD = test(tests.test_what_is_masked_is_exactly_zero_and_never_read)
PAIRS = [
    Mutant("masked entries get e^0", SOFT, "xp.where(mask, xp.exp(xp.where(mask, x - top, 0)), 0)", "xp.exp(xp.where(mask, x - top, 0))", SOFT_LOOPS),
    Mutant("masked by a large negative number", SOFT, "xp.where(mask, xp.exp(xp.where(mask, x - top, 0)), 0)", "xp.exp(xp.where(mask, x - top, -30))", UNREAD),
    Mutant("largest number taken over the padding too", SOFT, "xp.where(mask, x.real, -xp.inf).max", "x.real.max", UNREAD),
    Mutant("sum over everything", SOFT, "e.sum(axis=axis, keepdims=True)", "e.sum(keepdims=True)", SOFT_LOOPS),
    Mutant("empty rows let pass", SOFT, "if not bool(mask.any(axis=axis).all()):", "if not bool(mask.any()):", test(tests.test_a_wholly_masked_row_is_never_a_row_of_nan)),
    Mutant("divided by the sum", f"{PEAK}_forward", "xp.where(at_top, flat, 0).sum(axis=2, keepdims=True)", "xp.log(xp.exp(flat).sum(axis=2, keepdims=True))", PEAK_LOOPS),
    Mutant("one maximum for all channels", f"{PEAK}_forward", "flat.real.argmax(axis=2)[..., None]", "flat.real.argmax(axis=2)[:, :1, None]", PEAK_LOOPS),
    Mutant("largest value taken as a constant", f"{PEAK}_backward", "dx - dx.sum(axis=2, keepdims=True)", "dx", gradient("peak_softmax/1d")),
    Mutant("the largest's own share kept twice", f"{PEAK}_backward", "xp.where(at_top, dx - dx.sum(axis=2, keepdims=True), dx)", "xp.where(at_top, -dx.sum(axis=2, keepdims=True), dx)", gradient("peak_softmax/2d")),
    Mutant("not scaled", f"{ATTEND}_forward", "scale * (q.swapaxes(1, 2) @ k)", "q.swapaxes(1, 2) @ k", ATTEND_LOOPS),
    Mutant("softmax over the queries", f"{ATTEND}_forward", "mask=mask, axis=2", "mask=mask, axis=1", ATTEND_LOOPS),
    Mutant("mask forgotten", f"{ATTEND}_forward", "mask=mask, axis=2", "axis=2", ATTEND_LOOPS),
    Mutant("scale missing in backward", f"{ATTEND}_backward", "scale * masked_softmax_backward", "masked_softmax_backward", gradient("attend/scaled, masked")),
    Mutant("softmax skipped in backward", f"{ATTEND}_backward", "masked_softmax_backward(dy.swapaxes(1, 2) @ v, weights)", "(dy.swapaxes(1, 2) @ v)", gradient("attend")),
    Mutant("values without their gradient's weights", f"{ATTEND}_backward", "dv = dy @ weights.y", "dv = dy @ (0 * weights.y + 1 / v.shape[2])", gradient("attend")),
]  # fmt: skip

ATTENTION = {
    "Attention: softmax and weighted sums": PAIRS,
}
