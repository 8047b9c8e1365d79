"""Threads: independent parts of one piece of work, each on a core of its own.

NumPy lets go of Python's lock inside its loops, so two threads that each hold half a batch keep two
cores busy, in the element-wise work and the copies as well as in the products. While they run, the
BLAS library is held at one thread, or every product would ask for all cores again.

Threads live as long as one call: none is left behind, so notebooks, forks and a user's own threads
never meet them. Small work is not split. The parts depend on the sizes and the setting alone, so a
fixed setting gives the same bits in every run; another setting sums gradients in another order.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, TypeVar

from .backend import Array, backend_name

VARIABLE = "TINYCONVLSTM_THREADS"
BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SMALL = 8_000_000  # multiply-accumulates (about 0.1 ms) that are worth a thread of their own

T = TypeVar("T")
_chosen: int | None = None
_inside = contextvars.ContextVar("inside a part", default=False)  # parts of parts stay on their core


def set_threads(threads: int | None) -> None:
    """Choose how many threads the library, and NumPy's BLAS, may use; None goes back to the default.

    The default is the environment's TINYCONVLSTM_THREADS, else the usable cores, of which
    OMP_NUM_THREADS and its kin for BLAS may ask for fewer.

    Raises:
        ValueError: threads is not a whole number of at least 1.
    """
    global _chosen
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads is {threads!r}, expected a whole number of at least 1, or None")
    _chosen = threads
    with _lock:
        for library in blas().lib_controllers if _holders == 0 else []:
            library.set_num_threads(_blas_default[library.filepath] if threads is None else threads)


def get_threads() -> int:
    """How many threads the library may use now.

    Raises:
        ValueError: the environment's TINYCONVLSTM_THREADS is not a whole number of at least 1.
    """
    if _chosen is not None:
        return _chosen
    given = os.environ.get(VARIABLE)
    if given is None:
        limits = [int(os.environ[name]) for name in BLAS_VARIABLES if os.environ.get(name, "").isdigit()]
        return max(1, min([usable_cores(), *limits]))
    if not given.isdigit() or int(given) < 1:
        raise ValueError(f"the environment has {VARIABLE}={given!r}, expected a whole number of at least 1")
    return int(given)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(batch: Array, macs: float, small: float | None = None) -> list[slice]:
    """Cut a batch (N, ...), whose work is `macs` multiply-accumulates, into a slice for each thread.

    One slice where a part would be smaller than `small` (default: SMALL), where the array lies on a GPU, or where this
    thread is itself working on a part.
    """
    count, small = batch.shape[0], SMALL if small is None else small
    if count < 2 or macs < 2 * small or _inside.get() or backend_name(batch) == "cupy":
        return [slice(0, count)]
    parts = min(get_threads(), count, int(macs // small))
    cuts = [count * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(cuts)]


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
        with single_threaded_blas() if small and not _inside.get() else nullcontext():
            return [function(part) for part in parts]
    results: list[Any] = [None] * len(parts)
    errors: dict[int, BaseException] = {}

    def work(k: int) -> None:
        _inside.set(True)
        try:
            results[k] = function(parts[k])
        except BaseException as error:  # also an interrupt: the other threads are waited for first
            errors[k] = error

    # a copied context carries numpy.errstate along, and keeps `_inside` within the part
    contexts = [contextvars.copy_context() for _ in parts]
    with single_threaded_blas():
        threads = [
            threading.Thread(target=context.run, args=(work, k), name=f"tinyconvlstm part {k}")
            for k, context in enumerate(contexts)
        ][1:]
        for thread in threads:
            thread.start()
        try:
            contexts[0].run(work, 0)
        finally:
            for thread in threads:
                thread.join()
    for k in sorted(errors):
        raise errors[k]
    return results


_lock = threading.Lock()
_holders = 0
_limit: Any = None
_controller: Any = None
_blas_default: dict[str, int] = {}  # threads of each BLAS library as we found it


def blas() -> Any:
    """The handle on the BLAS libraries of this process."""
    global _controller
    if _controller is None:
        from threadpoolctl import ThreadpoolController

        _controller = ThreadpoolController().select(user_api="blas")
        _blas_default.update((lib.filepath, lib.num_threads) for lib in _controller.lib_controllers)
    return _controller


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS at one thread; the last of several holders gives back what the first one found."""
    global _holders, _limit
    with _lock:
        if _holders == 0:
            _limit = blas().limit(limits=1)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()
