"""Mistakes in the layouts of other frameworks, in OpenSTL's model and in the detector of dead weights."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyconvlstm import interop
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell
from tinyconvlstm.layers import Conv

from . import test_dead, test_interop, test_interop_keras, test_interop_onnx, test_openstl
from . import test_interop_layouts as layouts
from .killers import gradient, seeded, test
from .mutation import Killer, Mutant


def refuses(what: str, call: Callable[[], Any], message: str) -> Killer:
    """The call raises a ValueError that says so."""

    def run() -> None:
        said = ""
        try:
            call()
        except ValueError as error:
            said = str(error)
        assert message in said

    return Killer(f"refusal of {what}", run)


def lstm_state(**change: Any) -> dict[str, np.ndarray]:
    """A state_dict of one LSTM layer with keys changed."""
    shapes = {**test_interop.SHAPES, **change}
    return {k: seeded().standard_normal(s) for k, s in shapes.items() if s is not None}


def onnx(build: type, direction: str = "bidirectional", **settings: str) -> Killer:
    return test(test_interop_onnx.test_onnx_round_trip, build, settings, direction)


REORDER = test(test_interop.test_reorder_moves_whole_blocks)
AXES = test(test_interop.test_axes_come_back)
BIASES = test(test_interop.test_pytorch_adds_its_two_biases)
GRU_BIASES = test(test_interop.test_pytorch_gru_keeps_the_bias_inside_the_reset_gate)
BOTH_WAYS = test(test_interop.test_pytorch_round_trip, "LSTM", "both ways")
GRU_ROUND = test(test_interop.test_pytorch_round_trip, "GRU", "two")
EVEN = refuses(
    "an uneven 'same_lower'",
    lambda: interop.conv_to_pytorch(Conv(2, 3, (2, 3), padding="same_lower")),
    "pads the other end",
)
TORCH, LAYOUT = "interop.pytorch", "interop.layout"
PYTORCH = [
    Mutant("blocks in the source's order", f"{LAYOUT}:reorder", "for gate in target", "for gate in source", REORDER),
    Mutant("kernel's channels exchanged", f"{LAYOUT}:channels_first", "(-1, -2), (0, 1)", "(-2, -1), (0, 1)", AXES),
    Mutant("kernel's channels exchanged on the way out", f"{LAYOUT}:channels_last", "(0, 1), (-1, -2)", "(0, 1), (-2, -1)", AXES),
    Mutant("arrays of the state_dict shared", f"{LAYOUT}:Weights.__init__", "np.asarray(a).copy()", "np.asarray(a)", test(test_interop.test_what_is_read_shares_no_memory)),
    Mutant("unknown keys passed over", f"{LAYOUT}:Weights.done", "set(self.arrays) - self.taken", "set()", refuses("an unknown key", lambda: interop.lstm_from_pytorch(lstm_state(weight_xx_l0=(2,))), "key 'weight_xx_l0' is unknown")),
    Mutant("shapes not compared", f"{LAYOUT}:Weights.take", "n not in (None, m)", "False", refuses("a wrong shape", lambda: interop.lstm_from_pytorch(lstm_state(bias_ih_l0=(1,))), "bias_ih_l0 has shape (1,), expected (20)")),
    Mutant("dtypes not compared", f"{LAYOUT}:Weights.take", "self.dtype = a.dtype", "pass", refuses("two dtypes", lambda: interop.lstm_from_pytorch(lstm_state() | {"bias_hh_l0": np.zeros(20, np.float32)}), "bias_hh_l0 has dtype float32, expected float64")),
    Mutant("peepholes dropped", f"{LAYOUT}:plain", '"w_c" in cell.params', "False", refuses("peepholes", lambda: interop.lstm_to_pytorch(LSTMCell(2, 3, peephole="channel")), "cell has peepholes")),
    Mutant("sums written as if concatenated", f"{LAYOUT}:directions", 'layer.merge != "concat"', "False", refuses("a sum of directions", lambda: interop.lstm_to_pytorch(test_interop.REFUSED["summed"][0]), "merge is 'sum'")),
    Mutant("second bias left out", f"{TORCH}:lstm_cell_from", '+ arrays["bias_hh"]', "", BIASES),
    Mutant("second bias written once more", f"{TORCH}:lstm_cell_to", "np.zeros_like(p[\"b\"])", "p[\"b\"]", BOTH_WAYS),
    Mutant("GRU's candidate bias leaves the reset gate", f"{TORCH}:gru_cell_from", "b[: 2 * F] += second[: 2 * F]", "b += second", GRU_BIASES),
    Mutant("GRU's reset bias as b_hn", f"{TORCH}:gru_cell_from", '"b_hn": second[2 * F :]', '"b_hn": second[:F]', GRU_BIASES),
    Mutant("b_hn written to the reset gate", f"{TORCH}:gru_cell_to", 'np.zeros(2 * F, p["b"].dtype), p["b_hn"]', 'p["b_hn"], np.zeros(2 * F, p["b"].dtype)', GRU_ROUND),
    Mutant("directions exchanged on the way out", f"{TORCH}:layers_to", '("", "_reverse")', '("_reverse", "")', BOTH_WAYS),
    Mutant("uneven padding taken for 'same'", f"{TORCH}:alike", "d * (k - 1) % 2", "0 * k", EVEN),
    Mutant("dilation forgotten on the way out", f"{TORCH}:conv_to_pytorch", '"dilation": window.dilation', '"dilation": 1', test(test_interop.test_pytorch_conv_round_trip, "2d same, even")),
]  # fmt: skip

CONCAT = test(layouts.test_concatenated_kernel_is_two_convolutions, (3, 5), "gifo", "hx")
XH = test(layouts.test_concatenated_kernel_is_two_convolutions, (3,), "ifog", "xh")
KERAS_LSTM = test(test_interop_keras.test_keras_lstm_round_trip)
KERAS_GRU = test(test_interop_keras.test_keras_gru_round_trips)
SPECIFIED = test(test_interop_onnx.test_onnx_blocks_lie_where_the_specification_says)
BOTH_BIASES = [test(test_interop_onnx.test_onnx_adds_its_two_biases, reset) for reset in (0, 1)]
KERAS, ONNX, JOINED = "interop.keras", "interop.onnx", "interop.concat"
LAYERS = [
    Mutant("gates of [x, h] not reordered", f"{JOINED}:cell_from", "w = reorder(w, order, LSTM_ORDER)", "pass", XH),
    Mutant("bias of [x, h] not reordered", f"{JOINED}:cell_from", "else reorder(b, order, LSTM_ORDER)", "else b", XH),
    Mutant("orders exchanged on the way in", f"{JOINED}:cell_from", "w = reorder(w, order, LSTM_ORDER)", "w = reorder(w, LSTM_ORDER, order)", CONCAT),
    Mutant("orders exchanged on the way out", f"{JOINED}:cell_to", "reorder(w, LSTM_ORDER, order)", "reorder(w, order, LSTM_ORDER)", CONCAT),
    Mutant("[h, x] read as [x, h]", f"{JOINED}:cell_from", 'concat == "xh"', "True", CONCAT),
    Mutant("[x, h] written as [h, x]", f"{JOINED}:cell_to", 'concat == "xh"', "False", XH),
    Mutant("even kernels let through", f"{JOINED}:check_odd", "k % 2 == 0", "False", refuses("an even kernel", lambda: interop.convlstm_to_pytorch(ConvLSTMCell(2, 3, (3, 2))), "expected odd sizes")),
    Mutant("another stride let through", f"{JOINED}:cell_to", "!= Window(", "is Window(", refuses("a stride", lambda: interop.convlstm_to_pytorch(ConvLSTMCell(2, 3, (3,), stride=2)), "expected 1, 'same', 1")),
    Mutant("another state kernel let through", f"{LAYOUT}:one_kernel", "cell.state_map.kernel != cell.kernel", "False", refuses("a state kernel", lambda: interop.convlstm_to_keras(ConvLSTMCell(2, 3, (3,), state_kernel=(5,))), "state_kernel is (5,)")),
    Mutant("state dilation let through", f"{LAYOUT}:one_kernel", "set(entries(cell.state_map.dilation, cell.kernel)) - {1}", "set()", refuses("a state dilation", lambda: interop.convlstm_to_keras(ConvLSTMCell(2, 3, (3,), state_dilation=2)), "state_dilation is 2")),
    Mutant("Keras matrices not transposed", f"{KERAS}:in_keras", 'channels_last(cell.params["w_x"])', 'cell.params["w_x"]', KERAS_LSTM),
    Mutant("Keras GRU's z taken for r", f"{KERAS}:gru_from_keras", "reorder(w, KERAS_GRU_ORDER, GRU_ORDER)", "w", KERAS_GRU),
    Mutant("Keras GRU's biases not reordered", f"{KERAS}:gru_from_keras", "b = reorder(b, KERAS_GRU_ORDER, GRU_ORDER, axis=-1)", "pass", KERAS_GRU),
    Mutant("Keras GRU's b_hn in the wrong block", f"{KERAS}:gru_to_keras", "reorder(second, GRU_ORDER, KERAS_GRU_ORDER)", "second[::-1]", KERAS_GRU),
    Mutant("Keras's causal padding after the end", f"{KERAS}:conv_from_keras", "(kernel[0] - 1), 0)", "(kernel[0] - 1), 0)[::-1]", test(test_interop_keras.test_keras_conv_round_trip, "1d causal")),
    Mutant("pixels of padding called valid", f"{KERAS}:layer_settings", "not any(map(any, pads))", "True", refuses("pixels of padding", lambda: interop.convlstm_to_keras(ConvLSTMCell(2, 3, (3,), padding=1)), "expected 'valid' or 'same'")),
    Mutant("Keras's strides forgotten", f"{KERAS}:convlstm_from_keras", '"stride": strides', '"stride": 1', test(test_interop_keras.test_keras_convlstm_round_trip, "1d")),
    Mutant("ONNX gates in our order", f"{ONNX}:gate_tensors", "reorder(cell.params[key], ours, theirs)", "cell.params[key]", SPECIFIED),
    Mutant("ONNX gates of W and R not reordered", f"{ONNX}:gate_arrays", "reorder(a, theirs, ours, axis=1)", "a", onnx(LSTMCell)),
    Mutant("ONNX biases not reordered", f"{ONNX}:gate_arrays", "reorder(b.reshape(D, 2, rows), theirs, ours, axis=2)", "b.reshape(D, 2, rows)", BOTH_BIASES[0]),
    Mutant("ONNX peepholes in the gates' order", f"{ONNX}:lstm_from_onnx", "ONNX_PEEPHOLE_ORDER, PEEPHOLE_ORDER", "PEEPHOLE_ORDER, PEEPHOLE_ORDER", onnx(LSTMCell, peephole="channel")),
    Mutant("ONNX peepholes written in ours", f"{ONNX}:lstm_to_onnx", "reorder(row, PEEPHOLE_ORDER, ONNX_PEEPHOLE_ORDER)", "row", SPECIFIED),
    Mutant("ONNX second bias left out", f"{ONNX}:gru_from_onnx", 'params["b"] = both[d, 0] + both[d, 1]', 'params["b"] = both[d, 0]', BOTH_BIASES[0]),
    Mutant("ONNX candidate's bias leaves the reset gate", f"{ONNX}:gru_from_onnx", "np.where(inside, 0, both[d, 1])", "both[d, 1]", BOTH_BIASES[1]),
    Mutant("ONNX reset before and after exchanged", f"{ONNX}:gru_to_onnx", "int(kinds == {GRUCell})", "int(kinds != {GRUCell})", onnx(GRUCell)),
    Mutant("ONNX reverse read forwards", f"{ONNX}:layer_of", 'reverse=direction == "reverse"', "reverse=False", onnx(ResetBeforeGRUCell, "reverse")),
    Mutant("ONNX clipping passed over", f"{ONNX}:opened", "!= expected:", "is None:", refuses("a clip", lambda: interop.lstm_from_onnx({"W": np.zeros((1, 20, 3)), "R": np.zeros((1, 20, 5))}, clip=3.0), "clip is 3.0")),
    Mutant("ONNX pads by axis, not by end", f"{ONNX}:conv_to_onnx", "[*before, *after]", "[p for pair in zip(before, after) for p in pair]", test(test_interop_onnx.test_onnx_conv_round_trip, "2d uneven")),
    Mutant("ONNX SAME_LOWER as SAME_UPPER", f"{ONNX}:conv_from_onnx", "AUTO_PAD.get(auto,", 'AUTO_PAD.get(auto.replace("LOWER", "UPPER"),', test(test_interop_onnx.test_onnx_conv_round_trip, "2d groups")),
    Mutant("OpenSTL patches taken for ours", "interop.openstl:channel_by_channel", ".swapaxes(axis, axis + 1)", "", test(layouts.test_openstl_round_trip)),
    Mutant("OpenSTL patches written as ours", "interop.openstl:pixel_by_pixel", ".swapaxes(axis, axis + 1)", "", test(layouts.test_openstl_round_trip)),
]  # fmt: skip

OPENSTL, HAND = (
    "models.openstl:OpenSTLForecaster",
    test(test_openstl.test_forecasts_equal_a_roll_out_by_hand, 3, "numpy"),
)
MODEL = gradient("model/OpenSTL 2d")
TRUTH = test(test_openstl.test_truth_takes_the_place_of_forecasts)
SMALL = test(test_dead.test_openstl_at_a_small_size, (3, 2), "numpy")
NOTHING = test(test_dead.test_weights_that_start_at_zero_are_not_dead)
PUBLISHED = test(test_openstl.test_counts_by_arithmetic_equal_built_models)
STACK = [
    Mutant("forecast fed back halved", "models.openstl:LinearForecastCell.fed", "return h", "return h / 2", HAND),
    Mutant("forecast fed back as a constant", "models.openstl:LinearForecastCell.fed_backward", "return dx", "return 0 * dx", MODEL),
    Mutant("last known frame not read", f"{OPENSTL}.forward", "< T\n", "< T - 1\n", HAND),
    Mutant("truth a frame late", f"{OPENSTL}.forward", "truth[:-1]", "truth[1:]", TRUTH),
    Mutant("coins turned over", f"{OPENSTL}.forward", "[..., 0] < truth_rate", "[..., 0] > truth_rate", TRUTH),
    Mutant("gradient of later frames given for earlier", f"{OPENSTL}.backward", "dtrue[: saved.observed]", "dtrue[-saved.observed :]", MODEL),
    Mutant("unused weights pulled by the head", f"{OPENSTL}.backward", "xp.zeros_like(a)", "xp.ones_like(a)", test(test_openstl.test_what_is_unused_has_a_gradient_of_zero)),
    Mutant("1x1 convolution not counted", "models.openstl:openstl_counts", "(taps + 1)", "taps", PUBLISHED),
    Mutant("head counted for the first layer", "models.openstl:openstl_counts", "depth * features[-1]", "depth * features[0]", PUBLISHED),
    Mutant("parameters not moved", "dead:reached", "a + noise(rng, a, spread)", "a", NOTHING),
    Mutant("one trial's reach forgotten", "dead:reached", "seen |=", "seen[...] =", test(test_dead.test_dropout_and_relu_kill_nothing_for_good)),
    Mutant("small gradients taken for none", "dead:reached", "to_numpy(grads[name]) != 0", "abs(to_numpy(grads[name])) > 1", SMALL),
    Mutant("live counted for dead", "dead:report", "(~seen).sum()", "seen.sum()", SMALL),
]  # fmt: skip

INTEROP = {
    "Layouts of PyTorch": PYTORCH,
    "Layouts of Keras, ONNX and others": LAYERS,
    "OpenSTL's stack and dead weights": STACK,
}
