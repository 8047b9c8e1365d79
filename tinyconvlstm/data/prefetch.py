"""The next batch is made, and copied to the GPU, while this one is being computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from ..backend import Upload


class Prefetch:
    """A `batch(step)` function that makes step + 1 in the background.

        with Prefetch(clips, backend="cupy") as batch:
            train(model, ..., batch, ...)

    The batches are those of the function, in any order of steps: what was made ahead and is not asked
    for is dropped, so resuming stays exact. An error of the function is raised where its batch is
    asked for. On CuPy the copy goes through page-locked memory on a stream of its own. Leaving the
    block waits for the thread, and none is left behind. A batch is held here until the next is asked for:
    the copy of the next waits for work queued before this one was handed out, and may not get its memory.

    Args:
        batch: step -> a tree of NumPy arrays.
        backend: where the arrays go, "numpy" or "cupy".
    """

    def __init__(self, batch: Callable[[int], Any], backend: str = "numpy") -> None:
        self.batch, self.backend = batch, backend
        self.pool: ThreadPoolExecutor | None = None
        self.upload: Upload | None = None
        self.ahead: tuple[int, Future[Any]] | None = None
        self.handed: Any = None  # the batch of the last call

    def __enter__(self) -> Prefetch:
        self.upload = Upload(self.backend)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="tinyconvlstm prefetch")
        return self

    def __exit__(self, *error: Any) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = self.ahead = self.upload = self.handed = None

    def __call__(self, step: int) -> Any:
        """The batch of a step."""
        if self.pool is None or self.upload is None:
            raise ValueError("prefetch is used outside of its block, expected `with Prefetch(...) as batch:`")
        upload, after = self.upload, self.upload.mark()  # all work on the batch before is queued
        if self.ahead:
            wait([self.ahead[1]])  # it has its memory: that of the batch before may go
        expected = self.ahead if self.ahead and self.ahead[0] == step else None
        self.handed, ready = expected[1].result() if expected else upload(self.batch(step), after)
        self.ahead = (step + 1, self.pool.submit(lambda: upload(self.batch(step + 1), after)))
        ready()
        return self.handed
