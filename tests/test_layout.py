"""What lies together in memory is read without a copy, and what does not is put together right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import (
    ConvLSTMCell,
    GRUCell,
    LSTMCell,
    RNNCell,
    bptt,
    parallel,
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
    set_threads,
)
from tinyconvlstm.cells import lstm
from tinyconvlstm.cells.base import TwoMapCell
from tinyconvlstm.cells.maps import as_array, as_one_batch, lined_up
from tinyconvlstm.gradcheck.zoo_cells import CELLS
from tinyconvlstm.gradcheck.zoo_variants import VARIANTS
from tinyconvlstm.ops.gates import LSTMState, laid_as, lstm_gates_backward, lstm_gates_forward


def blocks() -> dict[str, list[np.ndarray]]:
    """Lists of 4 matrices (3, 2), by how they lie."""
    whole = np.arange(60.0).reshape(5, 3, 4)
    apart = [np.arange(6.0).reshape(3, 2) + k for k in range(4)]
    block = np.arange(24.0).reshape(4, 3, 2)
    columns = [np.asfortranarray(a) for a in apart]
    return {
        "in a row": [*block],
        "every other one": [*np.arange(48.0).reshape(8, 3, 2)[::2]],
        "a part of each": [*whole[:4, :, 1:3]],
        "by columns": columns,
        "apart": apart,
        "backwards": [*block[::-1]],
        "unevenly": [block[0], block[1], block[3], block[2]],
        "the same one": [block[0]] * 4,
        "overlapping": [np.arange(12.0)[k : k + 6].reshape(3, 2) for k in range(4)],
        "two blocks": [block[0], block[1], block.copy()[2], block[3]],
        "other strides": [block[0], block[1], whole[0, :, :2], block[3]],
    }


@pytest.mark.parametrize("name", blocks())
def test_frames_are_put_together_however_they_lie(name: str) -> None:
    frames = blocks()[name]
    expected = np.stack(frames)
    np.testing.assert_array_equal(as_array(frames), expected)
    np.testing.assert_array_equal(as_one_batch(frames), expected.reshape(12, 2))
    lies = name in ("in a row", "every other one", "a part of each")
    found: Any = lined_up(frames)
    assert isinstance(found, np.ndarray) == lies
    if lies:
        assert np.shares_memory(found, frames[0])
        assert found.base is not None


def test_one_frame_is_a_batch() -> None:
    frame = np.arange(6.0).reshape(3, 2)
    assert as_one_batch([frame]).shape == (3, 2)
    assert np.shares_memory(as_one_batch([frame]), frame)
    assert as_array([frame]).shape == (1, 3, 2)


def test_matrices_by_columns_stay_by_columns() -> None:
    """As products leave them; a gradient that arrives by rows is turned once, not in every line."""
    rng = np.random.default_rng(0)
    z, c = np.asfortranarray(rng.standard_normal((5, 12))), rng.standard_normal((5, 3))
    state, saved = lstm_gates_forward(z, c)
    assert all(a.flags.f_contiguous for a in (saved.c, saved.tanh_c, state.c, state.h))
    by_rows = LSTMState(rng.standard_normal((5, 3)), rng.standard_normal((5, 3)))
    dz, dc_prev, _ = lstm_gates_backward(by_rows, saved)
    assert dz.flags.f_contiguous
    assert dc_prev.flags.f_contiguous
    state, saved = lstm_gates_forward(np.ascontiguousarray(z), c)
    expected, dc, _ = lstm_gates_backward(by_rows, saved)
    assert expected.flags.c_contiguous
    np.testing.assert_array_equal(dz, expected)
    np.testing.assert_array_equal(dc_prev, dc)
    assert laid_as(saved.c, by_rows.h) is by_rows.h


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "cell",
    [
        LSTMCell(5, 4, dtype=np.float64),
        GRUCell(5, 4, dtype=np.float64),
        RNNCell(5, 4, dtype=np.float64),
        ConvLSTMCell(5, 20, (5, 5), dtype=np.float64),
    ],
    ids=lambda cell: f"{type(cell).__name__}{cell.kernel}",
)
@pytest.mark.parametrize("reverse", [False, True])
def test_joined_gradients_are_those_of_single_steps(cell: Any, threads: int, reverse: bool) -> None:
    """A whole scan's gradients against the sum over scans of one step each, handed on by hand."""
    rng, sizes = np.random.default_rng(1), (12, 12) if cell.kernel else ()
    xs = rng.standard_normal((4, 6, 5, *sizes))
    set_threads(threads)
    try:
        ys, _, tape = scan(cell, xs, reverse=reverse)
        dys = rng.standard_normal(ys.shape)
        dxs, _, grads = scan_backward(cell, dys, None, tape)
        order = range(3, -1, -1) if reverse else range(4)
        state, tapes, dstate, sums, dx_steps = cell.initial_state(xs[0]), {}, None, {}, {}
        for t in order:
            _, state, tapes[t] = scan(cell, xs[t : t + 1], state)
        for t in reversed(order):
            dx_steps[t], dstate, found = scan_backward(cell, dys[t : t + 1], dstate, tapes[t])
            sums = {name: sums.get(name, 0) + found[name] for name in found}
    finally:
        set_threads(None)
    for t in order:
        np.testing.assert_allclose(dxs[t], dx_steps[t][0], rtol=1e-10, atol=1e-11)
    for name, total in sums.items():
        np.testing.assert_allclose(grads[name], total, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("build", [*CELLS.values(), *VARIANTS.values()], ids=[*CELLS, *VARIANTS])
def test_parts_write_their_gradients_into_one_array(
    build: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads, however many steps the maps take together: dxs of all clips, as on one thread."""
    rng = np.random.default_rng(2)
    cell, xs = build(3, 2, (3, 2), dtype=np.float64), rng.standard_normal((5, 4, 3, 5, 4))
    ys, _, tape = scan(cell, xs)
    dys = rng.standard_normal(ys.shape)
    expected, _, grads = scan_backward(cell, dys, None, tape)
    monkeypatch.setattr(type(cell), "steps_at_once", lambda self, xs: min(at_once, len(xs)))
    monkeypatch.setattr(bptt, "STEP", 1)
    monkeypatch.setattr(parallel, "SMALL", 1)
    set_threads(2)
    try:
        cut_ys, _, parts = scan(cell, xs)
        dxs, _, cut_grads = scan_backward(cell, dys, None, parts)
        lean = scan_checkpointed(cell, xs, every=2)[2]
        again = scan_checkpointed_backward(cell, dys, None, lean)[0]
    finally:
        set_threads(None)
    assert len(parts.slices) == 2
    np.testing.assert_allclose(cut_ys, ys, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dxs, expected, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(again, expected, rtol=1e-10, atol=1e-11)
    for name, value in grads.items():
        np.testing.assert_allclose(cut_grads[name], value, rtol=1e-10, atol=1e-10)


class StepByStep(ConvLSTMCell):
    """A ConvLSTM that asks for nothing ahead of a step."""

    ahead = TwoMapCell.ahead


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("peephole", [None, "channel"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_slopes_of_several_steps_are_those_of_each(
    kind: type, peephole: str | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, however many steps a cache holds, and on every way back."""
    rng = np.random.default_rng(3)
    cell = ConvLSTMCell(2, 3, (3, 2), peephole=peephole)
    alone = StepByStep(2, 3, (3, 2), peephole=peephole)
    if peephole:
        cell.params["w_c"][...] = alone.params["w_c"][...] = rng.standard_normal((3, 3), dtype=np.float32)
    xs = rng.standard_normal((5, 2, 2, 6, 4), dtype=np.float32)
    dys = rng.standard_normal((5, 2, 3, 6, 4)).astype(kind)
    monkeypatch.setattr(lstm, "Z_BYTES", size * xs[0, :, 0].size * 4 * 3 * 4)
    found, expected = (
        [
            scan_backward(c, dys, None, scan(c, xs)[2]),
            scan_backward(c, dys, None, scan(c, xs, lengths=[3, 5])[2]),
            scan_truncated_backward(c, dys, None, scan(c, xs)[2], k1=2, k2=3),
            scan_checkpointed_backward(c, dys, None, scan_checkpointed(c, xs, every=2)[2]),
        ]
        for c in (cell, alone)
    )
    for (dxs, _, grads), (dxs_alone, _, grads_alone) in zip(found, expected, strict=True):
        assert dxs.dtype == dxs_alone.dtype
        np.testing.assert_array_equal(dxs, dxs_alone)
        for name, grad in grads_alone.items():
            np.testing.assert_array_equal(grads[name], grad)


@pytest.mark.parametrize("kind", [np.float64, np.complex128])
def test_gradients_may_be_wider_than_the_tape(kind: type) -> None:
    """Float64 gradients of a float32 scan are rounded nowhere on their way through the gates, complex ones stay so."""
    rng = np.random.default_rng(4)
    cell, alone = ConvLSTMCell(2, 3, (3,)), StepByStep(2, 3, (3,))
    xs, dys = (
        rng.standard_normal((4, 2, 2, 6), dtype=np.float32),
        rng.standard_normal((4, 2, 3, 6)).astype(kind),
    )
    dxs, _, grads = scan_backward(cell, dys, None, scan(cell, xs)[2])
    dxs_alone, _, grads_alone = scan_backward(alone, dys, None, scan(alone, xs)[2])
    np.testing.assert_array_equal(dxs, dxs_alone)
    np.testing.assert_array_equal(grads["w_h"], grads_alone["w_h"])


class Clipped(ConvLSTMCell):
    """A ConvLSTM that changes its dz, in an array of its own."""

    def step_backward(self, dstate: Any, saved: Any) -> Any:
        dz, before, grads = super().step_backward(dstate, saved)
        return np.clip(dz, -0.01, 0.01), before, grads


class ClippedAlone(Clipped):
    ahead = TwoMapCell.ahead


def test_a_cell_may_change_the_dz_that_it_found() -> None:
    """What `step_backward` returns is what the maps' gradients are made of, whatever was written where."""
    rng = np.random.default_rng(5)
    xs, dys = rng.standard_normal((4, 2, 2, 6)), rng.standard_normal((4, 2, 3, 6))
    found, expected = (
        scan_backward(cell, dys, None, scan(cell, xs)[2])
        for cell in (Clipped(2, 3, (3,), dtype=np.float64), ClippedAlone(2, 3, (3,), dtype=np.float64))
    )
    np.testing.assert_array_equal(found[0], expected[0])
    for name, grad in expected[2].items():
        np.testing.assert_array_equal(found[2][name], grad)
