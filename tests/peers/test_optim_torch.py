"""100 steps of every optimiser, both clippings and all schedules, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import optim, schedules

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

STEPS = 100
SHAPES = {"w": (4, 3, 3, 2), "b": (4,), "w_h": (5, 7)}
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
PAIRS: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda: optim.SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    "sgd_l2": (lambda: optim.SGD(0.05, l2=0.1), lambda p: torch.optim.SGD(p, 0.05, weight_decay=0.1)),
    "momentum": (
        lambda: optim.SGD(0.02, momentum=0.9, l2=0.03),
        lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=0.03),
    ),
    "nesterov": (
        lambda: optim.SGD(0.02, momentum=0.8, nesterov=True, l2=0.01),
        lambda p: torch.optim.SGD(p, 0.02, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "rmsprop": (
        lambda: optim.RMSProp(0.01, decay=0.95, eps=1e-6),
        lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95, eps=1e-6),
    ),
    "rmsprop_momentum": (
        lambda: optim.RMSProp(0.003, momentum=0.7, l2=0.1),
        lambda p: torch.optim.RMSprop(p, 0.003, alpha=0.9, momentum=0.7, weight_decay=0.1),
    ),
    "adam": (
        lambda: optim.Adam(0.01, betas=(0.8, 0.95), eps=1e-6),
        lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adam_l2": (lambda: optim.Adam(l2=0.2), lambda p: torch.optim.Adam(p, weight_decay=0.2)),
    "adamw": (
        lambda: optim.AdamW(0.01, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3),
    ),
    "adamw_default": (lambda: optim.AdamW(), lambda p: torch.optim.AdamW(p)),
}


def draw(rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def gradient(p: Any, target: Any, noise: Any) -> Any:
    """Of a curved loss plus noise, so that a wrong step bends everything after it."""
    return (p - target) ** 3 * 0.3 + noise


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", PAIRS)
def test_hundred_steps(kind: str, dtype: Any, rng: np.random.Generator) -> None:
    make, make_torch = PAIRS[kind]
    params, target = draw(rng, dtype), draw(rng, dtype)
    start = {name: p.copy() for name, p in params.items()}
    theirs = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    optimizer, peer = make(), make_torch(list(theirs.values()))
    for _ in range(STEPS):
        noise = draw(rng, dtype)
        optimizer.update(params, {n: gradient(p, target[n], noise[n]) for n, p in params.items()})
        for name, p in theirs.items():
            p.grad = gradient(p.detach(), torch.tensor(target[name]), torch.tensor(noise[name]))
        peer.step()
    for name, p in params.items():
        expected = theirs[name].detach().numpy()
        assert np.abs(expected - start[name]).max() > 0.02
        np.testing.assert_allclose(p, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("max_norm", [0.7, 1000.0])
def test_clip_by_norm(max_norm: float, dtype: Any, rng: np.random.Generator) -> None:
    grads = draw(rng, dtype)
    theirs = [torch.zeros(g.shape, dtype=torch.tensor(g).dtype, requires_grad=True) for g in grads.values()]
    for p, g in zip(theirs, grads.values(), strict=True):
        p.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    clipped, norm = optim.clip_by_norm(grads, max_norm)
    assert norm == pytest.approx(float(expected), rel=TOLERANCE[dtype])
    for p, g in zip(theirs, clipped.values(), strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_clip_by_value(dtype: Any, rng: np.random.Generator) -> None:
    grads = draw(rng, dtype)
    p = torch.zeros(SHAPES["w"], dtype=torch.tensor(grads["w"]).dtype, requires_grad=True)
    p.grad = torch.tensor(grads["w"])
    torch.nn.utils.clip_grad_value_([p], 0.4)
    np.testing.assert_array_equal(optim.clip_by_value(grads, 0.4)["w"], p.grad.numpy())


def torch_rates(make: Any, lr: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = make(optimizer)
    rates = []
    for t in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if t < steps - 1:
            scheduler.step()
    return rates


def after_warmup(optimizer: Any) -> Any:
    scheduler = torch.optim.lr_scheduler
    line = scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    return scheduler.SequentialLR(optimizer, [line, scheduler.ExponentialLR(optimizer, 0.9)], milestones=[8])


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (schedules.Constant(0.3), lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
        (schedules.Step(0.3, every=7, factor=0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3)),
        (schedules.Exponential(0.3, 0.97), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97)),
        (
            schedules.Cosine(0.3, steps=59, floor=0.01),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 59, eta_min=0.01),
        ),
        (schedules.OneCycle(0.3, steps=60), lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, 60)),
        (
            schedules.OneCycle(0.3, steps=60, warm=0.4321, start=1 / 7, end=1 / 50),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 0.3, 60, pct_start=0.4321, div_factor=7, final_div_factor=50
            ),
        ),
        (schedules.Warmup(8, schedules.Exponential(0.3, 0.9)), after_warmup),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # SequentialLR passes an argument PyTorch itself deprecates
def test_schedules(schedule: Any, make: Any) -> None:
    found = [schedule(t) for t in range(60)]
    np.testing.assert_allclose(found, torch_rates(make, 0.3, 60), rtol=1e-12)
