"""PyTorch, eager: nn.LSTM, nn.GRU, conv1d to conv3d, and the common ConvLSTM cell on [x, h]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Results = dict[str, np.ndarray]


def version() -> str:
    return f"PyTorch {torch.__version__}"


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    kinds = {"convlstm": convlstm, "lstm": dense, "gru": dense, "conv": conv, "pool": pool, "train": train}
    return kinds[case.kind](case, {k: torch.from_numpy(v) for k, v in arrays.items()}, dx)


def backward(outputs: torch.Tensor, upstream: torch.Tensor, parameters: list[Any], x: torch.Tensor) -> None:
    """Gradients into .grad, afresh."""
    for p in [*parameters, x]:
        p.grad = None
    outputs.backward(upstream)


def convlstm(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results]:
    """One convolution on the concatenation [x, h], its result cut into the four gates."""
    k = a["w_x"].shape[2]
    w = torch.cat([a["w_x"], a["w_h"]], dim=1).requires_grad_()
    b, xs = a["b"].requires_grad_(), a["xs"].requires_grad_(dx)
    T, N, C, H, W = xs.shape
    features = case.sizes["F"]

    def run() -> Results:
        h = c = torch.zeros(N, features, H, W)
        ys = []
        for x in xs:
            z = F.conv2d(torch.cat([x, h], dim=1), w, b, padding=k // 2)
            i, f, g, o = z.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        out = torch.stack(ys)
        backward(out, a["dys"], [w, b], xs)
        dw_x, dw_h = w.grad.split([C, features], dim=1)
        found = {"ys": out.detach(), "dw_x": dw_x, "dw_h": dw_h, "db": b.grad}
        return numpy(found | ({"dxs": xs.grad} if dx else {}))

    return run


def dense(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results]:
    """nn.LSTM or nn.GRU, its second bias held at zero and out of the comparison."""
    s = case.sizes
    net = (nn.GRU if case.kind == "gru" else nn.LSTM)(s["C"], s["F"])
    net.load_state_dict(
        {"weight_ih_l0": a["w_x"], "weight_hh_l0": a["w_h"], "bias_ih_l0": a["b"], "bias_hh_l0": 0 * a["b"]}
    )
    xs = a["xs"].requires_grad_(dx)

    def run() -> Results:
        out, _ = net(xs)
        backward(out, a["dys"], list(net.parameters()), xs)
        found = {"ys": out.detach(), "dw_x": net.weight_ih_l0.grad, "dw_h": net.weight_hh_l0.grad}
        return numpy(found | {"db": net.bias_ih_l0.grad} | ({"dxs": xs.grad} if dx else {}))

    return run


def conv(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results]:
    operation = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(case.sizes["S"])]
    settings = {"stride": case.sizes.get("stride", 1), "padding": case.sizes["k"] // 2}
    x, w, b = a["x"].requires_grad_(dx), a["w"].requires_grad_(), a["b"].requires_grad_()

    def run() -> Results:
        y = operation(x, w, b, **settings)
        backward(y, a["dy"], [w, b], x)
        return numpy({"y": y.detach(), "dw": w.grad, "db": b.grad} | ({"dx": x.grad} if dx else {}))

    return run


def pool(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None
    n, mode = len(case.sizes["S"]), case.sizes["mode"]
    operation = getattr(F, f"{mode}_pool{n}d")
    x = a["x"].requires_grad_()

    def run() -> Results:
        y = operation(x, case.sizes["k"])
        backward(y, a["dy"], [], x)
        return numpy({"y": y.detach(), "dx": x.grad})

    return run


class Layer(nn.Module):
    """A ConvLSTM layer with peepholes per channel, and with or without an input."""

    def __init__(self, params: dict[str, np.ndarray]) -> None:
        super().__init__()
        maps = [params[name] for name in ("w_x", "w_h") if name in params]
        self.w = nn.Parameter(torch.from_numpy(np.concatenate(maps, axis=1)))
        self.b, self.w_c = (nn.Parameter(torch.from_numpy(params[name])) for name in ("b", "w_c"))

    def forward(self, x: torch.Tensor | None, h: torch.Tensor, c: torch.Tensor) -> tuple[Any, Any]:
        z = F.conv2d(h if x is None else torch.cat([x, h], dim=1), self.w, self.b, padding=self.w.shape[2] // 2)
        i, f, g, o = z.chunk(4, dim=1)
        w_ci, w_cf, w_co = self.w_c[:, :, None, None]
        c = torch.sigmoid(f + w_cf * c) * c + torch.sigmoid(i + w_ci * c) * torch.tanh(g)
        return torch.sigmoid(o + w_co * c) * torch.tanh(c), c


def train(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results] | None:
    """One step of the demo's training: the same model and weights, loss, backward, clip, Adam."""
    from tinyconvlstm import Forecaster

    if dx:
        return None
    s = case.sizes
    start = Forecaster((s["F"],), size=s["S"], kernel=s["k"], patch=s["patch"], peephole="channel")
    encoder, forecaster = (Layer(start.parts[f"{part}.0"].params) for part in ("encoder", "forecaster"))
    head_w, head_b = (nn.Parameter(torch.from_numpy(start.parts["head"].params[name])) for name in "wb")
    parameters = [*encoder.parameters(), *forecaster.parameters(), head_w, head_b]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    p, grid = s["patch"], tuple(n // s["patch"] for n in s["S"])
    past, future = a["frames"][: s["T"]], a["frames"][s["T"] :]

    def run() -> Results:
        h = c = torch.zeros(s["N"], s["F"], *grid)
        for x in F.pixel_unshuffle(past, p):
            h, c = encoder(x, h, c)
        hs = []
        for _ in range(s["horizon"]):
            h, c = forecaster(None, h, c)
            hs.append(h)
        logits = F.conv2d(torch.cat(hs), head_w, head_b)
        truth = F.pixel_unshuffle(future.flatten(0, 1), p)
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return {"loss": loss.detach().numpy()}

    return run


def numpy(tensors: dict[str, torch.Tensor]) -> Results:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
