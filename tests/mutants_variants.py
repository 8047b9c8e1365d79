"""Mistakes in the variants of the LSTM, in the pyramid, in eight-bit weights and in the receptive field."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_candidate, test_pyramid, test_quantise, test_receptive, test_variants
from .killers import gradient, test
from .mutation import Killer, Mutant

NAIVE = test_variants.test_scan_equals_naive_loops
BUILD = test_variants.VARIANTS


def loops(name: str, rank: int = 1) -> Killer:
    """The variant against naive loops."""
    return test(NAIVE, BUILD[name], rank, backend="numpy")


def case(name: str, detail: str = "1d") -> Killer:
    """The variant's gradient check."""
    return gradient(f"variant/{name} {detail}")


PEEP, PEEP_BACK = (
    "cells.peephole:ConvPeepholeLSTMCell.step",
    "cells.peephole:ConvPeepholeLSTMCell.step_backward",
)
PEEPHOLES = [
    Mutant("output peephole sees the old c", PEEP, "self.after.forward(c, self.params)", "self.after.forward(state.c, self.params)", loops("peephole conv")),
    Mutant("peepholes of i and f exchanged", PEEP, "z_ci, z_cf = split(z_c, 2)", "z_cf, z_ci = split(z_c, 2)", loops("peephole conv")),
    Mutant("output peephole's path to c dropped", PEEP_BACK, "dc = dc + correlate_adjoint_x(dz_o, after.w, after.geometry)", "pass", case("peephole conv")),
    Mutant("input peepholes' path dropped", PEEP_BACK, "dc * f + correlate_adjoint_x(dz_if", "dc * f + 0 * correlate_adjoint_x(dz_if", case("peephole conv")),
    Mutant("forget gate's gradient from h", PEEP_BACK, "dc * before.x * f", "dc * state_map.x * f", case("peephole conv")),
    Mutant("w_cif learns from the new c", "cells.peephole:ConvPeepholeLSTMCell.state_backward", "[s.before.x for s in steps]", "[s.after.x for s in steps]", case("peephole conv")),
    Mutant("w_co learns from the candidate's rows", "cells.peephole:ConvPeepholeLSTMCell.state_backward", "dz[:, 3 * F :]", "dz[:, 2 * F : 3 * F]", case("peephole conv")),
    Mutant("peepholes not counted", "cells.peephole:ConvPeepholeLSTMCell.macs_per_position", "+ self.after.cost(self.params)", "", test(test_variants.test_the_documented_table_is_true)),
]  # fmt: skip

MAP = "cells.maps_factored:FactoredMap"
LIGHT = [
    Mutant("first kernel flipped", f"{MAP}.middle", "saved.first, saved", "saved.first[..., ::-1], saved", loops("separable")),
    Mutant("bias forgotten", f"{MAP}.forward", "params[self.b] if self.b else plus", "plus", loops("low rank")),
    Mutant("input map's part forgotten", f"{MAP}.forward", "params[self.b] if self.b else plus", "params[self.b] if self.b else None", loops("low rank")),
    Mutant("adjoint of the second map left out", f"{MAP}.adjoint_x", "correlate_adjoint_x(dz, saved.second, saved.pointwise)", "0 * correlate_adjoint_x(dz, saved.second, saved.pointwise) + 1", case("separable")),
    Mutant("channels between the maps reversed in backward", f"{MAP}.adjoint_x", "correlate_adjoint_x(dmiddle,", "correlate_adjoint_x(dmiddle[:, ::-1],", case("separable")),
    Mutant("second weights learn twice", f"{MAP}.add_weight_grads", "self.middle(x, saved)", "2 * self.middle(x, saved)", case("low rank")),
    Mutant("first weights learn without the second's adjoint", f"{MAP}.add_weight_grads", "correlate_adjoint_w(dmiddle,", "correlate_adjoint_w(0 * dmiddle,", case("low rank")),
    Mutant("frames in the wrong order", f"{MAP}.add_weight_grads", "zip(reversed(dzs), reversed(frames)", "zip(reversed(dzs), frames", case("separable")),
    Mutant("first step skipped though not at rest", f"{MAP}.add_weight_grads", "if at_rest(frames[0])", "if self.b is None", case("separable")),
    Mutant("steps read in reverse", "cells.maps_factored:EachStep.__getitem__", "self.xs[t]", "self.xs[-1 - t]", loops("separable")),
    Mutant("bias gradient missing", f"{MAP}.add_weight_grads", "conv_bias_backward(dz)", "0 * conv_bias_backward(dz)", case("separable")),
    Mutant("second weights not counted", f"{MAP}.cost", " + params[self.second].size", "", test(test_variants.test_light_cells_keep_the_forget_bias_and_cost_what_they_should)),
    Mutant("every channel has the first one's kernel", "cells.maps_factored:SeparableMap.factors", "return depth,", "depth[:] = depth[:1]; return depth,", test(test_variants.test_a_fresh_separable_map_has_a_kernel_for_each_channel)),
    Mutant("recurrent mask missing in backward", "cells.light:LightLSTMCell.state_map_backward", "masked(self.state_map.adjoint_x(dz, saved), h_mask)", "self.state_map.adjoint_x(dz, saved)", case("separable", "1d recurrent dropout")),
]  # fmt: skip

NORM, NORM_BACK = (
    "cells.layer_norm:LayerNormLSTMCell.step",
    "cells.layer_norm:LayerNormLSTMCell.step_backward",
)
NORMS = [
    Mutant("c itself normalised and carried on", NORM, "LSTMState(o * tanh_n, c)", "LSTMState(o * tanh_n, n)", loops("layer norm")),
    Mutant("cell not normalised", NORM, "xp.tanh(n)", "xp.tanh(c)", loops("layer norm")),
    Mutant("state map not normalised", NORM, "split(z_h + z, 4)", "split(self.state_map.forward(masked(state.h, h_mask), p)[0] + z, 4)", loops("layer norm")),
    Mutant("maps normalised together", NORM, "split(z_h + z, 4)", "split(group_norm_forward(z_h + z, p['gamma_h'], p['b'], groups=4)[0], 4)", loops("layer norm")),
    Mutant("all gates normalised together", NORM, '"groups": self.norm_groups', '"groups": 1', loops("layer norm")),
    Mutant("each channel of the cell by itself", NORM, "groups=1", "groups=self.features", loops("layer norm")),
    Mutant("state map's dz without its norm", NORM_BACK, "LayerNormGradient(dz_x, dz_h)", "LayerNormGradient(dz_x, dz)", case("layer norm")),
    Mutant("input map's dz through the state's norm", NORM_BACK, "LayerNormGradient(dz_x, dz_h)", "LayerNormGradient(dz_h, dz_h)", case("layer norm")),
    Mutant("incoming dc normalised too", NORM_BACK, "dc = dc + dstate.c", "dc = dc + group_norm_backward(dstate.c, c_norm)[0]", case("layer norm")),
    Mutant("dh_prev without the norm's adjoint", NORM_BACK, "self.state_map_backward(dz_h,", "self.state_map_backward(dz,", case("layer norm")),
    Mutant("input norm skipped in backward", NORM_BACK, "dz_x, grads[", "_, grads[", case("layer norm")),
]  # fmt: skip

VANILLA, BACK = "cells.odyssey:VanillaLSTMCell.step", "cells.odyssey:VanillaLSTMCell.gates_backward"
FGR = "cells.full_gates:FGRCell"
FAMILY = [
    Mutant("missing gate shut instead of open", VANILLA, "return 1\n", "return 0\n", loops("NIG")),
    Mutant("coupled the wrong way", VANILLA, "f = 1 - i if", "f = i if", loops("CIFG")),
    Mutant("coupling ignored", VANILLA, "f = 1 - i if self.coupled else", "f =", loops("CIFG")),
    Mutant("candidate squashed all the same", VANILLA, 'tanh(parts["g"]) if self.squash_input else parts["g"].copy()', 'tanh(parts["g"])', loops("NIAF")),
    Mutant("output squashed all the same", VANILLA, "tanh(c) if self.squash_output else c", "tanh(c)", loops("NOAF")),
    Mutant("output peephole sees the old c", VANILLA, 'gate("o", c)', 'gate("o", state.c)', loops("vanilla")),
    Mutant("peepholes in the order of all gates", "cells.odyssey:VanillaLSTMCell.peephole_weights", "zip(self.peeping,", "zip(self.peeping[::-1],", loops("vanilla")),
    Mutant("coupled gates: forget's part missing in di", BACK, "di = di - df", "pass", case("CIFG")),
    Mutant("coupled gates: forget's part with the wrong sign", BACK, "di = di - df", "di = di + df", case("CIFG")),
    Mutant("derivative of an absent input tanh", BACK, "dc * i * (1 - g * g) if self.squash_input else dc * i", "dc * i * (1 - g * g)", case("NIAF")),
    Mutant("derivative of an absent output tanh", BACK, "(da * (1 - a * a) if self.squash_output else da)", "da * (1 - a * a)", case("NOAF")),
    Mutant("incoming gradient of the gates dropped", BACK, "di, df = di + dc * g, df + dc * c_prev", "di, df = dc * g, dc * c_prev", case("FGR")),
    Mutant("incoming gradient of the output gate dropped", BACK, "do, da = do + dstate.h * a,", "do, da = dstate.h * a,", case("FGR")),
    Mutant("output peephole's path to c dropped", BACK, 'dc = dc + w["o"] * dz["o"] if "o" in w else dc', "pass", case("vanilla")),
    Mutant("input peepholes' path dropped", BACK, "dc_prev = dc_prev + w[gate] * dz[gate] if gate in w else dc_prev", "pass", case("NOG")),
    Mutant("peephole gradient from the other c", BACK, '{"i": c_prev, "f": c_prev, "o": c}', '{"i": c, "f": c, "o": c}', case("vanilla")),
    Mutant("gates before in another order", f"{FGR}.step", "[state.i, state.f, state.o]", "[state.i, state.o, state.f]", loops("FGR")),
    Mutant("candidate reads the gates too", f"{FGR}.step", "z_f + r_f, z_g, z_o + r_o", "z_f + r_f, z_g + r_f, z_o + r_o", loops("FGR")),
    Mutant("gates of the step before not passed on", f"{FGR}.step", "FGRState(h, c, gates.i, gates.f, gates.o)", "FGRState(h, c, state.i, state.f, state.o)", loops("FGR")),
    Mutant("gradient to the gates before dropped", f"{FGR}.step_backward", "*split(dbefore, 3)", "*split(0 * dbefore, 3)", case("FGR")),
    Mutant("w_r's gradient from the candidate's rows", f"{FGR}.of_gates", "dz_if, _, dz_o = xp.split", "dz_if, dz_o, _ = xp.split", case("FGR")),
]  # fmt: skip

CANDIDATE, LOST = "cells.candidate:CandidateLSTMCell.step", "cells.candidate:CandidateLSTMCell.step_backward"
CANDIDATES = [
    Mutant("gates recur on h, as they should", CANDIDATE, "masked(state.g, h_mask)", "masked(state.h, h_mask)", loops("candidate")),
    Mutant("output gate reads the old candidate", CANDIDATE, "masked(g, h_mask)", "masked(state.g, h_mask)", loops("candidate")),
    Mutant("memory leaks into the gates", CANDIDATE, "split(z_ifg, 3)", "split(z_ifg + 0.1 * xp.concatenate([state.c] * 3, axis=1), 3)", test(test_candidate.test_what_is_lost_memory_moves_no_gate)),
    Mutant("incoming gradient of the candidate dropped", LOST, "dg = dstate.g + dc * i", "dg = dc * i", case("candidate")),
    Mutant("candidate's path through the output gate dropped", LOST, "+ masked(correlate_adjoint_x(dz_o, after.w, after.geometry), h_mask)", "", case("candidate")),
    Mutant("gradient sent to h", LOST, "CandidateState(xp.zeros_like(dc),", "CandidateState(dg_prev,", test(test_candidate.test_nothing_reads_h)),
    Mutant("output gate's weights learn from the old candidate", "cells.candidate:CandidateLSTMCell.state_backward", "step.after.x,", "step.before.x,", case("candidate")),
]  # fmt: skip

DEEPER, PYRAMID = "layers.pyramid:DeeperBidirectional", "layers.pyramid:DilatedPyramid"
NAIVE_PYRAMID = test(test_pyramid.test_the_second_reads_the_firsts_h_backwards_and_is_put_back_in_order)
PYRAMIDS = [
    Mutant("backward list not put back in order", f"{DEEPER}.forward", "xp.concatenate([h_f, h_b], axis=2)", "xp.concatenate([h_f, h_b[::-1]], axis=2)", NAIVE_PYRAMID),
    Mutant("halves exchanged", f"{DEEPER}.forward", "[h_f, h_b], axis", "[h_b, h_f], axis", NAIVE_PYRAMID),
    Mutant("fusion without tanh", f"{DEEPER}.forward", "y = xp.tanh(z)", "y = z", NAIVE_PYRAMID),
    Mutant("second layer's gradient to the first dropped", f"{DEEPER}.backward", "dboth[:, :, :features] + dh_f", "dboth[:, :, :features]", gradient("variant/pyramid 1d")),
    Mutant("derivative of tanh forgotten", f"{DEEPER}.backward", "dy * (1 - y * y)", "dy", gradient("variant/pyramid 1d")),
    Mutant("padded frames' gradient reaches the fusion", f"{DEEPER}.backward", "dy if alive is None else frames_where(alive, dy)", "dy", gradient("variant/pyramid 2d lengths")),
    Mutant("padded frames are tanh(b)", f"{DEEPER}.forward", "(y if alive is None else frames_where(alive, y))", "y", test(test_pyramid.test_padded_clips_are_clips_of_their_own)),
    Mutant("state maps not dilated", f"{DEEPER}.__init__", '"state_dilation": rate', '"state_dilation": 1', test(test_pyramid.test_a_rate_is_a_dilation_of_both_maps_of_both_cells, (2,))),
    Mutant("input maps not dilated", f"{DEEPER}.__init__", '{"dilation": rate', '{"dilation": 1', test(test_pyramid.test_a_rate_is_a_dilation_of_both_maps_of_both_cells, (2,))),
    Mutant("last branch's dx alone", f"{PYRAMID}.backward", "dx + dx_k", "dx_k", gradient("variant/pyramid 1d")),
]  # fmt: skip

HALF = test(
    test_quantise.test_no_weight_moves_by_more_than_half_a_step,
    dtype=test_quantise.np.float64,
    slack=1e-12,
    backend="numpy",
)
IMPULSE = test(test_receptive.test_an_impulse_agrees_at_every_lag, (3, 5), (5, 3), (2, 1), (1, 3))
TOOLS = [
    Mutant("cut off instead of rounded", "quantise:quantise", "xp.rint(w / scale)", "w / scale", HALF),
    Mutant("one scale for all channels", "quantise:quantise", "axis=tuple(range(1, w.ndim)), keepdims=True) / LEVELS", "keepdims=True) / LEVELS", test(test_quantise.test_each_channel_has_its_own_scale)),
    Mutant("scale for 128 levels", "quantise:quantise", "/ LEVELS", "/ (LEVELS + 1)", HALF),
    Mutant("divided by the scale, not multiplied", "quantise:dequantise", "* quantised.scale", "/ quantised.scale", HALF),
    Mutant("state map's step counted once too often", "receptive:receptive_field", "(steps - 1)", "steps", IMPULSE),
    Mutant("dilation of the state forgotten", "receptive:receptive_field", "span(kernel_h, dilation_h)", "span(kernel_h)", IMPULSE),
    Mutant("dilation times taps", "receptive:span", "* (as_int(kernel, \"kernel\") - 1) + 1", "* as_int(kernel, \"kernel\")", IMPULSE),
    Mutant("layers' reaches added up at every step", "receptive:stack_receptive_field", "back[axis] = max(back[axis], jump[axis] * (reach // 2))", "back[axis] += jump[axis] * (reach // 2)", test(test_receptive.test_stacks_take_each_step_in_the_layer_that_sees_furthest, [{"kernel": (3,)}, {"kernel": (5,)}, {"kernel": (3,)}])),
    Mutant("strides of earlier layers forgotten", "receptive:stack_receptive_field", "jump[axis] *= stride[axis]", "pass", test(test_receptive.test_stacks_take_each_step_in_the_layer_that_sees_furthest, [{"kernel": (3,), "stride": 2}, {"kernel": (3,), "state_kernel": (5,)}])),
]  # fmt: skip

VARIANTS = {
    "Peepholes by convolution": PEEPHOLES,
    "Light maps": LIGHT,
    "Layer norm in the cell": NORMS,
    "Search-space variants": FAMILY,
    "Recurrence on the candidate": CANDIDATES,
    "Dilated pyramid": PYRAMIDS,
    "Eight bits, receptive field": TOOLS,
}
