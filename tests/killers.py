"""The checks that kill mutants: gradient checks of the zoo, naive loops, and tests of this folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import init, ops
from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell, LSTMCell
from tinyconvlstm.gradcheck import zoo
from tinyconvlstm.gradcheck.engine import CENTRAL, COMPLEX, Probe, check_directions, upstream_patterns
from tinyconvlstm.gradcheck.zoo_cells import CELLS, randomised
from tinyconvlstm.layers import BatchNorm, Recurrent
from tinyconvlstm.ops import Window, conv, dropout, overlapping, winograd

from . import oracles as naive
from . import oracles_recurrent as oracle
from .mutation import Killer, forget


def seeded(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


@cache
def gradient(name: str) -> Killer:
    """The directional derivatives of a case of the zoo, for every pattern of absent gradients."""
    return Killer(f"gradient check `{name}`", lambda: directions(name))


def directions(name: str) -> None:
    (case,) = (case for case in zoo(name) if case.name == name)
    rng = seeded()
    outputs, saved = case.forward(case.arrays)
    upstream = {key: np.asarray(rng.standard_normal(np.shape(y))) for key, y in outputs.items()}
    probe = Probe(case, outputs, 1e-5)
    limits = {CENTRAL: 1e-6} | ({COMPLEX: 1e-12} if case.analytic else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a wrong function may overflow
        for label, present in upstream_patterns(upstream):
            grads = case.backward(present, saved)
            assert {n: g.shape for n, g in grads.items()} == {n: a.shape for n, a in case.arrays.items()}
            for direction in check_directions(probe, label, present, grads, limits, rng):
                assert direction.passed, direction


def loops(kind: str, rank: int, kernel: tuple[int, ...], **settings: Any) -> Killer:
    """A cell's scan against naive loops over gates, pixels and taps."""
    sizes = {0: (), 1: (5,), 2: (3, 4), 3: (2, 3, 2)}[rank]
    scanning = {key: settings.pop(key) for key in ("lengths", "reverse") if key in settings}
    window, naive_window = settings.pop("window", {}), settings.pop("naive_window", {})
    if settings.get("peephole") == "map":
        settings["size"] = sizes
    words = [f"{kind} {rank}d", f"kernel {kernel}" if kernel else "", *scanning]
    words += [f"peephole {settings['peephole']}"] if "peephole" in settings else []
    words += ["strided, dilated"] if window else []

    def run() -> None:
        rng = seeded()
        cell = randomised(CELLS[kind](3, 2, kernel, **settings, **window), rng)
        steps, batch = 4, 3
        xs = rng.standard_normal((steps, batch, 3, *sizes))
        blank = cell.initial_state(xs[0])
        state = type(blank)(*(rng.standard_normal(a.shape) for a in blank))
        ys, last, _ = scan(cell, xs, state, **scanning)
        expected, ends = oracle.run(
            type(cell).__name__, xs, tuple(state), cell.params, **scanning, **naive_window
        )
        for a, b in zip((ys, *last), (expected, *ends), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)

    return Killer(f"naive loops, {', '.join(word for word in words if word)}", run)


def test(function: Callable[..., None], *args: Any, **kwargs: Any) -> Killer:
    """A test of this folder, called with its arguments; `rng` is a fresh seeded generator."""
    module = function.__module__.rpartition(".")[2]
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]

    def run() -> None:
        given = dict(kwargs)
        if "rng" in wanted:
            given["rng"] = seeded(20151119)
        with pytest.MonkeyPatch.context() as patch:
            function(*args, **given, **({"monkeypatch": patch} if "monkeypatch" in wanted else {}))

    return Killer(f"`{module}.{function.__name__}`", run)


UNEVEN = naive.Layout((2, 2, 6, 5), (3, 2), (2, 1), (1, 2), ((2, 0), (0, 1)), ((2, 0), (0, 1)))
SAME_EVEN = naive.Layout((2, 2, 3, 4), (2, 4), (1, 1), (1, 1), "same", ((0, 1), (1, 2)))
SAME_DILATED = naive.Layout((2, 2, 5, 6), (3, 2), (1, 1), (2, 3), "same", ((2, 2), (1, 2)))
SQUARE = naive.Layout((2, 2, 4, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), ((1, 1), (1, 1)))
CEIL = naive.Layout((2, 2, 5, 7), (3, 2), (2, 3), (1, 1), ((1, 0), (0, 0)), ((1, 0), (0, 0)), True)
LAYOUTS = {
    "strided, dilated, uneven padding": UNEVEN,
    "same, even kernel": SAME_EVEN,
    "same, dilated": SAME_DILATED,
    "square": SQUARE,
}


def convolution(kind: str, groups: int = 1) -> Killer:
    """The convolution against its index definition."""
    layout = LAYOUTS[kind]

    def run() -> None:
        x = naive.random(1, layout.shape)
        w = naive.random(2, (4, layout.shape[1] // groups, *layout.kernel))
        y, _ = ops.conv_forward(x, w, window=layout.window, groups=groups)
        np.testing.assert_allclose(y, naive.naive_conv(x, w, layout, groups), rtol=1e-12, atol=1e-13)

    return Killer(f"naive convolution, {kind}{', grouped' if groups > 1 else ''}", run)


@contextmanager
def transformed() -> Iterator[None]:
    """Every convolution that Winograd's transforms can do is done by them, however small."""
    kept = winograd.WORTH
    winograd.WORTH = -np.inf
    forget()
    try:
        yield
    finally:
        winograd.WORTH = kept
        forget()


@contextmanager
def shared() -> Iterator[None]:
    """Patches share rows wherever they can, and every depthwise convolution takes tiles, however small."""
    settings = (
        (overlapping, "NARROW", 0),
        (overlapping, "small_kernels", lambda: True),
        (conv, "SMALL_IMAGE", 0),
    )
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in settings:
            patch.setattr(module, name, value)
        forget()
        yield
    forget()


def by_winograd(killer: Killer) -> Killer:
    """A check, with `transformed` convolutions."""
    return within(transformed, killer, "by Winograd")


def with_shared_rows(killer: Killer) -> Killer:
    """A check, with `shared` rows and tiles."""
    return within(shared, killer, "rows shared")


def within(setting: Callable[[], AbstractContextManager[None]], killer: Killer, name: str) -> Killer:
    """A check under a setting."""

    def run() -> None:
        with setting():
            killer.run()

    return Killer(f"{killer.name}, {name}", run)


def adjoint(kind: str) -> Killer:
    """<im2col(x), cols> = <x, col2im(cols)>."""
    layout = LAYOUTS[kind]

    def run() -> None:
        geometry = layout.window.over(layout.shape[2:])
        x = naive.random(3, layout.shape)
        cols = ops.im2col(x, geometry)
        other = naive.random(4, cols.shape)
        there, back = (cols * other).sum(), (x * ops.col2im(other, geometry)).sum()
        np.testing.assert_allclose(there, back, rtol=1e-12)

    return Killer(f"adjointness of im2col and col2im, {kind}", run)


def in_blocks() -> None:
    """The convolution one sample at a time, its gradients against those of the whole batch."""
    in_pieces(conv.SHORTEST, naive.random(5, (3, 2, 5, 4)), naive.random(6, (4, 2, 3, 2)), Window((3, 2)))


def in_strips() -> None:
    """The convolution one row of the output at a time, with a stride."""
    window = Window((3, 2), stride=(2, 3), padding=1)
    in_pieces(1, naive.random(5, (2, 2, 7, 4)), naive.random(6, (4, 2, 3, 2)), window)


def in_pieces(shortest: int, x: np.ndarray, w: np.ndarray, window: Window) -> None:
    y, saved = ops.conv_forward(x, w, window=window)
    dy = naive.random(7, y.shape)
    whole = ops.conv_backward(dy, saved)[:2]
    kept = dict(conv.PATCH_BYTES), conv.SHORTEST
    conv.PATCH_BYTES["numpy"], conv.SHORTEST = 1, shortest
    try:
        y, saved = ops.conv_forward(x, w, window=window)
        pads = saved.geometry.pads
        layout = naive.Layout(x.shape, w.shape[2:], saved.geometry.stride, (1, 1), pads, pads)
        np.testing.assert_allclose(y, naive.naive_conv(x, w, layout), rtol=1e-12, atol=1e-13)
        for a, b in zip(ops.conv_backward(dy, saved)[:2], whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    finally:
        conv.PATCH_BYTES.update(kept[0])
        conv.SHORTEST = kept[1]


def max_pooling() -> None:
    """Values and gradients, with ties, negative pixels beside padding, and a window that hangs over."""
    layout = CEIL
    x = -1 - np.floor(3 * seeded().random(layout.shape))
    y, saved = ops.max_pool_forward(x, window=layout.window)
    dy = naive.random(8, y.shape)
    expected, dx = naive.naive_max_pool(x, dy, layout)
    np.testing.assert_allclose(y, expected)
    np.testing.assert_allclose(ops.max_pool_backward(dy, saved), dx)


def max_pooling_of_nan() -> None:
    x = np.arange(8.0).reshape(1, 1, 8)
    x[0, 0, [0, 3, 5]] = np.nan
    y, saved = ops.max_pool_forward(x, window=Window(2, 2))
    np.testing.assert_array_equal(y[0, 0], [np.nan, np.nan, np.nan, 7])
    with np.errstate(invalid="ignore"):
        dx = ops.max_pool_backward(np.array([[[1.0, 2, np.inf, 4]]]), saved)
    np.testing.assert_array_equal(dx[0, 0], [1, 0, 0, 2, 0, np.inf, 0, 4])


def avg_pooling() -> None:
    for count in (True, False):
        x = naive.random(9, CEIL.shape)
        y, _ = ops.avg_pool_forward(x, window=CEIL.window, count_include_pad=count)
        np.testing.assert_allclose(y, naive.naive_avg_pool(x, CEIL, count), rtol=1e-12, atol=1e-13)


def mask_has_mean_one() -> None:
    mask = dropout.dropout_mask(seeded(), (400, 50), 0.25, np.float64)
    np.testing.assert_allclose(mask.mean(), 1, atol=0.02)
    np.testing.assert_allclose((mask == 0).mean(), 0.25, atol=0.02)


def standardised() -> None:
    """Batch norm's output has mean 0 and the variance that eps leaves; layer norm's too."""
    x = 0.01 * naive.random(10, (5, 3, 4))
    y, _ = ops.batch_norm_forward(x, np.ones(3), np.zeros(3), eps=1e-3)
    var = x.var(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(y, (x - x.mean(axis=(0, 2), keepdims=True)) / np.sqrt(var + 1e-3), rtol=1e-11)


def running_statistics() -> None:
    layer = BatchNorm(3, momentum=0.2, dtype=np.float64)
    x = naive.random(11, (4, 3, 5))
    layer.update_buffers(layer.forward(x, train=True)[1])
    np.testing.assert_allclose(layer.buffers["mean"], 0.2 * x.mean(axis=(0, 2)))
    np.testing.assert_allclose(layer.buffers["var"], 0.8 + 0.2 * x.var(axis=(0, 2), ddof=1))


def masked_mean() -> None:
    y, target = naive.random(12, (2, 5)), naive.random(13, (2, 5))
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1]], bool)
    np.testing.assert_allclose(ops.mse_forward(y, target, mask=mask)[0], ((y - target)[mask] ** 2).mean())


def cross_entropy_by_hand() -> None:
    x, labels = naive.random(14, (3, 4)), np.array([2, 0, 3])
    q = 0.9 * np.eye(4)[labels] + 0.025
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    loss = ops.cross_entropy_forward(x, labels, label_smoothing=0.1)[0]
    np.testing.assert_allclose(loss, -(q * log_p).sum(axis=1).mean())


def binary_cross_entropy_by_hand() -> None:
    x, t = 4 * naive.random(15, (3, 4)), seeded().random((3, 4))
    p = 1 / (1 + np.exp(-x))
    loss = ops.binary_cross_entropy_forward(x, t)[0]
    np.testing.assert_allclose(loss, -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())


def fresh_lstm() -> None:
    cell = LSTMCell(2, 3, forget_bias=1.5)
    np.testing.assert_array_equal(cell.params["b"].reshape(4, 3), [[0] * 3, [1.5] * 3, [0] * 3, [0] * 3])
    w = init.glorot_uniform(seeded(), (4 * 200, 100), np.float64, gates=4)
    np.testing.assert_allclose(np.abs(w).max(), np.sqrt(6 / (100 + 200)), rtol=1e-3)


def moved_parameters() -> None:
    """A copy in another dtype has every parameter, peepholes too."""
    cell = LSTMCell(2, 3, peephole="channel")
    assert set(cell.astype(np.float64).params) == {"w_x", "w_h", "w_c", "b"}


def last_valid_h() -> None:
    """A layer that returns one frame returns each clip's last valid one."""
    cell = randomised(ConvLSTMCell(2, 3, (3,)), seeded())
    xs = naive.random(16, (4, 2, 2, 5))
    y, _ = Recurrent(cell, return_sequences=False).forward(xs, lengths=[2, 4])
    for n, length in enumerate([2, 4]):
        np.testing.assert_allclose(y[n : n + 1], scan(cell, xs[:length, n : n + 1])[1].h, rtol=1e-12)


BLOCKS = Killer("convolution in blocks of one sample", in_blocks)
STRIPS = Killer("convolution in strips of one row", in_strips)
MAX_POOL = Killer("naive max pooling with ties", max_pooling)
MAX_POOL_NAN = Killer("max pooling of NaN", max_pooling_of_nan)
AVG_POOL = Killer("naive average pooling", avg_pooling)
MASK = Killer("a dropout mask's mean is 1", mask_has_mean_one)
STANDARDISED = Killer("batch norm by hand", standardised)
RUNNING = Killer("running statistics by hand", running_statistics)
MASKED_MEAN = Killer("masked mean by hand", masked_mean)
CROSS_ENTROPY = Killer("cross-entropy by hand", cross_entropy_by_hand)
BINARY = Killer("binary cross-entropy by hand", binary_cross_entropy_by_hand)
FRESH = Killer("a fresh LSTM's bias and weights", fresh_lstm)
MOVED = Killer("a moved cell has every parameter", moved_parameters)
LAST = Killer("the last valid h", last_valid_h)
