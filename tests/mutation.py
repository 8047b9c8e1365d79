"""Mutants: one line of the package changed on purpose, and the check that must notice.

A mutant swaps a function's `__code__`, so that every module that imported the function runs the
changed one. Docstrings are left out of the search: equations there are spelt like the code.
"""

from __future__ import annotations

import ast
import contextvars
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from tinyconvlstm.cells.maps import laid
from tinyconvlstm.ops import columns, conv, overlapping, pooling, products, tiled, windows, winograd


class Killer(NamedTuple):
    """A check by name; it raises AssertionError when the package is wrong."""

    name: str
    run: Callable[[], None]


class Mutant(NamedTuple):
    """A planted mistake."""

    what: str
    target: str  # "ops.gates:lstm_gates_forward", below the package
    old: str  # occurs once in the function's source, its docstring apart
    new: str
    killer: Killer

    @property
    def name(self) -> str:
        return f"{self.target.partition(':')[2]}: {self.what}"


def function_of(target: str) -> FunctionType:
    """The function or method that a target names."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(f"tinyconvlstm.{module}")
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "__func__", found)  # a static or class method
    found = found.fget if isinstance(found, property) else found
    found = inspect.unwrap(found)  # one that remembers
    assert isinstance(found, FunctionType), target
    return found


def source_of(function: FunctionType) -> str:
    """The function's source without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    if ast.get_docstring(ast.parse(source).body[0]) is None:  # type: ignore[arg-type]
        return source
    lines = source.splitlines(keepends=True)
    assert len(body) > 1
    return "".join(lines[: body[0].lineno - 1] + lines[body[0].end_lineno :])


def mutated_code(function: FunctionType, old: str, new: str) -> CodeType:
    """The code of the function with `old` replaced by `new`."""
    source = source_of(function)
    found = source.count(old)
    assert found == 1, f"{old!r} occurs {found} times in {function.__qualname__}, expected once"
    assert old != new
    source = source.replace(old, new)
    if function.__code__.co_freevars == ("__class__",):  # it says super(), which needs a class around it
        source = "class _:\n" + textwrap.indent(source, "    ")
    module = compile(source, f"<mutant of {function.__qualname__}>", "exec", dont_inherit=True)
    code = next(c for c in codes(module) if c.co_name == function.__name__)
    assert code.co_freevars == function.__code__.co_freevars
    return code


def codes(outer: CodeType) -> Iterator[CodeType]:
    """The code objects inside another, outer ones first."""
    for code in outer.co_consts:
        if isinstance(code, CodeType):
            yield code
            yield from codes(code)


def forget() -> None:
    """Clear what the package remembers of shapes: geometries, lowerings, matrices."""
    shapes = (laid, conv.chosen, conv.mirrored, conv.fitting, windows.strips, windows.frame, windows.inside)
    shapes += (columns.additions, columns.reaches, columns.as_windows)
    shapes += (
        overlapping.every_row,
        overlapping.piece,
        products.pieces,
        tiled.tile,
        tiled.widened,
        pooling.axes_of,
    )
    for remembering in (*shapes, winograd.toom_cook, winograd.axes_of, winograd.kronecker, winograd.band):
        remembering.cache_clear()


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The package with the mistake in it, while the block runs."""
    function = function_of(mutant.target)
    kept = function.__code__
    function.__code__ = mutated_code(function, mutant.old, mutant.new)
    forget()
    try:
        yield
    finally:
        function.__code__ = kept
        forget()


def killed(mutant: Mutant) -> bool:
    """Whether the mutant's killer notices it: by an assertion, not by a crash."""
    with planted(mutant):
        try:
            contextvars.copy_context().run(mutant.killer.run)  # what a mutant leaves set ends with it
        except AssertionError:
            return True
    return False
