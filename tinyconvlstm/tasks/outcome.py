"""What a task found: a measured result beside named baselines, whether it reached its goal, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        task: its name on the command line.
        measure: what the scores count, with its unit, as "accuracy on 256 held-out clips".
        scores: by name of the contestant; the model's own comes first, the baselines follow.
        goal: what must hold, in words. reached: whether it did.
        figure: draws the picture, a matplotlib figure.
        facts: further measured numbers, as text by name.
        precision: decimals of a score in the table.
    """

    task: str
    measure: str
    scores: dict[str, float]
    goal: str
    reached: bool
    figure: Callable[[], Any]
    facts: dict[str, str] = field(default_factory=dict)
    precision: int = 3

    def __str__(self) -> str:
        return self.words()

    def words(self, *, judged: bool = True) -> str:
        """The scores and facts, a line each, and whether the goal was reached if it is judged."""
        lines = [f"{self.task}: {self.measure}"]
        wide = max(len(name) for name in [*self.scores, *self.facts])
        lines += [f"  {name.ljust(wide)}  {value:.{self.precision}f}" for name, value in self.scores.items()]
        lines += [f"  {name.ljust(wide)}  {fact}" for name, fact in self.facts.items()]
        if judged:
            lines.append(f"  goal: {self.goal}: {'reached' if self.reached else 'NOT reached'}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture, for a JSON file."""
        return {
            "task": self.task,
            "measure": self.measure,
            "scores": {name: float(value) for name, value in self.scores.items()},
            "facts": dict(self.facts),
            "goal": self.goal,
            "reached": bool(self.reached),
            "precision": self.precision,
        }
