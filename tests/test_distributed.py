"""Data-parallel training: with real processes what one process computes, and no job that waits for ever."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyconvlstm import distributed
from tinyconvlstm.chance import ClipGenerator
from tinyconvlstm.distributed import Group, bucket_names, clip_axes, digest, unpacked
from tinyconvlstm.watch import end_job

MPIEXEC = Path(sys.executable).with_name("mpiexec")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists(),
    reason="mpi4py and mpich are not installed (the extra 'mpi')",
)
ROOT = Path(__file__).parents[1]
WORK = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from tinyconvlstm import Forecaster, set_threads
from tinyconvlstm.distributed import Group, digest
from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
from tinyconvlstm.optim import Adam
from tinyconvlstm.train import train

out, steps, resume, fault, at, timeout = json.loads(sys.argv[1])
set_threads(1)
with Group.world(timeout=timeout) as group:
    model = Forecaster((3,), size=(4, 6), patch=2, kernel=3, feed=True, rng=group.rank, dtype=np.float64)

    batches = []

    def batch(step):
        if fault and fault != "halfway" and step == at and (group.rank == 1 or fault == "Ctrl-C"):
            if fault == "raise":
                raise ArithmeticError("out of tune")
            if fault == "exit":
                sys.exit(3)
            if fault == "leave":
                sys.exit(0)
            if fault == "vanish":
                os._exit(0)
            if fault == "watcher":
                os.kill(os.getppid(), 9)
            if fault == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            if fault in ("KILL", "SEGV", "STOP", "INT"):
                os.kill(os.getpid(), getattr(signal, "SIG" + fault))
            time.sleep(600)
        return np.random.default_rng([7, step]).random((5, 5, 1, 4, 6))

    if fault == "halfway" and group.rank == 1:  # it has come to the gradients, and brings its own no more
        meet = group.meet

        def stopped(what, collectives=None):
            now = what == "the gradients" and len(batches) > at
            meet(what, [lambda: os.kill(os.getpid(), signal.SIGSTOP), *collectives] if now else collectives)

        group.meet = stopped

    def loss(model, frames, *, train, rng):
        batches.append(1)
        return forecast_loss_forward(model, frames, observed=3, train=train, rng=rng, truth_rate=0.5)

    history = train(model, loss, forecast_loss_backward, batch, steps=steps, optimizer=Adam(1e-2), valid_every=2,
                    clip_norm=0.1, out=Path(out), resume=resume, progress=False, group=group)
    np.savez(Path(out) / f"rank{group.rank}.npz", **model.params)
    Path(out, f"rank{group.rank}.txt").write_text(digest(model.params) + f" {history.rows[-1]['loss']!r}")
"""


def launch(ranks: int, out: Path, steps: int, *, resume=False, fault="", at=3, timeout=60.0):
    """Run WORK on so many ranks; 0 is one process without mpiexec."""
    settings = json.dumps([str(out), steps, resume, fault, at, timeout])
    script = out / "work.py"
    out.mkdir(parents=True, exist_ok=True)
    script.write_text(WORK)
    command = [sys.executable, "-m", "mpi4py", str(script), settings]
    command = [str(MPIEXEC), "-n", str(ranks), *command] if ranks else [sys.executable, str(script), settings]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def params(out: Path, rank: int = 0) -> dict[str, np.ndarray]:
    return dict(np.load(out / f"rank{rank}.npz"))


def finished(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stderr


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_compute_what_one_process_computes(ranks, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    finished(launch(0, one, 5))
    finished(launch(ranks, many, 5))
    said = {(many / f"rank{rank}.txt").read_text() for rank in range(ranks)}
    assert len(said) == 1  # the same bits, and the same loss, on every rank
    for name, expected in params(one).items():
        np.testing.assert_allclose(params(many)[name], expected, rtol=1e-10, atol=1e-12)
    alone = float((one / "rank0.txt").read_text().split()[1])
    assert float(said.pop().split()[1]) == pytest.approx(alone, rel=1e-12)
    assert (many / "log.csv").read_text().count("\n") == 6
    assert sorted(p.name for p in many.glob("*.safetensors")) == ["best.safetensors", "last.safetensors"]


@needs_mpi
def test_a_training_goes_on_with_another_number_of_ranks(tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    finished(launch(0, one, 6))
    finished(launch(2, many, 2))
    finished(launch(3, many, 4, resume=True))
    finished(launch(0, many, 6, resume=True))
    for name, expected in params(one).items():
        np.testing.assert_allclose(params(many)[name], expected, rtol=1e-9, atol=1e-12)


@needs_mpi
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "rank 1 stopped: ArithmeticError: out of tune; all ranks end, --resume goes on"),
        ("exit", "rank 1 stopped: SystemExit: 3; all ranks end"),
        ("leave", "rank 1 stopped: SystemExit: 0; all ranks end"),
        ("vanish", r"rank 1 \(process \d+\) left with exit status 0 before its end; all ranks end, --resume"),
        ("hang", "rank 1 did not come to the gradients"),
        ("KILL", r"rank 1 \(process \d+\) was killed by SIGKILL; all ranks end, --resume goes on"),
        ("SEGV", r"rank 1 \(process \d+\) was killed by SIGSEGV"),
        ("watcher", "the process that watches rank 1 was killed; all ranks end, --resume goes on"),
        ("STOP", r"rank 1 \(process \d+\) has stood still for 2 s"),
        ("halfway", r"rank 1 \(process \d+\) has stood still for 2 s"),
        ("INT", "rank 1 stopped: KeyboardInterrupt: after 3 of 5 steps; .* keeps the first 2 steps"),
    ],
)
def test_a_faulty_rank_ends_the_job_and_it_can_go_on(fault, message, tmp_path):
    stopped = launch(2, tmp_path, 5, fault=fault, timeout=4.0)
    assert stopped.returncode != 0
    said = [line for line in stopped.stderr.splitlines() if line.startswith("tinyconvlstm: ")]
    assert len(said) == 1  # one message, on a line of its own
    assert re.search(message, said[0])
    assert not leftovers(tmp_path)
    finished(launch(2, tmp_path, 5, resume=True))
    reference = tmp_path / "reference"
    finished(launch(2, reference, 5))
    for name, expected in params(reference).items():
        np.testing.assert_array_equal(params(tmp_path)[name], expected)


@needs_mpi
def test_ctrl_c_before_the_first_checkpoint_writes_one_and_says_so(tmp_path):
    stopped = launch(2, tmp_path, 5, fault="Ctrl-C", at=1, timeout=10.0)
    assert stopped.returncode != 0
    said = [line for line in stopped.stderr.splitlines() if line.startswith("tinyconvlstm: ")]
    assert len(said) == 1
    assert "rank 0 stopped: KeyboardInterrupt: after 1 of 5 steps" in said[0]
    assert "; all ranks end, --resume goes on from the last checkpoint" in said[0]


def leftovers(out: Path) -> list[str]:
    """Processes that still work for `out`, after a moment's grace."""
    for _ in range(50):
        found = subprocess.run(
            ["pgrep", "-f", str(out)], capture_output=True, text=True, check=False
        ).stdout.split()
        if not found:
            break
        time.sleep(0.1)
    return found


STARTING = """
import sys, time
from pathlib import Path
from tinyconvlstm import distributed

watched = distributed.watched

def slowly(rank, timeout):
    tell = watched(rank, timeout)
    Path(sys.argv[1], f"rank{rank}").touch()
    time.sleep(600 * rank)  # rank 0 goes on to MPI, which waits for the others
    return tell

distributed.watched = slowly
distributed.Group.world(timeout=200.0)
"""


@needs_mpi
def test_ctrl_c_while_mpi_starts_ends_the_job_with_one_message(tmp_path):
    words = [str(MPIEXEC), "-n", "3", sys.executable, "-m", "mpi4py", "-c", STARTING, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as job:
        try:
            while len(list(tmp_path.iterdir())) < 3 and job.poll() is None:
                time.sleep(0.1)
            time.sleep(1)  # now rank 0 waits in MPI
            job.send_signal(signal.SIGINT)
            said = [line for line in job.communicate(timeout=60)[1].splitlines() if "tinyconvlstm: " in line]
        finally:
            job.kill()
    assert len(said) == 1
    assert re.search(r"rank 0 \(process \d+\) was killed by SIGINT; all ranks end", said[0])
    assert not leftovers(tmp_path)


RANK = """
import time
from tinyconvlstm.watch import watched

watched(0, 60.0)
print("here", flush=True)
time.sleep(60)
"""
LAUNCHER = """
import subprocess, sys

with subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stderr=subprocess.PIPE) as watcher:
    watcher.stderr.close()  # nobody reads what the rank and its watcher say
    print(watcher.pid, flush=True)
"""


@pytest.mark.parametrize("lost", ["launcher", "watcher"])
def test_a_rank_ends_where_nobody_reads_the_message(lost, tmp_path):
    words = [sys.executable, "-c", LAUNCHER, RANK, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as launcher:
        watcher, here = sorted(launcher.stdout.readline() for _ in range(2))
        assert here == "here\n"
        os.kill(launcher.pid if lost == "launcher" else int(watcher), signal.SIGKILL)
        assert not leftovers(tmp_path)


def command(out: Path, *parts: str) -> subprocess.CompletedProcess:
    """`tinyconvlstm train` on one rank for each of `parts`, the options in which they differ."""
    options = "--batch 3 --canvas 16 --digit-size 8 --features 3 --observed 2 --horizon 2 --threads 1"
    train = ["-n", "1", sys.executable, "-m", "mpi4py", "-m", "tinyconvlstm", "train", "--out", str(out)]
    calls = [word for own in parts for word in (":", *train, *options.split(), *own.split())][1:]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(MPIEXEC), *calls], env=env, capture_output=True, text=True, timeout=120, check=False
    )


@needs_mpi
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("--steps 2 --seed 4", "rank 0 stopped: ValueError: settings of ranks [1] differ from rank 0's"),
        ("--steps 2 --bogus", "has waited 3 s for MPI to start: another rank is missing; all ranks end"),
    ],
)
def test_ranks_that_differ_end_the_job(own, message, tmp_path):
    done = command(tmp_path / "run", "--steps 2 --timeout 3", own)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@needs_mpi
def test_a_mistake_of_all_ranks_is_said_once(tmp_path):
    done = command(tmp_path / "run", *["--steps 2 --lr -1 --traceback"] * 2)
    assert done.returncode == 2
    assert done.stderr.count("tinyconvlstm: rank") == 1
    assert "tinyconvlstm: rank 0 stopped: ValueError: clip is 1.0 and lr is -1.0" in done.stderr
    assert "--resume" not in done.stderr  # there is nothing to go on from
    assert "in __post_init__" in done.stderr  # the trace that was asked for


@needs_mpi
def test_the_command_runs_on_two_ranks(tmp_path):
    done = command(tmp_path / "run", *["--steps 5 --minutes 1e-9"] * 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("MSE / pixel") == 1  # one rank talks
    assert (tmp_path / "run" / "last.safetensors").exists()
    log = (tmp_path / "run" / "log.csv").read_text()
    assert log.count("\n") == 2  # one step, then the first rank says stop


@pytest.mark.parametrize("stated", ["", "1"])
def test_one_process_alone_needs_no_mpi(stated, monkeypatch):
    for name in (*distributed.SIZES, *distributed.RANKS):
        monkeypatch.delenv(name, raising=False)
    if stated:
        monkeypatch.setenv("PMI_SIZE", stated)
        monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with Group.world() as group:
        assert (group.rank, group.size, group.leads, group.neighbours) == (0, 1, True, 1)
        data = np.ones((3, 2, 1, 4, 4))
        assert group.share(data) is data
        grads, loss = group.average({"w": np.ones(2)}, np.array(3.0), 1.0)
        assert loss == 3.0
        assert (grads["w"] == 1).all()
        group.check_equal({"w": np.ones(2)})
        group.broadcast({"w": np.ones(2)})
        assert group.agreed(True)
        assert not group.agreed(False)


def test_without_mpi_the_error_names_the_extra(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"pip install 'tinyconvlstm\[mpi\]'"):
        Group.world()


@pytest.mark.parametrize(("count", "size"), [(5, 2), (7, 3), (4, 4), (9, 4)])
def test_shares_cover_the_batch_and_never_overlap(count, size):
    seen, labels = [], []
    data = {"frames": np.arange(2.0 * count * 3).reshape(2, count, 3, 1), "labels": np.arange(count)}
    for rank in range(size):
        group = Group()
        group.rank, group.size = rank, size
        part = group.share(data)
        seen.append(part["frames"])
        labels.append(part["labels"])
    np.testing.assert_array_equal(np.concatenate(seen, axis=1), data["frames"])
    np.testing.assert_array_equal(np.concatenate(labels), data["labels"])
    assert max(map(len, labels)) - min(map(len, labels)) <= 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="timeout is 0, expected seconds above 0"):
        Group(timeout=0)
    group = Group()
    group.size = 3
    with pytest.raises(ValueError, match="the batch has 2 clips, expected at least one for each of 3 ranks"):
        group.share(np.ones((4, 2, 1)))
    with pytest.raises(ValueError, match=r"the batch's arrays hold \[2, 3\] clips"):
        clip_axes((np.ones((4, 2, 1)), np.ones(3)))
    for data in (np.ones((7, 4), int), (np.ones((5, 4, 1)), np.ones((4, 4))), (np.ones(3), np.ones((4, 4)))):
        with pytest.raises(ValueError, match=r"array \(\d, 4\): give batch_axis, 0 or 1"):
            clip_axes(data)


@pytest.mark.parametrize(
    ("shapes", "given", "axes"),
    [
        ([(7, 5, 2)], None, [1]),
        ([(7, 5, 2), (5,), (7, 5), (5, 3), ()], None, [1, 0, 1, 0, None]),
        ([(7, 5)], 1, [1]),
        ([(7, 5), (5, 1, 9, 9)], [1, 0], [1, 0]),
        ([(7, 5, 2), (2, 3)], [1, None], [1, None]),
    ],
)
def test_every_array_is_cut_along_its_clips(shapes, given, axes):
    data = [np.arange(np.prod(shape)).reshape(shape) for shape in shapes]
    assert clip_axes(data, given) == (5, axes)
    parts = []
    for rank in range(2):
        group = Group()
        group.rank, group.size = rank, 2
        parts.append(group.share(data, given))
    for whole, axis, *cut in zip(data, axes, *parts, strict=True):
        np.testing.assert_array_equal(cut[0] if axis is None else np.concatenate(cut, axis), whole)


def test_ranks_weigh_what_the_loss_divides_by():
    mask = np.array([[1.0, 1, 1], [1, 0, 1], [0, 0, 1]])  # (T, N): 2 + 1 frames of rank 0, 3 of rank 1
    data = {"x": np.ones((3, 3, 1)), "mask": mask}
    axes = {"x": 1, "mask": 1}
    for rank, weights in enumerate([(1 / 3, 2 / 6), (2 / 3, 4 / 6)]):
        group = Group()
        group.rank, group.size = rank, 2
        by_clips = group.portion(data, 0, axes=axes)
        np.testing.assert_array_equal(by_clips.data["mask"], mask[:, group.part(3)])
        masked = group.portion(data, 0, axes=axes, weigh=lambda d: d["mask"].sum())
        assert (by_clips.weight, masked.weight) == weights
        grads = {"w": np.ones(3, np.float32)}
        assert group.packed(grads, ["w"], masked.weight).dtype == np.float32
        own = group.portion(by_clips.data, 0, clips=3)
        assert own.data is by_clips.data
        assert own.weight == by_clips.weight
        assert own.rng.random((2, own.rng.part.stop - own.rng.part.start, 1)).tolist() == (
            np.random.default_rng(0).random((2, 3, 1))[:, group.part(3)].tolist()
        )
    with pytest.raises(ValueError, match="weigh needs the global batch"):
        group.portion(data, 0, weigh=len, clips=3)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5,), 0),
        ((5, 3), 0),
        ((7, 5), 1),
        ((3, 5, 2), 1),
        ((2, 5, 1), 1),
        ((5, 3, 2, 2), 0),
        ((3, 5, 2, 4, 4), 1),
        ((1, 5, 3, 4), 1),
    ],
)
def test_ranks_draw_what_one_process_draws(shape, axis):
    whole = np.random.default_rng([3, 4]).random(shape)
    cuts = [slice(0, 2), slice(2, 5)]
    own = [(*shape[:axis], cut.stop - cut.start, *shape[axis + 1 :]) for cut in cuts]
    parts = [ClipGenerator([3, 4], 5, cut).random(s) for cut, s in zip(cuts, own, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts, axis), whole)


def test_frames_of_all_steps_in_one_axis_are_drawn_by_clip():
    whole = np.random.default_rng(1).random((4 * 5, 3)).reshape(4, 5, 3)
    part = ClipGenerator(1, 5, slice(2, 5)).random((4 * 3, 3), dtype=np.float64)
    np.testing.assert_array_equal(part.reshape(4, 3, 3), whole[:, 2:])
    assert ClipGenerator(1, 5, slice(2, 5)).random() == np.random.default_rng(1).random()


def test_buckets_hold_every_gradient_once(monkeypatch, rng):
    monkeypatch.setattr(distributed, "BUCKET", 100)
    grads = {
        f"{k}": rng.standard_normal((k, 2)).astype(np.float32 if k % 2 else np.float64) for k in range(1, 9)
    }
    buckets = bucket_names(grads)
    assert sorted(name for names in buckets for name in names) == sorted(grads)
    assert len(buckets) > 2
    group = Group()
    for names in buckets:
        assert len({grads[name].dtype for name in names}) == 1
        for name, a in unpacked(grads, names, group.packed(grads, names, 0.5)):
            np.testing.assert_array_equal(a, grads[name] / 2)
            assert a.dtype == grads[name].dtype


def test_a_digest_sees_every_bit_and_name():
    arrays = {"a": np.arange(3.0), "b": np.ones((2, 2))}
    assert digest(arrays) == digest({"b": np.ones((2, 2)), "a": np.arange(3.0)})
    others = [
        {**arrays, "a": np.nextafter(np.arange(3.0), 9)},
        {**arrays, "b": np.ones(4)},
        {"c": arrays["a"], "b": arrays["b"]},
    ]
    assert len({digest(a) for a in [arrays, *others]}) == 4


def test_a_watcher_asks_mpiexec_to_end_the_job(monkeypatch):
    """In the words of Hydra, which gives each process a pipe; elsewhere there is none, and nothing is said."""
    ear, mouth = os.pipe()
    monkeypatch.setenv("PMI_FD", str(mouth))
    end_job(137)
    assert os.read(ear, 100) == b"cmd=abort exitcode=137\n"
    os.close(ear)
    end_job(1)  # nobody reads it any more
    os.close(mouth)
    monkeypatch.delenv("PMI_FD")
    end_job(1)
