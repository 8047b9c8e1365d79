"""Schedules against values worked out by hand, their ends, and the errors."""

from __future__ import annotations

import pickle
from math import cos, pi
from typing import Any

import numpy as np
import pytest

from tinyconvlstm.schedules import Constant, Cosine, Exponential, OneCycle, Step, Warmup


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.3), {0: 0.3, 10**9: 0.3}),
        (Step(0.8, every=3, factor=0.5), {0: 0.8, 2: 0.8, 3: 0.4, 5: 0.4, 6: 0.2, 30: 0.8 / 1024}),
        (Step(0.8, every=10), {9: 0.8, 10: 0.08, 20: 0.008}),
        (Exponential(0.8, 0.5), {0: 0.8, 1: 0.4, 5: 0.025}),
        (Cosine(1.0, steps=4), {0: 1.0, 1: (1 + 0.5**0.5) / 2, 2: 0.5, 4: 0.0, 5: 0.0, 1000: 0.0}),
        (Cosine(1.0, steps=6, floor=0.2), {2: 0.2 + 0.8 * 0.75, 3: 0.6, 6: 0.2, 7: 0.2}),
        # steps 40, warm 0.3: up to step 11, down to step 39
        (
            OneCycle(0.5, steps=40),
            {0: 0.02, 11: 0.5, 25: (0.5 + 2e-6) / 2, 39: 2e-6, 40: 2e-6, 999: 2e-6},
        ),
        (
            OneCycle(1.0, steps=11, warm=0.5, start=0.1, end=0.1),
            {0: 0.1, 4: 1.0 - 0.45 * (1 + cos(pi * 4 / 4.5)), 10: 0.01},
        ),
        (Warmup(4, Constant(0.8)), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 5: 0.8}),
        (Warmup(2, Exponential(0.8, 0.5)), {0: 0.4, 1: 0.8, 2: 0.8, 3: 0.4, 4: 0.2}),
        (Warmup(2, Warmup(2, Constant(1.0))), {0: 0.25, 1: 0.5, 2: 0.5, 3: 1.0}),
    ],
)
def test_values(schedule: Any, expected: dict[int, float]) -> None:
    for step, rate in expected.items():
        found = schedule(step)
        assert isinstance(found, float)
        assert found == pytest.approx(rate, rel=1e-12, abs=1e-17), step
    first = next(iter(expected))
    assert schedule(np.int64(first)) == schedule(first)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    for bad, message in ((-1, "step is -1, expected at least 0"), (1.5, "step is 1.5, expected an integer")):
        with pytest.raises(ValueError, match=message):
            schedule(bad)


def test_one_cycle_rises_once_and_falls_once() -> None:
    rates = [OneCycle(0.1, steps=100, warm=0.2)(t) for t in range(100)]
    top = int(np.argmax(rates))
    assert top == 19
    assert rates[top] == pytest.approx(0.1)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        Constant(0.1).lr = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-0.1), "lr is -0.1, expected a number of at least 0"),
        (lambda: Constant(float("nan")), "lr is nan"),
        (lambda: Step(0.1, every=0), "every is 0, expected an integer of at least 1"),
        (lambda: Step(0.1, every=2.5), "every is 2.5"),  # type: ignore[arg-type]
        (lambda: Step(0.1, every=2, factor=0.0), "factor is 0.0, expected above 0 and at most 1"),
        (lambda: Exponential(0.1, 1.5), "factor is 1.5"),
        (lambda: Cosine(0.1, steps=-3), "steps is -3"),
        (lambda: Cosine(0.1, steps=3, floor=-1.0), "floor is -1.0"),
        (lambda: OneCycle(0.1, steps=100, warm=1.0), "warm is 1.0, expected a part between 0 and 1"),
        (lambda: OneCycle(0.1, steps=3), r"steps is 3 and warm is 0.3, expected steps \* warm above 1"),
        (lambda: OneCycle(0.1, steps=9, warm=0.5, start=2.0), "start is 2.0"),
        (lambda: OneCycle(0.1, steps=9, warm=0.5, end=0.0), "end is 0.0"),
        (lambda: Warmup(0, Constant(0.1)), "steps is 0"),
        (lambda: Warmup(3, 0.1), r"then is 0.1, expected a schedule, such as Constant\(0.1\)"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
