"""Attention: its pairs against naive loops, and the identities that tie each to something known."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import (
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
)
from tinyconvlstm.cells import (
    ContextGateLSTMCell,
    InputAttentionLSTMCell,
    InputGateAttentionLSTMCell,
    LSTMCell,
    OutputGateAttentionLSTMCell,
    attention_maps,
)
from tinyconvlstm.gradcheck import gradcheck
from tinyconvlstm.gradcheck.layers import layer_case
from tinyconvlstm.layers import Bidirectional, Recurrent, TemporalAttention

from . import oracles_attention as naive
from .oracles import DTYPES, assert_pair_agrees, random, run_pair
from .test_cells import setting
from .test_memory import assert_the_formula_holds
from .test_summary import kept
from .test_variants import same

SOFTMAX = (ops.masked_softmax_forward, ops.masked_softmax_backward)
PEAK = (ops.peak_softmax_forward, ops.peak_softmax_backward)
ATTEND = (ops.attend_forward, ops.attend_backward)
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


def bad(message: str, kind: type[Exception] = ValueError) -> Any:
    return pytest.raises(kind, match=message)


def some_mask(shape: tuple[int, ...], axis: int, seed: int = 3) -> np.ndarray:
    """Random, with one place at least in every row along an axis."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) > 0.5
    mask.swapaxes(0, axis)[rng.integers(shape[axis])] = True
    return mask


# --- the pairs ---


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_masked_softmax_equals_naive_loops(axis, backend):
    x, mask = 3 * random(1, (4, 3, 5)), some_mask((4, 3, 5), axis)
    for given in (None, mask):
        y, _, _ = run_pair(SOFTMAX, x, backend=backend, mask=given, axis=axis)
        np.testing.assert_allclose(y, naive.masked_softmax(x, given, axis), **CLOSE)
        assert_pair_agrees(SOFTMAX, x, backend=backend, mask=given, axis=axis)


def test_what_is_masked_is_exactly_zero_and_never_read():
    x, mask = random(1, (4, 3)), some_mask((4, 3), 0)
    y, _, dx = run_pair(SOFTMAX, x, mask=mask, axis=0)
    assert not y[~mask].any()
    assert not dx[~mask].any()
    np.testing.assert_allclose(y.sum(axis=0), 1, rtol=1e-14)
    for worst in (np.nan, np.inf, 1e300):
        other, _, dother = run_pair(SOFTMAX, np.where(mask, x, worst), mask=mask, axis=0)
        np.testing.assert_array_equal(other, y)
        np.testing.assert_array_equal(dother, dx)


def test_a_masked_row_is_the_softmax_of_what_is_left():
    x = random(1, (2, 6))
    mask = np.array([True, False, True, True, False, True])
    y, dy, dx = run_pair(SOFTMAX, x, mask=mask)
    saved = ops.softmax_forward(x[:, mask])
    np.testing.assert_allclose(y[:, mask], saved[0], **CLOSE)
    np.testing.assert_allclose(dx[:, mask], ops.softmax_backward(dy[:, mask], saved[1]), **CLOSE)


def test_large_numbers_do_not_overflow():
    x = np.array([[1e4, 1e4 + 1, -1e4]])
    y, _ = ops.masked_softmax_forward(x, mask=np.array([True, True, True]))
    np.testing.assert_allclose(y, [[1 / (1 + np.e), np.e / (1 + np.e), 0]], rtol=1e-12)
    peak, _ = ops.peak_softmax_forward(x[:, None])
    np.testing.assert_allclose(peak, [[[np.exp(-1), 1, 0]]], rtol=1e-12)


def test_a_wholly_masked_row_is_refused(backend):
    mask = np.array([[True, False], [False, False], [False, False]])
    x = to_backend(np.ones((3, 2)), backend)
    with bad("mask leaves nothing in 2 rows along axis 1, expected at least one True in each"):
        ops.masked_softmax_forward(x, mask=to_backend(mask, backend))
    with bad("mask leaves nothing in 1 rows along axis 0"):
        ops.masked_softmax_forward(x, mask=to_backend(mask, backend), axis=0)
    with bad("mask has dtype float64, expected booleans"):
        ops.masked_softmax_forward(x, mask=x)


def test_a_wholly_masked_row_is_never_a_row_of_nan():
    y = None
    with np.errstate(invalid="ignore"), contextlib.suppress(ValueError):
        y, _ = ops.masked_softmax_forward(np.ones((2, 3)), mask=np.array([[True], [False]]))
    assert y is None


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 5), (2, 3, 4, 3)])
def test_peak_softmax_equals_naive_loops(shape, backend):
    x = 2 * random(1, shape)
    y, _, _ = run_pair(PEAK, x, backend=backend)
    np.testing.assert_allclose(y, naive.peak_softmax(x), **CLOSE)
    assert_pair_agrees(PEAK, x, backend=backend)


def test_peak_softmax_is_softmax_by_its_largest_value():
    x = random(1, (2, 3, 7))
    y, _ = ops.peak_softmax_forward(x)
    plain, _ = ops.softmax_forward(x, axis=2)
    np.testing.assert_allclose(y, plain / plain.max(axis=2, keepdims=True), **CLOSE)
    assert (y.max(axis=2) == 1).all()
    _, _, dx = run_pair(PEAK, x)
    np.testing.assert_allclose(dx.sum(axis=2), 0, atol=1e-14)  # a constant more in x changes nothing


@pytest.mark.parametrize("scale", [1.0, 3**-0.5])
def test_attend_equals_naive_loops(scale, backend):
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    for mask in (None, some_mask((2, 5, 4), 2), some_mask((1, 1, 4), 2)):
        y, _, _ = run_pair(ATTEND, q, k, v, backend=backend, scale=scale, mask=mask)
        np.testing.assert_allclose(y, naive.attend(q, k, v, scale, mask), **CLOSE)
        assert_pair_agrees(ATTEND, q, k, v, backend=backend, scale=scale, mask=mask)


def test_equal_scores_attend_to_the_mean():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    y, saved = ops.attend_forward(0 * q, k, v)
    np.testing.assert_allclose(y, np.broadcast_to(v.mean(axis=2, keepdims=True), y.shape), **CLOSE)
    np.testing.assert_allclose(saved.weights.y, 0.25, rtol=1e-15)


def test_one_place_to_look_at_is_copied():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    mask = np.arange(4) == 2
    y, dy, (dq, dk, dv) = run_pair(ATTEND, q, k, v, mask=mask)
    np.testing.assert_allclose(y, np.broadcast_to(v[:, :, 2:3], y.shape), **CLOSE)
    np.testing.assert_allclose(dv[:, :, 2], dy.sum(axis=2), **CLOSE)
    assert not dv[:, :, ~mask].any()
    np.testing.assert_allclose(dq, 0, atol=1e-15)
    np.testing.assert_allclose(dk, 0, atol=1e-15)


def test_permuting_the_places_looked_at_changes_nothing():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    order = [2, 0, 3, 1]
    y, _ = ops.attend_forward(q, k, v)
    np.testing.assert_allclose(ops.attend_forward(q, k[..., order], v[..., order])[0], y, **CLOSE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_stay(dtype, backend):
    q, k, v = (
        random(s, shape).astype(dtype) for s, shape in ((1, (2, 3, 5)), (2, (2, 3, 4)), (3, (2, 6, 4)))
    )
    mask = np.arange(4) < 3
    for pair, arrays, settings in (
        (ATTEND, (q, k, v), {"scale": 3**-0.5, "mask": mask}),
        (PEAK, (q,), {}),
        (SOFTMAX, (k,), {"mask": mask, "axis": 2}),
    ):
        y, _, grads = run_pair(pair, *arrays, backend=backend, **settings)
        assert y.dtype == dtype
        assert all(g.dtype == dtype for g in (grads if isinstance(grads, tuple) else (grads,)))


def test_shapes_that_do_not_fit_are_refused():
    q, k, v = random(1, (2, 3, 5)), random(2, (2, 3, 4)), random(3, (2, 6, 4))
    for wrong in ((q[:, :2], k, v), (q, k, v[..., 1:]), (q[0], k, v), (q[:1], k, v)):
        with bad(r"expected \(N, D, P\), \(N, D, R\) and \(N, E, R\)"):
            ops.attend_forward(*wrong)
    with bad("dtypes differ", TypeError):
        ops.attend_forward(q.astype(np.float32), k, v)


# --- cells: naive loops, gradients, threads, lengths and the table of costs are in test_variants and the zoo ---

CELLS = {
    "input attention": InputAttentionLSTMCell,
    "context gates": ContextGateLSTMCell,
    "attention for i": InputGateAttentionLSTMCell,
    "attention for o": OutputGateAttentionLSTMCell,
}
EACH = pytest.mark.parametrize("build", CELLS.values(), ids=CELLS)


def plain(cell: Any, kernel: tuple[int, ...]) -> LSTMCell:
    """The plain cell with the weights that both have."""
    made = LSTMCell(cell.channels, cell.features, kernel, dtype=np.float64)
    return made.bind({name: cell.params[name] for name in made.params})


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 4), (2, 3, 2)])
def test_equal_attention_is_the_plain_cell_on_x_over_the_number_of_positions(size, rng):
    kernel = (3, 2, 1)[: len(size)]
    cell, xs, state = setting(rng, InputAttentionLSTMCell(2, 3, kernel), size)
    cell = cell.bind({**cell.params, "w_z": 0 * cell.params["w_z"]})
    ys, last, tape = scan(cell, xs, state)
    positions = int(np.prod(size))
    expected, ends, other = scan(plain(cell, kernel), xs / positions, state)
    if positions == 8:  # 1 / 8 is a binary fraction: the same bits
        np.testing.assert_array_equal(ys, expected)
    np.testing.assert_allclose(ys, expected, **CLOSE)
    dys = rng.standard_normal(ys.shape)
    dxs, dstate, grads = scan_backward(cell, dys, last, tape)
    dxs_plain, dstate_plain, grads_plain = scan_backward(plain(cell, kernel), dys, ends, other)
    np.testing.assert_allclose(dxs, dxs_plain / positions, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dstate.h, dstate_plain.h, rtol=1e-11, atol=1e-13)
    for name, g in grads_plain.items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-11, atol=1e-13)
    assert not grads["w_xa"].any()  # what the scores would read does not matter, but w_z itself does
    assert grads["w_z"].any()


def test_attention_sums_to_one_and_scales_every_channel_alike(rng):
    cell, xs, state = setting(rng, InputAttentionLSTMCell(2, 3, (3, 2)), (3, 4))
    _, _, tape = scan(cell, xs, state)
    maps = attention_maps(tape)
    assert [A.shape for A in maps] == [(2, 3, 4)] * len(xs)
    for A, x, step in zip(maps, xs, tape.steps, strict=True):
        np.testing.assert_allclose(A.sum(axis=(1, 2)), 1, rtol=1e-13)
        assert A.min() > 0
        assert A.std() > 0
        np.testing.assert_allclose(step.seen.x, A[:, None] * x, **CLOSE)


def test_attention_finds_what_its_weights_ask_for(rng):
    """A score that is the frame's own brightness, made steep: the brightest pixel is all the cell sees."""
    cell, xs, state = setting(rng, InputAttentionLSTMCell(1, 1, (1, 1)), (3, 4))
    one = np.ones((1, 1, 1, 1))
    steep = {"w_xa": 0.1 * one, "w_ha": 0 * one, "b_a": np.zeros(1), "w_z": 5000 * one}
    _, _, tape = scan(cell.bind({**cell.params, **steep}), xs, state)
    for A, x in zip(attention_maps(tape), xs, strict=True):
        np.testing.assert_array_equal(A.reshape(2, -1).argmax(axis=1), x.reshape(2, -1).argmax(axis=1))
        assert (A.max(axis=(1, 2)) > 0.9).all()


def test_without_space_attention_has_nothing_to_choose(rng):
    cell, xs, state = setting(rng, InputAttentionLSTMCell(2, 3), ())
    same(cell, plain(cell, ()), xs, state)


def test_without_space_pooled_gates_are_gates(rng):
    cell, xs, state = setting(rng, ContextGateLSTMCell(2, 3), ())
    p, arrays = cell.params, {}
    for name, own, pooled in (("w_x", "w_x", "w_xp"), ("w_h", "w_h", "w_hp"), ("b", "b", "b_p")):
        i, f, o = np.split(p[pooled], 3)
        arrays[name] = np.concatenate([i, f, p[own], o])
    same(cell, LSTMCell(2, 3).bind(arrays), xs, state)


def test_pooled_gates_do_not_know_where_a_pixel_is(rng):
    """With one tap nothing else does: shuffled pixels give the shuffled result."""
    cell, xs, state = setting(rng, ContextGateLSTMCell(2, 3, (1, 1)), (3, 4))
    order = rng.permutation(12)

    def shuffled(a: np.ndarray) -> np.ndarray:
        return a.reshape(*a.shape[:-2], 12)[..., order].reshape(a.shape)

    ys, _, tape = scan(cell, xs, state)
    other, _, _ = scan(cell, shuffled(xs), type(state)(*(shuffled(a) for a in state)))
    np.testing.assert_allclose(other, shuffled(ys), rtol=1e-11, atol=1e-13)
    assert all(tape.steps[0].gates[name].shape == (2, 3, 1, 1) for name in "ifo")


@pytest.mark.parametrize(
    ("build", "gate"), [(InputGateAttentionLSTMCell, "i"), (OutputGateAttentionLSTMCell, "o")]
)
def test_equal_attention_is_an_open_gate(build, gate, rng):
    cell, xs, state = setting(rng, build(2, 3, (3, 2)), (3, 4))
    p = cell.params
    cell = cell.bind({**p, "w_z": 0 * p["w_z"]})
    arrays = {name: p[name][3:] for name in ("w_x", "w_h", "b")}  # the candidate's rows
    at = "ifo".index(gate) * 3
    for name in ("w_xp", "w_hp", "b_p"):
        arrays[name] = np.insert(p[name], [at] * 3, 40 if name == "b_p" else 0, axis=0)  # sigmoid(40) is 1
    same(cell, ContextGateLSTMCell(2, 3, (3, 2)).bind(arrays), xs, state)


@pytest.mark.parametrize(
    ("build", "gate"), [(InputGateAttentionLSTMCell, "i"), (OutputGateAttentionLSTMCell, "o")]
)
def test_a_gate_by_attention_is_one_somewhere_in_every_channel(build, gate, rng):
    cell, xs, state = setting(rng, build(2, 3, (3, 2)), (3, 4))
    for step in scan(cell, xs, state)[2].steps:
        found = step.gates[gate].reshape(2, 3, 12)
        np.testing.assert_array_equal(found.max(axis=2), 1)
        assert found.min() > 0
        assert step.gates["f"].shape == (2, 3, 1, 1)


def test_a_frame_of_equal_pixels_is_pooled_to_a_pixel(rng):
    """One tap on constant frames and states: every position is the dense cell."""
    cell, xs, state = setting(rng, ContextGateLSTMCell(2, 3, (1, 1)), (1, 1))
    wide = [np.broadcast_to(a, (*a.shape[:-2], 3, 4)) for a in (xs, *state)]
    ys, _, _ = scan(cell, wide[0], type(state)(*wide[1:]))
    expected, _, _ = scan(cell, xs, state)
    np.testing.assert_allclose(ys, np.broadcast_to(expected, ys.shape), rtol=1e-12, atol=1e-14)


def test_pooled_gates_over_strided_frames_and_without_input(rng):
    cell, xs, state = setting(rng, ContextGateLSTMCell(2, 3, (3, 2), stride=(2, 1)), (5, 4))
    ys, last, tape = scan(cell, xs, state)
    assert ys.shape == (3, 2, 3, 3, 4)
    assert scan_backward(cell, ys, last, tape)[0].shape == xs.shape
    cell, xs, state = setting(rng, ContextGateLSTMCell(0, 3, (3, 2)), (5, 4))
    ys, last, tape = scan(cell, xs, state)
    dxs, _, grads = scan_backward(cell, ys, last, tape)
    assert dxs.shape == xs.shape == (3, 2, 0, 5, 4)
    assert grads.keys() == cell.params.keys()
    assert "w_xp" not in grads


@EACH
def test_padded_clips_are_clips_of_their_own(build, rng):
    cell, xs, _ = setting(rng, build(2, 3, (3, 2)), (3, 4), T=4, N=3)
    lengths = [2, 4, 1]
    dys = rng.standard_normal((4, 3, 3, 3, 4))
    ys, _, tape = scan(cell, xs, lengths=lengths)
    dxs, _, grads = scan_backward(cell, dys, None, tape)
    total = {name: np.zeros_like(g) for name, g in grads.items()}
    for n, length in enumerate(lengths):
        clip, _, own = scan(cell, xs[:length, n : n + 1])
        np.testing.assert_allclose(ys[:length, n : n + 1], clip, **CLOSE)
        d, _, g = scan_backward(cell, dys[:length, n : n + 1], None, own)
        np.testing.assert_allclose(dxs[:length, n : n + 1], d, rtol=1e-11, atol=1e-13)
        assert not dxs[length:, n].any()
        total = {name: total[name] + g[name] for name in total}
    for name, g in grads.items():
        np.testing.assert_allclose(g, total[name], rtol=1e-11, atol=1e-13)


@EACH
def test_from_rest_checkpointed_is_stored(build, rng):
    cell, xs, _ = setting(rng, build(2, 3, (3,)), (4,), T=5)
    ys, last, tape = scan(cell, xs)
    kept = scan_checkpointed(cell, xs, every=2)[2]
    dys = rng.standard_normal(ys.shape)
    found, expected = scan_checkpointed_backward(cell, dys, last, kept), scan_backward(cell, dys, last, tape)
    np.testing.assert_allclose(found[0], expected[0], **CLOSE)
    assert found[1] is expected[1] is None
    for name, g in expected[2].items():
        np.testing.assert_allclose(found[2][name], g, rtol=1e-11, atol=1e-13)
    same_grads = scan_backward(cell, dys, last, tape, input_grad=False)
    assert same_grads[0] is None
    for name, g in expected[2].items():
        np.testing.assert_array_equal(same_grads[2][name], g)


@EACH
def test_steps_taken_one_at_a_time_or_all_at_once(build, rng):
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), T=5)
    ys, last, tape = scan(cell, xs, state)
    dys = rng.standard_normal(ys.shape)
    expected = scan_backward(cell, dys, last, tape)
    for at_once in (1, 2):
        found = scan_backward(cell, dys, last, tape._replace(at_once=at_once))
        np.testing.assert_allclose(found[0], expected[0], **CLOSE)
        for name, g in expected[2].items():
            np.testing.assert_allclose(found[2][name], g, rtol=1e-11, atol=1e-13)
    one = scan_truncated_backward(cell, dys, last, tape._replace(at_once=1), k1=2, k2=3)
    whole = scan_truncated_backward(cell, dys, last, tape, k1=2, k2=3)
    for name, g in whole[2].items():
        np.testing.assert_allclose(one[2][name], g, rtol=1e-11, atol=1e-13)


def test_both_directions_may_be_of_two_kinds(rng):
    layer = Bidirectional(
        InputAttentionLSTMCell(2, 2, (3,), dtype=np.float64),
        ContextGateLSTMCell(2, 3, (3,), dtype=np.float64),
    )
    report = gradcheck(layer_case("both", layer, rng.standard_normal((3, 2, 2, 4)), lengths=[3, 2]))
    assert report, report


def test_what_the_cells_cost():
    attention = InputAttentionLSTMCell(2, 3, (3, 3))
    plain_macs = 12 * (2 + 3) * 9
    assert attention.step_macs((4, 5)) == 20 * (plain_macs + 3 * (2 + 3) * 9 + 3 * 9 + 2)
    context = ContextGateLSTMCell(2, 3, (3, 3))
    assert context.step_macs((4, 5)) == 20 * 3 * (2 + 3) * 9 + 9 * (2 + 3)
    assert context.count == 3 * (2 + 3) * 9 + 3 + 9 * (2 + 3) + 9
    gate = InputGateAttentionLSTMCell(2, 3, (3, 3))
    assert gate.step_macs((4, 5)) == 20 * (6 * (2 + 3) * 9 + 9 * 9) + 6 * (2 + 3)
    layer = Recurrent(context)
    assert layer.cost((7, 2, 2, 4, 5)).macs == 14 * context.step_macs((4, 5))
    np.testing.assert_array_equal(ContextGateLSTMCell(2, 3).params["b_p"].reshape(3, 3)[1], 1)
    np.testing.assert_array_equal(gate.params["b_p"].reshape(2, 3), [[1] * 3, [0] * 3])


@pytest.mark.parametrize("settings", [{}, {"every": 4}], ids=["full", "checkpointed"])
def test_the_peak_of_a_step_that_looks_at_its_input(settings):
    cell, shape = InputAttentionLSTMCell(8, 32, (3, 3)), (12, 4, 8, 24, 24)
    assert_the_formula_holds(cell, shape, **settings)


def test_settings_that_do_not_fit_are_refused():
    with bad("channels is 0, expected at least 1: there is nothing to attend to"):
        InputAttentionLSTMCell(0, 3, (3,))
    for name in ("stride", "padding"):
        with bad(f"{name} is 2, expected none: attention needs h of x's size"):
            InputAttentionLSTMCell(2, 3, (3,), **{name: 2})


# --- pooling over time ---


def pooling(rng: np.random.Generator, size: tuple[int, ...] = (3, 2)) -> tuple[TemporalAttention, np.ndarray]:
    """The layer with random parameters, and four steps of three clips."""
    layer = TemporalAttention(2, 5, dtype=np.float64)
    layer = layer.bind({n: rng.standard_normal(a.shape) for n, a in layer.params.items()})
    return layer, rng.standard_normal((4, 3, 2, *size))


@pytest.mark.parametrize("lengths", [None, [4, 1, 3]], ids=["whole", "padded"])
@pytest.mark.parametrize("size", [(), (5,), (3, 2)])
def test_pooling_equals_naive_loops(size, lengths, rng, backend):
    layer, x = pooling(rng, size)
    expected, weights = naive.temporal_attention(x, layer.params, lengths)
    there, x_there = layer.to_backend(backend), to_backend(x, backend)
    y, _ = there.forward(x_there, lengths=lengths)
    np.testing.assert_allclose(to_numpy(y), expected, **CLOSE)
    np.testing.assert_allclose(to_numpy(there.weights(x_there, lengths)), weights, **CLOSE)


def test_pooling_weights_sum_to_one_and_are_zero_in_padding(rng):
    layer, x = pooling(rng)
    lengths = [2, 4, 1]
    alpha = layer.weights(x, lengths)
    np.testing.assert_allclose(alpha.sum(axis=0), 1, rtol=1e-14)
    assert [(alpha[:, n] > 0).sum() for n in range(3)] == lengths
    assert alpha[0, 2] == 1  # a clip of one step is that step
    np.testing.assert_array_equal(layer.forward(x, lengths=lengths)[0][2], x[0, 2])


def test_without_scores_pooling_is_the_mean_over_valid_steps(rng):
    layer, x = pooling(rng)
    layer = layer.bind({**layer.params, "v": np.zeros(5)})
    np.testing.assert_allclose(layer(x), x.mean(axis=0), **CLOSE)
    lengths = [2, 4, 3]
    y, saved = layer.forward(x, lengths=lengths)
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(dy, saved)
    for n, length in enumerate(lengths):
        np.testing.assert_allclose(y[n], x[:length, n].mean(axis=0), **CLOSE)
        np.testing.assert_allclose(
            dx[:length, n], np.broadcast_to(dy[n] / length, x[:length, n].shape), **CLOSE
        )
    assert not grads["w"].any()
    assert grads["v"].any()


def test_a_padded_batch_is_its_clips_one_by_one(rng):
    layer, x = pooling(rng)
    lengths = [2, 4, 1]
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan  # nothing reads it
    y, saved = layer.forward(x, lengths=lengths)
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(dy, saved)
    total = {name: np.zeros_like(g) for name, g in grads.items()}
    for n, length in enumerate(lengths):
        clip, own = layer.forward(x[:length, n : n + 1])
        np.testing.assert_allclose(y[n : n + 1], clip, **CLOSE)
        d, g = layer.backward(dy[n : n + 1], own)
        np.testing.assert_allclose(dx[:length, n : n + 1], d, **CLOSE)
        assert not dx[length:, n].any()
        total = {name: total[name] + g[name] for name in total}
    for name, g in grads.items():
        np.testing.assert_allclose(g, total[name], **CLOSE)


def test_pooling_does_not_know_the_order_of_the_steps(rng):
    layer, x = pooling(rng)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(layer(x[order]), layer(x), **CLOSE)
    np.testing.assert_allclose(layer.weights(x[order]), layer.weights(x)[order], **CLOSE)


@pytest.mark.parametrize("size", [(), (3, 2)])
def test_what_pooling_costs(size, rng):
    layer, x = pooling(rng, size)
    cost, positions = layer.cost(x.shape), int(np.prod(size))
    assert cost.out == (3, 2, *size) == layer(x).shape
    assert cost.macs == 12 * (5 * 2 + 5 + 2 * positions)
    assert cost.kept == kept(layer, x)
    assert layer.count == 5 * 2 + 5 + 5


def test_sequences_that_do_not_fit_are_refused(rng):
    layer, x = pooling(rng)
    with bad(r"x has 3 features, w expects 2 \(w.shape == \(5, 2\)\)"):
        layer(np.ones((4, 3, 3)))
    with bad("there is no time axis"):
        layer(np.ones((4, 2)))
    with bad(r"lengths are in 0..4, expected 1..4, the steps of xs"):
        layer.forward(x, lengths=[0, 4, 1])
    with bad("features is 2 and hidden is 0, expected at least 1 of each"):
        TemporalAttention(2, 0)
    assert TemporalAttention(3).params["w"].shape == (3, 3)
    assert TemporalAttention(3).params["v"].any()
