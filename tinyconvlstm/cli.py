"""The command line: demo, gradcheck, train, evaluate, predict, task, info.

This file knows the options; `commands.py` does the work. A user's mistake prints one line and exits
with 2; a failed check or an unmet goal exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .commands import (
    one_line,
    run_demo,
    run_evaluate,
    run_gradcheck,
    run_info,
    run_predict,
    run_task,
    run_train,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        if args.threads is not None:
            from .parallel import set_threads

            set_threads(args.threads)
        return int(args.run(args))
    except KeyboardInterrupt as stop:
        print(f"interrupted{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader, such as head, has seen enough
    except (ValueError, TypeError, OSError, ArithmeticError, MemoryError, ImportError) as error:
        if args.traceback:
            raise
        print(f"tinyconvlstm {args.command}: {one_line(error)}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tinyconvlstm",
        description="Convolutional LSTMs from scratch in NumPy: check their gradients, train them, look inside.",
        epilog="Start with: tinyconvlstm demo",
    )
    parser.add_argument("--version", action="version", version=f"tinyconvlstm {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    demo = add(
        commands, "demo", run_demo, "check gradients, train on moving digits, forecast, draw (2 to 3 minutes)"
    )
    demo.add_argument("--quick", action="store_true", help="a much shorter training, about 20 seconds")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures, report and model")
    demo.add_argument("--seed", type=whole, default=0, help="of weights and clips")
    demo.add_argument("--backend", choices=("numpy", "cupy"), default="numpy")
    demo.add_argument("--mnist", metavar="FILE", help="MNIST idx images file, instead of the packaged digits")

    check = add(
        commands, "gradcheck", run_gradcheck, "check the gradient of every operation, cell, layer and model"
    )
    check.add_argument("name", nargs="?", help="only cases whose name contains this, e.g. conv or lstm")
    check.add_argument("--list", action="store_true", help="list the cases and check nothing")
    check.add_argument("--verbose", action="store_true", help="print the full table of every case")

    training = add(commands, "train", run_train, "train a forecaster of moving digits with your own settings")
    training.add_argument(
        "--preset",
        metavar="NAME",
        help="settings of a published training: shi-2015; other options overrule it",
    )
    training.add_argument(
        "--minutes", type=float, help="stop and keep a checkpoint after so long; --resume goes on"
    )
    add_job(training)
    training.add_argument(
        "--out", type=Path, default=Path("runs/forecaster"), help="folder for log and checkpoints"
    )
    training.add_argument("--resume", action="store_true", help="go on from OUT/last.safetensors, exactly")
    training.add_argument("--valid-every", type=whole, default=100, metavar="STEPS")
    ranks = training.add_argument_group(
        "many ranks (mpiexec -n 4 python -m mpi4py -m tinyconvlstm train ...)"
    )
    ranks.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="wait for a rank before the job is ended",
    )
    ranks.add_argument("--cuda-aware", action="store_true", help="hand GPU arrays to MPI as they are")

    judge = add(
        commands, "evaluate", run_evaluate, "measure a model on held-out clips, beside both baselines"
    )
    judge.add_argument("model", type=Path, help="a model file, or the folder of a training")
    judge.add_argument("--clips", type=positive, default=200)
    judge.add_argument("--split", choices=("train", "validation", "test"), default="test")
    judge.add_argument("--out", type=Path, help="folder for pictures; default: none")
    add_clips(judge)

    forecast = add(commands, "predict", run_predict, "forecast the frames that follow a clip")
    forecast.add_argument("model", type=Path, help="a model file, or the folder of a training")
    forecast.add_argument(
        "clip", type=Path, help=".npy of frames in [0, 1]: (T, H, W), (T, C, H, W) or (T, N, C, H, W)"
    )
    forecast.add_argument("--horizon", type=positive, default=10, help="frames to forecast")
    forecast.add_argument(
        "--out", type=Path, default=Path("forecast.npy"), help=".npy file, frames as in the clip"
    )
    forecast.add_argument("--gif", type=Path, help="also write an animation")
    forecast.add_argument("--backend", choices=("numpy", "cupy"), default="numpy")

    example = add(
        commands, "task", run_task, "run a small, real example: classify, track, caption ...; --list explains"
    )
    example.add_argument("name", nargs="?", help="of the task, or `all`; see --list")
    example.add_argument("--list", action="store_true", help="explain the tasks and run none")
    example.add_argument(
        "--quick", action="store_true", help="a much shorter training; its goal is not judged"
    )
    example.add_argument("--seed", type=whole, default=0, help="of weights and data")
    example.add_argument(
        "--out", type=Path, default=Path("tasks"), help="folder for the picture and the numbers"
    )

    add(commands, "info", run_info, "print versions, BLAS, threads and GPU")
    return parser


def add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """A command with its function and the options that all share."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="on an error, show where it arose")
    parser.add_argument(
        "--threads", type=positive, help="of this process; default: TINYCONVLSTM_THREADS or all cores"
    )
    parser.set_defaults(run=run)
    return parser


def add_clips(parser: argparse.ArgumentParser) -> None:
    """The options that say what the clips are; None means as in training, or the job's default."""
    group = parser.add_argument_group("clips")
    group.add_argument("--digits", type=positive, help="digits in a clip")
    group.add_argument("--digit-size", type=positive, help="side of a digit, in pixels")
    group.add_argument("--speed", type=float, nargs=2, metavar=("SLOW", "FAST"), help="pixels per frame")
    group.add_argument("--observed", type=positive, help="frames read")
    group.add_argument("--horizon", type=positive, help="frames forecast")
    group.add_argument("--seed", type=whole, help="of weights and clips")
    group.add_argument(
        "--mnist", metavar="FILE", help="MNIST idx images file, instead of the packaged digits"
    )
    group.add_argument("--backend", choices=("numpy", "cupy"))


def add_job(parser: argparse.ArgumentParser) -> None:
    """All settings of the main job; None means the demo's."""
    add_clips(parser)
    group = parser.add_argument_group("model")
    group.add_argument("--canvas", type=positive, help="side of the frames, in pixels")
    group.add_argument("--features", type=positive, nargs="+", help="features of each layer, bottom first")
    group.add_argument("--kernel", type=positive, help="side of the input kernels")
    group.add_argument("--state-kernel", type=positive, help="side of the state kernels; default: the same")
    group.add_argument(
        "--fc-lstm", action="store_true", help="dense layers on whole frames: the FC-LSTM baseline"
    )
    group.add_argument("--patch", type=positive, help="side of the patches a frame is cut into")
    group.add_argument("--peephole", choices=("none", "channel", "map"))
    group.add_argument(
        "--feed", action="store_true", default=None, help="feed the frame before to the forecaster"
    )
    group.add_argument(
        "--truth-rate", type=float, help="with --feed: how often the true frame is fed in training"
    )
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=positive)
    group.add_argument("--batch", type=positive, help="clips a step")
    group.add_argument("--lr", type=float, help="highest learning rate")
    group.add_argument("--optimizer", choices=("adam", "adamw", "rmsprop", "sgd"))
    group.add_argument("--decay", choices=("cosine", "none"), help="of the learning rate")
    group.add_argument("--clip", type=float, help="largest norm of the gradient")


def positive(text: str) -> int:
    """An option's whole number of at least 1."""
    return bounded(text, 1)


def whole(text: str) -> int:
    """An option's whole number of at least 0."""
    return bounded(text, 0)


def bounded(text: str, smallest: int) -> int:
    """An option's whole number of at least `smallest`, or argparse's one-line error."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < smallest:
        raise argparse.ArgumentTypeError(f"{number} is less than {smallest}")
    return number


def version() -> str:
    """The package's version."""
    from . import __version__

    return __version__
