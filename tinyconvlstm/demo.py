"""`tinyconvlstm demo`: from a gradient check to a forecast of digits the model has never seen.

Check a few gradients, train a ConvLSTM with a progress bar, forecast held-out clips beside the two
free baselines, and leave a folder of pictures, a report and the model.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from .backend import Array
from .data.prefetch import Prefetch
from .distributed import Group
from .gradcheck.case import Case
from .gradcheck.engine import gradcheck
from .gradcheck.zoo import zoo
from .job import Evaluation, Job, evaluate, validation
from .models.forecaster import Forecaster
from .models.objective import forecast_loss_backward, forecast_loss_forward
from .models.storage import save_model
from .report import write_report
from .train import train
from .viz.gates import gates_over_time
from .viz.loss import loss_curves
from .viz.strips import forecast_gif, forecast_strip

CHECKED = (
    "conv/2d",
    "lstm_gates/peephole channel",
    "cell/ConvLSTM 2d peephole",
    "model/forecaster",
)  # in the zoo


def run(job: Job, out: Path, *, quick: bool = False, progress: bool = True) -> int:
    """The whole demo; pictures, report and model go to `out`. Returns the exit status.

    Args:
        job: the settings. quick: a much shorter training, for the impatient.
        out: the folder to write, made when missing.
        progress: show progress bars.
    """
    started = time.perf_counter()
    job = replace(job, steps=60) if quick else job
    out.mkdir(parents=True, exist_ok=True)

    say("1. Is every gradient right? Hand-written backward passes against numeric derivatives:")
    reports = [gradcheck(case, elements=5) for case in short_zoo()]
    for report in reports:
        say("   " + report.line())
    if not all(reports):
        say("   a gradient is wrong: stop here")
        return 1

    model = job.model()
    kind = f"{len(job.features)}-layer ConvLSTM, {model.count:,} parameters, {job.backend}"
    say(f"2. Training a {kind}, on {job.steps} batches of {job.batch} clips of moving digits:")
    train_forecaster(model, job, out, progress=progress)
    save_model(out / "model.safetensors", model)

    say(f"3. Forecasting {job.horizon} frames of held-out digits, from {job.observed} observed:")
    result = evaluate(model, job, clips=50 if quick else 200)
    say(indented(str(result)))
    say(f"   the model's error lies {result.gain:.0%} below that of copying the last frame")

    draw(model, job, result, out)
    facts = {
        "Model": kind,
        "Training": f"{job.steps} steps, batch {job.batch}, {job.optimizer}, learning rate {job.lr:g}",
        "Clips": clips_text(job),
        "Time": f"{time.perf_counter() - started:.0f} s",
    }
    checks = [(r.name, *(error_text(r.worst(method)) for method in ("central", "complex"))) for r in reports]
    write_demo_report(out, facts, result, checks)
    say(
        f"4. Done in {time.perf_counter() - started:.0f} s. Look at {out / 'report.html'} and {out / 'forecast.gif'}"
    )
    return 0


def train_forecaster(
    model: Forecaster,
    job: Job,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    valid_every: int = 100,
    group: Group | None = None,
    minutes: float | None = None,
    on_start: Callable[[], None] | None = None,
) -> None:
    """Train a forecaster on a job's clips, alone or in a group; log and checkpoints go to `out`.

    On a GPU the next clips are drawn and copied while these are being computed.
    """

    def loss_forward(model, frames, *, train, rng):  # type: ignore[no-untyped-def]
        return forecast_loss_forward(
            model, frames, observed=job.observed, train=train, rng=rng, truth_rate=job.truth_rate
        )

    clips, group = job.clips("train"), group or Group()
    part = group.part(job.batch)

    def batch(step: int) -> Array:
        return clips.batch(step, job.batch, part)

    with Prefetch(batch, job.backend) if job.backend == "cupy" else nullcontext(batch) as ahead:
        train(
            model,
            loss_forward,
            forecast_loss_backward,
            ahead,
            steps=job.steps,
            minutes=minutes,
            optimizer=job.learner(),
            schedule=job.schedule(),
            valid=validation(job),
            valid_every=valid_every,
            clip_norm=job.clip,
            out=out,
            seed=job.seed,
            resume=resume,
            progress=progress,
            group=group,
            clips=job.batch,
            on_start=on_start,
        )


def draw(model: Forecaster, job: Job, result: Evaluation, out: Path) -> None:
    """The four pictures: forecast.png, forecast.gif, gates.png, loss.png."""
    clips = result.spread()
    strip = forecast_strip(result.past, result.truth, result.forecasts, clip=clips[1])
    strip.savefig(out / "forecast.png", dpi=110)
    forecast_gif(out / "forecast.gif", result.past, result.truth, result.forecasts, clips=clips)
    frames = job.frames("test", 0, 1)
    _, saved = model.forward(frames[: job.observed], horizon=job.horizon)
    gates_over_time(saved.encoder["encoder.0"]).savefig(out / "gates.png", dpi=110)
    if (out / "log.csv").exists():
        loss_curves(out / "log.csv").savefig(out / "loss.png", dpi=110)


def write_demo_report(
    out: Path, facts: dict[str, str], result: Evaluation, checks: list[tuple[str, ...]]
) -> None:
    """report.html: the facts, the tables and the pictures in one file."""
    head, *rows = result.table()
    write_report(
        out / "report.html",
        title="A ConvLSTM in plain NumPy forecasts moving digits",
        facts=facts,
        tables=[
            ("Held-out clips: digits whose images were never trained on", head, rows),
            (
                "Gradient check: worst relative error",
                ("pair, cell or model", "central", "complex step"),
                checks,
            ),
        ],
        pictures=[
            (
                "The clip of median error: what was observed, what came, and what was forecast",
                out / "forecast.png",
            ),
            ("Three clips as a film, forecast better, as well and worse than most", out / "forecast.gif"),
            ("The gates of the first encoder layer while it reads a clip", out / "gates.png"),
            ("The loss while training, in nats per pixel", out / "loss.png"),
        ],
        text=[
            "The error of copying the last frame is what a forecast costs that knows nothing of motion; "
            "constant velocity shifts the last frame on as it last moved, and fails at a bounce or where "
            "two digits move apart.",
        ],
    )


def short_zoo() -> list[Case]:
    """The first case of the zoo for each of CHECKED."""
    cases = zoo()
    found = [next((c for c in cases if part.lower() in c.name.lower()), None) for part in CHECKED]
    return [case for case in found if case is not None]


def clips_text(job: Job) -> str:
    """What the clips show, in words."""
    digits = f"{job.digits} digit{'s' * (job.digits > 1)} of {job.digit_size} pixels"
    return f"{digits} on {job.canvas} x {job.canvas}, seed {job.seed}"


def error_text(error: float | None) -> str:
    """A relative error, or a dash where a method was not used."""
    return "-" if error is None else f"{error:.1e}"


def indented(text: str) -> str:
    """The text, three spaces to the right."""
    return "\n".join("   " + line for line in text.splitlines())


def say(text: str) -> None:
    """A line for the reader, flushed, so that it comes before what follows."""
    print(text, flush=True, file=sys.stdout)
