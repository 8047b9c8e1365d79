"""The benchmarks say in a line what they cannot do, and why a contender's process ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from .benchmarks import __main__ as benchmarks


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--pairs", "0"], "argument --pairs: 0 is less than 1"),
        (["--threads", "0"], "argument --threads: 0 is less than 1"),
        (["--peers", "dezero"], "--peers dezero needs its checkout: --dezero PATH"),
        (["--peers", "numpy_ml"], "--peers numpy_ml needs its checkout: --numpy-ml PATH"),
        (["--dezero", "/no"], "--dezero is '/no', expected a checkout, a folder that holds dezero"),
        (["--peers", "keras"], "--peers keras: not installed"),
        (["--free-threaded", "python"], "--free-threaded adds a table to the page: give --write too"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)
def test_wrong_options_are_refused_in_a_line(options, line, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        benchmarks.main(["S", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {line}\n")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A checkout of DeZero that cannot be imported."""
    monkeypatch.chdir(Path(__file__).parents[1])  # where the workers find this package
    (tmp_path / "dezero").mkdir()
    (tmp_path / "dezero" / "__init__.py").write_text("import missing_here\n")
    return str(tmp_path)


def test_a_process_that_ends_says_why(broken):
    peer = benchmarks.Contender("dezero", 1, broken)
    why = "its process ended: ModuleNotFoundError: No module named 'missing_here'"
    try:
        assert peer.ask(version=True) == {"missing": why}
        assert peer.prepare(benchmarks.CASES["S"], True) == why  # the pipe is broken now
    finally:
        peer.close()


def test_a_process_that_is_killed_has_no_last_words(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    peer = benchmarks.Contender("ours", 1)
    try:
        assert "version" in peer.ask(version=True)
        peer.process.kill()
        assert peer.ask(version=True) == {"missing": "its process was ended by signal 9"}
    finally:
        peer.close()


def test_a_peer_that_does_not_start_has_a_line_in_place_of_a_table(broken, capsys):
    benchmarks.main(["S", "--peers", "dezero", "--dezero", broken, "--threads", "1"])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "dezero: its process ended: ModuleNotFoundError: No module named 'missing_here'",
    ]


def test_a_row_of_a_peer_that_ends_says_why():
    def contender(reply):
        return SimpleNamespace(prepare=lambda case, dx: {}, ask=lambda time: reply)

    ours, peer = contender({"ms": 1.0}), contender({"missing": "its process ended"})
    assert benchmarks.compare(ours, peer, benchmarks.CASES["S"], True, 2) == "its process ended"
