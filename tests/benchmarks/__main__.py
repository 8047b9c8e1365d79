"""Time this package beside its peers and write docs/benchmarks.md.

    python -m tests.benchmarks                          every case, beside the peers that are installed
    python -m tests.benchmarks M L --pairs 5            two cases
    python -m tests.benchmarks --dezero PATH --numpy-ml PATH      also beside checkouts of these
    python -m tests.benchmarks --write                  all of it, into docs/benchmarks.md (half an hour);
                                                        with --free-threaded PYTHON also without Python's lock

Every contender runs in a process of its own, with the same arrays, dtype and number of threads. Outputs
and gradients are compared first. Then they take turns; what is printed is the median over pairs of
turns of ours / theirs, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyconvlstm.cli import positive

from .cases import CASES, Case

TOLERANCE = 2e-4  # of the largest value: two float32 results summed in different orders


class Row(NamedTuple):
    """One case of one peer."""

    case: Case
    dx: bool
    peer: str
    ours: float  # ms, median
    theirs: float
    ratios: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


class Contender:
    """A worker process and the questions one may ask it."""

    def __init__(
        self,
        peer: str,
        threads: int,
        path: str = "",
        environment: dict[str, str] | None = None,
        interpreter: str = sys.executable,
    ) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = os.environ | dict.fromkeys(names, str(threads)) | (environment or {})
        self.results = tempfile.NamedTemporaryFile(suffix=".npz")  # noqa: SIM115 (it lives as long as the process)
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        command = [interpreter, "-m", f"{__package__}.worker", peer, str(threads), path, self.results.name]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": self.errors,
        }
        self.peer = peer
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return dict(json.loads(answer)) if answer else {"missing": self.last_words()}

    def last_words(self) -> str:
        """Of a process that has ended: the last line of its errors, unless it was killed, for want of memory say."""
        status = self.process.wait()
        if status < 0:
            return f"its process was ended by signal {-status}"
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return ": ".join(["its process ended", *said[-1:]])

    def prepare(self, case: Case, dx: bool) -> dict[str, np.ndarray] | str:
        """Its results, or why there are none."""
        reply = self.ask(case=case.name, dx=dx)
        return str(reply["missing"]) if "missing" in reply else dict(np.load(reply["results"]))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()  # it waits, and closes the pipes
        self.results.close()
        self.errors.close()


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[str]:
    """What both computed and do not agree on."""
    return [
        f"{name} differs by {np.abs(a - theirs[name]).max() / max(np.abs(a).max(), 1e-9):.1e} of its largest value"
        for name, a in ours.items()
        if name in theirs
        and not np.allclose(a, theirs[name], rtol=0, atol=TOLERANCE * max(np.abs(a).max(), 1e-9))
    ]


def compare(ours: Contender, peer: Contender, case: Case, dx: bool, pairs: int) -> Row | str:
    """One row, or why there is none."""
    one, other = ours.prepare(case, dx), peer.prepare(case, dx)
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else str(other)
    if wrong := differences(one, other):
        raise SystemExit(f"{case.name}: {peer.peer}'s results are not ours: {'; '.join(wrong)}")
    times = []
    for _ in range(pairs):
        replies = ours.ask(time=True), peer.ask(time=True)
        if why := [reply["missing"] for reply in replies if "missing" in reply]:
            return str(why[0])
        times.append(tuple(reply["ms"] for reply in replies))
    a, b = zip(*times, strict=True)
    return Row(case, dx, peer.peer, statistics.median(a), statistics.median(b), [x / y for x, y in times])


def peers(args: argparse.Namespace) -> dict[str, str]:
    """Installed peers and given checkouts: name -> path."""
    found = {name: "" for name in ("torch", "keras") if importlib.util.find_spec(name)}
    found |= {"dezero": args.dezero} if args.dezero else {}
    found |= {"numpy_ml": args.numpy_ml} if args.numpy_ml else {}
    return {name: path for name, path in found.items() if not args.peers or name in args.peers}


def run(
    args: argparse.Namespace, environment: dict[str, str], interpreter: str = sys.executable
) -> tuple[list[Row], list[str]]:
    """All rows, printed as they come, and the contenders' versions; `interpreter` runs ours."""
    cases = [CASES[name] for name in args.cases or CASES]
    ours = Contender("ours", args.threads, environment=environment, interpreter=interpreter)
    reply = ours.ask(version=True)
    if "missing" in reply:
        raise SystemExit(f"ours: {reply['missing']}")
    versions, rows = [reply["version"]], []
    for name, path in peers(args).items():
        peer = Contender(name, args.threads, path)
        reply = peer.ask(version=True)
        if "missing" in reply:
            print(f"\n{name}: {reply['missing']}")
            peer.close()
            continue
        versions.append(reply["version"])
        print(f"\n{versions[-1]}\n{HEAD}")
        for case in cases:
            for dx in (True, False):
                pairs = args.pairs if name == "torch" else max(1, min(3, args.pairs))
                row = compare(ours, peer, case, dx, pairs)
                if isinstance(row, Row):
                    rows.append(row)
                    print(line(row), flush=True)
                elif row != "not offered":
                    print(f"| {case.name} | {name}: {row} |", flush=True)
        peer.close()
    ours.close()
    return rows, versions


HEAD = (
    "| case | dx | ours (ms) | theirs (ms) | ours / theirs | lowest to highest | to reach |\n"
    + 7 * "|---"
    + "|"
)
REACH = {"keras": "0.33; Shi 1.0", "dezero": "0.2"}


def line(row: Row) -> str:
    """A row as Markdown."""
    limit = f"{row.case.limit}" if row.peer == "torch" else REACH.get(row.peer, "")
    spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
    dx = "yes" if row.dx else "no"
    return f"| {row.case.name} | {dx} | {row.ours:.1f} | {row.theirs:.1f} | **{row.median:.2f}** | {spread} | {limit} |"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument(
        "--pairs", type=positive, default=7, help="turns of each pair of contenders (default: 7)"
    )
    parser.add_argument(
        "--threads", type=positive, default=len(os.sched_getaffinity(0)), help="of every contender"
    )
    parser.add_argument(
        "--peers", nargs="+", choices=("torch", "keras", "dezero", "numpy_ml"), help="only these"
    )
    parser.add_argument("--dezero", metavar="PATH", help="a checkout of DeZero")
    parser.add_argument("--numpy-ml", metavar="PATH", help="a checkout of numpy-ml; it needs SciPy")
    parser.add_argument(
        "--coretype", help="kernels that our OpenBLAS is to use, e.g. Haswell; default: its own choice"
    )
    parser.add_argument(
        "--free-threaded",
        metavar="PYTHON",
        help="an interpreter without Python's lock, with NumPy: with --write, one more table",
    )
    parser.add_argument(
        "--write", action="store_true", help="also measure memory and growth; write docs/benchmarks.md"
    )
    args = parser.parse_args(argv)
    unknown = sorted(set(args.cases) - set(CASES))
    if unknown:
        parser.error(f"unknown cases {unknown}, expected some of {', '.join(CASES)}")
    for name, path in (("dezero", args.dezero), ("numpy_ml", args.numpy_ml)):
        option = f"--{name.replace('_', '-')}"
        if path is not None and not Path(path, name).is_dir():
            parser.error(f"{option} is {path!r}, expected a checkout, a folder that holds {name}")
        if path is None and name in (args.peers or ()):
            parser.error(f"--peers {name} needs its checkout: {option} PATH")
    if lacking := sorted(set(args.peers or ()) - set(peers(args))):
        parser.error(f"--peers {' '.join(lacking)}: not installed")
    if args.free_threaded and not args.write:
        parser.error("--free-threaded adds a table to the page: give --write too")
    environment = {"OPENBLAS_CORETYPE": args.coretype} if args.coretype else {}
    rows, versions = run(args, environment)
    if args.write:
        from .report import write

        path = Path(__file__).parents[2] / "docs" / "benchmarks.md"
        tuned = []
        if not args.coretype:
            args.cases, args.peers = ["S", "M", "L", "Shi", "LSTM-16", "LSTM-50", "LSTM-100"], ["torch"]
            tuned, _ = run(args, {"OPENBLAS_CORETYPE": "Haswell"})
        unlocked: list[Row] = []
        if args.free_threaded:
            args.cases, args.peers = ["S", "M", "L", "Shi", "conv1d", "conv2d-stride", "demo step"], ["torch"]
            unlocked, _ = run(args, environment, args.free_threaded)
        write(path, rows, versions, args, tuned, unlocked)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
