"""Named precisions: what they change, and how large their errors are."""

from __future__ import annotations

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from tinyconvlstm import ConvLSTMCell, GRUCell, LSTMCell, scan, scan_backward
from tinyconvlstm.backend import to_numpy
from tinyconvlstm.precision import arrays_of, loaded, products, rounded_to_tf32, stored

from .conftest import gpu_reason
from .test_parallel import in_parts


def test_tf32_keeps_ten_bits_and_rounds_to_nearest_even():
    one = np.float32(1)
    for step, expected in [(0.4, 0), (0.5, 0), (0.6, 1), (1, 1), (1.5, 2), (1.6, 2)]:
        x = np.array([one + np.float32(step) * np.float32(2**-10)], np.float32)
        assert rounded_to_tf32(x)[0] == one + np.float32(expected) * np.float32(2**-10)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (np.abs(rounded_to_tf32(x) - x) <= np.abs(x) * 2.0**-11).all()
    np.testing.assert_array_equal(rounded_to_tf32(-x), -rounded_to_tf32(x))


def test_halves_store_and_come_back(rng):
    tree = {"a": rng.standard_normal((3, 4)).astype(np.float32), "n": np.arange(3), "none": None}
    halves = stored(tree)
    assert halves["a"].dtype == np.float16
    assert halves["n"] is tree["n"]
    back = loaded(halves)["a"]
    assert back.dtype == np.float32
    assert (np.abs(back - tree["a"]) <= np.abs(tree["a"]) * 2.0**-11 + 2.0**-25).all()


def held(make):
    """What a function returns, and the bytes that it leaves taken."""
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


TAPES = [(ConvLSTMCell(2, 16, (3, 3)), (8, 4, 2, 12, 12)), (LSTMCell(16, 64), (12, 64, 16))]
TAPES += [(GRUCell(2, 16, (3, 3)), (8, 4, 2, 12, 12))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("cell", "shape"), TAPES, ids=["ConvLSTM", "dense LSTM", "ConvGRU"])
def test_a_stored_tape_takes_half_and_gives_the_gradients_of_halves(cell, shape, threads, rng):
    xs = rng.standard_normal(shape).astype(np.float32)
    with in_parts(threads):
        (ys, _, tape), size = held(lambda: scan(cell, xs.copy()))
        halves, half = held(lambda: stored(tape, cell.params))
        back, whole = held(lambda: loaded(halves))
        exact, found = (scan_backward(cell, ys, None, t)[2] for t in (tape, back))
    assert half < 0.55 * size
    assert whole < 1.1 * size
    for name, gradient in exact.items():
        error = np.abs(found[name] - gradient).max() / np.abs(gradient).max()
        assert 1e-6 < error < 1e-3
    for x, half in zip(arrays_of(tape), arrays_of(halves), strict=True):
        kept = x.dtype != np.float32 or any(x is w for w in cell.params.values())
        np.testing.assert_array_equal(half, x if kept else x.astype(np.float16))
        assert (half is x) == kept
    for half, x in zip(arrays_of(halves), arrays_of(back), strict=True):
        np.testing.assert_array_equal(half, x)
        assert x.dtype == np.float32 or half is x


def test_parts_of_one_memory_stay_parts_of_one(backend, rng):
    xp = __import__(backend)
    block, flipped = (xp.asarray(rng.standard_normal((4, 6)).astype(np.float32)) for _ in range(2))
    columns, zero = xp.zeros((6, 3), dtype=np.float32).T, xp.zeros((), dtype=np.float32)
    tree = {
        "all": block, "rows": block[1:3], "columns": block[:, ::2], "again": block, "turned": block.T,
        "back": flipped[::-1], "transposed": columns, "part": columns[1:], "zero": xp.broadcast_to(zero, (9, 9)),
        "none": block[:0], "number": zero,
    }  # fmt: skip
    for here in (halves := stored(tree), loaded(halves)):
        for name, x in here.items():
            np.testing.assert_array_equal(to_numpy(x), to_numpy(tree[name]).astype(np.float16))
            assert x.dtype == (np.float16 if here is halves else np.float32)
            assert x.shape == tree[name].shape
        here["all"][...] = 7  # what is shared is seen by all
        assert all((to_numpy(here[name]) == 7).all() for name in ("rows", "columns", "again", "turned"))
        here["transposed"][...] = 5
        assert (to_numpy(here["part"]) == 5).all()
        assert here["zero"].strides == (0, 0)
        here["all"][...] = halves["all"][...] = xp.asarray(to_numpy(block).astype(here["all"].dtype))
        here["transposed"][...] = 0


def test_a_few_clips_of_a_large_set_are_not_all_of_it(rng):
    data = rng.standard_normal((100, 10, 50)).astype(np.float32)
    halves, size = held(lambda: stored({"clips": data[:, :2], "again": data[:, :2]}))
    assert halves["clips"].shape == (100, 2, 50)
    assert size < 0.3 * data.nbytes


@pytest.mark.parametrize(("how", "limit"), [(rounded_to_tf32, 2e-3), (lambda a: loaded(stored(a)), 2e-3)])
def test_the_error_of_a_scan_is_that_of_ten_bits(how, limit, rng):
    """Weights and inputs at 10 bits: the hidden states are off by some times 2^-11, not more, and not by nothing."""
    cell = ConvLSTMCell(8, 16, (3, 3))
    xs = rng.standard_normal((10, 2, 8, 16, 16)).astype(np.float32)
    exact = scan(cell, xs)[0]
    rough = scan(cell.bind({name: how(a) for name, a in cell.params.items()}), how(xs))[0]
    error = np.abs(rough - exact).max()
    assert 1e-5 < error < limit


def test_products_by_name():
    with products("tf32"):
        assert np.ones((2, 2), np.float32).dot(np.ones(2, np.float32))[0] == 2
    for name, more in (("half", "$"), ("float16", "; float16 is for storage, see stored")):
        line = rf"precision is '{name}', expected one of \('float32', 'tf32'\){more}"
        with pytest.raises(ValueError, match=line), products(name):
            pass


class Switches:
    """CuPy's two switches, and what they were set to."""

    COMPUTE_TYPE_FP32, COMPUTE_TYPE_TF32 = 4, 7

    def __init__(self) -> None:
        self.type, self.mode = 1, 0

    def get_compute_type(self, dtype):
        assert dtype is np.float32
        return self.type

    def set_compute_type(self, dtype, value):
        self.type = value

    def getMathMode(self, handle):  # noqa: N802
        assert handle == "handle"
        return self.mode

    def setMathMode(self, handle, mode):  # noqa: N802
        self.mode = mode


def with_switches(cupy, monkeypatch):
    """The switches, where the package looks for CuPy's."""
    switches = Switches()
    monkeypatch.setattr(cupy, "_core", SimpleNamespace(_routines_linalg=switches), raising=False)
    monkeypatch.setattr(cupy.cuda, "cublas", switches, raising=False)
    device = SimpleNamespace(get_cublas_handle=lambda: "handle")
    monkeypatch.setattr(cupy.cuda, "device", device, raising=False)
    return switches


def test_both_switches_are_set_and_put_back(cupy_standin, monkeypatch):
    switches = with_switches(cupy_standin, monkeypatch)
    with products("tf32"):
        assert (switches.type, switches.mode) == (7, 3)
        with products("float32"):
            assert (switches.type, switches.mode) == (4, 0)
        assert (switches.type, switches.mode) == (7, 3)
    assert (switches.type, switches.mode) == (1, 0)
    with pytest.raises(RuntimeError, match="in the block"), products("tf32"):
        raise RuntimeError("in the block")
    assert (switches.type, switches.mode) == (1, 0)


def test_the_stand_in_has_no_switches(cupy_standin):
    with products("tf32"):
        pass


def test_cupy_has_the_switches():
    """Without a GPU the names can be looked up; the handle cannot be made."""
    if gpu_reason() == "CuPy is not installed":
        pytest.skip("CuPy is not installed")
    from cupy._core import _routines_linalg as switch

    for name in ("get_compute_type", "set_compute_type", "COMPUTE_TYPE_FP32", "COMPUTE_TYPE_TF32"):
        assert hasattr(switch, name)
    assert switch.compute_type_to_str(switch.COMPUTE_TYPE_TF32) == "COMPUTE_TYPE_TF32"


@pytest.mark.parametrize("k", [10, 1000])
def test_products_of_halves_added_in_float32(k, rng):
    """Storage in float16 costs 2^-11 a factor; adding in float32, as a GPU does, next to nothing more."""
    a, b = rng.standard_normal((7, k)).astype(np.float32), rng.standard_normal((k, 5)).astype(np.float32)
    exact = a.astype(float) @ b
    found = loaded(stored(a)) @ loaded(stored(b))
    bound = np.abs(a) @ np.abs(b) * (2 * 2.0**-11 + 2.0**-22 + (k + 1) * 2.0**-24)
    assert (np.abs(found - exact) <= bound).all()
    added_in_half = (stored(a)[:, :, None] * stored(b)).sum(axis=1, dtype=np.float16)
    if k == 1000:
        assert np.abs(found - exact).max() < 0.1 * np.abs(added_in_half - exact).max()


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [(), (3,)])
def test_tf32_on_a_gpu_is_what_rounding_says(real_cupy, batch, rng):
    """A product of matrices and a batched one, which CuPy switches in two places."""
    a, b = rng.standard_normal((64, 64)).astype(np.float32), rng.standard_normal((*batch, 64, 64))
    b = b.astype(np.float32)
    on = [real_cupy.asarray(x) for x in (a, b)]
    with products("tf32"):
        rough = real_cupy.matmul(*on).get()
    with products("float32"):
        exact = real_cupy.matmul(*on).get()
    np.testing.assert_allclose(exact, a @ b, rtol=0, atol=1e-4)
    np.testing.assert_allclose(rough, rounded_to_tf32(a) @ rounded_to_tf32(b), rtol=0, atol=5e-2)
    assert np.abs(rough - exact).max() > 1e-4  # it was rounded


@pytest.mark.gpu
def test_halves_on_a_gpu_are_added_in_float32(real_cupy, rng):
    a, b = (stored(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    found = (real_cupy.asarray(a) @ real_cupy.asarray(b)).get()
    exact = loaded(a) @ loaded(b)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, exact, rtol=2.0**-10, atol=1e-3)  # one rounding, of the result
