"""PyTorch, eager: nn.LSTM, nn.GRU, conv1d to conv3d, and the common ConvLSTM cell on [x, h]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Results = dict[str, np.ndarray]


def version() -> str:
    return f"PyTorch {torch.__version__}"


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def prepare(case: Any, arrays: Results, dx: bool) -> Callable[[], Results] | None:
    kinds = {"convlstm": convlstm, "lstm": dense, "gru": dense, "conv": conv, "pool": pool, "train": train}
    kinds |= {"layer_norm": layer_norm, "attention": attention, "sampling": sampling}
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
    N, C, H, W = xs.shape[1:]
    features = case.sizes["F"]

    def run() -> Results:
        h = c = torch.zeros(N, features, H, W)
        ys = []
        for x in xs:
            z = functional.conv2d(torch.cat([x, h], dim=1), w, b, padding=k // 2)
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
    operation = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(case.sizes["S"])]
    s = case.sizes
    settings = {name: s.get(name, 1) for name in ("stride", "dilation", "groups")}
    settings["padding"] = settings["dilation"] * (s["k"] // 2)
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
    operation = getattr(functional, f"{mode}_pool{n}d")
    x = a["x"].requires_grad_()

    def run() -> Results:
        y = operation(x, case.sizes["k"])
        backward(y, a["dy"], [], x)
        return numpy({"y": y.detach(), "dx": x.grad})

    return run


def layer_norm(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results] | None:
    if not dx:
        return None
    x, w, b = (a[name].requires_grad_() for name in "xwb")

    def run() -> Results:
        y = functional.layer_norm(x, w.shape, w, b)
        backward(y, a["dy"], [w, b], x)
        return numpy({"y": y.detach(), "dx": x.grad, "dw": w.grad, "db": b.grad})

    return run


def attention(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results] | None:
    """Positions before channels, as PyTorch has it; the transposes are views."""
    if not dx:
        return None
    q, k, v = (a[name].requires_grad_() for name in "qkv")

    def run() -> Results:
        found = functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        backward(found, a["dy"], [q, k], v)
        return numpy({"y": found.detach(), "dq": q.grad, "dk": k.grad, "dv": v.grad})

    return run


def sampling(case: Any, a: dict[str, Any], dx: bool) -> Callable[[], Results] | None:
    """grid_sample reads (column, row) from -1 to 1; the change of units is part of neither time."""
    if not dx:
        return None
    half = (case.sizes["S"][0] - 1) / 2
    x = a["x"].requires_grad_()
    grid = (a["at"].flip(1).movedim(1, 3) / half - 1).contiguous().requires_grad_()

    def run() -> Results:
        y = functional.grid_sample(x, grid, align_corners=True)
        backward(y, a["dy"], [grid], x)
        dat = grid.grad.movedim(3, 1).flip(1) / half
        return numpy({"y": y.detach(), "dx": x.grad, "dat": dat})

    return run


class Layer(nn.Module):
    """A ConvLSTM layer with peepholes per channel, and with or without an input."""

    def __init__(self, params: dict[str, np.ndarray]) -> None:
        super().__init__()
        maps = [params[name] for name in ("w_x", "w_h") if name in params]
        self.w = nn.Parameter(torch.from_numpy(np.concatenate(maps, axis=1)))
        self.b, self.w_c = (nn.Parameter(torch.from_numpy(params[name])) for name in ("b", "w_c"))

    def forward(self, x: torch.Tensor | None, h: torch.Tensor, c: torch.Tensor) -> tuple[Any, Any]:
        z = functional.conv2d(
            h if x is None else torch.cat([x, h], dim=1), self.w, self.b, padding=self.w.shape[2] // 2
        )
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
        for x in functional.pixel_unshuffle(past, p):
            h, c = encoder(x, h, c)
        hs = []
        for _ in range(s["horizon"]):
            h, c = forecaster(None, h, c)
            hs.append(h)
        logits = functional.conv2d(torch.cat(hs), head_w, head_b)
        truth = functional.pixel_unshuffle(future.flatten(0, 1), p)
        loss = functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return {"loss": loss.detach().numpy()}

    return run


def numpy(tensors: dict[str, torch.Tensor]) -> Results:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
