"""The tasks' catalogue, command and shared parts; the tasks themselves have files of their own."""

import json

import numpy as np
import pytest

from tinyconvlstm.cli import main
from tinyconvlstm.data.shapes import SHAPES, bounce, draw_shape
from tinyconvlstm.data.three_stream import KINDS, MOTIONS, TONES, ThreeStreamClips
from tinyconvlstm.tasks import TASKS, listing, task
from tinyconvlstm.tasks.command import keep, page
from tinyconvlstm.tasks.learn import accuracy
from tinyconvlstm.tasks.outcome import Outcome


def test_every_task_has_a_module_that_runs():
    for name in TASKS:
        module = task(name)
        assert callable(module.run), name
        assert module.__doc__, name


def test_the_list_explains_every_task(capsys):
    assert main(["task", "--list"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == listing()
    assert all(line.split()[0] in TASKS for line in out.splitlines())


def test_an_unknown_task_is_one_line_with_close_names(capsys, tmp_path):
    assert main(["task", "clasify", "--out", str(tmp_path / "x")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "classify" in err
    assert not (tmp_path / "x").exists()


def test_a_quick_task_leaves_a_picture_and_its_numbers(capsys, tmp_path):
    assert main(["task", "three-stream", "--quick", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "goal is not judged" in out
    found = json.loads((tmp_path / "three-stream.json").read_text())
    assert set(found["scores"]) == {"all three streams", "without pictures", "without flow", "without sound"}
    assert (tmp_path / "three-stream.png").read_bytes().startswith(b"\x89PNG")
    assert "short run, not judged" in (tmp_path / "index.md").read_text()


def outcome(reached=True):
    from matplotlib.figure import Figure

    scores = {"model": 0.25, "guess": 1.5}
    return Outcome("count", "error | on 3 clips", scores, "less", reached, Figure, {"clips": "3"}, 2)


def test_an_outcome_says_what_it_found(tmp_path):
    text = str(outcome(False))
    assert "model  0.25" in text
    assert "guess  1.50" in text
    assert "NOT reached" in text
    keep(outcome(), tmp_path, {"seed": 3, "quick": False})
    shown = page(tmp_path)
    assert "| [count](#count) | error \\| on 3 clips | model 0.25 | guess 1.50 | less | yes |" in shown
    assert "![count](count.png)" in shown
    assert "`tinyconvlstm task count --seed 3`" in shown
    keep(outcome(False), tmp_path, {"seed": 3, "quick": False})
    assert "**no**" in page(tmp_path)
    keep(outcome(), tmp_path, {"seed": 3, "quick": True})
    assert "not judged" in page(tmp_path)


def test_accuracy():
    assert accuracy(np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.array([1, 1, 1])) == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_are_whole_symmetric_and_move_by_fractions(kind):
    ink = draw_shape(kind, (8.0, 9.0), canvas=(17, 19), radius=5)
    assert ink.dtype == np.float32
    assert 0 <= ink.min() < ink.max() <= 1
    assert np.array_equal(ink, ink[::-1])
    assert np.array_equal(ink, ink[:, ::-1])
    assert not ink[0].any()
    assert not ink[:, :2].any()
    half = draw_shape(kind, (8.0, 9.5), canvas=(17, 19), radius=5, dtype=np.float64)
    centre = (half * np.arange(19)).sum() / half.sum()
    assert centre == pytest.approx(9.5, abs=1e-9)


def test_shapes_differ():
    drawn = [draw_shape(kind, (8.0, 8.0), canvas=(17, 17), radius=5) for kind in SHAPES]
    for k, one in enumerate(drawn):
        for other in drawn[:k]:
            assert abs(one - other).sum() > 5


def test_shapes_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="kind is 'blob'"):
        draw_shape("blob", (1.0, 1.0), canvas=(5, 5))
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 2\)"):
        draw_shape("disc", (1.0, 1.0, 2.0), canvas=(5, 5))
    with pytest.raises(ValueError, match="expected low below high"):
        bounce(np.zeros(2), np.ones(2), 3, 1.0, 1.0)


def test_bouncing_is_a_walk_that_turns_at_the_walls(rng):
    low, high = np.array([1.0, 2.0]), np.array([4.0, 7.5])
    start, velocity = rng.uniform(low, high, (6, 2)), rng.uniform(-1.4, 1.4, (6, 2))
    path = bounce(start, velocity, 40, low, high)
    for n in range(6):
        at, v = start[n].copy(), velocity[n].copy()
        for t in range(40):
            assert np.allclose(path[t, n], at, rtol=0, atol=1e-9)
            at = at + v
            for axis in range(2):
                if at[axis] < low[axis] or at[axis] > high[axis]:
                    wall = low[axis] if at[axis] < low[axis] else high[axis]
                    at[axis], v[axis] = 2 * wall - at[axis], -v[axis]


def test_three_stream_labels_are_what_the_streams_show():
    clips = ThreeStreamClips("validation", noise=0.0)
    x, labels = clips.batch(0, 64)
    shape, motion, tone = np.unravel_index(labels, (len(KINDS), len(MOTIONS), len(TONES)))
    assert len(set(labels)) == clips.classes == 8
    middle = [draw_shape(kind, (9.0, 9.0), canvas=(19, 19), dtype=np.float64).sum() for kind in KINDS]
    ink = x["rgb"].max(axis=2).sum(axis=(2, 3)) / x["rgb"].max(axis=(2, 3, 4))  # (T, N): area of each shape
    seen = np.abs(np.median(ink, axis=0)[:, None] - middle).argmin(axis=1)
    assert np.array_equal(seen, shape)
    along = np.abs(x["flow"]).sum(axis=(0, 3, 4)).argmax(axis=1)
    assert np.array_equal(along, motion)
    loud = x["audio"].mean(axis=0)[:, list(TONES)].argmax(axis=1)
    assert (loud == tone).mean() > 0.97


def test_no_two_streams_tell_the_third_factor():
    clips = ThreeStreamClips()
    labels = np.concatenate([clips.batch(k, 500)[1] for k in range(4)])
    counts = np.bincount(labels, minlength=8).reshape(2, 2, 2) / len(labels)
    for axis in range(3):
        best = counts.max(axis=axis).sum()  # knowing the other two factors, the best guess of this one
        assert best < 0.55  # 1/2 and what chance leaves with 2000 clips


def test_one_factor_changes_one_stream_only():
    clips, rng = ThreeStreamClips(), np.random.default_rng
    for make, others in (("pictures", 2), ("flow", 2), ("sound", 2)):
        drawn = [getattr(clips, make)(np.full(3, level), rng(4)) for level in range(others)]
        assert not np.allclose(*drawn)
    first, again = clips.batch(3, 5), clips.batch(3, 5)
    assert all(np.array_equal(first[0][name], again[0][name]) for name in first[0])
    other = ThreeStreamClips("test").batch(3, 5)
    assert not any(np.array_equal(first[0][name], other[0][name]) for name in first[0])


def test_three_stream_clips_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="split is 'dev'"):
        ThreeStreamClips("dev")
    with pytest.raises(ValueError, match="window 20"):
        ThreeStreamClips(window=20)


@pytest.mark.slow
def test_three_streams_reach_their_goal():
    assert task("three-stream").run(progress=False).reached
