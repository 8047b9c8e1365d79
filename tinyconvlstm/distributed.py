"""Many machines: every rank trains on its own clips, and the gradients are averaged.

    mpiexec -n 4 python -m mpi4py -m tinyconvlstm train --out runs/four

All ranks hold the same parameters. Each takes its part of a step's global batch; the parts never
overlap. What they average is what one process would have computed from the whole batch, so a training
may go on with another number of ranks. Because averaging gradients is one line (`group.average`), the
training loop does not change. One process alone needs neither MPI nor mpiexec: its group has size 1.

Within `with group` no rank waits for another for ever. A rank that raises or leaves ends all ranks, with a
message that names it; a rank that hangs is named by the others after `timeout` seconds; one that is killed or
stopped, by the process that watches it (`watch.py`). What was saved goes on with --resume.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .backend import Array, array_module, backend_name, map_arrays, synchronise, to_backend, to_numpy
from .chance import ClipGenerator
from .watch import BEGUN, KEPT, OVER, SAID, TURN, say, tells_nobody, watched

BUCKET = 8 << 20  # bytes that travel together: few messages, each large enough to fill the network
# what mpiexec leaves in the environment
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
TIMEOUT = 120.0  # seconds that a rank waits for another one
SAVING = 10.0  # seconds that the others leave the first one to save what Ctrl-C has stopped
MISTAKES = (ValueError, TypeError, OSError)  # the user's: exit status 2
ARRIVED = 71  # tag of the messages "I have come to this step"


class Portion(NamedTuple):
    """What one rank does of a step."""

    data: Any  # its clips
    rng: np.random.Generator  # draws for them what one process would draw
    weight: float  # their part of the batch's loss; those of all ranks add up to 1


class Group:
    """The ranks of a training.

    Args:
        comm: an mpi4py communicator, or None for one process alone.
        timeout: seconds to wait for a rank that does not come, before the job is ended.
        cuda_aware: hand CuPy arrays to MPI as they are; needs an MPI that was built for it. Default:
            through the host's memory.
        trace: show where an error arose.
        tell: what tells this rank's watcher a word.
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        timeout: float = TIMEOUT,
        cuda_aware: bool = False,
        trace: bool = False,
        tell: Callable[[bytes], None] = tells_nobody,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}, expected seconds above 0")
        self.comm, self.timeout, self.cuda_aware = comm, timeout, cuda_aware
        self.trace, self.tell = trace, tell
        self.rank: int = comm.Get_rank() if comm else 0
        self.size: int = comm.Get_size() if comm else 1
        self.meetings = 0
        self.resumable = False

    @classmethod
    def world(cls, *, timeout: float = TIMEOUT, **settings: Any) -> Group:
        """All ranks of the job that mpiexec started; one process alone where it did not.

        Each rank goes on in a child of the process that mpiexec started, which watches it.

        Raises:
            ImportError: mpiexec started several ranks, and mpi4py or its MPI library is missing.
            ValueError: mpiexec belongs to another MPI than mpi4py.
        """
        stated, rank = first_of(SIZES), first_of(RANKS)
        if stated == 1 or (stated is None and rank is None):
            return cls(None, timeout=timeout, **settings)
        alone = cls(None, timeout=timeout, **settings)  # an error in a setting comes before a watcher
        tell = tells_nobody if rank is None else watched(rank, alone.timeout)
        atexit.register(tell, OVER)  # before MPI's own end, which waits for all ranks
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
            tell(SAID)
            raise ImportError(
                f"training on many ranks needs MPI: pip install 'tinyconvlstm[mpi]' ({error})"
            ) from error
        tell(BEGUN)
        found = MPI.COMM_WORLD.Get_size()
        if stated not in (None, found):
            tell(SAID)
            library = " ".join(MPI.Get_library_version().split()[:3])
            raise ValueError(
                f"mpiexec started {stated} ranks, of which mpi4py's MPI ({library}) sees {found}: "
                "use the mpiexec of that MPI"
            )
        return cls(MPI.COMM_WORLD, timeout=timeout, tell=tell, **settings)

    @property
    def neighbours(self) -> int:
        """Ranks on this machine, this one included: they share its cores."""
        if self.size == 1:
            return 1
        from mpi4py import MPI

        return self.size - len(self.unlike("the names of the machines", MPI.Get_processor_name()))

    @property
    def leads(self) -> bool:
        """Whether this rank writes logs and checkpoints, and talks."""
        return self.rank == 0

    def __enter__(self) -> Group:
        if self.size > 1:
            say(f"rank {self.rank} of {self.size} is process {os.getpid()}", below=False)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.size == 1:
            return
        if error is None:
            self.meet("the end")
            self.tell(OVER)
            return
        if self.trace:
            say("".join(traceback.format_exception(error)).rstrip())
        if not self.leads:  # what befalls all ranks is said once, by the first
            time.sleep(min(self.timeout / 2, SAVING) if isinstance(error, KeyboardInterrupt) else TURN)
        said = " ".join(str(error).split()) or "without a message"
        self.end(
            f"rank {self.rank} stopped: {kind.__name__}: {said}", 2 if isinstance(error, MISTAKES) else 1
        )

    def end(self, message: str, status: int = 1) -> NoReturn:
        """End all ranks with one message."""
        how = ", --resume goes on from the last checkpoint" if self.resumable else ""
        say(f"tinyconvlstm: {message}; all ranks end{how}")
        self.tell(SAID)
        time.sleep(0.5)  # mpiexec passes on what it has read, and reads no more once a rank has aborted
        self.comm.Abort(status)
        os._exit(status)  # where Abort comes back

    def can_resume(self) -> None:
        """There is a checkpoint to go on from: messages may say so."""
        if not self.resumable:
            self.resumable = True
            self.tell(KEPT)

    def share(self, data: Any, axes: Any = None) -> Any:
        """This rank's clips of a global batch: contiguous parts, which differ by one clip at the most.

        Args:
            data: arrays, or a tree of them.
            axes: which axis of an array counts clips: one int, or a tree of ints like data, None for an array that
                all ranks share. Default: `clip_axes`.
        """
        if self.size == 1:
            return data
        count, axes = clip_axes(data, axes)
        cut = self.part(count)
        return map_arrays(
            lambda a, axis: a if axis is None else a[(slice(None),) * axis + (cut,)], data, axes
        )

    def portion(
        self,
        data: Any,
        seed: Any,
        *,
        axes: Any = None,
        weigh: Callable[[Any], float] | None = None,
        clips: int | None = None,
    ) -> Portion:
        """What this rank does of a step.

        Args:
            data: the global batch; with `clips`, its number of clips, this rank's part alone.
            seed: of the step's random numbers. axes: as `share`.
            weigh: what the mean in the loss divides by, counted in a batch; default: its clips.
            clips: of the global batch, where `data` is not the whole of it.
        Raises:
            ValueError: both weigh and clips are given, or there are fewer clips than ranks.
        """
        if self.size == 1:
            return Portion(data, np.random.default_rng(seed), 1.0)
        if clips is not None and weigh is not None:
            raise ValueError("weigh needs the global batch, which clips says is not there: give one of them")
        count = clip_axes(data, axes)[0] if clips is None else clips
        own, part = self.share(data, axes) if clips is None else data, self.part(count)
        # Python's float: NumPy's would turn gradients of float32 into float64
        weight = float(weigh(own)) / float(weigh(data)) if weigh else (part.stop - part.start) / count
        return Portion(own, ClipGenerator(seed, count, part), weight)

    def part(self, count: int) -> slice:
        """Which of `count` clips are this rank's."""
        if count < self.size:
            raise ValueError(
                f"the batch has {count} clips, expected at least one for each of {self.size} ranks"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def average(
        self, grads: Mapping[str, Array], loss: Array, weight: float
    ) -> tuple[dict[str, Array], float]:
        """Gradients and loss of the whole batch, from those of the ranks' parts.

            g = sum over ranks of weight * g of the rank

        which is exact for a loss that is a mean, of which the rank's clips are the part `weight`. The numbers
        travel in buckets, all under way at once. They wait for the whole backward pass: a recurrent weight's
        gradient is a sum over all steps, and is complete only when the last of them has been added.

        Args:
            grads: this rank's. loss: its scalar. weight: that of its `portion`.
        Returns:
            The same on every rank.
        """
        if self.size == 1:
            return dict(grads), float(loss)
        scalar = np.array([weight * float(loss)])
        buckets = [(names, self.packed(grads, names, weight)) for names in bucket_names(grads)]
        for _, buffer in buckets:
            synchronise(buffer)
        self.sum_in_place([scalar, *(buffer for _, buffer in buckets)])
        return {name: a for names, buffer in buckets for name, a in unpacked(grads, names, buffer)}, float(
            scalar[0]
        )

    def packed(self, grads: Mapping[str, Array], names: list[str], weight: float) -> Array:
        """Some gradients, weighted, one after the other in one array; on the host unless CUDA-aware."""
        flat = array_module(grads[names[0]]).concatenate([weight * grads[name].ravel() for name in names])
        return flat if self.cuda_aware else to_numpy(flat)

    def sum_in_place(self, buffers: list[Array]) -> None:
        """Replace every buffer by its sum over the ranks."""
        from mpi4py import MPI

        self.meet(
            "the gradients", [lambda b=b: self.comm.Iallreduce(MPI.IN_PLACE, b, MPI.SUM) for b in buffers]
        )

    def meet(self, what: str, collectives: list[Any] | None = None) -> None:
        """Wait until every rank is here, `timeout` at most, and the collectives are done, at most twice that."""
        self.meetings += 1
        others = [rank for rank in range(self.size) if rank != self.rank]
        here, seen = np.array([self.meetings]), np.zeros(self.size, dtype=np.int64)
        arrivals = {rank: self.comm.Irecv(seen[rank : rank + 1], rank, ARRIVED) for rank in others}
        requests = [self.comm.Isend(here, rank, ARRIVED) for rank in others]
        requests += [start() for start in collectives or []]
        began, pause = time.monotonic(), 0.0
        while True:  # every request is asked every time: asking is what moves the messages on
            waiting = [rank for rank in others if not arrivals[rank].Test()]
            done = [request.Test() for request in requests]
            if not waiting and all(done):
                break
            late = time.monotonic() - began - self.timeout
            if late > 0 and waiting:
                present = [rank for rank in range(self.size) if rank not in waiting]
                time.sleep(TURN * present.index(self.rank))  # the first of them says it, and ends the others
                named = " and ".join(f"rank {rank}" for rank in waiting)
                self.end(
                    f"{named} did not come to {what} (meeting {self.meetings}) within {self.timeout:g} s"
                )
            if (
                late > self.timeout
            ):  # all have come; one that was stopped on the way its watcher has named by now
                self.end(
                    f"the network did not bring {what} (meeting {self.meetings}) in {2 * self.timeout:g} s"
                )
            time.sleep(pause)
            pause = min(pause + 2e-5, 1e-3)  # spin at first, then leave the core to those who compute
        for rank in others:
            if seen[rank] != self.meetings:
                raise RuntimeError(
                    f"rank {rank} came to its meeting {seen[rank]}, this is {self.meetings} ({what})"
                )

    def broadcast(self, arrays: Mapping[str, Array]) -> None:
        """Give every rank the first one's arrays, in place."""
        if self.size == 1:
            return
        host = {name: np.ascontiguousarray(to_numpy(a)) for name, a in arrays.items()}
        self.meet("the parameters", [lambda a=host[name]: self.comm.Ibcast(a, 0) for name in sorted(host)])
        for name, a in arrays.items():
            a[...] = to_backend(host[name], backend_name(a) or "numpy")

    def agreed(self, yes: bool) -> bool:
        """What the first rank says, so that all do the same."""
        flag = np.array([yes], np.uint8)
        self.broadcast({"flag": flag})
        return bool(flag[0])

    def check_equal(self, arrays: Mapping[str, Array]) -> None:
        """RuntimeError, naming the ranks, where their parameters are not the same bits."""
        wrong = self.unlike("the comparison of parameters", digest(arrays)) if self.size > 1 else []
        if wrong:
            raise RuntimeError(f"parameters of ranks {wrong} differ from those of rank 0")

    def check_same(self, what: str, settings: Any) -> None:
        """ValueError, naming the ranks, where settings are not those of the first one, by their `repr`."""
        wrong = self.unlike(what, repr(settings), of=0) if self.size > 1 else []
        if wrong:
            raise ValueError(f"{what} of ranks {wrong} differ from rank 0's, expected the same on all")

    def unlike(self, what: str, text: str, of: int | None = None) -> list[int]:
        """The ranks that say something else than this one, or than rank `of`."""
        own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8).copy()
        found = np.zeros((self.size, own.size), np.uint8)
        self.meet(what, [lambda: self.comm.Iallgather(own, found)])
        like = found[self.rank if of is None else of]
        return [rank for rank in range(self.size) if (found[rank] != like).any()]


def first_of(names: tuple[str, ...]) -> int | None:
    """The first of these variables that the environment has, as a number."""
    texts = [os.environ[name] for name in names if os.environ.get(name, "").isdecimal()]
    return int(texts[0]) if texts else None


def digest(arrays: Mapping[str, Array]) -> str:
    """A hash of names, shapes and bits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(to_numpy(arrays[name]))
        found.update(f"{name} {a.shape} {a.dtype}".encode() + a.tobytes())
    return found.hexdigest()


def clip_axes(data: Any, axes: Any = None) -> tuple[int, Any]:
    """How many clips a batch has, and which axis of each of its arrays counts them.

    Where `axes` is not given: the second of arrays (T, N, ...) with three axes or more, the only one of
    arrays (N,), and of arrays with two axes the one that has the others' N.

    Raises:
        ValueError: the arrays hold different numbers of clips, or an array of two axes leaves it open
            which of them counts clips.
    """
    if isinstance(axes, int):
        axes = map_arrays(lambda a: axes, data)
    elif axes is None:
        known: set[int] = set()
        map_arrays(lambda a: known.add(int(a.shape[a.ndim > 2])) if a.ndim not in (0, 2) else None, data)
        axes = map_arrays(lambda a: clip_axis(a.shape, known), data)
    sizes: set[int] = set()
    map_arrays(lambda a, axis: None if axis is None else sizes.add(int(a.shape[axis])), data, axes)
    if len(sizes) != 1:
        raise ValueError(
            f"the batch's arrays hold {sorted(sizes)} clips, expected one number for all; batch_axis says where to look"
        )
    return sizes.pop(), axes


def clip_axis(shape: tuple[int, ...], known: set[int]) -> int | None:
    """The axis that counts clips, of which a batch's other arrays have a `known` number."""
    if len(shape) != 2:
        return int(len(shape) > 2) if shape else None
    fitting = [axis for axis in (0, 1) if shape[axis] in known]
    if len(fitting) != 1:
        raise ValueError(
            f"the batch has an array {tuple(shape)}: give batch_axis, 0 or 1, the axis that counts clips"
        )
    return fitting[0]


def bucket_names(grads: Mapping[str, Array]) -> list[list[str]]:
    """Names in alphabetical order, cut into buckets of about BUCKET bytes and of one dtype."""
    buckets: list[list[str]] = []
    room, kind = 0, None
    for name in sorted(grads):
        a = grads[name]
        if not buckets or room < a.nbytes or a.dtype != kind:
            buckets.append([])
            room, kind = BUCKET, a.dtype
        buckets[-1].append(name)
        room -= a.nbytes
    return buckets


def unpacked(grads: Mapping[str, Array], names: list[str], buffer: Array) -> list[tuple[str, Array]]:
    """The gradients of a bucket, each where and in the shape that it was."""
    found, begin = [], 0
    for name in names:
        a = grads[name]
        part = buffer[begin : begin + a.size].reshape(a.shape)
        found.append((name, to_backend(part, backend_name(a) or "numpy")))
        begin += a.size
    return found
