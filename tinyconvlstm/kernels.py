"""CUDA kernels for what the plain lines would do in many passes over a GPU's memory.

The plain lines beside each call are the definition; a kernel computes the same numbers in one pass.
Which lines have one is said in `SOURCES`, and nowhere else. Kernels take real CuPy arrays only: complex
numbers, NumPy and the environment's TINYCONVLSTM_KERNELS=0 fall back to the plain lines.

The sources are plain C in the body, one element of the result a thread, so that the tests can run them
on a CPU, compiled by a C++ compiler, and compare them with the plain lines.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from .backend import Array, array_module, backend_name

BLOCK = 256  # threads of a block
INDEX = """
    const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
"""
GATES = """
    const long long inner = F * P, n = index / inner, rest = index % inner;
    const long long at = n * 4 * inner + rest;  // of gate i; f, g and o follow at distances of inner
    const long long f_of = rest / P, q = Q == 1 ? f_of : rest;  // where the peephole's weight lies
"""
SOURCES = {
    # the gates from z, and the new cell and hidden state
    "lstm_gates_forward": """
extern "C" __global__ void lstm_gates_forward(const long long count, const long long F, const long long P,
        const long long Q, const real* z, const real* c_prev, const real* w, const long long peep,
        real* gates, real* c, real* tanh_c, real* h) {"""
    + INDEX
    + GATES
    + """
    const real before = c_prev[index], half = 0.5;
    real zi = z[at], zf = z[at + inner], zg = z[at + 2 * inner], zo = z[at + 3 * inner];
    if (peep) { zi += w[q] * before; zf += w[F * Q + q] * before; }
    const real i = half * tanh(half * zi) + half, f = half * tanh(half * zf) + half, g = tanh(zg);
    const real now = f * before + i * g;
    if (peep) zo += w[2 * F * Q + q] * now;
    const real o = half * tanh(half * zo) + half, t = tanh(now);
    gates[at] = i; gates[at + inner] = f; gates[at + 2 * inner] = g; gates[at + 3 * inner] = o;
    c[index] = now; tanh_c[index] = t; h[index] = o * t;
}
""",
    # dz of the four gates, and the gradient of the cell before
    "lstm_gates_backward": """
extern "C" __global__ void lstm_gates_backward(const long long count, const long long F, const long long P,
        const long long Q, const real* gates, const real* tanh_c, const real* c_prev, const real* dh,
        const real* dc_in, const real* w, const long long peep, real* dz, real* dc_prev) {"""
    + INDEX
    + GATES
    + """
    const real i = gates[at], f = gates[at + inner], g = gates[at + 2 * inner], o = gates[at + 3 * inner];
    const real t = tanh_c[index], one = 1;
    const real dzo = dh[index] * t * (o - o * o);
    real dc = dc_in[index] + dh[index] * (o * (one - t * t));
    if (peep) dc += w[2 * F * Q + q] * dzo;
    const real dzi = dc * g * (i - i * i), dzf = dc * c_prev[index] * (f - f * f), dzg = dc * i * (one - g * g);
    real before = dc * f;
    if (peep) before += w[q] * dzi + w[F * Q + q] * dzf;
    dz[at] = dzi; dz[at + inner] = dzf; dz[at + 2 * inner] = dzg; dz[at + 3 * inner] = dzo;
    dc_prev[index] = before;
}
""",
    # every window of a padded x as a column: geo holds, for each of three axes, kernel, stride, dilation,
    # out and the stride of x in numbers; then those of batch and channel
    "im2col": """
extern "C" __global__ void im2col(const long long count, const long long C, const long long* geo,
        const real* x, real* cols) {"""
    + INDEX
    + """
    long long rest = index, from = 0, tap[3];
    long long p[3];
    for (int axis = 2; axis >= 0; axis--) { p[axis] = rest % geo[5 * axis + 3]; rest /= geo[5 * axis + 3]; }
    for (int axis = 2; axis >= 0; axis--) { tap[axis] = rest % geo[5 * axis]; rest /= geo[5 * axis]; }
    for (int axis = 0; axis < 3; axis++)
        from += (p[axis] * geo[5 * axis + 1] + tap[axis] * geo[5 * axis + 2]) * geo[5 * axis + 4];
    cols[index] = x[(rest / C) * geo[15] + (rest % C) * geo[16] + from];
}
""",
    # onto every pixel of a padded x the sum of the columns that read it: each pixel by one thread, so that
    # the order of the sum is fixed; span holds the pixels of x on each axis
    "add_columns": """
extern "C" __global__ void add_columns(const long long count, const long long C, const long long* geo,
        const long long* span, const real* cols, real* x) {"""
    + INDEX
    + """
    long long rest = index, to = 0, pixel[3];
    for (int axis = 2; axis >= 0; axis--) {
        pixel[axis] = rest % span[axis]; rest /= span[axis];
        to += pixel[axis] * geo[5 * axis + 4];
    }
    const long long sample = rest / C, channel = rest % C;
    real sum = 0;
    for (long long number = 0; number < geo[0] * geo[5] * geo[10]; number++) {
        const long long tap[3] = {number / (geo[5] * geo[10]), number / geo[10] % geo[5], number % geo[10]};
        long long column = rest, k = 0, inside = 1;
        for (int axis = 0; axis < 3; axis++) k = k * geo[5 * axis] + tap[axis];
        column = column * geo[0] * geo[5] * geo[10] + k;
        for (int axis = 0; axis < 3; axis++) {
            const long long off = pixel[axis] - tap[axis] * geo[5 * axis + 2], s = geo[5 * axis + 1];
            if (off < 0 || off % s || off / s >= geo[5 * axis + 3]) inside = 0;
            column = column * geo[5 * axis + 3] + off / s;
        }
        if (inside) sum += cols[column];
    }
    x[sample * geo[15] + channel * geo[16] + to] += sum;
}
""",
}


def usable(*arrays: Array | None) -> bool:
    """Whether a kernel can take these arrays: real CuPy numbers of one dtype, kernels not switched off."""
    if backend_name(arrays[0]) != "cupy" or not hasattr(sys.modules["cupy"], "RawKernel"):
        return False
    kinds = {a.dtype.char for a in arrays if a is not None}
    return kinds in ({"f"}, {"d"}) and os.environ.get("TINYCONVLSTM_KERNELS") != "0"


def source(name: str, dtype: Any) -> str:
    """The complete source of a kernel for float32 or float64."""
    return f"#define real {'float' if np.dtype(dtype) == np.float32 else 'double'}\n{SOURCES[name]}"


@lru_cache(maxsize=32)
def compiled(name: str, dtype: str) -> Any:
    """The kernel, compiled at its first use."""
    return sys.modules["cupy"].RawKernel(source(name, dtype), name)


def launch(name: str, dtype: Any, count: int, *args: Any) -> None:
    """Run a kernel with `count` threads; whole numbers become 64-bit ones, None a null pointer."""
    values = [np.int64(a) if isinstance(a, int) else np.uintp(0) if a is None else a for a in (count, *args)]
    compiled(name, np.dtype(dtype).str)((-(-count // BLOCK),), (BLOCK,), tuple(values))


def lstm_gates_forward(z: Array, c_prev: Array, w_c: Array | None) -> tuple[Array, Array, Array, Array]:
    """gates (N, 4F, *S), c, tanh(c) and h (N, F, *S): see `ops.gates.lstm_gates_forward`."""
    xp = array_module(z)
    z, c_prev = xp.ascontiguousarray(z), xp.ascontiguousarray(c_prev)
    gates, c, tanh_c, h = (xp.empty(a.shape, dtype=z.dtype) for a in (z, c_prev, c_prev, c_prev))
    sizes = gate_sizes(c_prev, w_c)
    w = None if w_c is None else xp.ascontiguousarray(w_c)
    launch("lstm_gates_forward", z.dtype, *sizes, z, c_prev, w, int(w is not None), gates, c, tanh_c, h)
    return gates, c, tanh_c, h


def lstm_gates_backward(
    dh: Array, dc: Array, gates: Array, tanh_c: Array, c_prev: Array, w_c: Array | None
) -> tuple[Array, Array]:
    """dz (N, 4F, *S) and dc_prev (N, F, *S): see `ops.gates.lstm_gates_backward`."""
    xp = array_module(gates)
    dh, dc, c_prev = (xp.ascontiguousarray(a) for a in (dh, dc, c_prev))
    dz, dc_prev = xp.empty(gates.shape, dtype=gates.dtype), xp.empty(c_prev.shape, dtype=gates.dtype)
    sizes = gate_sizes(c_prev, w_c)
    w = None if w_c is None else xp.ascontiguousarray(w_c)
    launch(
        "lstm_gates_backward",
        gates.dtype,
        *sizes,
        gates,
        tanh_c,
        c_prev,
        dh,
        dc,
        w,
        int(w is not None),
        dz,
        dc_prev,
    )
    return dz, dc_prev


def gate_sizes(c: Array, w_c: Array | None) -> tuple[int, int, int, int]:
    """Threads, features, positions, and the positions of a peephole's weights (1 where one serves all)."""
    positions = c.size // max(1, c.shape[0] * c.shape[1])
    return c.size, c.shape[1], positions, 1 if w_c is None or w_c.ndim == 2 else positions


def im2col(padded: Array, geometry: Any) -> Array:
    """(N, C * prod(K), prod(S_out)) of a padded x (N, C, ...): see `ops.windows.im2col`."""
    xp = array_module(padded)
    n, c = padded.shape[:2]
    cols = xp.empty((n, c * geometry.taps, geometry.positions), dtype=padded.dtype)
    launch("im2col", padded.dtype, cols.size, c, described(padded, geometry), padded, cols)
    return cols


def add_columns(padded: Array, cols: Array, geometry: Any, spans: tuple[int, ...]) -> None:
    """Add columns to a padded x, in place: see `ops.windows.add_columns`."""
    xp, (n, c) = array_module(padded), padded.shape[:2]
    pixels = (1,) * (3 - len(spans)) + spans
    span = xp.asarray(np.array(pixels, dtype=np.int64))
    count = n * c * int(np.prod(pixels))
    geo = described(padded, geometry)
    launch("add_columns", padded.dtype, count, c, geo, span, xp.ascontiguousarray(cols), padded)


def described(x: Array, geometry: Any) -> Array:
    """The geometry and x's strides as the kernels read them; missing axes come first, with one tap and pixel."""
    missing = 3 - len(geometry.kernel)
    rows = [(1, 1, 1, 1, 0)] * missing
    strides = [s // x.dtype.itemsize for s in x.strides]
    rows += list(
        zip(geometry.kernel, geometry.stride, geometry.dilation, geometry.out, strides[2:], strict=True)
    )
    return array_module(x).asarray(np.array([*np.ravel(rows), *strides[:2]], dtype=np.int64))
