"""A strict stand-in for CuPy on machines without a GPU: NumPy inside, CuPy's refusals outside.

`install(monkeypatch)` puts a module named `cupy` in `sys.modules`, so the package meets it the way
it meets the real one and needs no knowledge of it. It refuses what goes wrong only on a GPU:
an implicit copy to NumPy, one operation on arrays of both libraries, names and keywords that
CuPy 14 lacks. Reductions and single elements are 0-d arrays, `empty` is full of NaN. Where CuPy
lets something pass that hides a copy (`numpy.exp(cupy_array)`), the stand-in refuses it.

It checks the code path and not a GPU: the real kernels run in the tests marked `gpu`.
A name missing here that CuPy 14 has may be added to the tables below; `test_standin.py` compares
them with the real CuPy where that is installed (no GPU is needed for that).
"""

from __future__ import annotations

import copy
import operator
import sys
import types
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

NO_CONVERSION = (
    "Implicit conversion to a NumPy array is not allowed. "
    "Please use `.get()` to construct a NumPy array explicitly."
)


def words(text: str) -> list[str]:
    return text.split()


def unwrap(value: Any) -> Any:
    """What NumPy computes with: stand-ins opened, numbers as they are, NumPy arrays refused."""
    if isinstance(value, ndarray):
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(entry) for entry in value)
    return value


def wrap(result: Any) -> Any:
    """A result of NumPy as CuPy returns it: numbers become 0-d arrays."""
    if isinstance(result, (np.ndarray, np.generic, bool, int, float, complex)):
        new = object.__new__(ndarray)
        new._values = np.asarray(result)
        new._base = owner(new)
        return new
    if isinstance(result, (list, tuple)):
        return tuple(map(wrap, result)) if isinstance(result, tuple) else list(map(wrap, result))
    return result


# by id of the NumPy array that holds the memory
OWNERS: WeakValueDictionary[int, Any] = WeakValueDictionary()


def owner(new: Any) -> Any:
    """None for an array with memory of its own, else the array whose memory it shows: the same object every time."""
    held = new._values if new._values.base is None else new._values.base
    found = OWNERS.get(id(held))
    if not isinstance(held, np.ndarray) or held is new._values:
        if found is None or found._values is not held:
            OWNERS[id(held)] = new
        return None
    return found if found is not None and found._values is held else wrap(held)


def refuse_keywords(name: str, given: dict[str, Any], allowed: str) -> None:
    for key in given:
        if key not in allowed.split():
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")


class ndarray:  # noqa: N801 (CuPy's name)
    """A NumPy array that behaves as if it lay on a device."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_base", "_values")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # numpy.exp(x) is a TypeError; numpy scalars hand x over to __radd__ and so on

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._values = _empty(shape, dtype)
        self._base = owner(self)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(NO_CONVERSION)

    def __array_function__(self, function: Any, *rest: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with a cupy array. {NO_CONVERSION}")

    # --- what an array knows of itself ---
    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    itemsize = property(lambda self: self._values.itemsize)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: _Flags(self._values.flags))
    base = property(lambda self: self._base)
    data = property(lambda self: types.SimpleNamespace(ptr=self._values.ctypes.data))
    T = property(lambda self: wrap(self._values.T))
    real = property(lambda self: wrap(self._values.real))
    imag = property(lambda self: wrap(self._values.imag))

    # --- over to the CPU, said aloud ---
    def get(self) -> np.ndarray:
        return self._values.copy(order="C")

    def item(self, *args: int) -> Any:
        return self._values.item(*args)

    def tolist(self) -> Any:
        return self._values.tolist()

    def tobytes(self) -> bytes:
        return self._values.tobytes()

    def __float__(self) -> float:
        return float(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def __complex__(self) -> complex:
        return complex(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __format__(self, spec: str) -> str:
        return format(self._values, spec) if self.ndim else format(self._values[()], spec)

    def __repr__(self) -> str:
        return repr(self._values)

    # --- as a container: views share memory, one element is a 0-d view ---
    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        index = unwrap(index)
        found = self._values[index]
        if isinstance(found, np.generic):
            found = self._values[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return wrap(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise TypeError(f"Unsupported type {type(value)}")
        self._values[unwrap(index)] = unwrap(value)

    def __copy__(self) -> Any:
        return wrap(self._values.copy())

    def __deepcopy__(self, memo: Any) -> Any:
        return wrap(copy.deepcopy(self._values, memo))

    def scatter_add(self, index: Any, value: Any) -> None:
        np.add.at(self._values, unwrap(index), unwrap(value))


class _Flags:
    """The three flags CuPy has: there is no `writeable`."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = flags.owndata

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))


def _operand(x: Any) -> Any:
    if not isinstance(x, (ndarray, np.generic, bool, int, float, complex)):
        raise TypeError(f"Unsupported type {type(x)}")
    return unwrap(x)


def _binary(name: str) -> None:
    function = getattr(operator, f"__{name}__")
    if name not in COMPARISONS:
        setattr(ndarray, f"__r{name}__", lambda a, b: wrap(function(_operand(b), a._values)))
    setattr(ndarray, f"__{name}__", lambda a, b: wrap(function(a._values, _operand(b))))


def _unary(name: str) -> None:
    function = getattr(operator, f"__{name}__")
    setattr(ndarray, f"__{name}__", lambda a: wrap(function(a._values)))


def _in_place(name: str) -> None:
    function = getattr(operator, f"__i{name}__")

    def apply(a: ndarray, b: Any) -> ndarray:
        a._values = function(a._values, _operand(b))
        return a

    setattr(ndarray, f"__i{name}__", apply)


ARITHMETIC = words("add sub mul truediv floordiv mod pow and or xor lshift rshift")
COMPARISONS = words("lt le eq ne gt ge")

for _name in (*ARITHMETIC, *COMPARISONS, "matmul"):
    _binary(_name)
for _name in ARITHMETIC:  # CuPy has no `@=`
    _in_place(_name)
for _name in words("neg pos abs invert"):
    _unary(_name)

REDUCE = "axis dtype out keepdims"
ORDER = "axis out keepdims"

METHODS = {  # name -> keywords that CuPy 14 takes
    **dict.fromkeys(("sum", "mean", "prod", "argmax", "argmin"), REDUCE),
    **dict.fromkeys(("max", "min", "any", "all"), ORDER),
    **dict.fromkeys(("var", "std"), REDUCE + " ddof"),
    **dict.fromkeys(("cumsum", "cumprod"), "axis dtype out"),
    **dict.fromkeys(("conj", "conjugate", "nonzero", "fill", "view", "swapaxes", "transpose"), ""),
    **dict.fromkeys(("reshape", "copy", "ravel", "flatten"), "order"),
    **dict.fromkeys(("sort", "argsort"), "axis kind"),
    "astype": "dtype order casting copy",
    "squeeze": "axis",
    "take": "indices axis out",
    "repeat": "repeats axis",
    "clip": "min max out",
    "round": "decimals out",
    "diagonal": "offset axis1 axis2",
    "trace": "offset axis1 axis2 dtype out",
    "dot": "b out",
}


def _method(name: str, allowed: str) -> None:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        refuse_keywords(name, kwargs, allowed)
        return wrap(getattr(self._values, name)(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()}))

    setattr(ndarray, name, method)


for _name, _allowed in METHODS.items():
    _method(_name, _allowed)

UFUNCS = words(
    "exp exp2 expm1 log log1p log2 log10 sqrt cbrt square reciprocal sin cos tan tanh sinh cosh arctan "
    "arctan2 hypot add subtract multiply divide true_divide floor_divide remainder mod fmod power "
    "negative abs absolute sign floor ceil rint conj conjugate isfinite isnan isinf maximum minimum "
    "logical_and logical_or logical_not logical_xor equal not_equal less less_equal greater greater_equal "
    "heaviside"
)

FUNCTIONS = {  # name -> keywords; the first argument must be a stand-in (or a list of them)
    **dict.fromkeys(("sum", "mean", "prod", "argmax", "argmin", "nansum"), REDUCE),
    **dict.fromkeys(("max", "min", "amax", "amin", "any", "all", "nanmax"), ORDER),
    **dict.fromkeys(("var", "std"), REDUCE + " ddof"),
    **dict.fromkeys(("cumsum", "cumprod"), "axis dtype out"),
    **dict.fromkeys(("real", "imag", "iscomplex", "nonzero", "flatnonzero", "vdot", "inner", "kron"), ""),
    **dict.fromkeys(("concatenate", "concat", "stack"), "axis out dtype casting"),
    **dict.fromkeys(("vstack", "hstack"), "dtype casting"),
    **dict.fromkeys(("sort", "argsort"), "axis kind"),
    **dict.fromkeys(("split", "array_split"), "indices_or_sections axis"),
    **dict.fromkeys(("flip", "squeeze", "expand_dims", "count_nonzero"), "axis"),
    **dict.fromkeys(("diag", "tril", "triu"), "k"),
    **dict.fromkeys(("allclose", "isclose"), "rtol atol equal_nan"),
    **dict.fromkeys(("transpose", "permute_dims"), "axes"),
    **dict.fromkeys(("dot", "outer"), "out"),
    "matmul": "out dtype casting axes",
    "tensordot": "axes",
    "pad": "pad_width mode constant_values",
    "moveaxis": "source destination",
    "swapaxes": "axis1 axis2",
    "matrix_transpose": "",
    "take_along_axis": "indices axis",
    "put_along_axis": "indices values axis",
    "take": "indices axis out",
    "clip": "a_min a_max out",
    "round": "decimals out",
    "broadcast_to": "shape",
    "broadcast_arrays": "",
    "ascontiguousarray": "dtype",
    "copy": "order",
    "copyto": "casting",
    "reshape": "order",
    "ravel": "order",
    "repeat": "repeats axis",
    "tile": "reps",
    "roll": "shift axis",
    "rot90": "k axes",
    "trace": "offset axis1 axis2 dtype out",
    "diagonal": "offset axis1 axis2",
    "unique": "return_index return_inverse return_counts axis",
    "searchsorted": "side",
    "bincount": "weights minlength",
    "diff": "n axis",
    "array_equal": "equal_nan",
    "nan_to_num": "nan posinf neginf",
}

FREE = {  # name -> keywords; no rule for the first argument, beyond "no NumPy array"
    "where": "",
    "einsum": "optimize dtype",
    "zeros": "dtype order",
    "ones": "dtype order",
    "full": "fill_value dtype order",
    "arange": "dtype step",
    "linspace": "num endpoint retstep dtype axis",
    "eye": "M k dtype order",
    "identity": "dtype",
    "tri": "M k dtype",
    "indices": "dtype",
    "meshgrid": "indexing sparse",
    "atleast_1d": "",
    "atleast_2d": "",
    "ix_": "",
}

PLAIN = words(  # these return no array
    "result_type promote_types can_cast issubdtype iscomplexobj isrealobj isscalar ndim shape size finfo "
    "iinfo"
)

SAME_AS_NUMPY = words(
    "dtype float16 float32 float64 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
    "bool_ intp generic number inexact floating complexfloating integer newaxis pi e inf nan"
)


def _function(name: str, allowed: str, *, arrays_first: bool = False, plain: bool = False) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        refuse_keywords(name, kwargs, allowed)
        if arrays_first and args:
            for x in args[0] if isinstance(args[0], (list, tuple)) else args[:1]:
                if not isinstance(x, ndarray):
                    raise TypeError(f"Unsupported type {type(x)}")
        result = getattr(np, name)(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()})
        if kwargs.get("out") is not None:
            return kwargs["out"]
        return result if plain else wrap(result)

    function.__name__ = name
    function.allowed = allowed  # type: ignore[attr-defined]
    return function


def _ufunc(name: str) -> Any:
    inner = _function(name, "out dtype casting")

    def ufunc(*args: Any, **kwargs: Any) -> Any:
        for x in args:
            if isinstance(x, (list, tuple)):
                raise TypeError(f"Unsupported type {type(x)}")
        return inner(*args, **kwargs)

    ufunc.__name__, ufunc.allowed = name, inner.allowed  # type: ignore[attr-defined]
    if name in ("add", "subtract", "maximum", "minimum"):
        ufunc.at = lambda x, index, value: getattr(np, name).at(x._values, unwrap(index), unwrap(value))  # type: ignore[attr-defined]
    return ufunc


def _empty(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    """A device's memory is not zero: NaN, or the largest number, so that unwritten entries show."""
    dtype = np.dtype(dtype)
    junk = np.nan if dtype.kind in "fc" else True if dtype.kind == "b" else np.iinfo(dtype).max
    return np.full(shape, junk, dtype, order)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return wrap(_empty(shape, dtype, order))


def _like(make: Any) -> Any:
    def like(a: ndarray, *fill: Any, dtype: Any = None, shape: Any = None) -> ndarray:
        if not isinstance(a, ndarray):
            raise TypeError(f"Unsupported type {type(a)}")
        return make(a.shape if shape is None else shape, *fill, dtype=a.dtype if dtype is None else dtype)

    return like


def array(obj: Any, dtype: Any = None, copy: bool = True, ndmin: int = 0) -> ndarray:
    """From NumPy, lists, numbers or other stand-ins: the one way in, and it always copies from NumPy."""
    if isinstance(obj, ndarray) and not copy:
        return wrap(np.array(obj._values, dtype, copy=None, ndmin=ndmin))
    values = obj if isinstance(obj, np.ndarray) else unwrap(obj)
    values = np.array(values, dtype, ndmin=ndmin)
    if values.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    return wrap(values)


def asarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return array(a, dtype, copy=False)


def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*args: Any) -> Any:
    return sys.modules["cupy"] if any(isinstance(x, ndarray) for x in args) else np


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return wrap(np.lib.stride_tricks.as_strided(x._values, shape, strides))


def sliding_window_view(x: ndarray, window_shape: Any, axis: Any = None) -> ndarray:
    return wrap(np.lib.stride_tricks.sliding_window_view(x._values, window_shape, axis, writeable=True))


def _norm(x: ndarray, ord: Any = None, axis: Any = None, keepdims: bool = False) -> ndarray:
    return wrap(np.linalg.norm(unwrap(x), ord, axis, keepdims))


def _cuda() -> Any:
    stream = types.SimpleNamespace(synchronize=lambda: None)
    return types.SimpleNamespace(
        is_available=lambda: True,
        Stream=types.SimpleNamespace(null=stream),
        get_current_stream=lambda: stream,
        Device=lambda number=0: types.SimpleNamespace(id=number, synchronize=lambda: None),
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {"name": b"a stand-in, no GPU", "totalGlobalMem": 1 << 30},
            runtimeGetVersion=lambda: 13000,
            driverGetVersion=lambda: 13000,
        ),
    )


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"module 'cupy' has no attribute {name!r} (the stand-in in tests/standin.py; a name that "
            "CuPy 14 really has may be added there)"
        )


def module() -> types.ModuleType:
    """A fresh module to stand for `cupy`. `random` is absent on purpose: numbers are drawn by NumPy."""
    cupy = _Module("cupy")
    cupy.__version__ = "14.0.0+standin"  # type: ignore[attr-defined]
    for name in SAME_AS_NUMPY:
        setattr(cupy, name, getattr(np, name))
    for name in UFUNCS:
        setattr(cupy, name, _ufunc(name))
    for name, allowed in FUNCTIONS.items():
        setattr(cupy, name, _function(name, allowed, arrays_first=True))
    for name, allowed in FREE.items():
        setattr(cupy, name, _function(name, allowed))
    for name in PLAIN:
        setattr(cupy, name, _function(name, "casting", plain=True))
    own = (ndarray, empty, array, asarray, asnumpy, get_array_module)
    for thing in own:
        setattr(cupy, thing.__name__, thing)
    for name in ("zeros", "ones", "full"):
        setattr(cupy, f"{name}_like", _like(getattr(cupy, name)))
    cupy.empty_like = _like(empty)  # type: ignore[attr-defined]
    cupy.lib = types.SimpleNamespace(  # type: ignore[attr-defined]
        stride_tricks=types.SimpleNamespace(as_strided=as_strided, sliding_window_view=sliding_window_view)
    )
    cupy.linalg = types.SimpleNamespace(norm=_norm)  # type: ignore[attr-defined]
    cupy.cuda = _cuda()  # type: ignore[attr-defined]
    return cupy


def install(monkeypatch: Any) -> types.ModuleType:
    """Make `import cupy` find the stand-in until the test ends."""
    cupy = module()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy
