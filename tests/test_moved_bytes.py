"""How many numbers the gates move through memory, line by line and in one kernel: counted, as docs/gpu.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import kernels
from tinyconvlstm.ops.gates import (
    LSTMState,
    gru_gates_backward,
    gru_gates_forward,
    lstm_gates_backward,
    lstm_gates_forward,
)

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"


class Counted(np.ndarray):
    """An array that counts the numbers that every operation on it reads and writes, and the operations."""

    moved = passes = 0

    @classmethod
    def count(cls, *arrays: Any) -> None:
        Counted.moved += sum(a.size for a in arrays if isinstance(a, np.ndarray))
        Counted.passes += 1

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
        if out:
            settings["out"] = tuple(plain(o) for o in out)
        result = getattr(ufunc, method)(*map(plain, inputs), **settings)
        self.count(*inputs, result)
        return out[0] if out else counted(result)

    def __array_function__(self, function: Any, types: Any, args: Any, settings: Any) -> Any:
        if function is not np.concatenate:  # dtypes and the like move nothing
            return super().__array_function__(function, types, args, settings)
        result = function([plain(a) for a in args[0]], **settings)
        self.count(*args[0], result)
        return counted(result)

    def astype(self, *args: Any, **settings: Any) -> Any:
        self.count(self, self)
        return counted(plain(self).astype(*args, **settings))


def plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, np.ndarray) else a


def counted(a: Any) -> Any:
    return np.asarray(a).view(Counted)


def lstm_forward(rng, n):
    z, c_prev = normal(rng, n, 4), normal(rng, n, 1)
    return lambda: lstm_gates_forward(z, c_prev, in_place=True)  # as a scan does


def lstm_backward(rng, n):
    _, saved = lstm_gates_forward(normal(rng, n, 4), normal(rng, n, 1))
    return lambda: lstm_gates_backward(LSTMState(normal(rng, n, 1), normal(rng, n, 1)), saved)


def gru_forward(rng, n):
    return lambda: gru_gates_forward(normal(rng, n, 3), normal(rng, n, 3), normal(rng, n, 1))


def gru_backward(rng, n):
    _, saved = gru_gates_forward(normal(rng, n, 3), normal(rng, n, 3), normal(rng, n, 1))
    return lambda: gru_gates_backward(normal(rng, n, 1), saved)


def normal(rng, n, gates):
    return counted(rng.standard_normal((2, gates * 3, n)))


ROWS = {
    "lstm_gates_forward": lstm_forward,
    "lstm_gates_backward": lstm_backward,
    "gru_gates_forward": gru_forward,
    "gru_gates_backward": gru_backward,
}


def of_the_kernel(name, monkeypatch, rng, n):
    """Numbers in the arrays that the kernel is launched with: each is read or written once."""
    seen = []

    def launch(kernel, sizes, count, *arrays):
        assert kernel == name
        seen.append(sum(a.size for a in arrays if a is not None) / count)

    call = ROWS[name](rng, n)
    monkeypatch.setattr(kernels, "launch", launch)
    monkeypatch.setattr(kernels, "usable", lambda *arrays: True)
    call()
    return seen


@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_the_page_is_what_is_counted(name, monkeypatch, rng):
    n = 5
    monkeypatch.setattr(np, "asarray", np.asanyarray)  # it would take the counter off
    call = ROWS[name](rng, n)
    Counted.moved = Counted.passes = 0
    call()
    moved, passes = Counted.moved / (2 * 3 * n), Counted.passes
    (fused,) = of_the_kernel(name, monkeypatch, rng, n)
    assert moved > 2 * fused
    row = f"| `{name}` | {passes} | {moved:g} | {4 * moved:g} | {fused:g} | {4 * fused:g} | {moved / fused:.1f} |"
    assert row in PAGE.read_text(encoding="utf-8"), row
