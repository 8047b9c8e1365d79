"""Model files: exact round trips, nothing lost while saving, and every hostile file refused in one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyconvlstm.backend import to_backend
from tinyconvlstm.files import ModelFileError, load, save, write_atomically

CONFIG = {"layers": [{"features": 8, "kernel": [3, 5]}], "name": "Übung", "lr": 1e-3, "peepholes": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def good(path: Path, rng: np.random.Generator) -> bytes:
    save(path, {"w": rng.normal(size=(2, 3)), "b": np.arange(3, dtype="f4")}, CONFIG)
    return path.read_bytes()


def raw(header: Any, data: bytes = b"", metadata: Any = "ours") -> bytes:
    """A file with any header: JSON text as it is, a dict with our metadata added."""
    if isinstance(header, dict):
        ours = {"format": "tinyconvlstm", "version": "1", "kind": "model", "config": "{}"}
        if metadata is not None:
            header = {"__metadata__": ours if metadata == "ours" else metadata, **header}
        header = json.dumps(header)
    text = header if isinstance(header, bytes) else header.encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


# --- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i8"]
)
def test_round_trip_of_every_dtype(dtype: str, path: Path, rng: np.random.Generator) -> None:
    arrays = {"x": rng.integers(0, 100, (3, 4)).astype(dtype), "none": np.zeros((0, 3), dtype)}
    save(path, arrays, {})
    loaded, config = load(path)
    assert config == {}
    for name, x in arrays.items():
        assert loaded[name].dtype == x.dtype.newbyteorder("=")
        assert loaded[name].shape == x.shape
        np.testing.assert_array_equal(loaded[name], x)


def test_round_trip_of_layouts(path: Path, backend: str, rng: np.random.Generator) -> None:
    """The format's library writes wrong values for arrays that are not C-contiguous: ours may not."""
    x = rng.normal(size=(4, 5, 6))
    arrays = {
        "plain": x,
        "transposed": x.T,
        "fortran": np.asfortranarray(x),
        "sliced": x[1:, ::2, 1::3],
        "reversed": x[::-1],
        "broadcast": np.broadcast_to(x[0, 0], (3, 6)),
        "scalar": x[1, 2, 3, ...],
        "zero_d": np.array(2.5),
    }
    moved = to_backend(arrays, backend)
    if backend == "cupy":
        moved |= {"transposed": moved["plain"].T, "sliced": moved["plain"][1:, ::2, 1::3]}
    save(path, moved, {})
    loaded, _ = load(path)
    assert set(loaded) == set(arrays)
    for name, expected in arrays.items():
        assert type(loaded[name]) is np.ndarray
        assert loaded[name].shape == expected.shape
        np.testing.assert_array_equal(loaded[name], expected)


def test_special_values_keep_their_bits(path: Path) -> None:
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1 / 3])
    save(path, {"x": x}, {})
    assert load(path)[0]["x"].tobytes() == x.tobytes()


def test_loaded_arrays_are_writable_and_apart(path: Path, good: bytes) -> None:
    loaded, _ = load(path)
    other, _ = load(path)
    before = other["w"].copy()
    loaded["w"] *= 2
    loaded["b"] += 1
    np.testing.assert_array_equal(other["w"], before)
    assert path.read_bytes() == good


def test_config_comes_back(path: Path, good: bytes) -> None:
    loaded, config = load(path, {"b": (3,), "w": (2, 3)}, kind="model")
    assert config == CONFIG
    save(path, loaded, config | {"sizes": (3, 4)}, kind="checkpoint")
    assert load(path, kind="checkpoint")[1]["sizes"] == [3, 4]


def test_any_name_and_no_array(path: Path) -> None:
    arrays = {name: np.full(1, i) for i, name in enumerate(["", "encoder.0.w_x", "ß 漢", "a\nb", "file"])}
    save(path, arrays, {})
    assert {name: int(x[0]) for name, x in load(path)[0].items()} == {n: i for i, n in enumerate(arrays)}
    save(path, {}, CONFIG)
    assert load(path, {}) == ({}, CONFIG)


# --- what save refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "config", "message"),
    [
        ({"x": np.array([None])}, {}, "array 'x' has dtype object"),
        ({"x": np.array(["a"])}, {}, "array 'x' has dtype <U1, expected bool, int or float"),
        ({"x": np.zeros(2, complex)}, {}, "array 'x' has dtype complex128"),
        ({"x": np.zeros(2, np.longdouble)}, {}, "array 'x' has dtype (float128|longdouble|float96)"),
        ({"x": np.zeros(2, "M8[s]")}, {}, "array 'x' has dtype datetime64"),
        ({"x": [1.0, 2.0]}, {}, "array 'x' is a list, expected an array"),
        ({"__metadata__": np.zeros(2)}, {}, "cannot hold an array named '__metadata__'"),
        ({3: np.zeros(2)}, {}, "cannot hold an array named 3"),
        ({}, {"f": print}, "config cannot be stored: .* not JSON serializable"),
        ({}, {"x": float("nan")}, "config cannot be stored"),
        ({}, [1], "config cannot be stored: it is a list, expected a dict"),
    ],
)
def test_save_refuses(arrays: Any, config: Any, message: str, path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"{re.escape(str(path))}: {message}"):
        save(path, arrays, config)
    assert list(path.parent.iterdir()) == []


# --- nothing lost while saving -----------------------------------------------------------------------


class Disk:
    """Breaks one step of writing: `write` after some bytes, `fsync`, or the final `replace`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
        self.broke = False

        def fail(*_: Any) -> Any:
            self.broke = True
            raise error

        if step == "write":
            import builtins

            real = builtins.open

            def opened(name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
                file = real(name, mode, *args, **kwargs)
                return Half(file, fail) if "x" in mode or "w" in mode else file

            monkeypatch.setattr(builtins, "open", opened)
        else:
            monkeypatch.setattr(os, step, fail)


class Half:
    """A file on which only half of what is written arrives."""

    def __init__(self, file: Any, fail: Any) -> None:
        self.file, self.fail = file, fail

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.fail()


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", [True, False])
def test_a_failed_save_changes_nothing(
    step: str, error: BaseException, before: bool, path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not before:
        path.unlink()
    with monkeypatch.context() as patch:
        disk = Disk(patch, step, error)
        with pytest.raises(ModelFileError if error is FULL else type(error)) as caught:
            save(path, {"w": np.ones((50, 50))}, {})
    assert disk.broke
    if error is FULL:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
        assert caught.value.__cause__ is FULL
    assert list(path.parent.iterdir()) == ([path] if before else [])
    if before:
        assert path.read_bytes() == good


def test_save_is_flushed_to_the_disk_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(f"fsync {os.fstat(fd).st_size}"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    write_atomically(path, b"12345")
    assert events == ["fsync 5", "replace"]
    assert path.read_bytes() == b"12345"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(umask: int, mode: int, path: Path) -> None:
    old = os.umask(umask)
    try:
        save(path, {}, {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_is_followed(path: Path, good: bytes) -> None:
    link = path.with_name("best.safetensors")
    link.symlink_to(path.name)
    save(link, {"x": np.ones(1)}, {})
    assert link.is_symlink()
    assert list(load(path)[0]) == ["x"]
    assert len(list(path.parent.iterdir())) == 2


def test_save_to_impossible_places(path: Path, good: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere.*: cannot be written: No such file or directory"):
        save(path.parent / "nowhere" / "m.safetensors", {}, {})
    folder = path.parent / "folder"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="folder: cannot be written: "):
        save(folder, {}, {})
    assert sorted(p.name for p in path.parent.iterdir()) == ["folder", path.name]


def test_two_savers_at_once_leave_one_whole_file(path: Path) -> None:
    def work(value: int) -> None:
        for _ in range(10):
            save(path, {"x": np.full(1000, value)}, {"value": value})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded, config = load(path)
    assert (loaded["x"] == config["value"]).all()
    assert list(path.parent.iterdir()) == [path]


# --- names and shapes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"w": (2, 3), "b": (3,), "c": (1,), "d": ()}, r"does not fit: missing 'c', 'd'$"),
        ({"w": (2, 3)}, r"does not fit: unknown 'b'$"),
        ({"w": (3, 2), "b": (3,)}, r"does not fit: 'w' has shape \(2, 3\), expected \(3, 2\)$"),
        ({"v": (1,), "b": (4,)}, r"missing 'v'; unknown 'w'; 'b' has shape \(3,\), expected \(4,\)$"),
    ],
)
def test_unexpected_arrays_are_listed(expect: Any, message: str, path: Path, good: bytes) -> None:
    with pytest.raises(ModelFileError, match=message):
        load(path, expect)


def test_another_kind_is_refused(path: Path, good: bytes) -> None:
    with pytest.raises(ModelFileError, match="is of kind 'model', expected 'checkpoint'"):
        load(path, kind="checkpoint")


def test_long_lists_end(path: Path) -> None:
    save(path, {f"w{i:04d}": np.zeros(1) for i in range(300)} | {"x" * 5000: np.zeros(1)}, {})
    with pytest.raises(ModelFileError, match=r"'w0019' and 281 more$") as caught:
        load(path, {})
    assert len(str(caught.value)) < 1000


# --- hostile files -----------------------------------------------------------------------------------

OURS = {"format": "tinyconvlstm", "version": "1", "kind": "model", "config": "{}"}
DEEP = "[" * 200_000 + "]" * 200_000
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a model file: 0 bytes"),
    "few bytes": (b"\x01\x02", "is not a model file"),
    "text": (b"ffconcat version 1.0\nfile /etc/hosts\n" * 9, "is not a model file"),
    "pickle": (pickle.dumps({"w": np.zeros(30)}), "is not a model file"),
    "header of 2^40": ((1 << 40).to_bytes(8, "little") + b"{}", "with a header of 1099511627776"),
    "header of 2^64-1": (b"\xff" * 8 + b"{}", "is not a model file"),
    "header longer than the file": ((3).to_bytes(8, "little") + b"{}", "is not a model file"),
    "no header": ((0).to_bytes(8, "little"), "the header is not readable"),
    "bad json": (raw(b'{"w": '), "the header is not readable"),
    "not utf-8": (raw(b'{"\xff\xfe": 1}'), "the header is not readable"),
    "deep json": (raw('{"w": ' + DEEP + "}"), "the header is not readable: .*recursion"),
    "long number": (raw('{"w": ' + "9" * 10_000 + "}"), "the header is not readable"),
    "json list": (raw(b"[1, 2]"), "the header is a list, expected a JSON object"),
    "json null": (raw(b"null"), "the header is a NoneType"),
    "duplicate name": (
        raw(
            '{"__metadata__": '
            + json.dumps(OURS)
            + ', "w": '
            + json.dumps(entry())
            + ', "w": '
            + json.dumps(entry())
            + "}",
            bytes(8),
        ),
        "the header is not readable: 'w' more than once",
    ),
    "duplicate metadata": (raw('{"__metadata__": {}, "__metadata__": {}}'), "'__metadata__' more than once"),
    "extra bytes": (raw({"w": entry()}, bytes(9)), "speaks of 8 bytes of data, there are 9"),
    "cut": (raw({"w": entry()}, bytes(7)), "speaks of 8 bytes of data, there are 7"),
    "data without arrays": (raw({}, bytes(8)), "speaks of 0 bytes of data, there are 8"),
    "negative offset": (raw({"w": entry(offsets=(-8, 8))}, bytes(8)), "is damaged"),
    "negative end": (raw({"w": entry(offsets=(0, -8))}), "is damaged"),
    "swapped offsets": (
        raw({"v": entry(offsets=(8, 0)), "w": entry(offsets=(0, 8))}, bytes(8)),
        "is damaged",
    ),
    "overlap": (raw({"v": entry(), "w": entry(offsets=(4, 12))}, bytes(12)), "is damaged"),
    "twice the same bytes": (raw({"v": entry(), "w": entry()}, bytes(8)), "is damaged"),
    "hole": (raw({"v": entry(), "w": entry(offsets=(12, 20))}, bytes(20)), "is damaged"),
    "out of range": (raw({"w": entry(offsets=(0, 1 << 50))}, bytes(8)), "speaks of 1125899906842624 bytes"),
    "offset over 64 bits": (raw({"w": entry(offsets=(0, 1 << 70))}, bytes(8)), "cut short or too long"),
    "shape too large": (raw({"w": entry(shape=(1 << 40,))}, bytes(8)), "is damaged"),
    "shape overflow": (raw({"w": entry(shape=(1 << 33, 1 << 33))}, bytes(8)), "is damaged"),
    "shape overflow to fit": (raw({"w": entry("U8", (1 << 32, 1 << 32, 8))}, bytes(8)), "is damaged"),
    "shape over 64 bits": (raw({"w": entry(shape=(1 << 80, 0))}, bytes(8)), "is damaged"),
    "negative shape": (raw({"w": entry(shape=(-1, -2))}, bytes(8)), "is damaged"),
    "shape of text": (raw({"w": entry(shape=("2",))}, bytes(8)), "the header's entry 'w' is malformed"),
    "shape of truth": (raw({"w": entry("U8", (True,), (0, 1))}, bytes(1)), "entry 'w' is malformed"),
    "shape a number": (raw({"w": entry(shape=2)}, bytes(8)), "the header's entry 'w' is malformed"),
    "three offsets": (raw({"w": entry(offsets=(0, 4, 8))}, bytes(8)), "the header's entry 'w' is malformed"),
    "fraction offset": (raw({"w": entry(offsets=(0, 8.0))}, bytes(8)), "the header's entry 'w' is malformed"),
    "no dtype": (raw({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "entry 'w' is malformed"),
    "entry a list": (raw({"w": [1]}, bytes(8)), "the header's entry 'w' is malformed"),
    "bad dtype": (raw({"w": entry("Q9")}, bytes(8)), "array 'w' has dtype 'Q9', expected one of"),
    "bf16": (raw({"w": entry("BF16", (4,))}, bytes(8)), "array 'w' has dtype 'BF16'"),
    "fp8": (raw({"w": entry("F8_E4M3", (8,))}, bytes(8)), "array 'w' has dtype 'F8_E4M3'"),
    "complex": (raw({"w": entry("C64", (1,))}, bytes(8)), "array 'w' has dtype 'C64'"),
    "name of many lines": (raw({"w\nTraceback:\n" * 99: entry("Q")}, bytes(8)), "array 'w"),
    "no metadata": (raw({"w": entry()}, bytes(8), metadata=None), "but not one of tinyconvlstm"),
    "metadata a list": (raw({}, metadata=[]), "but not one of tinyconvlstm"),
    "another format": (
        raw({}, metadata={"format": "pt"}),
        "is a safetensors file, but not one of tinyconvlstm",
    ),
    "newer version": (raw({}, metadata=OURS | {"version": "2"}), "'2' is newer than this library"),
    "far newer version": (raw({}, metadata=OURS | {"version": "9" * 5000}), "is newer than this library"),
    "version zero": (raw({}, metadata=OURS | {"version": "0"}), "version '0' is unknown"),
    "version a number": (raw({}, metadata=OURS | {"version": 1}), "version 1 is unknown"),
    "version of words": (raw({}, metadata=OURS | {"version": "one\ntwo"}), "is unknown"),
    "kind a number": (raw({}, metadata=OURS | {"kind": 3}), "lacks its kind or its config"),
    "no config": (raw({}, metadata={k: v for k, v in OURS.items() if k != "config"}), "lacks its kind"),
    "config a dict": (raw({}, metadata=OURS | {"config": {}}), "lacks its kind or its config"),
    "config no json": (raw({}, metadata=OURS | {"config": "{"}), "config is not readable"),
    "config a list": (raw({}, metadata=OURS | {"config": "[]"}), "config is a list, expected a JSON object"),
    "config deep": (raw({}, metadata=OURS | {"config": '{"a": ' + DEEP + "}"}), "config is not readable"),
    "config with nan": (raw({}, metadata=OURS | {"config": '{"a": NaN}'}), "NaN is no number of JSON"),
    "config twice": (raw({}, metadata=OURS | {"config": '{"a": 1, "a": 2}'}), "'a' more than once"),
    "metadata not text": (raw({}, metadata=OURS | {"more": 3}), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, path: Path) -> None:
    data, message = HOSTILE[name]
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert re.search(message, text)
    assert "\n" not in text
    assert len(text) < 1000 + len(str(path))


def test_the_same_bytes_in_good_order_do_load(path: Path) -> None:
    """The hostile files above fail for what is wrong with them: this one differs only in being right."""
    path.write_bytes(raw({"v": entry(), "w": entry(offsets=(8, 16))}, bytes(16)))
    assert set(load(path)[0]) == {"v", "w"}


def test_a_lying_header_takes_no_memory(path: Path) -> None:
    """Sparse files of terabytes, or headers that speak of them: refused by sizes and shapes alone."""
    path.write_bytes(raw({"w": entry(shape=(4,), offsets=(0, 16))}))
    os.truncate(path, 1 << 43)
    with pytest.raises(ModelFileError, match="speaks of 16 bytes of data"):
        load(path)
    path.write_bytes((1 << 42).to_bytes(8, "little"))
    os.truncate(path, 1 << 43)
    with pytest.raises(ModelFileError, match="with a header of 4398046511104"):
        load(path)
    path.write_bytes(raw({"w": entry("U8", (1 << 42,), (0, 1 << 42))}))
    os.truncate(path, path.stat().st_size + (1 << 42))
    with pytest.raises(ModelFileError, match=r"'w' has shape \(4398046511104,\), expected \(2,\)"):
        load(path, {"w": (2,)})


def test_what_is_no_file(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model.safetensors: cannot be read: No such file or directory"):
        load(path)
    with pytest.raises(ModelFileError, match="is not a regular file"):
        load(path.parent)
    with pytest.raises(ModelFileError, match="null"):
        load("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="is not a regular file"):
        load(path)


@given(data=st.data())
def test_damaged_files_load_or_are_refused(data: st.DataObject, path: Path, good: bytes) -> None:
    """Bytes changed, dropped or put in, anywhere: arrays of the declared shapes, or the one error."""
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(damaged) - 1))
        what = data.draw(st.sampled_from(["change", "drop", "insert"]))
        if what == "change":
            damaged[where] = data.draw(st.integers(0, 255))
        elif what == "drop":
            del damaged[where : where + data.draw(st.integers(1, 40))]
        else:
            damaged[where:where] = data.draw(st.binary(max_size=9))
        if not damaged:
            break
    path.write_bytes(damaged)
    try:
        arrays, config = load(path)
    except ModelFileError as error:
        arrays, config, message = {}, {}, str(error)
    else:
        message = ""
    assert "\n" not in message
    assert isinstance(config, dict)
    assert all(type(x) is np.ndarray for x in arrays.values())
