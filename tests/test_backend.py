"""The backend seam: which module an array asks for, moving trees, and the errors in words."""

from __future__ import annotations

import sys
import types
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinyconvlstm.backend import (
    BACKENDS,
    BackendError,
    array_module,
    available,
    backend_name,
    check_dtypes,
    map_arrays,
    module_of,
    to_backend,
    to_numpy,
)


class Pair(NamedTuple):
    h: Any
    c: Any


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # the import system's way to say: not there


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(is_available=lambda: False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", module)


def test_backend_name(backend: str) -> None:
    x = to_backend(np.zeros((2, 3)), backend)
    assert backend_name(x) == backend
    assert backend_name(x.sum()) == backend  # a NumPy scalar, or CuPy's 0-d array
    for other in (None, 1, 2.5, "x", [1.0], object()):
        assert backend_name(other) is None


def test_array_module(backend: str) -> None:
    x = to_backend(np.zeros(3), backend)
    assert array_module(x).__name__ == backend
    assert array_module(None, x=x, scale=2.0, b=None) is array_module(x)
    assert isinstance(array_module(x).zeros(2), type(x))
    assert array_module() is np
    assert array_module(None, 1.0) is np


def test_mixed_arrays_name_both_sides(cupy_standin: Any) -> None:
    x, w = np.zeros((2, 3)), cupy_standin.zeros((4, 5, 6))
    with pytest.raises(BackendError) as caught:
        array_module(x=x, w=w)
    message = str(caught.value)
    assert "x is a numpy array of shape (2, 3)" in message
    assert "w is a cupy array of shape (4, 5, 6)" in message
    assert 'to_backend(x, "cupy")' in message
    assert "\n" not in message
    with pytest.raises(TypeError, match=r"argument 1 is a cupy array .* and b is a numpy array"):
        array_module(None, w, b=np.float32(1))


def test_to_backend_moves_trees(backend: str, rng: np.random.Generator) -> None:
    values = [
        rng.normal(size=(2, 3)).astype("f4"),
        rng.integers(0, 9, 4),
        rng.normal(size=()) > 0,
        np.zeros((0, 2)),
    ]
    tree = {"a": [values[0], None, "text"], "b": (values[1], 3), "c": Pair(values[2], {"d": values[3]})}
    moved = to_backend(tree, backend)
    leaves: list[Any] = []
    map_arrays(leaves.append, moved)
    assert [backend_name(x) for x in leaves] == [backend] * 4
    assert type(moved["a"]) is list
    assert moved["a"][1:] == [None, "text"]
    assert type(moved["b"]) is tuple
    assert moved["b"][1] == 3
    assert type(moved["c"]) is Pair
    back = to_numpy(moved)
    for got, expected in zip(
        [back["a"][0], back["b"][0], back["c"].h, back["c"].c["d"]], values, strict=True
    ):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got, expected)


def test_what_is_there_already_is_returned_as_it_is(backend: str) -> None:
    x = to_backend(np.zeros(3), backend)
    assert to_backend(x, backend) is x
    assert to_backend({"x": x}, backend)["x"] is x
    if backend == "cupy":
        moved = to_numpy(x)
        moved[0] = 1
        assert float(x[0]) == 0  # a copy


def test_map_arrays_leaves_the_tree_alone(backend: str) -> None:
    tree = {"x": to_backend(np.ones(2), backend), "n": 1}
    doubled = map_arrays(lambda x: x * 2, tree)
    assert to_numpy(doubled["x"]).tolist() == [2.0, 2.0]
    assert to_numpy(tree["x"]).tolist() == [1.0, 1.0]
    assert doubled["n"] == 1


def test_available(backend: str) -> None:
    assert backend in available()
    assert set(available()) <= set(BACKENDS)
    assert module_of(backend).__name__ == backend


@pytest.mark.usefixtures("no_cupy")
def test_without_cupy() -> None:
    assert available() == ("numpy",)
    with pytest.raises(BackendError, match=r"pip install 'tinyconvlstm\[cuda12x\]'"):
        to_backend(np.zeros(2), "cupy")
    np.testing.assert_array_equal(to_numpy(np.arange(2)), [0, 1])


@pytest.mark.usefixtures("no_device")
def test_without_a_device() -> None:
    assert available() == ("numpy",)
    with pytest.raises(BackendError, match="no CUDA device or driver"):
        to_backend(np.zeros(2), "cupy")


@pytest.mark.parametrize("name", ["", "torch", "NumPy", None])
def test_unknown_backend(name: Any) -> None:
    with pytest.raises(BackendError, match=r"expected one of \('numpy', 'cupy'\)"):
        to_backend(np.zeros(2), name)


def test_map_arrays_over_several_trees(backend: str) -> None:
    first = {"a": [np.array([1.0, 2.0])], "b": Pair(np.array(3.0), None)}
    second = {"a": [np.array([10.0, 20.0])], "b": Pair(np.array(30.0), None)}
    total = map_arrays(lambda x, y: x + 2 * y, to_backend(first, backend), to_backend(second, backend))
    assert to_numpy(total["a"][0]).tolist() == [21.0, 42.0]
    assert float(total["b"].h) == 63.0
    assert type(total["b"]) is Pair
    assert total["b"].c is None
    with pytest.raises(ValueError, match="argument 2 is"):
        map_arrays(lambda x, y: x, [np.zeros(1)], [np.zeros(1), np.zeros(1)])


def test_check_dtypes(backend: str) -> None:
    x, w, z = (to_backend(np.zeros(2, d), backend) for d in ("f4", "f8", "c16"))
    check_dtypes(x=x, b=None, z=z, other=x)
    check_dtypes(w=w, z=z)
    with pytest.raises(TypeError, match=r"dtypes differ: x is float32 and w is float64; convert one side"):
        check_dtypes(x=x, w=w, z=z)
