"""CUDA kernels for what the plain lines would do in many passes over a GPU's memory, and captured graphs.

The plain lines beside each call are the definition; a kernel computes the same numbers in one pass.
Which lines have one is said in `kernel_sources.py`, and nowhere else. Kernels take real CuPy arrays only:
complex numbers, NumPy and the environment's TINYCONVLSTM_KERNELS=0 fall back to the plain lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from math import prod
from typing import Any

import numpy as np

from .backend import Array, array_module, backend_name, map_arrays
from .kernel_sources import SOURCES
from .precision import switches

BLOCK = 256  # threads of a block
GRAPHS = 16  # that a captured function keeps
SMALL = (1 << 31) - BLOCK  # below it positions are 32-bit numbers, whose divisions are several times faster
Sizes = tuple[tuple[str, int], ...]  # the numbers that a source spells in capitals


def usable(*arrays: Array | None) -> bool:
    """Whether a kernel can take these arrays: real CuPy numbers of one dtype, kernels not switched off."""
    if type(arrays[0]) is np.ndarray:
        return False  # the common case, quickly
    if backend_name(arrays[0]) != "cupy" or not hasattr(sys.modules["cupy"], "RawKernel"):
        return False
    kinds = {a.dtype.char for a in arrays if a is not None}
    return kinds in ({"f"}, {"d"}) and switched_on()


def switched_on() -> bool:
    """Whether the environment lets kernels be used."""
    return os.environ.get("TINYCONVLSTM_KERNELS") != "0"


def source(name: str, dtype: Any, sizes: Sizes, small: bool = True) -> str:
    """The complete source of a kernel for float32 or float64; `small` where 32-bit positions do.

    Otherwise the sizes are 64-bit numbers too, or products of theirs would be computed in 32 bits.
    """
    numbers = {"real": "float" if np.dtype(dtype) == np.float32 else "double"}
    numbers |= {
        "whole": "int" if small else "long long",
        **{key: f"{n}" if small else f"{n}LL" for key, n in sizes},
    }
    return "".join(f"#define {key} {value}\n" for key, value in numbers.items()) + SOURCES[name]


@lru_cache(maxsize=256)
def compiled(name: str, dtype: str, sizes: Sizes, small: bool) -> Any:
    """The kernel for these sizes, compiled at its first use; CuPy keeps it on disk."""
    return sys.modules["cupy"].RawKernel(source(name, dtype, sizes, small), name)


def launch(name: str, sizes: dict[str, int], count: int, *arrays: Array | None) -> None:
    """Run a kernel with `count` threads on arrays, of which the last is written; None is a null pointer."""
    if not count:
        return
    last: Array = arrays[-1]
    small = max(count, *(reach(a) for a in arrays if a is not None)) < SMALL
    kernel = compiled(name, last.dtype.str, tuple(sizes.items()), small)
    values = [np.uintp(0) if a is None else a for a in arrays]
    threads = (np.int32 if small else np.int64)(count)
    kernel((-(-count // BLOCK),), (BLOCK,), (threads, *values))


def reach(x: Array) -> int:
    """Numbers from x's first to its last in memory."""
    last = sum((int(n) - 1) * int(step) for n, step in zip(x.shape, x.strides, strict=True))  # in bytes
    return 1 + last // int(x.dtype.itemsize)


def lstm_gates_forward(z: Array, c_prev: Array, w_c: Array | None) -> tuple[Array, Array, Array, Array]:
    """gates (N, 4F, *S), c, tanh(c) and h (N, F, *S): see `ops.gates.lstm_gates_forward`."""
    z, c_prev, w_c = contiguous(z, c_prev, w_c)
    gates, c, tanh_c, h = empty_like(z, c_prev, c_prev, c_prev)
    sizes = gate_sizes(c_prev, 4) | {"PEEP": 0 if w_c is None else 1 if w_c.ndim == 2 else 2}
    launch("lstm_gates_forward", sizes, c.size, z, c_prev, w_c, gates, c, tanh_c, h)
    return gates, c, tanh_c, h


def lstm_gates_backward(
    dh: Array, dc: Array, gates: Array, tanh_c: Array, c_prev: Array, w_c: Array | None
) -> tuple[Array, Array]:
    """dz (N, 4F, *S) and dc_prev (N, F, *S): see `ops.gates.lstm_gates_backward`."""
    arrays = contiguous(dh, dc, gates, tanh_c, c_prev, w_c)
    dz, dc_prev = empty_like(gates, c_prev)
    sizes = gate_sizes(c_prev, 4) | {"PEEP": 0 if w_c is None else 1 if w_c.ndim == 2 else 2}
    launch("lstm_gates_backward", sizes, dc_prev.size, *arrays, dz, dc_prev)
    return dz, dc_prev


def gru_gates_forward(z_x: Array, z_h: Array, h_prev: Array) -> tuple[Array, Array, Array, Array]:
    """r, u, n and h, each (N, F, *S): see `ops.gates.gru_gates_forward`."""
    z_x, z_h, h_prev = contiguous(z_x, z_h, h_prev)
    r, u, n, h = empty_like(h_prev, h_prev, h_prev, h_prev)
    launch("gru_gates_forward", gate_sizes(h_prev, 3), h.size, z_x, z_h, h_prev, r, u, n, h)
    return r, u, n, h


def gru_gates_backward(
    dh: Array, r: Array, u: Array, n: Array, z_hn: Array, h_prev: Array
) -> tuple[Array, Array, Array]:
    """dz_x, dz_h (N, 3F, *S) and dh_prev (N, F, *S): see `ops.gates.gru_gates_backward`."""
    dh, r, u, n, h_prev = contiguous(dh, r, u, n, h_prev)
    if z_hn.strides[1:] != r.strides[1:]:
        (z_hn,) = contiguous(z_hn)  # else it is a part of z_h and read from there
    N, F = r.shape[:2]
    dz = array_module(r).empty((2, N, 3 * F, *r.shape[2:]), dtype=r.dtype)
    (dh_prev,) = empty_like(r)
    sizes = gate_sizes(r, 3) | {"ZN": z_hn.strides[0] // r.dtype.itemsize}
    launch("gru_gates_backward", sizes, r.size, dh, r, u, n, z_hn, h_prev, dz[0], dz[1], dh_prev)
    return dz[0], dz[1], dh_prev


def im2col(padded: Array, geometry: Any) -> Array:
    """(N, C * prod(K), prod(S_out)) of a padded x (N, C, ...): see `ops.columns.im2col`."""
    n, c = padded.shape[:2]
    cols = array_module(padded).empty((n, c * geometry.taps, geometry.positions), dtype=padded.dtype)
    launch("im2col", column_sizes(padded, geometry), cols.size, padded, cols)
    return cols


def add_columns(x: Array, cols: Array, geometry: Any) -> None:
    """Add columns to x, in place: see `ops.columns.add_columns`."""
    absent, sizes = 3 - len(geometry.sizes), column_sizes(x, geometry)
    sizes |= {f"A{axis}": n for axis, n in enumerate((*(1,) * absent, *geometry.sizes))}
    sizes |= {
        f"B{axis}": n for axis, n in enumerate((*(0,) * absent, *(before for before, _ in geometry.pads)))
    }
    (cols,) = contiguous(cols)
    launch("add_columns", sizes, x.size, cols, x)


def gate_sizes(c: Array, gates: int) -> dict[str, int]:
    """The features and positions of a state (N, F, *S), as the kernels call them."""
    return {"GATES": gates, "F": c.shape[1], "P": prod(c.shape[2:])}


def column_sizes(x: Array, geometry: Any) -> dict[str, int]:
    """The geometry and the strides of x (N, C, ...) in numbers; missing axes come first."""
    strides = [s // x.dtype.itemsize for s in x.strides]
    fields = (geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strides[2:])
    sizes = {"C": x.shape[1], "XN": strides[0], "XC": strides[1]}
    for letter, values, absent in zip("KSDOX", fields, (1, 1, 1, 1, 0), strict=True):
        for axis, value in enumerate((*(absent,) * (3 - len(values)), *values)):
            sizes[f"{letter}{axis}"] = int(value)
    return sizes


def contiguous(*arrays: Array | None) -> tuple[Any, ...]:
    """The arrays in row-major order, copied where they are not."""
    return tuple(None if a is None else array_module(a).ascontiguousarray(a) for a in arrays)


def empty_like(*arrays: Array) -> tuple[Array, ...]:
    """Fresh row-major arrays of the same shapes and dtypes."""
    return tuple(array_module(a).empty(a.shape, dtype=a.dtype) for a in arrays)


def captured(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays whose GPU work is recorded once for their shapes, then replayed as one launch.

        step = captured(lambda x, h, c: ...)

    A time loop of small frames launches hundreds of short kernels, and launching is what takes the time. The
    recorded graph works on fixed memory of its own: arguments are copied in, results copied out. The
    function must be free of side effects and of copies between GPU and host. Off the GPU it is a plain call.

    Another device, precision (`precision.products`) or TINYCONVLSTM_KERNELS records again, as another shape does.
    The last GRAPHS graphs are kept, each with all the memory of a call.

    Args:
        function: CuPy arrays of one dtype or several, by position -> an array or a tree of arrays.
    Returns:
        A function with the same arguments and results.
    """
    # by all that decides what is recorded: graph, inputs, outputs, and their memory; the one used last comes last
    kept: dict[Any, tuple[Any, ...]] = {}

    @wraps(function)
    def replayed(*arrays: Array) -> Any:
        if not arrays or backend_name(arrays[0]) != "cupy" or not graphs_exist():
            return function(*arrays)
        device = sys.modules["cupy"].cuda.Device()
        key = (device.id, switches(), switched_on(), *((a.shape, a.dtype.str) for a in arrays))
        if key not in kept and len(kept) >= GRAPHS:
            device.synchronize()  # the graph may still be running
            kept.pop(next(iter(kept)))
        kept[key] = kept.pop(key) if key in kept else record(function, arrays)
        graph, inputs, outputs, _ = kept[key]
        for own, given in zip(inputs, arrays, strict=True):
            own[...] = given
        graph.launch()
        return map_arrays(lambda a: a.copy(), outputs)

    return replayed


def graphs_exist() -> bool:
    """Whether this CuPy can capture a stream."""
    return hasattr(getattr(sys.modules["cupy"].cuda, "Stream", None), "begin_capture")


def record(function: Callable[..., Any], arrays: tuple[Array, ...]) -> tuple[Any, ...]:
    """The graph of a call, the arrays it reads and writes, and the pool that keeps all memory in between."""
    cuda = sys.modules["cupy"].cuda
    stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
    inputs = tuple(a.copy() for a in arrays)
    cuda.get_current_stream().synchronize()  # the copies are there before another stream reads them
    with cuda.using_allocator(pool.malloc), stream:
        function(
            *inputs
        )  # compiles kernels, opens libraries and fills the pool, none of which can be recorded
        stream.synchronize()
        stream.begin_capture()
        try:
            outputs = function(*inputs)
        finally:
            graph = stream.end_capture()
    return graph, inputs, outputs, pool
