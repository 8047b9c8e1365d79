"""Mistakes in attention: its pairs, the cells that attend, pooling over time."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_attention as tests
from . import test_self_attention as sa_tests
from . import test_variants
from .killers import gradient, test
from .mutation import Killer, Mutant

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


def loops(name: str) -> Killer:
    """The variant against naive loops."""
    return test(test_variants.test_scan_equals_naive_loops, test_variants.VARIANTS[name], 2, backend="numpy")


def case(name: str, detail: str = "2d") -> Killer:
    """The variant's gradient check."""
    return gradient(f"variant/{name} {detail}")


INPUT, GATED, CONTEXT = "input attention", "attention for i", "context gates"
LOOK, POOLED = "cells.attention:InputAttentionLSTMCell", "cells.context:ContextGateLSTMCell"
BY_ATTENTION = "cells.attention_gates:AttentionGateLSTMCell"
COST = test(tests.test_what_the_cells_cost)
CELLS = [
    Mutant("frame itself read", f"{LOOK}.step", "A.reshape(s.shape) * x", "x", loops(INPUT)),
    Mutant("weights of every row apart", f"{LOOK}.step", "s.reshape(len(s), 1, -1), axis=2", "s.reshape(len(s), s.shape[2], -1), axis=2", loops(INPUT)),
    Mutant("weights scaled back up by the number of positions", f"{LOOK}.step", "A.reshape(s.shape) * x", "A.reshape(s.shape) * x * A.shape[2]", test(tests.test_equal_attention_is_the_plain_cell_on_x_over_the_number_of_positions, (3, 4))),
    Mutant("attention does not see the state", f"{LOOK}.step", "masked(state.h, h_mask), p, plus=z.a", "0 * masked(state.h, h_mask), p, plus=z.a", loops(INPUT)),
    Mutant("tanh of the hidden map missing", f"{LOOK}.step", "array_module(a).tanh(a)", "a", loops(INPUT)),
    Mutant("attention reads h before its mask", f"{LOOK}.step", "masked(state.h, h_mask), p, plus=z.a", "state.h, p, plus=z.a", case(INPUT, "1d recurrent dropout")),
    Mutant("weights taken as constants", f"{LOOK}.step_backward", "softmax_backward(dA, weights)", "0 * softmax_backward(dA, weights)", case(INPUT)),
    Mutant("softmax skipped in backward", f"{LOOK}.step_backward", "softmax_backward(dA, weights)", "dA", case(INPUT)),
    Mutant("only the first channel moves the weights", f"{LOOK}.step_backward", "(x * dx_seen).sum(axis=1)", "(x * dx_seen)[:, 0]", case(INPUT)),
    Mutant("state's path through the attention dropped", f"{LOOK}.step_backward", "dh = dh + self.state_map_backward(da, hidden, lstm.h_mask)", "pass", case(INPUT)),
    Mutant("tanh's slope missing", f"{LOOK}.step_backward", " * (1 - scores.x * scores.x)", "", case(INPUT)),
    Mutant("dx not weighted", f"{LOOK}.step_backward", "weights.y.reshape(s_shape) * dx_seen", "dx_seen", case(INPUT)),
    Mutant("frame's path through the product dropped", f"{LOOK}.project_backward", "dxs[t] += dz.x", "pass", case(INPUT)),
    Mutant("product's gradients in the wrong order", f"{LOOK}.project_backward", "enumerate(dzs)", "enumerate(reversed(dzs))", case(INPUT)),
    Mutant("w_x learns from the frame itself", f"{LOOK}.state_backward", "[s.seen.x for s in steps]", "[s.x for s in steps]", case(INPUT)),
    Mutant("w_z learns before the tanh", f"{LOOK}.state_backward", "[s.scores.x for s in steps]", "[array_module(s.x).arctanh(s.scores.x) for s in steps]", case(INPUT)),
    Mutant("score map not counted", f"{LOOK}.macs_per_position", "(self.hidden_x, self.hidden_h, self.score_map)", "(self.hidden_x, self.hidden_h)", COST),
    Mutant("sum in place of the mean", "cells.context:mean_over_positions", ".mean(axis=lead)", ".sum(axis=lead)", loops(CONTEXT)),
    Mutant("pooled gates blind to the state", f"{POOLED}.step", "mean_over_positions(h, 2), self.params, plus=z.pooled", "0 * mean_over_positions(h, 2), self.params, plus=z.pooled", loops(CONTEXT)),
    Mutant("pooled gates in another order", f"{POOLED}.step", "zip(self.pooled, split(", "zip(self.pooled[::-1], split(", loops(CONTEXT)),
    Mutant("pooled h not masked", f"{POOLED}.step", "mean_over_positions(h, 2)", "mean_over_positions(state.h, 2)", case(CONTEXT, "1d recurrent dropout")),
    Mutant("gradient of a pooled gate from one position", f"{POOLED}.step_backward", "dgates[name].sum(axis=axes, keepdims=True)", "dgates[name].mean(axis=axes, keepdims=True)", case(CONTEXT)),
    Mutant("state's path through its mean dropped", f"{POOLED}.step_backward", "dh = dh + masked(spread(dmean, dh), saved.h_mask)", "pass", case(CONTEXT)),
    Mutant("mask missing on the way to the mean", f"{POOLED}.step_backward", "masked(spread(dmean, dh), saved.h_mask)", "spread(dmean, dh)", case(CONTEXT, "1d recurrent dropout")),
    Mutant("a mean's adjoint without its divisor", "cells.context:spread", "(dmean / prod(sizes))", "dmean", case(CONTEXT)),
    Mutant("frame's path through its mean dropped", f"{POOLED}.project_backward", "dxs[t] += spread(dmean, dxs[t])", "pass", case(CONTEXT)),
    Mutant("w_hp learns from h at one position", f"{POOLED}.state_backward", "[step.pooled.x for step in steps]", "[step.state_map.x[:, :, 0, 0] for step in steps]", case(CONTEXT)),
    Mutant("incoming dc dropped", f"{POOLED}.step_backward", "dc = dstate.c + dstate.h", "dc = dstate.h", case(CONTEXT)),
    Mutant("pooled frames of other steps", f"{POOLED}.projection_of", "super().projection_of(saved.pooled, begin, end)", "super().projection_of(saved.pooled, 0, end - begin)", test(tests.test_steps_taken_one_at_a_time_or_all_at_once, tests.ContextGateLSTMCell)),
    Mutant("pooled maps counted at every position", f"{POOLED}.step_macs", "super().step_macs(sizes) + self.pooled_x", "super().step_macs(sizes) + prod(sizes) * self.pooled_x", COST),
    Mutant("forget bias on another gate", f"{POOLED}.__init__", 'self.pooled.index("f")', "0", COST),
    Mutant("a and g exchanged", f"{BY_ATTENTION}.spatial_gates", "z_a, z_g = split(z, 2)", "z_g, z_a = split(z, 2)", loops(GATED)),
    Mutant("scores without their tanh", f"{BY_ATTENTION}.spatial_gates", "tanh(z_a)", "z_a", loops(GATED)),
    Mutant("candidate's gradient in the attention's place", f"{BY_ATTENTION}.spatial_gates_backward", "[da, dz_g]", "[dz_g, da]", case(GATED)),
    Mutant("largest score's share missing", f"{BY_ATTENTION}.spatial_gates_backward", "peak_softmax_backward(dgates[self.attends], peak)", "dgates[self.attends] * peak.y", case("attention for o")),
    Mutant("attention's tanh slope missing", f"{BY_ATTENTION}.spatial_gates_backward", " * (1 - scores.x * scores.x)", "", case(GATED)),
]  # fmt: skip


POOL = "layers.attention:TemporalAttention"
POOL_LOOPS = test(tests.test_pooling_equals_naive_loops, (3, 2), [4, 1, 3], backend="numpy")
POOL_CASE = gradient("layer/temporal attention 2d lengths")
POOLINGS = [
    Mutant("padding is scored too", f"{POOL}.forward", "mask=alive, axis=0", "axis=0", POOL_LOOPS),
    Mutant("softmax over the clips", f"{POOL}.forward", "mask=alive, axis=0", "mask=alive, axis=1", POOL_LOOPS),
    Mutant("padding read", f"{POOL}.forward", "xp.where(along(alive, x), x, 0)", "x", test(tests.test_a_padded_batch_is_its_clips_one_by_one)),
    Mutant("bias of the scores forgotten", f"{POOL}.forward", 'self.params["b"])', '0 * self.params["b"])', POOL_LOOPS),
    Mutant("scores without tanh", f"{POOL}.forward", "xp.tanh(z)", "z", POOL_LOOPS),
    Mutant("divided by the number of steps once more", f"{POOL}.forward", "(along(alpha, x) * x).sum(axis=0)", "(along(alpha, x) * x).mean(axis=0)", POOL_LOOPS),
    Mutant("weights taken as constants", f"{POOL}.backward", "masked_softmax_backward(dalpha, AxisSaved(alpha, axis))", "0 * alpha", POOL_CASE),
    Mutant("softmax skipped in backward", f"{POOL}.backward", "masked_softmax_backward(dalpha, AxisSaved(alpha, axis))", "dalpha", POOL_CASE),
    Mutant("tanh's slope missing", f"{POOL}.backward", " * (1 - a * a)", "", POOL_CASE),
    Mutant("a mean's adjoint without its divisor", f"{POOL}.backward", "dm / prod(sizes)", "dm", POOL_CASE),
    Mutant("path through the weighted sum dropped", f"{POOL}.backward", "along(alpha, x) * dy + ", "0 * along(alpha, x) * dy + ", POOL_CASE),
    Mutant("weighted sum not counted", f"{POOL}.cost", " + F * positions)", ")", test(tests.test_what_pooling_costs, (3, 2))),
]  # fmt: skip


SA, SA_OP = "cells.self_attention:SAConvLSTMCell", "ops.self_attention:self_attention"
SA_LOOPS = test(sa_tests.test_the_memory_equals_naive_loops, (2, 3), backend="numpy")
SA_CASE = gradient("self_attention/2d")
SA_COST = test(sa_tests.test_twice_the_height_and_width_is_sixteen_times_the_attention)
SELF = [
    Mutant("scores divided by sqrt(D)", f"{SA_OP}_forward", "q = w_q @ h", "q = w_q @ h / len(w_q) ** 0.5", SA_LOOPS),
    Mutant("memory's values weighed by h's own keys", f"{SA_OP}_forward", "attend_forward(q, w_km @ m, w_vm @ m)", "attend_forward(q, w_kh @ h, w_vm @ m)", SA_LOOPS),
    Mutant("Z_h and Z_m exchanged", f"{SA_OP}_forward", "[z_h, z_m]", "[z_m, z_h]", SA_LOOPS),
    Mutant("gates do not see h", f"{SA_OP}_forward", "[w_z @ both, h]", "[w_z @ both, 0 * h]", SA_LOOPS),
    Mutant("gates in the order i, o, g", f"{SA_OP}_forward", "z_i, z_g, z_o = split", "z_i, z_o, z_g = split", SA_LOOPS),
    Mutant("memory added without forgetting", f"{SA_OP}_forward", "(1 - i) * m + i * g", "m + i * g", SA_LOOPS),
    Mutant("output shows the memory before", f"{SA_OP}_forward", "(o * m_new).reshape(shape)", "(o * m).reshape(shape)", SA_LOOPS),
    Mutant("output through a tanh", f"{SA_OP}_forward", "(o * m_new).reshape(shape)", "(o * xp.tanh(m_new)).reshape(shape)", SA_LOOPS),
    Mutant("h's part in m' dropped", f"{SA_OP}_backward", "dm_new = dm_new + dh_new * o", "pass", SA_CASE),
    Mutant("forgotten memory's part in di dropped", f"{SA_OP}_backward", "dm_new * (g - m) * i", "dm_new * g * i", SA_CASE),
    Mutant("query learns from h alone", f"{SA_OP}_backward", "dq = dq_h + dq_m", "dq = dq_h", SA_CASE),
    Mutant("h's path through the queries dropped", f"{SA_OP}_backward", "dh = dh + w.w_q.T @ dq", "dh = dh + 0 * w.w_q.T @ dq", SA_CASE),
    Mutant("h's direct path dropped", f"{SA_OP}_backward", "dh = dh + w.w_q.T @ dq", "dh = w.w_q.T @ dq", SA_CASE),
    Mutant("memory's highway dropped", f"{SA_OP}_backward", "dm = dm_new * (1 - i) + w.w_km", "dm = w.w_km", SA_CASE),
    Mutant("memory's path through its keys dropped", f"{SA_OP}_backward", " + w.w_km.T @ dk_m", "", SA_CASE),
    Mutant("w_vm learns from h", f"{SA_OP}_backward", "(dv_m, m)", "(dv_m, h)", SA_CASE),
    Mutant("w_z learns from Z", f"{SA_OP}_backward", "(dz_all, both)", "(dz_all, read)", SA_CASE),
    Mutant("b_m learns from the first clip", f"{SA_OP}_backward", "dz.sum(axis=(0, 2))", "dz[0].sum(axis=1)", SA_CASE),
    Mutant("h before the attention goes on", f"{SA}.step", "SAState(h, c, m), SAStepSaved", "SAState(lstm.gates.o * lstm.gates.tanh_c, c, m), SAStepSaved", loops("self-attention")),
    Mutant("memory not passed on", f"{SA}.step", "SAState(h, c, m), SAStepSaved", "SAState(h, c, state.m), SAStepSaved", loops("self-attention")),
    Mutant("h~'s gradient from h'", f"{SA}.step_backward", "LSTMState(dh, dstate.c)", "LSTMState(dstate.h, dstate.c)", case("self-attention")),
    Mutant("incoming dc dropped", f"{SA}.step_backward", "LSTMState(dh, dstate.c)", "LSTMState(dh, 0 * dstate.c)", case("self-attention")),
    Mutant("memory's gradient stops at every step", f"{SA}.step_backward", "SAState(dh, dc, dm)", "SAState(dh, dc, 0 * dm)", case("self-attention")),
    Mutant("attention linear in the positions", f"{SA}.attention_macs", "prod(sizes) ** 2", "prod(sizes)", SA_COST),
    Mutant("one attention counted", f"{SA}.attention_macs", "2 * prod(sizes)", "prod(sizes)", SA_COST),
    Mutant("pairs not counted among what is kept", f"{SA}.step_kept", " + 2 * P**2", "", test(sa_tests.test_what_is_kept_is_counted_the_pairs_included, (6, 4))),
    Mutant("gradients of the pairs not counted at the peak", f"{SA}.step_room", "2 * prod(sizes) ** 2", "0", test(sa_tests.test_the_peak_of_a_step_with_many_positions)),
    Mutant("attention missing from the cost of a step", f"{SA}.step_macs", " + self.attention_macs(sizes)", "", SA_COST),
]  # fmt: skip

ATTENTION = {
    "Attention: softmax and weighted sums": PAIRS,
    "Attention in the cell": CELLS,
    "Attention over time": POOLINGS,
    "Self-attention memory": SELF,
}
