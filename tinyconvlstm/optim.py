"""The update rules, and clipping of gradients. Read `optimizer.py` first: what all rules share."""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np

from .backend import Array, array_module
from .optimizer import Arrays, Decayed, Optimizer, Rate, in_range


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        m = momentum * m + g
        p -= lr * m                            plain momentum
        p -= lr * (g + momentum * m)           Nesterov

    Args:
        lr, l2, decayed: see `Optimizer`.
        momentum: part of the last step that is kept; 0 keeps no state.
        nesterov: look ahead along the momentum.
    Source: Sutskever, Martens, Dahl, Hinton 2013, "On the importance of initialization and momentum
        in deep learning", equations 1 to 4, with the learning rate outside the momentum.
    """

    def __init__(
        self,
        lr: Rate,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        l2: float = 0.0,
        decayed: Decayed | None = None,
    ) -> None:
        super().__init__(lr, l2=l2, decayed=decayed)
        self.momentum, self.nesterov = in_range("momentum", momentum, 0.0, 1.0), nesterov
        if nesterov and not momentum:
            raise ValueError("nesterov is True, expected momentum above 0 with it")
        self.slots = ("m",) if momentum else ()

    def _apply(self, p: Array, g: Array, lr: float, *slots: Array) -> None:
        if slots:
            (m,) = slots
            m *= self.momentum
            m += g
            g = g + self.momentum * m if self.nesterov else m
        p -= lr * g


class RMSProp(Optimizer):
    """Steps divided by the root of the mean squared gradient.

        v = decay * v + (1 - decay) * g^2
        u = g / (sqrt(v) + eps)
        p -= lr * u                            without momentum
        m = momentum * m + u;   p -= lr * m    with momentum

    Args:
        lr, l2, decayed: see `Optimizer`.
        decay: of the mean square (PyTorch's alpha, whose default there is 0.99).
        eps: added to the root, so that a zero gradient makes no step.
        momentum: part of the last step that is kept.
    Source: Tieleman, Hinton 2012, "Neural networks for machine learning", lecture 6.5.
    """

    def __init__(
        self,
        lr: Rate = 1e-3,
        *,
        decay: float = 0.9,
        eps: float = 1e-8,
        momentum: float = 0.0,
        l2: float = 0.0,
        decayed: Decayed | None = None,
    ) -> None:
        super().__init__(lr, l2=l2, decayed=decayed)
        self.decay = in_range("decay", decay, 0.0, 1.0)
        self.eps = in_range("eps", eps, 0.0, float("inf"))
        self.momentum = in_range("momentum", momentum, 0.0, 1.0)
        self.slots = ("v", "m") if momentum else ("v",)

    def _apply(self, p: Array, g: Array, lr: float, *slots: Array) -> None:
        v = slots[0]
        v *= self.decay
        v += (1 - self.decay) * (g * g)
        u = array_module(v).sqrt(v)
        u += self.eps
        u = g / u
        if self.momentum:
            m = slots[1]
            m *= self.momentum
            m += u
            u = m
        p -= lr * u


class Adam(Optimizer):
    """Adaptive moments: momentum, divided by the root of the mean squared gradient, without the start's bias.

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)          t = 1, 2, ...

    Args:
        lr, l2, decayed: see `Optimizer`. The L2 term passes through m and v and so loses its
            meaning as a decay; for that take `AdamW`.
        betas: decay of the mean gradient and of the mean square.
        eps: added to the root.
    Source: Kingma, Ba 2014, arXiv 1412.6980, algorithm 1.
    """

    slots = ("m", "v")

    def __init__(
        self,
        lr: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        l2: float = 0.0,
        decayed: Decayed | None = None,
    ) -> None:
        super().__init__(lr, l2=l2, decayed=decayed)
        self.betas = (in_range("betas[0]", betas[0], 0.0, 1.0), in_range("betas[1]", betas[1], 0.0, 1.0))
        self.eps = in_range("eps", eps, 0.0, float("inf"))

    def _apply(self, p: Array, g: Array, lr: float, *slots: Array) -> None:
        m, v = slots
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        u = array_module(v).sqrt(v)
        u /= sqrt(1 - beta2**self.step)
        u += self.eps
        u = m / u
        u *= lr / (1 - beta1**self.step)
        p -= u


class AdamW(Adam):
    """Adam with decoupled weight decay.

        p *= 1 - lr * weight_decay
        then `Adam`'s update, whose m and v know nothing of the decay

    Args:
        lr, betas, eps: see `Adam`.
        weight_decay, decayed: see `Optimizer`.
    Source: Loshchilov, Hutter 2017, arXiv 1711.05101, algorithm 2, with the decay multiplied by the
        learning rate, as frameworks do.
    """

    def __init__(
        self,
        lr: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        decayed: Decayed | None = None,
    ) -> None:
        super().__init__(lr, betas=betas, eps=eps, decayed=decayed)
        self.weight_decay = in_range("weight_decay", weight_decay, 0.0, float("inf"))


def clip_by_norm(grads: Arrays, max_norm: float) -> tuple[Arrays, float]:
    """Scale all gradients by one factor, so that their common Euclidean norm is at most `max_norm`.

        norm = sqrt(sum over all arrays of g^2)
        g * min(1, max_norm / (norm + 1e-6))          1e-6 as in PyTorch

    The direction stays. A norm that is not finite scales nothing, for no factor would help: the
    gradients come back as they are, and the caller sees the norm.

    Args:
        grads: arrays by name; they are not changed.
        max_norm: in the gradient's unit, above 0.
    Returns:
        A new dict (with the same arrays where nothing is scaled) and the norm before clipping.
    Source: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural networks",
        arXiv 1211.5063, algorithm 1.
    """
    positive("max_norm", max_norm)
    array_module(**grads)
    # In float64, for float32's squares would overflow; no dot product, whose BLAS threads would go on spinning
    norm = sqrt(sum(float((wide * wide).sum()) for wide in (g.astype(np.float64) for g in grads.values())))
    scale = max_norm / (norm + 1e-6)
    if scale >= 1 or not isfinite(norm):
        return dict(grads), norm
    return {name: g * scale for name, g in grads.items()}, norm


def clip_by_value(grads: Arrays, limit: float) -> Arrays:
    """Every entry of every gradient cut to [-limit, limit], in new arrays; NaN stays NaN.

    Source: Mikolov 2012, "Statistical language models based on neural networks" (thesis), where a
        bound on every entry is what first made recurrent networks train.
    """
    positive("limit", limit)
    return {name: array_module(g).clip(g, -limit, limit) for name, g in grads.items()}


def positive(name: str, value: float) -> None:
    """ValueError unless a limit is above 0; NaN is refused too."""
    if not value > 0:
        raise ValueError(f"{name} is {value}, expected a number above 0")
