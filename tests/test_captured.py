"""Captured graphs: recorded once a shape, replayed on memory of their own; a plain call off the GPU."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ConvLSTMCell, kernels, scan, to_backend
from tinyconvlstm.backend import to_numpy
from tinyconvlstm.precision import products

from .test_precision import with_switches


def step(x, w):
    y = x @ w
    return {"y": y, "twice": (y + y, None)}


def test_off_the_gpu_a_captured_function_is_a_plain_call(backend, rng):
    if backend == "cupy" and kernels.graphs_exist():
        pytest.skip("this CuPy has graphs")
    x, w = (to_backend(rng.standard_normal((3, 3)), backend) for _ in range(2))
    found = kernels.captured(step)(x, w)
    np.testing.assert_array_equal(to_numpy(found["y"]), to_numpy(x @ w))
    assert kernels.captured(step).__name__ == "step"
    assert kernels.captured(lambda: 3)() == 3


class Recorder:
    """Stream, graph and pool of a pretended CUDA: replaying runs the function again on the recorded arrays."""

    def __init__(self) -> None:
        self.log, self.last = [], None

    def install(self, cuda: Any, monkeypatch: Any) -> None:
        recorder = self

        class Stream:
            def __init__(self, non_blocking: bool) -> None:
                assert non_blocking

            def __enter__(self) -> None:
                recorder.log.append("enter")

            def __exit__(self, *error: Any) -> None:
                recorder.log.append("exit")

            def synchronize(self) -> None:
                recorder.log.append("wait")

            def begin_capture(self) -> None:
                recorder.log.append("begin")

            def end_capture(self) -> Any:
                recorder.log.append("end")
                inputs, outputs = recorder.last

                def launch() -> None:
                    recorder.log.append("launch")
                    outputs["y"][...] = inputs[0] @ inputs[1]
                    outputs["twice"][0][...] = 2 * outputs["y"]

                return SimpleNamespace(launch=launch)

        @contextmanager
        def using_allocator(malloc: Any) -> Any:
            recorder.log.append("own memory")
            yield
            recorder.log.append("shared memory")  # not after an error, like any other line

        monkeypatch.setattr(cuda, "Stream", Stream)
        monkeypatch.setattr(cuda, "MemoryPool", lambda: SimpleNamespace(malloc=None), raising=False)
        monkeypatch.setattr(cuda, "using_allocator", using_allocator, raising=False)

    def step(self, *inputs: Any) -> Any:
        self.log.append("call")
        outputs = step(*inputs)
        self.last = inputs, outputs
        return outputs


def test_a_graph_is_recorded_once_a_shape_and_replayed(cupy_standin, monkeypatch, rng):
    recorder = Recorder()
    recorder.install(cupy_standin.cuda, monkeypatch)
    replayed = kernels.captured(recorder.step)
    results = []
    for n in (3, 3, 2, 3):
        x, w = (cupy_standin.asarray(rng.standard_normal((n, n))) for _ in range(2))
        results.append((replayed(x, w), x @ w))
        x[...] = 0  # the graph has its own inputs
    for found, y in results:  # and earlier results are not written over
        np.testing.assert_array_equal(found["y"].get(), y.get())
        np.testing.assert_array_equal(found["twice"][0].get(), 2 * y.get())
        assert found["twice"][1] is None
    once = ["own memory", "enter", "call", "wait", "begin", "call", "end", "exit", "shared memory", "launch"]
    assert recorder.log == [*once, "launch", *once, "launch"]


def test_another_device_precision_or_switch_records_again(cupy_standin, monkeypatch):
    recorder, device = Recorder(), [0]
    recorder.install(cupy_standin.cuda, monkeypatch)
    with_switches(cupy_standin, monkeypatch)
    current = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(cupy_standin.cuda, "Device", lambda: SimpleNamespace(id=device[0], **vars(current)))
    replayed, x = kernels.captured(recorder.step), cupy_standin.ones((2, 2))

    def recordings() -> int:
        replayed(x, x)
        return recorder.log.count("begin")

    assert [recordings(), recordings()] == [1, 1]
    with products("tf32"):
        assert [recordings(), recordings()] == [2, 2]
    with products("float32"):  # by name, which is another compute type than none
        assert [recordings(), recordings()] == [3, 3]
    monkeypatch.setenv("TINYCONVLSTM_KERNELS", "0")
    assert [recordings(), recordings()] == [4, 4]
    monkeypatch.delenv("TINYCONVLSTM_KERNELS")
    device[0] = 1
    assert [recordings(), recordings()] == [5, 5]
    device[0] = 0
    assert recordings() == 5


def test_the_graphs_used_last_are_kept(cupy_standin, monkeypatch):
    recorder = Recorder()
    recorder.install(cupy_standin.cuda, monkeypatch)
    monkeypatch.setattr(kernels, "GRAPHS", 2)
    replayed = kernels.captured(recorder.step)
    recorded = []
    for n in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, which was used before 1
        replayed(cupy_standin.ones((n, n)), cupy_standin.ones((n, n)))
        recorded.append(recorder.log.count("begin"))
    assert recorded == [1, 2, 2, 3, 3, 4]


def test_a_capture_that_fails_is_ended_and_says_why(cupy_standin, monkeypatch):
    recorder = Recorder()
    recorder.install(cupy_standin.cuda, monkeypatch)

    def broken(x):
        recorder.last = (x,), None
        if recorder.log[-1] == "begin":
            raise RuntimeError("a copy to the host")
        return x

    with pytest.raises(RuntimeError, match="a copy to the host"):
        kernels.captured(broken)(cupy_standin.zeros(2))
    assert recorder.log[-2:] == ["end", "exit"]


@pytest.mark.gpu
def test_a_captured_scan_gives_what_the_scan_gives(real_cupy, rng):
    cell = ConvLSTMCell(3, 4, (3, 3)).to_backend("cupy")
    replayed = kernels.captured(lambda xs: scan(cell, xs)[0])
    for n in (2, 2, 3, 2):
        xs = real_cupy.asarray(rng.standard_normal((6, n, 3, 8, 9)).astype(np.float32))
        np.testing.assert_allclose(to_numpy(replayed(xs)), to_numpy(scan(cell, xs)[0]), rtol=0, atol=1e-6)
