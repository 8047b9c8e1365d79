"""Winograd's transforms: exact in fractions, equal to im2col, and chosen where they pay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconvlstm import (
    ConvLSTMCell,
    LSTMCell,
    RNNCell,
    ops,
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    set_threads,
)
from tinyconvlstm.dead import dead_weights
from tinyconvlstm.layers import Recurrent
from tinyconvlstm.ops import Window, conv, conv_backward, conv_forward, lowering, winograd
from tinyconvlstm.ops.lowering import Im2col
from tinyconvlstm.ops.winograd import POINTS, Winograd, axes_of, outputs_at_once, toom_cook, values_of
from tinyconvlstm.parallel import run_parts

from .killers import directions, transformed
from .mutation import forget
from .oracles import Layout, naive_conv, random, run_pair

CONV = (conv_forward, conv_backward)


@pytest.fixture
def everywhere() -> Iterator[None]:
    """Also the smallest convolutions are transformed."""
    with transformed():
        yield


def fractions(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in row] for row in matrix]


@pytest.mark.parametrize("k", POINTS)
def test_the_transforms_are_the_correlation_exactly(k: int) -> None:
    """In fractions: sum_j A^T[i, j] G[j, l] B^T[j, p] is 1 where p = i + l, and 0 elsewhere."""
    m, points = outputs_at_once(k), [Fraction(p) for p in POINTS[k]]
    matrices = toom_cook(k)
    a_t, b_t, g = (fractions(matrices[name]) for name in ("a_t", "b_t", "g"))
    for j, p in enumerate(points):  # G is rounded, A^T and B^T are not: its exact entries, by its definition
        scale = Fraction(1)
        for other in points[:j] + points[j + 1 :]:
            scale *= p - other
        exact = [p**i / scale for i in range(k)]
        assert [float(entry) for entry in exact] == pytest.approx([float(e) for e in g[j]], rel=1e-15)
        g[j] = exact
    for i, tap, pixel in itertools.product(range(m), range(k), range(values_of(k))):
        assert sum(a_t[i][j] * g[j][tap] * b_t[j][pixel] for j in range(values_of(k))) == (pixel == i + tap)


def test_the_matrices_of_three_taps_by_hand() -> None:
    """q(x) = (x^2 - 9/16) (x^2 - 9/4) = x^4 - 45/16 x^2 + 81/64."""
    matrices = toom_cook(3)
    np.testing.assert_array_equal(matrices["b_t"][0], [81 / 64, 0, -45 / 16, 0, 1, 0])
    np.testing.assert_array_equal(matrices["b_t"][-1], [0, 81 / 64, 0, -45 / 16, 0, 1])
    np.testing.assert_array_equal(matrices["b_t"][1], [0, -27 / 16, -9 / 4, 3 / 4, 1, 0])
    np.testing.assert_array_equal(matrices["a_t"][1], [0, 3 / 4, -3 / 4, 3 / 2, -3 / 2, 0])
    np.testing.assert_array_equal(matrices["a_t"][-1], [0, 27 / 64, -27 / 64, 27 / 8, -27 / 8, 1])
    np.testing.assert_allclose(matrices["g"][0], [64 / 81, 0, 0], rtol=1e-15)
    assert {name: matrix.shape for name, matrix in matrices.items() if not name.endswith("_t")} == {
        "a": (6, 4),
        "g": (6, 3),
    }


def test_the_matrices_of_five_taps_have_whole_numbers_and_their_halves() -> None:
    """q(x) = x^2 (x^2 - 1/4) (x^2 - 1) (x^2 - 4) / x."""
    matrices = toom_cook(5)
    np.testing.assert_array_equal(matrices["b_t"][-1], [0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1])
    np.testing.assert_array_equal(matrices["a_t"][-1], [0, 1 / 8, -1 / 8, 1, -1, 8, -8, 1])
    assert (matrices["b_t"] * 4 == np.round(matrices["b_t"] * 4)).all()


@st.composite
def layouts_of_stride_one(draw: st.DrawFn) -> Layout:
    """One to three axes of stride 1, dilated or not."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    kernel = tuple(draw(st.sampled_from([3, 5, 2, 4, 1])) for _ in range(rank))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank))
    sizes = tuple(
        d * (k - 1) + draw(st.integers(1, (22, 9, 5)[rank - 1]))
        for k, d in zip(kernel, dilation, strict=True)
    )
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return Layout((batch, channels, *sizes), kernel, (1,) * rank, dilation, pads, pads)


@settings(max_examples=150, deadline=None)
@given(
    layouts_of_stride_one(),
    st.integers(1, 3),
    st.sampled_from([np.float64, np.complex128]),
)
def test_it_is_its_index_definition_and_its_gradients_are_the_adjoints(
    layout: Layout, features: int, dtype: Any
) -> None:
    x, w = random(1, layout.shape, dtype), random(2, (features, layout.shape[1], *layout.kernel), dtype)
    with transformed():
        found = conv.lowering_of(x, w.shape, layout.window.over(layout.shape[2:]), 1)
        quiet = np.prod([winograd.NOISE[k] for k in layout.kernel]) <= winograd.NOISIEST
        assert isinstance(found, Winograd) == (set(layout.kernel) != {1} and quiet)
        y, dy, (dx, dw, _) = run_pair(CONV, x, w, window=layout.window)
        v_x, v_w = random(4, x.shape, dtype), random(5, w.shape, dtype)
        along_x = conv_forward(v_x, w, window=layout.window)[0]
        along_w = conv_forward(x, v_w, window=layout.window)[0]
    np.testing.assert_allclose(y, naive_conv(x, w, layout), rtol=1e-12, atol=1e-12)
    assert (along_x * dy).sum() == pytest.approx((v_x * dx).sum(), rel=1e-10, abs=1e-10)
    assert (along_w * dy).sum() == pytest.approx((v_w * dw).sum(), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("shortest", [1, 256])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (4, 1), (3,), (2, 3, 3)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_strips_and_tiles_that_hang_over_change_nothing(
    everywhere: None, monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, ...], dilation: int, shortest: int
) -> None:
    """Nor do features in parts: the first axis in strips, the last in bands."""
    x, w = random(1, (3, 4, *(22, 23, 7)[: len(kernel)])), random(2, (9, 4, *kernel))
    window = Window(kernel, padding="same", dilation=dilation)
    assert isinstance(conv.lowering_of(x, w.shape, window.over(x.shape[2:]), 1), Winograd)
    with ops.im2col_only():
        plain = run_pair(CONV, x, w, window=window)
    for room, features, small in ((conv.PATCH_BYTES["numpy"], winograd.FEATURES, 32), (1, 3, 1)):
        monkeypatch.setitem(conv.PATCH_BYTES, "numpy", room)
        monkeypatch.setattr(conv, "SHORTEST", shortest)
        monkeypatch.setattr(winograd, "FEATURES", features)
        monkeypatch.setattr(winograd, "NARROW", small)
        monkeypatch.setattr(winograd, "WIDE", 3 * small)
        forget()
        found = run_pair(CONV, x, w, window=window)
        for got, expected in zip((found[0], *found[2][:2]), (plain[0], *plain[2][:2]), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    forget()


def test_what_is_added_is_added_once(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias, or an array like y, to every strip and every part of the features."""
    for name, value in (("FEATURES", 2), ("NARROW", 1), ("WIDE", 2)):
        monkeypatch.setattr(winograd, name, value)
    monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 1)
    forget()
    x, w, b = random(1, (3, 4, 9, 10)), random(2, (6, 4, 3, 3)), random(3, (6,))
    geometry = Window(3, padding="same").over((9, 10))
    bare, more = conv.correlate(x, w, geometry), random(4, (3, 6, 9, 10))
    np.testing.assert_allclose(conv.correlate(x, w, geometry, plus=b), bare + b[:, None, None], rtol=1e-13)
    np.testing.assert_allclose(conv.correlate(x, w, geometry, plus=more), bare + more, rtol=1e-13)
    np.testing.assert_allclose(conv.correlate(x, w, geometry, plus=1j * more), bare + 1j * more, rtol=1e-13)


def test_padding_beyond_the_kernel_goes_back_by_im2col(everywhere: None) -> None:
    """Windows that read nothing but padding: dx is no convolution of dy without cutting dy."""
    x, w, window = random(1, (2, 3, 5, 6)), random(2, (4, 3, 3, 2)), Window((3, 2), padding=((4, 3), (0, 5)))
    geometry = window.over((5, 6))
    assert isinstance(conv.lowering_of(x, w.shape, geometry, 1), Winograd)
    assert conv.way_back(x, w.shape, geometry, 1) is None
    found = run_pair(CONV, x, w, window=window)
    with ops.im2col_only():
        plain = run_pair(CONV, x, w, window=window)
    for got, expected in zip((found[0], *found[2][:2]), (plain[0], *plain[2][:2]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_another_dtype_are_no_other_gradients(everywhere: None) -> None:
    """Whole numbers as dy: the transforms have fractions."""
    x, w, window = random(1, (2, 3, 6, 7)), random(2, (4, 3, 3, 3)), Window(3, padding=1)
    y, saved = conv_forward(x, w, window=window)
    whole = np.round(4 * random(3, y.shape))
    for got, expected in zip(
        conv_backward(whole.astype(int), saved)[:2], conv_backward(whole, saved)[:2], strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("sizes", "padding"), [((0, 9), 2), ((9, 0), 2), ((0, 9), 7), ((0, 0), 3)])
def test_an_image_without_pixels_is_all_padding(sizes: tuple[int, int], padding: int) -> None:
    x, w = np.zeros((2, 64, *sizes)), np.ones((64, 64, 3, 3))
    y, saved = conv_forward(x, w, np.ones(64), window=Window(3, padding=padding))
    dx, dw, db = conv_backward(np.ones(y.shape), saved)
    assert (y == 1).all()
    assert dx.shape == x.shape
    assert (dw == 0).all()
    assert (db == y[:, 0].size).all()


def test_a_sample_gives_the_same_bits_in_any_batch(everywhere: None) -> None:
    x, w = random(1, (7, 24, 12, 12)).astype(np.float32), random(2, (40, 24, 3, 3)).astype(np.float32)
    geometry = Window(3, padding="same").over((12, 12))
    whole = conv.correlate(x, w, geometry)
    for some in (slice(0, 1), slice(2, 5), slice(6, 7)):
        np.testing.assert_array_equal(conv.correlate(x[some], w, geometry), whole[some])


def test_arrays_that_lie_otherwise_are_read_as_they_are(everywhere: None) -> None:
    """Rows backwards, every second pixel, axes exchanged: of x, of dy, and of w."""
    x, w = (
        random(1, (2, 10, 12, 3)).transpose(0, 3, 2, 1)[:, :, ::-1, ::2],
        random(2, (3, 3, 3, 4)).transpose(3, 2, 0, 1),
    )
    window = Window(3, padding="same")
    y, saved = conv_forward(x, w, window=window)
    dy = random(3, y.shape[::-1]).transpose()
    found = y, *conv_backward(dy, saved)[:2]
    y, saved = conv_forward(x.copy(), w.copy(), window=window)
    for got, expected in zip(found, (y, *conv_backward(dy.copy(), saved)[:2]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["conv/2d even kernel", "conv/3d", "conv_transpose/2d same"])
def test_gradient_checks_of_the_zoo_hold(everywhere: None, name: str) -> None:
    directions(name)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_scan_by_winograd_is_the_scan_by_im2col(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = LSTMCell(56, 56, (3, 3), dtype=np.float64)
    xs, dys = random(1, (3, 4, 56, 16, 15)), random(2, (3, 4, 56, 16, 15))

    def run() -> list[np.ndarray]:
        ys, _, tape = scan(cell, xs)
        dxs, _, grads = scan_backward(cell, dys, None, tape)
        again = scan_checkpointed(cell, xs, every=2)[0]
        np.testing.assert_array_equal(again, ys)
        return [ys, dxs, *grads.values()]

    set_threads(threads)
    try:
        found = run()
        geometry = Window(3, padding="same").over((16, 15))
        assert isinstance(conv.lowering_of(xs[0], (224, 56, 3, 3), geometry, 1), Winograd)
        monkeypatch.setattr(conv, "saves_products", lambda *args: False)
        conv.chosen.cache_clear()
        expected = run()
    finally:
        set_threads(None)
        conv.chosen.cache_clear()
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize(("kernel", "bound"), [((3, 3), 4), ((3, 3, 3), 8), ((5, 5), 16), ((5, 3, 3), 16)])
def test_float32_is_nearly_as_exact_as_im2col(everywhere: None, kernel: tuple[int, ...], bound: int) -> None:
    """Root mean square errors, beside im2col's: some 3 times as large for 3 x 3 taps, 12 times for 5 x 5."""
    window, sizes = Window(kernel, padding="same"), (8, 16, 16)[-len(kernel) :]
    small = [random(1, (2, 32, *sizes)), random(2, (32, 32, *kernel))]
    small = [a.astype(np.float32) for a in small]
    exact, _, exact_grads = run_pair(CONV, *(a.astype(np.float64) for a in small), window=window)

    def errors() -> list[float]:
        y, _, grads = run_pair(CONV, *small, window=window)
        pairs = zip((y, *grads[:2]), (exact, *exact_grads[:2]), strict=True)
        return [float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in pairs]

    found = errors()
    with ops.im2col_only():
        plain = errors()
    for by_winograd, by_im2col in zip(found, plain, strict=True):
        assert by_winograd < 6 * bound * 2**-24
        assert by_im2col < by_winograd < bound * by_im2col


CHOSEN = [  # sizes, kernel, features, channels, settings: the outputs of a tile, axis by axis, or None for im2col
    ((32, 32), (3, 3), 256, 64, {}, (4, 4)),
    ((16, 16), (5, 5), 512, 128, {}, (4, 4)),
    ((16, 32, 32), (3, 3, 3), 32, 16, {}, (4, 4, 4)),
    ((16, 32, 32), (1, 3, 3), 64, 64, {}, (1, 4, 4)),
    ((16, 16), (3, 3), 256, 64, {}, (4, 4)),
    ((32, 32), (3, 3), 256, 1, {}, None),  # nothing to save
    ((16, 16), (3, 3), 64, 16, {}, None),  # calls of Python cost more
    ((8, 8), (3, 3), 256, 64, {}, None),
    ((32, 32), (3, 3), 256, 64, {"stride": (2, 1)}, None),
    ((32, 32), (3, 3), 256, 64, {"stride": (1, 2)}, None),
    ((32, 32), (3, 3), 256, 64, {"dilation": (2, 1)}, (4, 4)),
    ((32, 32), (3, 3), 256, 64, {"dilation": 2}, (4, 4)),
    ((8, 32), (3, 3), 64, 64, {"dilation": 3}, None),  # images of 2 or 3 rows
    ((32, 32), (7, 7), 256, 64, {}, None),  # more taps than points
    ((32, 32), (3, 7), 256, 64, {}, None),
    ((16, 16, 16), (5, 5, 5), 64, 64, {}, None),  # what would be left of float32's digits
    ((16, 16, 16), (3, 5, 5), 64, 64, {}, None),
    ((16, 16, 16), (5, 3, 3), 64, 64, {}, (4, 4, 4)),
    ((12, 12), (3, 3), 256, 64, {}, (4, 4)),
    ((9, 9), (3, 3), 512, 128, {}, None),  # much hangs over
    ((16, 16), (3, 3), 2048, 512, {}, None),  # weights that come from memory, for 16 tiles
    ((32, 32), (1, 3), 64, 64, {}, None),
    ((5, 64), (3, 3), 64, 64, {}, None),  # two tiles of 4 for 5 rows
    ((256,), (3,), 64, 64, {}, None),  # a single axis saves little
    ((4096,), (5,), 256, 256, {}, (4,)),
]


@pytest.mark.parametrize(("sizes", "kernel", "features", "channels", "settings", "tile"), CHOSEN)
def test_it_is_chosen_where_it_pays(
    sizes: Any, kernel: Any, features: int, channels: int, settings: Any, tile: Any
) -> None:
    geometry = Window(kernel, padding="same" if not settings else 1, **settings).over(sizes)
    x, w_shape = np.zeros(1, np.float32), (features, channels, *kernel)
    found = conv.lowering_of(x, w_shape, geometry, 1)
    if tile is None:
        assert not isinstance(found, Winograd)
    else:
        assert isinstance(found, Winograd)
        assert found.m == tile
    assert isinstance(conv.lowering_of(x.astype(np.float16), w_shape, geometry, 1), Im2col)
    assert isinstance(conv.lowering_of(x.astype(np.int64), w_shape, geometry, 1), Im2col)
    grouped = conv.lowering_of(x, (features, channels // 2 or 1, *kernel), geometry, 2)
    assert not isinstance(grouped, Winograd)


def test_a_gpu_keeps_to_its_own_kernels(cupy_standin: Any) -> None:
    geometry = Window(3, padding="same").over((32, 32))
    x = cupy_standin.zeros(1, dtype=np.float32)
    assert isinstance(conv.lowering_of(x, (256, 64, 3, 3), geometry, 1), Im2col)


def test_weights_are_transformed_once_a_scan(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, transform = [], Winograd.weights

    def counted(self: Winograd, w: np.ndarray) -> np.ndarray:
        calls.append(w.shape[:2])
        return transform(self, w)

    monkeypatch.setattr(Winograd, "weights", counted)
    cell, xs = LSTMCell(2, 3, (3, 3), dtype=np.float64), random(1, (6, 1, 2, 5, 4))
    ys, _, tape = scan(cell, xs)
    assert sorted(calls) == [(12, 2), (12, 3)]  # w_x and w_h
    calls.clear()
    scan_backward(cell, np.ones_like(ys), None, tape)
    assert sorted(calls) == [(2, 12), (3, 12)]  # turned around


def test_square_weights_are_kept_both_ways(everywhere: None) -> None:
    """Turned around for the way back, they are other weights, though of the same shape."""
    cell, xs, dys = (
        RNNCell(2, 3, (3, 3), dtype=np.float64),
        random(1, (6, 1, 2, 5, 4)),
        random(2, (6, 1, 3, 5, 4)),
    )
    dxs, _, grads = scan_backward(cell, dys, None, scan(cell, xs)[2])
    again = scan_checkpointed_backward(cell, dys, None, scan_checkpointed(cell, xs, every=2)[2])
    for got, expected in zip((again[0], *again[2].values()), (dxs, *grads.values()), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_weights_that_change_in_place_are_transformed_anew() -> None:
    """Nothing that was made of them is left once the scan is over, and none is made to stay outside of one."""
    cell, xs = LSTMCell(2, 3, (3, 3), dtype=np.float64), random(1, (6, 1, 2, 5, 4))
    with transformed():
        before = scan(cell, xs)[0]
        cell.params["w_h"] *= 2  # in place: the same array
        after = scan(cell, xs)[0]
        assert not lowering._kept.get()
    np.testing.assert_allclose(after, scan(cell, xs)[0], rtol=1e-12, atol=1e-13)
    assert not np.allclose(after, before)


def test_a_tile_has_as_many_products_as_values(everywhere: None) -> None:
    """The shapes of the large products: J a tile and axis instead of m k."""
    geometry = Window(3, padding="same").over((12, 10))
    found = conv.lowering_of(np.zeros(1), (5, 2, 3, 3), geometry, 1)
    assert found.weights(np.ones((5, 2, 3, 3))).shape == (6 * 6, 1, 2, 5)
    x = winograd.under(np.ones((1, 2, 2, 12, 10)), geometry)
    assert x.shape == (1, 2, 14, 14, 2)  # two columns hang over
    values = winograd.evaluated("b_t", x, axes_of(geometry))
    assert values.shape == (1, 6 * 6, 2 * 3 * 3, 2)  # 3 x 3 tiles of 4 x 4, 2 samples
    assert ops.conv_forward(np.ones((2, 2, 12, 10)), np.ones((5, 2, 3, 3)))[0].shape == (2, 5, 10, 8)


@pytest.mark.parametrize(
    ("tiles", "outputs", "wide"),
    [(4, 4, 4), (8, 4, 4), (16, 4, 4), (5, 4, 5), (7, 4, 7), (16, 1, 16), (4, 12, 1)],
)
def test_a_band_holds_about_sixteen_outputs_and_little_hangs_over(
    tiles: int, outputs: int, wide: int
) -> None:
    assert winograd.width(tiles, outputs) == wide


def test_im2col_only_holds_in_threads_too_and_ends_with_the_block() -> None:
    x, w = np.ones((4, 64, 32, 32)), np.ones((256, 64, 3, 3))
    geometry = Window(3, padding="same").over((32, 32))
    seen = []

    def part(clips: slice) -> None:
        seen.append(type(conv.lowering_of(x, w.shape, geometry, 1)))

    set_threads(2)
    try:
        with ops.im2col_only():
            run_parts(part, [slice(0, 2), slice(2, 4)])
    finally:
        set_threads(None)
    assert seen == [Im2col, Im2col]
    assert isinstance(conv.lowering_of(x, w.shape, geometry, 1), Winograd)


def test_outer_taps_that_meet_padding_alone_are_dead(everywhere: None) -> None:
    """Two rows and five taps: those two rows away never meet a pixel, and only im2col's zeros say so exactly."""
    layer = Recurrent(ConvLSTMCell(2, 3, (5, 3), dtype=np.float64))
    found = {row.name: row.dead for row in dead_weights(layer, random(1, (3, 2, 2, 2, 34))).rows}
    assert found["w_x"] == 12 * 2 * 2 * 3
    assert found["w_h"] == 12 * 3 * 2 * 3
    spoilt = np.ones((1, 2, 8, 4))
    spoilt[0, 0, 0, 0] = np.nan
    w = np.ones((3, 2, 3, 3))
    with ops.im2col_only():
        assert np.isnan(conv_forward(spoilt, w, window=Window(3, padding=1))[0][0, 0]).sum() == 4
    assert np.isnan(conv_forward(spoilt, w, window=Window(3, padding=1))[0][0, 0]).sum() == 16
