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

from tinyconvlstm import ConvLSTMCell, LSTMCell, ops, scan, scan_backward, scan_checkpointed, set_threads
from tinyconvlstm.dead import dead_weights
from tinyconvlstm.layers import Recurrent
from tinyconvlstm.ops import Window, conv, conv_backward, conv_forward, lowering, winograd
from tinyconvlstm.ops.dilated import Dilated
from tinyconvlstm.ops.lowering import Im2col
from tinyconvlstm.ops.winograd import POINTS, TAPS, VALUES, Winograd, outputs_at_once, toom_cook
from tinyconvlstm.parallel import run_parts

from .killers import directions, transformed
from .oracles import Layout, naive_conv, random, run_pair

CONV = (conv_forward, conv_backward)


@pytest.fixture
def everywhere() -> Iterator[None]:
    """Also the smallest convolutions are transformed."""
    with transformed():
        yield


def fractions(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in row] for row in matrix]


@pytest.mark.parametrize("k", TAPS)
def test_the_transforms_are_the_correlation_exactly(k: int) -> None:
    """In fractions: sum_j A^T[i, j] G[j, l] B^T[j, p] is 1 where p = i + l, and 0 elsewhere."""
    m, points = outputs_at_once(k), [Fraction(p) for p in POINTS]
    matrices = toom_cook(k)
    a_t, b_t, g = (fractions(matrices[name]) for name in ("a_t", "b_t", "g"))
    for j, p in enumerate(points):  # G is rounded, A^T and B^T are not: its exact entries, by its definition
        scale = Fraction(1)
        for other in points[:j] + points[j + 1 :]:
            scale *= p - other
        exact = [p**i / scale for i in range(k)]
        assert [float(entry) for entry in exact] == pytest.approx([float(e) for e in g[j]], rel=1e-15)
        g[j] = exact
    for i, tap, pixel in itertools.product(range(m), range(k), range(VALUES)):
        assert sum(a_t[i][j] * g[j][tap] * b_t[j][pixel] for j in range(VALUES)) == (pixel == i + tap)


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
        "b": (6, 6),
        "g": (6, 3),
    }


@st.composite
def layouts_of_stride_one(draw: st.DrawFn, dilated: bool = False) -> Layout:
    """Two or three axes; at least one of them can be transformed, the first `dilated` or not."""
    rank = draw(st.sampled_from([2, 3]))
    kernel = tuple(draw(st.sampled_from([3, 5, 2, 4, 1])) for _ in range(rank - 1))
    kernel = (*kernel, draw(st.sampled_from([3, 1, 2])))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    dilation = (
        (draw(st.sampled_from([2, 3])), draw(st.sampled_from([1, 2])), 1)[:rank] if dilated else (1,) * rank
    )
    sizes = tuple(
        d * (k - 1) + draw(st.integers(1, (9, 6, 5)[axis] - k + 1))
        for axis, (k, d) in enumerate(zip(kernel, dilation, strict=True))
    )
    last = draw(st.sampled_from([1, 2]))  # the last axis may have a stride
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return Layout((batch, channels, *sizes), kernel, (*(1,) * (rank - 1), last), dilation, pads, pads)


@settings(max_examples=150, deadline=None)
@given(
    layouts_of_stride_one() | layouts_of_stride_one(dilated=True),
    st.integers(1, 3),
    st.sampled_from([np.float64, np.complex128]),
)
def test_it_is_its_index_definition_and_its_gradients_are_the_adjoints(
    layout: Layout, features: int, dtype: Any
) -> None:
    x, w = random(1, layout.shape, dtype), random(2, (features, layout.shape[1], *layout.kernel), dtype)
    with transformed():
        y, dy, (dx, dw, _) = run_pair(CONV, x, w, window=layout.window)
        v_x, v_w = random(4, x.shape, dtype), random(5, w.shape, dtype)
        along_x = conv_forward(v_x, w, window=layout.window)[0]
        along_w = conv_forward(x, v_w, window=layout.window)[0]
    np.testing.assert_allclose(y, naive_conv(x, w, layout), rtol=1e-12, atol=1e-12)
    assert (along_x * dy).sum() == pytest.approx((v_x * dx).sum(), rel=1e-10, abs=1e-10)
    assert (along_w * dy).sum() == pytest.approx((v_w * dw).sum(), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("shortest", [1, 256])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (4, 1)])
def test_strips_and_tiles_that_hang_over_change_nothing(
    everywhere: None, monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, int], shortest: int
) -> None:
    x, w = random(1, (3, 4, 21, 6)), random(2, (9, 4, *kernel))
    whole = run_pair(CONV, x, w, window=Window(kernel, padding="same"))
    monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 1)
    monkeypatch.setattr(conv, "SHORTEST", shortest)
    monkeypatch.setattr(Winograd, "at_least", 0, raising=False)
    parts = run_pair(CONV, x, w, window=Window(kernel, padding="same"))
    for got, expected in zip((parts[0], *parts[2][:2]), (whole[0], *whole[2][:2]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [21, 22])
@pytest.mark.parametrize("dilation", [2, 3])
def test_a_dilated_axis_is_two_axes(
    everywhere: None, monkeypatch: pytest.MonkeyPatch, dilation: int, size: int
) -> None:
    """In strips or whole, with images whose last row is there in vain, it is what im2col computes."""
    x, w = random(1, (3, 4, size, 6)), random(2, (9, 4, 3, 2))
    window = Window((3, 2), padding=((1, 2), (1, 0)), dilation=dilation)
    assert isinstance(conv.lowering_of(x, w.shape, window.over((size, 6)), 1), Dilated)
    with ops.im2col_only():
        plain = run_pair(CONV, x, w, window=window)
    for room in (conv.PATCH_BYTES["numpy"], 1):
        monkeypatch.setitem(conv.PATCH_BYTES, "numpy", room)
        monkeypatch.setattr(conv, "SHORTEST", 1)
        found = run_pair(CONV, x, w, window=window)
        for got, expected in zip((found[0], *found[2][:2]), (plain[0], *plain[2][:2]), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["conv/2d even kernel", "conv/3d", "conv_transpose/2d same"])
def test_gradient_checks_of_the_zoo_hold(everywhere: None, name: str) -> None:
    directions(name)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_scan_by_winograd_is_the_scan_by_im2col(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = LSTMCell(24, 32, (3, 3), dtype=np.float64)
    xs, dys = random(1, (3, 4, 24, 12, 9)), random(2, (3, 4, 32, 12, 9))

    def run() -> list[np.ndarray]:
        ys, _, tape = scan(cell, xs)
        dxs, _, grads = scan_backward(cell, dys, None, tape)
        again = scan_checkpointed(cell, xs, every=2)[0]
        np.testing.assert_array_equal(again, ys)
        return [ys, dxs, *grads.values()]

    set_threads(threads)
    try:
        found = run()
        geometry = Window(3, padding="same").over((12, 9))
        assert isinstance(conv.lowering_of(xs[0], (128, 32, 3, 3), geometry, 1), Winograd)
        monkeypatch.setattr(conv, "transformed_axes", lambda *args: ())
        conv.chosen.cache_clear()
        expected = run()
    finally:
        set_threads(None)
        conv.chosen.cache_clear()
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("k", [3, 5])
def test_float32_is_nearly_as_exact_as_im2col(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Root mean square errors: a few times 2^-24 of the values', and less than 4 times im2col's."""
    window, small = Window(k, padding="same"), [random(1, (2, 64, 16, 16)), random(2, (64, 64, k, k))]
    small = [a.astype(np.float32) for a in small]
    exact, _, exact_grads = run_pair(CONV, *(a.astype(np.float64) for a in small), window=window)
    errors = []
    for axes in (lambda *args: (0,), lambda *args: ()):
        monkeypatch.setattr(conv, "transformed_axes", axes)
        conv.chosen.cache_clear()
        y, _, grads = run_pair(CONV, *small, window=window)
        pairs = zip((y, *grads[:2]), (exact, *exact_grads[:2]), strict=True)
        errors.append([np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)) for a, b in pairs])
    conv.chosen.cache_clear()
    for by_winograd, plain in zip(*errors, strict=True):
        assert by_winograd < 16 * 2**-24
        assert plain < by_winograd < 4 * plain


CHOSEN = [  # sizes, kernel, features, channels, settings: the outputs of a tile, axis by axis, or None for im2col
    ((32, 32), (3, 3), 256, 64, {}, (4, 1)),
    ((16, 16), (5, 5), 512, 128, {}, (2, 1)),
    ((16, 32, 32), (3, 3, 3), 32, 16, {}, (4, 4, 1)),
    ((16, 32, 32), (1, 3, 3), 64, 64, {}, (1, 4, 1)),
    ((32, 32), (3, 3), 256, 1, {}, None),  # nothing to save
    ((32, 32), (3, 3), 256, 64, {"stride": (2, 1)}, None),
    ((32, 32), (3, 3), 256, 64, {"stride": (1, 2)}, (4, 1)),
    ((32, 32), (3, 3), 256, 64, {"dilation": (2, 1)}, (4, 1, 1)),  # the first axis as two
    ((32, 32), (3, 3), 256, 64, {"dilation": 2, "stride": (2, 1)}, None),
    ((12, 32), (3, 3), 64, 64, {"dilation": 3}, None),  # images of 3 or 4 rows
    (
        (32, 16, 32),
        (7, 3, 3),
        128,
        64,
        {"dilation": (2, 1, 1)},
        (1, 4, 1),
    ),  # another axis, where the dilated one cannot
    ((32, 32), (7, 7), 256, 64, {}, None),  # more taps than points
    ((32, 32), (1, 3), 256, 64, {}, None),
    ((5, 64), (3, 3), 64, 64, {}, None),  # two tiles of 4 for 5 rows
    ((4, 4), (3, 3), 256, 64, {}, None),  # a small image
    ((256,), (3,), 256, 64, {}, None),  # the last axis
]


@pytest.mark.parametrize(("sizes", "kernel", "features", "channels", "settings", "tile"), CHOSEN)
def test_it_is_chosen_where_it_pays(
    sizes: Any, kernel: Any, features: int, channels: int, settings: Any, tile: Any
) -> None:
    geometry = Window(kernel, padding="same" if not settings else 1, **settings).over(sizes)
    x, w_shape = np.zeros(1, np.float32), (features, channels, *kernel)
    found = conv.lowering_of(x, w_shape, geometry, 1)
    if tile is None:
        assert not isinstance(getattr(found, "inner", found), Winograd)
    else:
        found = found.inner if isinstance(found, Dilated) else found
        assert isinstance(found, Winograd)
        assert found.m == tile
    assert isinstance(conv.lowering_of(x.astype(np.float16), w_shape, geometry, 1), Im2col)
    assert isinstance(conv.lowering_of(x.astype(np.int64), w_shape, geometry, 1), Im2col)
    grouped = conv.lowering_of(x, (features, channels // 2 or 1, *kernel), geometry, 2)
    assert not isinstance(getattr(grouped, "inner", grouped), Winograd)


def test_a_gpu_keeps_to_its_own_kernels(cupy_standin: Any) -> None:
    geometry = Window(3, padding="same").over((32, 32))
    x = cupy_standin.zeros(1, dtype=np.float32)
    assert isinstance(conv.lowering_of(x, (256, 64, 3, 3), geometry, 1), Im2col)


def test_weights_are_transformed_once_a_scan(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, transform = [], Winograd.weights

    def counted(self: Winograd, w: np.ndarray) -> np.ndarray:
        calls.append(id(w))
        return transform(self, w)

    monkeypatch.setattr(Winograd, "weights", counted)
    cell, xs = LSTMCell(2, 3, (3, 3), dtype=np.float64), random(1, (6, 1, 2, 5, 4))
    ys, _, tape = scan(cell, xs)
    assert sorted(calls) == sorted(id(cell.params[name]) for name in ("w_x", "w_h"))
    calls.clear()
    scan_backward(cell, np.ones_like(ys), None, tape)
    assert len(calls) == len(set(calls))


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


def test_the_number_of_products_is_six_for_a_tile(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of the large products: J a tile instead of m k."""
    geometry = Window(3, padding="same").over((12, 10))
    found = conv.lowering_of(np.zeros(1), (5, 2, 3, 3), geometry, 1)
    weights = found.weights(np.ones((5, 2, 3, 3)))
    assert weights.shape == (VALUES, 5, 2 * 3)
    values = found.evaluated(np.ones((1, 2, 2, 14, 12)), geometry)
    assert values.shape == (1, VALUES, 2 * 3, 2 * 3 * 10)  # 3 tiles of 4 rows, 10 columns, 2 samples
    assert ops.conv_forward(np.ones((2, 2, 12, 10)), np.ones((5, 2, 3, 3)))[0].shape == (2, 5, 10, 8)


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
    assert np.isnan(conv_forward(spoilt, w, window=Window(3, padding=1))[0][0, 0]).sum() == 8


@pytest.mark.parametrize("n", [4 * winograd.PIECE, 6 * winograd.PIECE, winograd.PIECE + 1, 3])
def test_a_large_product_in_pieces_is_the_product(n, rng):
    matrix, x = rng.standard_normal((4, 6)), rng.standard_normal((2, 6, n))
    np.testing.assert_allclose(winograd.product(matrix, x), matrix @ x, rtol=1e-13, atol=1e-13)
    single = x.astype(np.float32)
    assert winograd.product(matrix.astype(np.float32), single).dtype == np.float32
