"""Where an array lives decides where code runs: NumPy on the CPU, CuPy on an NVIDIA GPU.

There is no global mode. A function that creates arrays begins with `xp = array_module(x)` and
then writes `xp.empty(...)`; everything else is an operator or a method, which both libraries spell
alike. So a result on the CPU and one on the GPU can be compared in one notebook cell.

This file imports CuPy, and only when a CuPy array is asked for; beside it only `kernels.py` and
`precision.py`, which are about nothing else, know the name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray: duck-typed on purpose
Module: TypeAlias = Any  # the module numpy or the module cupy

BACKENDS = ("numpy", "cupy")
ON_CPU = {np.ndarray, type(None)}


class BackendError(TypeError):
    """Arrays of two backends met in one call, or a backend is not installed or has no device."""


def backend_name(x: Array) -> str | None:
    """ "numpy" or "cupy" for an array of either; None for anything else (a number, None, a list)."""
    if isinstance(x, (np.ndarray, np.generic)):
        return "numpy"
    return "cupy" if type(x).__module__.partition(".")[0] == "cupy" else None


def array_module(*arrays: Array, **named: Array) -> Module:
    """The module (`numpy` or `cupy`) whose functions work on the given arrays.

    Args:
        arrays, named: arrays of one backend; numbers and None are passed over. Give names,
            `array_module(x=x, w=w)`, where an error should speak of `x` and `w`.
    Returns:
        The module. NumPy when no argument is an array.
    Raises:
        BackendError: the arrays are of both backends; the message names one of each.
    """
    if set(map(type, (*arrays, *named.values()))) <= ON_CPU:
        return np  # the common case, quickly
    found: dict[str, str] = {}  # backend -> the first argument of that backend, in words
    for name, x in [*((f"argument {i}", a) for i, a in enumerate(arrays)), *named.items()]:
        backend = backend_name(x)
        if backend is not None and backend not in found:
            found[backend] = f"{name} is a {backend} array of shape {tuple(x.shape)}"
    if len(found) > 1:
        raise BackendError(
            f"arrays of two backends are mixed: {' and '.join(found.values())}; "
            'move one of them with to_backend(x, "numpy") or to_backend(x, "cupy")'
        )
    return sys.modules["cupy"] if "cupy" in found else np


def check_dtypes(**named: Array) -> None:
    """TypeError when floating dtypes differ, because mixing them would silently widen the result.

    complex128 goes with anything: it is how the complex-step derivative runs. None is passed over.
    """
    kinds = {name: x.dtype for name, x in named.items() if x is not None and x.dtype.kind != "c"}
    if len(set(kinds.values())) > 1:
        found = " and ".join(f"{name} is {dtype}" for name, dtype in kinds.items())
        raise TypeError(f"dtypes differ: {found}; convert one side with .astype(...)")


def available() -> tuple[str, ...]:
    """The backends usable on this machine: always "numpy"; "cupy" with CuPy and a CUDA device."""
    try:
        import cupy
    except ImportError:
        return ("numpy",)
    return BACKENDS if cupy.cuda.is_available() else ("numpy",)


def module_of(backend: str) -> Module:
    """The module of a backend by name, or a BackendError saying how to get it."""
    if backend == "numpy":
        return np
    if backend != "cupy":
        raise BackendError(f"backend is {backend!r}, expected one of {BACKENDS}")
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            "backend 'cupy' needs CuPy: pip install 'tinyconvlstm[cuda12x]' or 'tinyconvlstm[cuda13x]'"
        ) from error
    if not cupy.cuda.is_available():
        raise BackendError("backend 'cupy': CuPy is installed, but it finds no CUDA device or driver")
    return cupy


def synchronise(x: Array) -> None:
    """Wait until the GPU has finished an array, before others read its memory; nothing on the CPU."""
    if backend_name(x) == "cupy":
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def use_device(rank: int) -> None:
    """Work on GPU number rank modulo their number, so that ranks of one machine share its GPUs out."""
    cuda = module_of("cupy").cuda
    cuda.Device(rank % cuda.runtime.getDeviceCount()).use()


def to_backend(tree: Any, backend: str) -> Any:
    """Copy every array of a tree to a backend; what is there already is returned as it is.

    Args:
        tree: an array, or dicts, lists, tuples and NamedTuples of arrays, nested as they come.
            Anything else in it (a number, None, a string) passes through.
        backend: "numpy" or "cupy".
    Returns:
        The same tree with its arrays on that backend.
    """
    xp = module_of(backend)
    return map_arrays(lambda x: _move(x, xp, backend), tree)


class Upload:
    """`to_backend` from another thread that neither side waits for.

        upload = Upload("cupy")                       in the thread that computes
        after = upload.mark()                         there too, when all work on older arrays is under way
        arrays, ready = upload(tree, after)           in the thread that prepares
        ready()                                       in the thread that computes, before it uses the arrays

    For CuPy the copies go through page-locked memory on one stream of their own, to the device that is in
    use where the object is made. Memory of arrays that were dropped is written only after the work that was
    marked, which may still read it; and the current stream, not the program, waits for the copies.

    Args:
        backend: "numpy" or "cupy".
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        cuda: Any = getattr(module_of(backend), "cuda", None)
        self.cuda = cuda if callable(getattr(cuda, "Stream", None)) else None  # None: NumPy
        if self.cuda:
            self.device, self.stream = cuda.Device(), cuda.Stream(non_blocking=True)

    def mark(self) -> Any:
        """All work that this thread has started so far."""
        return self.cuda.get_current_stream().record() if self.cuda else None

    def __call__(self, tree: Any, after: Any = None) -> tuple[Any, Callable[[], None]]:
        """The arrays, and what to call before they are used."""
        if not self.cuda:
            return to_backend(tree, self.backend), lambda: None
        with self.device, self.stream:
            if after is not None:
                self.stream.wait_event(after)
            arrays = to_backend(tree, self.backend)
            done = self.stream.record()
        return arrays, lambda: self.cuda.get_current_stream().wait_event(done)


def to_numpy(x: Any) -> Any:
    """The array (or tree of arrays) as NumPy: the CPU's copy of it."""
    return to_backend(x, "numpy")


def map_arrays(function: Any, tree: Any, *others: Any) -> Any:
    """Apply `function` to every array of a nested tree of dicts, lists, tuples and NamedTuples.

    With several trees of one structure, `function` gets the arrays of the same place together.
    """
    if isinstance(tree, dict):
        return {key: map_arrays(function, value, *(o[key] for o in others)) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        mapped = [map_arrays(function, *values) for values in zip(tree, *others, strict=True)]
        return type(tree)(*mapped) if hasattr(tree, "_fields") else type(tree)(mapped)
    return tree if backend_name(tree) is None else function(tree, *others)


def _move(x: Array, xp: Module, backend: str) -> Array:
    if backend_name(x) == backend:
        return x
    return sys.modules["cupy"].asnumpy(x) if backend == "numpy" else xp.asarray(x)
