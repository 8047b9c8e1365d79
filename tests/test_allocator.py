"""Freed memory stays with the process, unless the environment says what malloc is to do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import numpy as np
import tinyconvlstm
from tinyconvlstm.allocator import keep_freed_memory

def step():
    blocks = [np.ones(1 << 20, np.uint8) for _ in range(128)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
before = faults()
step()
print(faults() - before, keep_freed_memory())
"""
PAGES = (128 << 20) // 4096


def steps(**settings: str) -> tuple[int, str]:
    """Pages that a second step takes from the kernel anew, and whether malloc was told to keep them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", STEPS], env=env | settings, capture_output=True, text=True, check=True
    )
    pages, told = ran.stdout.split()
    return int(pages), told


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not the GNU C library's")
def test_a_second_step_takes_no_new_pages() -> None:
    pages, told = steps()
    assert told == "True"
    assert pages < PAGES / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not the GNU C library's")
@pytest.mark.parametrize("setting", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"])
def test_the_environments_settings_stand(setting: str) -> None:
    pages, told = steps(**{setting: "131072"})
    assert told == "False"
    assert pages > PAGES / 2
