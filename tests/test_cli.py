"""The command line: every command end to end at toy size, and one clear line for every mistake."""

import csv
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tinyconvlstm import __version__, info
from tinyconvlstm.cli import main
from tinyconvlstm.files import load
from tinyconvlstm.job import Job
from tinyconvlstm.metrics import nats_per_sequence
from tinyconvlstm.models.presets import protocol, shi_2015
from tinyconvlstm.models.storage import load_model

TOY = [
    "--canvas",
    "12",
    "--digit-size",
    "8",
    "--digits",
    "1",
    "--speed",
    "0.5",
    "2",
    "--features",
    "3",
    "--patch",
    "2",
]
TOY += ["--observed", "3", "--horizon", "2", "--batch", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a toy training of four steps."""
    out = tmp_path_factory.mktemp("training")
    assert main(["train", *TOY, "--steps", "4", "--valid-every", "2", "--out", str(out)]) == 0
    return out


def fails(capsys, *argv):
    """The one line that a command prints on a mistake."""
    status = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert status == 2, (out, err)
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_no_command_prints_help(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("demo", "gradcheck", "train", "evaluate", "predict", "info"))


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "gradcheck", "train", "evaluate", "predict", "info"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"tinyconvlstm {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["train", "--no-such-option"], "--no-such-option"),
        (["unknown"], "unknown"),
        (["train", "--steps", "0"], "less than 1"),
        (["train", "--steps", "many"], "not a whole number"),
        (["demo", "--backend", "tpu"], "tpu"),
    ],
)
def test_unknown_options_are_one_line_and_exit_2(argv, part, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert part in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_info_prints_versions_blas_threads_and_gpu(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for fact in (np.__version__, "BLAS", "threads", "GPU", "python", "backends"):
        assert fact in text


def test_info_tells_the_gpu_s_memory_and_what_the_pool_holds(cupy_standin, monkeypatch):
    pool = SimpleNamespace(used_bytes=lambda: 3 << 20, total_bytes=lambda: 7 << 20)
    monkeypatch.setattr(cupy_standin, "get_default_memory_pool", lambda: pool, raising=False)
    memory = (5 << 29, 8 << 30)
    monkeypatch.setattr(cupy_standin.cuda.runtime, "memGetInfo", lambda: memory, raising=False)
    line = "a stand-in, no GPU, 2.5 of 8.0 GiB free; 3 of 7 MiB of CuPy's memory pool in use"
    assert info.gpu() == line


def test_train_leaves_log_checkpoints_and_settings(trained, capsys):
    names = {path.name for path in trained.iterdir()}
    assert {"log.csv", "last.safetensors", "best.safetensors", "job.json"} <= names


def test_train_goes_on_exactly(trained, tmp_path):
    half, rest = tmp_path / "half", ["--valid-every", "2"]
    assert main(["train", *TOY, "--steps", "4", "--out", str(half), *rest]) == 0
    whole, _ = load(trained / "last.safetensors")
    again, _ = load(half / "last.safetensors")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)  # one seed, one result
    assert main(["train", "--resume", "--out", str(half), *rest]) == 0  # nothing left to do, settings stored


def test_the_fc_lstm_baseline_trains_and_is_evaluated(tmp_path, capsys):
    out = tmp_path / "dense"
    assert main(["train", *TOY, "--steps", "2", "--fc-lstm", "--peephole", "none", "--out", str(out)]) == 0
    assert main(["evaluate", str(out), "--clips", "3"]) == 0
    assert "FC-LSTM" in capsys.readouterr().out


def test_evaluate_prints_model_and_both_baselines(trained, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert main(["evaluate", str(trained), "--clips", "4", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("ConvLSTM", "copy last frame", "constant velocity", "MSE"))
    assert {"forecast.png", "forecast.gif", "gates.png", "loss.png"} >= {p.name for p in out.iterdir()}
    assert (out / "forecast.png").stat().st_size > 1000


@pytest.mark.parametrize("shape", [(3, 12, 12), (3, 1, 12, 12), (3, 2, 1, 12, 12)])
def test_predict_keeps_the_clip_s_form(trained, tmp_path, shape):
    clip, out, gif = tmp_path / "clip.npy", tmp_path / "future.npy", tmp_path / "future.gif"
    np.save(clip, np.random.default_rng(0).random(shape))
    assert (
        main(["predict", str(trained), str(clip), "--horizon", "4", "--out", str(out), "--gif", str(gif)])
        == 0
    )
    forecast = np.load(out)
    assert forecast.shape == (4, *shape[1:])
    assert forecast.dtype == np.float32
    assert forecast.min() >= 0
    assert forecast.max() <= 1
    assert gif.stat().st_size > 100


def test_a_published_training_by_name(tmp_path, capsys):
    out = tmp_path / "published"
    tiny = [*TOY, "--steps", "3", "--valid-every", "2", "--out", str(out)]
    assert main(["train", "--preset", "shi-2015", *tiny]) == 0
    job = Job.of(json.loads((out / "job.json").read_text()))
    assert (job.optimizer, job.lr, job.decay, job.clip) == ("rmsprop", 1e-3, "none", float("inf"))
    assert (job.canvas, job.features, job.batch, job.kernel) == (12, (3,), 2, 5)  # options overrule
    with open(out / "log.csv", newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == [1e-3] * 3
    assert main(["train", "--preset", "shi-2015", "--resume", "--steps", "4", "--out", str(out)]) == 0
    assert len((out / "log.csv").read_text().splitlines()) == 5  # the stored settings, one step more
    capsys.readouterr()
    assert main(["evaluate", str(out), "--clips", "3"]) == 0
    model, truth = load_model(out / "best.safetensors"), job.clips("test").batch(0, 3)
    logits, _ = model.forward(truth[:3], horizon=2)
    nats = nats_per_sequence(logits, truth[3:], logits=True)
    assert f"{nats:.1f}" in capsys.readouterr().out  # the last digit is float32's
    capsys.readouterr()
    assert "preset is 'shi'" in fails(capsys, "train", "--preset", "shi", "--out", out)


def test_the_published_training_is_the_paper_s():
    job = Job.of(protocol("shi-2015"))
    clips = job.clips("train")
    assert (clips.canvas, clips.digits, clips.digit_size, clips.frames) == ((64, 64), 2, 28, 20)
    assert job.learner().decay == 0.9
    assert job.schedule()(0) == job.schedule()(99_999) == 1e-3
    named = shi_2015("ConvLSTM-5x5-5x5-128-64-64")
    assert job.model().config == named.config
    assert job.model().count == named.count == 7_585_296


def test_minutes_stop_a_training_that_goes_on(tmp_path, capsys):
    out = tmp_path / "short"
    tiny = [*TOY, "--steps", "4", "--out", str(out)]
    assert main(["train", *tiny, "--minutes", "1e-9"]) == 0  # one step, then time is up
    assert len((out / "log.csv").read_text().splitlines()) == 2
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert len((out / "log.csv").read_text().splitlines()) == 5
    capsys.readouterr()
    assert "minutes is 0.0" in fails(capsys, "train", *tiny, "--minutes", "0")


def test_on_a_gpu_the_next_clips_are_made_ahead(tmp_path, cupy_standin):
    for name, backend in (("there", ["--backend", "cupy"]), ("here", [])):
        assert main(["train", *TOY, "--steps", "3", *backend, "--out", str(tmp_path / name)]) == 0
    one, two = (load(tmp_path / name / "last.safetensors")[0] for name in ("here", "there"))
    assert all(np.allclose(one[key], two[key], atol=1e-6) for key in one)
    assert not [t for t in threading.enumerate() if "prefetch" in t.name]


def test_predict_refuses_bad_clips(trained, tmp_path, capsys):
    clip = tmp_path / "clip.npy"
    good = np.full((3, 12, 12), 0.5)
    np.save(clip, np.where(np.arange(12) == 3, np.nan, good))
    assert "36 values that are NaN" in fails(capsys, "predict", trained, clip)
    np.save(clip, good * 9)
    assert "expected 0..1" in fails(capsys, "predict", trained, clip)
    np.save(clip, good[0])
    assert "expected numbers (T, H, W)" in fails(capsys, "predict", trained, clip)
    np.save(clip, good[:, :10])
    assert "expected (T, N, 1, 12, 12)" in fails(capsys, "predict", trained, clip)
    clip.write_bytes(b"not an array")
    assert str(clip) in fails(capsys, "predict", trained, clip)
    np.save(clip, np.array([{}], dtype=object), allow_pickle=True)
    assert str(clip) in fails(capsys, "predict", trained, clip)
    assert "no-such.npy" in fails(capsys, "predict", trained, tmp_path / "no-such.npy")


def test_model_files_that_cannot_be_read_are_one_line(tmp_path, trained, capsys):
    path = tmp_path / "model.safetensors"
    assert "no-such" in fails(capsys, "evaluate", tmp_path / "no-such.safetensors")
    assert "no model file" in fails(capsys, "evaluate", tmp_path)
    path.write_bytes((trained / "best.safetensors").read_bytes()[:200])
    assert str(path) in fails(capsys, "evaluate", path)
    path.write_text("hello")
    assert str(path) in fails(capsys, "evaluate", path)


def test_settings_that_do_not_fit_are_one_line(capsys, tmp_path):
    out = tmp_path / "run"
    assert "canvas" in fails(capsys, "train", *TOY, "--canvas", "6", "--out", out)
    assert "patch" in fails(capsys, "train", *TOY, "--patch", "5", "--out", out)
    assert "truth_rate" in fails(
        capsys, "train", *TOY, "--truth-rate", "2", "--feed", "--steps", "1", "--out", out
    )
    assert "no-such" in fails(capsys, "train", *TOY, "--mnist", "no-such", "--out", out)
    (tmp_path / "job.json").write_text("{")
    assert "job.json" in fails(capsys, "train", "--resume", "--out", tmp_path)
    (tmp_path / "job.json").write_text('{"colour": 3}')
    assert "colour" in fails(capsys, "train", "--resume", "--out", tmp_path)


def test_a_refused_resume_leaves_the_settings(capsys, tmp_path):
    out, job = tmp_path / "run", tmp_path / "run" / "job.json"
    assert main(["train", *TOY, "--steps", "2", "--out", str(out)]) == 0
    before, _ = job.read_bytes(), capsys.readouterr()
    assert "belongs to another training" in fails(
        capsys, "train", "--resume", "--features", "9", "--steps", "3", "--out", out
    )
    assert "valid_every is 0" in fails(capsys, "train", "--resume", "--valid-every", "0", "--out", out)
    assert job.read_bytes() == before
    assert main(["train", "--resume", "--steps", "3", "--out", str(out)]) == 0


def test_cupy_without_a_device_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    line = fails(capsys, "demo", "--backend", "cupy", "--out", tmp_path)
    assert "cuda12x" in line


def test_more_threads_than_there_can_be_are_refused_in_one_line(capsys):
    assert "threads is 99999999999999999999, expected a whole number from 1 to 65,536" in fails(
        capsys, "info", "--threads", "9" * 20
    )


def test_interrupt_exits_130(monkeypatch, capsys, tmp_path):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyconvlstm.demo.train_forecaster", stop)
    assert main(["train", *TOY, "--steps", "2", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_traceback_on_request(tmp_path):
    with pytest.raises(ValueError, match="no model file"):
        main(["evaluate", str(tmp_path), "--traceback"])


def test_gradcheck_command(capsys):
    assert main(["gradcheck", "conv/2d"]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["gradcheck", "--list"]) == 0
    assert "conv" in capsys.readouterr().out
    assert "no-such-case" in fails(capsys, "gradcheck", "no-such-case")


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "tinyconvlstm", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


def test_job_round_trip_and_unknown_names():
    job = Job(features=(3, 4), speed=(1.0, 1.5))
    assert Job.of(job.to_dict()) == job
    with pytest.raises(ValueError, match="colour"):
        Job.of({"colour": 1})
