"""The command line: demo, gradcheck, train, evaluate, predict, info.

Nothing heavy is imported before a command needs it. A user's mistake prints one line and exits
with 2; a failed check or an unmet goal exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    try:
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


def one_line(error: BaseException) -> str:
    """The error's message on one line, or its kind when it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


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
    add_job(training)
    training.add_argument(
        "--out", type=Path, default=Path("runs/forecaster"), help="folder for log and checkpoints"
    )
    training.add_argument("--resume", action="store_true", help="go on from OUT/last.safetensors, exactly")
    training.add_argument("--valid-every", type=whole, default=100, metavar="STEPS")

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
    group.add_argument("--clip", type=float, help="largest norm of the gradient")


def run_demo(args: argparse.Namespace) -> int:
    """`tinyconvlstm demo`."""
    from .demo import run
    from .job import Job

    job = Job(seed=args.seed, backend=args.backend, mnist=args.mnist)
    return run(job, args.out, quick=args.quick)


def run_gradcheck(args: argparse.Namespace) -> int:
    """`tinyconvlstm gradcheck`."""
    from .gradcheck.command import run

    return int(run(args.name, args.verbose, listing=args.list))


def run_train(args: argparse.Namespace) -> int:
    """`tinyconvlstm train`."""
    import json

    from .demo import train_forecaster
    from .files import write_atomically
    from .job import evaluate

    settings = args.out / "job.json"
    job = job_of(args, stored(settings) if args.resume else {})
    model = job.model()
    frames = (job.observed, job.batch, 1, job.canvas, job.canvas)
    print(model.summary(frames))
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomically(settings, json.dumps(job.to_dict(), indent=2).encode())
    train_forecaster(model, job, args.out, resume=args.resume, valid_every=args.valid_every)
    print(evaluate(model, job, clips=50))
    print(f"log, checkpoints and settings are in {args.out}; measure with: tinyconvlstm evaluate {args.out}")
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """`tinyconvlstm evaluate`."""
    from .demo import draw
    from .job import evaluate

    path = model_file(args.model)
    job = job_of(args, stored(path.parent / "job.json"))
    model = load(path, job.backend)
    job = job_of(args, {**job.to_dict(), "canvas": model.size[0]})
    result = evaluate(model, job, clips=args.clips, split=args.split)
    print(result)
    print(
        f"error {abs(result.gain):.0%} {'below' if result.gain >= 0 else 'above'} that of copying the last frame"
    )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        draw(model, job, result, args.out)
        print(f"pictures are in {args.out}")
    return 0


def run_predict(args: argparse.Namespace) -> int:
    """`tinyconvlstm predict`."""
    import io

    import numpy as np

    from .backend import to_backend, to_numpy
    from .files import write_atomically
    from .job import check_finite

    model = load(model_file(args.model), args.backend)
    try:
        clip = np.load(args.clip, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{args.clip}: no .npy file of numbers ({one_line(error)})") from error
    if (
        not isinstance(clip, np.ndarray)
        or clip.dtype.kind not in "fiu"
        or not 3 <= clip.ndim <= 5
        or not clip.size
    ):
        found = f"shape {clip.shape}, {clip.dtype}" if isinstance(clip, np.ndarray) else "several arrays"
        raise ValueError(f"{args.clip}: {found}, expected numbers (T, H, W), (T, C, H, W) or (T, N, C, H, W)")
    lead = (slice(None), *(None,) * (5 - clip.ndim))  # batch and channel axes that the clip leaves out
    frames = clip[lead].astype(np.float32)
    check_finite(frames, str(args.clip))
    if frames.min() < 0 or frames.max() > 1:
        raise ValueError(f"{args.clip}: pixels are in {frames.min():g}..{frames.max():g}, expected 0..1")
    forecast = to_numpy(model.predict(to_backend(frames, args.backend), args.horizon))
    shaped = forecast.reshape(args.horizon, *clip.shape[1:])
    buffer = io.BytesIO()
    np.save(buffer, shaped)
    write_atomically(args.out, buffer.getvalue())
    print(f"{args.horizon} frames of shape {clip.shape[1:]} are in {args.out}")
    if args.gif:
        from .viz.strips import forecast_gif

        forecast_gif(
            args.gif, frames, None, {"forecast": forecast}, clips=tuple(range(min(3, frames.shape[1])))
        )
        print(f"animation is in {args.gif}")
    return 0


def run_info(args: argparse.Namespace) -> int:
    """`tinyconvlstm info`."""
    from .info import lines

    print("\n".join(lines()))
    return 0


def job_of(args: argparse.Namespace, base: dict[str, Any]) -> Any:
    """The job from stored settings, overruled by the options that were given."""
    from .job import Job

    given = {k: v for k, v in vars(args).items() if k in Job.__dataclass_fields__ and v is not None}
    if given.get("peephole") == "none":
        given["peephole"] = None
    return Job.of({**base, **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}})


def stored(path: Path) -> dict[str, Any]:
    """The settings of an earlier training, or none."""
    import json

    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({one_line(error)})") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected a JSON object of settings")
    return settings


def model_file(path: Path) -> Path:
    """The model file at a path; in a training's folder the best one."""
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors", "model.safetensors"):
            if (path / name).exists():
                return path / name
        raise ValueError(f"{path}: no model file in this folder")
    return path


def load(path: Path, backend: str) -> Any:
    """A forecaster from a file, on a backend."""
    from .models.storage import load_model

    return load_model(path).to_backend(backend)


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
