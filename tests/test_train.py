"""The training loop: exact resume, checkpoints, the log, and what happens when something goes wrong."""

import csv
import itertools
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.cells import LSTMCell
from tinyconvlstm.checkpoint import save_checkpoint
from tinyconvlstm.files import ModelFileError, load, save
from tinyconvlstm.job import Job, validation
from tinyconvlstm.layers import BatchNorm, Dense, Dropout, Recurrent, Sequential, TimeDistributed
from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
from tinyconvlstm.models.storage import load_model
from tinyconvlstm.nonfinite import NonFiniteError
from tinyconvlstm.ops.losses import mse_backward, mse_forward
from tinyconvlstm.optim import SGD, Adam
from tinyconvlstm.schedules import Exponential
from tinyconvlstm.train import train

JOB = Job(canvas=12, digit_size=8, speed=(0.5, 2.0), features=(3,), patch=2, steps=6, batch=2)


def model():
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


def test_a_fresh_start_sets_an_earlier_training_aside(tmp_path):
    """Else a stop before the first checkpoint, and then resume, would go on from the earlier one."""
    run(model(), 4, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / ".last.safetensors.0123abcd.part").write_bytes(b"half a checkpoint")
    started = []

    def stops():
        started.append(sorted(path.name for path in tmp_path.iterdir()))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(model(), 4, out=tmp_path, on_start=stops)
    assert started == [["earlier"]]
    assert {path.name: path.read_bytes() for path in (tmp_path / "earlier").iterdir()} == before
    assert run(model(), 2, out=tmp_path, resume=True).rows[0]["step"] == 0


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
        run(Sequential(Dense(2, 1)), 4, out=tmp_path, resume=True)
    with pytest.raises(ModelFileError, match="was written with seed 0, this training uses 1"):
        run(model(), 4, out=tmp_path, resume=True, seed=1)
    narrow = model()
    before = {name: a.copy() for name, a in narrow.astype(np.float64).arrays.items()}
    double = narrow.astype(np.float64)
    with pytest.raises(ModelFileError, match=r"belongs to another training: .* expected float64"):
        run(double, 4, out=tmp_path, resume=True)
    for name, a in before.items():
        np.testing.assert_array_equal(double.arrays[name], a)  # refused before anything changed
    with pytest.raises(ValueError, match="resume needs out"):
        run(model(), 2, resume=True)
    with pytest.raises(ValueError, match="steps is -1"):
        run(model(), -1)
    with pytest.raises(ValueError, match="valid_every is 0"):
        run(model(), 1, valid_every=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "which step"),
        ({"step": True}, "which step"),
        ({"step": -1}, "which step"),
        ({"best": "low"}, "which step"),
        ({"best_step": None}, "which step"),
        ({"seed": [0]}, r"seed \[0\]"),
        ({"optimizer": 7}, "was written with 7"),
    ],
)
def test_hostile_checkpoints_are_refused(tmp_path, change, message):
    run(model(), 2, out=tmp_path)
    path = tmp_path / "last.safetensors"
    arrays, config = load(path)
    save(path, arrays, {**config, **change}, kind="checkpoint")
    with pytest.raises(ModelFileError, match=message):
        run(model(), 4, out=tmp_path, resume=True)


@pytest.mark.parametrize("name", ["model.2.w", "optimizer.m.2.w", "optimizer.step"])
def test_checkpoints_with_other_arrays_are_refused_and_change_nothing(tmp_path, name):
    run(model(), 2, out=tmp_path)
    path = tmp_path / "last.safetensors"
    arrays, config = load(path)
    fresh, optimizer = model(), Adam(1e-2)
    for spoiled in ({n: a for n, a in arrays.items() if n != name}, {**arrays, name: np.zeros((2, 3, 1))}):
        save(path, spoiled, config, kind="checkpoint")
        with pytest.raises(ModelFileError, match="belongs to another training"):
            run(fresh, 4, out=tmp_path, resume=True, optimizer=optimizer)
        assert (optimizer.step, optimizer.state) == (0, {})
        np.testing.assert_array_equal(fresh.params["2.w"], model().params["2.w"])


@pytest.mark.parametrize("late", [1, 3, 4])
def test_time_that_is_up_keeps_a_checkpoint_to_go_on_from(tmp_path, monkeypatch, late):
    """The clock shows a minute a step; a training of `late` minutes does so many steps, resumed the rest."""

    def clock():
        ticks = itertools.count()
        return SimpleNamespace(monotonic=lambda: 60.0 * next(ticks), perf_counter=lambda: 0.0)

    monkeypatch.setattr("tinyconvlstm.train.time", clock())
    stopped = run(model(), 7, out=tmp_path / "stopped", minutes=late)
    assert [row["step"] for row in stopped.rows] == list(range(late))
    assert load(tmp_path / "stopped" / "last.safetensors")[1]["step"] == late
    monkeypatch.setattr("tinyconvlstm.train.time", clock())
    resumed, whole = model(), model()
    history = run(resumed, 7, out=tmp_path / "stopped", minutes=100, resume=True)
    run(whole, 7, out=tmp_path / "whole")
    assert len(history.rows) == 7
    for name, a in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], a, err_msg=name)


def test_no_time_at_all_is_refused():
    for minutes in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"minutes is .*, expected a time above 0"):
            run(model(), 2, minutes=minutes)


def test_a_damaged_log_is_named(tmp_path):
    run(model(), 2, out=tmp_path)
    (tmp_path / "log.csv").write_text("step,loss\nzero,1.0\n")
    with pytest.raises(ModelFileError, match=r"log.csv: cannot be read: .*zero"):
        run(model(), 4, out=tmp_path, resume=True)


def test_interrupt_while_measuring_loses_no_row_and_no_best(tmp_path):
    def total(m):
        return -float(sum(p.sum() for p in m.params.values()))

    calls = []

    def interrupted(m):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return total(m)

    with pytest.raises(KeyboardInterrupt, match=r"after 4 of 8 steps; .*last.safetensors keeps the first 4"):
        run(model(), 8, out=tmp_path / "stopped", valid=interrupted)
    resumed, whole = model(), model()
    history = run(resumed, 8, out=tmp_path / "stopped", valid=total, resume=True)
    expected = run(whole, 8, out=tmp_path / "whole", valid=total)
    assert rows_of(tmp_path / "stopped" / "log.csv") == rows_of(tmp_path / "whole" / "log.csv")
    assert (history.best, history.best_step) == (expected.best, expected.best_step)
    for name in ("best.safetensors", "last.safetensors"):
        (one, first), (two, second) = load(tmp_path / "stopped" / name), load(tmp_path / "whole" / name)
        assert first == second
        assert one.keys() == two.keys()
        for key, a in one.items():
            np.testing.assert_array_equal(two[key], a, err_msg=key)


def test_interrupt_while_the_best_is_written_writes_it_again(tmp_path, monkeypatch):
    calls = []

    def interrupted(path, *rest):
        calls.append(path.name)
        if len(calls) == 3:  # after best and last of step 2
            raise KeyboardInterrupt
        save_checkpoint(path, *rest)

    monkeypatch.setattr("tinyconvlstm.train.save_checkpoint", interrupted)
    values = iter([2.0, 1.0])
    with pytest.raises(KeyboardInterrupt, match="after 4 of 8 steps"):
        run(model(), 8, out=tmp_path, valid=lambda m: next(values))
    assert calls == ["best.safetensors", "last.safetensors"] + ["best.safetensors"] * 2 + ["last.safetensors"]
    assert load(tmp_path / "best.safetensors")[1] == load(tmp_path / "last.safetensors")[1]
    assert load(tmp_path / "best.safetensors")[1]["best"] == 1.0


def test_every_step_draws_its_own_numbers():
    drawn = {}

    def loss_forward(m, data, *, train, rng):
        drawn.setdefault(seed, []).append(rng.random())
        return net_loss(m, data, train=train, rng=rng)

    for seed in (0, 1):
        train(
            model(),
            loss_forward,
            net_grads,
            net_batch,
            steps=3,
            optimizer=SGD(0.1),
            seed=seed,
            progress=False,
        )
    expected = {s: [np.random.default_rng([s, k]).random() for k in range(3)] for s in (0, 1)}
    assert drawn == expected
    assert len({*drawn[0], *drawn[1]}) == 6


def test_the_log_is_never_behind_the_checkpoint(tmp_path, monkeypatch):
    def killed(path, *rest):
        raise OSError("killed")

    monkeypatch.setattr("tinyconvlstm.train.save_checkpoint", killed)
    with pytest.raises(OSError, match="killed"):
        run(model(), 2, out=tmp_path)
    assert [row["step"] for row in rows_of(tmp_path / "log.csv")] == ["0", "1"]


def test_nan_in_the_data_is_named():
    def spoiled(step):
        data = net_batch(step)
        if step == 1:
            data["x"][2, 3, 1] = np.nan
        return data

    with pytest.raises(
        ValueError, match=r"the data of step 1 holds NaN or infinite values in x: 1 of 80 numbers"
    ):
        train(model(), net_loss, net_grads, spoiled, steps=3, optimizer=Adam(), progress=False)


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


def test_exploding_weights_never_replace_a_good_checkpoint(tmp_path):
    class Exploding(SGD):
        def update(self, params, grads, lr=None):
            super().update(params, grads, lr)
            if self.step == 4:
                params["encoder.0.w_h"] *= np.float32(np.inf)

    Exploding.__name__ = "SGD"
    with pytest.raises(NonFiniteError) as caught:
        forecaster_train(6, optimizer=Exploding(0.1), out=tmp_path, valid_every=2)
    last = tmp_path / "last.safetensors"
    told = f"step 3: the update made encoder.0.w_h NaN or infinite; {last} keeps the first 2 steps"
    assert str(caught.value).startswith(told)
    arrays, config = load(last)
    assert config["step"] == 2
    assert all(np.isfinite(a).all() for a in arrays.values())
    assert len(rows_of(tmp_path / "log.csv")) == 4  # the curve up to the end
    _, history = forecaster_train(3, optimizer=SGD(0.1), out=tmp_path, valid_every=2, resume=True)
    assert [row["step"] for row in history.rows] == [0, 1, 2]


def test_a_learning_rate_that_is_too_high_ends_in_one_clear_line(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"^step \d+: ") as caught:
        forecaster_train(9, optimizer=SGD(1e38), out=tmp_path, valid_every=1)
    assert "\n" not in str(caught.value)


def test_interrupt_after_an_explosion_keeps_the_good_checkpoint(tmp_path):
    class Exploding(SGD):
        def update(self, params, grads, lr=None):
            super().update(params, grads, lr)
            if self.step == 3:
                params["head.b"] += np.float32(np.nan)

    def interrupted(step):
        if step == 3:
            raise KeyboardInterrupt
        return net_batch(step)

    chain = Sequential({"head": Dense(2, 1)})
    with pytest.raises(KeyboardInterrupt, match=r"after 3 of 9 steps; .* keeps the first 2 steps"):
        train(
            chain,
            net_loss,
            net_grads,
            interrupted,
            steps=9,
            optimizer=Exploding(0.1),
            out=tmp_path,
            valid_every=2,
            progress=False,
        )
    assert load(tmp_path / "last.safetensors")[1]["step"] == 2


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


def test_the_log_names_rate_and_norm_of_every_step(tmp_path):
    schedule = Exponential(1e-2, 0.5)
    _, history = forecaster_train(3, optimizer=SGD(7.0), schedule=schedule, out=tmp_path)
    assert [row["lr"] for row in history.rows] == [1e-2, 5e-3, 2.5e-3]
    assert all(row["grad_norm"] > 0 for row in history.rows)
    saved = rows_of(tmp_path / "log.csv")
    assert [float(row["loss"]) for row in saved] == [row["loss"] for row in history.rows]
    _, own = forecaster_train(3, optimizer=SGD(schedule))
    assert [row["lr"] for row in own.rows] == [1e-2, 5e-3, 2.5e-3]
    assert [row["loss"] for row in own.rows] == [row["loss"] for row in history.rows]
    _, other = forecaster_train(3, optimizer=SGD(7.0), schedule=Exponential(2e-2, 0.5))
    assert other.rows[0]["loss"] == own.rows[0]["loss"]
    assert other.rows[1]["loss"] != own.rows[1]["loss"]  # the schedule's rate is the one that counts


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
