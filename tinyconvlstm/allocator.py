"""What a training step frees is kept for the next one.

A step makes and frees hundreds of megabytes. The GNU C library gives most of that back to the kernel,
which takes it away page by page and hands it out again page by page, zeroed: up to a fifth of a step.
A thread's memory would come from a heap of its own, of which nothing is kept once it is empty.
"""

from __future__ import annotations

import ctypes
import os

KEPT = 512 << 20  # bytes that may stay with the process, at most
LARGE = 32 << 20  # blocks from this size on are the kernel's all the same; NumPy asks for large pages there
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to KEPT bytes, in one heap for all threads to come; whether it was told.

    It is left alone where the environment has settings for it (MALLOC_TRIM_THRESHOLD_ and its kin,
    GLIBC_TUNABLES), and where it is not GNU's.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {MMAP_THRESHOLD: LARGE, TRIM_THRESHOLD: KEPT, ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
