"""The CUDA kernels without a GPU: run on the CPU, and through NVIDIA's compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import kernels
from tinyconvlstm.gradcheck import zoo
from tinyconvlstm.ops import Window, col2im, im2col
from tinyconvlstm.ops.gates import (
    LSTMState,
    gru_gates_backward,
    gru_gates_forward,
    lstm_gates_backward,
    lstm_gates_forward,
)
from tinyconvlstm.ops.windows import pad

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
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-variable", "-Wno-unused-parameter"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """name, dtype, sizes, small -> the kernel as a C++ library; one serves all sizes."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder, libraries = tmp_path_factory.mktemp("kernels"), {}

    def build(name: str, dtype: Any, sizes: kernels.Sizes, small: bool) -> ctypes.CDLL:
        key = f"{name}_{np.dtype(dtype).name}_{small}_{abs(hash(kernels.SOURCES[name]))}"
        if key not in libraries:
            variables = tuple((size, f"size_{size}") for size, _ in sizes)  # sizes that can still change
            named = [variable if small else f"{variable}LL" for _, variable in variables]  # as in the source
            declared = "".join(f'extern "C" {{ long long {variable}; }}\n' for variable in named)
            text = SHIM + declared + kernels.source(name, dtype, variables, small)
            (folder / f"{key}.cpp").write_text(text)
            command = [compiler, "-O1", *WARNINGS, "-shared", "-fPIC", f"{key}.cpp", "-o", f"{key}.so"]
            subprocess.run(command, cwd=folder, check=True)
            libraries[key] = ctypes.CDLL(str(folder / f"{key}.so"))
        for size, value in sizes:
            name = f"size_{size}" if small else f"size_{size}LL"
            ctypes.c_longlong.in_dll(libraries[key], name).value = value
        return libraries[key]

    return build


@pytest.fixture(params=[True, False], ids=["32-bit", "64-bit"])
def on_cpu(request, built, monkeypatch):
    """Kernels run as a loop over blocks and threads on the CPU, with positions of 32 and of 64 bits."""

    def compiled(name: str, dtype: str, sizes: kernels.Sizes, small: bool) -> Any:
        assert small is request.param
        library = built(name, dtype, sizes, small)

        def run(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            values = []
            for a in args:
                if isinstance(a, np.ndarray):
                    assert a.dtype == np.dtype(dtype)
                    values.append(ctypes.c_void_p(a.ctypes.data))
                else:
                    assert a.dtype == (np.uintp if a is not args[0] else np.int32 if small else np.int64)
                    values.append(ctypes.c_longlong(int(a)))
            for number in range(grid[0]):
                for thread in range(block[0]):
                    library.thread(*map(ctypes.c_longlong, (number, block[0], thread)))
                    library[name](*values)

        return run

    monkeypatch.setattr(kernels, "compiled", compiled)
    monkeypatch.setattr(kernels, "BLOCK", BLOCK)
    if not request.param:
        monkeypatch.setattr(kernels, "SMALL", 0)


def close(found, expected):
    tolerance = 2e-6 if found.dtype == np.float32 else 1e-13
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("peephole", [None, "channel", "map"])
@pytest.mark.parametrize("sizes", [(), (5,), (3, 4), (2, 3, 2)])
@pytest.mark.usefixtures("on_cpu")
def test_lstm_gates(rng, sizes, peephole, dtype):
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(), (5,), (3, 4), (2, 3, 2)])
@pytest.mark.usefixtures("on_cpu")
def test_gru_gates(rng, sizes, dtype):
    z_x, z_h = (rng.standard_normal((2, 9, *sizes)).astype(dtype) for _ in range(2))
    h_prev, dh = (rng.standard_normal((2, 3, *sizes)).astype(dtype) for _ in range(2))
    h, saved = gru_gates_forward(z_x, z_h, h_prev)
    found = kernels.gru_gates_forward(z_x, z_h, h_prev)
    for a, expected in zip(found, (saved.r, saved.u, saved.n, h), strict=True):
        close(a, expected)
    expected = gru_gates_backward(dh, saved)
    for z_hn in (saved.z_hn, saved.z_hn.copy(), np.asfortranarray(saved.z_hn)):  # read where it lies
        found = kernels.gru_gates_backward(dh, saved.r, saved.u, saved.n, z_hn, h_prev)
        for a, b in zip(found, expected, strict=True):
            close(a, b)


@pytest.mark.usefixtures("on_cpu")
def test_arrays_in_any_order_of_memory(rng):
    """Parts and transposes are copied before a kernel that reads rows, and nothing is launched for nothing."""
    z, c = rng.standard_normal((5, 3, 8)).transpose(1, 2, 0), rng.standard_normal((3, 4, 5))[:, ::2]
    state, saved = lstm_gates_forward(z, c)
    close(kernels.lstm_gates_forward(z, c, None)[3], state.h)
    dh = np.broadcast_to(rng.standard_normal((3, 1, 1)), c.shape)
    close(
        kernels.lstm_gates_backward(dh, dh, saved.gates, saved.tanh_c, c, None)[0],
        lstm_gates_backward(LSTMState(dh, dh), saved)[0],
    )
    assert kernels.gru_gates_forward(z[:0, :6], z[:0, :6], c[:0])[3].shape == (0, 2, 5)


GEOMETRIES = [
    ((7,), Window((3,), stride=2, padding=((1, 2),), dilation=2)),
    ((5, 6), Window((3, 2), stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2))),
    ((4, 5), Window((2, 3), padding="same")),
    ((4, 3, 5), Window((2, 2, 3), stride=(1, 2, 1), padding=1, dilation=(2, 2, 1))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("sizes", "window"), GEOMETRIES)
@pytest.mark.usefixtures("on_cpu")
def test_columns(rng, sizes, window, dtype):
    geometry = window.over(sizes)
    x = rng.standard_normal((2, 3, *sizes)).astype(dtype)
    cols = im2col(x, geometry)
    np.testing.assert_array_equal(kernels.im2col(pad(x, geometry.pads), geometry), cols)
    other = rng.standard_normal(cols.shape).astype(dtype)
    folded = np.zeros((2, 3, *sizes), dtype)
    kernels.add_columns(folded, other, geometry)
    kernels.add_columns(folded, other, geometry)  # it adds
    close(folded, 2 * col2im(other, geometry))


@pytest.mark.usefixtures("on_cpu")
def test_a_strip_of_a_larger_image(rng):
    """Both kernels read and write through strides, so a part of an image needs no copy."""
    geometry = Window((2, 2)).over((4, 5))._replace(out=(2, 4))
    image = rng.standard_normal((2, 3, 6, 5))
    part = image[:, :, 2:]
    expected = im2col(part[:, :, :3].copy(), Window((2, 2)).over((3, 5)))
    np.testing.assert_array_equal(kernels.im2col(part, geometry), expected)


def lstm_map(rng):
    test_lstm_gates(rng, (3, 4), "map", np.float64)


def lstm_channel(rng):
    test_lstm_gates(rng, (3, 4), "channel", np.float64)


def gru(rng):
    test_gru_gates(rng, (5,), np.float64)


def columns(rng):
    for sizes, window in GEOMETRIES:
        test_columns(rng, sizes, window, np.float64)


MISTAKES = [
    (lstm_map, "lstm_gates_forward", "zo += w[2 * Q + q] * now", "zo += w[2 * Q + q] * before"),
    (lstm_map, "lstm_gates_forward", "PEEP == 1 ? rest / P : rest", "rest / P"),
    (lstm_channel, "lstm_gates_forward", "PEEP == 1 ? rest / P : rest", "rest"),
    (lstm_channel, "lstm_gates_forward", "const real i = half * tanh(half * zi)", "const real i = half * tanh(zi)"),
    (lstm_map, "lstm_gates_backward", "dc += w[2 * Q + q] * dzo", "dc += w[2 * Q + q] * dh[index]"),
    (lstm_channel, "lstm_gates_backward", "w[q] * dzi + w[Q + q] * dzf", "w[Q + q] * dzi + w[q] * dzf"),
    (lstm_channel, "lstm_gates_backward", "dzg = dc * i * (one - g * g)", "dzg = dc * i * (g - g * g)"),
    (gru, "gru_gates_forward", "+ reset * z_h[at + 2 * F * P]", "+ z_h[at + 2 * F * P]"),
    (gru, "gru_gates_forward", "(one - update) * fresh + update *", "update * fresh + (one - update) *"),
    (gru, "gru_gates_backward", "dz_h[at + 2 * F * P] = dzn * reset", "dz_h[at + 2 * F * P] = dzn"),
    (gru, "gru_gates_backward", "* ZN + rest", "* (F * P) + rest"),
    (columns, "im2col", "k1 * D1", "k1"),
    (columns, "im2col", "p1 * S1", "p1"),
    (columns, "im2col", "rest % C * XC", "rest / C * XC"),
    (columns, "add_columns", "off1 % S1", "off1 % D1"),
    (columns, "add_columns", "at1 + B1", "at1"),
    (columns, "add_columns", "off2 / S2 >= O2", "off2 / S2 > O2"),
    (columns, "add_columns", "] += sum", "] = sum"),
]  # fmt: skip


@pytest.mark.parametrize("on_cpu", [True], indirect=True)
@pytest.mark.parametrize(("check", "name", "old", "new"), MISTAKES)
@pytest.mark.usefixtures("on_cpu")
def test_a_mistake_in_a_source_is_noticed(check, name, old, new, monkeypatch, rng):
    assert kernels.SOURCES[name].count(old) == 1
    monkeypatch.setitem(kernels.SOURCES, name, kernels.SOURCES[name].replace(old, new))
    with pytest.raises(AssertionError):
        check(rng)


WHOLE = [
    "conv/2d strided, dilated, grouped",
    "conv_transpose/2d",
    "cell/LSTM 0d",
    "cell/ConvLSTM 1d",
    "cell/ConvLSTM 2d peephole channel",
    "cell/ConvLSTM 2d peephole map, truncated k1=2 k2=3",
    "cell/ConvGRU 3d",
]


@pytest.mark.parametrize("on_cpu", [True], indirect=True)
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.usefixtures("on_cpu")
def test_whole_passes_take_the_kernels_and_give_the_same(name, monkeypatch, rng):
    """Everything around the calls, with the kernels in their places: outputs and gradients of the zoo's cases."""
    (case,) = (case for case in zoo(name) if case.name == name)
    plain, saved = case.forward(case.arrays)
    upstream = {key: rng.standard_normal(y.shape) for key, y in plain.items()}
    expected = plain | case.backward(upstream, saved)
    launched, launch = [], kernels.launch

    def counted(kernel, *rest):
        launched.append(kernel)
        launch(kernel, *rest)

    def usable(*arrays):
        return all(a is None or a.dtype == np.float64 for a in arrays)

    monkeypatch.setattr(kernels, "launch", counted)
    monkeypatch.setattr(kernels, "usable", usable)
    fast, saved = case.forward(case.arrays)
    found = fast | case.backward(upstream, saved)
    kind = "gru" if "GRU" in name else "lstm"
    wanted = {f"{kind}_gates_forward", f"{kind}_gates_backward"} if "cell" in name else set()
    wanted |= {"im2col"} if "0d" not in name else set()
    assert set(launched) >= wanted
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-12 * np.abs(value).max(), err_msg=key)


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


@pytest.fixture(scope="module")
def nvrtc():
    """NVIDIA's compiler, which needs no GPU and no driver: a wheel of the library, and CuPy's binding to it."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # no CuPy, no library, or another class of the library's loader
        pytest.skip(f"no NVRTC: {type(error).__name__}")
    return nvrtc


ALL_SIZES = {
    "GATES": 4, "F": 3, "P": 20, "PEEP": 1, "ZN": 180, "C": 3, "XN": 90, "XC": 30,
    **dict(zip(("K0", "K1", "K2", "S0", "S1", "S2", "D0", "D1", "D2"), (1, 3, 2, 1, 2, 1, 1, 1, 2), strict=True)),
    **dict(zip(("O0", "O1", "O2", "X0", "X1", "X2", "A0", "A1", "A2"), (1, 4, 5, 0, 6, 1, 1, 5, 6), strict=True)),
    "B0": 0, "B1": 1, "B2": -1,
}  # fmt: skip


LARGE_SIZES = ALL_SIZES | {"F": 64, "P": 1 << 25, "ZN": 3 * 64 << 25}  # F * P is 2^31


@pytest.mark.parametrize("name", list(kernels.SOURCES))
def test_no_product_of_large_sizes_overflows(name, tmp_path):
    """Sizes are numbers in the source, and a product of two of them is computed before it meets a position."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    (tmp_path / "kernel.cpp").write_text(
        SHIM + kernels.source(name, np.float32, tuple(LARGE_SIZES.items()), small=False)
    )
    command = [compiler, "-fsyntax-only", "-Werror=overflow", "kernel.cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("sizes", "small"),
    [(ALL_SIZES, True), (ALL_SIZES, False), (LARGE_SIZES, False)],
    ids=["32-bit", "64-bit", "large"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(kernels.SOURCES))
def test_nvidias_compiler_takes_the_source(nvrtc, name, dtype, sizes, small):
    text = kernels.source(name, dtype, tuple(sizes.items()), small)
    program = nvrtc.createProgram(text, f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=compute_80", "-std=c++17"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert nvrtc.getProgramLog(program).strip("\0 \n") == ""  # not a warning either
    ptx = nvrtc.getPTX(program)
    assert f".entry {name}" in (ptx.decode() if isinstance(ptx, bytes) else ptx)
    assert "atom" not in str(ptx)
    assert not any(division in str(ptx) for division in ("div.s", "div.u", "rem.s", "rem.u"))  # all known


def test_nvidias_compiler_refuses_a_mistake(nvrtc):
    text = kernels.source("im2col", np.float32, tuple((k, v) for k, v in ALL_SIZES.items() if k != "K1"))
    program = nvrtc.createProgram(text, "im2col.cu", (), ())
    with pytest.raises(nvrtc.NVRTCError):
        nvrtc.compileProgram(program, ("--gpu-architecture=compute_80",))
    assert '"K1" is undefined' in nvrtc.getProgramLog(program)
