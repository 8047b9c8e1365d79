"""Patches that share rows, tiles, and products in pieces: the same sums as im2col's, and chosen where they pay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyconvlstm import LSTMCell, ops, scan, scan_backward
from tinyconvlstm.ops import Window, conv, conv_backward, conv_forward, overlapping, products
from tinyconvlstm.ops.dilated import Dilated
from tinyconvlstm.ops.lowering import Im2col
from tinyconvlstm.ops.overlapping import Overlapping
from tinyconvlstm.ops.tiled import Tiled, tile
from tinyconvlstm.ops.winograd import Winograd

from .killers import shared
from .oracles import Layout, naive_conv, random, run_pair

CONV = (conv_forward, conv_backward)


@pytest.fixture
def everywhere() -> Iterator[None]:
    """Rows are shared, and tiles taken, by the smallest convolutions too."""
    with shared():
        yield


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, int, int]:
    """A layout of one to three axes, groups and features of a group."""
    rank, groups = draw(st.sampled_from([2, 3, 2, 1])), draw(st.sampled_from([1, 2, 3]))
    kernel = tuple(draw(st.sampled_from([2, 3, 1, 4])) for _ in range(rank))
    stride, dilation = (tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank)) for _ in range(2))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    sizes = tuple(
        max(1, d * (k - 1) + 1 - sum(p)) + draw(st.integers(0, 5))
        for k, d, p in zip(kernel, dilation, pads, strict=True)
    )
    channels = groups * draw(st.sampled_from([1, 2, 3]))
    shape = (draw(st.integers(1, 3)), channels, *sizes)
    return Layout(shape, kernel, stride, dilation, pads, pads), groups, draw(st.sampled_from([1, 2, 4]))


@settings(max_examples=200, deadline=None)
@given(layouts(), st.sampled_from([np.float64, np.complex128]), st.booleans())
def test_every_lowering_is_the_index_definition_and_its_gradients_are_the_adjoints(
    drawn: tuple[Layout, int, int], dtype: Any, in_strips: bool
) -> None:
    layout, groups, features = drawn
    x = random(1, layout.shape, dtype)
    w = random(2, (groups * features, layout.shape[1] // groups, *layout.kernel), dtype)
    with shared(), pytest.MonkeyPatch.context() as patch:
        if in_strips:
            patch.setitem(conv.PATCH_BYTES, "numpy", 1)
            patch.setattr(conv, "SHORTEST", 1)
        arguments = {"window": layout.window, "groups": groups}
        y, dy, (dx, dw, _) = run_pair(CONV, x, w, **arguments)
        v_x, v_w = random(4, x.shape, dtype), random(5, w.shape, dtype)
        along_x = conv_forward(v_x, w, **arguments)[0]
        along_w = conv_forward(x, v_w, **arguments)[0]
    np.testing.assert_allclose(y, naive_conv(x, w, layout, groups), rtol=1e-12, atol=1e-12)
    assert (along_x * dy).sum() == pytest.approx((v_x * dx).sum(), rel=1e-10, abs=1e-10)
    assert (along_w * dy).sum() == pytest.approx((v_w * dw).sum(), rel=1e-10, abs=1e-10)


EVERY = [  # sizes, kernel, channels, features, groups, settings: each with its lowering
    ((9, 7), (3, 2), 2, 3, 1, {}, Overlapping),
    ((9, 7), (3, 2), 4, 6, 2, {}, Overlapping),
    ((9, 7), (3, 2), 2, 3, 1, {"stride": (2, 1)}, Overlapping),
    ((9, 7), (3, 2), 2, 12, 2, {"stride": (2, 3)}, Overlapping),
    ((4, 6, 5), (2, 3, 2), 2, 3, 1, {}, Overlapping),
    ((9, 7), (3, 2), 2, 3, 1, {"dilation": 2}, Dilated),
    ((9, 7), (3, 2), 6, 8, 2, {"dilation": (3, 1)}, Dilated),
    ((9, 16), (3, 3), 4, 4, 4, {}, Tiled),
    ((9, 19), (3, 3), 4, 8, 4, {}, Tiled),  # the last tile hangs over
    ((9, 16), (3, 2), 6, 3, 3, {"stride": 2, "dilation": (1, 2)}, Tiled),
    ((40,), (5,), 4, 4, 4, {}, Tiled),
    ((40,), (5,), 4, 4, 1, {}, Im2col),
]


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize(("sizes", "kernel", "channels", "features", "groups", "settings", "kind"), EVERY)
def test_it_is_im2col(
    sizes: Any,
    kernel: Any,
    channels: int,
    features: int,
    groups: int,
    settings: Any,
    kind: type,
    strips: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole or in strips, of one step or of several at once."""
    x, w = random(1, (3, channels, *sizes)), random(2, (features, channels // groups, *kernel))
    window = Window(kernel, padding=1, **settings)
    geometry = window.over(sizes)
    with ops.im2col_only():
        y, dy, (dx, dw, _) = run_pair(CONV, x, w, window=window, groups=groups)
    if strips:
        monkeypatch.setitem(conv.PATCH_BYTES, "numpy", 1)
        monkeypatch.setattr(conv, "SHORTEST", 1)
    with shared():
        assert type(conv.lowering_of(x, w.shape, geometry, groups)) is kind
        found = run_pair(CONV, x, w, window=window, groups=groups)
        steps = [
            *conv.correlate_adjoint_w_steps(np.stack([dy, 2 * dy]), np.stack([x, x[::-1]]), geometry, groups)
        ]
    for got, expected in zip((found[0], *found[2][:2]), (y, dx, dw), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(steps[1], dw, rtol=1e-12, atol=1e-12)
    with ops.im2col_only():
        other = conv.correlate_adjoint_w(2 * dy, x[::-1], geometry, groups)
    np.testing.assert_allclose(steps[0], other, rtol=1e-12, atol=1e-12)


def test_strips_of_im2col_are_added_back_where_they_were_read() -> None:
    for kernel, stride, dilation, padding in ((3, 1, 1, 1), (3, 2, 1, 1), (2, 3, 2, 2), (5, 2, 1, 0)):
        window = Window((kernel, 2), (stride, 1), ((padding, padding), (1, 0)), (dilation, 1))
        x, w = random(1, (3, 2, 11, 4)), random(2, (12, 2, kernel, 2))
        _, saved = conv_forward(x, w, window=window)
        dy = random(3, (3, 12, *saved.geometry.out))
        with ops.im2col_only(), pytest.MonkeyPatch.context() as patch:
            whole = conv_backward(dy, saved)[0]
            patch.setitem(conv.PATCH_BYTES, "numpy", 1)
            patch.setattr(conv, "SHORTEST", 1)
            np.testing.assert_allclose(conv_backward(dy, saved)[0], whole, rtol=1e-12, atol=1e-12)


def test_dx_is_written_to_an_array_of_another_dtype() -> None:
    x, w = random(1, (2, 3, 6, 5)), random(2, (12, 3, 3, 3))
    y, saved = conv_forward(x, w, window=Window(3, 2, 1))
    dx = np.full(x.shape, np.nan, np.float32)
    found = conv.correlate_adjoint_x(y, w, saved.geometry, out=dx)
    assert found is dx
    np.testing.assert_allclose(dx, conv_backward(y, saved)[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("a", "b"), [((3, 96, 100), (3, 100, 256)), ((2, 1, 48, 576), (5, 576, 96)), ((7, 50), (50, 11))]
)
def test_a_product_in_pieces_is_the_product(
    a: Any, b: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "small_kernels", lambda: True)
    monkeypatch.setattr(products, "LARGEST", 400_000)
    products.pieces.cache_clear()
    x, y = random(1, a).astype(dtype), random(2, b).astype(dtype)
    expected = np.matmul(x.astype(np.float64), y.astype(np.float64))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype is np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    turned = np.ascontiguousarray(y.swapaxes(-1, -2)).swapaxes(-1, -2)
    for second in (y, turned):
        np.testing.assert_allclose(products.matmul(x, second), expected, **close)
        out = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), np.nan, dtype)[
            ..., : expected.shape[-1]
        ]
        assert products.matmul(x, second, out=out) is out
        np.testing.assert_allclose(out, expected, **close)
    long = np.ascontiguousarray(y.swapaxes(-1, -2))
    np.testing.assert_allclose(products.dots(x, long), expected, **close)
    products.pieces.cache_clear()


@given(st.integers(1, 600), st.integers(1, 3000), st.integers(1, 600), st.booleans())
def test_pieces_fill_the_product_and_are_small(rows: int, terms: int, columns: int, transposed: bool) -> None:
    check_pieces(rows, terms, columns, transposed)


def check_pieces(rows: int, terms: int, columns: int, transposed: bool) -> None:
    m, n = products.pieces(rows, terms, columns, transposed)
    assert rows % m == columns % n == 0
    small = m * n * terms <= products.LARGEST and (not transposed or m * n <= products.LARGEST_DOTS)
    assert small or (m, n) == (rows, columns)


def test_rows_a_page_apart_and_other_numbers_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(products, "pieces", lambda *sizes: seen.append(sizes) or (sizes[0], sizes[2]))
    monkeypatch.setattr(products, "small_kernels", lambda: True)
    a, apart = np.zeros((64, 200), np.float32), np.zeros((200, 1024), np.float32)
    products.matmul(a, apart)
    products.matmul(a.astype(complex), apart.astype(complex))
    products.matmul(a, apart.astype(np.float64))
    assert not seen
    products.matmul(a, np.zeros((200, 1000), np.float32))
    assert seen == [(64, 200, 1000, False)]


def test_without_small_kernels_nothing_is_cut_or_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another BLAS the products stay whole, and small images copy their patches."""
    for module in (products, overlapping):
        monkeypatch.setattr(module, "small_kernels", lambda: False)
    geometry = Window(3, padding="same").over((32, 32))
    conv.chosen.cache_clear()
    assert type(conv.lowering_of(np.zeros(1), (16, 8, 3, 3), geometry, 1)) is Im2col
    conv.chosen.cache_clear()
    assert not products.cut_pays(np.zeros(1), np.zeros(1))


CHOSEN = [  # sizes, kernel, features, channels, groups, settings: the lowering where products may be small
    ((32, 32), (3, 3), 64, 16, 1, {}, Overlapping),
    ((48, 48), (5, 5), 16, 16, 1, {}, Overlapping),
    ((32, 32), (3, 3), 64, 64, 1, {}, Winograd),
    ((32, 32), (3, 3), 64, 64, 4, {}, Overlapping),
    ((32, 32), (3, 3), 64, 64, 4, {"dilation": 2}, Dilated),
    ((64, 64), (7, 7), 64, 3, 1, {"stride": 2}, Overlapping),
    ((32, 32), (7, 7), 256, 64, 1, {}, Im2col),  # the products are all of the time
    ((12, 12), (3, 3), 64, 16, 1, {}, Im2col),  # narrow rows
    ((32, 32), (1, 3), 64, 64, 1, {}, Im2col),  # no rows to share
    ((256,), (3,), 64, 64, 1, {}, Im2col),
    ((32, 32), (3, 3), 64, 64, 64, {}, Tiled),
    ((7, 7), (3, 3), 64, 64, 64, {}, Im2col),  # a small image
    ((32, 32), (3, 3), 1, 1, 1, {}, Overlapping),  # nothing is kept apart
]


@pytest.mark.parametrize(("sizes", "kernel", "features", "channels", "groups", "settings", "kind"), CHOSEN)
def test_it_is_chosen_where_it_pays(
    sizes: Any,
    kernel: Any,
    features: int,
    channels: int,
    groups: int,
    settings: Any,
    kind: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overlapping, "small_kernels", lambda: True)
    conv.chosen.cache_clear()
    geometry = Window(kernel, padding="same", **settings).over(sizes)
    w_shape = (features, channels // groups, *kernel)
    assert type(conv.lowering_of(np.zeros(1, np.float32), w_shape, geometry, groups)) is kind
    for x in (np.zeros(1, np.float16), np.zeros(1, np.int64)):
        assert type(conv.lowering_of(x, w_shape, geometry, groups)) is Im2col
    conv.chosen.cache_clear()


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


def test_tiles_fill_rows_where_they_can() -> None:
    assert [tile(n) for n in (32, 24, 33, 20, 31, 7, 1)] == [16, 12, 11, 10, 16, 7, 1]


def test_strips_of_a_single_axis_are_whole_tiles() -> None:
    """Lest a window of the last tile leave the padded input."""
    geometry = Window(5, padding="same").over((4048,))
    lowering = conv.lowering_of(np.zeros(1), (64, 1, 5), geometry, 64)
    samples, rows = conv.block_sizes(np.zeros((1, 64, 4048)), geometry, lowering)
    assert isinstance(lowering, Tiled)
    assert (samples, lowering.m) == (1, 16)
    assert rows < 4048
    assert rows % 16 == 0


@pytest.mark.parametrize("input_grad", [True, False])
def test_a_scan_with_shared_rows_is_the_scan_by_im2col(everywhere: None, input_grad: bool) -> None:
    cell = LSTMCell(3, 4, (3, 3), dtype=np.float64)
    xs, dys = random(1, (4, 3, 3, 6, 5)), random(2, (4, 3, 4, 6, 5))

    def run() -> list[np.ndarray]:
        ys, _, tape = scan(cell, xs)
        dxs, _, grads = scan_backward(cell, dys, None, tape, input_grad=input_grad)
        return [ys, *([dxs] if input_grad else []), *grads.values()]

    found = run()
    with ops.im2col_only():
        expected = run()
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12)


def test_nothing_but_a_pixels_own_windows_reads_it(everywhere: None) -> None:
    """Shared rows keep a NaN where im2col would; a tile of a depthwise convolution spreads it along its row."""
    x, w = random(1, (1, 2, 9, 16)), random(2, (3, 2, 3, 3))
    x[0, 0, 4, 5] = np.nan
    y = conv_forward(x, w, window=Window(3, padding=1))[0]
    assert np.argwhere(np.isnan(y[0, 0])).tolist() == [[i, j] for i in (3, 4, 5) for j in (4, 5, 6)]
    depthwise = conv_forward(x, random(3, (2, 1, 3, 3)), window=Window(3, padding=1), groups=2)[0]
    assert set(np.argwhere(np.isnan(depthwise[0]))[:, 1]) == {3, 4, 5}
    assert not np.isnan(depthwise[0, 1]).any()
