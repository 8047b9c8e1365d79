"""How a training step scales over ranks, measured on this machine, and what a model of it says of many.

    python -m tests.benchmarks.scaling [--write]

Every rank uses one thread. A step is forward, backward, averaging and Adam of a ConvLSTM (case L).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MPIEXEC = Path(sys.executable).with_name("mpiexec")
SIZES = (2**16, 2**20, 2**22, 2**24)  # bytes of the averaging that is timed alone
NETWORKS = {"10 Gbit/s": (50e-6, 10e9 / 8), "100 Gbit/s": (20e-6, 100e9 / 8)}  # latency (s), bytes a second


def work(clips: int, steps: int) -> None:
    """What every rank runs: prints, on rank 0, the seconds of each step and of each averaging."""
    import tinyconvlstm as tcl
    from tinyconvlstm.distributed import Group
    from tinyconvlstm.optim import Adam

    from .cases import CASES

    tcl.set_threads(1)
    with Group.world() as group:
        case = CASES["L"]
        arrays, s = case.arrays(), case.sizes
        cell = tcl.LSTMCell(s["C"], s["F"], (s["k"],) * 2)
        optimizer = Adam(1e-3)
        xs, dys = arrays["xs"][:, :clips], arrays["dys"][:, :clips]
        group.broadcast(cell.params)
        times = []
        for _ in range(steps + 1):
            group.meet("the start of a step") if group.size > 1 else None
            began = time.perf_counter()
            tape = tcl.scan(cell, xs)[2]
            grads = tcl.scan_backward(cell, dys, None, tape, input_grad=False)[2]
            computed = time.perf_counter()
            grads, _ = group.average(grads, np.array(0.0), 1 / group.size)
            averaged = time.perf_counter()
            optimizer.update(cell.params, grads)
            times.append((time.perf_counter() - began, averaged - computed))
        alone = {}
        for size in SIZES if group.size > 1 else ():
            flat = {"g": np.ones(size // 4, np.float32)}
            spent = []
            for _ in range(7):
                group.meet("a measurement")
                began = time.perf_counter()
                group.average(flat, np.array(0.0), 1 / group.size)
                spent.append(time.perf_counter() - began)
            alone[size] = statistics.median(spent)
        if group.leads:
            held = sum(g.nbytes for g in grads.values())
            print(json.dumps({"steps": times[1:], "averaging": alone, "bytes": held}))


def launch(ranks: int, clips: int, steps: int) -> dict[str, Any]:
    """`work` on so many ranks of so many clips each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    command = [
        str(MPIEXEC),
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "mpi4py",
        "-m",
        "tests.benchmarks.scaling",
    ]
    done = subprocess.run(
        [*command, "--work", str(clips), str(steps)],
        env=os.environ | dict.fromkeys(names, "1"),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(pairs: int, steps: int) -> dict[str, Any]:
    """One rank and two, in turns: seconds of a step with 2 and 4 clips a rank, and of the averaging alone."""
    found: dict[str, list[Any]] = {"1x2": [], "1x4": [], "2x2": [], "2x4": [], "averaging": []}
    for _ in range(pairs):
        for name in ("1x4", "2x2", "2x4", "1x2"):
            ranks, clips = map(int, name.split("x"))
            run = launch(ranks, clips, steps)
            found[name] += [seconds for seconds, _ in run["steps"]]
            if run["averaging"]:
                found["averaging"].append(run["averaging"])
            size = run["bytes"]
    medians: dict[str, Any] = {name: statistics.median(found[name]) for name in ("1x2", "1x4", "2x2", "2x4")}
    spent = [statistics.median(run[str(n)] for run in found["averaging"]) for n in SIZES]
    beta, alpha = np.polyfit(SIZES, spent, 1)
    return medians | {"averaging": spent, "alpha": max(alpha, 0.0), "beta": beta, "bytes": size}


def page(m: dict[str, Any]) -> str:
    """The measured part of docs/scaling.md."""
    average = m["alpha"] + m["beta"] * m["bytes"]
    rows = [
        ("1 rank, 4 clips", 1, 4, m["1x4"], m["1x4"]),
        ("2 ranks, 2 clips each (strong)", 2, 2, m["2x2"], m["1x2"] + average),
        ("2 ranks, 4 clips each (weak)", 2, 4, m["2x4"], m["1x4"] + average),
    ]
    lines = [
        "| | measured (ms a step) | predicted (ms) | clips a second | efficiency |",
        "|---|---|---|---|---|",
    ]
    base = 4 / m["1x4"]
    for name, ranks, clips, seconds, predicted in rows:
        rate = ranks * clips / seconds
        lines.append(
            f"| {name} | {1e3 * seconds:.0f} | {1e3 * predicted:.0f} | {rate:.2f} | {rate / (ranks * base):.0%} |"
        )
    lines += [
        "",
        f"The averaging alone, between two ranks through shared memory, takes {1e3 * m['alpha']:.2f} ms + "
        f"{1e9 * m['beta']:.2f} ms a million bytes (least squares through "
        + ", ".join(f"{n // 1024} KiB: {1e3 * s:.2f} ms" for n, s in zip(SIZES, m["averaging"], strict=True))
        + f"); the gradients of case L are {m['bytes'] / 1e6:.2f} million bytes.".replace("1e6", ""),
        "",
        "What the model says of 64 machines, each with the speed of one rank here and 4 clips a step, averaging",
        "around a ring (2 (p - 1) messages of B / p bytes each way):",
        "",
        "| network | computing (ms) | averaging (ms) | efficiency of 64 machines |",
        "|---|---|---|---|",
    ]
    for name, (latency, speed) in NETWORKS.items():
        ring = 2 * 63 * (latency + m["bytes"] / 64 / speed)
        lines.append(
            f"| {name} | {1e3 * m['1x4']:.0f} | {1e3 * ring:.1f} | {m['1x4'] / (m['1x4'] + ring):.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/scaling.md")
    parser.add_argument("--work", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    text = page(measure(args.pairs, args.steps))
    print(text)
    if args.write:
        path = Path(__file__).parents[2] / "docs" / "scaling.md"
        before, mark, rest = path.read_text(encoding="utf-8").partition("<!-- measured -->\n")
        after = rest.partition("<!-- end -->\n")[2]
        path.write_text(f"{before}{mark}{text}<!-- end -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
