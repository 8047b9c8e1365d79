"""Mistakes in the forward pass of recurrent cells: the gates, the maps, the scan.

The published lists of LSTM and ConvLSTM mutants, and defects of public implementations.
"""
# ruff: noqa: E501

from __future__ import annotations

from . import test_bptt, test_cells, test_parallel
from .killers import FRESH, LAST, MOVED, loops, test
from .mutation import Mutant

LSTM, CONV, MAPS = "ops.gates:lstm_gates_forward", "cells.lstm:LSTMCell", "cells.base:TwoMapCell"
DENSE = loops("LSTM", 0, ())
PEEPHOLES = loops("LSTM", 2, (3, 2), peephole="map")
CHANNEL = loops("LSTM", 1, (3,), peephole="channel")
IMAGE = loops("LSTM", 2, (3, 3))
EVEN = loops("LSTM", 2, (2, 4))
PADDED = loops("LSTM", 1, (3,), lengths=[2, 4, 1])
BACKWARDS = loops("LSTM", 1, (3,), lengths=[3, 1, 4], reverse=True)
GRU, BEFORE, ELMAN = loops("GRU", 1, (3,)), loops("GRU reset before", 1, (3,)), loops("RNN", 1, (3,))

SPLIT = "i, f, g, o = split(gates, 4)"
W_X = "self.input_map.project(xs, self.params)"
W_H = "self.state_map.forward(masked(h, h_mask), self.params, plus=z)"
MAP_X = 'self.input_map.project(xs, {{**self.params, "w_x": {}}})'
MAP_H = 'self.state_map.forward(masked(h, h_mask), {{**self.params, "w_h": {}}}, plus=z)'
IN_AND_OUT = (
    'self.params["w_h"].reshape(4, self.features, self.features, *self.kernel).swapaxes(1, 2)'
    '.reshape(self.params["w_h"].shape)'
)

EXCHANGED = [
    Mutant(f"exchange {a} and {b}", LSTM, SPLIT, f"{names} = split(gates, 4)", DENSE)
    for a, b, names in [
        ("i", "f", "f, i, g, o"),
        ("i", "o", "o, f, g, i"),
        ("f", "g", "i, g, f, o"),
        ("f", "o", "i, o, g, f"),
        ("g", "o", "i, f, o, g"),
    ]
]

GATES = [
    *EXCHANGED,
    Mutant("exchange i and g", LSTM, "gates[:, : 2 * F]", "gates[:, F : 3 * F]", DENSE),
    Mutant("no previous cell", LSTM, "xp.multiply(f, c_prev, out", "xp.multiply(f, 0 * c_prev, out", DENSE),
    Mutant("coupled i and f", LSTM, "c += i * g", "c += (1 - f) * g", DENSE),
    Mutant("no input gate", LSTM, "c += i * g", "c += g", DENSE),
    Mutant("candidate through a sigmoid", LSTM, "xp.tanh(i_to_g, out=i_to_g)", "g[...] = xp.arctanh(sigmoid(g)); xp.tanh(i_to_g, out=i_to_g)", DENSE),
    Mutant("h without tanh", LSTM, "LSTMState(o * tanh_c, c)", "LSTMState(o * c, c)", DENSE),
    Mutant("h without output gate", LSTM, "LSTMState(o * tanh_c, c)", "LSTMState(tanh_c, c)", DENSE),
    Mutant("tanh twice", LSTM, "tanh_c = xp.tanh(c)", "tanh_c = xp.tanh(xp.tanh(c))", DENSE),
    Mutant("recur on the candidate", LSTM, "LSTMState(o * tanh_c, c)", "LSTMState(o * tanh_c, g)", DENSE),
    Mutant("stale memory returned", LSTM, "LSTMState(o * tanh_c, c)", "LSTMState(o * tanh_c, c_prev)", DENSE),
    Mutant("input gate's peephole dropped", LSTM, "peephole[:2] *", "xp.stack([0 * peephole[0], peephole[1]]) *", PEEPHOLES),
    Mutant("forget gate's peephole dropped", LSTM, "peephole[:2] *", "xp.stack([peephole[0], 0 * peephole[1]]) *", PEEPHOLES),
    Mutant("output gate's peephole dropped", LSTM, "o += peephole[2] * c", "pass", PEEPHOLES),
    Mutant("output peephole sees the old c", LSTM, "o += peephole[2] * c", "o += peephole[2] * c_prev", PEEPHOLES),
    Mutant("peepholes i, f exchanged", LSTM, "along_features(w_c, z)", "along_features(w_c[[1, 0, 2]], z)", CHANNEL),
    Mutant("peepholes i, o exchanged", LSTM, "along_features(w_c, z)", "along_features(w_c[[2, 1, 0]], z)", CHANNEL),
    Mutant("peepholes f, o exchanged", LSTM, "along_features(w_c, z)", "along_features(w_c[[0, 2, 1]], z)", CHANNEL),
    Mutant("peepholes zero in every call", f"{CONV}.step", 'self.params.get("w_c")', "None", CHANNEL),
    Mutant("peepholes lost when parameters move", "parameters:Parametric.bind", "for name in self.params}", 'for name in self.params if name != "w_c"}', MOVED),
    Mutant("sigmoid too steep", "ops.activations:sigmoid_in_place", "half *= 0.5", "half *= 0.6", DENSE),
    Mutant("forget bias missing", "init:lstm_bias", '[GATES.index("f")] = forget_bias', '[GATES.index("f")] = 0', FRESH),
    Mutant("forget bias on the input gate", "init:lstm_bias", 'GATES.index("f")', 'GATES.index("i")', FRESH),
    Mutant("fans of all gates at once", "init:fans", "shape[0] // gates * taps", "shape[0] * taps", FRESH),
]  # fmt: skip

ROWS = "np.tile(self.params['b'][: self.features], len(self.gates))"
CONVOLUTIONS = [
    Mutant("one gate's bias for all", f"{MAPS}.project", W_X, MAP_X.format(f'self.params["w_x"], "b": {ROWS}'), IMAGE),
    Mutant("kernel on x flipped", f"{MAPS}.project", W_X, MAP_X.format('self.params["w_x"][..., ::-1, ::-1]'), IMAGE),
    Mutant("kernel on h flipped", f"{MAPS}.pre_activations", W_H, MAP_H.format('self.params["w_h"][..., ::-1, ::-1]'), IMAGE),
    Mutant("H and W of the kernel on x exchanged", f"{MAPS}.project", W_X, MAP_X.format('self.params["w_x"].swapaxes(-1, -2)'), IMAGE),
    Mutant("H and W of the kernel on h exchanged", f"{MAPS}.pre_activations", W_H, MAP_H.format('self.params["w_h"].swapaxes(-1, -2)'), IMAGE),
    Mutant("input channels reversed", f"{MAPS}.project", W_X, "self.input_map.project(xs[:, :, ::-1], self.params)", IMAGE),
    Mutant("in and out of the recurrent kernel exchanged", f"{MAPS}.pre_activations", W_H, MAP_H.format(IN_AND_OUT), IMAGE),
    Mutant("recurrent matrix transposed", f"{MAPS}.pre_activations", W_H, MAP_H.format(IN_AND_OUT), DENSE),
    Mutant("edge instead of zero padding", "ops.windows:pad", "xp.zeros(shape, dtype=x.dtype)", "xp.pad(x, ((0, 0), (0, 0), *pads), mode='edge')", IMAGE),
    Mutant("odd pixel of an even kernel before the start", "ops.windows:Window._pads", "tuple((t // 2, t - t // 2) for t in totals)", "tuple((t - t // 2, t // 2) for t in totals)", EVEN),
    Mutant("batch and time exchanged", "ops.conv:frames_of", "xs.reshape(", "xs.swapaxes(0, 1).reshape(", loops("LSTM", 1, (3,))),
    Mutant("state map reads x's part twice", f"{MAPS}.pre_activations", "plus=z", "plus=2 * z", DENSE),
    Mutant("state ignored by the map", f"{MAPS}.pre_activations", "masked(h, h_mask)", "masked(0 * h, h_mask)", DENSE),
    Mutant("mask on x's part too", f"{MAPS}.pre_activations", "plus=z", "plus=z if h_mask is None else 0.5 * z", test(test_cells.test_the_recurrent_mask_is_a_mask_of_the_state_maps_columns, test_cells.LSTMCell)),
    Mutant("recurrent mask ignored", "cells.base:masked", "h if h_mask is None or at_rest(h) else h * h_mask", "h", test(test_cells.test_the_recurrent_mask_is_a_mask_of_the_state_maps_columns, test_cells.RNNCell)),
]  # fmt: skip

OTHERS = [
    Mutant("no tanh", "cells.rnn:RNNCell.step", "array_module(z).tanh(z)", "z", ELMAN),
    Mutant("reset and update exchanged", "ops.gates:gru_gates_forward", "(z_xr, z_xu, z_xn)", "(z_xu, z_xr, z_xn)", GRU),
    Mutant("interpolation the wrong way round", "ops.gates:gru_gates_forward", "(1 - u) * n + u * h_prev", "u * n + (1 - u) * h_prev", GRU),
    Mutant("reset gate on x's part", "ops.gates:gru_gates_forward", "z_xn + r * z_hn", "r * z_xn + z_hn", GRU),
    Mutant("no reset gate", "ops.gates:gru_gates_forward", "z_xn + r * z_hn", "z_xn + z_hn", GRU),
    Mutant("reset gate on the old h as well", "ops.gates:gru_gates_forward", "u * h_prev\n", "u * r * h_prev\n", GRU),
    Mutant("second bias forgotten", "cells.gru:GRUCell.step", 'self.params["b_hn"].reshape', '(0 * self.params["b_hn"]).reshape', GRU),
    Mutant("interpolation with the masked h", "cells.gru:GRUCell.step", "gru_gates_forward(z, z_h, state.h)", "gru_gates_forward(z, z_h, masked(state.h, h_mask))", test(test_cells.test_the_mask_spares_the_grus_interpolation, test_cells.GRUCell)),
    Mutant("candidate sees h, not r . h", "cells.gru:ResetBeforeGRUCell.step", "self.state_map.forward(v, w_n", "self.state_map.forward(h_in, w_n", BEFORE),
    Mutant("reset after the map instead of before", "cells.gru:ResetBeforeGRUCell.step", "self.state_map.forward(v, w_n", "self.state_map.forward(reset.r * h_in * reset.r, w_n", BEFORE),
    Mutant("reset and update exchanged (before)", "ops.gates:gru_reset_forward", "r, u = split", "u, r = split", BEFORE),
    Mutant("interpolation the wrong way round (before)", "ops.gates:gru_update_forward", "(1 - u) * n + u * h_prev", "u * n + (1 - u) * h_prev", BEFORE),
]  # fmt: skip

APART = test(
    test_parallel.test_steps_taken_together_and_apart_give_the_same_bits, test_parallel.LSTMCell, "full"
)
SCAN, LOOP = "bptt:scan", "loops:part_forward"
TIME = [
    Mutant("state not passed on", LOOP, "cell.step(zs[t], state, h_mask)", "cell.step(zs[t], cell.initial_state(xs[0]), h_mask)", DENSE),
    Mutant("given state ignored", LOOP, "if from_rest else state", "", DENSE),
    Mutant("reversed output not flipped back", SCAN, "(reverse_in_time(ys, lengths) if reverse else ys)", "ys", BACKWARDS),
    Mutant("reversed input read forwards", SCAN, "xs = reverse_in_time(xs, lengths)", "pass", BACKWARDS),
    Mutant("reversed without regard to lengths", "batch:reverse_in_time", "if lengths is None", "if True", BACKWARDS),
    Mutant("reversed one step off", "batch:reverse_in_time", "lengths - 1 - t", "lengths - 2 - t", BACKWARDS),
    Mutant("lengths ignored", "batch:alive_steps", "lengths is None", "True", PADDED),
    Mutant("lengths one too long", "batch:alive_steps", "[:, None] < lengths", "[:, None] <= lengths", PADDED),
    Mutant("outputs beyond the length not zero", LOOP, "where(alive[t], new.h, 0)", "new.h", PADDED),
    Mutant("state not held beyond the length", LOOP, "hold(alive[t], new, state)", "new", PADDED),
    Mutant("c not held beyond the length", LOOP, "hold(alive[t], new, state)", "new._replace(h=hold(alive[t], new, state).h)", PADDED),
    Mutant("dead clips go on, living ones are held", "batch:hold", "where(alive, a, b)", "where(alive, b, a)", PADDED),
    Mutant("last state of the padded step", "layers.recurrent:Recurrent.forward", "ys if self.return_sequences else state.h", "ys if self.return_sequences else ys[-1]", LAST),
    Mutant("second direction not reversed", "layers.recurrent:Bidirectional.__init__", "reverse=True", "reverse=False", test(test_bptt.test_bidirectional_is_two_runs, test_bptt.LSTMCell, "concat")),
    Mutant("checkpointed scan forgets the state between segments", "loops:part_checkpointed", "state = segment(cell, xs, state, begin", "state = segment(cell, xs, states[0], begin", test(test_bptt.test_checkpointed_equals_stored, test_bptt.LSTMCell, 1, 2)),
    Mutant("zs of the wrong step", "cells.maps:Projected.__getitem__", "self.zs[t - self.begin]", "self.zs[0]", IMAGE),
    Mutant("zs of the first steps again", "cells.maps:Projected.__getitem__", "self.saved.x[self.begin : self.begin + self.size]", "self.saved.x[: self.size]", APART),
    Mutant("segments keep their full lengths", "loops:segment", "lengths - begin", "lengths", test(test_bptt.test_checkpointed_equals_stored, test_bptt.LSTMCell, 1, 2)),
]  # fmt: skip

FORWARD = {
    "LSTM gates": GATES,
    "Maps": CONVOLUTIONS,
    "RNN and GRU": OTHERS,
    "Scan": TIME,
}
