"""numpy-ml, given the path of a checkout: an LSTM of its cell.

Its layer `LSTM` cannot run: it gives its cell an argument that the cell does not know, and takes two results where
the cell returns one. So the loop over time is here. The cell would begin in float64 and stay there: it is given weights
and a state at rest in float32.
"""

from __future__ import annotations

import collections
import collections.abc
from collections.abc import Callable
from typing import Any

import numpy as np

collections.Hashable = collections.abc.Hashable  # type: ignore[attr-defined] (it imports this; gone since Python 3.10)

from numpy_ml.neural_nets.layers import LSTMCell  # noqa: E402

Results = dict[str, np.ndarray]
GATES = {"u": "i", "f": "f", "c": "g", "o": "o"}  # its name: ours, in our order


def version() -> str:
    return f"numpy-ml (a checkout), NumPy {np.__version__}"


def set_threads(threads: int) -> None:
    """NumPy's BLAS takes its number from the environment."""


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    """Gates apart, each on [h, x]. The gradient of x is always made."""
    if case.kind != "lstm" or not dx:
        return None
    a, F = arrays, case.sizes["F"]
    cell = LSTMCell(F)
    cell.n_in = case.sizes["C"]
    cell._init_params()
    for k, own in enumerate(GATES):
        rows = slice(k * F, (k + 1) * F)
        cell.parameters[f"W{own}"] = np.concatenate([a["w_h"][rows], a["w_x"][rows]], axis=1).T.copy()
        cell.parameters[f"b{own}"] = a["b"][None, rows]
    rest = np.zeros((case.sizes["N"], F), np.float32)

    def run() -> Results:
        cell.flush_gradients()
        cell.derived_variables |= {"A": [rest], "C": [rest]}
        for state in "AC":  # empty lists now, which cannot be added to
            cell.derived_variables[f"dLd{state}_accumulator"] = None
        ys = np.stack([cell.forward(x)[0] for x in a["xs"]])
        dxs = np.stack([cell.backward(dy) for dy in a["dys"][::-1]][::-1])
        dw = np.concatenate([cell.gradients[f"W{own}"].T for own in GATES])
        db = np.concatenate([cell.gradients[f"b{own}"][0] for own in GATES])
        return {"ys": ys, "dxs": dxs, "dw_x": dw[:, F:], "dw_h": dw[:, :F], "db": db}

    return run
