"""What importing costs, and that every public name says what it is."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest

import tinyconvlstm

HEAVY = {
    "matplotlib",
    "mpi4py",
    "threadpoolctl",
    "PIL",
    "tqdm",
    "safetensors",
    "cupy",
    "torch",
    "scipy",
    "pandas",
    "IPython",
}
MODULES = [m.name for m in pkgutil.walk_packages(tinyconvlstm.__path__, "tinyconvlstm.")]


def modules_after(statement):
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1  # importing prints nothing
    return set(json.loads(done.stdout))


def test_import_needs_numpy_only():
    assert not modules_after("import tinyconvlstm") & HEAVY


def test_help_needs_nothing_heavy():
    loaded = modules_after("from tinyconvlstm.cli import build_parser\nbuild_parser().format_help()")
    assert not loaded & HEAVY


def test_public_names_exist():
    for name in tinyconvlstm.__all__:
        assert getattr(tinyconvlstm, name).__doc__, name


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_everything_public_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, f"{name}.{key}"
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if not method.startswith("_") and inspect.isfunction(function):
                    assert function.__doc__, f"{name}.{key}.{method}"
