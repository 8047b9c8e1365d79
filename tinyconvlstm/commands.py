"""What each command of the command line does. The parser is in `cli.py`.

Every function takes the parsed options and returns the exit status. Nothing heavy is imported before
a command needs it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def one_line(error: BaseException) -> str:
    """The error's message on one line, or its kind when it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


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

    from .backend import use_device
    from .demo import train_forecaster
    from .distributed import Group
    from .files import write_atomically
    from .job import evaluate
    from .parallel import set_threads, usable_cores

    settings = args.out / "job.json"
    with Group.world(timeout=args.timeout, cuda_aware=args.cuda_aware, trace=args.traceback) as group:
        job = job_of(args, preset_of(args) | (stored(settings) if args.resume else {}))
        group.check_same("settings", job)
        if group.size > 1 and args.threads is None:
            set_threads(max(1, usable_cores() // group.neighbours))
        if group.size > 1 and job.backend == "cupy":
            use_device(group.rank)
        model = job.model()
        if group.leads:
            print(model.summary((job.observed, job.batch, 1, job.canvas, job.canvas)))
        train_forecaster(
            model,
            job,
            args.out,
            resume=args.resume,
            valid_every=args.valid_every,
            group=group,
            minutes=args.minutes,
            on_start=lambda: write_atomically(settings, json.dumps(job.to_dict(), indent=2).encode()),
        )
        if group.leads:
            print(evaluate(model, job, clips=50))
            print(
                f"log, checkpoints and settings are in {args.out}; measure with: tinyconvlstm evaluate {args.out}"
            )
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """`tinyconvlstm evaluate`."""
    from .demo import draw
    from .job import evaluate
    from .metrics import nats_per_sequence

    path = model_file(args.model)
    job = job_of(args, stored(path.parent / "job.json"))
    model = load(path, job.backend)
    job = job_of(args, {**job.to_dict(), "canvas": model.size[0]})
    result = evaluate(model, job, clips=args.clips, split=args.split)
    print(result)
    print(
        f"error {abs(result.gain):.0%} {'below' if result.gain >= 0 else 'above'} that of copying the last frame"
    )
    nats = nats_per_sequence(next(iter(result.forecasts.values())), result.truth, logits=False)
    print(f"{nats:.2f} nats a sequence of {len(result.truth)} frames of {result.truth[0, 0].size} pixels")
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


def run_task(args: argparse.Namespace) -> int:
    """`tinyconvlstm task`."""
    from .tasks.command import run

    return run(args.name, args.out, listed=args.list, quick=args.quick, seed=args.seed)


def run_info(args: argparse.Namespace) -> int:
    """`tinyconvlstm info`."""
    from .info import lines

    print("\n".join(lines()))
    return 0


def job_of(args: argparse.Namespace, base: dict[str, Any]) -> Any:
    """The job from stored settings, overruled by the options that were given."""
    from .job import Job

    given = {k: v for k, v in vars(args).items() if k in Job.__dataclass_fields__ and v is not None}
    if getattr(args, "fc_lstm", False):
        given["kernel"] = None
    if given.get("peephole") == "none":
        given["peephole"] = None
    return Job.of({**base, **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}})


def preset_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the published training that was asked for, or none."""
    from .models.presets import protocol

    return protocol(args.preset) if args.preset else {}


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
