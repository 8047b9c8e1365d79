"""Convolution against a loop over every index, and the identities it must meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.ops import (
    Window,
    conv,
    conv_backward,
    conv_forward,
    convolve_forward,
    linear_backward,
    linear_forward,
)

from .oracles import (
    DTYPES,
    Layout,
    assert_pair_agrees,
    layouts,
    naive_conv,
    random,
    run_pair,
    scattered,
)

CONV = (conv_forward, conv_backward)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...], int]:
    """A layout, the shape of fitting weights, and the number of groups."""
    groups = draw(st.sampled_from([1, 2, 3]))
    per_group = draw(st.sampled_from([2, 1]))
    layout = draw(layouts(channels=groups * per_group))
    return layout, (groups * draw(st.sampled_from([2, 1])), per_group, *layout.kernel), groups


@settings(max_examples=240)
@given(convolutions(), st.sampled_from(DTYPES))
def test_conv_is_its_index_definition(backend: str, drawn: Any, dtype: Any) -> None:
    layout, shape, groups = drawn
    x, w, b = random(1, layout.shape, dtype), random(2, shape, dtype), random(3, shape[:1], dtype)
    there = to_backend((x, w, b), backend)
    y = to_numpy(conv_forward(*there, window=layout.window, groups=groups)[0])
    expected = naive_conv(x, w, layout, groups) + b.reshape(-1, *(1,) * layout.rank)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    assert y.dtype == dtype


@settings(max_examples=240)
@given(convolutions())
def test_gradients_are_the_adjoints(backend: str, drawn: Any) -> None:
    """<conv(v, w), dy> = <v, dx> and <conv(x, v), dy> = <v, dw> for every v: y is linear in x and in w."""
    layout, shape, groups = drawn
    x, w = random(1, layout.shape), random(2, shape)
    _, dy, (dx, dw, db) = run_pair(CONV, x, w, backend=backend, window=layout.window, groups=groups)
    v_x, v_w = random(4, x.shape), random(5, w.shape)
    along_x = conv_forward(v_x, w, window=layout.window, groups=groups)[0]
    along_w = conv_forward(x, v_w, window=layout.window, groups=groups)[0]
    assert np.vdot(along_x, dy) == pytest.approx(np.vdot(v_x, dx), abs=1e-10)
    assert np.vdot(along_w, dy) == pytest.approx(np.vdot(v_w, dw), abs=1e-10)
    assert db is None


@settings(max_examples=60)
@given(convolutions())
def test_every_backend_gives_numpys_gradients(backend: str, drawn: Any) -> None:
    layout, shape, groups = drawn
    arrays = random(1, layout.shape), random(2, shape), random(3, shape[:1])
    assert_pair_agrees(CONV, *arrays, backend=backend, window=layout.window, groups=groups)


@settings(max_examples=120)
@given(convolutions())
def test_dilated_is_a_kernel_with_zeros_between_its_taps(drawn: Any) -> None:
    layout, shape, groups = drawn
    x, w = random(1, layout.shape), random(2, shape)
    span = tuple(d * (k - 1) + 1 for d, k in zip(layout.dilation, layout.kernel, strict=True))
    stuffed = np.zeros(shape[:2] + span)
    stuffed[(..., *(slice(None, None, d) for d in layout.dilation))] = w
    y = conv_forward(x, w, window=layout.window, groups=groups)[0]
    dense = conv_forward(x, stuffed, window=Window(span, layout.stride, layout.pads), groups=groups)[0]
    np.testing.assert_allclose(y, dense, atol=1e-13)


@settings(max_examples=120)
@given(convolutions())
def test_grouped_is_block_diagonal(drawn: Any) -> None:
    layout, shape, groups = drawn
    x, w = random(1, layout.shape), random(2, shape)
    features, per_group = shape[0] // groups, shape[1]
    blocks = np.zeros((shape[0], layout.shape[1], *layout.kernel))
    for g in range(groups):
        f, c = slice(g * features, (g + 1) * features), slice(g * per_group, (g + 1) * per_group)
        blocks[f, c] = w[f]
    y, _, (dx, dw, _) = run_pair(CONV, x, w, window=layout.window, groups=groups)
    y_full, _, (dx_full, dw_full, _) = run_pair(CONV, x, blocks, window=layout.window)
    np.testing.assert_allclose(y, y_full, atol=1e-13)
    np.testing.assert_allclose(dx, dx_full, atol=1e-13)
    for g in range(groups):
        f, c = slice(g * features, (g + 1) * features), slice(g * per_group, (g + 1) * per_group)
        np.testing.assert_allclose(dw[f], dw_full[f, c], atol=1e-12)


@settings(max_examples=120)
@given(convolutions())
def test_permuting_the_batch_permutes_the_output(drawn: Any) -> None:
    layout, shape, groups = drawn
    x, w = random(1, (5, *layout.shape[1:])), random(2, shape)
    order = np.array([3, 0, 4, 1, 2])
    y = conv_forward(x, w, window=layout.window, groups=groups)[0]
    permuted = conv_forward(x[order], w, window=layout.window, groups=groups)[0]
    np.testing.assert_allclose(permuted, y[order], atol=1e-13)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_moving_the_input_moves_the_output(rank: int) -> None:
    """Away from the borders, and by whole strides."""
    sizes, shift = (13, 11, 9)[:rank], (4, 2, 2)[:rank]
    window = Window((3, 2, 2)[:rank], stride=2, padding=1, dilation=(1, 2, 1)[:rank])
    x, w = np.zeros((2, 3, *sizes)), random(2, (4, 3, *window.kernel))  # type: ignore[misc]
    inner = tuple(slice(3, 8 - n) for n in range(rank))
    x[(..., *inner)] = random(1, x[(..., *inner)].shape)
    moved = np.roll(x, shift, tuple(range(2, 2 + rank)))
    y, y_moved = (conv_forward(a, w, window=window)[0] for a in (x, moved))
    steps = tuple(s // 2 for s in shift)
    np.testing.assert_allclose(np.roll(y, steps, tuple(range(2, 2 + rank))), y_moved, atol=1e-13)
    assert not np.allclose(y, y_moved)


@pytest.mark.parametrize("rank", [1, 2])
def test_convolve_flips_and_conv_does_not(rng: Any, backend: str, rank: int) -> None:
    x, w = rng.standard_normal((1, 1, 7, 8)[: 2 + rank]), rng.standard_normal((1, 1, 3, 2)[: 2 + rank])
    window = Window(w.shape[2:])
    moved = [to_backend(a, backend) for a in (x, w)]
    y = to_numpy(convolve_forward(*moved, window=window)[0])
    flipped = np.flip(w, tuple(range(2, w.ndim)))
    expected = conv_forward(x, np.ascontiguousarray(flipped), window=window)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    assert not np.allclose(y, conv_forward(x, w, window=window)[0])
    if rank == 1:
        np.testing.assert_allclose(y[0, 0], np.convolve(x[0, 0], w[0, 0], "valid"), rtol=0, atol=1e-12)
    else:  # from the definition: y[p] = sum_k x[p + K - 1 - k] w[k]
        (H, W), (kh, kw) = x.shape[2:], w.shape[2:]
        for i in range(H - kh + 1):
            for j in range(W - kw + 1):
                taps = [
                    x[0, 0, i + kh - 1 - a, j + kw - 1 - b] * w[0, 0, a, b]
                    for a in range(kh)
                    for b in range(kw)
                ]
                assert abs(y[0, 0, i, j] - sum(taps)) < 1e-12


def test_the_kernel_is_not_flipped() -> None:
    x, w = np.array([[[1.0, 2.0, 4.0, 8.0]]]), np.array([[[1.0, 10.0]]])
    np.testing.assert_array_equal(conv_forward(x, w)[0], [[[21, 42, 84]]])
    same = conv_forward(x, w, window=Window(2, padding="same"))[0]
    np.testing.assert_array_equal(same, [[[21, 42, 84, 8]]])
    lower = conv_forward(x, w, window=Window(2, padding="same_lower"))[0]
    np.testing.assert_array_equal(lower, [[[10, 21, 42, 84]]])


def test_without_spatial_axes_it_is_the_linear_map(backend: str) -> None:
    x, w, b = random(1, (5, 3)), random(2, (4, 3)), random(3, (4,))
    y, _, grads = run_pair(CONV, x, w, b, backend=backend)
    y_linear, _, linear_grads = run_pair((linear_forward, linear_backward), x, w, b, backend=backend)
    np.testing.assert_allclose(y, y_linear, rtol=1e-14)
    for got, expected in zip(grads, linear_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_a_kernel_of_one_pixel_is_a_linear_map_at_every_pixel() -> None:
    x, w = random(1, (2, 3, 4, 5)), random(2, (6, 3, 1, 1))
    y = conv_forward(x, w)[0]
    np.testing.assert_allclose(y, np.einsum("fc,nchw->nfhw", w[..., 0, 0], x), atol=1e-13)


def test_blocks_of_the_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = random(1, (7, 4, 6, 5)), random(2, (6, 2, 3, 2)), random(3, (6,))
    settings = {"window": Window((3, 2), 2, 1), "groups": 2}
    whole = run_pair(CONV, x, w, b, **settings)
    monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 3 * 4 * 6 * 3 * 3 * 8)  # three samples a block
    parts = run_pair(CONV, x, w, b, **settings)
    np.testing.assert_array_equal(parts[0], whole[0])
    for got, expected in zip(parts[2], whole[2], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_arrays_need_not_be_contiguous() -> None:
    x, w, b = random(1, (2, 3, 5, 4)), random(2, (4, 3, 3, 2)), random(3, (4,))
    window = Window((3, 2), (1, 2), ((1, 0), (0, 1)))
    y, saved = conv_forward(x, w, b, window=window)
    y2, saved2 = conv_forward(scattered(x), scattered(w), scattered(b), window=window)
    np.testing.assert_allclose(y2, y, atol=1e-14)
    dy = random(4, y.shape)
    for got, expected in zip(conv_backward(scattered(dy), saved2), conv_backward(dy, saved), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_float32_stays_float32_and_near_float64(backend: str) -> None:
    arrays = random(1, (2, 5, 7, 6)), random(2, (4, 5, 3, 2)), random(3, (4,))
    window = Window((3, 2), padding="same")
    y, _, grads = run_pair(CONV, *arrays, window=window)
    small = [a.astype(np.float32) for a in arrays]
    y32, _, grads32 = run_pair(CONV, *small, backend=backend, window=window)
    for got, expected in zip([y32, *grads32], [y, *grads], strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_an_empty_batch_is_a_batch() -> None:
    y, _, (dx, dw, db) = run_pair(CONV, np.zeros((0, 2, 5)), random(2, (3, 2, 3)), random(3, (3,)))
    assert y.shape == (0, 3, 3)
    assert dx.shape == (0, 2, 5)
    assert not dw.any()
    assert not db.any()


BAD = [
    ((2, 3, 5), (4, 3, 3, 3), None, {}, r"x.shape is \(2, 3, 5\) and w.shape is \(4, 3, 3, 3\), expected"),
    ((3,), (3,), None, {}, r"x.shape is \(3,\) and w.shape is \(3,\), expected \(N, C, \*S\)"),
    (
        (2, 3, 5),
        (8, 4, 3),
        None,
        {},
        r"x has 3 channels, w expects 4 \(w.shape == \(8, 4, 3\), groups == 1\)",
    ),
    ((2, 4, 5), (6, 4, 3), None, {"groups": 2}, r"x has 4 channels, w expects 8 \(.*groups == 2\)"),
    ((2, 4, 5), (5, 2, 3), None, {"groups": 2}, r"groups is 2, expected a divisor of w's 5 features"),
    ((2, 4, 5), (4, 4, 3), None, {"groups": 0}, r"groups is 0, expected a divisor"),
    ((2, 0, 5), (4, 0, 3), None, {}, r"w.shape is \(4, 0, 3\), expected at least one"),
    ((2, 4, 5), (0, 4, 3), None, {}, r"w.shape is \(0, 4, 3\), expected at least one"),
    ((2, 4, 5), (6, 4, 3), (4,), {}, r"b.shape is \(4,\), expected \(6,\), one entry a feature of w"),
    ((2, 4, 5), (6, 4, 3), None, {"window": Window(2)}, r"window has kernel \(2,\), w has \(3,\)"),
    ((2, 4, 5), (6, 4, 7), None, {"window": Window(7, padding=0)}, r"kernel is larger than the padded input"),
]


@pytest.mark.parametrize(("x", "w", "b", "settings", "message"), BAD)
def test_what_does_not_fit_is_refused(x: Any, w: Any, b: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_forward(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **settings)


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="x is float32 and w is float64"):
        conv_forward(np.zeros((1, 2, 5), np.float32), np.zeros((3, 2, 3)))
