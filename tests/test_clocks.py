"""Cells and stacks with clocks: when they tick, what they hold, and the plain ones they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import bptt, parallel
from tinyconvlstm.bptt import scan, scan_backward, scan_checkpointed, scan_truncated_backward
from tinyconvlstm.cells import ClockworkLSTMCell, ClockworkRNNCell, LSTMCell, RNNCell
from tinyconvlstm.gradcheck.zoo_cells import KERNELS, SIZES
from tinyconvlstm.layers import Recurrent

from . import oracles_deformable  # noqa: F401  (it adds its steps to those of the other cells)
from .test_cells import CLOSE, against_oracle, bad, setting
from .test_summary import kept

F64: dict[str, Any] = {"dtype": np.float64}
KINDS = {"RNN": (ClockworkRNNCell, RNNCell), "LSTM": (ClockworkLSTMCell, LSTMCell)}
both = pytest.mark.parametrize(("build", "plain"), KINDS.values(), ids=KINDS)


def at(state: Any, t: Any) -> Any:
    """The state at a given time."""
    return state._replace(t=np.zeros_like(state.t) + t)


def equal(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# --- the clockwork rule ---


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("periods", [(1, 2, 4), (3, 1, 2), (2, 2, 1)], ids=str)
@both
def test_clockwork_equals_naive_loops(build, plain, periods, rank, rng, backend):
    """From random times, another one for each clip."""
    cell, xs, state = setting(rng, build(2, 3, KERNELS[rank], periods=periods), SIZES[rank], T=5)
    state = state._replace(t=rng.integers(0, 9, 2).astype(float))
    against_oracle(cell, xs, state, backend, window={"periods": periods})


@both
def test_lengths_and_reverse_equal_naive_loops(build, plain, rng):
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(1, 2)), (4,), T=5, N=3)
    against_oracle(cell, xs, state, lengths=[2, 5, 3], reverse=True, window={"periods": (1, 2)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [(), (3, 2)], ids=str)
@pytest.mark.parametrize("periods", [(1,), (1, 1), (1, 1, 1, 1)], ids=str)
@both
def test_periods_of_one_are_the_plain_cell_bit_for_bit(build, plain, periods, kernel, dtype, rng):
    cell, xs, state = setting(rng, build(2, 4, kernel, periods=periods), (3, 4)[: len(kernel)], T=4)
    cell, xs, start = cell.astype(dtype), xs.astype(dtype), [a.astype(dtype) for a in state]
    bound = plain(2, 4, kernel).bind(cell.params)
    dys = rng.standard_normal((4, *start[0].shape)).astype(dtype)
    for given in (True, False):
        ys, last, tape = scan(cell, xs, type(state)(*start) if given else None)
        expected, ends, plain_tape = scan(bound, xs, cell.plain(*start[:-1]) if given else None)
        equal((ys, *last[:-1]), (expected, *ends))
        found, wanted = scan_backward(cell, dys, last, tape), scan_backward(bound, dys, ends, plain_tape)
        equal((found[0], *found[2].values()), (wanted[0], *wanted[2].values()))
        if given:
            equal(found[1][:-1], wanted[1])


@both
def test_one_clock_for_all_is_the_plain_cell_on_the_frames_at_its_ticks(build, plain, rng):
    cell, xs, state = setting(rng, build(2, 3, (3,), periods=(3,)), (5,), T=7)
    bound, state = plain(2, 3, (3,)).bind(cell.params), at(state, 0)
    ys, last, _ = scan(cell, xs, state)
    expected, ends, _ = scan(bound, xs[::3], cell.plain(*state[:-1]))
    equal((ys[::3], *last[:-1]), (expected, *ends))
    equal(ys[[1, 2, 4, 5]], expected[[0, 0, 1, 1]])  # held in between
    assert (last.t == 7 % 3).all()


@both
def test_a_slow_module_never_hears_of_a_fast_one(build, plain, rng):
    """What is done to the fast module's h0, or to its weights, cannot be seen in the slow one; the other way it can."""
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(1, 2)), (5,), T=4)
    state = at(state, 0)
    ys = scan(cell, xs, state)[0]
    fast, slow = state.h.copy(), state.h.copy()
    fast[:, :2] += 1
    slow[:, 2:] += 1
    np.testing.assert_array_equal(scan(cell, xs, state._replace(h=fast))[0][:, :, 2:], ys[:, :, 2:])
    assert not np.allclose(scan(cell, xs, state._replace(h=slow))[0][:, :, :2], ys[:, :, :2])


@both
def test_a_held_step_has_the_identity_as_its_jacobian(build, plain, rng):
    """Between its ticks a module passes its gradient unchanged, bit for bit, and the step leaves no dz."""
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(2, 3)), (5,))
    zs, _ = cell.project(xs)
    d = type(state)(*(rng.standard_normal(a.shape) for a in state))
    new, saved = cell.step(zs[0], at(state, 1))  # nobody ticks
    equal(new[:-1], state[:-1])
    dz, dbefore, _ = cell.step_backward(d, saved)
    equal(dbefore[:-1], d[:-1])
    assert not dz.any()
    new, saved = cell.step(zs[0], at(state, 3))  # the second module alone
    np.testing.assert_array_equal(new.h[:, :2], state.h[:, :2])
    assert (new.h[:, 2:] != state.h[:, 2:]).all()
    quiet = d._replace(h=d.h * np.array([1, 1, 0, 0])[:, None])
    quiet = quiet if len(d) < 3 else quiet._replace(c=d.c * np.array([1, 1, 0, 0])[:, None])
    equal(cell.step_backward(quiet, saved)[1][:-1], quiet[:-1])


@both
def test_a_sequence_in_pieces_goes_on_counting(build, plain, rng):
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(2, 3)), (5,), T=7)
    for start in (None, state):
        ys, last, _ = scan(cell, xs, start)
        pieces, middle = [], start
        for begin, end in ((0, 1), (1, 4), (4, 7)):
            piece, middle, _ = scan(cell, xs[begin:end], middle)
            pieces.append(piece)
        np.testing.assert_array_equal(np.concatenate(pieces), ys)
        equal(middle, last)
    forgetful = scan(cell, xs[1:4], at(scan(cell, xs[:1])[1], 0))[0]
    assert not np.allclose(forgetful, scan(cell, xs)[0][1:4])


@both
def test_clips_of_unequal_length_stop_their_own_clocks(build, plain, rng):
    cell, xs, _ = setting(rng, build(2, 4, (3,), periods=(2, 3)), (5,), T=5, N=3)
    ys, last, _ = scan(cell, xs, lengths=[2, 5, 4])
    np.testing.assert_array_equal(last.t, [2, 5, 4])
    for n, length in enumerate([2, 5, 4]):
        alone, end, _ = scan(cell, xs[:length, n : n + 1])
        np.testing.assert_allclose(ys[:length, n : n + 1], alone, **CLOSE)
        np.testing.assert_allclose(last.h[n : n + 1], end.h, **CLOSE)


@both
def test_every_way_back_gives_the_same_gradients(build, plain, rng, monkeypatch):
    """Whole, in parts of the batch, from checkpoints, and truncated where nothing is cut off."""
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(2, 3)), (5,), T=7, N=5)
    lengths, dys = [7, 3, 6, 1, 7], rng.standard_normal((7, 5, 4, 5))
    ys, last, tape = scan(cell, xs, state, lengths=lengths)
    whole = scan_backward(cell, dys, last, tape)
    found = [scan_truncated_backward(cell, dys, last, tape, k1=7, k2=7)]
    again = scan_checkpointed(cell, xs, state, lengths=lengths, every=2)
    equal((again[0], *again[1]), (ys, *last))
    found.append(bptt.scan_checkpointed_backward(cell, dys, last, again[2]))
    monkeypatch.setattr(bptt, "STEP", 1)
    monkeypatch.setattr(parallel, "get_threads", lambda: 2)
    cut, ends, parts = scan(cell, xs, state, lengths=lengths)
    assert isinstance(parts, bptt.Parts)
    for a, b in zip((cut, *ends), (ys, *last), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    found.append(scan_backward(cell, dys, last, parts))
    for dxs, dstate, grads in found:
        np.testing.assert_allclose(dxs, whole[0], **CLOSE)
        for a, b in zip(dstate, whole[1], strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
        assert grads.keys() == cell.params.keys()
        for name, g in grads.items():
            np.testing.assert_allclose(g, whole[2][name], rtol=1e-11, atol=1e-12)


@both
def test_forbidden_links_are_zero_and_stay_zero(build, plain, rng):
    cell = build(2, 6, (3,), periods=(4, 1, 2), **F64)
    blocks = cell.params["w_h"].reshape(-1, 3, 2, 3, 2, 3)  # gates, modules, F, modules, F, taps
    read = np.abs(blocks).sum(axis=(0, 2, 4, 5)) > 0  # module by module
    np.testing.assert_array_equal(read, [[1, 0, 0], [1, 1, 1], [1, 0, 1]])
    xs = rng.standard_normal((5, 2, 2, 4))
    ys, _, tape = scan(cell, xs)
    grad = scan_backward(cell, ys, None, tape)[2]["w_h"].reshape(blocks.shape)
    np.testing.assert_array_equal(np.abs(grad).sum(axis=(0, 2, 4, 5)) > 0, read)
    # what stands there, if anything, is not read
    junk = cell.bind({**cell.params, "w_h": cell.params["w_h"] + 9 * ~cell.links})
    np.testing.assert_array_equal(scan(junk, xs)[0], ys)


@both
def test_a_clockwork_cell_costs_and_keeps_what_it_says(build, plain, rng):
    layer, shape = Recurrent(build(2, 4, (3, 3), periods=(1, 2), **F64)), (4, 3, 2, 6, 4)
    other = Recurrent(plain(2, 4, (3, 3), **F64))
    assert layer.cell.count == other.cell.count
    assert layer.cost(shape).macs == other.cost(shape).macs
    measured, state = kept(layer, rng.standard_normal(shape)), 3 * 4 * 24
    spare = (
        layer.cell.params["w_h"].size + 4 * 3 * (4 + 1) + 8
    )  # w_h once more, ticks and times of every step
    assert layer.cost(shape).kept - layer.cell.states * state <= measured <= layer.cost(shape).kept + spare


@both
def test_settings_and_states_that_do_not_fit_are_refused(build, plain, rng):
    for periods in ((), (0, 1), (1.5,)):
        with bad("periods is .* expected at least one whole number of steps"):
            build(2, 4, periods=periods)
    with bad("features is 4, expected a multiple of 3, the modules"):
        build(2, 4, periods=(1, 2, 3))
    cell, xs, state = setting(rng, build(2, 4, (3,), periods=(1, 2)), (5,))
    with bad(r"state.t has shape \(3,\), expected \(2,\), a time for each clip"):
        scan(cell, xs, state._replace(t=np.zeros(3)))
    with bad("state.h has shape"):
        scan(cell, xs, state._replace(h=state.h[:, 1:]))
    with bad("dtypes differ: x is float64 and state.t is int64", TypeError):
        scan(cell, xs, state._replace(t=np.arange(2)))
