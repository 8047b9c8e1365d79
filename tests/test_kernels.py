"""The CUDA kernels without a GPU: run on the CPU, and through NVIDIA's compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import kernels
from tinyconvlstm.ops import Window, col2im, im2col
from tinyconvlstm.ops.gates import LSTMState, lstm_gates_backward, lstm_gates_forward
from tinyconvlstm.ops.windows import pad, padded_sizes, spans

SHIM = """
#include <cmath>
using std::tanh;
struct place { long long x; };
static place blockIdx, threadIdx, blockDim;
#define __global__
extern "C" void thread(long long block, long long size, long long thread) {
    blockIdx.x = block; blockDim.x = size; threadIdx.x = thread;
}
"""
BLOCK = 7  # threads of a block here, so that the last block has threads to spare


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """name, dtype -> the kernel as a C++ library."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder, built = tmp_path_factory.mktemp("kernels"), {}

    def build(name: str, dtype: Any) -> ctypes.CDLL:
        key = f"{name}_{np.dtype(dtype).name}"
        if key not in built:
            (folder / f"{key}.cpp").write_text(SHIM + kernels.source(name, dtype))
            command = [
                compiler,
                "-O1",
                "-Wall",
                "-Werror",
                "-Wno-unused-variable",
                "-shared",
                "-fPIC",
                f"{key}.cpp",
            ]
            subprocess.run([*command, "-o", f"{key}.so"], cwd=folder, check=True)
            built[key] = ctypes.CDLL(str(folder / f"{key}.so"))
        return built[key]

    return build


@pytest.fixture
def on_cpu(library, monkeypatch):
    """`kernels.launch` as a loop over blocks and threads on the CPU."""

    def launch(name: str, dtype: Any, count: int, *args: Any) -> None:
        built = library(name, dtype)
        values = []
        for a in (count, *args):
            if isinstance(a, np.ndarray):
                assert a.dtype in (np.dtype(dtype), np.dtype(np.int64))
                values.append(ctypes.c_void_p(a.ctypes.data))
            else:
                values.append(ctypes.c_void_p(None) if a is None else ctypes.c_longlong(a))
        function = built[name]
        for block in range(-(-count // BLOCK)):
            for thread in range(BLOCK):
                built.thread(*map(ctypes.c_longlong, (block, BLOCK, thread)))
                function(*values)

    monkeypatch.setattr(kernels, "launch", launch)


def close(found, expected):
    tolerance = 2e-6 if found.dtype == np.float32 else 1e-13
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("peephole", [None, "channel", "map"])
@pytest.mark.parametrize("sizes", [(), (5,), (3, 4), (2, 3, 2)])
def test_gates(on_cpu, rng, sizes, peephole, dtype):
    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    z, c_prev, dh, dc = (
        normal(2, 12, *sizes),
        normal(2, 3, *sizes),
        normal(2, 3, *sizes),
        normal(2, 3, *sizes),
    )
    w_c = None if peephole is None else normal(3, 3, *(sizes if peephole == "map" else ()))
    state, saved = lstm_gates_forward(z, c_prev, w_c)
    for found, expected in zip(
        kernels.lstm_gates_forward(z, c_prev, w_c), (saved.gates, state.c, saved.tanh_c, state.h), strict=True
    ):
        close(found, expected)
    dz, dc_prev, _ = lstm_gates_backward(LSTMState(dh, dc), saved)
    found = kernels.lstm_gates_backward(dh, dc, saved.gates, saved.tanh_c, c_prev, w_c)
    close(found[0], dz)
    close(found[1], dc_prev)


GEOMETRIES = [
    ((7,), Window((3,), stride=2, padding=((1, 2),), dilation=2)),
    ((5, 6), Window((3, 2), stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2))),
    ((4, 5), Window((2, 3), padding="same")),
    ((4, 3, 5), Window((2, 1, 3), stride=(1, 2, 1), padding=1, dilation=(2, 1, 1))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("sizes", "window"), GEOMETRIES)
def test_columns(on_cpu, rng, sizes, window, dtype):
    geometry = window.over(sizes)
    x = rng.standard_normal((2, 3, *sizes)).astype(dtype)
    cols = im2col(x, geometry)
    np.testing.assert_array_equal(kernels.im2col(pad(x, geometry.pads), geometry), cols)
    other = rng.standard_normal(cols.shape).astype(dtype)
    padded = np.zeros((2, 3, *padded_sizes(geometry)), dtype)
    kernels.add_columns(padded, other, geometry, spans(geometry))
    kernels.add_columns(padded, other, geometry, spans(geometry))  # it adds
    inner = tuple(slice(b, n - a) for n, (b, a) in zip(padded.shape[2:], geometry.pads, strict=True))
    close(padded[(..., *inner)], 2 * col2im(other, geometry))


def test_a_strip_of_a_larger_image(on_cpu, rng):
    """Both kernels read and write through strides, so a part of an image needs no copy."""
    geometry = Window((2, 2)).over((4, 5))._replace(out=(2, 4))
    image = rng.standard_normal((2, 3, 6, 5))
    part = image[:, :, 2:]
    expected = im2col(part[:, :, :3].copy(), Window((2, 2)).over((3, 5)))
    np.testing.assert_array_equal(kernels.im2col(part, geometry), expected)


def test_nothing_but_real_numbers_on_a_gpu_is_usable(cupy_standin, monkeypatch):
    from tinyconvlstm import to_backend

    x = to_backend(np.ones(2), "cupy")
    assert not kernels.usable(np.ones(2))
    assert not kernels.usable(x)  # the stand-in has no kernels
    monkeypatch.setattr(cupy_standin, "RawKernel", object, raising=False)
    assert kernels.usable(x, None, x)
    assert not kernels.usable(to_backend(np.ones(2, complex), "cupy"))
    assert not kernels.usable(x, to_backend(np.ones(2, np.float32), "cupy"))
    monkeypatch.setenv("TINYCONVLSTM_KERNELS", "0")
    assert not kernels.usable(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(kernels.SOURCES))
def test_nvidias_compiler_takes_the_source(name, dtype):
    """NVRTC needs no GPU and no driver: a wheel of the library, and CuPy's binding to it."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed")
    try:
        program = nvrtc.createProgram(kernels.source(name, dtype), f"{name}.cu", (), ())
    except Exception as error:  # the binding's own class of error, or that of its loader
        pytest.skip(f"no NVRTC library: {type(error).__name__}")
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=compute_80",))
    except Exception:
        pytest.fail(nvrtc.getProgramLog(program))
    assert (
        f".entry {name}" in nvrtc.getPTX(program).decode()
        if isinstance(nvrtc.getPTX(program), bytes)
        else nvrtc.getPTX(program)
    )
