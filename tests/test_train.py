"""The training loop: exact resume, checkpoints, the log, and what happens when something goes wrong."""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell, LSTMCell
from tinyconvlstm.files import ModelFileError, load
from tinyconvlstm.job import Job, validation
from tinyconvlstm.layers import BatchNorm, Dense, Dropout, Recurrent, Sequential, TimeDistributed
from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
from tinyconvlstm.models.storage import load_model
from tinyconvlstm.nonfinite import NonFiniteError, first_nonfinite
from tinyconvlstm.ops.losses import mse_backward, mse_forward
from tinyconvlstm.optim import SGD, Adam
from tinyconvlstm.schedules import Exponential
from tinyconvlstm.train import train

JOB = Job(canvas=12, digit_size=8, speed=(0.5, 2.0), features=(3,), patch=2, steps=6, batch=2)


def net():
    """A model with dropout and batch norm, whose training draws random numbers and moves buffers."""
    cell = LSTMCell(2, 4, rng=1)
    return Sequential(
        Recurrent(cell, dropout=0.2, recurrent_dropout=0.2), TimeDistributed(BatchNorm(4)), Dense(4, 1)
    )


def net_loss(model, data, *, train, rng):
    y, saved = model.forward(data["x"], train=train, rng=rng)
    loss, loss_saved = mse_forward(y, data["y"])
    return loss, (saved, loss_saved)


def net_grads(model, saved):
    return model.backward(mse_backward(1.0, saved[1]), saved[0])[1]


def net_batch(step):
    rng = np.random.default_rng([7, step])
    x = rng.standard_normal((5, 8, 2)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=2, keepdims=True).cumsum(axis=0)}


class Updating(Sequential):
    """A chain whose loss keeps more than its own saved: buffers are moved from the first part."""

    def update_buffers(self, saved):
        super().update_buffers(saved[0])


def run(model, steps, **settings):
    defaults = {
        "optimizer": Adam(1e-2),
        "schedule": Exponential(1e-2, 0.99),
        "clip_norm": 1.0,
        "valid_every": 2,
    }
    return train(
        model, net_loss, net_grads, net_batch, steps=steps, progress=False, **{**defaults, **settings}
    )


def model():
    made = net()
    return Updating(dict(made.parts))


def rows_of(path):
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_resume_is_exact(tmp_path):
    whole, halves = model(), model()
    run(whole, 10, out=tmp_path / "whole", valid=lambda m: float(m.params["2.w"].sum()))
    run(halves, 5, out=tmp_path / "halves", valid=lambda m: float(m.params["2.w"].sum()))
    fresh = model()
    run(fresh, 10, out=tmp_path / "halves", resume=True, valid=lambda m: float(m.params["2.w"].sum()))
    for name, a in whole.arrays.items():
        np.testing.assert_array_equal(fresh.arrays[name], a, err_msg=name)
    assert any(name.endswith("mean") and a.any() for name, a in whole.arrays.items())
    one, _ = load(tmp_path / "whole" / "last.safetensors")
    two, _ = load(tmp_path / "halves" / "last.safetensors")
    assert one.keys() == two.keys()
    assert any(name.startswith("optimizer.m.") for name in one)
    for name, a in one.items():
        np.testing.assert_array_equal(two[name], a, err_msg=name)
    whole_rows, rows = rows_of(tmp_path / "whole" / "log.csv"), rows_of(tmp_path / "halves" / "log.csv")
    assert len(rows) == 10
    assert [r for r in rows if r["step"] != "4"] == [r for r in whole_rows if r["step"] != "4"]


def test_resume_drops_rows_after_the_checkpoint(tmp_path):
    run(model(), 4, out=tmp_path)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("4,9.0,1.0,0.1,,1.0\n5,9.0,1.0,0.1,,1.0\n")  # steps whose checkpoint was lost
    run(model(), 6, out=tmp_path, resume=True)
    rows = rows_of(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == list("012345")
    assert "9.0" not in {row["loss"] for row in rows}


def test_interrupt_keeps_the_finished_steps(tmp_path):
    def interrupted(step):
        if step == 3:
            raise KeyboardInterrupt
        return net_batch(step)

    stopped = model()
    with pytest.raises(KeyboardInterrupt, match="after 3 of 10 steps"):
        train(
            stopped,
            net_loss,
            net_grads,
            interrupted,
            steps=10,
            optimizer=Adam(1e-2),
            schedule=Exponential(1e-2, 0.99),
            clip_norm=1.0,
            out=tmp_path,
            progress=False,
        )
    resumed, whole = model(), model()
    run(resumed, 10, out=tmp_path, resume=True)
    run(whole, 10)
    for name, a in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], a)


def test_interrupt_inside_an_update_keeps_the_checkpoint_before(tmp_path):
    class Stopping(Adam):
        def update(self, params, grads, lr=None):
            if self.step == 3:
                next(iter(params.values()))[...] = 99.0  # half an update
                raise KeyboardInterrupt
            super().update(params, grads, lr)

    Stopping.__name__ = "Adam"
    with pytest.raises(KeyboardInterrupt):
        run(model(), 6, out=tmp_path, optimizer=Stopping(1e-2))
    arrays, config = load(tmp_path / "last.safetensors")
    assert config["step"] == 2
    assert not any(np.any(a == 99.0) for a in arrays.values())


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    run(model(), 2, out=tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left"):
        run(model(), 4, out=tmp_path, resume=True)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors", "log.csv"]


def test_best_is_kept_apart_from_last(tmp_path):
    values = iter([3.0, 1.0, 2.0])
    history = run(model(), 6, out=tmp_path, valid=lambda m: next(values))
    assert history.best == 1.0
    assert history.best_step == 3
    best, config = load(tmp_path / "best.safetensors")
    last, _ = load(tmp_path / "last.safetensors")
    assert config["step"] == 4
    assert not np.array_equal(best["model.2.w"], last["model.2.w"])
    assert [row["valid"] for row in history.rows] == [None, 3.0, None, 1.0, None, 2.0]


def test_resuming_another_training_is_refused(tmp_path):
    run(model(), 2, out=tmp_path)
    with pytest.raises(ModelFileError, match="was written with Adam, this training uses SGD"):
        run(model(), 4, out=tmp_path, resume=True, optimizer=SGD(0.1))
    with pytest.raises(ModelFileError, match="belongs to another training"):
        run(Updating(Dense(2, 1)), 4, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs out"):
        run(model(), 2, resume=True)
    with pytest.raises(ValueError, match="steps is -1"):
        run(model(), -1)
    with pytest.raises(ValueError, match="valid_every is 0"):
        run(model(), 1, valid_every=0)


def test_nan_in_the_data_is_named():
    def spoiled(step):
        data = net_batch(step)
        if step == 1:
            data["x"][2, 3, 1] = np.nan
        return data

    with pytest.raises(ValueError, match="the data of step 1 holds NaN or infinite values in x"):
        train(model(), net_loss, net_grads, spoiled, steps=3, optimizer=Adam(), progress=False)


def test_a_gate_that_goes_non_finite_is_found(rng):
    for gate, row in (("i", 0), ("f", 3), ("g", 6), ("o", 9)):
        cell = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64)
        cell.params["w_x"][row, 1, 1, 1] = np.nan
        xs = rng.standard_normal((4, 1, 2, 5, 5))
        xs[:2] = 0  # 0 * nan is nan all the same: the first step shows it
        _, _, tape = scan(cell, xs)
        assert first_nonfinite(tape)[1:3] == (0, gate)
    cell = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64)
    xs = rng.standard_normal((4, 1, 2, 5, 5))
    start = cell.initial_state(xs[0])
    _, _, tape = scan(cell, xs, start)
    assert first_nonfinite(tape) is None
    tape.steps[2].gates.g[0, 1, 2, 3] = np.inf
    assert first_nonfinite(tape)[1:3] == (2, "g")


def forecaster_train(steps, spoil=None, **settings):
    model = JOB.model()
    if spoil:
        spoil(model)

    def loss_forward(m, frames, *, train, rng):
        return forecast_loss_forward(m, frames, train=train, rng=rng)

    clips = JOB.clips("train")
    history = train(
        model,
        loss_forward,
        forecast_loss_backward,
        lambda step: clips.batch(step, 2),
        steps=steps,
        progress=False,
        **{"optimizer": Adam(1e-2), **settings},
    )
    return model, history


def test_training_stops_at_the_first_non_finite_loss_and_says_where():
    def spoil(model):
        model.params["forecaster.0.w_h"][5] = np.nan  # 3 features: row 5 is gate f

    with pytest.raises(NonFiniteError, match=r"step 0: .* layer forecaster.0, time step 0, gate f"):
        forecaster_train(2, spoil)


def test_training_names_a_non_finite_gradient():
    def bad_grads(model, saved):
        grads = forecast_loss_backward(model, saved)
        return {**grads, "head.b": grads["head.b"] * np.nan}

    def loss_forward(m, frames, *, train, rng):
        return forecast_loss_forward(m, frames, train=train, rng=rng)

    with pytest.raises(NonFiniteError, match=r"the gradient of head.b is not"):
        train(
            JOB.model(),
            loss_forward,
            bad_grads,
            lambda step: JOB.frames("train", step, 2),
            steps=1,
            optimizer=Adam(),
            progress=False,
        )


def test_clip_by_value_and_norm_are_used():
    seen = []

    class Spy(SGD):
        def update(self, params, grads, lr=None):
            seen.append(np.sqrt(sum(float((g**2).sum()) for g in grads.values())))
            seen.append(max(float(np.abs(g).max()) for g in grads.values()))
            super().update(params, grads, lr)

    _, history = forecaster_train(1, optimizer=Spy(0.1), clip_norm=1e-3)
    assert seen[0] == pytest.approx(1e-3, rel=1e-4)
    assert history.rows[0]["grad_norm"] > 1e-3  # the log keeps the norm before clipping
    forecaster_train(1, optimizer=Spy(0.1), clip_value=1e-4)
    assert seen[3] == pytest.approx(1e-4, rel=1e-5)


def test_a_small_forecaster_overfits_four_clips():
    job = replace(JOB, features=(12,), kernel=3)
    model, frames = job.model(), job.frames("train", 0, 4)

    def loss_forward(m, data, *, train, rng):
        return forecast_loss_forward(m, data, train=train, rng=rng)

    history = train(
        model,
        loss_forward,
        forecast_loss_backward,
        lambda step: frames,
        steps=150,
        optimizer=Adam(2e-2),
        clip_norm=1.0,
        progress=False,
    )
    assert history.rows[-1]["loss"] < 0.45 * history.rows[0]["loss"]


def test_checkpoints_open_as_models(tmp_path):
    model, _ = forecaster_train(3, out=tmp_path, valid=validation(JOB, 2))
    again = load_model(tmp_path / "last.safetensors")
    for name, a in model.params.items():
        np.testing.assert_array_equal(again.params[name], a)


def test_progress_goes_to_stderr(capsys):
    train(
        model(),
        net_loss,
        net_grads,
        net_batch,
        steps=2,
        optimizer=Adam(),
        clip_norm=1.0,
        description="learning",
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert "learning" in err
    assert "loss=" in err
    assert "|grad|=" in err


def test_training_runs_alike_on_every_backend(backend):
    def loss_forward(m, frames, *, train, rng):
        return forecast_loss_forward(m, frames, train=train, rng=rng)

    losses = []
    for place in ("numpy", backend):
        model = JOB.model().to_backend(place)
        history = train(
            model,
            loss_forward,
            forecast_loss_backward,
            lambda step, place=place: to_backend(JOB.clips("train").batch(step, 2), place),
            steps=3,
            optimizer=Adam(1e-2),
            clip_norm=1.0,
            progress=False,
        )
        losses.append([row["loss"] for row in history.rows] + [to_numpy(model.params["head.w"]).sum()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_dropout_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="rng is None"):
        Sequential(Dropout(0.5)).forward(np.ones((2, 2)), train=True)
