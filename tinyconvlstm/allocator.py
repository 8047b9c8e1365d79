"""What a training step frees is kept for the next one.

A step makes and frees hundreds of megabytes. The GNU C library gives most of that back to the kernel,
which takes it away page by page and hands it out again page by page, zeroed: up to a fifth of a step.
A thread's memory comes from heaps of its own, so that cores do not hand each other what they have in their
caches; those heaps would go back whole whenever they are empty. They stay, at the size that the threads once
needed; `ctypes.CDLL(None).malloc_trim(0)` gives most of what is free to the kernel.
"""

from __future__ import annotations

import ctypes
import os

KEPT = 512 << 20  # bytes that may stay with the main thread, at most
HEAP = 64 << 20  # bytes of a heap of another thread; a surplus of more than that is never given back
LARGE = 32 << 20  # blocks from this size on are the kernel's all the same; NumPy asks for large pages there
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to KEPT bytes, and a thread's heaps for the threads to come; whether it was told.

    It is left alone where the environment has settings for it (MALLOC_TRIM_THRESHOLD_ and its kin,
    GLIBC_TUNABLES), and where it is not GNU's.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {MMAP_THRESHOLD: LARGE, TRIM_THRESHOLD: KEPT, TOP_PAD: HEAP + (1 << 20)}
    return all(mallopt(name, value) for name, value in settings.items())
