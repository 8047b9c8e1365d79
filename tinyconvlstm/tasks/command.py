"""`tinyconvlstm task`: run a task, print its result, and leave a picture and the numbers in a folder."""

from __future__ import annotations

import json
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from ..files import write_atomically
from . import TASKS, listing, task
from .outcome import Outcome


def run(name: str | None, out: Path, *, listed: bool = False, quick: bool = False, seed: int = 0) -> int:
    """Run one task, or all of them; returns the exit status: 1 where a goal was not reached.

    Args:
        name: of the task, or "all".
        out: folder, made when missing, for NAME.png, NAME.json, and index.md about all results in it.
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
    missed = 0
    for each, module in modules.items():
        print(f"{each}: {TASKS[each]}")
        began = time.perf_counter()
        outcome = module.run(seed=seed, quick=quick, progress=True)
        keep(outcome, out, {"seed": seed, "quick": quick})
        missed += not outcome.reached
        print(
            f"{outcome.words(judged=not quick)}\n  {time.perf_counter() - began:.0f} s; picture: {out / each}.png",
            flush=True,
        )
        if quick:
            print("  a short training: the goal is not judged")
    write_atomically(out / "index.md", page(out).encode())
    return 0 if quick or not missed else 1


def keep(outcome: Outcome, out: Path, settings: dict[str, Any]) -> None:
    """Write NAME.png and NAME.json, each all or nothing."""
    buffer = BytesIO()
    outcome.figure().savefig(buffer, format="png", dpi=110)
    write_atomically(out / f"{outcome.task}.png", buffer.getvalue())
    found = json.dumps({**outcome.to_dict(), **settings}, indent=1, ensure_ascii=False)
    write_atomically(out / f"{outcome.task}.json", (found + "\n").encode())


def page(out: Path) -> str:
    """All results in a folder as a page of Markdown, with their pictures."""
    files = [out / f"{name}.json" for name in TASKS if (out / f"{name}.json").exists()]
    found = [json.loads(path.read_text()) for path in files]
    lines = [
        "# Tasks, measured",
        "",
        "Each by one command, `tinyconvlstm task NAME`; `task all` runs them all.",
        "",
    ]
    lines += ["| task | measured | model | baselines | goal | reached |", "|---|---|---|---|---|---|"]
    for o in found:
        (model, score), *others = ((name, f"{v:.{o['precision']}f}") for name, v in o["scores"].items())
        rivals = "; ".join(f"{name} {value}" for name, value in others)
        reached = "short run, not judged" if o["quick"] else "yes" if o["reached"] else "**no**"
        row = [f"[{o['task']}](#{o['task']})", o["measure"], f"{model} {score}", rivals, o["goal"], reached]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    for o in found:
        name = o["task"]
        lines += ["", f"## {name}", "", f"`tinyconvlstm task {name} --seed {o['seed']}`: {TASKS[name]}.", ""]
        lines += [f"- {fact}: {value}" for fact, value in o["facts"].items()]
        lines += ["", f"![{name}]({name}.png)"]
    return "\n".join(lines) + "\n"
