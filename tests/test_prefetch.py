"""Batches made ahead are the same batches, in the same order, and leave no thread."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

from tinyconvlstm.backend import Upload, to_numpy
from tinyconvlstm.data.prefetch import Prefetch


def frames(step: int) -> dict[str, np.ndarray]:
    return {"frames": np.random.default_rng(step).standard_normal((3, 2)), "labels": np.arange(2) + step}


def test_the_same_batches_in_any_order_of_steps(backend):
    threads = threading.active_count()
    with Prefetch(frames, backend) as batch:
        for step in (0, 1, 2, 7, 8, 3, 3, 0):
            found = to_numpy(batch(step))
            for name, expected in frames(step).items():
                np.testing.assert_array_equal(found[name], expected)
    assert threading.active_count() == threads


def test_the_next_batch_is_made_before_it_is_asked_for():
    made, started = [], threading.Event()

    def batch(step):
        made.append((step, threading.current_thread().name))
        if step == 1:
            started.set()
        return np.ones(step)

    with Prefetch(batch) as ahead:
        ahead(0)
        assert started.wait(10)
        ahead(1)
    assert [step for step, _ in made][:2] == [0, 1]
    assert made[1][1].startswith("tinyconvlstm prefetch")


def test_copies_wait_for_the_readers_of_old_memory_and_readers_for_copies(cupy_standin, monkeypatch):
    """The order of streams and events, on a pretended CUDA: the copy of step 1 waits for the work before it."""
    log = []

    class Stream:
        def __init__(self, non_blocking=False, name="own"):
            self.name = name

        def __enter__(self):
            pass

        def __exit__(self, *error):
            pass

        def record(self):
            log.append(f"{self.name} records")
            return f"event {len(log)}"

        def wait_event(self, event):
            log.append(f"{self.name} waits for {event}")

    current = Stream(name="current")
    monkeypatch.setattr(cupy_standin.cuda, "Stream", Stream)
    monkeypatch.setattr(cupy_standin.cuda, "get_current_stream", lambda: current)
    monkeypatch.setattr(cupy_standin.cuda, "Device", nullcontext)
    upload = Upload("cupy")
    after = upload.mark()
    arrays, ready = None, None

    def other():
        nonlocal arrays, ready
        arrays, ready = upload(frames(3), after)

    thread = threading.Thread(target=other, name="tinyconvlstm prefetch")
    thread.start()
    thread.join()
    ready()
    assert log == ["current records", "own waits for event 1", "own records", "current waits for event 3"]
    np.testing.assert_array_equal(to_numpy(arrays["frames"]), frames(3)["frames"])
    log.clear()
    with Prefetch(frames, "cupy") as batch:
        for step in range(3):
            np.testing.assert_array_equal(to_numpy(batch(step)["frames"]), frames(step)["frames"])
    assert sum(line.startswith("own waits") for line in log) >= 3


@pytest.mark.parametrize("second", [1, 5], ids=["in order", "another step"])
def test_a_dropped_batch_keeps_its_memory_until_its_readers_are_waited_for(second, cupy_standin, monkeypatch):
    """The copy made ahead waits for work before its batch(step), so it may not get what batch(step) handed out."""
    log, refs, asked = [], [], threading.Event()

    class Stream:
        def __init__(self, non_blocking=False, name="a copy"):
            self.name = name

        def __enter__(self):
            if refs and threading.current_thread() is not threading.main_thread():
                asked.wait(10)  # made ahead slowly: it looks for memory when the next batch is asked for
                time.sleep(0.1)

        def __exit__(self, *error):
            pass

        def record(self):
            if refs:
                log.append((self.name, refs[0]() is not None))
                asked.set()

        def wait_event(self, event):
            pass

    current = Stream(name="the work so far")
    monkeypatch.setattr(cupy_standin.cuda, "Stream", Stream)
    monkeypatch.setattr(cupy_standin.cuda, "get_current_stream", lambda: current)
    monkeypatch.setattr(cupy_standin.cuda, "Device", nullcontext)
    begin = threading.Event()

    def slow(step):
        if step:
            begin.wait(10)
        return frames(step)

    with Prefetch(slow, "cupy") as batch:
        refs.append(weakref.ref(batch(0)["frames"]))  # dropped at once, its work just queued
        begin.set()
        batch(second)
        assert refs[0]() is None  # and not kept for longer
    held = [alive for _, alive in log]
    copies = 1 + (second == 5)  # also the one that nobody asks for
    assert [name for name, _ in log[: 1 + copies]] == ["the work so far"] + copies * ["a copy"]
    assert held[: 1 + copies] == [True] * (1 + copies)


def test_an_error_comes_with_its_own_step():
    def batch(step):
        if step == 2:
            raise ValueError("clip 2 is broken")
        return np.zeros(step)

    with Prefetch(batch) as ahead:
        ahead(0)
        assert len(ahead(1)) == 1
        with pytest.raises(ValueError, match="clip 2 is broken"):
            ahead(2)
    with pytest.raises(ValueError, match=r"outside of its block, expected `with Prefetch"):
        ahead(0)
