"""Many machines: every rank trains on its own clips, and the gradients are averaged.

    mpiexec -n 4 python -m mpi4py -m tinyconvlstm train --out runs/four

All ranks hold the same parameters. Each takes its part of a step's global batch; the parts never
overlap. What they average is what one process would have computed from the whole batch, so a training
may go on with another number of ranks. Because averaging gradients is one line (`group.average`), the
training loop does not change. One process alone needs neither MPI nor mpiexec: its group has size 1.

A job never waits for ever. A rank that raises or leaves ends all ranks, with a message that names it;
a rank that hangs is named by the others after `timeout` seconds. What was saved goes on with --resume.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from .backend import Array, array_module, backend_name, map_arrays, synchronise, to_backend, to_numpy

BUCKET = 8 << 20  # bytes that travel together: few messages, each large enough to fill the network
LAUNCHERS = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")  # what mpiexec leaves in the environment
TIMEOUT = 120.0  # seconds that a rank waits for another one
ARRIVED = 71  # tag of the messages "I have come to this step"


class Group:
    """The ranks of a training.

    Args:
        comm: an mpi4py communicator, or None for one process alone.
        timeout: seconds to wait for a rank that does not come, before the job is ended.
        cuda_aware: hand CuPy arrays to MPI as they are; needs an MPI that was built for it. Default:
            through the host's memory.
    """

    def __init__(self, comm: Any = None, *, timeout: float = TIMEOUT, cuda_aware: bool = False) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}, expected seconds above 0")
        self.comm, self.timeout, self.cuda_aware = comm, timeout, cuda_aware
        self.rank: int = comm.Get_rank() if comm else 0
        self.size: int = comm.Get_size() if comm else 1
        self.meetings = 0

    @classmethod
    def world(cls, **settings: Any) -> Group:
        """All ranks of the job that mpiexec started; one process alone where it did not."""
        if not any(name in os.environ for name in LAUNCHERS):
            return cls(None, **settings)
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
            raise ImportError(
                f"training on many ranks needs MPI: pip install 'tinyconvlstm[mpi]' ({error})"
            ) from error
        return cls(MPI.COMM_WORLD, **settings)

    @property
    def neighbours(self) -> int:
        """Ranks on this machine, this one included: they share its cores."""
        if self.size == 1:
            return 1
        from mpi4py import MPI

        return int(self.comm.Split_type(MPI.COMM_TYPE_SHARED).Get_size())

    @property
    def leads(self) -> bool:
        """Whether this rank writes logs and checkpoints, and talks."""
        return self.rank == 0

    def __enter__(self) -> Group:
        if self.size > 1:
            print(f"rank {self.rank} of {self.size} is process {os.getpid()}", file=sys.stderr, flush=True)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.size == 1:
            return
        if error is None:
            self.meet("the end")
        else:
            said = " ".join(str(error).split()) or "without a message"
            self.end(f"rank {self.rank} stopped: {kind.__name__}: {said}")

    def end(self, message: str) -> NoReturn:
        """End all ranks with one message."""
        print(
            f"tinyconvlstm: {message}; all ranks end, --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.stderr.flush()
        time.sleep(0.5)  # mpiexec passes on what it has read, and reads no more once a rank has aborted
        self.comm.Abort(1)
        os._exit(1)  # where Abort comes back

    def share(self, data: Any) -> Any:
        """This rank's clips of a global batch.

        Arrays (T, N, ...) of three axes or more are cut along N, smaller ones, such as labels (N,),
        along their first axis. The parts are contiguous and differ by one clip at the most.
        """
        if self.size == 1:
            return data
        cut = self.part(batch_size(data))
        return map_arrays(lambda a: a[:, cut] if a.ndim > 2 else a[cut], data)

    def part(self, count: int) -> slice:
        """Which of `count` clips are this rank's."""
        if count < self.size:
            raise ValueError(
                f"the batch has {count} clips, expected at least one for each of {self.size} ranks"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def average(self, grads: Mapping[str, Array], loss: Array, count: int) -> tuple[dict[str, Array], float]:
        """Gradients and loss of the whole batch, from those of the ranks' parts.

            g = sum over ranks of (clips of the rank / clips of the batch) * g of the rank

        which is exact for a loss that is a mean over clips. The numbers travel in buckets, all under way
        at once. They wait for the whole backward pass: a recurrent weight's gradient is a sum over
        all steps, and is complete only when the last of them has been added.

        Args:
            grads: this rank's. loss: its scalar. count: clips of the global batch.
        Returns:
            The same on every rank.
        """
        if self.size == 1:
            return dict(grads), float(loss)
        cut = self.part(count)
        weight = (cut.stop - cut.start) / count
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
        """Wait until every rank has come here and the collective operations are done, `timeout` at most."""
        self.meetings += 1
        others = [rank for rank in range(self.size) if rank != self.rank]
        here, seen = np.array([self.meetings]), np.zeros(self.size, dtype=np.int64)
        arrivals = {rank: self.comm.Irecv(seen[rank : rank + 1], rank, ARRIVED) for rank in others}
        requests = [self.comm.Isend(here, rank, ARRIVED) for rank in others]
        requests += [start() for start in collectives or []]
        deadline, pause = time.monotonic() + self.timeout, 0.0
        while True:  # every request is asked every time: asking is what moves the messages on
            waiting = [rank for rank in others if not arrivals[rank].Test()]
            done = [request.Test() for request in requests]
            if not waiting and all(done):
                return
            if time.monotonic() > deadline:
                late = " and ".join(f"rank {rank}" for rank in waiting) or "the network"
                self.end(f"{late} did not come to {what} (meeting {self.meetings}) within {self.timeout:g} s")
            time.sleep(pause)
            pause = min(pause + 2e-5, 1e-3)  # spin at first, then leave the core to those who compute

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
        if self.size == 1:
            return
        own = np.frombuffer(bytes.fromhex(digest(arrays)), np.uint8).copy()
        found = np.zeros((self.size, own.size), np.uint8)
        self.meet("the comparison of parameters", [lambda: self.comm.Iallgather(own, found)])
        wrong = [rank for rank in range(self.size) if (found[rank] != found[0]).any()]
        if wrong:
            raise RuntimeError(f"parameters of ranks {wrong} differ from those of rank 0")


def digest(arrays: Mapping[str, Array]) -> str:
    """A hash of names, shapes and bits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(to_numpy(arrays[name]))
        found.update(f"{name} {a.shape} {a.dtype}".encode() + a.tobytes())
    return found.hexdigest()


def batch_size(data: Any) -> int:
    """Clips N of a batch: of its arrays (T, N, ...), or (N,) and (N, C); ValueError where they differ."""
    sizes: set[int] = set()
    map_arrays(lambda a: sizes.add(int(a.shape[1] if a.ndim > 2 else a.shape[0])), data)
    if len(sizes) != 1:
        raise ValueError(f"the batch's arrays hold {sorted(sizes)} clips, expected one number for all")
    return sizes.pop()


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
