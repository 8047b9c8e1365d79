"""numpy-ml, given the path of a checkout: its LSTM layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy_ml.neural_nets.layers import LSTM

Results = dict[str, np.ndarray]


def version() -> str:
    return f"numpy-ml (a checkout), NumPy {np.__version__}"


def set_threads(threads: int) -> None:
    """NumPy's BLAS takes its number from the environment."""


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    """Gates apart, f, u (ours i), c (g), o, each on [h, x]; sequences (N, C, T). The gradient of x is always made."""
    if case.kind != "lstm" or not dx:
        return None
    a, F = arrays, case.sizes["F"]
    layer = LSTM(F)
    xs, dys = (np.ascontiguousarray(a[name].transpose(1, 2, 0)) for name in ("xs", "dys"))
    layer.forward(xs)  # it makes its parameters now
    rows = {name: slice(k * F, (k + 1) * F) for k, name in enumerate("ifgo")}
    for own, gate in {"f": "f", "u": "i", "c": "g", "o": "o"}.items():
        w = np.concatenate([a["w_h"][rows[gate]], a["w_x"][rows[gate]]], axis=1).T
        layer.cell.parameters[f"W{own}"][...] = w
        layer.cell.parameters[f"b{own}"][...] = a["b"][rows[gate]]

    def run() -> Results:
        layer.flush_gradients()
        y = layer.forward(xs)
        dxs = layer.backward(dys)
        return {"ys": y.transpose(2, 0, 1), "dxs": dxs.transpose(2, 0, 1)}

    return run
