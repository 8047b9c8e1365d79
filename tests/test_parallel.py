"""Threads: parts of a batch give what the whole gives, and leave nothing behind."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tinyconvlstm import (
    ConvLSTMCell,
    GRUCell,
    LSTMCell,
    ResetBeforeGRUCell,
    RNNCell,
    bptt,
    get_threads,
    ops,
    parallel,
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
    set_threads,
)
from tinyconvlstm.backend import map_arrays
from tinyconvlstm.cells import maps
from tinyconvlstm.ops.conv import conv_weight_backward

MODES = ("full", "truncated", "checkpointed")


@contextmanager
def in_parts(threads: int, z_bytes: int = maps.Z_BYTES) -> Iterator[None]:
    """Split even the smallest work over so many threads; take the maps of so many bytes of z together."""
    kept = bptt.STEP, parallel.SMALL, maps.Z_BYTES
    bptt.STEP = parallel.SMALL = 1
    maps.Z_BYTES = z_bytes
    set_threads(threads)
    try:
        yield
    finally:
        bptt.STEP, parallel.SMALL, maps.Z_BYTES = kept
        set_threads(None)


def run(build, mode, seed=0, **settings):
    """Forward and backward of one cell: ys, last state, dxs, dstate, grads."""
    rng = np.random.default_rng(seed)
    cell = build(2, 3, (3, 2), dtype=np.float64)
    cell = cell.bind({name: rng.standard_normal(a.shape) for name, a in cell.params.items()})
    xs = rng.standard_normal((6, 5, 2, 4, 3))
    state = map_arrays(lambda a: rng.standard_normal(a.shape), cell.initial_state(xs[0]))
    dys, dlast = (
        rng.standard_normal((6, 5, 3, 4, 3)),
        map_arrays(lambda a: rng.standard_normal(a.shape), state),
    )
    state = state if settings.pop("given", True) else None
    if mode == "checkpointed":
        ys, last, kept = scan_checkpointed(cell, xs, state, every=4, **settings)
        return ys, last, *scan_checkpointed_backward(cell, dys, dlast, kept)
    ys, last, tape = scan(cell, xs, state, **settings)
    if mode == "truncated":
        return ys, last, *scan_truncated_backward(cell, dys, dlast, tape, k1=2, k2=3)
    return ys, last, *scan_backward(cell, dys, dlast, tape)


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, tuple | list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [] if tree is None else [tree]


def check(found, expected, rtol=1e-12):
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


SETTINGS = [
    {},
    {"given": False},
    {"lengths": [2, 6, 1, 4, 3]},
    {"lengths": [2, 6, 1, 4, 3], "reverse": True, "given": False},
    {"h_mask": np.random.default_rng(3).standard_normal((5, 3, 4, 3))},
    {"h_mask": np.random.default_rng(3).standard_normal((1, 3, 1, 1)), "reverse": True},
]
CELLS = [RNNCell, LSTMCell, GRUCell, ResetBeforeGRUCell]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(s) or "plain")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("build", CELLS)
def test_parts_in_threads_give_what_the_whole_batch_gives(build, mode, settings):
    expected = run(build, mode, **settings)
    for threads in (2, 3):
        with in_parts(threads):
            found, again = run(build, mode, **settings), run(build, mode, **settings)
        check(found, expected)
        np.testing.assert_array_equal(found[0], expected[0])  # a clip's own numbers are the same bits
        for a, b in zip(leaves(found), leaves(again), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("build", CELLS)
def test_steps_taken_together_and_apart_give_the_same_bits(build, mode):
    together = run(build, mode)
    for z_bytes in (1, 2 * 5 * 12 * 12 * 8):
        with in_parts(1, z_bytes):
            apart = run(build, mode)
        for a, b in zip(leaves(apart), leaves(together), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_convolutions_in_threads(threads, rng):
    x, w, b = (rng.standard_normal(s) for s in [(5, 4, 6, 5), (6, 2, 3, 2), (6,)])
    window = ops.Window((3, 2), stride=(2, 1), padding=1)
    y, saved = ops.conv_forward(x, w, b, window=window, groups=2)
    dy = rng.standard_normal(y.shape)
    expected = y, *ops.conv_backward(dy, saved)
    with in_parts(threads):
        y, saved = ops.conv_forward(x, w, b, window=window, groups=2)
        check((y, *ops.conv_backward(dy, saved)), expected)
        assert (conv_weight_backward(dy, saved)[0] == ops.conv_backward(dy, saved)[1]).all()


def test_without_input_grad_everything_else_is_the_same(rng):
    for z_bytes in (1, maps.Z_BYTES):
        with in_parts(2, z_bytes):
            cell = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64)
            xs, dys = rng.standard_normal((4, 3, 2, 5, 4)), rng.standard_normal((4, 3, 3, 5, 4))
            tape = scan(cell, xs)[2]
            dxs, _, grads = scan_backward(cell, dys, None, tape)
            none, _, same = scan_backward(cell, dys, None, tape, input_grad=False)
        assert dxs.shape == xs.shape
        assert none is None
        check(same, grads)


def test_the_tape_of_parts_can_be_looked_at_as_one(rng):
    cell, xs = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64), rng.standard_normal((4, 5, 2, 5, 4))
    whole = scan(cell, xs)[2]
    with in_parts(2):
        parts = scan(cell, xs)[2]
    assert len(parts.tapes) == 2
    assert len(parts.steps) == 4
    for t in range(4):
        np.testing.assert_array_equal(parts.steps[t].gates.f, whole.steps[t].gates.f)
        assert parts.steps[t].state_map.w is cell.params["w_h"]
    np.testing.assert_array_equal(parts.steps[-1].gates.c, whole.last.c)
    np.testing.assert_array_equal(parts.last.h, whole.last.h)
    np.testing.assert_array_equal(parts.projection.x, xs)
    assert [step.gates.i.shape for step in parts.steps[1:3]] == [(5, 3, 5, 4)] * 2


def test_small_work_and_dense_cells_are_not_split(rng):
    set_threads(2)
    try:
        small = ConvLSTMCell(2, 3, (3, 3))
        assert not hasattr(scan(small, np.ones((2, 4, 2, 5, 4), np.float32))[2], "tapes")
        large = ConvLSTMCell(16, 32, (3, 3))
        assert hasattr(scan(large, np.ones((2, 4, 16, 16, 16), np.float32))[2], "tapes")
        dense = LSTMCell(512, 512)
        assert not hasattr(scan(dense, np.ones((2, 256, 512), np.float32))[2], "tapes")
    finally:
        set_threads(None)


def test_work_on_a_gpu_is_not_split(cupy_standin):
    from tinyconvlstm import to_backend

    with in_parts(2):
        x = to_backend(np.ones((4, 3)), "cupy")
        assert parallel.shares(x, 1e12) == [slice(0, 4)]


def blas():
    from threadpoolctl import threadpool_info

    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@contextmanager
def two_threads():
    """The setting at 2 threads, BLAS's too; both as they were at the end."""
    set_threads(2)
    try:
        yield [2] * len(blas())
    finally:
        set_threads(None)


@pytest.fixture
def blas_at_two():
    with two_threads() as found:
        yield found


def check_no_thread_is_left(before):
    """A thread that has ended its part is gone a moment later."""
    end = time.monotonic() + 10
    while _thread._count() > before and time.monotonic() < end:
        time.sleep(0.001)
    assert _thread._count() == before


def test_no_thread_is_left_and_blas_gets_its_threads_back():
    before, threads = blas(), _thread._count()
    inside = parallel.run_parts(lambda part: blas(), [0, 1, 2])
    assert all(n == 1 for found in inside for n in found)
    assert blas() == before
    check_no_thread_is_left(threads)


@pytest.mark.parametrize("there", [None, 0, 1])
def test_a_part_leaves_the_core_of_the_thread_that_started_it(there, monkeypatch):
    main, left = threading.get_ident(), []
    here = None if there is None else 0
    monkeypatch.setattr(parallel, "core", lambda: here if threading.get_ident() == main else there)
    monkeypatch.setattr(parallel, "leave", left.append)
    parallel.run_parts(lambda k: None, [0, 1, 2])
    assert left == ([0, 0] if there == 0 else [])


@pytest.mark.skipif(parallel.core() is None or parallel.usable_cores() < 2, reason="no cores to choose from")
def test_a_thread_that_left_a_core_may_run_on_all_of_them_again():
    before = os.sched_getaffinity(0)
    busy = parallel.core()
    parallel.leave(busy)
    assert parallel.core() != busy
    assert os.sched_getaffinity(0) == before
    try:
        os.sched_setaffinity(0, {busy})
        parallel.leave(busy)  # there is no other
        assert (parallel.core(), os.sched_getaffinity(0)) == (busy, {busy})
    finally:
        os.sched_setaffinity(0, before)


def test_blas_is_held_by_calls_of_any_thread(blas_at_two):
    """Also where another thread set its number first, and where the last call to end did not begin first."""
    found, begun, go_on = [], threading.Event(), threading.Event()

    def first():
        with parallel.parts_at_work():
            begun.set()
            go_on.wait(10)

    other = threading.Thread(target=first)
    other.start()
    begun.wait(10)
    found.append(blas())
    with parallel.parts_at_work():
        go_on.set()
        other.join()
        found.append(blas())
    assert found == [[1] * len(blas_at_two)] * 2
    assert blas() == blas_at_two


@pytest.mark.parametrize("chosen", [0.005, 1e-5])
def test_turns_at_pythons_lock_are_short_while_parts_run(chosen):
    """And as they were afterwards, unless somebody chose longer ones meanwhile."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(chosen)
    try:
        chosen = sys.getswitchinterval()
        inside = parallel.run_parts(lambda part: sys.getswitchinterval(), [0, 1])
        assert max(inside) == pytest.approx(min(chosen, parallel.TURN))
        assert sys.getswitchinterval() == chosen
        with parallel.parts_at_work():
            parallel.run_parts(lambda part: None, [0, 1])
            assert sys.getswitchinterval() == pytest.approx(min(chosen, parallel.TURN))
        assert sys.getswitchinterval() == chosen
        parallel.run_parts(lambda part: sys.setswitchinterval(0.02), [0, 1])
        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(before)


def test_ctrl_c_before_a_thread_is_there_leaves_nobody_to_wait_for(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "core", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parallel.run_parts(lambda k: k, [0, 1, 2])


def test_a_thread_that_memory_lacks_for_is_an_error(monkeypatch):
    def lacking(run, arguments):
        raise MemoryError

    monkeypatch.setattr(_thread, "start_new_thread", lacking)
    with pytest.raises(MemoryError):
        parallel.run_parts(lambda k: k, [0, 1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_in_a_part_does_not_wait_for_the_others():
    here = os.getpid()

    def part(k):
        if k:
            time.sleep(0.3)
            return None
        return os.fork()

    child = parallel.run_parts(part, [0, 1])[0]
    if os.getpid() != here:
        os._exit(7)  # it has come out of the call
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_debuggers_and_coverage_see_all_parts():
    traced, profiled = set(), set()

    def into(seen):
        def hook(frame, event, arg):
            if event == "call" and frame.f_code.co_name == "part_to_trace":
                seen.add(frame.f_locals["k"])

        return hook

    threading.settrace(into(traced))
    threading.setprofile(into(profiled))
    try:
        parallel.run_parts(part_to_trace, [0, 1, 2])
    finally:
        threading.settrace(None)
        threading.setprofile(None)
    assert traced == profiled == {1, 2}  # the first part's thread has its own


def part_to_trace(k):
    return k


def test_a_part_runs_where_it_is_when_it_may_not_leave(monkeypatch):
    def refused(thread, cores):
        raise OSError("Invalid argument")

    monkeypatch.setattr(parallel, "core", lambda: 0)
    monkeypatch.setattr(os, "sched_setaffinity", refused, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {0, 1}, raising=False)
    assert parallel.run_parts(lambda k: k, [0, 1, 2]) == [0, 1, 2]


def test_an_error_in_a_part_is_raised_after_all_have_ended():
    ended = []

    def part(k):
        if k:
            raise ValueError(f"part {k}")
        ended.append(k)

    threads = _thread._count()
    with pytest.raises(ValueError, match="part 1"):
        parallel.run_parts(part, [0, 1, 2])
    assert ended == [0]
    check_no_thread_is_left(threads)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals between threads")
@pytest.mark.parametrize("interrupted", [[2], [1, 2]], ids=["once", "twice"])
def test_ctrl_c_is_raised_after_all_parts_have_ended(interrupted, blas_at_two):
    ended = []

    def part(k):
        time.sleep(0.1 * k)
        if k in interrupted:  # the first part has ended, and its thread waits for the others
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.2 if k else 0)
        ended.append((k, blas()))

    threads = _thread._count()
    with pytest.raises(KeyboardInterrupt):
        parallel.run_parts(part, [0, 1, 2])
    assert sorted(k for k, _ in ended) == [0, 1, 2]
    assert all(n == 1 for _, found in ended for n in found)
    assert blas() == blas_at_two
    check_no_thread_is_left(threads)


def interrupted_while_starting(run, arguments):
    """Ctrl-C comes before the thread has begun."""
    late.append((run, arguments))
    raise KeyboardInterrupt


def no_more_threads(run, arguments):
    raise RuntimeError("can't start new thread")


late = []


@pytest.mark.parametrize("broken", [no_more_threads, interrupted_while_starting])
def test_where_a_thread_does_not_start_the_others_are_waited_for(broken, monkeypatch, blas_at_two):
    ended, start, tried, threads = [], _thread.start_new_thread, [], _thread._count()

    def second_is_broken(run, arguments):
        tried.append(run)
        if len(tried) == 2:
            broken(run, arguments)
        start(run, arguments)

    def part(k):
        time.sleep(0.1)
        ended.append((k, blas()))

    def after_a_while():  # the thread begins at last
        time.sleep(0.3)
        run, arguments = late.pop()
        run(*arguments)  # in this thread, which counts until it has ended

    if broken is interrupted_while_starting:
        start(after_a_while, ())
    monkeypatch.setattr(_thread, "start_new_thread", second_is_broken)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        parallel.run_parts(part, [0, 1, 2, 3])
    check_no_thread_is_left(threads)
    assert blas() == blas_at_two
    assert not late
    assert ended == [(1, [1] * len(blas_at_two))]  # the second does nothing any more


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("inside", [False, True], ids=["by another thread", "in a part"])
def test_a_process_forked_during_a_call_has_blas_for_itself(inside, blas_at_two):
    begun, go_on, codes, interval = threading.Event(), threading.Event(), [], sys.getswitchinterval()

    def forked():
        child = os.fork()
        if child == 0:
            right = False
            try:
                with parallel.parts_at_work():
                    right = blas() == [1] * len(blas_at_two)
                right = right and (inside or parallel._holders == 0) and blas() == blas_at_two
                right = right and sys.getswitchinterval() == interval
            finally:
                os._exit(0 if right else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    def part(k):
        if k == 0 and inside:
            forked()
        begun.set()
        go_on.wait(10)

    other = threading.Thread(target=parallel.run_parts, args=(part, [0, 1]))
    other.start()
    begun.wait(10)
    if not inside:
        forked()
    go_on.set()
    other.join()
    assert codes == [0]
    assert blas() == blas_at_two


def test_parts_of_parts_stay_on_their_thread():
    def inner(_):
        return threading.get_ident()

    def outer(_):
        assert parallel.shares(np.ones((8, 1)), 1e12) == [slice(0, 8)]
        return threading.get_ident(), parallel.run_parts(inner, [0, 1])

    results = parallel.run_parts(outer, [0, 1])
    assert len({ident for ident, _ in results}) == 2
    for ident, idents in results:
        assert idents == [ident, ident]
    assert parallel.run_parts(inner, [0, 1])[0] == threading.get_ident()  # and outside it splits again
    assert len(set(parallel.run_parts(inner, [0, 1]))) == 2


def test_numpys_error_state_holds_in_the_parts():
    def divide(_):
        return np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        assert np.isinf(parallel.run_parts(divide, [0, 1])).all()
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel.run_parts(divide, [0, 1])


def test_beside_a_users_own_threads(rng):
    expected = run(ConvLSTMCell, "full")
    found = [None] * 4

    def work(k):
        found[k] = run(ConvLSTMCell, "full")

    with in_parts(2):
        users = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in users:
            thread.start()
        for thread in users:
            thread.join()
    for result in found:
        check(result, expected)


def test_a_setting_made_during_a_call_holds_after_it(blas_at_two):
    def part(k):
        if k:
            set_threads(3)
        return blas()

    assert parallel.run_parts(part, [0, 1])[1] == [1] * len(blas_at_two)
    assert blas() == [3] * len(blas_at_two)
    assert get_threads() == 3


FIRST_USE = """
import json, sys
import numpy as np
import tinyconvlstm
heavy = "threadpoolctl" in sys.modules
from threadpoolctl import threadpool_info
blas = lambda: [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
x = np.ones((2, 1, 3), np.float32)
{use}
first = blas()
tinyconvlstm.set_threads(2)
tinyconvlstm.set_threads(None)
print(json.dumps([heavy, first, blas()]))
"""


@pytest.mark.parametrize(
    "use",
    [
        "tinyconvlstm.scan(tinyconvlstm.LSTMCell(3, 2), x)",
        "tinyconvlstm.ops.linear_forward(x, x[0])",
        "tinyconvlstm.ops.conv_forward(x[0], x[0])",
    ],
)
def test_the_environment_s_setting_is_blas_s_too(use):
    """From the first use on, as `set_threads(1)` would have it; an import sets nothing, and imports nothing for it."""
    environment = os.environ | {parallel.VARIABLE: "1"} | dict.fromkeys(parallel.BLAS_VARIABLES, "2")
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE.format(use=use)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    heavy, first, after = json.loads(done.stdout)
    assert not heavy
    assert first == after == [1] * len(first)


def test_the_setting(monkeypatch):
    for name in (parallel.VARIABLE, *parallel.BLAS_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    assert get_threads() == parallel.usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "²")  # no number: not obeyed
    assert get_threads() == parallel.usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert get_threads() == 1
    monkeypatch.setenv(parallel.VARIABLE, "3")
    assert get_threads() == 3
    set_threads(2)
    try:
        assert get_threads() == 2
    finally:
        set_threads(None)
    assert get_threads() == 3
    for wrong in ("many", "²", "0", "-1", "", "65537", "9" * 20):
        monkeypatch.setenv(parallel.VARIABLE, wrong)
        for ask in (get_threads, lambda: set_threads(None)):
            with pytest.raises(
                ValueError, match=rf"TINYCONVLSTM_THREADS='{wrong}', expected a whole number from 1 to 65,536"
            ):
                ask()
    monkeypatch.delenv(parallel.VARIABLE)
    set_threads(None)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 65_537, 10**30])
def test_a_setting_out_of_range(threads):
    before = get_threads(), blas()
    with pytest.raises(ValueError, match=r"threads is .*, expected a whole number from 1 to 65,536, or None"):
        set_threads(threads)
    assert (get_threads(), blas()) == before


def test_the_largest_setting(monkeypatch):
    monkeypatch.setattr(parallel, "set_blas", lambda numbers: None)  # which would start some
    monkeypatch.setenv(parallel.VARIABLE, "65536")
    assert get_threads() == 65_536
    try:
        set_threads(65_536)
        assert get_threads() == 65_536
    finally:
        monkeypatch.delenv(parallel.VARIABLE)
        set_threads(None)
