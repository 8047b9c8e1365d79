"""The stand-in for CuPy refuses what CuPy refuses, and computes what NumPy computes."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any

import numpy as np
import pytest

from . import standin


@pytest.fixture
def cupy(cupy_standin: Any) -> Any:
    return cupy_standin


@pytest.fixture
def pair(cupy: Any, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    values = rng.normal(size=(3, 5, 2))
    return cupy.asarray(values), values


def test_is_found_by_import_and_by_class(cupy: Any) -> None:
    import cupy as imported

    assert imported is cupy is sys.modules["cupy"]
    x = cupy.zeros((2, 3))
    assert type(x).__module__ == "cupy"
    assert isinstance(x, cupy.ndarray)
    assert cupy.get_array_module(x) is cupy
    assert cupy.get_array_module(np.zeros(2)) is np


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        np.array,
        np.exp,
        np.sum,
        lambda x: np.concatenate([x, x]),
        lambda x: np.exp(np.zeros(x.shape), out=x),
        lambda x: np.zeros(x.shape) + x,
        lambda x: x + np.zeros(x.shape),
        lambda x: x * np.zeros(()),
        lambda x: x @ np.zeros((2, 4)),
        lambda x: x < np.zeros(x.shape),
        lambda x: x.__iadd__(np.zeros(x.shape)),
        lambda x: x.__setitem__(0, np.zeros(x.shape[1:])),
        lambda x: x[np.array([0, 1])],
        lambda x: x[:, np.array([0, 1])],
        lambda x: x.__add__([0.0, 1.0]),
        lambda x: np.zeros(x.shape).__setitem__(..., x),
        lambda x: x.sum(out=np.zeros(())),
        lambda x: x.dot(np.zeros((2, 4))),
    ],
)
def test_refuses_numpy(pair: Any, use: Any) -> None:
    with pytest.raises(TypeError):
        use(pair[0])


@pytest.mark.parametrize(
    "use",
    [
        lambda cp, x: cp.maximum(x, np.zeros(x.shape)),
        lambda cp, x: cp.where(x > 0, x, np.zeros(x.shape)),
        lambda cp, x: cp.concatenate([x, np.zeros(x.shape)]),
        lambda cp, x: cp.einsum("abc,abc->a", x, np.zeros(x.shape)),
        lambda cp, x: cp.exp(x, out=np.zeros(x.shape)),
        lambda cp, x: cp.exp([0.0, 1.0]),
        lambda cp, x: cp.sum(np.zeros(3)),
        lambda cp, x: cp.sum([1.0, 2.0]),
        lambda cp, x: cp.zeros_like(np.zeros(3)),
        lambda cp, x: cp.add.at(x, np.array([0]), 1.0),
        lambda cp, x: cp.exp(x, where=x > 0),
        lambda cp, x: cp.sum(x, initial=0.0),
        lambda cp, x: cp.sum(x, where=x > 0),
        lambda cp, x: x.sum(initial=0.0),
        lambda cp, x: x.max(where=x > 0),
        lambda cp, x: cp.empty_like(x, subok=False),
        lambda cp, x: cp.einsum("abc->a", x, out=cp.zeros(3)),
        lambda cp, x: cp.lib.stride_tricks.as_strided(x, (1,), (8,), writeable=False),
        lambda cp, x: cp.lib.stride_tricks.sliding_window_view(x, 2, axis=1, writeable=True),
        lambda cp, x: cp.pad(x, 1, "constant", stat_length=2),
        lambda cp, x: hash(x),
        lambda cp, x: range(cp.argmax(x)),
    ],
)
def test_module_refuses(cupy: Any, pair: Any, use: Any) -> None:
    with pytest.raises(TypeError):
        use(cupy, pair[0])


@pytest.mark.parametrize(
    "name",
    [
        *("errstate", "seterr", "vecdot", "matvec", "einsum_path", "geomspace", "ndenumerate", "nditer"),
        *("insert", "block", "spacing", "longdouble", "unstack", "random"),
    ],
)
def test_names_that_cupy_lacks(cupy: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(cupy, name)


def test_unsupported_dtypes_are_refused(cupy: Any) -> None:
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.asarray(np.array(["a"]))


def test_only_explicit_ways_to_numpy(cupy: Any, pair: Any) -> None:
    x, values = pair
    for out in (x.get(), cupy.asnumpy(x)):
        assert type(out) is np.ndarray
        np.testing.assert_array_equal(out, values)
        out[...] = 0
    np.testing.assert_array_equal(x.get(), values)  # copies
    assert x[0, 1, 0].item() == values[0, 1, 0]
    assert x.tolist() == values.tolist()
    assert x.tobytes() == values.tobytes()


def test_from_numpy_is_a_copy_and_from_itself_is_not(cupy: Any) -> None:
    values = np.arange(4.0)
    x = cupy.asarray(values)
    values[0] = 9
    assert float(x[0]) == 0
    assert cupy.asarray(x) is x
    assert cupy.array(x) is not x
    assert cupy.asarray(x, dtype="f4").dtype == np.float32
    assert cupy.array([x[0], x[1]]).shape == (2,)


def test_results_are_arrays_even_with_no_axes(cupy: Any, pair: Any) -> None:
    x, values = pair
    for y in (x.sum(), cupy.sum(x), x[0, 0, 0], x.mean() * 2, cupy.count_nonzero(x), cupy.linalg.norm(x)):
        assert type(y) is cupy.ndarray
        assert y.shape == ()
    for y, expected in ((x.sum(), values.sum()), (cupy.linalg.norm(x.ravel()), np.linalg.norm(values))):
        assert float(y) == pytest.approx(expected, rel=1e-14)
    assert bool(cupy.allclose(x, x))
    assert type(cupy.allclose(x, x)) is cupy.ndarray
    assert int(cupy.argmax(x)) == values.argmax()
    assert complex(x[0, 0, 0]) == values[0, 0, 0]
    assert f"{x[0, 0, 0]:.3f}" == f"{values[0, 0, 0]:.3f}"
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError):
        len(x.sum())


def test_views_share_memory(pair: Any) -> None:
    x, _ = pair
    row = x[0]
    row[1, 0] = 7.0
    one = x[0, 1, 0]
    assert float(one) == 7.0
    one[...] = 8.0
    assert float(row[1, 0]) == 8.0
    x.T[0] += 1.0
    assert float(row[1, 0]) == 9.0
    for part in x:
        part[...] = 3.0
    assert float(x.sum()) == 90.0


def test_numbers_mix_and_keep_the_dtype(cupy: Any) -> None:
    x = cupy.full((2, 3), 2.0, dtype="f4")
    for y in (x * 2.0, 2 * x, np.float32(2) * x, x / np.float32(2), 1 - x, -x, abs(x), x**2, 2.0**x, x // 2):
        assert type(y) is cupy.ndarray
        assert y.dtype == np.float32
    assert (np.float64(2) * x).dtype == np.float64
    same = x
    same *= 3
    same += x
    same -= 1
    assert same is x
    assert float(x[1, 2]) == 11.0
    with pytest.raises(TypeError):
        x += 1j


def test_out_is_written_and_returned(cupy: Any, pair: Any) -> None:
    x, values = pair
    out = cupy.empty(x.shape)
    assert np.isnan(out.get()).all()
    assert cupy.exp(x, out=out) is out
    np.testing.assert_array_equal(out.get(), np.exp(values))
    cupy.add.at(out, cupy.asarray([0, 0, 2]), 1.0)
    np.testing.assert_allclose(out.get(), np.exp(values) + np.array([2, 0, 1])[:, None, None], rtol=1e-15)


@pytest.mark.parametrize(
    "use",
    [
        lambda xp, x: xp.where(x > 0, x, xp.exp(x) - 1),
        lambda xp, x: xp.einsum("abc,dbc->ad", x, x),
        lambda xp, x: xp.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3.0),
        lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2)),
        lambda xp, x: xp.lib.stride_tricks.as_strided(x, (2, 3), (8, 16)),
        lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=1), axis=1),
        lambda xp, x: xp.stack([x[0], x[2]], axis=-1).reshape(-1, 2).transpose(1, 0),
        lambda xp, x: xp.moveaxis(x, 0, -1)[..., None, ::-1].squeeze(axis=2),
        lambda xp, x: (x + 1j).conj().imag,
        lambda xp, x: xp.split(x, [1, 3], axis=1)[1],
        lambda xp, x: x[x > 0],
        lambda xp, x: x[:, [0, 3, 1]],
        lambda xp, x: x.astype("f4").cumsum(axis=1),
        lambda xp, x: xp.zeros_like(x, dtype=xp.float32) + xp.ones_like(x) + xp.full_like(x, 2.5),
        lambda xp, x: xp.full_like(x, 2.5, shape=(2, 1)) - xp.arange(3) + xp.eye(2, 3),
        lambda xp, x: xp.tri(4, k=-1) @ xp.linspace(0, 1, 4),
        lambda xp, x: xp.unique(xp.floor(x)),
        lambda xp, x: x.max(axis=(0, 2), keepdims=True) - x.min(axis=-1, keepdims=True),
        lambda xp, x: xp.asarray(x.flags["C_CONTIGUOUS"]) & xp.asarray(not x.T.flags.c_contiguous),
    ],
)
def test_computes_what_numpy_computes(cupy: Any, pair: Any, use: Any) -> None:
    x, values = pair
    got, expected = use(cupy, x), use(np, values)
    assert type(got) is cupy.ndarray
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.get(), expected)


def test_attributes_and_copies(pair: Any) -> None:
    x, values = pair
    for name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
        assert getattr(x, name) == getattr(values, name)
    assert x.base is None or x.base.shape == x.shape
    assert not hasattr(x.flags, "writeable")
    assert repr(x) == repr(values)
    for twin in (copy.copy(x), copy.deepcopy({"x": x})["x"], x.copy()):
        twin[...] = 0
    np.testing.assert_array_equal(x.get(), values)


def test_a_cuda_device_is_there(cupy: Any) -> None:
    assert cupy.cuda.is_available()
    assert cupy.cuda.runtime.getDeviceCount() == 1
    cupy.cuda.Stream.null.synchronize()


def test_views_know_the_array_that_holds_their_memory(cupy: Any) -> None:
    x = cupy.zeros((2, 3))
    assert x.base is None
    assert all(
        view.base is x for view in (x[1], x.T, x[0][1:], x.reshape(6), cupy.broadcast_to(x, (4, 2, 3)))
    )
    assert cupy.zeros(3)[1:].base.shape == (3,)  # alive as long as the view
    assert (x + 1).base is None


def test_offers_nothing_that_the_real_cupy_lacks() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed (no GPU is needed for this test)")
    names = [*standin.UFUNCS, *standin.PLAIN, *standin.SAME_AS_NUMPY, *standin.FUNCTIONS, *standin.FREE]
    assert [name for name in names if not hasattr(cupy, name)] == []
    assert [name for name in standin.METHODS if not hasattr(cupy.ndarray, name)] == []
    unknown = []
    for name, allowed in {**standin.FUNCTIONS, **standin.FREE}.items():
        parameters = inspect.signature(getattr(cupy, name)).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            unknown += [(name, key) for key in allowed.split() if key not in parameters]
    assert unknown == []
