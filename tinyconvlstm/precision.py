"""How precisely a GPU multiplies: named options for the matrix products, and halves for storage.

    products("float32")   every bit of both factors; the default
    products("tf32")      float32 arrays, factors rounded to 10 bits of mantissa, sums in float32: tensor cores
    stored, loaded        float32 arrays kept in float16, half the size, and brought back to compute with

`products` knows no "float16": it is for storage. Products of arrays that are float16 CuPy adds in float32.

CuPy decides in two places. Its products of two matrices look at a compute type a dtype, documented through
the environment's CUPY_TF32, one for the whole process; its batched products, which every convolution makes,
look at the math mode of the cuBLAS handle alone, of which every thread has its own on every device. `products`
sets both. On the CPU products are float32 as ever.

Source: CuPy 14, cupy/_core/_routines_linalg.pyx; NVIDIA, cuBLAS documentation, cublasMath_t.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np

from .backend import Array, array_module, available, backend_name, map_arrays

PRECISIONS = ("float32", "tf32")
MATH_MODES = {"float32": 0, "tf32": 3}  # CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Compute CuPy's float32 matrix products as "float32" or "tf32" inside the block.

        with products("tf32"):
            ys, state, tape = scan(cell, xs)

    For one thread at a time: of the two switches, CuPy keeps the compute type for all threads together. Blocks
    may be nested; two threads whose blocks overlap change each other's products of two matrices, and the last to
    leave puts back what the other had set.

    Raises:
        ValueError: the name is unknown, or that of float16, which is for storage.
    """
    if precision not in PRECISIONS:
        storage = "; float16 is for storage, see stored() and loaded()" if precision == "float16" else ""
        raise ValueError(f"precision is {precision!r}, expected one of {PRECISIONS}{storage}")
    before = switches()
    if before is None:
        yield
        return
    types, cublas = sys.modules["cupy"]._core._routines_linalg, sys.modules["cupy"].cuda.cublas
    handle = sys.modules["cupy"].cuda.device.get_cublas_handle()  # of this device and thread
    wanted = {"float32": types.COMPUTE_TYPE_FP32, "tf32": types.COMPUTE_TYPE_TF32}[precision]
    try:
        types.set_compute_type(np.float32, wanted)
        cublas.setMathMode(handle, MATH_MODES[precision])
        yield
    finally:
        types.set_compute_type(np.float32, before[0])
        cublas.setMathMode(handle, before[1])


def switches() -> tuple[int, int] | None:
    """CuPy's compute type of float32, and the math mode of cuBLAS on this device; None where there is no GPU."""
    if "cupy" not in sys.modules or "cupy" not in available() or not hasattr(sys.modules["cupy"], "_core"):
        return None
    types, cuda = sys.modules["cupy"]._core._routines_linalg, sys.modules["cupy"].cuda
    return types.get_compute_type(np.float32), cuda.cublas.getMathMode(cuda.device.get_cublas_handle())


def stored(tree: Any, keep: Any = ()) -> Any:
    """The float32 arrays of a tree in float16: half the memory, about 3 digits, at most 65504.

    Arrays of the tree that show the same memory, such as the gates of a step and the block in which they
    lie, show the same half of it afterwards.

    Args:
        tree: a tape, checkpoints, or any tree of arrays.
        keep: arrays, or a tree of them, that stay as they are: a tape refers to its cell's params.
    """
    return converted(tree, np.float32, np.float16, keep)


def loaded(tree: Any) -> Any:
    """The float16 arrays of a tree in float32, to compute with; what shares memory goes on sharing it."""
    return converted(tree, np.float16, np.float32)


def converted(tree: Any, old: Any, new: Any, keep: Any = ()) -> Any:
    """The arrays of a tree that have dtype `old` in dtype `new`, every piece of memory once."""
    kept = {id(a) for a in arrays_of(keep)}
    found = [a for a in arrays_of(tree) if a.dtype == old and id(a) not in kept]
    wholes = without_parts([owner(a) for a in found])
    shown: dict[int, dict[Any, int]] = {}  # of each whole: the different parts that the tree shows, in bytes
    for a in found:
        shown.setdefault(id(whole_of(a, wholes)), {})[address(a), a.shape, a.strides] = a.nbytes
    blocks: dict[int, Array] = {}

    def convert(a: Array) -> Array:
        if a.dtype != old or id(a) in kept:
            return a
        whole = whole_of(a, wholes)
        if sum(shown[id(whole)].values()) < whole.nbytes:  # a few clips of a large set, say: not all of it
            whole = a
        if id(whole) not in blocks:
            blocks[id(whole)] = whole.astype(new)
        return blocks[id(whole)] if whole is a else part_of(blocks[id(whole)], a, whole)

    return map_arrays(convert, tree)


def arrays_of(tree: Any) -> list[Array]:
    """The arrays of a tree, in order."""
    found: list[Array] = []
    map_arrays(found.append, tree)
    return found


def owner(a: Array) -> Array:
    """The array that holds the memory of `a`, if it is of a's kind; else `a` itself."""
    return a.base if type(a.base) is type(a) and a.base.dtype == a.dtype else a


def without_parts(arrays: list[Array]) -> list[tuple[int, Array]]:
    """(address, array) of those without gaps that lie in no other one, in order of address."""
    gapless = [a for a in arrays if a.size and (a.flags.c_contiguous or a.flags.f_contiguous)]
    wholes, end = [], 0
    for begin, _, a in sorted(((address(a), -a.nbytes, a) for a in gapless), key=itemgetter(0, 1)):
        if begin + a.nbytes > end:
            wholes.append((begin, a))
            end = begin + a.nbytes
    return wholes


def whole_of(a: Array, wholes: list[tuple[int, Array]]) -> Array:
    """The one of `without_parts` in which `a` lies, or `a` itself."""
    steps = [(n - 1) * step for n, step in zip(a.shape, a.strides, strict=True)]
    begin = address(a) + sum(step for step in steps if step < 0)
    last = address(a) + sum(step for step in steps if step > 0)  # where the last number begins
    k = bisect_right(wholes, begin, key=itemgetter(0)) - 1
    if not a.size or k < 0 or last >= wholes[k][0] + wholes[k][1].nbytes:
        return a
    return wholes[k][1]


def part_of(block: Array, a: Array, whole: Array) -> Array:
    """What `a` shows of `whole`, shown of `block`, which has whole's shape and order and another dtype."""
    places = (address(a) - address(whole)) // a.dtype.itemsize
    strides = [step // a.dtype.itemsize * block.dtype.itemsize for step in a.strides]
    flat = (block if block.flags.c_contiguous else block.T).reshape(-1)
    if backend_name(a) == "numpy":  # whose as_strided would hide that parts have one base
        return np.ndarray(a.shape, block.dtype, flat, places * block.dtype.itemsize, strides)
    return array_module(a).lib.stride_tricks.as_strided(flat[places:], a.shape, strides)


def address(a: Array) -> int:
    """Where an array's first number lies in memory."""
    return int(a.ctypes.data if backend_name(a) == "numpy" else a.data.ptr)


def rounded_to_tf32(x: Array) -> Array:
    """float32 numbers as a TF32 product sees them: 10 bits of mantissa, to nearest, ties to even.

    For measuring on a CPU what the option costs.
    """
    bits = x.view(np.uint32)
    kept = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (kept & np.uint32(0xFFFFE000)).view(np.float32)
