"""Mistakes in the backward pass of recurrent cells: gates, cells, and backpropagation through time."""
# ruff: noqa: E501

from __future__ import annotations

from tinyconvlstm.gradcheck.zoo_cells import CELLS

from . import test_bptt, test_gradcheck, test_layout, test_parallel
from .killers import gradient, test
from .mutation import Mutant

LSTM, SLOPES, PEEPHOLES = (
    f"ops.gates:{name}" for name in ("lstm_gates_backward", "lstm_slopes", "peephole_gradient")
)
GATES, PEEP, MAP = (
    gradient(f"lstm_gates/{name}") for name in ("no peephole", "peephole channel", "peephole map")
)
CELL, DENSE = gradient("cell/ConvLSTM 2d peephole map"), gradient("cell/LSTM 0d")
GRU, BEFORE, RNN = (gradient(f"cell/Conv{name} 1d") for name in ("GRU", "GRU reset before", "RNN"))
DROPOUT = gradient("cell/ConvLSTM 1d recurrent dropout")
PADDED, REVERSED = gradient("cell/ConvLSTM 1d lengths"), gradient("cell/ConvLSTM 1d lengths, reverse")
TRUNCATED = gradient("cell/LSTM 0d peephole channel, truncated k1=2 k2=3")
CHECKPOINTED = gradient("cell/ConvLSTM 1d, checkpointed every=2")
PARTS = test(test_layout.test_parts_write_their_gradients_into_one_array, CELLS["LSTM"], 2)
SEGMENTS = gradient("cell/ConvLSTM 2d peephole map, lengths, reverse, checkpointed")

GATES_BACKWARD = [
    Mutant("incoming dc dropped", LSTM, "dc = dc + dh * through_h", "dc = dh * through_h", GATES),
    Mutant("incoming dh dropped from dc", LSTM, "dc = dc + dh * through_h", "dc = dc + 0 * dh", GATES),
    Mutant("f forgotten in dc_prev", LSTM, "dc_prev = dc * f", "dc_prev = dc", GATES),
    Mutant("i instead of f in dc_prev", LSTM, "dc_prev = dc * f", "dc_prev = dc * saved.i", GATES),
    Mutant("tanh applied twice in dc", SLOPES, "dc = tanh_c * tanh_c", "dc = xp.tanh(tanh_c) ** 2", GATES),
    Mutant("no tanh derivative in dc", SLOPES, "dc = tanh_c * tanh_c", "dc = 0 * tanh_c", GATES),
    Mutant("no sigmoid derivative on o", SLOPES, "xp.subtract(o, dz_o, out=dz_o)", "dz_o[...] = 1", GATES),
    Mutant("no sigmoid derivative on f", SLOPES, "dz_f *= c_prev", "dz_f[...] = c_prev", GATES),
    Mutant("no sigmoid derivative on i", SLOPES, "dz_i *= g", "dz_i[...] = g", GATES),
    Mutant("sigmoid derivative for the candidate", SLOPES, "xp.subtract(1, dz_g, out=dz_g)", "xp.subtract(g, dz_g, out=dz_g)", GATES),
    Mutant("no tanh derivative on g", SLOPES, "dz_g *= i", "dz_g[...] = i", GATES),
    Mutant("input gate's gradient from the forget gate", SLOPES, "dz_i *= g", "dz_i[...] = dz_f", GATES),
    Mutant("forget gate sees the new c", SLOPES, "dz_f *= c_prev", "dz_f *= saved.c", GATES),
    Mutant("output gate's gradient from c, not tanh c", SLOPES, "dz_o *= tanh_c", "dz_o *= saved.c", GATES),
    Mutant("dz in the order i, f, o, g", SLOPES, "dz_i, dz_f, dz_g, dz_o = split(out, 4)", "dz_i, dz_f, dz_o, dz_g = split(out, 4)", GATES),
    Mutant("output peephole's path to c dropped", LSTM, "dc += w_co * dz_o", "pass", PEEP),
    Mutant("output peephole's path added after f", LSTM, "dc_prev = dc * f", "dc_prev = dc * f + (0 if w_c is None else w_co * dz_o)", PEEP),
    Mutant("input peephole's path dropped", LSTM, "dc_prev += w_ci * dz[:, :F]", "pass", PEEP),
    Mutant("forget peephole's path dropped", LSTM, "dc_prev += w_cf * dz[:, F : 2 * F]", "pass", PEEP),
    Mutant("peephole paths exchanged", LSTM, "dc_prev += w_ci * dz[:, :F]", "dc_prev += w_ci * dz[:, F : 2 * F] + w_cf * (dz[:, :F] - dz[:, F : 2 * F])", PEEP),
    Mutant("output peephole's gradient from the old c", PEEPHOLES, "* c[:, None]", "* c_prev[:, None]", PEEP),
    Mutant("input peephole's gradient from the new c", PEEPHOLES, "* c_prev[:, None]", "* array_module(c).stack([c, c_prev], 1)", PEEP),
    Mutant("peephole gradients in another order", PEEPHOLES, "in_two(dz, F)", "in_two(dz, F)[:, ::-1]", PEEP),
    Mutant("peephole gradient averaged over the batch", PEEPHOLES, "concatenate([of_i_and_f, of_o])", "concatenate([of_i_and_f, of_o]) / len(c)", MAP),
]  # fmt: skip

AHEAD = "cells.lstm:LSTMCell.ahead"
WIDER = test(test_layout.test_gradients_may_be_wider_than_the_tape, float)
STEP, RESET = "cells.lstm:LSTMCell.step_backward", "cells.gru:ResetBeforeGRUCell.step_backward"
CELLS_BACKWARD = [
    Mutant("recurrent path dropped", "cells.base:TwoMapCell.state_map_backward", "masked(correlate", "0 * masked(correlate", DENSE),
    Mutant("gradient of c before dropped", STEP, "LSTMState(dh_prev, dc_prev)", "LSTMState(dh_prev, 0 * dc_prev)", DENSE),
    Mutant("gradients of h and c exchanged", STEP, "LSTMState(dh_prev, dc_prev)", "LSTMState(dc_prev, dh_prev)", DENSE),
    Mutant("recurrent mask missing in backward", "cells.base:TwoMapCell.state_map_backward", "saved.geometry), h_mask)", "saved.geometry), None)", DROPOUT),
    Mutant("slopes of another step", AHEAD, "LSTMSlopes(out[k], dc[k])", "LSTMSlopes(out[k], dc[k - 1])", CELL),
    Mutant("slopes forwards", AHEAD, "reversed(range(len(saved)))", "range(len(saved))", CELL),
    Mutant("slopes in the tape's dtype", AHEAD, "xp.result_type(kind, gates)", "gates.dtype", WIDER),
    Mutant("slopes from the cell after the step", "cells.lstm:one_batch", "step.c_prev for", "step.c for", CELL),
    Mutant("peepholes' gradient lost", STEP, 'else {"w_c": dw_c}', 'else {"w_c": 0 * dw_c}', CELL),
    Mutant("derivative of tanh forgotten", "cells.rnn:RNNCell.step_backward", "dstate.h * (1 - saved.h * saved.h)", "dstate.h", RNN),
    Mutant("derivative of tanh from z", "cells.rnn:RNNCell.step_backward", "(1 - saved.h * saved.h)", "(1 - array_module(saved.h).tanh(saved.h) ** 2)", RNN),
    Mutant("reset gate missing on the way to w_hn", "ops.gates:gru_gates_backward", "dz_n * r], axis=1)", "dz_n], axis=1)", GRU),
    Mutant("direct path to h missing", "ops.gates:gru_gates_backward", "dh * u", "0 * dh", GRU),
    Mutant("direct path through 1 - u", "ops.gates:gru_gates_backward", "dz_x, dz_h, dh * u", "dz_x, dz_h, dh * (1 - u)", GRU),
    Mutant("sign of the update gate's gradient", "ops.gates:gru_gates_backward", "(h_prev - n)", "(n - h_prev)", GRU),
    Mutant("reset gate's gradient without z_hn", "ops.gates:gru_gates_backward", "dz_n * z_hn * r * (1 - r)", "dz_n * r * (1 - r)", GRU),
    Mutant("reset gate's gradient from h", "ops.gates:gru_gates_backward", "dz_n * z_hn * r * (1 - r)", "dz_n * h_prev * r * (1 - r)", GRU),
    Mutant("w_h's gradient from the input's dz", "cells.gru:GRUCell.to_state_map", "dz.h", "dz.x", GRU),
    Mutant("w_x's gradient from the state's dz", "cells.gru:GRUCell.to_input_map", "dz.x", "dz.h", GRU),
    Mutant("second bias without the reset gate", "cells.gru:GRUCell.step_backward", "conv_bias_backward(dz_h[:, 2", "conv_bias_backward(dz_x[:, 2", GRU),
    Mutant("map's path to h missing", "cells.gru:GRUCell.step_backward", "add_in_place(dh_map, dh_prev)", "dh_prev", GRU),
    Mutant("direct path masked too", "cells.gru:GRUCell.step_backward", "add_in_place(dh_map, dh_prev)", "dh_map + masked(dh_prev, saved.h_mask)", gradient("cell/ConvGRU 1d recurrent dropout")),
    Mutant("path through r . h missing", "ops.gates:gru_reset_backward", "return dz, dv * r", "return dz, 0 * dv", BEFORE),
    Mutant("reset gate's gradient without h", "ops.gates:gru_reset_backward", "dv * h * r * (1 - r)", "dv * r * (1 - r)", BEFORE),
    Mutant("update gate's gradient negated", "ops.gates:gru_update_backward", "dh * (h_prev - n)", "dh * (n - h_prev)", BEFORE),
    Mutant("maps' path to h missing", RESET, "dh_in = dh_in + correlate_adjoint_x(", "dh_in = dh_in + 0 * correlate_adjoint_x(", BEFORE),
    Mutant("candidate's weights learn from h, not r . h", "cells.gru:ResetBeforeGRUCell.state_backward", "step.candidate_map.x,", "step.gates_map.x,", BEFORE),
    Mutant("first step missing in dw_h", "cells.base:TwoMapCell.state_backward", "self.state_map.add_weight_grads(dzs, frames", "self.state_map.add_weight_grads(dzs[1:], frames[1:]", CELL),
    Mutant("dw_h with the h after the step", "cells.base:TwoMapCell.state_backward", "for step in steps]", "for step in [*steps[1:], steps[-1]]]", CELL),
    Mutant("only one step in dw_x", "cells.base:TwoMapCell.project_backward", "add_weight_grads(dzs, saved.x,", "add_weight_grads(dzs[-1:], saved.x[-1:],", CELL),
    Mutant("frames in the wrong order", "cells.maps:ConvMap.add_weight_grads", "as_array(dzs), as_array(frames)", "as_array(dzs), as_array(frames)[::-1]", CELL),
    Mutant("frames of a dense map in the wrong order", "cells.maps:ConvMap.add_weight_grads", "as_one_batch(frames)", "as_one_batch(frames[::-1])", DENSE),
    Mutant("bias gradient of the last step alone", "cells.maps:ConvMap.add_weight_grads", "add_to(grads, self.b, db)", "grads[self.b] = db", CELL),
    Mutant("dense bias gradient of the last clip alone", "cells.maps:ConvMap.add_weight_grads", "conv_bias_backward(dz)", "conv_bias_backward(dz[-1:])", DENSE),
    Mutant("bias gradient once per map and step", "cells.maps:add_to", "grads[name] += value", "grads[name] += 2 * value", CELL),
    Mutant("gradients overwritten, not added", "cells.maps:add_to", "grads[name] += value", "grads[name] = value", CELL),
    Mutant("dxs of a part written to a copy", "cells.maps:written", "out[...] = make(None).reshape(shape)", "make(None)", PARTS),
    Mutant("frames unevenly spaced taken for a row", "cells.maps:lined_up", "any(b - a != step for a, b in pairwise(places))", "False", test(test_layout.test_frames_are_put_together_however_they_lie, "unevenly")),
    Mutant("dxs in the wrong order", "cells.maps:ConvMap.backward_x", "as_one_batch(dzs)", "as_one_batch(dzs[::-1])", CELL),
    Mutant("bias of a cell without input: one step", "cells.maps:BiasMap.add_weight_grads", "reversed(dzs)", "dzs[:1]", gradient("cell/ConvGRU 1d without input")),
]  # fmt: skip

STEPS, WINDOWS, WHOLE = "loops:steps_backward", "loops:part_truncated_backward", "bptt:backward_in_parts"
AGAIN, FULL = "loops:part_checkpointed_backward", "loops:part_backward"
TWO_RUNS = test(test_bptt.test_bidirectional_is_two_runs, test_bptt.LSTMCell, "concat")
ABSENT = test(test_bptt.test_absent_gradients_count_as_zero, (True, False, False))
PADDED_SUM = test(
    test_bptt.test_a_padded_batchs_gradient_is_the_sum_of_its_clips, test_bptt.LSTMCell, 2, False
)

APART = test(
    test_parallel.test_steps_taken_together_and_apart_give_the_same_bits, test_parallel.LSTMCell, "full"
)
IN_PARTS = test(
    test_parallel.test_parts_in_threads_give_what_the_whole_batch_gives, test_parallel.LSTMCell, "full", {}
)

THROUGH_TIME = [
    Mutant("recurrent dh replaced by dys", STEPS, "dstate.h + dy)", "dy)", DENSE),
    Mutant("dys ignored", STEPS, "dstate.h + dy)", "dstate.h)", DENSE),
    Mutant("dys counted twice", STEPS, "dstate.h + dy)", "dstate.h + 2 * dy)", DENSE),
    Mutant("gradient of the steps' own parameters overwritten", STEPS, "add_to(grads, name, value)", "grads[name] = value", CELL),
    Mutant("steps taken forwards", STEPS, "reversed(range(begin, end))", "range(begin, end)", DENSE),
    Mutant("padded dys not masked", STEPS, "where(tape.alive[t], dys[t], 0)", "dys[t]", PADDED),
    Mutant("gradient passes through ended clips' steps", STEPS, "where(alive, d, 0), dstate)", "d, dstate)", PADDED),
    Mutant("held state's gradient lost", STEPS, "hold(alive, dbefore, dstate)", "dbefore", PADDED),
    Mutant("hold the wrong way round", STEPS, "hold(alive, dbefore, dstate)", "hold(alive, dstate, dbefore)", PADDED_SUM),
    Mutant("mask one step late", STEPS, "alive = tape.alive[t]", "alive = tape.alive[max(t - 1, 0)]", PADDED_SUM),
    Mutant("dys of a reversed scan not turned", WHOLE, "dys = reverse_in_time(dys, tape.lengths)", "pass", REVERSED),
    Mutant("dxs of a reversed scan not turned back", WHOLE, "dxs = reverse_in_time(dxs, tape.lengths)", "pass", REVERSED),
    Mutant("dxs turned without regard to lengths", WHOLE, "reverse_in_time(dxs, tape.lengths)", "reverse_in_time(dxs, None)", REVERSED),
    Mutant("gradient on the last state ignored", FULL, "filled(dstate, tape.last)", "filled(None, tape.last)", DENSE),
    Mutant("absent gradients count as one", "batch:filled", "zeros_like(a)", "ones_like(a)", ABSENT),
    Mutant("block begins one step late", WINDOWS, "max(0, end - k2)", "min(end - 1, max(0, end - k2 + 1))", TRUNCATED),
    Mutant("block begins one step early", WINDOWS, "max(0, end - k2)", "max(0, end - k2 - 1)", TRUNCATED),
    Mutant("loss terms counted in every block that sees them", WINDOWS, "(end - 1) // k1 * k1", "0", TRUNCATED),
    Mutant("loss terms of the block one off", WINDOWS, "(end - 1) // k1 * k1", "(end - 1) // k1 * k1 + 1", TRUNCATED),
    Mutant("last state's gradient in every block", WINDOWS, "dlast if end == T else nothing", "dlast", TRUNCATED),
    Mutant("last state's gradient in no block", WINDOWS, "dlast if end == T else nothing", "nothing", TRUNCATED),
    Mutant("overlapping blocks overwrite dz", STEPS, "map_arrays(lambda a, b: a + b, met.pop(t), dz)", "dz", TRUNCATED),
    Mutant("initial state's gradient of the last block that reaches it", WINDOWS, "map_arrays(lambda a, b: a + b, dinitial, dbegin)", "dbegin", gradient("cell/LSTM 0d peephole channel, truncated k1=1 k2=3")),
    Mutant("blocks start from k1, not k2", WINDOWS, "max(0, end - k2)", "max(0, end - k1)", TRUNCATED),
    Mutant("truncated exactly like the full scan", WINDOWS, "max(0, end - k2)", "0", test(test_gradcheck.test_truncated_backpropagation_is_not_the_gradient_of_the_unfrozen_scan)),
    Mutant("state's gradient not passed between segments", AGAIN, "part_backward(cell, part, dstate, tape", "part_backward(cell, part, dstate if steps.stop >= len(xs) else None, tape", CHECKPOINTED),
    Mutant("segments recomputed from the wrong state", AGAIN, "states[k], steps", "states[0], steps", CHECKPOINTED),
    Mutant("dxs of the wrong segment", AGAIN, "dxs[steps]", "dxs[::-1][steps]", gradient("cell/ConvLSTM 1d, checkpointed every=1")),
    Mutant("recomputed without recurrent mask", AGAIN, "lengths, h_mask)[2]", "lengths, None)[2]", test(test_bptt.test_checkpointed_equals_stored, test_bptt.LSTMCell, 1, 2)),
    Mutant("recomputed without lengths", AGAIN, "every, lengths, h_mask)[2]", "every, None, h_mask)[2]", SEGMENTS),
    Mutant("dys of the wrong segment", AGAIN, "dys[steps]", "dys[:every] if steps.stop <= len(xs) else dys[steps]", CHECKPOINTED),
    Mutant("maps' gradients of the first steps alone", "loops:maps_backward", "tape.steps[begin:end]", "tape.steps[: end - begin]", APART),
    Mutant("dxs of the first steps alone", "loops:maps_backward", "dxs[begin:end]", "dxs[: end - begin]", APART),
    Mutant("projection of the first steps alone", "cells.base:TwoMapCell.projection_of", "saved.x[begin:end]", "saved.x[: end - begin]", APART),
    Mutant("parts' gradients not added", WHOLE, "add_to(grads, name, value)", "pass", IN_PARTS),
    Mutant("parts of dys exchanged", WHOLE, "dys[:, clips]", "dys[:, clips][:, ::-1]", IN_PARTS),
    Mutant("states of a part exchanged", "bptt:forward_in_parts", "cut(state, clips)", "type(state)(*(a[::-1] for a in cut(state, clips)))", IN_PARTS),
    Mutant("directions' gradients exchanged", "layers.recurrent:Bidirectional.backward", '"forward": dy[(*lead, slice(features))]', '"forward": dy[(*lead, slice(features))][::-1]', TWO_RUNS),
    Mutant("second direction's dx lost", "layers.recurrent:Bidirectional.backward", "dx + part", "dx", TWO_RUNS),
    Mutant("input dropout's mask missing in backward", "layers.recurrent:Recurrent.backward_with_state", "dropout_backward(dxs, saved.dropout)", "dxs", test(test_gradcheck.test_layers_over_time_pass_and_report_the_step, "dropout")),
    Mutant("state's gradient lost beside return_sequences", "layers.recurrent:Recurrent.backward_with_state", "dy if empty.h is None else empty.h + dy", "dy", test(test_bptt.test_recurrent_layer_takes_gradients_on_output_and_state, False)),
]  # fmt: skip

MODEL, FED_MODEL = "models.forecaster:Forecaster", "models.forecast_cell:ForecastCell"
PLAIN, FED = gradient("model/forecaster"), gradient("model/forecaster, fed its forecasts")
MIXED = gradient("model/forecaster, scheduled sampling")
FORECASTER = [
    Mutant("encoder learns from the sequence alone", f"{MODEL}.backward", "dsequence, dstates[k], saved.encoder[name]", "dsequence, dstates[k] if k else None, saved.encoder[name]", PLAIN),
    Mutant("head's gradient to the top layer alone", f"{MODEL}.unroll_backward", "if not isinstance(dshown[k], int)", "if k == self.layers - 1", PLAIN),
    Mutant("gradient of the last frame fed lost", f"{MODEL}.backward", "dsequence[-1] += dpatches", "pass", FED),
    Mutant("gradient of the last frame fed at the wrong step", f"{MODEL}.backward", "dsequence[-1] += dpatches", "dsequence[0] += dpatches", FED),
    Mutant("forecast fed back as a constant", f"{FED_MODEL}.fed_backward", "dx * p * (1 - p)", "0 * dx", FED),
    Mutant("forecast's sigmoid forgotten on the way back", f"{FED_MODEL}.fed_backward", "dx * p * (1 - p)", "dx", FED),
    Mutant("coin ignored on the way back", f"{FED_MODEL}.step_backward", "where(saved.coin, 0 * dx, self.fed_backward(dx, p))", "self.fed_backward(dx, p)", MIXED),
    Mutant("upper layer's dx not passed down", f"{FED_MODEL}.step_backward", "dnew.h + dh[k] + dx", "dnew.h + dh[k]", FED),
    Mutant("head's gradient not passed down", f"{FED_MODEL}.step_backward", "dnew.h + dh[k] + dx", "dnew.h + dx", FED),
]  # fmt: skip

BACKWARD = {
    "LSTM gates, backward": GATES_BACKWARD,
    "Cells, backward": CELLS_BACKWARD,
    "Backpropagation through time": THROUGH_TIME,
    "Forecaster, backward": FORECASTER,
}
