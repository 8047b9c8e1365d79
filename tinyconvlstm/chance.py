"""Random numbers for some clips of a batch: those that one generator would draw for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np


class ClipGenerator(np.random.Generator):
    """A generator for the clips `part` of a batch of `count`.

    `random(shape)` draws for the whole batch and returns these clips' numbers, so that ranks which share a batch
    drop and toss what one process would have. Which axis counts clips is told by its size n, in sequences
    (T, n, C, *S) and in frames (n, C, *S) or (T * n, C, *S); where both would do, by the number of axes: odd ones are
    sequences. Other shapes are drawn as they are.
    """

    def __init__(self, seed: Any, count: int, part: slice) -> None:
        super().__init__(np.random.PCG64(seed))
        self.count, self.part = count, part

    def random(self, size: Any = None, *args: Any, **settings: Any) -> Any:
        """As `numpy.random.Generator.random`."""
        shape = [] if size is None else np.atleast_1d(size).tolist()
        n, frames = self.part.stop - self.part.start, len(shape) % 2 == 0
        first = shape == [n] or (len(shape) > 1 and shape[0] % n == 0)
        second = shape[1:2] == [n]
        if first and (frames or not second):
            steps, rest = shape[0] // n, shape[1:]
        elif second:
            steps, rest = shape[0], shape[2:]
        else:
            return super().random(size, *args, **settings)
        drawn = super().random((steps, self.count, *rest), *args, **settings)
        return drawn[:, self.part].reshape(shape)
