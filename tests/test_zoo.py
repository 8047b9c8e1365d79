"""The zoo: every case is right, on every backend, in every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import cells, ops
from tinyconvlstm.backend import backend_name, map_arrays, to_backend, to_numpy
from tinyconvlstm.gradcheck import Case, gradcheck, zoo
from tinyconvlstm.gradcheck.zoo_clocks import CLOCKWORK
from tinyconvlstm.gradcheck.zoo_variants import VARIANTS

CASES = {case.name: case for case in zoo()}
NAMES = list(CASES)
EVERY = pytest.mark.parametrize("name", NAMES)

# How far float32 may be from float64, as a share of the largest value of an output or a gradient: a sum of n
# products is off by at most n roundings of 2^-24 each (Higham 2002, "Accuracy and stability of numerical
# algorithms", equation 3.4), in whatever order a processor adds; the longest sums here have 300 terms, over
# frames, pixels and clips, and the scans hand them on through five steps. Tensor cores must be off.
FLOAT32 = 5 * 300 * 2.0**-24


@pytest.fixture
def case(name: str) -> Case:
    """A case whose arrays are this test's own."""
    found = CASES[name]
    return found._replace(arrays={key: a.copy() for key, a in found.arrays.items()})


def upstream_of(outputs: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {key: rng.standard_normal(np.shape(to_numpy(y))) for key, y in outputs.items()}


@EVERY
def test_the_gradient_is_right(case):
    report = gradcheck(case, elements=10)
    assert report, f"\n{report}"
    assert report.worst("central") < 1e-6
    assert (report.worst("complex") is not None) is case.analytic


def relocated(case: Case, backend: str, dtype: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and gradients of a case with its arrays, and what its closures hold, elsewhere."""
    moved = moved_closures(case, backend, dtype)
    arrays = to_backend(cast(case.arrays, dtype), backend)
    outputs, saved = moved.forward(arrays)
    upstream = to_backend(cast(upstream_of(outputs, np.random.default_rng(3)), dtype), backend)
    return outputs, moved.backward(upstream, saved)


def cast(tree: Any, dtype: type) -> Any:
    """Floating arrays in another dtype; masks and labels stay as they are."""
    return map_arrays(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, tree)


def moved_closures(case: Case, backend: str, dtype: type) -> Case:
    """A case whose functions' constants (masks, targets, start states) lie where its arrays do."""
    seen: dict[int, Any] = {}

    def move(value: Any) -> Any:
        if hasattr(value, "bind") and hasattr(value, "to_backend"):  # a cell or a layer
            return value.astype(dtype).to_backend(backend)
        if callable(value) and getattr(value, "__closure__", None):
            return function(value)
        return to_backend(cast(value, dtype), backend)

    def function(f: Any) -> Any:
        if f.__closure__ is None:
            return f
        if id(f) not in seen:
            made = type(f)(
                f.__code__, f.__globals__, f.__name__, f.__defaults__, tuple(map(cell, f.__closure__))
            )
            made.__kwdefaults__ = f.__kwdefaults__
            seen[id(f)] = made
        return seen[id(f)]

    def cell(old: Any) -> Any:
        if id(old) not in seen:
            seen[id(old)] = type(old)()  # first, because functions may refer to each other
            seen[id(old)].cell_contents = move(old.cell_contents)
        return seen[id(old)]

    return case._replace(forward=function(case.forward), backward=function(case.backward))


def assert_close(found: dict[str, Any], expected: dict[str, Any], share: float) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        scale = float(np.abs(value).max()) if np.size(value) else 0.0
        np.testing.assert_allclose(to_numpy(found[key]), value, rtol=0, atol=share * scale, err_msg=key)


@EVERY
def test_backends_agree(case, backend):
    expected = relocated(case, "numpy", np.float64)
    found = relocated(case, backend, np.float64)
    for part, reference in zip(found, expected, strict=True):
        assert {backend_name(a) for a in part.values()} == {backend}
        assert_close(part, reference, 1e-12)


@EVERY
def test_float32_stays_float32_and_is_near_float64(case, backend):
    expected = relocated(case, "numpy", np.float64)
    found = relocated(case, backend, np.float32)
    for part, reference in zip(found, expected, strict=True):
        for key, a in part.items():
            assert a.dtype == np.float32, key
        assert_close(part, {k: to_numpy(v) for k, v in reference.items()}, FLOAT32)
        assert any(np.any(to_numpy(part[k]) != reference[k]) for k in part) or exact(case)


def exact(case: Case) -> bool:
    """Cases that only copy numbers, or whose float32 input is the float64 one: nothing to round."""
    return case.name.startswith(("im2col", "space_to_depth", "depth_to_space"))


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].analytic])
def test_complex_numbers_run_through_analytic_cases(case):
    outputs, _ = case.forward(case.arrays)
    there, _ = case.forward({name: a.astype(complex) for name, a in case.arrays.items()})
    for key, y in outputs.items():
        assert there[key].dtype == np.complex128
        np.testing.assert_allclose(there[key].real, y, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(there[key].imag, 0, atol=1e-13)


# --- is everything in it? ---


def test_names_differ_and_read_family_slash_detail():
    assert len(set(NAMES)) == len(NAMES)
    assert all("/" in name or " " not in name for name in NAMES)


def test_every_pair_of_the_operations_is_in_the_zoo():
    pairs = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    families = {name.partition("/")[0] for name in NAMES}
    assert pairs - families == set()


def test_every_cell_is_in_the_zoo_over_every_number_of_spatial_axes():
    kinds = {"RNNCell": "RNN", "LSTMCell": "LSTM", "GRUCell": "GRU", "ResetBeforeGRUCell": "GRU reset before"}
    known = {name for name in cells.__all__ if name.endswith("Cell")}
    variants = {type(build(2, 2)).__name__ for build in VARIANTS.values()}
    variants |= {type(build(2, 2, periods=(1,))).__name__ for build in CLOCKWORK.values()}
    assert {f"variant/{name} {rank}d" for name in CLOCKWORK for rank in range(3)} <= set(NAMES)
    spatial = {"DeformableLSTMCell", "ClockStackCell"}  # over 1 to 3 axes; and what is made of cells
    assert any(name.startswith("variant/clock stack") for name in NAMES)
    assert {f"variant/deformable {rank}d" for rank in (1, 2, 3)} <= set(NAMES)
    assert known == {*kinds, *variants, "ConvLSTMCell", "Cell", "TwoMapCell", "LightLSTMCell", *spatial}
    assert {f"variant/{name} {rank}d" for name in VARIANTS for rank in range(3)} <= set(NAMES)
    for kind in kinds.values():
        for rank in range(4):
            assert f"cell/{'Conv' if rank else ''}{kind} {rank}d" in NAMES


def test_peepholes_are_among_the_checked_arguments():
    words = ("peephole channel", "peephole map", "all at once")
    for name in NAMES:
        if name.startswith(("cell/", "lstm_gates/")):
            assert ("w_c" in CASES[name].arrays) is any(word in name for word in words), name


def test_the_pattern_is_a_set_of_words():
    names = [case.name for case in zoo("LSTM 2d map")]
    assert "cell/ConvLSTM 2d peephole map" in names
    assert "cell/ConvLSTM 2d peephole map, truncated k1=2 k2=3" in names
    assert all("map" in name and "2d" in name for name in names)
    assert [case.name for case in zoo("conv/2d depthwise")] == ["conv/2d depthwise"]
    assert len(zoo(None)) == len(NAMES)


@pytest.mark.parametrize(
    ("pattern", "close"),
    [("sofmax", "softmax"), ("cell/ConvLSTM 2d peephole cannel", "cell/ConvLSTM 2d peephole channel")],
)
def test_an_unknown_name_is_answered_with_close_ones(pattern, close):
    with pytest.raises(ValueError, match=f"no gradient check is named '{pattern}'; close names: .*{close}"):
        zoo(pattern)


def test_a_name_like_nothing_is_answered_with_the_families():
    with pytest.raises(ValueError, match=r"close names: .*avg_pool, .*conv, .*softmax"):
        zoo("qqqq")


def test_the_same_seed_gives_the_same_zoo_and_another_seed_another():
    a, b, c = zoo(), zoo(), zoo(seed=1)
    assert all(np.array_equal(p.arrays[n], q.arrays[n]) for p, q in zip(a, b, strict=True) for n in p.arrays)
    assert not np.array_equal(a[0].arrays["x"], c[0].arrays["x"])


@EVERY
def test_arguments_are_random_and_asymmetric(case):
    """Constant or symmetric weights hide exchanged gates, flipped kernels and swapped axes."""
    for name, a in case.arrays.items():
        assert a.dtype == np.float64
        if a.size > 1:
            assert len(np.unique(a)) == a.size, name
