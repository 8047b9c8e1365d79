"""The demo at toy size: what it prints and what it leaves; and the job's evaluation."""

from dataclasses import replace

import numpy as np
import pytest

from tinyconvlstm import demo, metrics
from tinyconvlstm.backend import to_numpy
from tinyconvlstm.job import Job, evaluate, validation
from tinyconvlstm.models.storage import load_model
from tinyconvlstm.ops.activations import sigmoid

TOY = Job(canvas=12, digit_size=8, digits=1, speed=(0.5, 2.0), features=(3,), patch=2, steps=3, batch=2)


def test_demo_leaves_pictures_report_and_model(tmp_path, capsys):
    assert demo.run(TOY, tmp_path, progress=False) == 0
    text = capsys.readouterr().out
    for part in ("pass", "copy last frame", "constant velocity", "ConvLSTM", "report.html"):
        assert part in text
    for name in ("forecast.png", "forecast.gif", "gates.png", "loss.png", "report.html", "model.safetensors"):
        assert (tmp_path / name).stat().st_size > 500, name
    model = load_model(tmp_path / "model.safetensors")
    result = evaluate(model, TOY, clips=3)
    assert result.forecasts["ConvLSTM"].shape == (10, 3, 1, 12, 12)
    page = (tmp_path / "report.html").read_text()
    assert "copy last frame" in page
    assert "data:image/png;base64," in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_wrong_gradient_stops_the_demo(tmp_path, monkeypatch, capsys):
    case = demo.short_zoo()[0]
    wrong = case._replace(
        backward=lambda upstream, saved: {n: 2.001 * g for n, g in case.backward(upstream, saved).items()}
    )
    monkeypatch.setattr(demo, "short_zoo", lambda: [wrong])
    assert demo.run(TOY, tmp_path, progress=False) == 1
    assert "FAIL" in capsys.readouterr().out
    assert not (tmp_path / "model.safetensors").exists()


def test_short_zoo_finds_every_case_it_names():
    assert len(demo.short_zoo()) == len(demo.CHECKED)


def test_evaluation_measures_what_it_says():
    model = TOY.model()
    result = evaluate(model, TOY, clips=5)
    frames = TOY.clips("test").batch(0, 5)
    np.testing.assert_array_equal(result.truth, frames[10:])
    logits, _ = model.forward(frames[:10], horizon=10)
    np.testing.assert_allclose(result.forecasts["ConvLSTM"], sigmoid(logits), rtol=1e-6)
    scores = result.scores
    assert scores["copy last frame"]["mse"] == pytest.approx(np.mean((frames[9:10] - frames[10:]) ** 2))
    assert result.gain == pytest.approx(1 - scores["ConvLSTM"]["mse"] / scores["copy last frame"]["mse"])
    assert scores["ConvLSTM"]["ssim"] == metrics.ssim(result.forecasts["ConvLSTM"], result.truth)
    assert str(result).count("\n") == 4


def test_validation_is_nats_per_pixel_on_validation_clips():
    model = TOY.model()
    frames = TOY.clips("validation").batch(0, 4)
    logits, _ = model.forward(frames[:10], horizon=10)
    expected = metrics.nats_per_pixel(logits, frames[10:], logits=True)
    assert validation(TOY, clips=4)(model) == pytest.approx(expected, rel=1e-5)


def test_the_job_runs_on_every_backend(backend):
    job = replace(TOY, backend=backend)
    here = evaluate(TOY.model(), TOY, clips=2)
    there = evaluate(job.model(), job, clips=2)
    np.testing.assert_allclose(to_numpy(there.forecasts["ConvLSTM"]), here.forecasts["ConvLSTM"], atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_learners_by_name(name):
    assert type(replace(TOY, optimizer=name).learner()).__name__.lower() == name


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer is 'lion'"):
        replace(TOY, optimizer="lion").learner()


def test_schedule_rises_and_falls():
    rate = replace(TOY, steps=100, lr=1.0).schedule()
    rates = [rate(step) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.5
    assert rates[-1] < 0.01
