"""Classification of every step of a sequence: logits (T, N, V), labels (T, N) or soft ones (T, N, V)."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..layers.base import Grads
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from .learn import Objective


def per_step(**settings: Any) -> Objective:
    """Cross-entropy, the mean over all steps of all clips that count.

    A batch is (x, labels) or (x, labels, mask (T, N)); further axes of the logits after T and N are one axis
    of classes, so that a heat map (T, N, 1, H, W) is a choice among H * W places.
    """

    def loss_forward(model: Any, data: Any, *, train: bool, rng: Any) -> tuple[Array, Any]:
        x, labels, *mask = data
        y, tape = model.forward(x, train=train, rng=rng)
        T, N = y.shape[:2]
        logits = y.reshape(T * N, -1)
        hard = labels.ndim == 2
        flat = labels.reshape(T * N) if hard else labels.reshape(T * N, -1)
        kept = mask[0].reshape(T * N) if mask else None
        loss, saved = cross_entropy_forward(logits, flat, mask=kept, **settings)
        return loss, (tape, saved, y.shape)

    def loss_backward(model: Any, saved: Any) -> Grads:
        tape, loss, shape = saved
        grads: Grads = model.backward(cross_entropy_backward(1.0, loss).reshape(shape), tape)[1]
        return grads

    return loss_forward, loss_backward
