"""The GPU benchmark runs, here with both sides on the CPU, and refuses results that differ."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from .benchmarks import gpu

TINY = ["S", "--batch", "2", "--pairs", "2", "--seconds", "1e-9", "--backend", "numpy", "--device", "cpu"]


def test_a_row_of_each_precision_with_both_sides_on_the_cpu(monkeypatch, capsys):
    torch_peer = pytest.importorskip("tests.benchmarks.torch_peer", reason="PyTorch is not installed")
    monkeypatch.setattr(torch_peer, "numpy", torch_peer.numpy)  # the benchmark changes it
    rows = gpu.main([*TINY, "--captured", "--cpu"])
    assert [row.split(" | ")[:3] for row in rows] == [["| S", "2", "float32"], ["| S", "2", "tf32"]]
    assert all("captured" in row and "CPU" in row for row in rows)
    assert capsys.readouterr().out.startswith(gpu.HEAD)


def test_results_that_differ_stop_it():
    one = {"ys": np.ones(3, np.float32)}
    gpu.check_alike(one, {"ys": np.full(3, 1.0001, np.float32)}, 2e-4)
    for other in (1.1, np.nan):
        with pytest.raises(SystemExit, match="ys differs by"):
            gpu.check_alike(one, {"ys": np.full(3, other, np.float32)}, 2e-4)


def test_what_is_no_convlstm_is_refused(capsys: Any):
    with pytest.raises(SystemExit):
        gpu.main(["conv1d"])
    assert "unknown cases ['conv1d']" in capsys.readouterr().err


def test_without_cupy_a_line_says_how_to_get_it(monkeypatch: Any, capsys: Any):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit):
        gpu.main(["S"])
    said = capsys.readouterr()
    assert not said.out
    assert "error: backend 'cupy' needs CuPy: pip install 'tinyconvlstm[cuda12x]'" in said.err
