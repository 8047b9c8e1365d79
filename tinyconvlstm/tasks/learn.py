"""What the tasks share in training: Adam with a warm-up and a cosine, clipped; classification; held-out scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array
from ..layers.base import Grads
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..ops.losses import mse_backward, mse_forward
from ..optim import Adam
from ..optimizer import weights_only
from ..schedules import Cosine, Warmup
from ..train import History, train

Objective = tuple[Callable[..., Any], Callable[..., Any]]


def fit(
    model: Any,
    objective: Objective,
    batch: Callable[[int], Any],
    *,
    steps: int,
    lr: float = 5e-3,
    l2: float = 0.0,
    clip_norm: float = 1.0,
    seed: int = 0,
    progress: bool = True,
    description: str = "training",
) -> History:
    """Train a model in place with Adam; the rate rises over the first steps, then falls along a cosine.

    Args:
        model: anything `Parametric`.
        objective: (loss_forward, loss_backward), as `train.train` takes them; `classification` is one.
        batch: step -> data.
        steps, lr, clip_norm, seed: of the training. l2: coefficient of the L2 term, on weights alone.
        progress: show a bar, with this description.
    """
    warm = min(20, max(1, steps // 10))
    return train(
        model,
        *objective,
        batch,
        steps=steps,
        optimizer=Adam(lr, l2=l2, decayed=weights_only),
        schedule=Warmup(warm, Cosine(lr, max(1, steps - warm))),
        clip_norm=clip_norm,
        seed=seed,
        progress=progress,
        description=description,
    )


def loss_of(forward: Callable[..., Any], backward: Callable[..., Any], **settings: Any) -> Objective:
    """The objective of a model whose output goes straight into a loss pair.

    A batch is (x, target), or (x, target, keywords of the model's forward).

    Args:
        forward, backward: a loss pair, forward(y, target, **settings) -> (loss, saved).
    """

    def loss_forward(model: Any, data: Any, *, train: bool, rng: Any) -> tuple[Array, Any]:
        x, target, *more = data
        y, tape = model.forward(x, train=train, rng=rng, **(more[0] if more else {}))
        loss, saved = forward(y, target, **settings)
        return loss, (tape, saved)

    def loss_backward(model: Any, saved: Any) -> Grads:
        tape, loss = saved
        grads: Grads = model.backward(backward(1.0, loss), tape)[1]
        return grads

    return loss_forward, loss_backward


def classification(**settings: Any) -> Objective:
    """Cross-entropy of logits (N, classes) and integer labels (N,); settings as `cross_entropy_forward`."""
    return loss_of(cross_entropy_forward, cross_entropy_backward, **settings)


def regression() -> Objective:
    """The mean squared error."""
    return loss_of(mse_forward, mse_backward)


def accuracy(logits: Array, labels: Array) -> float:
    """The share of rows whose largest logit, on axis 1, is the label's."""
    return float((np.asarray(logits).argmax(axis=1) == np.asarray(labels)).mean())
