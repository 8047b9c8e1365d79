"""Deformable convolution and the cell made of it: against loops, autograd, and the plain ones they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import bptt, parallel
from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import scan, scan_backward, scan_checkpointed
from tinyconvlstm.cells import ConvLSTMCell, DeformableLSTMCell
from tinyconvlstm.gradcheck import gradcheck, zoo
from tinyconvlstm.gradcheck.zoo_cells import KERNELS, SIZES
from tinyconvlstm.gradcheck.zoo_deformable import between
from tinyconvlstm.layers import Recurrent
from tinyconvlstm.ops import (
    Window,
    conv,
    conv_backward,
    conv_forward,
    deform_conv_backward,
    deform_conv_forward,
    im2col,
)
from tinyconvlstm.ops.deform_conv import sampled_strips

from . import oracles_deformable as naive
from .test_cells import CLOSE, against_oracle, bad, setting
from .test_summary import kept

UNEVEN = Window((3, 2), (2, 1), ((2, 0), (0, 1)), (1, 2))
WINDOWS: dict[str, tuple[tuple[int, ...], Window]] = {
    "1d": ((6,), Window((3,), padding="same")),
    "2d": ((4, 5), Window((3, 3), padding=1)),
    "2d strided, dilated, uneven padding": ((5, 6), UNEVEN),
    "2d even kernel": ((3, 4), Window((2, 4), padding="same")),
    "3d": ((2, 3, 2), Window((2, 1, 2), padding=1)),
}
windows = pytest.mark.parametrize(("size", "window"), WINDOWS.values(), ids=WINDOWS)


def drawn(rng, size, window, batch=2, channels=3, features=4):
    """x, offset, mask, w, b."""
    g = window.over(size)
    return (
        rng.standard_normal((batch, channels, *size)),
        between(rng, -2, 1, batch, g.taps * len(size), *g.out),
        rng.standard_normal((batch, g.taps, *g.out)),
        rng.standard_normal((features, channels, *g.kernel)),
        rng.standard_normal(features),
    )


def undeformed(rng, size, window, **sizes):
    x, offset, mask, w, b = drawn(rng, size, window, **sizes)
    return x, 0 * offset, 0 * mask + 1, w, b


# --- the operation ---


@windows
def test_deformable_convolution_equals_naive_loops(size, window, rng, backend):
    arrays, g = drawn(rng, size, window), window.over(size)
    y, _ = deform_conv_forward(*to_backend(arrays, backend), window=window)
    seen: dict[str, Any] = {"stride": g.stride, "dilation": g.dilation, "before": [a for a, _ in g.pads]}
    np.testing.assert_allclose(to_numpy(y), naive.deform_conv(*arrays, **seen), rtol=1e-12, atol=1e-13)


@windows
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_offsets_and_mask_it_is_the_convolution_bit_for_bit(size, window, dtype, rng):
    x, offset, mask, w, b = (a.astype(dtype) for a in undeformed(rng, size, window))
    for bias in (b, None):
        y, _ = deform_conv_forward(x, offset, mask, w, bias, window=window)
        np.testing.assert_array_equal(y, conv_forward(x, w, bias, window=window)[0])
    (strip,) = sampled_strips(x, offset, mask, window.over(size), slice(0, 2))
    cols = (strip.values * strip.mask).reshape(2, -1, strip.values.shape[-1])
    np.testing.assert_array_equal(cols, im2col(x, window.over(size)))


def test_in_blocks_and_strips_too_it_is_the_convolution_bit_for_bit(rng, monkeypatch):
    monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 1)
    monkeypatch.setattr(conv, "SHORTEST", 1)
    for window in (Window((3, 3), padding=1), UNEVEN):
        x, offset, mask, w, b = undeformed(rng, (9, 7), window)
        assert len(list(sampled_strips(x, offset, mask, window.over((9, 7)), slice(0, 2)))) > 4
        y, _ = deform_conv_forward(x, offset, mask, w, b, window=window)
        np.testing.assert_array_equal(y, conv_forward(x, w, b, window=window)[0])


def test_blocks_and_strips_do_not_change_the_gradients(rng, monkeypatch):
    arrays = drawn(rng, (9, 7), UNEVEN)
    y, saved = deform_conv_forward(*arrays, window=UNEVEN)
    dy = rng.standard_normal(y.shape)
    whole = deform_conv_backward(dy, saved)
    monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 1)
    monkeypatch.setattr(conv, "SHORTEST", 1)
    for a, b in zip(deform_conv_backward(dy, saved), whole, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@windows
def test_without_offsets_its_gradients_are_the_convolutions(size, window, rng):
    x, offset, mask, w, b = undeformed(rng, size, window)
    y, saved = deform_conv_forward(x, offset, mask, w, b, window=window)
    dy = rng.standard_normal(y.shape)
    dx, _, dmask, dw, db = deform_conv_backward(dy, saved)
    for found, expected in zip(
        (dx, dw, db), conv_backward(dy, conv_forward(x, w, b, window=window)[1]), strict=True
    ):
        np.testing.assert_allclose(found, expected, **CLOSE)
    # y is linear in the mask, which is one: sum(m dm) = <dy, y - b>
    free = y - b.reshape(-1, *(1,) * len(size))
    np.testing.assert_allclose(dmask.sum(), (dy * free).sum(), rtol=1e-11)


def test_whole_offsets_read_a_shifted_frame_exactly(rng):
    """All taps one row down and two columns to the left: the convolution of the shifted frame."""
    window = Window((3, 3), padding=1)
    x, offset, mask, w, b = undeformed(rng, (5, 6), window)
    offset[:, 0::2], offset[:, 1::2] = 1, -2
    y, _ = deform_conv_forward(x, offset, mask, w, b, window=window)
    # the first window reads rows 0 to 2 and columns -3 to -1, the last one rows 4 to 6 and columns 2 to 4
    wide = np.pad(x[..., :5], ((0, 0), (0, 0), (0, 2), (3, 0)))
    np.testing.assert_array_equal(y, conv_forward(wide, w, b)[0])


def test_a_mask_of_zero_leaves_the_bias_and_half_a_mask_halves_the_rest(rng):
    x, offset, mask, w, b = drawn(rng, (4, 5), UNEVEN)
    y, _ = deform_conv_forward(x, offset, mask, w, b, window=UNEVEN)
    half, _ = deform_conv_forward(x, offset, mask / 2, w, b, window=UNEVEN)
    none, _ = deform_conv_forward(x, offset, 0 * mask, w, b, window=UNEVEN)
    np.testing.assert_allclose(half - none, (y - none) / 2, **CLOSE)
    np.testing.assert_array_equal(none, np.broadcast_to(b[:, None, None], none.shape))


@pytest.mark.parametrize("case", zoo("deform_conv"), ids=lambda case: case.name)
def test_gradients_of_the_operation(case):
    assert gradcheck(case)


@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), [((5, 6), 1, 1, 1), ((7, 6), 2, 2, 2)])
def test_values_and_gradients_equal_autograd(size, stride, padding, dilation, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    window = Window((3, 2), stride, padding, dilation)
    arrays = drawn(rng, size, window)
    y, saved = deform_conv_forward(*arrays, window=window)
    dy = rng.standard_normal(y.shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = naive.torch_deform_conv(*tensors, stride=stride, padding=padding, dilation=dilation)
    expected.backward(torch.tensor(dy))
    wanted = [expected.detach(), *(tensor.grad for tensor in tensors)]
    for found, want in zip((y, *deform_conv_backward(dy, saved)), wanted, strict=True):
        np.testing.assert_allclose(found, want.numpy(), rtol=1e-12, atol=1e-12)


def test_threads_do_not_change_the_result(rng, monkeypatch):
    from tinyconvlstm.ops import deform_conv

    arrays = drawn(rng, (5, 6), UNEVEN, batch=5)
    y, saved = deform_conv_forward(*arrays, window=UNEVEN)
    dy = rng.standard_normal(y.shape)
    whole = deform_conv_backward(dy, saved)
    monkeypatch.setattr(deform_conv, "SMALL", 1)
    monkeypatch.setattr(parallel, "SMALL", 1)
    monkeypatch.setattr(parallel, "get_threads", lambda: 3)
    np.testing.assert_array_equal(deform_conv_forward(*arrays, window=UNEVEN)[0], y)
    for a, b in zip(deform_conv_backward(dy, saved), whole, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_of_the_operation_stay(dtype, rng):
    y, saved = deform_conv_forward(*(a.astype(dtype) for a in drawn(rng, (5, 6), UNEVEN)), window=UNEVEN)
    assert {a.dtype for a in (y, *deform_conv_backward(y, saved))} == {np.dtype(dtype)}


def test_arguments_that_do_not_fit_are_refused(rng):
    x, offset, mask, w, b = drawn(rng, (5, 6), UNEVEN)
    with bad(r"offset.shape is \(2, 11, .*expected \(2, 12, "):
        deform_conv_forward(x, offset[:, 1:], mask, w, b, window=UNEVEN)
    with bad(r"mask.shape is \(1, 6, .*expected \(2, 6, "):
        deform_conv_forward(x, offset, mask[:1], w, b, window=UNEVEN)
    with bad("x has 2 channels, w expects 3"):
        deform_conv_forward(x[:, 1:], offset, mask, w, b, window=UNEVEN)
    with bad("at least one spatial axis"):
        deform_conv_forward(x[..., 0, 0], offset, mask, w[..., 0, 0], b)
    with bad("dtypes differ: x is float64 and offset is float32", TypeError):
        deform_conv_forward(x, offset.astype(np.float32), mask, w, b, window=UNEVEN)


# --- the cell ---


def fresh(rng, kernel=(3, 2), size=(4, 5), dtype=np.float64, **settings):
    """A plain cell with random weights, the deformable one with those and fresh offsets, frames and a state."""
    plain, xs, state = setting(rng, ConvLSTMCell(2, 3, kernel, **settings), size, T=4)
    plain = plain.astype(dtype)
    cell = DeformableLSTMCell(2, 3, kernel, dtype=dtype, **settings)
    own = {n: a for n, a in cell.params.items() if n not in plain.params}
    return (
        plain,
        cell.bind({**plain.params, **own}),
        xs.astype(dtype),
        type(state)(*(a.astype(dtype) for a in state)),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_scan_equals_naive_loops(rank, rng, backend):
    against_oracle(*setting(rng, DeformableLSTMCell(3, 2, KERNELS[rank]), SIZES[rank]), backend)


def test_lengths_reverse_and_an_uneven_input_map_equal_naive_loops(rng):
    cell, xs, state = setting(rng, DeformableLSTMCell(2, 3, (3,)), (4,), T=4, N=3)
    against_oracle(cell, xs, state, lengths=[2, 4, 1], reverse=True)
    window = {"stride": (2, 1), "padding": ((2, 0), (0, 1)), "dilation": (1, 2)}
    seen = {"stride": (2, 1), "before": (2, 0), "dilation": (1, 2)}
    against_oracle(*setting(rng, DeformableLSTMCell(2, 2, (3, 2), **window), (5, 6)), window=seen)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", [{}, {"peephole": "channel", "state_dilation": 2, "stride": 2}], ids=str)
def test_a_fresh_cell_is_the_plain_cell_bit_for_bit(settings, dtype, rng):
    plain, cell, xs, state = fresh(rng, dtype=dtype, **settings)
    for start in (state, None):
        ys, last, tape = scan(cell, xs, start)
        expected, ends, plain_tape = scan(plain, xs, start)
        for a, b in zip((ys, *last), (expected, *ends), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == dtype
        for step in tape.steps:
            assert not step.taps.offset.any()
            assert (step.taps.mask == 1).all()
        if dtype is np.float64:
            dys = rng.standard_normal(ys.shape)
            found, wanted = scan_backward(cell, dys, last, tape), scan_backward(plain, dys, ends, plain_tape)
            np.testing.assert_allclose(found[0], wanted[0], **CLOSE)
            for name, g in wanted[2].items():
                np.testing.assert_allclose(found[2][name], g, rtol=1e-11, atol=1e-12)
            assert all(
                found[2][name].any() for name in ("w_qx", "w_qh", "b_q")
            )  # it can learn to look elsewhere


def test_taps_that_all_look_one_pixel_on_are_a_shifted_kernel(rng):
    """Offsets of (1, -1) and masks of 2 sigmoid(v) everywhere: w_h moved and scaled inside a wider kernel."""
    plain, cell, xs, state = fresh(rng, (3, 3))
    b_q = np.concatenate([np.tile([1.0, -1.0], 9), v := rng.standard_normal(9)])
    moved = cell.bind({**cell.params, "b_q": b_q})
    w_h = np.zeros((12, 3, 5, 5))
    w_h[:, :, 2:5, 0:3] = cell.params["w_h"] * (2 / (1 + np.exp(-v))).reshape(3, 3)
    wide = ConvLSTMCell(2, 3, (3, 3), state_kernel=(5, 5), dtype=np.float64)
    wide = wide.bind({**plain.params, "w_h": w_h})
    ys, expected = scan(moved, xs, state)[0], scan(wide, xs, state)[0]
    np.testing.assert_allclose(ys, expected, **CLOSE)
    assert not np.allclose(ys, scan(plain, xs, state)[0], atol=1e-3)


def test_from_rest_is_from_a_state_of_zeros(rng):
    cell, xs, state = setting(rng, DeformableLSTMCell(3, 2, (3, 2)), (3, 4))
    for T in (1, 3):  # of one step alone w_h sees nothing
        ys, last, tape = scan(cell, xs[:T])
        zero = type(state)(*(np.zeros_like(a) for a in state))
        expected, ends, other = scan(cell, xs[:T], zero)
        np.testing.assert_allclose(ys, expected, **CLOSE)
        dys = rng.standard_normal(ys.shape)
        found, wanted = scan_backward(cell, dys, last, tape), scan_backward(cell, dys, ends, other)
        np.testing.assert_allclose(found[0], wanted[0], **CLOSE)
        assert found[2].keys() == wanted[2].keys() == cell.params.keys()
        for name, g in found[2].items():
            np.testing.assert_allclose(g, wanted[2][name], rtol=1e-11, atol=1e-12)


def test_a_batch_cut_into_parts_is_the_batch_and_checkpoints_give_its_bits(rng, monkeypatch):
    cell, xs, state = setting(rng, DeformableLSTMCell(2, 2, (3,)), (5,), N=5)
    dys, lengths = rng.standard_normal((3, 5, 2, 5)), [3, 1, 2, 3, 2]
    ys, last, tape = scan(cell, xs, state, lengths=lengths)
    whole = scan_backward(cell, dys, last, tape)
    kept_states = scan_checkpointed(cell, xs, state, lengths=lengths, every=2)[2]
    again = bptt.scan_checkpointed_backward(cell, dys, last, kept_states)
    monkeypatch.setattr(bptt, "STEP", 1)
    monkeypatch.setattr(parallel, "get_threads", lambda: 2)
    cut, ends, parts = scan(cell, xs, state, lengths=lengths)
    assert isinstance(parts, bptt.Parts)
    found = scan_backward(cell, dys, last, parts)
    for a, b in zip((cut, *ends, found[0], *found[1]), (ys, *last, whole[0], *whole[1]), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    for name, g in whole[2].items():
        np.testing.assert_allclose(found[2][name], g, rtol=1e-11, atol=1e-12)
        np.testing.assert_array_equal(again[2][name], g)
    assert len(parts.projection.x[0]) == 5  # put together for those who want to look


def test_steps_taken_a_few_at_a_time_give_the_same(rng, monkeypatch):
    cell, xs, state = setting(rng, DeformableLSTMCell(2, 2, (3,)), (4,), T=5)
    dys = rng.standard_normal((5, 2, 2, 4))
    found = []
    for at_once in (5, 2):
        monkeypatch.setattr(DeformableLSTMCell, "steps_at_once", lambda self, xs, n=at_once: n)
        found.append(scan_backward(cell, dys, None, scan(cell, xs, state)[2]))
    np.testing.assert_allclose(found[1][0], found[0][0], **CLOSE)
    for name, g in found[0][2].items():
        np.testing.assert_allclose(found[1][2][name], g, **CLOSE)


def test_the_recurrent_mask_is_a_mask_of_all_that_reads_h(rng):
    cell, xs, state = setting(rng, DeformableLSTMCell(2, 3, (3,)), (4,), T=2)
    ys, _, tape = scan(cell, xs, state, h_mask=np.zeros((1, 3, 1)))
    other, _, _ = scan(cell, xs, state._replace(h=state.h + 1), h_mask=np.zeros((1, 3, 1)))
    np.testing.assert_array_equal(ys, other)
    _, dstate, _ = scan_backward(cell, rng.standard_normal(ys.shape), None, tape)
    assert not dstate.h.any()
    assert dstate.c.any()


def test_a_sequence_in_two_pieces_is_the_sequence(rng):
    cell, xs, state = setting(rng, DeformableLSTMCell(2, 3, (3, 2)), (3, 4), T=5)
    ys, last, _ = scan(cell, xs, state)
    first, middle, _ = scan(cell, xs[:2], state)
    second, ends, _ = scan(cell, xs[2:], middle)
    np.testing.assert_allclose(np.concatenate([first, second]), ys, **CLOSE)
    np.testing.assert_allclose(ends.c, last.c, **CLOSE)


def test_it_costs_what_it_says_and_keeps_what_it_says(rng):
    cell = DeformableLSTMCell(2, 3, (3, 3), dtype=np.float64)
    plain = ConvLSTMCell(2, 3, (3, 3))
    assert cell.count == plain.count + 27 * (2 * 9 + 3 * 9 + 1)
    assert cell.macs_per_position == plain.macs_per_position + 27 * (2 * 9 + 3 * 9) + 9 * 3 * 5
    layer, shape = Recurrent(cell), (4, 3, 2, 6, 4)
    assert layer.summary(shape).params == cell.count
    measured = kept(layer, rng.standard_normal(shape))
    assert abs(measured - layer.cost(shape).kept) <= 8  # two zeros, and no first state
    assert cell.dz_blocks == 4 + 9


def test_without_space_there_is_nothing_to_deform():
    with bad(r"kernel is \(\), expected one int a spatial axis"):
        DeformableLSTMCell(2, 3, ())
