"""How precisely a GPU multiplies: named options for the matrix products, and halves for storage.

    "float32"   every bit of both factors; the default
    "tf32"      float32 arrays, factors rounded to 10 bits of mantissa, products added in float32: tensor cores
    "float16"   arrays of half the size (`stored`), whose products CuPy adds in float32; or brought back
                to float32 to compute with (`loaded`)

CuPy decides in two places. Its products of two matrices look at a compute type a dtype, documented through
the environment's CUPY_TF32, one for the whole process; its batched products, which every convolution makes,
look at the math mode of the cuBLAS handle alone, of which every thread has its own on every device. `products`
sets both. On the CPU products are float32 as ever.

Source: CuPy 14, cupy/_core/_routines_linalg.pyx; NVIDIA, cuBLAS documentation, cublasMath_t.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .backend import Array, available, map_arrays

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
        ValueError: the name is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {PRECISIONS}")
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


def stored(tree: Any) -> Any:
    """The float32 arrays of a tree in float16: half the memory, about 3 digits, at most 65504."""
    return map_arrays(lambda a: a.astype(np.float16) if a.dtype == np.float32 else a, tree)


def loaded(tree: Any) -> Any:
    """The float16 arrays of a tree in float32, to compute with."""
    return map_arrays(lambda a: a.astype(np.float32) if a.dtype == np.float16 else a, tree)


def rounded_to_tf32(x: Array) -> Array:
    """float32 numbers as a TF32 product sees them: 10 bits of mantissa, to nearest, ties to even.

    For measuring on a CPU what the option costs.
    """
    bits = x.view(np.uint32)
    kept = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (kept & np.uint32(0xFFFFE000)).view(np.float32)
