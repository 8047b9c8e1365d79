"""The self-attention memory and its cell: naive loops, identities, and what it costs."""

from __future__ import annotations

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
from tinyconvlstm.cells import LSTMCell, SAConvLSTMCell, attention_from
from tinyconvlstm.gradcheck import gradcheck
from tinyconvlstm.gradcheck.layers import layer_case
from tinyconvlstm.layers import Bidirectional, Recurrent

from . import oracles_attention as naive
from .oracles import random
from .test_attention import bad
from .test_cells import against_oracle, setting
from .test_memory import assert_the_formula_holds
from .test_summary import kept

CLOSE: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-13}
NAMES = ops.SelfAttentionWeights._fields
F, D = 3, 2


def drawn(size: tuple[int, ...] = (2, 3), N: int = 2) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """h, m and weights, D unlike F."""
    shapes = ((D, F), (D, F), (F, F), (D, F), (F, F), (F, 2 * F), (3 * F, 2 * F), (3 * F,))
    weights = {name: random(k, shape) for k, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))}
    return random(20, (N, F, *size)), random(21, (N, F, *size)), weights


def made(
    rng: np.random.Generator, kernel: tuple[int, ...] = (3, 2), size: tuple[int, ...] = (3, 4), **kwargs: Any
) -> Any:
    """A cell with random parameters, D unlike F, with a sequence and a state."""
    return setting(rng, SAConvLSTMCell(2, F, kernel, attention=D), size, **kwargs)


def blocks(w: np.ndarray, **rows: np.ndarray | float) -> np.ndarray:
    """w (3F, ...) with some of its blocks i, g, o replaced."""
    w = w.copy()
    for name, value in rows.items():
        k = "igo".index(name)
        w[k * F : (k + 1) * F] = value
    return w


# --- the pair ---


@pytest.mark.parametrize("size", [(), (4,), (2, 3)])
def test_the_memory_equals_naive_loops(size, backend):
    h, m, w = drawn(size)
    (h_new, m_new), _ = ops.self_attention_forward(*to_backend((h, m, *w.values()), backend))
    for n in range(2):
        expected = naive.self_attention(h[n], m[n], w)
        np.testing.assert_allclose(to_numpy(h_new)[n], expected[0], **CLOSE)
        np.testing.assert_allclose(to_numpy(m_new)[n], expected[1], **CLOSE)


def test_equal_scores_give_every_position_the_mean():
    h, m, w = drawn()
    w["w_q"] = 0 * w["w_q"]
    _, saved = ops.self_attention_forward(h, m, *w.values())
    v_h, v_m = (
        np.einsum("fc,nchw->nfhw", w[name], a).mean(axis=(2, 3)) for name, a in (("w_vh", h), ("w_vm", m))
    )
    expected = np.concatenate([v_h, v_m], axis=1)[..., None]
    np.testing.assert_allclose(saved.both, np.broadcast_to(expected, saved.both.shape), **CLOSE)


def test_shuffled_positions_give_the_shuffled_result():
    """Every position sees all the others as a set: nothing but the cell's convolution knows what is next to what."""
    h, m, w = drawn((6,))
    order = [4, 0, 5, 2, 1, 3]
    (h_new, m_new), _ = ops.self_attention_forward(h, m, *w.values())
    (h_other, m_other), _ = ops.self_attention_forward(h[..., order], m[..., order], *w.values())
    np.testing.assert_allclose(h_other, h_new[..., order], **CLOSE)
    np.testing.assert_allclose(m_other, m_new[..., order], **CLOSE)


def test_every_position_reaches_every_other_in_one_step():
    h, m, w = drawn((5, 6), N=1)
    _, saved = ops.self_attention_forward(h, m, *w.values())
    dh, dm, *_ = ops.self_attention_backward((np.eye(30).reshape(30, 1, 5, 6)[:1] + 0 * h, 0 * h), saved)
    assert (np.abs(dh) > 0).all()  # of one pixel's h', with respect to every pixel
    assert (np.abs(dm) > 0).all()


def test_a_query_scaled_by_a_number_scales_the_scores():
    """No division by sqrt(D) is hidden: twice the query is the square of every weight, normalised again."""
    h, m, w = drawn()
    _, saved = ops.self_attention_forward(h, m, *w.values())
    w["w_q"] = 2 * w["w_q"]
    _, twice = ops.self_attention_forward(h, m, *w.values())
    a = saved.of_h.weights.y**2
    np.testing.assert_allclose(twice.of_h.weights.y, a / a.sum(axis=2, keepdims=True), **CLOSE)
    s = np.einsum("dc,ncp->ndp", w["w_q"] / 2, h.reshape(2, F, -1))
    s = np.exp(np.einsum("ndp,ndr->npr", s, np.einsum("dc,ncp->ndp", w["w_kh"], h.reshape(2, F, -1))))
    np.testing.assert_allclose(saved.of_h.weights.y, s / s.sum(axis=2, keepdims=True), **CLOSE)


# --- the cell; naive loops over 0 to 2 axes, threads, masks and kept numbers are in test_variants ---


def test_padded_reversed_clips_equal_naive_loops(rng):
    cell, xs, state = made(rng, T=4, N=3)
    against_oracle(cell, xs, state, lengths=[2, 4, 1], reverse=True)


def test_open_gates_and_a_candidate_that_is_h_make_it_the_plain_cell_shown_through_tanh(rng):
    """i' = o' = 1 and g' = h~: m' = h' = tanh(h~), and h~ is one step of the plain cell from h'."""
    cell, xs, state = made(rng)
    p = cell.params
    w_m = blocks(0 * p["w_m"], g=np.concatenate([np.zeros((F, F)), np.eye(F)], axis=1))
    cell = cell.bind({**p, "w_m": w_m, "b_m": blocks(0 * p["b_m"], i=40, o=40)})  # sigmoid(40) is 1
    plain = LSTMCell(2, F, (3, 2), dtype=np.float64)
    plain = plain.bind({name: p[name] for name in plain.params})
    ys, last, _ = scan(cell, xs, state)
    held = plain.initial_state(xs[0])._replace(h=state.h, c=state.c)
    for t, y in enumerate(ys):
        shown, held, _ = scan(plain, xs[t : t + 1], held)
        held = held._replace(h=np.tanh(shown[0]))
        np.testing.assert_allclose(y, held.h, **CLOSE)
    np.testing.assert_allclose(last.m, held.h, **CLOSE)
    np.testing.assert_allclose(last.c, held.c, **CLOSE)


def test_a_shut_input_gate_keeps_the_memory_for_ever(rng):
    cell, xs, state = made(rng, T=6)
    p = cell.params
    cell = cell.bind({**p, "w_m": blocks(p["w_m"], i=0), "b_m": blocks(p["b_m"], i=-1e4)})
    ys, last, tape = scan(cell, xs, state)
    np.testing.assert_array_equal(last.m, state.m)
    assert (np.abs(ys) <= np.abs(state.m)).all()  # h' = o' m
    _, dstate, grads = scan_backward(cell, None, last._replace(h=0 * last.h, c=0 * last.c), tape)
    np.testing.assert_allclose(dstate.m, last.m, **CLOSE)  # nothing is lost on the way back either
    assert not grads["w_x"].any()


def test_a_memory_of_the_first_frame_moves_a_far_pixel_later(rng):
    """A kernel of one tap never spreads; the attention carries a pixel's news everywhere, the plain cell nowhere."""
    cell, xs, state = made(rng, (1, 1), (4, 5))
    other = xs.copy()
    other[0, :, :, 0, 0] += 1
    far = (slice(None), slice(None), slice(None), 3, 4)
    assert np.abs(scan(cell, other, state)[0][far] - scan(cell, xs, state)[0][far]).min() > 0
    plain = LSTMCell(2, F, (1, 1), dtype=np.float64)
    plain = plain.bind({name: cell.params[name] for name in plain.params})
    np.testing.assert_array_equal(scan(plain, other)[0][far], scan(plain, xs)[0][far])


def test_attention_can_be_looked_at(rng):
    cell, xs, state = made(rng)
    tape = scan(cell, xs, state)[2]
    for seen in attention_from(tape, 1, 0, (2, 1)):
        assert seen.shape == (3, 4)
        assert seen.sum() == pytest.approx(1, rel=1e-13)
    of_h, of_m = (a.reshape(12) for a in attention_from(tape, 1, 0, (2, 1)))
    np.testing.assert_array_equal(of_h, tape.steps[1].attention.of_h.weights.y[0, 9])
    np.testing.assert_array_equal(of_m, tape.steps[1].attention.of_m.weights.y[0, 9])


def test_checkpointed_and_truncated_from_rest(rng):
    cell, xs, _ = made(rng, (3,), (4,), T=5)
    ys, last, tape = scan(cell, xs)
    dys = rng.standard_normal(ys.shape)
    expected = scan_backward(cell, dys, last, tape)
    kept_states = scan_checkpointed(cell, xs, every=2)[2]
    for found in (
        scan_checkpointed_backward(cell, dys, last, kept_states),
        scan_truncated_backward(cell, dys, last, tape, k1=5, k2=5),
        scan_backward(cell, dys, last, tape._replace(at_once=1)),
    ):
        np.testing.assert_allclose(found[0], expected[0], **CLOSE)
        assert found[1] is None
        for name, g in expected[2].items():
            np.testing.assert_allclose(found[2][name], g, **CLOSE)


def test_both_directions(rng):
    cells = (
        SAConvLSTMCell(2, F, (3,), attention=D, dtype=np.float64),
        LSTMCell(2, 2, (3,), dtype=np.float64),
    )
    report = gradcheck(
        layer_case("both", Bidirectional(*cells), rng.standard_normal((3, 2, 2, 4)), lengths=[3, 2])
    )
    assert report, report


# --- cost ---


def test_twice_the_height_and_width_is_sixteen_times_the_attention():
    cell = SAConvLSTMCell(2, F, (3, 3), attention=D)
    small, large = (8, 6), (16, 12)
    assert cell.attention_macs(small) == 2 * 48 * 48 * (D + F)
    assert cell.attention_macs(large) == 16 * cell.attention_macs(small)
    rest = [cell.step_macs(size) - cell.attention_macs(size) for size in (small, large)]
    assert rest[1] == 4 * rest[0]  # everything else grows with the number of pixels
    one = 12 * (2 + F) * 9 + 3 * D * F + 2 * F * F + F * 2 * F + 3 * F * 2 * F
    assert rest[0] == 48 * one
    assert cell.count == one + 12 + 9
    shapes = [(4, 2, 2, *size) for size in (small, large)]
    macs = [Recurrent(cell).cost(shape).macs for shape in shapes]
    assert macs == [8 * cell.step_macs(size) for size in (small, large)]
    frames = [np.zeros(shape[1:], np.float32) for shape in shapes]
    assert [cell.macs(x) for x in frames] == [2 * cell.step_macs(size) for size in (small, large)]


@pytest.mark.parametrize("size", [(6, 4), (12, 8)])
def test_what_is_kept_is_counted_the_pairs_included(size, rng):
    cell = SAConvLSTMCell(2, F, (3, 3), attention=D, dtype=np.float64)
    layer, shape = Recurrent(cell), (4, 2, 2, *size)
    positions = int(np.prod(size))
    counted, found = layer.cost(shape).kept, kept(layer, rng.standard_normal(shape))
    unread = 3 * 2 * F * positions  # of the first state, which is zero
    assert counted - unread <= found <= counted + 8
    assert counted == 4 * 2 * positions * (18 * F + 3 * D + 2 * positions)


def test_the_peak_of_a_step_with_many_positions():
    """Where the pairs are most of it: the formula against what NumPy asks for."""
    cell, shape = SAConvLSTMCell(2, 4, (3, 3)), (6, 2, 2, 20, 16)
    for settings in ({}, {"k2": 3}, {"every": 2}):
        assert_the_formula_holds(cell, shape, **settings)


def test_settings():
    assert SAConvLSTMCell(2, F).params["w_q"].shape == (F, F)
    assert SAConvLSTMCell(2, F, attention=5).params["w_km"].shape == (5, F)
    with bad("attention is 0, expected at least 1 channel"):
        SAConvLSTMCell(2, F, attention=0)
