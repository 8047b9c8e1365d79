"""What all optimisers share: updates in place, decay, and a state that resumes exactly.

Parameters, gradients and the optimiser's own arrays are flat dictionaries with equal names. Two
terms shrink weights, and they are two things:

    l2              the term l2/2 * p^2 in the loss: g + l2 * p takes the place of the gradient g
    weight_decay    decoupled decay: p * (1 - lr * weight_decay), apart from the gradient (AdamW)

For plain SGD they agree (l2 = weight_decay); with momentum or a scaled step they do not. Both act on
every parameter unless `decayed`, a function of the name, says otherwise; `weights_only` is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import Array, array_module, backend_name, to_backend

Arrays = dict[str, Array]
Rate = float | Callable[[int], float]  # a learning rate, or a schedule: number of updates done -> rate
Decayed = Callable[[str], bool]  # parameter name -> whether decay acts on it


class Optimizer:
    """What all optimisers share: checks, decay, and state by name. `_apply` is the rule itself.

    Args:
        lr: learning rate, or a schedule (see `schedules`) called with the number of updates done.
        l2: coefficient of the L2 term in the loss.
        weight_decay: coefficient of the decoupled decay.
        decayed: name -> whether `l2` and `weight_decay` act on that parameter. Default: on all.
    Attributes:
        step: updates done.
        state: the optimiser's arrays by "slot.name", as "m.encoder.0.w_x".
    """

    slots: tuple[str, ...] = ()  # arrays kept for each parameter

    def __init__(
        self,
        lr: Rate,
        *,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        decayed: Decayed | None = None,
    ) -> None:
        for name, value in (("lr", 0.0 if callable(lr) else lr), ("l2", l2), ("weight_decay", weight_decay)):
            in_range(name, value, 0.0, float("inf"))
        self.lr, self.l2, self.weight_decay, self.decayed = lr, l2, weight_decay, decayed
        self.step = 0
        self.state: Arrays = {}

    def update(self, params: Arrays, grads: Arrays, lr: float | None = None) -> None:
        """Change every array of `params` in place; `grads` stays as it is.

        Args:
            params: arrays by name.
            grads: arrays of the same names, shapes and dtypes, on the same backend.
            lr: learning rate of this update; default: the optimiser's own.
        Raises:
            ValueError: names, shapes or dtypes do not agree; then nothing has changed.
            BackendError: parameter and gradient lie on two backends.
        """
        check_pairs(params, grads)
        state = self._state_for(params)
        rate = lr if lr is not None else self.lr(self.step) if callable(self.lr) else self.lr
        rate = in_range("lr", float(rate), 0.0, float("inf"))
        self.step += 1
        self.state = state
        for name, p in params.items():
            g = grads[name]
            if self.decayed is None or self.decayed(name):
                if self.l2:
                    g = g + self.l2 * p
                if self.weight_decay:
                    p *= 1 - rate * self.weight_decay
            self._apply(p, g, rate, *(state[f"{slot}.{name}"] for slot in self.slots))

    def _apply(self, p: Array, g: Array, lr: float, *slots: Array) -> None:
        raise NotImplementedError

    def _state_for(self, params: Arrays) -> Arrays:
        """The state's arrays beside the parameters; zeros before the first update."""
        wanted = {f"{slot}.{name}": p for slot in self.slots for name, p in params.items()}
        if self.step == 0 and not self.state:
            return {key: array_module(p).zeros_like(p) for key, p in wanted.items()}
        if self.state.keys() != wanted.keys():
            raise ValueError(
                f"params do not belong to this optimizer's state: {differences(self.state, wanted)}; "
                "use one optimizer for one set of parameters"
            )
        for key, p in wanted.items():
            s = self.state[key]
            if s.shape != p.shape or s.dtype != p.dtype:
                raise ValueError(
                    f"state {key!r} is {s.dtype} {s.shape}, its parameter is {p.dtype} {p.shape}"
                )
        return {key: to_backend(self.state[key], backend_name(p) or "numpy") for key, p in wanted.items()}

    def state_dict(self) -> Arrays:
        """A copy of all that an exact resume needs, as one flat dict of arrays: "step" and the state.

        Settings (rates, betas) are not in it: build the optimiser with the same ones.
        """
        return {"step": np.array(self.step), **{key: s.copy() for key, s in self.state.items()}}

    def load_state_dict(self, state: Arrays) -> None:
        """Take over what `state_dict` returned, from whichever backend: the next update moves it.

        Raises:
            ValueError: "step" is missing, or a name belongs to another kind of optimiser.
        """
        if "step" not in state:
            raise ValueError(f"state has no entry 'step', it has {sorted(state)}")
        arrays = {key: s.copy() for key, s in state.items() if key != "step"}
        foreign = sorted(key for key in arrays if key.partition(".")[0] not in self.slots)
        step = int(state["step"])
        if foreign or step < 0 or (step > 0 and self.slots and not arrays):
            raise ValueError(
                f"state is not one of {type(self).__name__}: step {step}, unknown names {foreign}, "
                f"expected names that begin with {[slot + '.' for slot in self.slots]}"
            )
        self.step, self.state = step, arrays


def weights_only(name: str) -> bool:
    """A `decayed` that spares biases and norms: true for names whose last part begins with "w"."""
    return name.rpartition(".")[2].startswith("w")


def check_pairs(params: Arrays, grads: Arrays) -> None:
    """Every parameter has a gradient of its shape, dtype and backend, or an error says which has not."""
    if params.keys() != grads.keys():
        raise ValueError(f"grads do not have the names of params: {differences(grads, params)}")
    for name, p in params.items():
        g = grads[name]
        for side, x in (("params", p), ("grads", g)):
            if backend_name(x) is None or isinstance(x, np.generic):
                raise ValueError(f"{side}[{name!r}] is a {type(x).__name__}, expected an array")
        array_module(**{f"params[{name!r}]": p, f"grads[{name!r}]": g})
        if g.shape != p.shape or g.dtype != p.dtype:
            raise ValueError(
                f"grads[{name!r}] is {g.dtype} {g.shape}, expected that of its parameter, {p.dtype} {p.shape}"
            )


def differences(got: Arrays, expected: Arrays) -> str:
    """Names that are missing, and names that are too many, in words."""
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    return f"missing {missing}, not expected {extra}"


def in_range(name: str, value: Any, low: float, high: float) -> float:
    """The value, if low <= value < high."""
    if not low <= value < high:
        raise ValueError(f"{name} is {value}, expected at least {low:g} and below {high:g}")
    return float(value)
