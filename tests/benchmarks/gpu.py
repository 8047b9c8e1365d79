"""Time ConvLSTMs on a GPU: this package on CuPy beside PyTorch eager (cuDNN) on the same GPU.

    python -m tests.benchmarks.gpu                       M, L and Shi, batch 32, float32 and TF32 on both sides
    python -m tests.benchmarks.gpu --captured            and this package's passes recorded as CUDA graphs
    python -m tests.benchmarks.gpu L --batch 4 --cpu     and this package on the CPU

Forward and backward pass of the sequence with the gradient of the input, arrays on the device before and
after. Outputs and gradients are compared first; then both take turns. Medians in ms.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from tinyconvlstm.backend import BackendError, module_of, synchronise, to_backend, to_numpy
from tinyconvlstm.kernels import captured
from tinyconvlstm.precision import PRECISIONS, products

from . import ours_peer
from .cases import CASES, Case

TOLERANCE = {"float32": 2e-4, "tf32": 2e-2}  # of the largest value
HEAD = (
    "| case | batch | precision | ours (ms) | PyTorch (ms) | ours / PyTorch | lowest to highest | other |\n"
    + 8 * "|---"
    + "|"
)
Run = Callable[[], dict[str, Any]]


def ours(case: Case, backend: str, graph: bool = False) -> Run:
    """One pass of this package; `graph`: recorded once and replayed."""
    a = to_backend(case.arrays(), backend)
    if not graph:
        return ours_peer.recurrent(case, a, True)

    def one_pass(xs: Any, dys: Any) -> dict[str, Any]:
        return ours_peer.recurrent(case, {**a, "xs": xs, "dys": dys}, True)()

    replayed = captured(one_pass)
    return lambda: replayed(a["xs"], a["dys"])


def theirs(case: Case, device: str) -> Run:
    """One pass of PyTorch, on a device."""
    import torch

    from . import torch_peer

    torch.set_default_device(device)
    torch_peer.numpy = dict  # type: ignore[assignment] (results stay on the device)
    arrays = {name: torch.from_numpy(a).to(device) for name, a in case.arrays().items()}
    return torch_peer.convlstm(case, arrays, True)


def tf32_in_pytorch(on: bool) -> None:
    """Both of PyTorch's switches."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def wait(results: dict[str, Any]) -> None:
    """Until the GPU has finished."""
    a = results["ys"]
    if hasattr(a, "cpu"):
        if a.is_cuda:
            import torch

            torch.cuda.synchronize()
    else:
        synchronise(a)


def milliseconds(run: Run, at_least: float) -> float:
    """One pass, averaged over so many seconds."""
    wait(run())
    began, runs, seconds = time.perf_counter(), 0, 0.0
    while not runs or seconds < at_least:
        wait(run())
        runs, seconds = runs + 1, time.perf_counter() - began
    return 1e3 * seconds / runs


def check_alike(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    """SystemExit where outputs or gradients differ."""
    for name, a in to_numpy(one).items():
        b = other[name].cpu().numpy() if hasattr(other[name], "cpu") else to_numpy(other[name])
        error = np.abs(a - b).max() / np.abs(a).max()
        if not error <= tolerance:
            raise SystemExit(f"{name} differs by {error:.1e} of its largest value, expected {tolerance:g}")


def rows(args: argparse.Namespace) -> list[str]:
    """The table's rows, printed as they come."""
    found = []
    for name in args.cases:
        case = replace(CASES[name], sizes={**CASES[name].sizes, "N": args.batch})
        for precision in args.precisions:
            tf32_in_pytorch(precision == "tf32")
            with products(precision) if args.backend == "cupy" else nullcontext():
                us, them = ours(case, args.backend), theirs(case, args.device)
                check_alike(us(), them(), TOLERANCE[precision])
                other = {}
                if args.captured:
                    graph = ours(case, args.backend, graph=True)
                    check_alike(us(), graph(), TOLERANCE[precision])
                    other["captured"] = milliseconds(graph, args.seconds)
                if args.cpu:
                    other["CPU"] = milliseconds(ours(case, "numpy"), args.seconds)
                pairs = [
                    (milliseconds(us, args.seconds), milliseconds(them, args.seconds))
                    for _ in range(args.pairs)
                ]
            a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratios = [x / y for x, y in pairs]
            extra = ", ".join(f"{what} {ms:.2f}" for what, ms in other.items())
            found.append(
                f"| {name} | {args.batch} | {precision} | {a:.2f} | {b:.2f} | **{statistics.median(ratios):.2f}** "
                f"| {min(ratios):.2f} to {max(ratios):.2f} | {extra} |"
            )
            print(found[-1], flush=True)
    return found


def main(argv: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convlstms = [name for name, case in CASES.items() if case.kind == "convlstm"]
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(convlstms)}; default: M, L and Shi")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--captured", action="store_true", help="also with captured graphs")
    parser.add_argument("--cpu", action="store_true", help="also this package on the CPU")
    parser.add_argument("--backend", choices=("cupy", "numpy"), default="cupy")
    parser.add_argument("--device", default="cuda", help="PyTorch's")
    args = parser.parse_args(argv)
    args.cases = args.cases or ["M", "L", "Shi"]
    if unknown := sorted(set(args.cases) - set(convlstms)):
        parser.error(f"unknown cases {unknown}, expected some of {', '.join(convlstms)}")
    try:
        module_of(args.backend)
    except BackendError as error:
        parser.error(str(error))
    print(HEAD)
    return rows(args)


if __name__ == "__main__":
    main()
