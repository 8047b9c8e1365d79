"""Transposed convolution: painting kernels, and the adjoint of the convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.ops import Window, conv_forward, conv_transpose_backward, conv_transpose_forward
from tinyconvlstm.ops.conv import mirrored
from tinyconvlstm.ops.conv_transpose import transposed
from tinyconvlstm.ops.windows import spans

from .oracles import DTYPES, Layout, assert_pair_agrees, layouts, naive_conv_transpose, random, run_pair

TRANSPOSE = (conv_transpose_forward, conv_transpose_backward)


@st.composite
def transposes(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...], int, tuple[int, ...] | int]:
    """The layout of a convolution from y to x, the shape of its weights, groups, and output_padding."""
    groups = draw(st.sampled_from([1, 2, 3]))
    features = draw(st.sampled_from([2, 1]))  # of y, per group
    layout = draw(layouts(channels=groups * features))
    sizes = layout.shape[2:]
    if isinstance(layout.padding, str) and layout.padding.startswith("same"):
        assume(all(n % s == 0 for n, s in zip(sizes, layout.stride, strict=True)))
        extra: Any = 0
    else:  # pixels of y that no window of the convolution reaches
        axes = zip(sizes, layout.kernel, layout.stride, layout.dilation, layout.pads, layout.out, strict=True)
        extra = tuple(n + sum(pads) - (s * (out - 1) + d * (k - 1) + 1) for n, k, s, d, pads, out in axes)
    channels = groups * draw(st.sampled_from([2, 1]))
    return layout, (channels, features, *layout.kernel), groups, extra


@settings(max_examples=240)
@given(transposes(), st.sampled_from(DTYPES))
def test_every_pixel_paints_a_kernel(backend: str, drawn: Any, dtype: Any) -> None:
    layout, shape, groups, extra = drawn
    x = random(1, (layout.shape[0], shape[0], *layout.out), dtype)
    w, b = random(2, shape, dtype), random(3, (shape[1] * groups,), dtype)
    there = to_backend((x, w, b), backend)
    settings: Any = {"window": layout.window, "groups": groups, "output_padding": extra}
    y = to_numpy(conv_transpose_forward(*there, **settings)[0])
    assert y.shape == layout.shape
    assert y.dtype == dtype
    expected = naive_conv_transpose(x, w, layout, groups) + b.reshape(-1, *(1,) * layout.rank)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=240)
@given(transposes())
def test_it_is_the_adjoint_of_the_convolution(drawn: Any) -> None:
    layout, shape, groups, extra = drawn
    y, w = random(1, layout.shape), random(2, shape)
    x = random(3, (layout.shape[0], shape[0], *layout.out))
    down = conv_forward(y, w, window=layout.window, groups=groups)[0]
    up = conv_transpose_forward(x, w, window=layout.window, groups=groups, output_padding=extra)[0]
    assert np.vdot(down, x) == pytest.approx(np.vdot(y, up), abs=1e-10)


@settings(max_examples=160)
@given(transposes())
def test_gradients_are_the_adjoints(backend: str, drawn: Any) -> None:
    layout, shape, groups, extra = drawn
    settings: Any = {"window": layout.window, "groups": groups, "output_padding": extra}
    x, w = random(1, (layout.shape[0], shape[0], *layout.out)), random(2, shape)
    b = random(3, (shape[1] * groups,))
    _, dy, (dx, dw, db) = run_pair(TRANSPOSE, x, w, b, backend=backend, **settings)
    v_x, v_w = random(4, x.shape), random(5, w.shape)
    along_x = conv_transpose_forward(v_x, w, **settings)[0]
    along_w = conv_transpose_forward(x, v_w, **settings)[0]
    assert np.vdot(along_x, dy) == pytest.approx(np.vdot(v_x, dx), abs=1e-10)
    assert np.vdot(along_w, dy) == pytest.approx(np.vdot(v_w, dw), abs=1e-10)
    np.testing.assert_allclose(db, dy.sum(axis=(0, *range(2, dy.ndim))), atol=1e-12)


def test_every_backend_gives_numpys_gradients(backend: str) -> None:
    arrays = random(1, (2, 4, 3, 5)), random(2, (4, 3, 3, 2)), random(3, (6,))
    window = Window((3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2))
    assert_pair_agrees(TRANSPOSE, *arrays, backend=backend, window=window, groups=2, output_padding=(1, 0))


@pytest.mark.parametrize(
    ("window", "extra", "sizes", "out"),
    [
        (Window(3), 0, (5,), (7,)),
        (Window(3, 2), 0, (5,), (11,)),
        (Window(3, 2, 1), 1, (5,), (10,)),
        (Window(2, 2), 0, (5,), (10,)),
        (Window(2, 3), 2, (5,), (16,)),
        (Window(3, 1, 0, 2), 1, (5,), (10,)),  # output_padding below the dilation is enough
        (Window(3, 2, "same"), 0, (5,), (10,)),
        (Window(1, 3, "same"), 0, (5,), (15,)),
        (Window((3, 2), (2, 1), ((1, 0), (0, 0))), (0, 0), (4, 3), (8, 4)),
        (Window(()), 0, (), ()),
    ],
)
def test_output_sizes(window: Window, extra: Any, sizes: tuple[int, ...], out: tuple[int, ...]) -> None:
    x, kernel = (
        np.ones((1, 2, *sizes)),
        window.kernel if isinstance(window.kernel, tuple) else (window.kernel,),
    )
    y = conv_transpose_forward(x, np.ones((2, 3, *kernel)), window=window, output_padding=extra)[0]
    assert y.shape == (1, 3, *out)


def test_an_example_by_hand() -> None:
    x, w = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0, 100.0]]])
    np.testing.assert_array_equal(conv_transpose_forward(x, w)[0], [[[1, 12, 120, 200]]])
    strided = conv_transpose_forward(x, w, window=Window(3, 2), output_padding=1)[0]
    np.testing.assert_array_equal(strided, [[[1, 10, 102, 20, 200, 0]]])


BAD = [
    ((2, 3, 5), (3, 4), None, {}, r"x.shape is \(2, 3, 5\) and w.shape is \(3, 4\), expected"),
    ((2, 3, 5), (4, 3, 3), None, {}, r"x has 3 channels, w expects 4 \(w.shape == \(4, 3, 3\)\)"),
    ((2, 3, 5), (3, 4, 3), None, {"groups": 2}, r"groups is 2, expected a divisor of w's 3 channels"),
    ((2, 4, 5), (4, 3, 3), (3,), {"groups": 2}, r"b.shape is \(3,\), expected \(6,\)"),
    ((2, 4, 5), (4, 3, 3), None, {"window": Window(2)}, r"window has kernel \(2,\), w has \(3,\)"),
    (
        (2, 4, 5),
        (4, 3, 3),
        None,
        {"output_padding": 1},
        r"output_padding is 1 on spatial axis 0, expected less",
    ),
    ((2, 4, 5), (4, 3, 3), None, {"output_padding": -1}, r"output_padding is -1, expected at least 0"),
    ((2, 4, 5), (4, 3, 3), None, {"output_padding": (1, 1)}, r"output_padding is \(1, 1\), expected an int"),
    (
        (2, 4, 5),
        (4, 3, 3),
        None,
        {"window": Window(3, 2, "same"), "output_padding": 1},
        r"output_padding is \(1,\), expected 0 with padding 'same'",
    ),
    (
        (2, 4, 2),
        (4, 3, 1),
        None,
        {"window": Window(1, padding=1)},
        r"the output would have spatial sizes \(0,\)",
    ),
    (
        (2, 4, 5),
        (4, 3, 3),
        None,
        {"window": Window(3, ceil=True)},
        r"window has ceil=True, which only pooling",
    ),
]


@pytest.mark.parametrize(("x", "w", "b", "settings", "message"), BAD)
def test_what_does_not_fit_is_refused(x: Any, w: Any, b: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_transpose_forward(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **settings)


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
def test_the_mirror_reads_what_there_is_and_no_more(extra: int, padding: Any) -> None:
    """With stride 1, the pixels that output_padding adds read zeros: not what lies behind the array."""
    layout = Window(2, 1, padding if isinstance(padding, int) else (padding,), dilation=3)
    mirror = mirrored(transposed(layout, (6,), extra))
    assert spans(mirror)[0] == mirror.sizes[0] + sum(mirror.pads[0])
    x, w = np.ones((1, 1, 6)), np.ones((1, 1, 2))
    y = conv_transpose_forward(x, w, window=layout, output_padding=extra)[0]
    before, after = (padding, padding) if isinstance(padding, int) else padding
    whole = [1, 1, 1, 2, 2, 2, 1, 1, 1, *[0] * extra]
    np.testing.assert_array_equal(y[0, 0], whole[before : len(whole) - after])


def test_output_padding_behind_the_last_window_of_a_dilated_kernel(rng: np.random.Generator) -> None:
    """Rows that no window reaches, of a kernel whose rows are split in sets: zeros forward, unread backward."""
    x, w = rng.standard_normal((3, 16, 3, 6)), rng.standard_normal((16, 5, 3, 4))
    window = Window((3, 4), (1, 2), ((0, 0), (0, 0)), (3, 1))
    for extra in ((1, 0), (2, 1)):
        y, saved = conv_transpose_forward(x, w, window=window, output_padding=extra)
        bare = conv_transpose_forward(x, w, window=window)[0]
        np.testing.assert_allclose(y[:, :, : bare.shape[2], : bare.shape[3]], bare, rtol=1e-12, atol=1e-12)
        assert (y[:, :, bare.shape[2] :] == 0).all()
        dy = rng.standard_normal(y.shape)
        dx, dw, _ = conv_transpose_backward(dy, saved)
        assert (x * dx).sum() == pytest.approx((y * dy).sum())
        assert (w * dw).sum() == pytest.approx((y * dy).sum())
