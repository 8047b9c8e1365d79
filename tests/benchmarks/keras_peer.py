"""Keras 3 on PyTorch: ConvLSTM2D and LSTM, as their documentation uses them (channels last)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "torch"
import keras
import torch

Results = dict[str, np.ndarray]


def version() -> str:
    return f"Keras {keras.__version__} on PyTorch {torch.__version__}"


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    kinds = {"convlstm": convlstm, "lstm": lstm}
    return kinds[case.kind](case, arrays, dx) if case.kind in kinds else None


def convlstm(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    """Kernels (k, k, C, 4F), gates i, f, c, o as ours; sequences (N, T, H, W, C)."""
    s = case.sizes
    layer = keras.layers.ConvLSTM2D(
        s["F"], s["k"], padding="same", return_sequences=True, recurrent_activation="sigmoid"
    )
    xs = torch.tensor(a["xs"].transpose(1, 0, 3, 4, 2).copy(), requires_grad=dx)
    dys = torch.tensor(a["dys"].transpose(1, 0, 3, 4, 2).copy())
    layer.build(tuple(xs.shape))
    layer.set_weights([a["w_x"].transpose(2, 3, 1, 0), a["w_h"].transpose(2, 3, 1, 0), a["b"]])
    weights = [v.value for v in layer.trainable_variables]

    def run() -> Results:
        y = step(layer, xs, dys, weights)
        dw_x, dw_h, db = (w.grad for w in weights)
        found = {
            "ys": y.permute(1, 0, 4, 2, 3),
            "dw_x": dw_x.permute(3, 2, 0, 1),
            "dw_h": dw_h.permute(3, 2, 0, 1),
        }
        found |= {"db": db} | ({"dxs": xs.grad.permute(1, 0, 4, 2, 3)} if dx else {})
        return {name: t.detach().numpy() for name, t in found.items()}

    return run


def lstm(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    """Kernels (C, 4F), gates i, f, c, o as ours; sequences (N, T, C)."""
    layer = keras.layers.LSTM(case.sizes["F"], return_sequences=True)
    xs = torch.tensor(a["xs"].swapaxes(0, 1).copy(), requires_grad=dx)
    dys = torch.tensor(a["dys"].swapaxes(0, 1).copy())
    layer.build(tuple(xs.shape))
    layer.set_weights([a["w_x"].T, a["w_h"].T, a["b"]])
    weights = [v.value for v in layer.trainable_variables]

    def run() -> Results:
        y = step(layer, xs, dys, weights)
        found = {
            "ys": y.swapaxes(0, 1),
            "dw_x": weights[0].grad.T,
            "dw_h": weights[1].grad.T,
            "db": weights[2].grad,
        }
        found |= {"dxs": xs.grad.swapaxes(0, 1)} if dx else {}
        return {name: t.detach().numpy() for name, t in found.items()}

    return run


def step(layer: Any, xs: torch.Tensor, dys: torch.Tensor, weights: list[Any]) -> torch.Tensor:
    for t in [*weights, xs]:
        t.grad = None
    y = layer(xs, training=True)
    y.backward(dys)
    return y
