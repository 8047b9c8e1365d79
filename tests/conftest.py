"""Fixtures for every test: the backends, a seeded generator; and hypothesis made repeatable."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from . import standin

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile(
    "repeatable",
    derandomize=True,  # the same examples in every run
    deadline=None,  # no clock in a test
    database=None,
    # `backend` and `rng` are made once a test and not once an example: none of them changes between examples
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def gpu_reason() -> str | None:
    """Why no real CuPy can be used here, or None when it can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"


@pytest.fixture(params=["numpy", "standin", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name to give to `to_backend`: "numpy", or "cupy" twice, as the stand-in and as the real one."""
    if request.param == "standin":
        standin.install(monkeypatch)
    elif request.param == "cupy" and (reason := gpu_reason()):
        pytest.skip(reason)
    return "numpy" if request.param == "numpy" else "cupy"


@pytest.fixture
def cupy_standin(monkeypatch: pytest.MonkeyPatch) -> object:
    """The stand-in itself, installed as `cupy`."""
    return standin.install(monkeypatch)


@pytest.fixture
def real_cupy() -> object:
    """CuPy itself, on a GPU."""
    if reason := gpu_reason():
        pytest.skip(reason)
    import cupy

    return cupy


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for every test."""
    return np.random.default_rng(20151119)
