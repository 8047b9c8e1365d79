"""Slow, obvious versions of the window operations, by their index definitions, and how to draw their inputs.

Nothing here is shared with the package: every sum is a loop over every index, and output sizes are
found by sliding a window until it no longer fits.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.ops import Window

Pads = tuple[tuple[int, int], ...]
NAMES = ("valid", "same", "same_upper", "same_lower")
DTYPES = (np.float32, np.float64, np.complex128)


class Layout(NamedTuple):
    """An input and a window on it, with the padding spelt out."""

    shape: tuple[int, ...]  # (N, C, *S)
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Any  # as a user writes it
    pads: Pads  # what it means
    ceil: bool = False

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def out(self) -> tuple[int, ...]:
        axes = zip(self.shape[2:], self.kernel, self.stride, self.dilation, self.pads, strict=True)
        return tuple(naive_count(*axis, self.ceil) for axis in axes)

    def taps(self) -> list[tuple[int, ...]]:
        return list(np.ndindex(*self.kernel))

    def read(self, p: tuple[int, ...], k: tuple[int, ...]) -> tuple[int, ...]:
        """Which pixel of the input tap k of window p reads; it may lie outside."""
        return tuple(
            s * p_ + d * k_ - before
            for p_, k_, s, d, (before, _) in zip(p, k, self.stride, self.dilation, self.pads, strict=True)
        )

    def inside(self, pixel: tuple[int, ...]) -> bool:
        return all(0 <= i < n for i, n in zip(pixel, self.shape[2:], strict=True))

    def on_padding_or_inside(self, pixel: tuple[int, ...]) -> bool:
        axes = zip(pixel, self.shape[2:], self.pads, strict=True)
        return all(-before <= i < n + after for i, n, (before, after) in axes)


def naive_count(size: int, k: int, s: int, d: int, pads: tuple[int, int], ceil: bool = False) -> int:
    """How many windows fit; in ceil mode also a last one that starts inside the input or before it."""
    count, start, end = 0, -pads[0], size + pads[1]
    while start + d * (k - 1) < end:
        count, start = count + 1, start + s
    left_over = start - s + d * (k - 1) + 1 < end  # pixels after the last window
    return count + 1 if ceil and left_over and start < size else count


def named_pads(name: str, size: int, k: int, s: int, d: int) -> tuple[int, int]:
    """The smallest padding that gives ceil(size / stride) windows, split as the name says."""
    if name == "valid":
        return 0, 0
    for total in itertools.count():
        if naive_count(size, k, s, d, (0, total)) >= -(-size // s):
            return (
                (total - total // 2, total // 2) if name == "same_lower" else (total // 2, total - total // 2)
            )
    raise AssertionError


@st.composite
def layouts(draw: st.DrawFn, *, channels: int | None = None, pooling: bool = False) -> Layout:
    """Shapes and windows of 0 to 3 axes with every kind of padding, even and odd kernels.

    With `pooling`, the window sees at least one pixel of the input everywhere, and ceil mode is drawn.
    """
    rank = draw(st.sampled_from([2, 1, 3, 0]))
    small = 5 - rank
    kernel = tuple(draw(st.sampled_from([2, 3, 1])) for _ in range(rank))
    stride = tuple(draw(st.sampled_from([2, 1, 3])) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 2])) for _ in range(rank))
    form = draw(st.sampled_from([*NAMES, "int", "ints", "pairs"]))
    widest = min(kernel, default=1) - 1 if pooling else 2
    pads: list[tuple[int, int]] = []
    padding: Any = form
    if form == "int":
        padding = draw(st.integers(0, widest))
        pads = [(padding, padding)] * rank
    elif form == "ints":
        padding = tuple(draw(st.integers(0, widest)) for _ in range(rank))
        pads = [(p, p) for p in padding]
    elif form == "pairs":
        padding = tuple((draw(st.integers(0, widest)), draw(st.integers(0, widest))) for _ in range(rank))
        pads = list(padding)
    sizes = []
    for axis in range(rank):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        least = span if form == "valid" else 1 if form in NAMES else max(1, span - sum(pads[axis]))
        if pooling:
            least = max(least, span)  # then a tap always falls on the input
        sizes.append(draw(st.integers(least, least + small)))
        if form in NAMES:
            pads.append(named_pads(form, sizes[axis], kernel[axis], stride[axis], dilation[axis]))
    batch = draw(st.sampled_from([2, 1]))
    c = draw(st.sampled_from([2, 3, 1])) if channels is None else channels
    ceil = pooling and draw(st.booleans())
    return Layout((batch, c, *sizes), kernel, stride, dilation, padding, tuple(pads), ceil)


def random(seed: int, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Standard normal numbers, complex ones in both parts."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        return x + 1j * rng.standard_normal(shape)
    return np.asarray(x, dtype)


def scattered(x: np.ndarray) -> np.ndarray:
    """The same numbers, not contiguous on any axis."""
    wide = np.full(tuple(2 * n + 1 for n in x.shape), np.nan, x.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def run_pair(
    pair: tuple[Any, Any], *arrays: Any, backend: str = "numpy", seed: int = 99, **settings: Any
) -> tuple[np.ndarray, np.ndarray, Any]:
    """y, a random upstream gradient dy, and the gradients, computed on a backend and moved to NumPy."""
    forward, backward = pair
    y, saved = forward(*to_backend(arrays, backend), **to_backend(settings, backend))
    dy = random(seed, y.shape, y.dtype)
    grads = backward(to_backend(dy, backend), saved)
    return to_numpy(y), dy, to_numpy(grads)


def assert_pair_agrees(pair: tuple[Any, Any], *arrays: Any, backend: str, **settings: Any) -> None:
    """The pair's output and gradients on a backend equal NumPy's, and keep their dtype."""
    expected_y, _, expected = run_pair(pair, *arrays, **settings)
    y, _, grads = run_pair(pair, *arrays, backend=backend, **settings)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-13)
    grads, expected = (g if type(g) is tuple else (g,) for g in (grads, expected))
    assert len(grads) == len(expected)
    for got, wanted in zip(grads, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)
        assert got.dtype == wanted.dtype


def naive_im2col(x: np.ndarray, layout: Layout, fill: float = 0.0) -> np.ndarray:
    """(N, C, taps, windows): what tap k of window p reads."""
    cols = np.full((*x.shape[:2], len(layout.taps()), int(np.prod(layout.out, dtype=int))), fill, x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for j, k in enumerate(layout.taps()):
            for q, p in enumerate(np.ndindex(*layout.out)):
                pixel = layout.read(p, k)
                if layout.inside(pixel):
                    cols[n, c, j, q] = x[(n, c, *pixel)]
    return cols


def naive_conv(x: np.ndarray, w: np.ndarray, layout: Layout, groups: int = 1) -> np.ndarray:
    """y[n, f, p] = sum_{c, k} w[f, c, k] * x[n, c, what tap k of window p reads]."""
    features, per_group = w.shape[:2]
    y = np.zeros((x.shape[0], features, *layout.out), np.result_type(x, w))
    for n, f in np.ndindex(x.shape[0], features):
        first = f // (features // groups) * per_group  # the group's first channel
        for p in np.ndindex(*layout.out):
            for k in layout.taps():
                pixel = layout.read(p, k)
                if layout.inside(pixel):
                    for c in range(per_group):
                        y[(n, f, *p)] += w[(f, c, *k)] * x[(n, first + c, *pixel)]
    return y


def naive_conv_transpose(x: np.ndarray, w: np.ndarray, layout: Layout, groups: int = 1) -> np.ndarray:
    """Every pixel p of x paints a kernel: y[what tap k of window p reads] += w[c, f, k] * x[n, c, p].

    `layout` is that of the convolution from y to x; its shape is y's.
    """
    channels, per_group = w.shape[:2]
    y = np.zeros(layout.shape, np.result_type(x, w))
    for n, c in np.ndindex(x.shape[0], channels):
        first = c // (channels // groups) * per_group
        for p in np.ndindex(*x.shape[2:]):
            for k in layout.taps():
                pixel = layout.read(p, k)
                if layout.inside(pixel):
                    for f in range(per_group):
                        y[(n, first + f, *pixel)] += w[(c, f, *k)] * x[(n, c, *p)]
    return y


def naive_max_pool(x: np.ndarray, dy: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The largest pixel of every window, and dx: its first place gets the window's gradient."""
    y, dx = np.zeros((*x.shape[:2], *layout.out), x.dtype), np.zeros_like(x)
    for n, c in np.ndindex(*x.shape[:2]):
        for p in np.ndindex(*layout.out):
            pixels = [layout.read(p, k) for k in layout.taps()]
            pixels = [pixel for pixel in pixels if layout.inside(pixel)]
            best = max(pixels, key=lambda pixel: x[(n, c, *pixel)])  # max() keeps the first of equals
            y[(n, c, *p)] = x[(n, c, *best)]
            dx[(n, c, *best)] += dy[(n, c, *p)]
    return y, dx


def naive_avg_pool(x: np.ndarray, layout: Layout, count_include_pad: bool) -> np.ndarray:
    """The mean of every window; the divisor never counts what hangs over the padding's end."""
    y = np.zeros((*x.shape[:2], *layout.out), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for p in np.ndindex(*layout.out):
            pixels = [layout.read(p, k) for k in layout.taps()]
            counts = layout.on_padding_or_inside if count_include_pad else layout.inside
            total = sum(x[(n, c, *pixel)] for pixel in pixels if layout.inside(pixel))
            y[(n, c, *p)] = total / sum(map(counts, pixels))
    return y
