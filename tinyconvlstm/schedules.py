"""Learning rates over time. A schedule is a small frozen object, called with the number of updates done.

    optimizer = Adam(lr=Warmup(200, then=Cosine(1e-3, steps=5000)))

It holds no counter of its own, so resuming needs nothing: the optimiser knows its step. All of them
accept any step from 0 on, and stay at their last value after the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """rate(step) = lr"""

    lr: float

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)

    def __call__(self, step: int) -> float:
        check_step(step)
        return self.lr


@dataclass(frozen=True)
class Step:
    """Multiplied by a factor every so many updates.

        rate(step) = lr * factor^(step // every)

    Args:
        lr: first learning rate.
        every: updates between two changes.
        factor: above 0, at most 1.
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_count("every", self.every)
        check_factor("factor", self.factor)

    def __call__(self, step: int) -> float:
        return float(self.lr * self.factor ** (check_step(step) // self.every))


@dataclass(frozen=True)
class Exponential:
    """Multiplied by a factor at every update.

        rate(step) = lr * factor^step

    Args:
        lr: first learning rate.
        factor: above 0, at most 1.
    """

    lr: float
    factor: float

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_factor("factor", self.factor)

    def __call__(self, step: int) -> float:
        return float(self.lr * self.factor ** check_step(step))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `lr` down to `floor`.

        rate(step) = floor + (lr - floor) * (1 + cos(pi * step / steps)) / 2          step <= steps
        rate(step) = floor                                                            afterwards

    Args:
        lr: first learning rate.
        steps: updates from `lr` to `floor`.
        floor: last learning rate.
    Source: Loshchilov, Hutter 2016, arXiv 1608.03983, equation 5, without restarts.
    """

    lr: float
    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_count("steps", self.steps)
        check_rate("floor", self.floor)

    def __call__(self, step: int) -> float:
        return anneal(self.lr, self.floor, min(check_step(step) / self.steps, 1.0))


@dataclass(frozen=True)
class OneCycle:
    """Up to `peak` along half a cosine, then down to almost nothing along another.

        a = warm * steps - 1                            the step of the peak
        rate(step) = anneal(peak * start, peak, step / a)                                    step <= a
        rate(step) = anneal(peak, peak * start * end, (step - a) / (steps - 1 - a))          step > a
        anneal(x, y, s) = y + (x - y) * (1 + cos(pi * s)) / 2

    Args:
        peak: highest learning rate.
        steps: all updates of the cycle; the last rate is reached at steps - 1.
        warm: part of the updates that go up.
        start: first rate as a part of the peak (PyTorch's 1 / div_factor).
        end: last rate as a part of the first (PyTorch's 1 / final_div_factor).
    Source: Smith, Topin 2017, arXiv 1708.07120; the two cosines as in PyTorch's OneCycleLR.
    """

    peak: float
    steps: int
    warm: float = 0.3
    start: float = 1 / 25
    end: float = 1e-4

    def __post_init__(self) -> None:
        check_rate("peak", self.peak)
        check_count("steps", self.steps)
        if not 0 < self.warm < 1:
            raise ValueError(f"warm is {self.warm}, expected a part between 0 and 1")
        if self.warm * self.steps <= 1:
            raise ValueError(
                f"steps is {self.steps} and warm is {self.warm}, expected steps * warm above 1, so that "
                "the rate has an update to rise in"
            )
        check_factor("start", self.start)
        check_factor("end", self.end)

    def __call__(self, step: int) -> float:
        top = self.warm * self.steps - 1
        first = self.peak * self.start
        if check_step(step) <= top:
            return anneal(first, self.peak, step / top)
        return anneal(self.peak, first * self.end, min((step - top) / (self.steps - 1 - top), 1.0))


@dataclass(frozen=True)
class Warmup:
    """A straight line up to the first rate of another schedule, which then begins.

        rate(step) = then(0) * (step + 1) / steps          step < steps
        rate(step) = then(step - steps)                    afterwards

    Args:
        steps: updates of the line.
        then: the schedule that follows.
    Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2, "gradual warmup".
    """

    steps: int
    then: Schedule

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if not callable(self.then):
            raise ValueError(f"then is {self.then!r}, expected a schedule, such as Constant({self.then!r})")

    def __call__(self, step: int) -> float:
        if check_step(step) < self.steps:
            return self.then(0) * (step + 1) / self.steps
        return self.then(step - self.steps)


def anneal(start: float, end: float, part: float) -> float:
    """Half a cosine from `start` at part 0 to `end` at part 1."""
    return end + (start - end) * (1 + cos(pi * part)) / 2


def check_step(step: int) -> int:
    """The step, if it is an integer from 0 on."""
    try:
        number = operator.index(step)
    except TypeError:
        raise ValueError(f"step is {step!r}, expected an integer") from None
    if number < 0:
        raise ValueError(f"step is {number}, expected at least 0")
    return number


def check_rate(name: str, value: float) -> None:
    """ValueError unless a rate is a finite number of at least 0."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}, expected a number of at least 0")


def check_count(name: str, value: int) -> None:
    """ValueError unless a count is an integer of at least 1."""
    if not (isinstance(value, int) and value > 0):
        raise ValueError(f"{name} is {value!r}, expected an integer of at least 1")


def check_factor(name: str, value: float) -> None:
    """ValueError unless a factor lies above 0 and at most at 1."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} is {value}, expected above 0 and at most 1")
