"""This package as a contender."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinyconvlstm as tcl
from tinyconvlstm import ops
from tinyconvlstm.ops.conv import conv_weight_backward

Results = dict[str, np.ndarray]


def version() -> str:
    return f"tinyconvlstm {tcl.__version__}, NumPy {np.__version__}"


def set_threads(threads: int) -> None:
    tcl.set_threads(threads)


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results]:
    """A function that does one forward and backward pass and returns outputs and gradients."""
    return {
        "convlstm": recurrent,
        "lstm": recurrent,
        "gru": recurrent,
        "conv": conv,
        "pool": pool,
        "train": train,
        "layer_norm": layer_norm,
        "attention": attention,
        "sampling": sampling,
    }[case.kind](case, arrays, dx)


def recurrent(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    s = case.sizes
    kernel = (s["k"],) * len(s["S"]) if "S" in s else ()
    make = tcl.GRUCell if case.kind == "gru" else tcl.LSTMCell
    cell = make(s["C"], s["F"], kernel)
    params = {name: a[name] for name in ("w_x", "w_h", "b")}
    if case.kind == "gru":
        params["b_hn"] = np.zeros(s["F"], np.float32)
    cell = cell.bind({name: params[name] for name in cell.params})

    def run() -> Results:
        ys, _, tape = tcl.scan(cell, a["xs"])
        dxs, _, grads = tcl.scan_backward(cell, a["dys"], None, tape, input_grad=dx)
        return {"ys": ys, **{f"d{k}": grads[k] for k in ("w_x", "w_h", "b")}, **({"dxs": dxs} if dx else {})}

    return run


def conv(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    s = case.sizes
    dilation = s.get("dilation", 1)
    window = ops.Window(s["k"], s.get("stride", 1), dilation * (s["k"] // 2), dilation)

    def run() -> Results:
        y, saved = ops.conv_forward(a["x"], a["w"], a["b"], window=window, groups=s.get("groups", 1))
        if not dx:
            dw, db = conv_weight_backward(a["dy"], saved)
            return {"y": y, "dw": dw, "db": db}
        d, dw, db = ops.conv_backward(a["dy"], saved)
        return {"y": y, "dw": dw, "db": db, "dx": d}

    return run


def pool(case: Any, a: Results, dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None
    window = ops.Window(case.sizes["k"], stride=case.sizes["k"])
    forward, backward = {
        "max": (ops.max_pool_forward, ops.max_pool_backward),
        "avg": (ops.avg_pool_forward, ops.avg_pool_backward),
    }[case.sizes["mode"]]

    def run() -> Results:
        y, saved = forward(a["x"], window=window)
        return {"y": y, "dx": backward(a["dy"], saved)}

    return run


def layer_norm(case: Any, a: Results, dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None

    def run() -> Results:
        y, saved = ops.layer_norm_forward(a["x"], a["w"], a["b"])
        d, dw, db = ops.layer_norm_backward(a["dy"], saved)
        return {"y": y, "dx": d, "dw": dw, "db": db}

    return run


def attention(case: Any, a: Results, dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None

    def run() -> Results:
        y, saved = ops.attend_forward(a["q"], a["k"], a["v"], scale=case.sizes["C"] ** -0.5)
        dq, dk, dv = ops.attend_backward(a["dy"], saved)
        return {"y": y, "dq": dq, "dk": dk, "dv": dv}

    return run


def sampling(case: Any, a: Results, dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None

    def run() -> Results:
        y, saved = ops.sample_forward(a["x"], a["at"])
        d, dat = ops.sample_backward(a["dy"], saved)
        return {"y": y, "dx": d, "dat": dat}

    return run


def train(case: Any, a: Results, dx: bool) -> Callable[[], Results] | None:
    """One step of the demo's training: loss, backward, clip, Adam."""
    from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
    from tinyconvlstm.optim import Adam, clip_by_norm

    if dx:
        return None
    s = case.sizes
    model = tcl.Forecaster((s["F"],), size=s["S"], kernel=s["k"], patch=s["patch"], peephole="channel")
    optimizer = Adam(1e-3)

    def run() -> Results:
        loss, saved = forecast_loss_forward(model, a["frames"], observed=s["T"])
        grads, _ = clip_by_norm(forecast_loss_backward(model, saved), 1.0)
        optimizer.update(model.params, grads)
        return {"loss": np.asarray(loss)}

    return run
