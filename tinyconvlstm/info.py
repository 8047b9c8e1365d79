"""What this machine offers: versions, BLAS, threads, GPU."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .backend import available, module_of
from .parallel import BLAS_VARIABLES, VARIABLE, get_threads, usable_cores

PACKAGES = ("numpy", "matplotlib", "safetensors", "tqdm", "cupy-cuda12x", "cupy-cuda13x", "mpi4py", "torch")
THREAD_VARIABLES = (VARIABLE, *BLAS_VARIABLES)


def lines() -> list[str]:
    """The report of `tinyconvlstm info`, a line a fact."""
    found = [f"tinyconvlstm   {installed('tinyconvlstm') or 'not installed (run from its source)'}"]
    found.append(f"python         {platform.python_version()} on {platform.system()} {platform.machine()}")
    found += [f"{name:<14} {installed(name) or 'not installed'}" for name in PACKAGES]
    found.append(f"BLAS           {blas()}")
    found.append(f"threads        {get_threads()} of {usable_cores()} usable cores; {threads()}")
    found.append(f"backends       {', '.join(available())}")
    found.append(f"GPU            {gpu()}")
    return found


def installed(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    config = np.show_config(mode="dicts")
    info = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
    return f"{info.get('name', 'unknown')} {info.get('version', '')}".strip()


def threads() -> str:
    """The environment's thread settings."""
    given = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    return ", ".join(given) or "all, for no TINYCONVLSTM_THREADS, OMP_NUM_THREADS or the like is set"


def gpu() -> str:
    """The CUDA device's name and memory, or why there is none."""
    if "cupy" not in available():
        return (
            "none (no CuPy, or no CUDA device)"
            if not any(map(installed, ("cupy-cuda12x", "cupy-cuda13x")))
            else "no CUDA device"
        )
    cupy = module_of("cupy")
    pool = cupy.get_default_memory_pool()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    free, total = cupy.cuda.runtime.memGetInfo()
    name, gib, mib = properties["name"].decode(), 2**30, 2**20
    held = f"{pool.used_bytes() / mib:.0f} of {pool.total_bytes() / mib:.0f} MiB of CuPy's memory pool in use"
    return f"{name}, {free / gib:.1f} of {total / gib:.1f} GiB free; {held}"
