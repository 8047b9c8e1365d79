"""DeZero, given the path of a checkout: ConvLSTM and LSTM written in its functions, and conv2d.

Its convolution and its linear map always make the gradient of x. Where no contender makes it, those here do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dezero
import dezero.functions as functions
import numpy as np
from dezero import Variable
from dezero.functions_conv import Conv2d, Conv2DGradW

Results = dict[str, np.ndarray]


def version() -> str:
    return f"DeZero (a checkout), NumPy {np.__version__}"


def set_threads(threads: int) -> None:
    """NumPy's BLAS takes its number from the environment."""


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    kinds = {"convlstm": recurrent, "lstm": recurrent, "conv": conv}
    beyond = len(case.sizes.get("S", ())) != 2 or {"dilation", "groups"} & set(
        case.sizes
    )  # its conv2d knows neither
    if case.kind not in kinds or (case.kind == "conv" and beyond):
        return None
    return kinds[case.kind](case, arrays, dx)


class Conv2dOfInput(Conv2d):  # type: ignore[misc]
    """Without the gradient of x."""

    def backward(self, gy: Any) -> Any:
        return None, Conv2DGradW(self)(self.inputs[0], gy), gy.sum(axis=(0, 2, 3))


class LinearOfInput(functions.Linear):  # type: ignore[misc]
    """Without the gradient of x."""

    def backward(self, gy: Any) -> Any:
        x, _, b = self.inputs
        return None, functions.matmul(x.T, gy), functions.sum_to(gy, b.shape)


def recurrent(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    """Input and state each through their own map, gates by slices, as DeZero's LSTM layer has them."""
    F, k = case.sizes["F"], case.sizes.get("k", 1)
    conv = case.kind == "convlstm"
    w_x, w_h, b = (Variable(a[name]) for name in ("w_x", "w_h", "b"))
    xs = [Variable(x) for x in a["xs"]]
    conv2d, linear = (Conv2d, functions.Linear) if dx else (Conv2dOfInput, LinearOfInput)

    def both(x: Any, h: Any) -> Any:
        if conv:
            z = conv2d(pad=k // 2)(x, w_x, b)
            return z if h is None else z + functions.conv2d(h, w_h, pad=k // 2)
        z = linear()(x, functions.transpose(w_x), b)
        return z if h is None else z + functions.linear(h, functions.transpose(w_h))

    def run() -> Results:
        for v in (w_x, w_h, b, *xs):
            v.cleargrad()
        h = c = None
        ys = []
        for x in xs:
            z = both(x, h)
            i, f, g, o = (functions.get_item(z, (slice(None), slice(j * F, (j + 1) * F))) for j in range(4))
            new = functions.sigmoid(i) * functions.tanh(g)
            c = new if c is None else functions.sigmoid(f) * c + new
            h = functions.sigmoid(o) * functions.tanh(c)
            ys.append(h)
        loss = sum(
            (functions.sum(y * Variable(dy)) for y, dy in zip(ys, a["dys"], strict=True)),
            Variable(np.array(0.0)),
        )
        loss.backward()
        found = {
            "ys": np.stack([y.data for y in ys]),
            "dw_x": w_x.grad.data,
            "dw_h": w_h.grad.data,
            "db": b.grad.data,
        }
        return found | ({"dxs": np.stack([x.grad.data for x in xs])} if dx else {})

    return run


def conv(case: Any, a: Results, dx: bool) -> Callable[[], Results]:
    x, w, b = (Variable(a[name]) for name in ("x", "w", "b"))
    conv2d = Conv2d if dx else Conv2dOfInput
    settings = {"stride": case.sizes.get("stride", 1), "pad": case.sizes["k"] // 2}

    def run() -> Results:
        for v in (x, w, b):
            v.cleargrad()
        y = conv2d(**settings)(x, w, b)
        functions.sum(y * Variable(a["dy"])).backward()
        found = {"y": y.data, "dw": w.grad.data, "db": b.grad.data}
        return found | ({"dx": x.grad.data} if dx else {})

    return run


assert dezero  # the checkout on the path
