"""A second process for every rank, which watches it and says how it ended.

mpiexec ends a job when a process of it dies, and tells no more than that process's number; that one
stands still, or never starts, it does not notice. So the process that mpiexec has started forks. Its
child is the rank. The parent waits, and ends the job with one line that names the rank, when that

    is killed                               at once
    leaves before its end, and says nothing at once
    stands still, stopped by a signal       after half the timeout
    waits for MPI to start                  after the timeout: another rank is missing
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

PAUSE = 0.05  # seconds between two looks
TURN = 1.0  # seconds that the others leave a rank to say what all of them have to say
HEARD = 0.3  # seconds in which mpiexec passes a line on, before it ends all
BEGUN, KEPT, SAID, OVER = b"b", b"k", b"s", b"o"  # what a rank tells


def say(line: str, *, below: bool = True) -> None:
    """One line on stderr, in one piece, `below` whatever a progress bar may have left there.

    Where stderr has gone, with mpiexec, it is lost: what was to end after it ends all the same.
    """
    with suppress(OSError, ValueError):  # ValueError: closed
        sys.stderr.flush()
    with suppress(OSError):
        os.write(2, f"{chr(10) * below}{line}\n".encode())


def tells_nobody(word: bytes) -> None:
    """For a rank that is not watched."""


def watched(rank: int, timeout: float) -> Callable[[bytes], None]:
    """Go on in a child of this process, which watches it; returns, there, what tells the watcher a word.

    A process that has threads, MPI or a GPU at work cannot fork: it goes on alone.
    """
    at_work = threading.active_count() > 1 or {"mpi4py.MPI", "cupy"} & set(sys.modules)
    if at_work or not hasattr(os, "fork"):
        return tells_nobody
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:  # Ctrl-C kills until MPI has started: Python would hear of it after that, if all ranks come
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    (ear, mouth), (pulse, heart) = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BLAS's own threads end before a fork
        child = os.fork()
    if child:
        os.close(mouth)
        os.close(pulse)
        os._exit(watch(child, ear, rank, timeout))
    os.close(ear)
    os.close(heart)
    told = bytearray()
    feel = threading.Thread(target=outlive, args=(pulse, rank, told), name="tinyconvlstm pulse", daemon=True)
    feel.start()

    def tell(word: bytes) -> None:
        told.extend(word)
        if word == BEGUN and raises:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os.write(mouth, word)
        except OSError:  # nobody listens any more
            return

    return tell


def watch(child: int, ear: int, rank: int, timeout: float) -> int:
    """Wait for a rank and say what happened to it; returns the exit status."""
    interrupts: list[int] = []  # Ctrl-C comes to all ranks and to their watchers; it is the ranks' matter
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    os.set_blocking(ear, False)
    told, name, began, launcher = b"", f"rank {rank} (process {child})", time.monotonic(), os.getppid()
    still: float | None = None  # since when
    while True:
        ended, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        told, now = told + heard(ear), time.monotonic()
        if ended and os.WIFSTOPPED(status):
            still = now
        elif ended and os.WIFCONTINUED(status):
            still = None
        elif ended:
            break
        if os.getppid() != launcher:
            finish(child, f"mpiexec is gone, and with it {name}", told)
        if BEGUN not in told and now > began + timeout:
            finish(child, f"{name} has waited {timeout:g} s for MPI to start: another rank is missing", told)
        if still is not None and now > still + timeout / 2:
            finish(child, f"{name} has stood still for {timeout / 2:g} s", told)
        time.sleep(PAUSE)
    if os.WIFSIGNALED(status):
        said = f"{name} was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    elif os.WEXITSTATUS(status) == 0 and OVER in told:
        return 0
    else:
        said = f"{name} left with exit status {os.WEXITSTATUS(status)} before its end"
    if interrupts and rank and os.waitstatus_to_exitcode(status) in (-signal.SIGINT, 128 + signal.SIGINT):
        time.sleep(TURN)  # what befalls all ranks the first one's watcher says
    elif SAID not in told:
        say(ends(said, told))
    left = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) or 1
    end_job(left)
    return left


def finish(child: int, said: str, told: bytes) -> NoReturn:
    """End a rank that goes on no more, and with it the job."""
    say(ends(said, told))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # mpiexec asks why a process ended when its rank has gone
    end_job(1)
    os._exit(1)


def end_job(left: int) -> None:
    """Ask mpiexec to end all ranks with that status, as MPI_Abort does: one in 400 times it overlooks an end.

    The words are those of MPICH's process manager, Hydra; with another mpiexec the exit status must do.
    """
    if pipe := os.environ.get("PMI_FD"):
        time.sleep(HEARD)
        with suppress(OSError, ValueError):
            os.write(int(pipe), f"cmd=abort exitcode={left}\n".encode())


def ends(said: str, told: bytes | bytearray) -> str:
    """The one line: what happened, and what follows."""
    return (
        f"tinyconvlstm: {said}; all ranks end{', --resume goes on from the last checkpoint' * (KEPT in told)}"
    )


def heard(ear: int) -> bytes:
    """What the rank has told since."""
    try:
        return os.read(ear, 4096)
    except BlockingIOError:
        return b""


def outlive(pulse: int, rank: int, told: bytearray) -> None:
    """Wait until the watcher is no more: then it has been killed, and the rank ends too."""
    os.read(pulse, 1)  # nothing is ever written
    say(ends(f"the process that watches rank {rank} was killed", told))
    os._exit(1)
