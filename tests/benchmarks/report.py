"""docs/benchmarks.md: the tables, where the time goes, memory, and how cost grows."""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tinyconvlstm as tcl
from tinyconvlstm.info import blas
from tinyconvlstm.layers.memory import peak
from tinyconvlstm.layers.unfolded import convolutions
from tinyconvlstm.ops import columns as columns_module
from tinyconvlstm.ops import conv, gates, lowering, overlapping, products, tiled, winograd
from tinyconvlstm.ops import windows as windows_module

from . import ours_peer
from .__main__ import HEAD, Row, line
from .cases import CASES


def write(
    path: Path,
    rows: list[Row],
    versions: list[str],
    args: argparse.Namespace,
    tuned: list[Row],
    unlocked: list[Row],
) -> None:
    """Measure what is left and write the page; the text before the mark stays."""
    before, mark, _ = path.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    parts = [
        machine(versions, args),
        *tables(rows),
        *unlocked_table(unlocked, args.free_threaded),
        *tuned_table(tuned),
        profiles(),
        memory(),
        growth(path.parent),
    ]
    path.write_text(before + mark + "\n\n".join(parts) + "\n", encoding="utf-8")


def machine(versions: list[str], args: argparse.Namespace) -> str:
    """What was measured on what."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [
            entry.partition(":")[2].strip()
            for entry in cpuinfo.read_text().splitlines()
            if "model name" in entry
        ]
        name = found[0] if found else name
    peak_rate = product_rate()
    return (
        f"Measured on {name}, {len(os.sched_getaffinity(0))} cores, {args.threads} threads for every contender; "
        f"{platform.system()}, Python {platform.python_version()}, BLAS {blas()}; {'; '.join(versions)}. "
        f"A product of two 2048 x 2048 matrices runs at {peak_rate:.0f} GFLOP/s on all cores. "
        "dx says whether the gradient of the input is made. float32; medians of paired turns."
    )


def product_rate() -> float:
    """GFLOP/s of a large matrix product."""
    a = np.ones((2048, 2048), np.float32)
    return 2 * 2048**3 / min(timed(lambda: a @ a) for _ in range(7)) / 1e9


def timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def tables(rows: list[Row]) -> list[str]:
    """A table for each peer."""
    titles = {
        "torch": "PyTorch, eager",
        "keras": "Keras on PyTorch",
        "dezero": "DeZero",
        "numpy_ml": "numpy-ml",
    }
    found = []
    for peer, title in titles.items():
        own = [row for row in rows if row.peer == peer]
        if own:
            found.append(f"## Beside {title}\n\n{HEAD}\n" + "\n".join(map(line, own)))
    return found


def unlocked_table(rows: list[Row], interpreter: str | None) -> list[str]:
    """The same by an interpreter without Python's lock."""
    if not rows or interpreter is None:
        return []
    asked = (
        "import sys, numpy; print(f'CPython {sys.version.partition(\" (\")[0]}, NumPy {numpy.__version__}')"
    )
    answer = subprocess.run([interpreter, "-c", asked], capture_output=True, text=True, check=True)
    text = (
        f"## Without Python's lock\n\nThe same lines of ours, run by a free-threaded interpreter "
        f"({answer.stdout.strip()}); PyTorch as above. Two threads no longer wait for one another:\n\n"
    )
    return [text + HEAD + "\n" + "\n".join(map(line, rows))]


def tuned_table(rows: list[Row]) -> list[str]:
    """The same with other BLAS kernels."""
    if not rows:
        return []
    text = (
        "## With OpenBLAS's Haswell kernels\n\nOn AMD's Zen 4, OpenBLAS chooses kernels for Intel's SkylakeX. Its Haswell "
        "kernels multiply large matrices 6 to 10 % faster there (on Intel's own processors slower), but read no small ones in place, so "
        "that nothing is cut. "
        "The environment chooses them, before NumPy is imported: `OPENBLAS_CORETYPE=Haswell`. Beside PyTorch, which has its own library:\n\n"
    )
    return [text + HEAD + "\n" + "\n".join(map(line, rows))]


PROFILED = (
    "S",
    "M",
    "L",
    "Shi",
    "LSTM-16",
    "LSTM-50",
    "LSTM-100",
    "conv1d",
    "conv2d",
    "conv2d-stride",
    "conv3d",
    "conv2d-dilated",
    "conv2d-depthwise",
)
PROFILED += ("maxpool1d", "maxpool2d", "maxpool3d", "layer norm", "attention", "sampling", "demo step")
ELEMENTWISE = ("pool", "layer_norm", "sampling")  # kinds without products
PARTS = ("products", "patches", "columns", "transforms", "gates", "padding")


def profiles() -> str:
    """Seconds of one thread in products and elsewhere, beside the bound of the products alone."""
    head = (
        "## Where the time goes\n\nOne thread, gradient of the input included; the fastest of three runs. The bound is the time of the "
        "multiply-accumulates that are made, at the speed of a 2048 x 2048 product of one thread; *by im2col* is that time where "
        "Winograd's transforms save none of them. Of a pooling, a layer norm and a sampling, the bound is that of reading x and dy "
        "and writing y and dx at the speed of a large copy.\n\n"
        "| case | all (ms) | by im2col | bound | products | patches | columns added | transforms | gates | padding | the rest |\n"
        + 11 * "|---"
        + "|\n"
    )
    lines = []
    tcl.set_threads(1)
    try:
        rate, copies = product_rate() * 1e9, copy_rate()
        for name in PROFILED:
            case = CASES[name]
            run = ours_peer.prepare(case, case.arrays(), case.kind != "train")
            run()
            total, spent, made = min((profile(run, case) for _ in range(3)), key=lambda found: found[0])
            rest = total - sum(spent.values())
            bare = case.kind in ELEMENTWISE
            plain = moved(case.arrays()) / copies if bare else 2 * 3 * macs(case) / rate
            bound = plain if bare or case.kind in ("lstm", "attention") else 2 * made / rate
            cells = [spent[k] for k in PARTS]
            lines.append(
                "| "
                + " | ".join([name, *(f"{1e3 * t:.3g}" for t in (total, plain, bound, *cells, rest))])
                + " |"
            )
    finally:
        tcl.set_threads(None)
    return head + "\n".join(lines)


def profile(run: Callable[[], Any], case: Any) -> tuple[float, dict[str, float], int]:
    """Seconds of one run, those of its parts, and the multiply-accumulates of its products."""
    with stopwatch(dense=case.kind == "lstm") as (spent, made):
        total = timed(run)
    return total, spent, made[0]


def macs(case: Any) -> int:
    """Multiply-accumulates of a forward pass; the first step has no state to convolve."""
    s = case.sizes
    if case.kind == "train":
        model = tcl.Forecaster((s["F"],), size=s["S"], kernel=s["k"], patch=s["patch"])
        return int(model.cost((s["T"], s["N"], 1, *s["S"])).macs)
    if case.kind == "attention":
        return int(2 * s["N"] * s["C"] * math.prod(s["S"]) ** 2)
    if case.kind == "conv":
        out = math.prod(-(-n // s.get("stride", 1)) for n in s["S"])
        return int(s["N"] * out * s["F"] * s["C"] // s.get("groups", 1) * s["k"] ** len(s["S"]))
    return recurrent_macs(s)


def recurrent_macs(s: dict[str, Any]) -> int:
    """Those of an LSTM or a ConvLSTM."""
    positions, taps = math.prod(s.get("S", ())), s.get("k", 1) ** len(s.get("S", ()))
    return int(s["N"] * positions * 4 * s["F"] * taps * (s["T"] * s["C"] + (s["T"] - 1) * s["F"]))


def work_of(cell: Any, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of a forward pass as they are made, and as many for each number that is copied or transformed.

    As many as `winograd.WORTH` says.
    """
    found = 0
    for geometry, low, w, *_ in convolutions(cell, shape[3:]):
        tile = getattr(low, "m", (1,) * len(geometry.out))
        tiles = math.prod(-(-n // m) for n, m in zip(geometry.out, tile, strict=True))
        sample = low.size * tiles + winograd.WORTH * low.numbers * geometry.positions
        found += (shape[0] - (w is cell.params["w_h"])) * shape[1] * sample
    return found


def moved(arrays: dict[str, np.ndarray]) -> int:
    """Bytes that an operation without products must read (x, dy) and write (y, dx)."""
    return 2 * (arrays["x"].nbytes + arrays["dy"].nbytes)


def copy_rate() -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = np.ones(16_000_000, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: np.copyto(target, source)) for _ in range(5))


@contextmanager
def stopwatch(dense: bool = False) -> Iterator[tuple[dict[str, float], list[int]]]:
    """Time the parts of a scan while the block runs, and count the products' multiply-accumulates.

    A part's time is its own, without that of a part inside it. Dense maps are products and nothing else.
    """
    spent, made, inside = dict.fromkeys(PARTS, 0.0), [0], [0.0]
    counted = (np.matmul, winograd.multiplied)

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.append(0.0)
            began = time.perf_counter()
            result = function(*args, **kwargs)
            elapsed = time.perf_counter() - began
            spent[name] += elapsed - inside.pop()
            inside[-1] += elapsed
            if function in counted:
                made[0] += result.size * args[0].shape[-1]
            return result

        return call

    class Watched:
        matmul = staticmethod(watched("products", np.matmul))
        ascontiguousarray = staticmethod(watched("patches", np.ascontiguousarray))

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    from tinyconvlstm.cells import base, lstm, maps

    places: list[tuple[Any, str, Any]] = [
        (products, "array_module", lambda *a, **k: Watched()),
        (overlapping, "array_module", lambda *a, **k: Watched()),
        (overlapping, "unfolded", watched("patches", overlapping.unfolded)),
        (tiled.Tiled, "patches", watched("patches", tiled.Tiled.patches)),
        (lowering, "columns", watched("patches", columns_module.columns)),
        (lowering, "patches", watched("patches", columns_module.patches)),
        (lowering, "add_columns", watched("columns", columns_module.add_columns)),
        (winograd, "under", watched("patches", winograd.under)),
        (winograd, "spread", watched("patches", winograd.spread)),
        (winograd, "evaluated", watched("transforms", winograd.evaluated)),
        (winograd, "interpolated", watched("transforms", winograd.interpolated)),
        (winograd, "multiplied", watched("products", winograd.multiplied)),
        (winograd.Winograd, "weights", watched("transforms", winograd.Winograd.weights)),
        (winograd.Winograd, "weights_adjoint", watched("transforms", winograd.Winograd.weights_adjoint)),
        (conv, "pad", watched("padding", windows_module.pad)),
        (lstm, "lstm_gates_forward", watched("gates", gates.lstm_gates_forward)),
        (lstm, "lstm_gates_backward", watched("gates", gates.lstm_gates_backward)),
        (lstm, "one_batch", watched("gates", lstm.one_batch)),
        (lstm, "lstm_slopes", watched("gates", gates.lstm_slopes)),
    ]
    if dense:
        whole = ("correlate", "correlate_adjoint_x", "correlate_adjoint_w", "correlate_adjoint_w_steps")
        places += [(maps, name, watched("products", getattr(maps, name))) for name in whole]
        places += [(base, "correlate_adjoint_x", watched("products", conv.correlate_adjoint_x))]
        places.append((maps, "array_module", lambda *a, **k: Watched()))
        backward_x = maps.ConvMap.backward_x
        places.append((maps.ConvMap, "backward_x", watched("products", backward_x)))
    kept = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, function in places:
        setattr(module, name, function)
    try:
        yield spent, made
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def memory() -> str:
    """Peak against the formula, and what checkpoints buy."""
    cell, shape = tcl.LSTMCell(8, 64, (3, 3)), (32, 4, 8, 32, 32)
    lines = [
        "## Memory",
        "",
        f"A training step of a ConvLSTM, {shape[2]} to {cell.features} channels, 3 x 3, {shape[0]} steps of "
        f"{shape[1]} clips of {shape[3]} x {shape[4]} pixels; the input and the upstream gradient not counted.",
        "",
        "| way back | formula (MB) | measured (MB) | measured / formula | time / full |",
        "|---|---|---|---|---|",
    ]
    modes: list[tuple[str, dict[str, int]]] = [("full", {}), ("truncated, k1 = k2 = 16", {"k2": 16})]
    modes += [(f"checkpointed every {every}", {"every": every}) for every in (2, 4, 6, 8, 16)]
    full = step_of(cell, shape)
    full()
    for name, settings in modes:
        run = step_of(cell, shape, **settings)
        run()
        ratio = statistics.median(timed(run) / timed(full) for _ in range(5)) if settings else 1.0
        held, predicted = traced(run), 4 * peak(cell, shape, **settings)
        lines.append(
            f"| {name} | {predicted / 1e6:.0f} | {held / 1e6:.0f} | {held / predicted:.2f} | {ratio:.2f} |"
        )
    lines += [
        "",
        "A loss on the final state alone (`sequence=False`): the memory of full BPTT over T steps, and that of 16 T steps "
        "checkpointed; both gradients of 16 T steps are equal. The time is compared over 16 T steps.",
        "",
        "| cell, frames | T | full BPTT, T (MB) | checkpointed, 16 T (MB) | every | time / full |",
        "|---|---|---|---|---|---|",
        sixteen_times(cell, 32, shape[1:], every=16),
        sixteen_times(tcl.LSTMCell(1, 8, (3, 3)), 64, (1, 1, 16, 16), every=16),
    ]
    return "\n".join(lines)


def sixteen_times(cell: Any, T: int, frame: tuple[int, ...], every: int) -> str:
    """A row: how much longer a sequence checkpoints train in the memory of full BPTT, and what that costs."""
    xs = np.random.default_rng(0).standard_normal((16 * T, *frame), dtype=np.float32)
    last = cell.initial_state(xs[0])
    last = last._replace(h=np.ones_like(last.h))

    def full(xs: Any) -> Any:
        return tcl.scan_backward(cell, None, last, tcl.scan(cell, xs)[2], input_grad=False)[2]

    def checkpointed(xs: Any) -> Any:
        kept = tcl.scan_checkpointed(cell, xs, every=every, sequence=False)[2]
        return tcl.scan_checkpointed_backward(cell, None, last, kept, input_grad=False)[2]

    one, other = full(xs), checkpointed(xs)
    if not all(np.array_equal(one[name], other[name]) for name in one):
        raise SystemExit("checkpointed gradients are not those of full BPTT")
    budget, needed = traced(lambda: full(xs[:T])), traced(lambda: checkpointed(xs))
    times = [(timed(lambda: checkpointed(xs)), timed(lambda: full(xs))) for _ in range(3)]
    ratio = statistics.median(a / b for a, b in times)
    C, *S = frame[1:]
    return (
        f"| {C} to {cell.features} channels, {frame[0]} of {' x '.join(map(str, S))} | {T} | {budget / 1e6:.2f} | "
        f"{needed / 1e6:.2f} | {every} | {ratio:.2f} |"
    )


def step_of(cell: Any, shape: tuple[int, ...], *, k2: int = 0, every: int = 0) -> Callable[[], Any]:
    """A scan and its backward pass."""
    rng = np.random.default_rng(0)
    xs = rng.standard_normal(shape, dtype=np.float32)
    dys = rng.standard_normal((shape[0], *cell.initial_state(xs[0]).h.shape), dtype=np.float32)

    def run() -> Any:
        if every:
            return tcl.scan_checkpointed_backward(
                cell, dys, None, tcl.scan_checkpointed(cell, xs, every=every)[2]
            )
        tape = tcl.scan(cell, xs)[2]
        if k2:
            return tcl.scan_truncated_backward(cell, dys, None, tape, k1=k2, k2=k2)
        return tcl.scan_backward(cell, dys, None, tape)

    return run


def traced(run: Callable[[], Any]) -> int:
    """Bytes at the peak."""
    tracemalloc.start()
    run()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def growth(folder: Path) -> str:
    """Time and memory as one size grows, drawn beside the predicted law."""
    from matplotlib.figure import Figure

    base = {"T": 6, "N": 4, "C": 32, "F": 32, "side": 32, "k": 3}
    grown = {"T": (3, 6, 12, 24), "N": (2, 4, 8, 16), "C": (16, 32, 64, 128), "F": (16, 32, 64, 128)}
    grown |= {"side": (16, 24, 32, 48, 64), "k": (1, 3, 5, 7)}
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for axis, (name, values) in zip(axes, grown.items(), strict=True):
        times, held, law, formula = [], [], [], []
        for value in values:
            s = base | {name: value}
            cell = tcl.LSTMCell(s["C"], s["F"], (s["k"], s["k"]))
            shape = (s["T"], s["N"], s["C"], s["side"], s["side"])
            run = step_of(cell, shape)
            run()
            times.append(min(timed(run) for _ in range(3)))
            held.append(traced(run) / 1e6)
            law.append(work_of(cell, shape))
            formula.append(4 * peak(cell, shape) / 1e6)
        at = values.index(base[name])
        scale = times[at] / law[at]
        axis.loglog(values, [1e3 * t for t in times], "o-", color="#0072b2", label="time (ms)")
        axis.loglog(values, [1e3 * scale * m for m in law], "--", color="#0072b2", label="as the work")
        axis.loglog(values, held, "s-", color="#d55e00", label="peak memory (MB)")
        axis.loglog(values, formula, ":", color="#d55e00", label="formula")
        axis.set_xticks(values, [str(v) for v in values])
        axis.minorticks_off()
        axis.set_title(
            {"side": "side of the image, H = W", "k": "side of the kernel"}.get(name, name), fontsize=10
        )
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(folder / "growth.png", dpi=110)
    return (
        "## How cost grows\n\nA ConvLSTM's forward and backward pass around T = 6, N = 4, C = F = 32, 32 x 32 pixels, 3 x 3, one size "
        "changed at a time, on logarithmic axes. Time is predicted from the multiply-accumulates that are made, and some sixty for each number that is copied or transformed, through the "
        "middle point; memory by the formula of `summary()`, without fitting.\n\n![time and memory against each size](growth.png)"
    )
