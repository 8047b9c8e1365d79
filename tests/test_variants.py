"""Variants of the LSTM against naive loops, and the identities that tie each to a cell known already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import bptt, cells, layers, parallel
from tinyconvlstm.bptt import scan, scan_backward
from tinyconvlstm.cells import (
    CIFGCell,
    ConvLSTMCell,
    ConvPeepholeLSTMCell,
    FGRCell,
    LayerNormLSTMCell,
    LowRankLSTMCell,
    LSTMCell,
    NFGCell,
    NIAFCell,
    NIGCell,
    NOAFCell,
    NOGCell,
    NPCell,
    SeparableLSTMCell,
    TwoMapCell,
    VanillaLSTMCell,
)
from tinyconvlstm.gradcheck.zoo_cells import KERNELS, SIZES
from tinyconvlstm.gradcheck.zoo_variants import VARIANTS
from tinyconvlstm.layers import Recurrent

from . import oracles_attention  # noqa: F401 (its steps run here too)
from . import oracles_variants as naive
from .test_cells import CLOSE, against_oracle, bad, setting
from .test_summary import kept

ALL = pytest.mark.parametrize("build", VARIANTS.values(), ids=VARIANTS)
SPACE = pytest.mark.parametrize("rank", [0, 2])
F64: dict[str, Any] = {"dtype": np.float64}


def same(a: Any, b: Any, xs: np.ndarray, state: Any, other_state: Any = None, **close: Any) -> None:
    """Two cells give the same sequence and final h and c."""
    ys, last, _ = scan(a, xs, state)
    ys_b, last_b, _ = scan(b, xs, state if other_state is None else other_state)
    for found, expected in ((ys, ys_b), (last.h, last_b.h), (last.c, last_b.c)):
        np.testing.assert_allclose(found, expected, **(close or CLOSE))


# --- naive loops ---


@pytest.mark.parametrize("rank", [0, 1, 2])
@ALL
def test_scan_equals_naive_loops(build, rank, rng, backend):
    against_oracle(*setting(rng, build(3, 2, KERNELS[rank]), SIZES[rank]), backend)


@ALL
def test_lengths_and_reverse_equal_naive_loops_clip_by_clip(build, rng):
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), T=4, N=3)
    against_oracle(cell, xs, state, lengths=[2, 4, 1], reverse=True)


@pytest.mark.parametrize("name", ["separable", "low rank", "peephole conv", "CIFG", "FGR"])
def test_strided_dilated_uneven_input_map_equals_naive_loops(name, rng):
    window = {"stride": (2, 1), "padding": ((2, 0), (0, 1)), "dilation": (1, 2)}
    cell = VARIANTS[name](2, 2, (3, 2), **window)
    seen = {"stride": (2, 1), "before": (2, 0), "dilation": (1, 2)}
    against_oracle(*setting(rng, cell, (5, 6)), window=seen)


# --- the same in every variant ---


@ALL
def test_on_frames_of_one_pixel_a_convolution_is_its_centre_tap(build, rng):
    cell, xs, state = setting(rng, build(3, 4, (3, 3)), (1, 1))
    dense = build(3, 4)
    arrays = {n: a[:, :, 0, 0] if a.shape[2:] == (1, 1) else a for n, a in cell.params.items()}
    arrays = {n: a[:, :, 1, 1] if a.ndim == 4 else a for n, a in arrays.items()}
    ys, _, _ = scan(cell, xs, state)
    flat = type(state)(*(a[..., 0, 0] for a in state))
    ys_dense, _, _ = scan(dense.bind(arrays), xs[..., 0, 0], flat)
    np.testing.assert_allclose(ys[..., 0, 0], ys_dense, **CLOSE)


@ALL
def test_permuting_the_batch_permutes_the_result(build, rng):
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), N=4)
    order = np.array([2, 0, 3, 1])
    ys, _, _ = scan(cell, xs, state)
    permuted, _, _ = scan(cell, xs[:, order], type(state)(*(a[order] for a in state)))
    np.testing.assert_allclose(ys[:, order], permuted, **CLOSE)


@pytest.mark.parametrize("build", [b for n, b in VARIANTS.items() if n != "candidate"])
def test_the_recurrent_mask_is_a_mask_of_what_the_state_map_reads(build, rng):
    """With all of h dropped nothing of h0 is left, in the state or in a gradient."""
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,), T=2)
    ys, _, tape = scan(cell, xs, state, h_mask=np.zeros((1, 3, 1)))
    other, _, _ = scan(cell, xs, state._replace(h=state.h + 1), h_mask=np.zeros((1, 3, 1)))
    np.testing.assert_array_equal(ys, other)
    _, dstate, _ = scan_backward(cell, rng.standard_normal(ys.shape), None, tape)
    assert not dstate.h.any()
    assert dstate.c.any()


@SPACE
@ALL
def test_from_rest_is_from_a_state_of_zeros(build, rank, rng):
    """A scan that is given no state may skip what is known to be zero, and must not be seen to."""
    cell, xs, state = setting(rng, build(3, 2, KERNELS[rank]), SIZES[rank])
    ys, last, tape = scan(cell, xs)
    dys = rng.standard_normal(ys.shape)
    zero = type(state)(*(np.zeros_like(a) for a in state))
    expected, ends, other = scan(cell, xs, zero)
    np.testing.assert_allclose(ys, expected, **CLOSE)
    found, wanted = scan_backward(cell, dys, last, tape), scan_backward(cell, dys, ends, other)
    np.testing.assert_allclose(found[0], wanted[0], **CLOSE)
    assert found[2].keys() == wanted[2].keys() == cell.params.keys()
    for name, g in found[2].items():
        np.testing.assert_allclose(g, wanted[2][name], rtol=1e-11, atol=1e-12)


@ALL
def test_a_batch_cut_into_parts_is_the_batch(build, rng, monkeypatch):
    cell, xs, state = setting(rng, build(2, 2, (3,)), (5,), N=5)
    dys = rng.standard_normal((3, 5, 2, 5))
    ys, last, tape = scan(cell, xs, state, lengths=[3, 1, 2, 3, 2])
    whole = scan_backward(cell, dys, last, tape)
    monkeypatch.setattr(bptt, "STEP", 1)
    monkeypatch.setattr(parallel, "get_threads", lambda: 2)
    cut, ends, parts = scan(cell, xs, state, lengths=[3, 1, 2, 3, 2])
    assert isinstance(parts, bptt.Parts)
    np.testing.assert_allclose(cut, ys, **CLOSE)
    np.testing.assert_allclose(ends.c, last.c, **CLOSE)
    found = scan_backward(cell, dys, last, parts)
    np.testing.assert_allclose(found[0], whole[0], **CLOSE)
    np.testing.assert_allclose(found[1].c, whole[1].c, **CLOSE)
    for name, g in found[2].items():
        np.testing.assert_allclose(g, whole[2][name], rtol=1e-11, atol=1e-12)
    assert len(parts.steps[1]) == len(tape.steps[1])  # put together for those who want to look


@ALL
def test_a_seed_draws_the_weights_and_float32_is_the_default(build):
    a, b, c = build(2, 3, (3,)), build(2, 3, (3,)), build(2, 3, (3,), rng=1)
    assert all(np.array_equal(a.params[n], b.params[n]) for n in a.params)
    assert all(v.dtype == np.float32 for v in a.params.values())
    drawn = [n for n, v in a.params.items() if v.ndim == 3 and v.any()]
    assert drawn
    assert all(not np.array_equal(a.params[n], c.params[n]) for n in drawn)
    assert len({float(np.abs(a.params[n]).sum()) for n in drawn}) == len(drawn)  # no two alike
    double = build(2, 3, (3,), **F64)
    assert all(v.dtype == np.float64 for v in double.params.values())


@ALL
def test_frames_that_do_not_fit_are_refused(build):
    cell = build(3, 2, (3, 3), **F64)
    with bad("x has 4 channels, w_x.* expects 3"):
        scan(cell, np.ones((2, 1, 4, 5, 5)))
    with bad(r"a frame has shape \(1, 3, 5\), expected \(N, C, \*S\) with 2 spatial axes"):
        scan(cell, np.ones((2, 1, 3, 5)))


@ALL
def test_kept_numbers_are_those_that_forward_keeps(build, rng):
    layer, shape = Recurrent(build(2, 3, (3, 3), **F64)), (4, 3, 2, 6, 4)
    cost = layer.cost(shape)
    unread = layer.cell.states * 3 * 3 * 24  # a first state that is all zero, or that nothing reads
    measured = kept(layer, rng.standard_normal(shape))
    assert cost.out == (4, 3, 3, 6, 4)
    assert cost.kept - unread - 8 <= measured <= cost.kept + 120  # 9 deviations a step of a norm


# --- peepholes by convolution ---


@SPACE
def test_diagonal_peepholes_of_one_tap_are_those_per_channel(rank, rng):
    taps = (1,) * rank
    cell, xs, state = setting(
        rng, ConvPeepholeLSTMCell(2, 3, KERNELS[rank], peephole_kernel=taps), SIZES[rank]
    )
    plain, _, _ = setting(rng, LSTMCell(2, 3, KERNELS[rank], peephole="channel"), SIZES[rank])
    w = [np.diag(row).reshape(3, 3, *taps) for row in plain.params["w_c"]]
    shared = {n: plain.params[n] for n in ("w_x", "w_h", "b")}
    cell = cell.bind({**shared, "w_cif": np.concatenate(w[:2]), "w_co": w[2]})
    same(cell, plain, xs, state)


def test_fresh_peepholes_are_zero_and_leave_the_plain_cell(rng):
    cell = ConvPeepholeLSTMCell(2, 3, (3, 2), **F64)
    plain = LSTMCell(2, 3, (3, 2), **F64)
    _, xs, state = setting(rng, plain, (3, 4))
    same(cell, plain, xs, state)
    assert cell.params["w_cif"].shape == (6, 3, 3, 2)
    with bad(r"peephole_kernel is \(3,\), expected one entry for each of \(3, 2\)"):
        ConvPeepholeLSTMCell(2, 3, (3, 2), peephole_kernel=(3,))
    with bad("peephole", TypeError):
        ConvPeepholeLSTMCell(2, 3, (3, 2), peephole="map")


# --- light maps ---


@SPACE
@pytest.mark.parametrize(
    ("name", "kernel"), [("separable", naive.separable_kernel), ("low rank", naive.low_rank_kernel)]
)
def test_light_maps_are_convolutions_whose_kernel_is_a_product(name, kernel, rank, rng):
    settings = {"peephole": "channel", "stride": 2, "dilation": 2} if rank else {}
    cell, xs, state = setting(rng, VARIANTS[name](3, 2, KERNELS[rank], **settings), (7, 6)[:rank])
    others = {n: cell.params[n] for n in ("b", "w_c") if n in cell.params}
    whole = {n: kernel(cell.params, n) for n in ("w_x", "w_h")}
    same(cell, LSTMCell(3, 2, KERNELS[rank], **settings).bind({**whole, **others}), xs, state)


def test_a_low_rank_cell_of_full_rank_is_any_convlstm(rng):
    plain, xs, state = setting(rng, ConvLSTMCell(2, 2, (3, 2)), (3, 4))
    factors = {}
    for name in ("w_x", "w_h"):
        u, s, v = np.linalg.svd(plain.params[name].reshape(8, -1), full_matrices=False)
        factors |= {f"{name}_u": (u * s)[..., None, None], f"{name}_v": v.reshape(8, 2, 3, 2)}
    cell = LowRankLSTMCell(2, 2, (3, 2), rank=8).bind({**factors, "b": plain.params["b"]})
    same(cell, plain, xs, state)


def test_light_cells_keep_the_forget_bias_and_cost_what_they_should():
    plain = ConvLSTMCell(16, 16, (3, 3))
    separable = SeparableLSTMCell(16, 16, (3, 3), forget_bias=2.0)
    low = LowRankLSTMCell(16, 16, (3, 3), rank=8)
    np.testing.assert_array_equal(separable.params["b"].reshape(4, 16)[1], 2)
    assert plain.macs_per_position == 2 * 64 * 16 * 9
    assert separable.macs_per_position == 2 * (16 * 9 + 64 * 16)
    assert low.macs_per_position == 2 * 8 * (16 * 9 + 64)
    assert separable.count == separable.macs_per_position + 64
    with bad("rank is 0, expected at least 1"):
        LowRankLSTMCell(2, 3, rank=0)


def test_a_fresh_separable_map_has_a_kernel_for_each_channel():
    depth = SeparableLSTMCell(4, 2, (3,)).params["w_x_depth"].reshape(4, 3)
    assert len(np.unique(depth)) == depth.size
    assert np.abs(depth).max() <= 1  # Glorot: sqrt(6 / (3 + 3))


# --- layer norm ---


@SPACE
@pytest.mark.parametrize("groups", [4, 1])
def test_layer_norm_undone_is_the_plain_cell(groups, rank, rng):
    """For one step of one clip the gains and shifts can undo what the norms do."""
    plain, xs, state = setting(rng, LSTMCell(2, 3, KERNELS[rank]), SIZES[rank], T=1, N=1)
    p = plain.params
    z_x, _ = plain.input_map.forward(xs[0], {**p, "b": 0 * p["b"]})
    z_h, _ = plain.state_map.forward(state.h, p)
    _, last, _ = scan(plain, xs, state)

    def statistics(z: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
        rows = z.reshape(parts, -1)
        spread, size = np.sqrt(rows.var(axis=1) + 1e-5), z.shape[1] // parts
        return np.repeat(spread, size), np.repeat(rows.mean(axis=1), size)

    (gamma_x, mean_x), (gamma_h, mean_h) = statistics(z_x, groups), statistics(z_h, groups)
    gamma_c, beta_c = statistics(last.c, 1)
    norms = {"gamma_x": gamma_x, "gamma_h": gamma_h, "gamma_c": gamma_c, "beta_c": beta_c}
    cell = LayerNormLSTMCell(2, 3, KERNELS[rank], norm_groups=groups)
    arrays = {"w_x": p["w_x"], "w_h": p["w_h"], "b": p["b"] + mean_x + mean_h, **norms}
    same(cell.bind(arrays), plain, xs, state)


def test_layer_norm_does_not_see_the_size_of_the_weights(rng):
    cell, xs, state = setting(rng, LayerNormLSTMCell(2, 3, (3,), eps=1e-30), (5,))
    p = cell.params
    larger = cell.bind({**p, "w_h": 7.5 * p["w_h"], "w_x": 0.2 * p["w_x"]})
    same(cell, larger, xs, state)
    sizes = np.array([3.0, 0.5, 2.0, 4.0])[:, None, None, None]  # of each gate by itself
    one_gate = cell.bind({**p, "w_h": (p["w_h"].reshape(4, 3, 3, 3) * sizes).reshape(12, 3, 3)})
    same(cell, one_gate, xs, state)
    with bad(r"norm_groups is 2, expected 4 \(each gate\) or 1 \(all together\)"):
        LayerNormLSTMCell(2, 3, norm_groups=2)


# --- the search-space family ---


@SPACE
def test_vanilla_and_np_are_the_lstm_with_and_without_peepholes(rank, rng):
    for build, peephole in ((VanillaLSTMCell, "channel"), (NPCell, None)):
        cell, xs, state = setting(rng, build(2, 3, KERNELS[rank]), SIZES[rank])
        same(cell, LSTMCell(2, 3, KERNELS[rank], peephole=peephole).bind(cell.params), xs, state)


def without(cell: Any, gate: str) -> dict[str, np.ndarray]:
    """Parameters of the vanilla cell whose gate is open, 1, whatever it reads."""
    wide, k = {}, "ifgo".index(gate)
    for name, a in cell.params.items():
        if name == "w_c":
            wide[name] = np.insert(a, "ifo".index(gate), 0, axis=0)
        else:
            blocks = a.reshape(3, -1, *a.shape[1:])
            wide[name] = np.insert(blocks, k, 40 if name == "b" else 0, axis=0).reshape(-1, *a.shape[1:])
    return wide  # sigmoid(40) is 1 in float64


@SPACE
@pytest.mark.parametrize(("build", "gate"), [(NIGCell, "i"), (NFGCell, "f"), (NOGCell, "o")])
def test_a_missing_gate_is_one_that_is_always_open(build, gate, rank, rng):
    cell, xs, state = setting(rng, build(2, 3, KERNELS[rank]), SIZES[rank])
    assert cell.params["w_x"].shape[0] == 9
    same(cell, VanillaLSTMCell(2, 3, KERNELS[rank]).bind(without(cell, gate)), xs, state)


@SPACE
def test_coupled_gates_are_opposite_gates(rank, rng):
    """f = 1 - i = sigmoid(-z_i): the forget gate's weights are the input gate's with the other sign."""
    cell, xs, state = setting(rng, CIFGCell(2, 3, KERNELS[rank]), SIZES[rank])
    wide = {}
    for name, a in cell.params.items():
        i, *others = np.split(a, len(a) if name == "w_c" else 3)
        wide[name] = np.concatenate([i, -i, *others])
    same(cell, VanillaLSTMCell(2, 3, KERNELS[rank]).bind(wide), xs, state)
    b = CIFGCell(2, 3, forget_bias=1.5).params["b"].reshape(3, 3)
    np.testing.assert_array_equal(b, [[-1.5] * 3, [0] * 3, [0] * 3])  # f = sigmoid(1.5)


@pytest.mark.parametrize("build", [NIAFCell, NOAFCell])
def test_small_signals_pass_an_activation_unchanged(build, rng):
    """tanh(v) = v (1 - v^2 / 3 ...): with candidates of 1e-6 the two cells differ by a share of 1e-12."""
    cell, xs, state = setting(rng, build(2, 3, (3,)), (4,))
    p = {n: a.copy() for n, a in cell.params.items()}
    for name in ("w_x", "w_h", "b"):
        p[name][6:9] *= 1e-6
    state = state._replace(c=1e-6 * state.c)
    plain = VanillaLSTMCell(2, 3, (3,)).bind(p)
    same(cell.bind(p), plain, xs, state, rtol=1e-10, atol=0)
    assert not np.allclose(scan(cell, xs, state)[0], scan(plain.bind(cell.params), xs, state)[0])


def test_full_gate_recurrence_without_its_weights_is_vanilla(rng):
    cell, xs, state = setting(rng, FGRCell(2, 3, (3, 2)), (3, 4))
    plain = VanillaLSTMCell(2, 3, (3, 2)).bind({n: a for n, a in cell.params.items() if n != "w_r"})
    none = cell.bind({**cell.params, "w_r": 0 * cell.params["w_r"]})
    start = plain.initial_state(xs[0])._replace(h=state.h, c=state.c)
    same(none, plain, xs, state, start)
    assert cell.params["w_r"].shape == (9, 9, 3, 2)
    assert cell.macs_per_position == plain.macs_per_position + 9 * 9 * 6


# --- dilation ---


def stuffed(w: np.ndarray, dilation: tuple[int, ...]) -> np.ndarray:
    """The kernel with dilation - 1 zeros between neighbouring taps."""
    spans = tuple(d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True))
    wide = np.zeros((*w.shape[:2], *spans))
    wide[(..., *(slice(None, None, d) for d in dilation))] = w
    return wide


@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)], ids=["input plain", "input dilated"])
@pytest.mark.parametrize("state_dilation", [(1, 1), (3, 2)], ids=["state plain", "state dilated"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3)])
def test_a_dilated_cell_is_the_plain_cell_on_zero_stuffed_kernels(kernel, dilation, state_dilation, rng):
    settings = {"dilation": dilation, "state_dilation": state_dilation}
    cell, xs, state = setting(rng, ConvLSTMCell(2, 3, kernel, **settings), (7, 8))
    w_x, w_h = (stuffed(cell.params[n], d) for n, d in (("w_x", dilation), ("w_h", state_dilation)))
    plain = ConvLSTMCell(2, 3, w_x.shape[2:], state_kernel=w_h.shape[2:])
    plain = plain.bind({"w_x": w_x, "w_h": w_h, "b": cell.params["b"]})
    same(cell, plain, xs, state)
    dys = rng.standard_normal((3, 2, 3, 7, 8))
    found = scan_backward(cell, dys, None, scan(cell, xs, state)[2])
    expected = scan_backward(plain, dys, None, scan(plain, xs, state)[2])
    np.testing.assert_allclose(found[0], expected[0], **CLOSE)
    for name, d in (("w_x", dilation), ("w_h", state_dilation)):
        taps = (..., *(slice(None, None, step) for step in d))
        np.testing.assert_allclose(found[2][name], expected[2][name][taps], rtol=1e-11, atol=1e-12)


# --- the page ---

ROW = re.compile(r"^\| `(\w+)(?:\((.*?)\))?` \|.*\| ([\d,]+) \| ([\d,]+) \|", re.M)


def test_the_documented_table_is_true():
    page = (Path(__file__).parents[1] / "docs" / "variants.md").read_text(encoding="utf-8")
    rows = ROW.findall(page)
    for name, settings, count, macs in rows:
        build = getattr(cells, name, None) or getattr(layers, name)
        made = build(16, 16, (3, 3), **eval(f"dict({settings})"))
        layer = Recurrent(made) if isinstance(made, TwoMapCell) else made
        summary = layer.summary((1, 1, 16, 16, 16))
        assert f"{summary.params:,}" == count, name
        assert f"{summary.macs:,}" == macs, name
    shown = {name for name, *_ in rows}
    assert {type(build(2, 2)).__name__ for build in VARIANTS.values()} <= shown
    assert {"DeeperBidirectional", "DilatedPyramid"} <= shown
