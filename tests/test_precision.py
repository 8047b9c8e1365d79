"""Named precisions: what they change, and how large their errors are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tinyconvlstm import ConvLSTMCell, scan
from tinyconvlstm.precision import loaded, products, rounded_to_tf32, stored

from .conftest import gpu_reason


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
    expected = pytest.raises(ValueError, match=r"precision is 'half', expected one of \('float32', 'tf32'\)")
    with expected, products("half"):
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
