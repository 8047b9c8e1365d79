"""Cells and stacks with clocks: when they tick, what they hold, and the plain ones they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import bptt, parallel
from tinyconvlstm.backend import map_arrays, to_backend, to_numpy
from tinyconvlstm.bptt import scan, scan_backward, scan_checkpointed, scan_truncated_backward
from tinyconvlstm.cells import (
    ClockStackCell,
    ClockworkLSTMCell,
    ClockworkRNNCell,
    ConvLSTMCell,
    DeformableLSTMCell,
    GRUCell,
    LSTMCell,
    RNNCell,
)
from tinyconvlstm.gradcheck.zoo_cells import KERNELS, SIZES, randomised
from tinyconvlstm.layers import ClockStack, Recurrent, Sequential

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


# --- stacked clocks ---


def stack(rng, *features, kernel=(3, 2), build=ConvLSTMCell, channels=2, **settings):
    """A stack of cells with random weights; without periods they are all 1."""
    top_down, count = settings.get("top_down", False), len(features)
    cells = []
    for k, F in enumerate(features):
        reads = (features[k - 1] if k else channels) + (features[k + 1] if top_down and k + 1 < count else 0)
        cells.append(randomised(build(reads, F, kernel), rng))
    periods = settings.pop("periods", (1,) * count)
    return ClockStackCell(cells, periods, **settings)


def started(rng, cell, xs):
    """A random state at time 0."""
    state = map_arrays(lambda a: 0.7 * rng.standard_normal(a.shape), cell.initial_state(xs[0]))
    return at(state, 0)


def by_hand(cell, xs, state):
    """The stack, clip by clip, level by level and frame by frame, through `scan` of its cells."""
    shown = []
    levels, t = list(state.levels), np.rint(state.t).astype(int)
    for n in range(xs.shape[1]):
        own = [type(s)(*(a[n : n + 1] for a in s)) for s in levels]
        for step, x in enumerate(xs[:, n : n + 1]):
            before, below = list(own), x
            for k, inner in enumerate(cell.cells):
                if k and cell.pools[k - 1] != 1:
                    p = cell.pools[k - 1]
                    shape = [v for size in below.shape[2:] for v in (size // p, p)]
                    means = tuple(range(3, 3 + 2 * len(shape) // 2, 2))
                    below = below.reshape(*below.shape[:2], *shape).mean(axis=means)
                if (t[n] + step) % cell.periods[k] == 0:
                    read = below
                    if cell.top_down and k + 1 < len(own):
                        above = before[k + 1].h
                        factor = [a // b for a, b in zip(read.shape[2:], above.shape[2:], strict=True)]
                        read = np.concatenate([read, np.kron(above, np.ones((1, 1, *factor)))], axis=1)
                    own[k] = scan(inner, read[None], own[k])[1]
                below = own[k].h
            shown.append(own[cell.show].h)
    N = xs.shape[1]
    return np.concatenate(shown).reshape(N, len(xs), *shown[0].shape[1:]).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("features", "settings", "size"),
    [
        ((3, 2), {"periods": (1, 2)}, (4, 3)),
        ((3, 2, 2), {"periods": (1, 2, 3), "pools": (2, 1), "top_down": True, "show": 0}, (4, 2)),
        ((2, 3), {"periods": (3, 2), "pools": (2,)}, (2, 4)),
        ((2, 2, 3), {"periods": (1, 2, 4), "pools": (2, 2), "top_down": True}, (4, 8)),
    ],
    ids=str,
)
def test_a_stack_is_its_cells_stepped_by_hand(features, settings, size, rng, backend):
    """From random times, another one for each clip."""
    cell = stack(rng, *features, **settings)
    xs = rng.standard_normal((6, 3, 2, *size))
    state = at(started(rng, cell, xs), rng.integers(0, 12, 3).astype(float))
    ys, _, _ = scan(cell.to_backend(backend), *to_backend((xs, state), backend))
    np.testing.assert_allclose(to_numpy(ys), by_hand(cell, xs, state), **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "build", [ConvLSTMCell, GRUCell, DeformableLSTMCell], ids=lambda build: build.__name__
)
def test_a_stack_with_periods_of_one_is_the_plain_stack_bit_for_bit(build, dtype, rng):
    cell = stack(rng, 3, 2, 2, build=build).astype(dtype)
    xs = rng.standard_normal((4, 2, 2, 4, 3)).astype(dtype)
    layer = ClockStack(cell.cells, (1, 1, 1))
    plain = Sequential(*(Recurrent(inner) for inner in cell.cells))
    (y, saved), (expected, plain_saved) = layer.forward(xs), plain.forward(xs)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == dtype
    dy = rng.standard_normal(y.shape).astype(dtype)
    (dx, grads), (wanted, plain_grads) = layer.backward(dy, saved), plain.backward(dy, plain_saved)
    close = {"rtol": 1e-11, "atol": 1e-12} if dtype is np.float64 else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(dx, wanted, **close)
    assert grads.keys() == plain_grads.keys() == layer.params.keys()
    for name, g in grads.items():
        np.testing.assert_allclose(g, plain_grads[name], **close)
        assert g.dtype == dtype


def test_a_slow_level_is_a_scan_of_the_frames_at_its_ticks(rng):
    cell, xs = stack(rng, 3, 2, periods=(1, 3)), rng.standard_normal((8, 2, 2, 4, 3))
    ys, last, _ = scan(cell, xs)
    below, _, _ = scan(cell.cells[0], xs)
    expected, top, _ = scan(cell.cells[1], below[::3])
    np.testing.assert_array_equal(ys, np.repeat(expected, 3, axis=0)[:8])
    equal(last.levels[1], top)
    np.testing.assert_array_equal(last.t, [8 % 3] * 2)


def test_held_levels_have_the_identity_as_their_jacobian(rng):
    cell, xs = stack(rng, 3, 2, periods=(2, 3), top_down=True), rng.standard_normal((1, 2, 2, 4, 3))
    state = at(started(rng, cell, xs), 1)
    new, saved = cell.step(xs[0], state)
    assert saved.levels == (None, None)  # not computed
    for a, b in zip(new.levels, state.levels, strict=True):
        equal(a, b)
    d = map_arrays(lambda a: rng.standard_normal(a.shape), new)
    dx, before, grads = cell.step_backward(d, saved)
    assert not dx.any()
    assert dx.shape == xs[0].shape
    assert not grads
    equal(before.levels[0], d.levels[0])
    equal(before.levels[1], (d.levels[1].h + d.h, d.levels[1].c))


def test_context_from_above_is_that_of_the_step_before(rng):
    """At a tick of both the bottom reads the old h above; and without weights to the context it hears nothing."""
    cell, xs = stack(rng, 3, 2, periods=(1, 2), top_down=True, show=0), rng.standard_normal((3, 2, 2, 4, 3))
    state = started(rng, cell, xs)
    moved = state._replace(levels=(state.levels[0], state.levels[1]._replace(h=state.levels[1].h + 1)))
    ys = scan(cell, xs, state)[0]
    assert not np.allclose(scan(cell, xs, moved)[0][0], ys[0])
    deaf = cell.bind(
        {n: a * (np.arange(4) < 2)[:, None, None] if n == "0.w_x" else a for n, a in cell.params.items()}
    )
    alone = ConvLSTMCell(2, 3, (3, 2)).bind(
        {"w_x": cell.params["0.w_x"][:, :2], "w_h": cell.params["0.w_h"], "b": cell.params["0.b"]}
    )
    np.testing.assert_allclose(scan(deaf, xs, moved)[0], scan(alone, xs, state.levels[0])[0], **CLOSE)


def test_every_way_back_of_a_stack_gives_the_same_gradients(rng, monkeypatch):
    cell = stack(rng, 3, 2, periods=(1, 2), pools=(2,), top_down=True)
    xs, lengths = rng.standard_normal((7, 5, 2, 4, 2)), [7, 3, 6, 1, 7]
    state = at(started(rng, cell, xs), np.arange(5.0) % 2)
    ys, last, tape = scan(cell, xs, state, lengths=lengths)
    dys = rng.standard_normal(ys.shape)
    whole = scan_backward(cell, dys, last, tape)
    found = [scan_truncated_backward(cell, dys, last, tape, k1=7, k2=7)]
    again = scan_checkpointed(cell, xs, state, lengths=lengths, every=3)
    np.testing.assert_array_equal(again[0], ys)
    found.append(bptt.scan_checkpointed_backward(cell, dys, last, again[2]))
    monkeypatch.setattr(bptt, "STEP", 1)
    monkeypatch.setattr(parallel, "get_threads", lambda: 2)
    cut, _, parts = scan(cell, xs, state, lengths=lengths)
    assert isinstance(parts, bptt.Parts)
    np.testing.assert_allclose(cut, ys, **CLOSE)
    found.append(scan_backward(cell, dys, last, parts))
    for dxs, dstate, grads in found:
        np.testing.assert_allclose(dxs, whole[0], **CLOSE)
        map_arrays(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), dstate, whole[1])
        assert grads.keys() == cell.params.keys()
        for name, g in grads.items():
            np.testing.assert_allclose(g, whole[2][name], rtol=1e-11, atol=1e-12)


def test_from_rest_is_from_a_state_of_zeros(rng):
    for top_down in (False, True):
        cell, xs = stack(rng, 3, 2, periods=(1, 2), top_down=top_down), rng.standard_normal((3, 2, 2, 4, 3))
        zero = cell.initial_state(xs[0])
        ys, last, tape = scan(cell, xs)
        expected, ends, other = scan(cell, xs, zero)
        np.testing.assert_array_equal(ys, expected)
        dys = rng.standard_normal(ys.shape)
        found, wanted = scan_backward(cell, dys, last, tape), scan_backward(cell, dys, ends, other)
        assert found[1] is None
        for name, g in found[2].items():
            np.testing.assert_allclose(g, wanted[2][name], rtol=1e-11, atol=1e-12)


def test_a_stack_read_in_pieces_goes_on_counting(rng):
    cell, xs = stack(rng, 3, 2, periods=(2, 3), top_down=True), rng.standard_normal((7, 2, 2, 4, 3))
    ys, last, _ = scan(cell, xs)
    pieces, middle = [], None
    for begin, end in ((0, 1), (1, 4), (4, 7)):
        piece, middle, _ = scan(cell, xs[begin:end], middle)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces), ys)
    map_arrays(np.testing.assert_array_equal, middle, last)


def test_a_level_that_never_ticks_has_gradients_of_zero(rng):
    cell, xs = stack(rng, 3, 2, periods=(1, 4)), rng.standard_normal((2, 2, 2, 4, 3))
    ys, last, tape = scan(cell, xs, at(started(rng, cell, xs), 1))
    _, _, grads = scan_backward(cell, rng.standard_normal(ys.shape), last, tape)
    assert grads.keys() == cell.params.keys()
    assert not grads["1.w_h"].any()
    assert grads["0.w_h"].any()


def test_a_stack_costs_what_its_ticks_cost(rng):
    cells = stack(rng, 4, 3, kernel=(3, 3), pools=(2,), top_down=True).cells
    layer, shape = ClockStack(cells, (1, 3), pools=(2,), top_down=True), (7, 3, 2, 6, 4)
    cost = layer.cost(shape)
    assert cost.out == (7, 3, 3, 3, 2)
    assert cost.macs == 3 * (7 * 24 * 16 * (5 + 4) * 9 + 3 * 6 * 12 * (4 + 3) * 9)  # 7 ticks, and 3
    assert layer.summary(shape).params == layer.count == sum(cell.count for cell in cells)
    measured = kept(layer, rng.standard_normal(shape))
    assert 0.8 * cost.kept <= measured <= cost.kept + 100
    assert layer.cell.macs(np.zeros(shape[1:])) == 3 * (24 * 16 * 81 + 6 * 12 * 63 // 3)
    assert layer.peaks(shape) == ()
    last = ClockStack(cells, (1, 3), pools=(2,), top_down=True, show=0, return_sequences=False)
    y, _ = last.forward(rng.standard_normal(shape))
    assert last.cost(shape).out == y.shape == (3, 4, 6, 4)


def test_settings_of_a_stack_that_do_not_fit_are_refused(rng):
    cells = stack(rng, 3, 2).cells
    with bad("periods has 1 entries, expected 2 for 2 cells"):
        ClockStackCell(cells, (1,))
    with bad("pools has 2 entries, expected 1 for 2 cells"):
        ClockStackCell(cells, (1, 2), pools=(1, 2))
    with bad(r"periods is \(1, 0\), expected whole numbers of steps"):
        ClockStackCell(cells, (1, 0))
    with bad(r"cells\[1\] has 2 channels, expected 3, what it reads"):
        ClockStackCell([cells[0], ConvLSTMCell(2, 2, (3, 2))], (1, 2))
    cell, xs = ClockStackCell(cells, (1, 2), pools=(2,)), np.zeros((3, 2, 2, 4, 4))
    with bad(r"x.shape is \(2, 3, 4, 4\), expected \(N, 2, \*S\)"):
        scan(cell, np.zeros((3, 2, 3, 4, 4)))
    with bad(r"a level has spatial sizes \(4, 5\), expected multiples of its pool \(2, 2\)"):
        scan(cell, np.zeros((3, 2, 2, 4, 5)))
    with bad("recurrent dropout"):
        scan(cell, xs, h_mask=np.ones((2, 2, 2, 2)))
    state = cell.initial_state(xs[0])
    with bad(r"state.t has shape \(3,\), expected \(2,\)"):
        scan(cell, xs, state._replace(t=np.zeros(3)))
    with bad("state.h has shape"):
        scan(cell, xs, state._replace(levels=(state.levels[0], state.levels[0])))
    strided = [ConvLSTMCell(4, 2, (3,)), ConvLSTMCell(2, 2, (3,), stride=2)]
    with bad(r"a level reads \(5,\) pixels, expected multiples of its \(3,\)"):
        scan(ClockStackCell(strided, (1, 1), top_down=True), np.zeros((2, 1, 2, 5), np.float32))
