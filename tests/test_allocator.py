"""Freed memory stays with the process, unless the environment says what malloc is to do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import threading
import numpy as np
import tinyconvlstm
from tinyconvlstm.allocator import keep_freed_memory

def step():
    blocks = [np.ones(1 << 20, np.uint8) for _ in range(128)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def in_a_thread():
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()

told = keep_freed_memory()
step()
before = faults()
step()
here = faults() - before
in_a_thread()
before = faults()
in_a_thread()
print(here, faults() - before, told)
"""
PAGES = (128 << 20) // 4096
FEW = 64  # faults; the kernel may hand out many pages for one


def steps(**settings: str) -> tuple[int, int, str]:
    """Pages that a second step takes from the kernel anew, and the second one in a thread; whether malloc was told."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", STEPS], env=env | settings, capture_output=True, text=True, check=True
    )
    pages, in_a_thread, told = ran.stdout.split()
    return int(pages), int(in_a_thread), told


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not the GNU C library's")
def test_a_second_step_takes_no_new_pages() -> None:
    pages, in_a_thread, told = steps()
    assert told == "True"
    assert pages < FEW
    assert in_a_thread < FEW


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not the GNU C library's")
@pytest.mark.parametrize("setting", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"])
def test_the_environments_settings_stand(setting: str) -> None:
    pages, _, told = steps(**{setting: "131072"})
    assert told == "False"
    assert pages > PAGES / 2
