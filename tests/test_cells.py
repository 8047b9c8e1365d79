"""Cells against naive loops, and the identities between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import scan, scan_backward
from tinyconvlstm.cells import (
    ConvLSTMCell,
    GRUCell,
    LSTMCell,
    ResetBeforeGRUCell,
    RNNCell,
)
from tinyconvlstm.gradcheck.zoo_cells import CELLS, KERNELS, SIZES, randomised
from tinyconvlstm.ops.activations import sigmoid

from . import oracles_recurrent as oracle

ALL = pytest.mark.parametrize("build", CELLS.values(), ids=CELLS)
RANKS = pytest.mark.parametrize("rank", [0, 1, 2, 3])
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


def start(rng: np.random.Generator, cell: Any, xs: np.ndarray) -> Any:
    """A random state."""
    blank = cell.initial_state(xs[0])
    return type(blank)(*(0.7 * rng.standard_normal(a.shape) for a in blank))


def setting(rng: np.random.Generator, cell: Any, sizes: tuple[int, ...], T: int = 3, N: int = 2) -> Any:
    """The cell with random parameters, a random sequence and a random state."""
    cell = randomised(cell, rng)
    xs = rng.standard_normal((T, N, cell.channels, *sizes))
    return cell, xs, start(rng, cell, xs)


def against_oracle(cell: Any, xs: np.ndarray, state: Any, backend: str = "numpy", **settings: Any) -> None:
    window = settings.pop("window", {})
    ys, last, _ = scan(cell.to_backend(backend), *to_backend((xs, state), backend), **settings)
    expected, ends = oracle.run(type(cell).__name__, xs, tuple(state), cell.params, **settings, **window)
    np.testing.assert_allclose(to_numpy(ys), expected, **CLOSE)
    for a, b in zip(to_numpy(last), ends, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


# --- naive loops ---


@RANKS
@ALL
def test_scan_equals_naive_loops(build, rank, rng, backend):
    against_oracle(*setting(rng, build(3, 2, KERNELS[rank]), SIZES[rank]), backend)


@RANKS
@pytest.mark.parametrize("peephole", ["channel", "map"])
def test_peepholes_equal_naive_loops(peephole, rank, rng, backend):
    size = SIZES[rank] if peephole == "map" else None
    cell = LSTMCell(2, 3, KERNELS[rank], peephole=peephole, size=size)
    against_oracle(*setting(rng, cell, SIZES[rank]), backend)


@ALL
def test_lengths_and_reverse_equal_naive_loops_clip_by_clip(build, rng, backend):
    for reverse in (False, True):
        cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), T=4, N=3)
        against_oracle(cell, xs, state, backend, lengths=[2, 4, 1], reverse=reverse)


@ALL
def test_strided_dilated_uneven_input_map_equals_naive_loops(build, rng):
    window = {"stride": (2, 1), "padding": ((2, 0), (0, 1)), "dilation": (1, 2)}
    cell = build(2, 2, (3, 2), state_kernel=(2, 4), **window)
    naive = {"stride": (2, 1), "before": (2, 0), "dilation": (1, 2)}
    against_oracle(*setting(rng, cell, (5, 6)), window=naive)


def test_dilated_state_map_equals_naive_loops(rng):
    cell, xs, state = setting(rng, RNNCell(2, 2, (3, 2), state_dilation=2), (5, 4), T=1)
    ys, _, _ = scan(cell, xs, state)
    for n, f, i, j in np.ndindex(ys.shape[1:]):
        z = cell.params["b"][f] + oracle.taps_at(xs[0, n], cell.params["w_x"][f], (i, j))
        z += oracle.taps_at(state.h[n], cell.params["w_h"][f], (i, j), dilation=2, before=(2, 1))
        assert ys[0, n, f, i, j] == pytest.approx(np.tanh(z), rel=1e-12)


@ALL
def test_a_cell_without_input_sees_its_bias_alone(build, rng, backend):
    cell, xs, state = setting(rng, build(0, 2, (3, 2)), (3, 4))
    assert xs.shape == (3, 2, 0, 3, 4)
    assert "w_x" not in cell.params
    against_oracle(cell, xs, state, backend)


# --- identities ---


def test_lstm_cell_without_space_is_the_lstm_bit_for_bit(rng):
    cell, xs, state = setting(rng, LSTMCell(4, 3), (), T=5, N=3)
    ys, last, _ = scan(cell, xs, state)
    w_x, w_h, b = (cell.params[name] for name in ("w_x", "w_h", "b"))
    h, c = state
    zs = (xs.reshape(15, 4) @ w_x.T + b).reshape(5, 3, 12)
    for t in range(5):
        i, f, g, o = np.split(h @ w_h.T + zs[t], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_array_equal(ys[t], h)
    np.testing.assert_array_equal(last.c, c)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("build", "settings"),
    [*((build, {}) for build in CELLS.values()), (LSTMCell, {"peephole": "channel"})],
    ids=[*CELLS, "LSTM with peepholes"],
)
def test_on_frames_of_one_pixel_a_convolution_is_its_centre_tap(build, settings, rank, rng):
    conv, xs, state = setting(rng, build(3, 2, (3,) * rank, **settings), (1,) * rank)
    dense = build(3, 2, **settings)
    centre = (slice(None), slice(None), *(1,) * rank)
    dense = dense.bind({n: a[centre] if n in ("w_x", "w_h") else a for n, a in conv.params.items()})
    ys, last, _ = scan(conv, xs, state)
    flat = xs.reshape(xs.shape[:3])
    ys_dense, last_dense, _ = scan(dense, flat, type(state)(*(a.reshape(a.shape[:2]) for a in state)))
    np.testing.assert_allclose(ys.reshape(ys_dense.shape), ys_dense, **CLOSE)
    np.testing.assert_allclose(last[-1].reshape(last_dense[-1].shape), last_dense[-1], **CLOSE)


@ALL
def test_kernels_of_one_tap_are_the_dense_cell_at_every_pixel(build, rng):
    conv, xs, state = setting(rng, build(3, 2, (1, 1)), (3, 4))
    dense = build(3, 2).bind({n: a.reshape(a.shape[:2]) if a.ndim > 1 else a for n, a in conv.params.items()})
    ys, _, _ = scan(conv, xs, state)
    for i, j in np.ndindex(3, 4):
        pixel = type(state)(*(a[:, :, i, j] for a in state))
        ys_pixel, _, _ = scan(dense, xs[..., i, j], pixel)
        np.testing.assert_allclose(ys[..., i, j], ys_pixel, **CLOSE)


def test_fused_gates_equal_four_cells_of_one_gate_each(rng):
    """Each gate computed by a map of its own, from its own rows of the weights."""
    cell, xs, state = setting(rng, ConvLSTMCell(2, 3, (3, 2)), (3, 4), T=1)
    z = {}
    for k, gate in enumerate("ifgo"):
        rows = {n: a[3 * k : 3 * k + 3] for n, a in cell.params.items()}
        one = RNNCell(2, 3, (3, 2)).bind(rows)
        (z_x,), _ = one.project(xs)
        z[gate] = z_x + one.state_map.forward(state.h, one.params)[0]
    c = sigmoid(z["f"]) * state.c + sigmoid(z["i"]) * np.tanh(z["g"])
    ys, last, _ = scan(cell, xs, state)
    np.testing.assert_allclose(last.c, c, **CLOSE)
    np.testing.assert_allclose(ys[0], sigmoid(z["o"]) * np.tanh(c), **CLOSE)


@ALL
def test_a_shifted_clip_gives_a_shifted_state_away_from_the_borders(build, rng):
    cell = randomised(build(2, 2, (3, 3)), rng)
    xs = rng.standard_normal((3, 1, 2, 14, 15))
    ys, _, _ = scan(cell, xs)
    shifted, _, _ = scan(cell, np.roll(xs, (1, 2), (-2, -1)))
    margin = 7  # reset-before GRUs see two pixels further a step; three steps, and the shift
    inner = (..., slice(margin, 14 - margin + 1), slice(margin, 15 - margin + 1))
    np.testing.assert_allclose(np.roll(ys, (1, 2), (-2, -1))[inner], shifted[inner], **CLOSE)
    assert not np.allclose(ys[inner], shifted[inner])


@ALL
def test_permuting_the_batch_permutes_the_result(build, rng):
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), N=4)
    order = np.array([2, 0, 3, 1])
    ys, last, _ = scan(cell, xs, state, lengths=[1, 2, 3, 2])
    lengths = np.array([1, 2, 3, 2])[order]
    permuted = type(state)(*(a[order] for a in state))
    ys2, last2, _ = scan(cell, xs[:, order], permuted, lengths=lengths)
    np.testing.assert_allclose(ys[:, order], ys2, **CLOSE)
    np.testing.assert_allclose(last[-1][order], last2[-1], **CLOSE)


# --- recurrent dropout ---


@pytest.mark.parametrize("build", [LSTMCell, RNNCell])
def test_the_recurrent_mask_is_a_mask_of_the_state_maps_columns(build, rng):
    """One mask for all clips: reading h * mask with w_h is reading h with w_h * mask."""
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,))
    mask = np.array([0.0, 1.7, 0.4])[:, None]
    masked = cell.bind({**cell.params, "w_h": cell.params["w_h"] * mask})
    ys, last, _ = scan(cell, xs, state, h_mask=mask)
    ys2, last2, _ = scan(masked, xs, state)
    np.testing.assert_allclose(ys, ys2, **CLOSE)
    np.testing.assert_allclose(last[-1], last2[-1], **CLOSE)


@pytest.mark.parametrize("build", [GRUCell, ResetBeforeGRUCell])
def test_the_mask_spares_the_grus_interpolation(build, rng):
    """With every element of h dropped the maps see none of it, and u still carries it over."""
    cell, xs, state = setting(rng, build(2, 3), (), T=1)
    ys, _, _ = scan(cell, xs, state, h_mask=np.zeros((1, 3)))
    z = xs[0] @ cell.params["w_x"].T + cell.params["b"]
    r, u = sigmoid(z[:, :3]), sigmoid(z[:, 3:6])
    n = np.tanh(z[:, 6:] + r * cell.params.get("b_hn", 0))
    np.testing.assert_allclose(ys[0], (1 - u) * n + u * state.h, **CLOSE)


# --- dtypes ---


def float32_bound(cell: Any, xs: np.ndarray, state: Any) -> float:
    """How far a float32 LSTM scan can be from a float64 one.

    With unit roundoff e: a pre-activation of n products is off by n e sum|w||v| + |w_h| dh; sigmoid has
    slope at most 1/4 and tanh 1, so dc' <= dc + (|c|/4 + 5/4) dz + 4e(1 + |c|) and dh' <= dc' + dz/4 + 4e.
    """
    e = np.finfo(np.float32).eps / 2
    rows = {n: np.abs(cell.params[n]).reshape(len(cell.params[n]), -1).sum(1).max() for n in ("w_x", "w_h")}
    n = sum(cell.params[name][0].size for name in ("w_x", "w_h")) + 3
    h = max(1.0, np.abs(state.h).max())
    size = rows["w_x"] * np.abs(xs).max() + rows["w_h"] * h + np.abs(cell.params["b"]).max()
    c = np.abs(state.c).max() + len(xs)  # the cell grows by less than 1 a step
    dh, dc = e * h, e * c
    for _ in range(len(xs)):
        dz = 2 * n * e * size + rows["w_h"] * dh
        dc = dc + (c / 4 + 1.25) * dz + 4 * e * (1 + c)
        dh = dc + dz / 4 + 4 * e
    return float(dh)


@RANKS
def test_float32_stays_float32_and_near_float64(rank, rng, backend):
    cell, xs, state = setting(rng, LSTMCell(3, 2, KERNELS[rank]), SIZES[rank])
    cell = cell.bind({name: 0.1 * a for name, a in cell.params.items()})  # larger ones let the bound explode
    ys, _, _ = scan(cell, xs, state)
    small = [a.astype(np.float32) for a in (xs, *state)]
    xs32, state32 = to_backend((small[0], type(state)(*small[1:])), backend)
    cell32 = cell.astype(np.float32).to_backend(backend)
    ys32, last32, tape = scan(cell32, xs32, state32)
    dxs, dstate, grads = scan_backward(cell32, ys32, last32, tape)
    for a in (ys32, *last32, dxs, *dstate, *grads.values()):
        assert a.dtype == np.float32
    bound = float32_bound(cell, xs, state)
    assert bound < 2e-3
    assert np.abs(to_numpy(ys32) - ys).max() < bound
    assert np.abs(to_numpy(ys32) - ys).max() > 0


@RANKS
@ALL
def test_complex_numbers_run_through_every_cell(build, rank, rng):
    cell, xs, state = setting(rng, build(3, 2, KERNELS[rank]), SIZES[rank])
    ys, _, _ = scan(cell, xs, state)
    complex_ys, _, _ = scan(
        cell.astype(complex), xs.astype(complex), type(state)(*(a.astype(complex) for a in state))
    )
    assert complex_ys.dtype == np.complex128
    np.testing.assert_allclose(complex_ys.real, ys, **CLOSE)


# --- fresh cells ---


@RANKS
@ALL
def test_a_fresh_cell_has_the_stated_shapes_and_a_zero_state(build, rank):
    cell = build(3, 2, KERNELS[rank], rng=5)
    gates = len(cell.gates)
    assert cell.params["w_x"].shape == (gates * 2, 3, *KERNELS[rank])
    assert cell.params["w_h"].shape == (gates * 2, 2, *KERNELS[rank])
    assert cell.params["b"].shape == (gates * 2,)
    assert all(a.dtype == np.float32 for a in cell.params.values())
    state = cell.initial_state(np.ones((4, 3, *SIZES[rank]), np.float32))
    for a in state:
        assert a.shape == (4, 2, *SIZES[rank])
        assert a.dtype == np.float32
        assert not a.any()


def test_the_same_seed_gives_the_same_cell_and_another_seed_another():
    a, b, c = (ConvLSTMCell(2, 3, (3, 3), rng=seed).params for seed in (4, 4, 5))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["w_x"], c["w_x"])


def test_the_forget_bias_sits_in_the_forget_gates_rows():
    b = LSTMCell(2, 3, forget_bias=1.5).params["b"]
    np.testing.assert_array_equal(b, [0, 0, 0, 1.5, 1.5, 1.5, 0, 0, 0, 0, 0, 0])


def test_a_dense_state_map_starts_orthogonal_gate_by_gate():
    w_h = LSTMCell(2, 4, dtype=np.float64).params["w_h"].reshape(4, 4, 4)
    for gate in w_h:
        np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-12)


@pytest.mark.parametrize(("peephole", "shape"), [("channel", (3, 2)), ("map", (3, 2, 4, 5))])
def test_peepholes_start_at_zero(peephole, shape):
    size = (4, 5) if peephole == "map" else None
    w_c = ConvLSTMCell(1, 2, (3, 3), peephole=peephole, size=size).params["w_c"]
    assert w_c.shape == shape
    assert not w_c.any()


# --- bad input ---


def bad(match: str, error: type[Exception] = ValueError) -> Any:
    return pytest.raises(error, match=match)


def test_bad_settings_are_refused_by_name():
    with bad(r"peephole is 'full', expected None, 'channel' or 'map'"):
        LSTMCell(2, 3, peephole="full")
    with bad(r"size is None, expected 2 spatial sizes for peephole='map'"):
        LSTMCell(2, 3, (3, 3), peephole="map")
    with bad(r"size is \(4,\), expected 2 spatial sizes"):
        LSTMCell(2, 3, (3, 3), peephole="map", size=(4,))
    with bad(r"state_kernel is \(3,\), expected one entry for each of \(3, 3\)"):
        LSTMCell(2, 3, (3, 3), state_kernel=(3,))
    with bad(r"kernel is \(\), expected one int a spatial axis; the dense cell is LSTMCell"):
        ConvLSTMCell(2, 3, ())


@ALL
def test_frames_that_do_not_fit_the_cell_are_refused(build):
    cell = build(3, 2, (3, 3), dtype=np.float64)
    with bad(r"x has 4 channels, w_x expects 3 \(w_x.shape == "):
        scan(cell, np.ones((2, 1, 4, 5, 5)))
    with bad(r"a frame has shape \(1, 3, 5\), expected \(N, C, \*S\) with 2 spatial axes"):
        scan(cell, np.ones((2, 1, 3, 5)))
    with bad("dtypes differ: x is float32 and", TypeError):
        scan(cell, np.ones((2, 1, 3, 5, 5), np.float32))
    with bad(r"x.shape is \(1, 3, 5, 5\), expected \(N, 0, \*S\): this cell has no input"):
        scan(build(0, 2, (3, 3)), np.ones((2, 1, 3, 5, 5)))


def test_a_peephole_map_of_another_size_is_refused():
    cell = ConvLSTMCell(1, 2, (3, 3), peephole="map", size=(4, 5))
    with bad(r"the state is \(4, 6\) for frames of shape \(1, 1, 4, 6\), the peephole map \(4, 5\)"):
        scan(cell, np.ones((2, 1, 1, 4, 6), np.float32))


def test_a_start_state_that_does_not_fit_is_refused_and_not_broadcast(rng):
    cell, xs, state = setting(rng, LSTMCell(2, 3, (3,)), (4,))
    with bad(r"state.c has shape \(1, 3, 4\), expected \(2, 3, 4\) for frames of shape \(2, 2, 4\)"):
        scan(cell, xs, state._replace(c=state.c[:1]))
    with bad("x is float64 and state.h is float64 and state.c is float32", TypeError):
        scan(cell, xs, state._replace(c=state.c.astype(np.float32)))


def test_a_state_on_the_other_backend_is_named(rng, cupy_standin):
    cell, xs, state = setting(rng, LSTMCell(2, 3, (3,)), (4,))
    with bad("x is a numpy array of shape .* and state.h is a cupy array", TypeError):
        scan(cell, xs, to_backend(state, "cupy"))
