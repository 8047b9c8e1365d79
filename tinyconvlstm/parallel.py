"""Threads: independent parts of one piece of work, each on a core of its own.

NumPy lets go of Python's lock inside its loops, so two threads that each hold half a batch keep two
cores busy, in the element-wise work and the copies as well as in the products. While they run, the
BLAS library is held at one thread, or every product would ask for all cores again, and whoever waits
for Python's lock is let in sooner.

Threads live as long as one call: none is left behind, after Ctrl-C neither, so notebooks and forks
between calls never meet them; a fork during another thread's call begins without them. Small work is
not split. The parts depend on the sizes and the setting alone, so a fixed setting gives the same bits
in every run; another setting sums gradients in another order.
"""

from __future__ import annotations

import _thread
import contextvars
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from typing import Any, TypeVar

from .backend import Array, backend_name

VARIABLE = "TINYCONVLSTM_THREADS"
BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TURN = 5e-4  # seconds after which a part that waits for Python's lock asks for it; Python's own are ten times as long
MOST = 65_536  # threads that may be asked for: no machine has more cores, and BLAS can read the number
SMALL = 8_000_000  # multiply-accumulates (about 0.1 ms) that are worth a thread of their own

T = TypeVar("T")
_chosen: int | None = None
_inside = contextvars.ContextVar("inside a part", default=False)  # parts of parts stay on their core


def set_threads(threads: int | None) -> None:
    """Choose how many threads the library, and NumPy's BLAS, may use; None goes back to the default.

    The default is the environment's TINYCONVLSTM_THREADS, else the usable cores, of which
    OMP_NUM_THREADS and its kin for BLAS may ask for fewer; BLAS then keeps what it began with. Work
    under way ends with the threads it has.

    Raises:
        ValueError: threads, or TINYCONVLSTM_THREADS, is not a whole number from 1 to 65,536.
    """
    global _chosen, _settled
    if threads is not None and (
        isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST
    ):
        raise ValueError(f"threads is {threads!r}, expected a whole number from 1 to {MOST:,}, or None")
    wanted = from_environment() if threads is None else threads
    with _lock:
        _chosen, _settled = threads, True
        blas()
        numbers = {path: wanted or number for path, number in _blas_default.items()}
        if _holders:
            _found.update(numbers)  # the last holder sets them
        else:
            set_blas(numbers)


def settle() -> None:
    """Let the environment's TINYCONVLSTM_THREADS hold for BLAS too: at the library's first work, not at its import."""
    global _settled
    if not _settled:
        if from_environment() is None:
            _settled = True
        else:
            set_threads(None)


def get_threads() -> int:
    """How many threads the library may use now.

    Raises:
        ValueError: the environment's TINYCONVLSTM_THREADS is not a whole number from 1 to 65,536.
    """
    if given := _chosen or from_environment():
        return given
    limits = [whole(os.environ.get(name, "")) for name in BLAS_VARIABLES]
    return max(1, min([usable_cores(), *(limit for limit in limits if limit is not None)]))


def from_environment() -> int | None:
    """The environment's TINYCONVLSTM_THREADS, None where it is not set."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return None
    number = whole(given)
    if number is None or not 1 <= number <= MOST:
        raise ValueError(
            f"the environment has {VARIABLE}={given!r}, expected a whole number from 1 to {MOST:,}"
        )
    return number


def whole(text: str) -> int | None:
    """The number that ASCII digits spell; None for any other text, the empty one and "²" too."""
    return int(text) if text.isascii() and text.isdecimal() else None


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(batch: Array, macs: float, small: float | None = None) -> list[slice]:
    """Cut a batch (N, ...), whose work is `macs` multiply-accumulates, into a slice for each thread.

    One slice where a part would be smaller than `small` (default: SMALL), where the array lies on a GPU, or where this
    thread is itself working on a part.
    """
    settle()
    count, small = batch.shape[0], SMALL if small is None else small
    if count < 2 or macs < 2 * small or _inside.get() or backend_name(batch) == "cupy":
        return [slice(0, count)]
    parts = min(get_threads(), count, int(macs // small))
    cuts = [count * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def inside_a_part() -> bool:
    """Whether this thread is working on a part, which is not cut again."""
    return _inside.get()


def cuts(share: slice, size: int) -> Iterator[slice]:
    """Cut a slice of the batch into slices of so many samples."""
    for start in range(share.start, share.stop, size):
        yield slice(start, min(start + size, share.stop))


def run_parts(function: Callable[[Any], T], parts: Sequence[Any], *, small: bool = False) -> list[T]:
    """[function(part) for part in parts], every part in a thread of its own, the first in this one.

    `small` work keeps BLAS at one thread too: BLAS's idle threads go on spinning for a tenth of a
    second, on the cores of whatever comes next. An exception in a part is raised here, after all
    parts have ended: that of the first such part.
    """
    if len(parts) == 1 or _inside.get():
        with parts_at_work() if small and not _inside.get() else nullcontext():
            return [function(part) for part in parts]
    results: list[Any] = [None] * len(parts)
    errors: dict[int, BaseException] = {}
    given_up = False

    def work(k: int) -> None:
        _inside.set(True)
        try:
            results[k] = function(parts[k])
        except BaseException as error:  # also an interrupt: the other threads are waited for first
            errors[k] = error

    def in_thread(k: int) -> None:
        if not given_up:
            contexts[k].run(work, k)

    # a copied context carries numpy.errstate along, and keeps `_inside` within the part
    contexts = [contextvars.copy_context() for _ in parts]
    threads = [PartThread(in_thread, k) for k in range(1, len(parts))]
    with parts_at_work():
        try:
            for thread in threads:
                thread.start()
            contexts[0].run(work, 0)
        except BaseException:  # a thread could not be started, or Ctrl-C came meanwhile
            given_up = True  # also for one that is being started just now
            raise
        finally:
            interrupt = None
            while True:  # here, not in a function of its own, for Ctrl-C may come on entering one
                try:
                    for thread in threads:
                        while thread.at_work:
                            thread.ended.acquire()
                    break
                except KeyboardInterrupt as error:  # raised after that, not instead
                    interrupt = error
            if interrupt is not None:
                raise interrupt
    for k in sorted(errors):
        raise errors[k]
    return results


class PartThread:
    """A thread for one part. `threading.Thread` takes twice as long to start and to end: half as long as a small part.

    A new thread begins on the core of the one that starts it, and after a pause the kernel leaves it there for
    milliseconds; so it goes to another one first.
    """

    def __init__(self, work: Callable[[int], None], k: int) -> None:
        self.work, self.k = work, k
        self.begun, self.ended = _thread.allocate_lock(), _thread.allocate_lock()
        self.process: int | None = None  # the one in which it is at work

    def start(self) -> None:
        """Begin; return once the thread runs."""
        self.begun.acquire()
        self.ended.acquire()
        _thread.start_new_thread(self.run, (core(),))
        self.begun.acquire()

    def run(self, busy: int | None) -> None:
        """The part, on another core than the busy one."""
        # set before `work` asks whether all was given up; who gives up looks at it afterwards
        self.process = os.getpid()
        try:
            with suppress(Exception):  # it is a wish
                if core() == busy is not None:
                    leave(busy)
            self.begun.release()
            if trace := threading.gettrace():  # a debugger's, or that of coverage
                sys.settrace(trace)
            if profile := threading.getprofile():
                sys.setprofile(profile)
            self.work(self.k)
        finally:
            self.process = None
            self.ended.release()

    @property
    def at_work(self) -> bool:
        """Whether it has begun and not ended. In a process that was forked meanwhile it is gone."""
        return self.process == os.getpid()


def core() -> int | None:
    """The core on which this thread runs, where the C library tells."""
    return None if _core is None else int(_core())


def leave(busy: int) -> None:
    """Go on on another core; where that is, and what comes after, is the kernel's choice."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) > 1:
        os.sched_setaffinity(0, allowed - {busy})
        os.sched_setaffinity(0, allowed)


try:
    # called with Python's lock held: letting go of it takes longer than the call
    _core = ctypes.PyDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
except (AttributeError, OSError, TypeError):
    _core = None

_lock = threading.Lock()
_holders = 0
_found: dict[str, int] = {}  # threads of each BLAS library that the last holder sets
_turn = TURN  # and the switch interval of Python, in seconds
_controller: Any = None
_blas_default: dict[str, int] = {}  # threads of each BLAS library as it began
_settled = False  # whether BLAS has the setting's number


def blas() -> Any:
    """The handle on the BLAS libraries of this process."""
    global _controller
    if _controller is None:
        from threadpoolctl import ThreadpoolController

        _controller = ThreadpoolController().select(user_api="blas")
        _blas_default.update(blas_threads())
    return _controller


def blas_threads() -> dict[str, int]:
    """How many threads each BLAS library has, by its path."""
    return {library.filepath: library.num_threads for library in blas().lib_controllers}


def set_blas(numbers: dict[str, int]) -> None:
    """Give each BLAS library its number of threads, under the lock.

    Newer versions of threadpoolctl obey one thread alone until that has let go; here any may come.
    """
    for library in blas().lib_controllers:
        let_go = getattr(library, "clear_controlling_thread", lambda force: None)
        let_go(force=True)
        library.set_num_threads(numbers[library.filepath])
        let_go(force=True)


@contextmanager
def parts_at_work() -> Iterator[None]:
    """While it runs, BLAS is held at one thread, and turns at Python's lock are short.

    The last of several holders sets what the first one found, or what was chosen since.
    """
    global _holders, _turn
    with _lock:
        if _holders == 0:
            _found.update(blas_threads())
            set_blas(dict.fromkeys(_found, 1))
            _turn = sys.getswitchinterval()
            sys.setswitchinterval(min(TURN, _turn))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            if _holders:  # none are left in a process that was forked in the block
                _holders -= 1
                if _holders == 0:
                    give_back()


def give_back() -> None:
    """Set what the first holder found."""
    set_blas(_found)
    if sys.getswitchinterval() <= TURN:  # longer ones were chosen since
        sys.setswitchinterval(_turn)


def begin_alone() -> None:
    """In a forked process the threads of other calls are gone: nobody holds BLAS."""
    global _lock, _holders
    _lock = threading.Lock()
    if _holders:
        _holders = 0
        give_back()


if hasattr(os, "register_at_fork"):
    # nobody is changing BLAS's number meanwhile: the forking thread has the lock
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=begin_alone,
    )
