"""One contender in a process of its own: reads a request a line, answers with a line.

{"case": "M", "dx": true}   ->  prepares it, runs it once: {"results": path of an npz} or {"missing": why}
{"time": true}              ->  runs it again, small ones often, after one that does not count: {"ms": 381.2} a run
{"version": true}           ->  {"version": "PyTorch 2.13.0"}
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import CASES

PAUSE = 0.05  # seconds, in which the other contender's idle threads stop spinning
AT_LEAST = 0.1  # seconds of a measurement


def main(peer: str, threads: int, path: str | None, results: str) -> None:
    """Serve requests from stdin until it closes."""
    if path:
        sys.path.insert(0, path)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a peer prints must not mix with the answers
    contender = importlib.import_module(f".{peer}_peer", __package__)
    contender.set_threads(threads)
    run: Callable[[], Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                case = CASES[request["case"]]
                run = contender.prepare(case, case.arrays(), request["dx"])
                reply = {"missing": "not offered"}
                if run is not None:
                    np.savez(results, **run())
                    reply = {"results": results}
            elif "time" in request and run is not None:
                time.sleep(PAUSE)
                reply = {"ms": 1e3 * seconds(run)}
            else:
                reply = {"version": contender.version()}
        except Exception as error:  # the table says so; the other contenders go on
            traceback.print_exc()
            reply = {"missing": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def seconds(run: Callable[[], Any]) -> float:
    """Of one run; a small one's, on average, after a first one: what it reads has left the caches during the pause."""
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    if first >= AT_LEAST:
        return first
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < AT_LEAST:
        run()
        runs += 1
    return (time.perf_counter() - began) / runs


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] or None, sys.argv[4])
