"""`tinyconvlstm task`: run a task, print its result, and leave a picture and the numbers in a folder."""

from __future__ import annotations

import json
import time
from io import BytesIO
from pathlib import Path

from ..files import write_atomically
from . import TASKS, listing, task
from .outcome import Outcome


def run(name: str | None, out: Path, *, listed: bool = False, quick: bool = False, seed: int = 0) -> int:
    """Run one task, or all of them; returns the exit status: 1 where a goal was not reached.

    Args:
        name: of the task, or "all".
        out: folder for NAME.png and NAME.json, made when missing; with "all" also index.md.
        listed: only explain what there is.
        quick: a much shorter training, whose goals are not judged.
        seed: of weights and data.
    """
    if listed or name is None:
        print(listing())
        return 0
    names = list(TASKS) if name == "all" else [name]
    modules = {each: task(each) for each in names}  # an unknown name fails before anything is written
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for each, module in modules.items():
        print(f"{each}: {TASKS[each]}")
        began = time.perf_counter()
        outcome = module.run(seed=seed, quick=quick, progress=True)
        keep(outcome, out)
        outcomes.append(outcome)
        print(f"{outcome}\n  {time.perf_counter() - began:.0f} s; picture: {out / each}.png", flush=True)
        if quick:
            print("  a short training: the goal is not judged")
    if name == "all":
        write_atomically(out / "index.md", table(outcomes, quick=quick).encode())
    return 0 if quick or all(outcome.reached for outcome in outcomes) else 1


def keep(outcome: Outcome, out: Path) -> None:
    """Write NAME.png and NAME.json, each all or nothing."""
    buffer = BytesIO()
    outcome.figure().savefig(buffer, format="png", dpi=110)
    write_atomically(out / f"{outcome.task}.png", buffer.getvalue())
    write_atomically(out / f"{outcome.task}.json", (json.dumps(outcome.to_dict(), indent=1) + "\n").encode())


def table(outcomes: list[Outcome], *, quick: bool = False) -> str:
    """All outcomes as a page of Markdown, with their pictures."""
    head = ["# Tasks, measured", "", "Written by `tinyconvlstm task all`, seed 0, on two cores.", ""]
    if quick:
        head += ["A run with `--quick`: trainings were cut short and the goals are not judged.", ""]
    lines = [*head, "| task | measured | model | baselines | goal | reached |", "|---|---|---|---|---|---|"]
    for o in outcomes:
        (model, score), *others = o.scores.items()
        rivals = "; ".join(f"{name} {value:.{o.precision}f}" for name, value in others)
        row = [
            f"[{o.task}](#{o.task})",
            o.measure,
            f"{model} {score:.{o.precision}f}",
            rivals,
            o.goal,
            "yes" if o.reached else "no",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    for o in outcomes:
        lines += ["", f"## {o.task}", "", TASKS[o.task] + ".", ""]
        lines += [f"- {name}: {fact}" for name, fact in o.facts.items()]
        lines += ["", f"![{o.task}]({o.task}.png)"]
    return "\n".join(lines) + "\n"
