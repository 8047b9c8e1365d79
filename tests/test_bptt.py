"""Backpropagation through time: the identities every implementation must meet.

That the gradients are those of the forward pass is `test_zoo.py`'s business.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tinyconvlstm.backend import map_arrays, to_backend, to_numpy
from tinyconvlstm.bptt import (
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
)
from tinyconvlstm.cells import ConvLSTMCell, LSTMCell
from tinyconvlstm.gradcheck import cell_case
from tinyconvlstm.gradcheck.zoo_cells import CELLS, KERNELS, SIZES, randomised
from tinyconvlstm.layers import Bidirectional, Recurrent

ALL = pytest.mark.parametrize("build", CELLS.values(), ids=CELLS)
RANKS = pytest.mark.parametrize("rank", [0, 1, 2, 3])
CLOSE: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}


class Job:
    """A cell with random parameters, a sequence, a start state, and gradients on everything that comes out."""

    def __init__(
        self, rng: np.random.Generator, cell: Any, size: tuple[int, ...], T: int = 4, N: int = 3
    ) -> None:
        self.cell = randomised(cell, rng)
        self.xs = rng.standard_normal((T, N, cell.channels, *size))
        blank = self.cell.initial_state(self.xs[0])
        self.state = map_arrays(lambda a: 0.7 * rng.standard_normal(a.shape), blank)
        self.dys = rng.standard_normal((T, *blank.h.shape))
        self.dlast = map_arrays(lambda a: rng.standard_normal(a.shape), blank)

    def on(self, backend: str) -> Job:
        new = object.__new__(Job)
        new.__dict__ = {"cell": self.cell.to_backend(backend)}
        for name in ("xs", "state", "dys", "dlast"):
            new.__dict__[name] = to_backend(getattr(self, name), backend)
        return new

    def forward(self, **settings: Any) -> Any:
        return scan(self.cell, self.xs, self.state, **settings)

    def run(self, **settings: Any) -> tuple[Any, ...]:
        """ys, last, dxs, dstate, grads."""
        ys, last, tape = self.forward(**settings)
        return ys, last, *scan_backward(self.cell, self.dys, self.dlast, tape)


def equal(a: Any, b: Any) -> None:
    """Two trees of arrays, bit for bit."""
    map_arrays(np.testing.assert_array_equal, to_numpy(a), to_numpy(b))


def close(a: Any, b: Any, **tolerance: Any) -> None:
    """Two trees of arrays, to rounding."""
    map_arrays(
        lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or CLOSE)), to_numpy(a), to_numpy(b)
    )


def clip_of(tree: Any, n: int, axis: int = 0) -> Any:
    """The n-th clip of a tree of arrays, its batch axis kept."""
    return map_arrays(lambda a: a[:, n : n + 1] if axis else a[n : n + 1], tree)


# --- backends ---


@RANKS
@ALL
def test_backends_agree(build, rank, rng, backend):
    job = Job(rng, build(3, 2, KERNELS[rank]), SIZES[rank])
    for settings in ({}, {"lengths": [2, 4, 1], "reverse": True}):
        close(job.on(backend).run(**settings), job.run(**settings))


@ALL
def test_truncated_and_checkpointed_agree_on_every_backend(build, rng, backend):
    job = Job(rng, build(2, 2, (3,)), (4,), T=5)
    there = job.on(backend)
    for lengths in (None, [2, 5, 3]):
        expected = scan_truncated_backward(
            job.cell, job.dys, job.dlast, job.forward(lengths=lengths)[2], k1=2, k2=3
        )
        tape = there.forward(lengths=lengths)[2]
        close(scan_truncated_backward(there.cell, there.dys, there.dlast, tape, k1=2, k2=3), expected)
        kept = scan_checkpointed(there.cell, there.xs, there.state, lengths=lengths)[2]
        found = scan_checkpointed_backward(there.cell, there.dys, there.dlast, kept)
        close(found, job.run(lengths=lengths)[2:])


# --- one run in pieces ---


@ALL
def test_chunks_that_pass_their_state_on_equal_one_run(build, rng):
    job = Job(rng, build(2, 3, (3, 2)), (3, 4), T=5)
    ys, last, dxs, dstate, grads = job.run()
    y1, middle, tape1 = scan(job.cell, job.xs[:2], job.state)
    y2, end, tape2 = scan(job.cell, job.xs[2:], middle)
    equal((np.concatenate([y1, y2]), end), (ys, last))
    dx2, dmiddle, total = scan_backward(job.cell, job.dys[2:], job.dlast, tape2)
    dx1, dstart, total = scan_backward(job.cell, job.dys[:2], dmiddle, tape1, total)
    close((np.concatenate([dx1, dx2]), dstart, total), (dxs, dstate, grads))


@RANKS
@ALL
def test_one_frame_at_a_time_equals_the_whole_clip(build, rank, rng, backend):
    job = Job(rng, build(2, 3, KERNELS[rank]), SIZES[rank]).on(backend)
    ys, last, _ = job.forward()
    state = job.state
    compare = equal if rank else close  # a dense map is one product for all steps, which rounds otherwise
    for t in range(len(job.xs)):
        zs, _ = job.cell.project(job.xs[t : t + 1])
        state, _ = job.cell.step(zs[0], state)
        compare(state.h, ys[t])
    compare(state, last)


@RANKS
@ALL
@pytest.mark.parametrize("every", [1, 2, 3, 5, 7, None])
def test_checkpointed_equals_stored(build, rank, every, rng):
    job = Job(rng, build(2, 2, KERNELS[rank]), SIZES[rank], T=5)
    mask = (rng.random(job.state.h.shape) > 0.4) / 0.6
    for settings in ({}, {"lengths": [2, 5, 1], "reverse": True}, {"h_mask": mask}):
        ys, last, dxs, dstate, grads = job.run(**settings)
        ys2, last2, kept = scan_checkpointed(job.cell, job.xs, job.state, every=every, **settings)
        found = scan_checkpointed_backward(job.cell, job.dys, job.dlast, kept)
        compare = equal if rank else close
        compare((ys2, last2, *found), (ys, last, dxs, dstate, grads))


@pytest.mark.parametrize(("T", "N", "size"), [(7, 3, (20, 17)), (6, 3, (24, 24)), (9, 4, (8, 40))])
def test_segments_of_any_length_add_up_as_the_whole_does(T, N, size, rng):
    """How dw is cut, into blocks and for threads, must not depend on how many steps stand side by side."""
    job = Job(rng, LSTMCell(3, 8, (3, 3)), size, T=T, N=N)
    expected = job.run()[2:]
    for every in (1, 2, 5):
        kept = scan_checkpointed(job.cell, job.xs, job.state, every=every)[2]
        equal(scan_checkpointed_backward(job.cell, job.dys, job.dlast, kept), expected)


def test_checkpoints_keep_inputs_and_one_state_a_segment(rng):
    job = Job(rng, LSTMCell(2, 3), (), T=10)
    kept = scan_checkpointed(job.cell, job.xs, job.state)[2]
    assert kept.every == 4  # ceil(sqrt(10))
    assert len(kept.states) == 3
    assert kept.xs is job.xs


# --- truncated ---


@pytest.mark.parametrize(("k1", "k2"), [(5, 5), (5, 9), (8, 8), (1, 5), (2, 6)])
@ALL
def test_truncation_as_long_as_the_clip_is_full_backpropagation(build, k1, k2, rng):
    job = Job(rng, build(2, 3, (3,)), (4,), T=5)
    for settings in ({}, {"reverse": True}, {"lengths": [3, 5, 1]}):
        tape = job.forward(**settings)[2]
        found = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=k1, k2=k2)
        close(found, job.run(**settings)[2:])


def test_equal_windows_are_independent_chunks(rng):
    """k1 = k2 = 2 on six steps: three scans, each from the state where the one before ended."""
    job = Job(rng, ConvLSTMCell(2, 2, (3, 2), peephole="channel"), (3, 4), T=6)
    tape = job.forward()[2]
    dxs, dstate, grads = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=2, k2=2)
    state, total, parts, starts = job.state, {}, [], []
    for begin, end in [(0, 2), (2, 4), (4, 6)]:
        _, state, tape = scan(job.cell, job.xs[begin:end], state)
        dend = job.dlast if end == 6 else None
        part, start, total = scan_backward(job.cell, job.dys[begin:end], dend, tape, total)
        parts.append(part)
        starts.append(start)
    close((dxs, dstate, grads), (np.concatenate(parts), starts[0], total))


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 2), (2, 3), (3, 4), (2, 5)])
def test_overlapping_windows_are_the_sum_of_their_blocks(k1, k2, rng):
    """Each block on its own: a scan from its frozen start, gradients on its own loss terms only."""
    job = Job(rng, LSTMCell(2, 3, peephole="channel"), (), T=6)
    tape = job.forward()[2]
    found = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=k1, k2=k2)
    states = [job.state]
    for t in range(6):
        states.append(scan(job.cell, job.xs[t : t + 1], states[-1])[1])
    dxs, dstate, grads = np.zeros_like(job.xs), map_arrays(np.zeros_like, job.state), {}
    ends = sorted({min(e, 6) for e in range(k1, 6 + k1, k1)})
    for block, end in enumerate(ends):
        begin = max(0, end - k2)
        dys = job.dys[begin:end].copy()
        dys[: block * k1 - begin] = 0  # earlier loss terms belong to earlier blocks
        tape = scan(job.cell, job.xs[begin:end], states[begin])[2]
        dend = job.dlast if end == 6 else None
        part, start, grads = scan_backward(job.cell, dys, dend, tape, grads)
        dxs[begin:end] += part
        if begin == 0:
            dstate = map_arrays(lambda a, b: a + b, dstate, start)
    close(found, (dxs, dstate, grads))


def test_truncation_changes_the_gradient(rng):
    job = Job(rng, LSTMCell(2, 3), (), T=6)
    tape = job.forward()[2]
    full = job.run()[4]["w_h"]
    short = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=2, k2=2)[2]["w_h"]
    longer = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=2, k2=4)[2]["w_h"]
    error = [np.linalg.norm(g - full) / np.linalg.norm(full) for g in (short, longer)]
    assert 0.01 < error[1] < error[0]


# --- lengths and direction ---


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rank", [0, 2])
@ALL
def test_a_padded_batchs_gradient_is_the_sum_of_its_clips(build, rank, reverse, rng):
    job = Job(rng, build(2, 3, KERNELS[rank]), SIZES[rank], T=5)
    lengths = [3, 5, 1]
    ys, last, dxs, dstate, grads = job.run(lengths=lengths, reverse=reverse)
    total: dict[str, Any] = {}
    for n, length in enumerate(lengths):
        xs, dys = clip_of((job.xs[:length], job.dys[:length]), n, axis=1)
        y, end, tape = scan(job.cell, xs, clip_of(job.state, n), reverse=reverse)
        dx, dstart, total = scan_backward(job.cell, dys, clip_of(job.dlast, n), tape, total)
        close(clip_of(ys[:length], n, axis=1), y)
        close(clip_of(last, n), end)
        close(clip_of(dxs[:length], n, axis=1), dx)
        close(clip_of(dstate, n), dstart)
        assert not ys[length:, n].any()
        assert not dxs[length:, n].any()
    close(grads, total)


@ALL
def test_what_lies_beyond_a_clips_length_is_never_read(build, rng):
    job = Job(rng, build(2, 3, (3,)), (4,), T=5)
    found = job.run(lengths=[3, 5, 1])
    job.xs[3:, 0] = 1e3
    job.xs[1:, 2] = -1e3
    job.dys[3:, 0] = 1e3
    job.dys[1:, 2] = 1e3
    close(job.run(lengths=[3, 5, 1]), found)


@ALL
def test_full_lengths_change_nothing(build, rng):
    job = Job(rng, build(2, 3, (3,)), (4,))
    for reverse in (False, True):
        equal(job.run(lengths=np.array([4, 4, 4]), reverse=reverse), job.run(reverse=reverse))


@pytest.mark.parametrize("kind", [list, tuple, np.int32, np.uint8, np.int64])
def test_lengths_may_be_any_whole_numbers(kind, rng):
    job = Job(rng, LSTMCell(2, 3), ())
    lengths = kind([2, 4, 1]) if kind in (list, tuple) else np.array([2, 4, 1], kind)
    equal(job.run(lengths=lengths), job.run(lengths=[2, 4, 1]))


@ALL
def test_reading_backwards_is_reading_the_reversed_clip(build, rng):
    job = Job(rng, build(2, 3, (3,)), (4,))
    ys, last, dxs, dstate, grads = job.run(reverse=True)
    job.xs, job.dys = job.xs[::-1].copy(), job.dys[::-1].copy()
    ys2, last2, dxs2, dstate2, grads2 = job.run()
    equal((ys, last, dxs, dstate, grads), (ys2[::-1], last2, dxs2[::-1], dstate2, grads2))


@pytest.mark.parametrize("merge", ["concat", "sum"])
@ALL
def test_bidirectional_is_two_runs(build, merge, rng):
    there, back = Job(rng, build(2, 3, (3,)), (4,)), Job(rng, build(2, 3, (3,)), (4,))
    zero = map_arrays(np.zeros_like, there.state)
    lengths = [2, 4, 1]
    layer = Bidirectional(there.cell, back.cell, merge=merge)
    y, saved = layer.forward(there.xs, lengths=lengths)
    y1, _, tape1 = scan(there.cell, there.xs, zero, lengths=lengths)
    y2, _, tape2 = scan(back.cell, there.xs, zero, lengths=lengths, reverse=True)
    equal(y, y1 + y2 if merge == "sum" else np.concatenate([y1, y2], axis=2))
    dy = rng.standard_normal(y.shape)
    halves = (dy, dy) if merge == "sum" else (dy[:, :, :3], dy[:, :, 3:])
    dx, grads = layer.backward(dy, saved)
    dx1, _, grads1 = scan_backward(there.cell, halves[0], None, tape1)
    dx2, _, grads2 = scan_backward(back.cell, halves[1], None, tape2)
    close(dx, dx1 + dx2)
    close(
        grads,
        {f"forward.{n}": g for n, g in grads1.items()} | {f"backward.{n}": g for n, g in grads2.items()},
    )


def test_bidirectional_over_convolutions_of_two_sizes_shows_both_last_states(rng):
    first, second = randomised(LSTMCell(2, 3, (3,)), rng), randomised(LSTMCell(2, 2, (3,)), rng)
    xs = rng.standard_normal((4, 2, 2, 5))
    y, _ = Bidirectional(first, second, return_sequences=False).forward(xs)
    np.testing.assert_array_equal(y[:, :3], scan(first, xs)[1].h)
    np.testing.assert_array_equal(y[:, 3:], scan(second, xs, reverse=True)[1].h)


@ALL
def test_permuting_the_batch_permutes_the_gradients(build, rng):
    job = Job(rng, build(2, 3, (3,)), (4,))
    _, _, dxs, dstate, grads = job.run(lengths=[2, 4, 1])
    order = np.array([2, 0, 1])
    job.xs, job.dys = job.xs[:, order], job.dys[:, order]
    job.state, job.dlast = (map_arrays(lambda a: a[order], s) for s in (job.state, job.dlast))
    _, _, dxs2, dstate2, grads2 = job.run(lengths=np.array([2, 4, 1])[order])
    close((dxs[:, order], map_arrays(lambda a: a[order], dstate), grads), (dxs2, dstate2, grads2))


# --- which gradients arrive ---


@pytest.mark.parametrize("present", list(product([True, False], repeat=3)))
def test_absent_gradients_count_as_zero(present, rng):
    job = Job(rng, ConvLSTMCell(2, 2, (3,), peephole="channel"), (4,), T=5)
    on_ys, on_h, on_c = present
    dys = job.dys if on_ys else None
    partial = job.dlast._replace(h=job.dlast.h if on_h else None, c=job.dlast.c if on_c else None)
    zeros = (np.zeros_like(job.dys), map_arrays(np.zeros_like, job.dlast))
    zdys = job.dys if on_ys else zeros[0]
    zlast = job.dlast._replace(h=job.dlast.h if on_h else zeros[1].h, c=job.dlast.c if on_c else zeros[1].c)
    tape = job.forward()[2]
    expected = scan_backward(job.cell, zdys, zlast, tape)
    equal(scan_backward(job.cell, dys, partial, tape), expected)
    if not on_h and not on_c:
        equal(scan_backward(job.cell, dys, None, tape), expected)
    if not any(present):
        assert not any(np.any(g) for g in expected[2].values())
    kept = scan_checkpointed(job.cell, job.xs, job.state)[2]
    equal(scan_checkpointed_backward(job.cell, dys, partial, kept), expected)
    truncated = [
        scan_truncated_backward(job.cell, d, s, tape, k1=2, k2=3) for d, s in ((dys, partial), (zdys, zlast))
    ]
    equal(*truncated)


def test_gradients_add_up_over_where_they_arrive(rng):
    """Backward is linear: on the sequence, on the last h and on the last c at once is the sum of the three."""
    job = Job(rng, LSTMCell(2, 3, peephole="channel"), ())
    tape = job.forward()[2]
    zero = job.dlast._replace(h=None, c=None)
    parts = [
        scan_backward(job.cell, job.dys, None, tape),
        scan_backward(job.cell, None, zero._replace(h=job.dlast.h), tape),
        scan_backward(job.cell, None, zero._replace(c=job.dlast.c), tape),
    ]
    total = map_arrays(lambda a, b, c: a + b + c, *parts)
    close(scan_backward(job.cell, job.dys, job.dlast, tape), total)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_recurrent_layer_takes_gradients_on_output_and_state(return_sequences, rng):
    job = Job(rng, LSTMCell(2, 3), ())
    layer = Recurrent(job.cell, return_sequences=return_sequences, return_state=True)
    (y, state), saved = layer.forward(job.xs, state=job.state, lengths=[2, 4, 1])
    dy = job.dys if return_sequences else job.dlast.h
    dxs, dstart, grads = layer.backward_with_state((dy, job.dlast), saved)
    tape = job.forward(lengths=[2, 4, 1])[2]
    if return_sequences:
        expected = scan_backward(job.cell, job.dys, job.dlast, tape)
    else:
        np.testing.assert_array_equal(y, state.h)
        expected = scan_backward(job.cell, None, job.dlast._replace(h=2 * job.dlast.h), tape)
    equal((dxs, dstart, grads), expected)


# --- purity ---


@ALL
def test_backward_twice_gives_the_same_and_nothing_is_changed(build, rng):
    job = Job(rng, build(2, 3, (3,)), (4,))
    inputs = (job.xs, job.state, job.dys, job.dlast, job.cell.params)
    copies = map_arrays(np.copy, inputs)
    for settings in ({}, {"lengths": [2, 4, 1], "reverse": True}):
        ys, last, tape = job.forward(**settings)
        kept = map_arrays(np.copy, (ys, last))
        first = scan_backward(job.cell, job.dys, job.dlast, tape)
        equal(scan_backward(job.cell, job.dys, job.dlast, tape), first)
        truncated = scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=1, k2=2)
        equal(scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=1, k2=2), truncated)
        equal((ys, last), kept)
    points = scan_checkpointed(job.cell, job.xs, job.state)[2]
    first = scan_checkpointed_backward(job.cell, job.dys, job.dlast, points)
    equal(scan_checkpointed_backward(job.cell, job.dys, job.dlast, points), first)
    equal(inputs, copies)


@RANKS
@ALL
def test_views_with_any_strides_give_the_same(build, rank, rng):
    job = Job(rng, build(2, 3, KERNELS[rank]), SIZES[rank])
    ys, last, dxs, dstate, grads = job.run()

    def strange(a: np.ndarray) -> np.ndarray:
        """The same values, axes laid out backwards in memory, with gaps and a negative stride."""
        wide = np.zeros((*a.shape[::-1], 2))
        view = wide[..., 0].T[::-1] if a.ndim else a
        view[...] = a
        assert not view.flags.c_contiguous
        return view

    job.xs, job.dys = strange(job.xs), strange(job.dys)
    job.state, job.dlast = map_arrays(strange, job.state), map_arrays(strange, job.dlast)
    close(job.run(), (ys, last, dxs, dstate, grads))


def test_the_final_state_is_that_of_the_last_valid_step(rng):
    job = Job(rng, LSTMCell(2, 3), (), T=5)
    ys, last, _ = job.forward(lengths=[3, 5, 1])
    for n, length in enumerate([3, 5, 1]):
        np.testing.assert_array_equal(last.h[n], ys[length - 1, n])
        c = scan(job.cell, job.xs[:length, n : n + 1], clip_of(job.state, n))[1].c
        np.testing.assert_allclose(last.c[n : n + 1], c, **CLOSE)


def test_gradients_have_the_names_of_the_parameters_and_their_dtype(rng):
    for build, dtype in product(CELLS.values(), (np.float32, np.float64)):
        cell = build(2, 3, (3,), dtype=dtype)
        xs = rng.standard_normal((3, 2, 2, 4)).astype(dtype)
        start = cell.initial_state(xs[0])
        ys, last, tape = scan(cell, xs, start)
        for dxs, dstate, grads in (
            scan_backward(cell, ys, last, tape),
            scan_truncated_backward(cell, ys, last, tape, k1=1, k2=2),
            scan_checkpointed_backward(cell, ys, last, scan_checkpointed(cell, xs, start)[2]),
        ):
            assert set(grads) == set(cell.params)
            for name, g in grads.items():
                assert g.shape == cell.params[name].shape
            for a in (ys, *last, dxs, *dstate, *grads.values()):
                assert a.dtype == dtype


# --- bad input ---


def bad(match: str) -> Any:
    return pytest.raises(ValueError, match=match)


def test_bad_sequences_are_refused():
    cell = LSTMCell(2, 3)
    for run in (scan, scan_checkpointed):
        with bad(r"xs.shape is \(0, 4, 2\), expected \(T, N, C, \*S\) with at least one step T"):
            run(cell, np.ones((0, 4, 2), np.float32))
        with bad(r"xs.shape is \(4, 2\), expected \(T, N, C, \*S\)"):
            run(cell, np.ones((4, 2), np.float32))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], r"lengths has shape \(2,\) and dtype int64, expected one integer for each of 3 clips"),
        ([1.0, 2.0, 2.0], r"lengths has shape \(3,\) and dtype float64, expected one integer"),
        ([True, True, True], r"dtype bool, expected one integer for each of 3 clips"),
        ([[1, 2, 2]], r"lengths has shape \(1, 3\)"),
        ([0, 2, 4], r"lengths are in 0..4, expected 1..4, the steps of xs"),
        ([1, 5, 4], r"lengths are in 1..5, expected 1..4"),
        ([-1, 2, 4], r"lengths are in -1..4"),
    ],
)
def test_bad_lengths_are_refused(lengths, message, rng):
    job = Job(rng, LSTMCell(2, 3), ())
    with bad(message):
        job.forward(lengths=lengths)
    with bad(message):
        scan_checkpointed(job.cell, job.xs, lengths=lengths)


def test_bad_windows_are_refused(rng):
    job = Job(rng, LSTMCell(2, 3), ())
    tape = job.forward()[2]
    for k1, k2 in [(3, 2), (0, 2), (-1, 1)]:
        with bad(f"k1 is {k1} and k2 is {k2}, expected 1 <= k1 <= k2"):
            scan_truncated_backward(job.cell, job.dys, job.dlast, tape, k1=k1, k2=k2)
    with bad("every is 0, expected at least 1 step a segment"):
        scan_checkpointed(job.cell, job.xs, every=0)


def test_truncated_cases_want_whole_clips_read_forwards(rng):
    job = Job(rng, LSTMCell(2, 3), ())
    with bad("leave lengths and reverse out"):
        cell_case("x", job.cell, job.xs, mode="truncated", reverse=True)
    with bad("mode is 'half', expected one of"):
        cell_case("x", job.cell, job.xs, mode="half")
