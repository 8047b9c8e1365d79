"""Model files: arrays by name and a configuration in one safetensors file, which holds no code.

    8 bytes    length of the header
    header     JSON: name -> dtype, shape, offsets; and under "__metadata__" what this library adds,
               {"format": "tinyconvlstm", "version": "1", "kind": "model", "config": "{...}"}
    data       the arrays, little-endian, C order

A file is never half written: it appears under its name when all of it is on the disk. A file that is
read is not trusted: everything it says of itself is checked before memory is taken, and whatever is
wrong with it is one exception, `ModelFileError`, in one line.

Arrays are booleans, integers, or floats of 16, 32 or 64 bits, and keep their dtype; others are refused.

Source: the safetensors format, version 0.4 of its library and later.
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from .backend import Array, backend_name, to_numpy

FORMAT = "tinyconvlstm"
VERSION = 1
HEADER_LIMIT = 16 << 20  # bytes; room for 100,000 arrays
DTYPES = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F16", "F32", "F64")
METADATA = "__metadata__"

Path = str | os.PathLike[str]
Shapes = Mapping[str, tuple[int, ...]]


class ModelFileError(ValueError):
    """A model file cannot be read or written; the message is one line, the path and the reason."""


def save(path: Path, arrays: Mapping[str, Array], config: Mapping[str, Any], kind: str = "model") -> None:
    """Write arrays and a configuration, all or nothing: what was there before stays until the end.

    Args:
        path: the file; a link is followed. Others may read it as far as the umask lets them.
        arrays: by name, from any backend, contiguous or not.
        config: whatever JSON can hold; tuples come back as lists.
        kind: a word that says what the file is for, "model" or "checkpoint".
    Raises:
        ModelFileError: an array or the configuration cannot be stored, or the disk refuses.
    """
    from safetensors.numpy import save as to_bytes

    metadata = {"format": FORMAT, "version": str(VERSION), "kind": kind, "config": _to_json(path, config)}
    data = to_bytes({name: _storable(path, name, x) for name, x in arrays.items()}, metadata)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ModelFileError(f"{_line(path)}: cannot be written: {error.strerror or error}") from error


def load(
    path: Path, expect: Shapes | None = None, kind: str | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file that `save` wrote.

    Args:
        path: the file.
        expect: shapes by name; the file must hold exactly these arrays. None: whatever it holds.
        kind: the kind that the file must be of. None: any.
    Returns:
        The arrays by name, NumPy's, writable, each with memory of its own; and the configuration.
    Raises:
        ModelFileError: whatever is wrong, in one line with the path.
    """
    from safetensors.numpy import load as from_bytes

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever, a device never end
            refuse(path, "is not a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(8)
            length = int.from_bytes(header, "little")
            if length > min(size - 8, HEADER_LIMIT):
                refuse(path, f"is not a model file: {size} bytes with a header of {length}")
            header += file.read(length)
            entries = _entries(path, header[8:], size - 8 - length)
            config = _config(path, entries.pop(METADATA, None), kind)
            if expect is not None:
                _check_names(path, entries, expect)
            return dict(from_bytes(header + file.read(size - 8 - length))), config
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{_line(path)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the format's library answers bad data with several exceptions
        raise ModelFileError(f"{_line(path)}: is damaged: {_line(error)}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` under `path` in one step; on any failure, an interrupt too, nothing has changed."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")  # same disk: a rename will do
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def clear_temporaries(folder: Path) -> None:
    """Remove what a kill in the middle of `write_atomically` has left in a folder."""
    for path in pathlib.Path(folder).glob(".*.????????.part"):
        path.unlink(missing_ok=True)


def refuse(path: Path, reason: str) -> NoReturn:
    """The one error about a file."""
    raise ModelFileError(f"{_line(path)}: {reason}")


def _storable(path: Path, name: object, x: Array) -> Array:
    """The array on the CPU, little-endian and C-contiguous: the format's library copies memory as it lies."""
    if not isinstance(name, str) or name == METADATA:
        refuse(path, f"cannot hold an array named {name!r}")
    if backend_name(x) is None:
        refuse(path, f"array {name!r} is a {type(x).__name__}, expected an array")
    x = to_numpy(x)
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        refuse(path, f"array {name!r} has dtype {x.dtype}, expected bool, int or float of at most 64 bits")
    return np.asarray(x, x.dtype.newbyteorder("<"), order="C")


def _to_json(path: Path, config: Mapping[str, Any]) -> str:
    try:
        if not isinstance(config, Mapping):
            raise TypeError(f"it is a {type(config).__name__}, expected a dict")
        return json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{_line(path)}: config cannot be stored: {_line(error)}") from error


def _from_json(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            raise ValueError(f"{_some(name for name, n in counts.items() if n > 1)} more than once")
        return found

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number of JSON")

    try:
        found = json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{_line(path)}: {what} is not readable: {_line(error)}") from error
    if not isinstance(found, dict):
        refuse(path, f"{what} is a {type(found).__name__}, expected a JSON object")
    return found


def _entries(path: Path, header: bytes, room: int) -> dict[str, Any]:
    """The header's entries, if they are well-formed and end exactly where the file does."""
    entries = _from_json(path, header, "the header")
    end = 0
    for name, entry in entries.items():
        if name == METADATA:
            continue
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(_), int(stop)]} if all(
                type(n) is int for n in shape
            ):
                end = max(end, stop)
            case _:
                refuse(path, f"the header's entry {_some([name])} is malformed")
        if dtype not in DTYPES:
            refuse(path, f"array {_some([name])} has dtype {_some([dtype])}, expected one of {DTYPES}")
    if end != room:
        refuse(path, f"is cut short or too long: the header speaks of {end} bytes of data, there are {room}")
    return entries


def _config(path: Path, metadata: Any, kind: str | None) -> dict[str, Any]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        refuse(path, f"is a safetensors file, but not one of {FORMAT}")
    version, found, config = (metadata.get(key) for key in ("version", "kind", "config"))
    if version != str(VERSION):
        reason = "newer than this library" if _is_newer(version) else "unknown"
        refuse(path, f"format version {_some([version])} is {reason}, which reads version {VERSION}")
    if not isinstance(found, str) or not isinstance(config, str):
        refuse(path, "lacks its kind or its config")
    if kind is not None and found != kind:
        refuse(path, f"is of kind {_some([found])}, expected {kind!r}")
    return _from_json(path, config, "config")


def _is_newer(version: object) -> bool:
    return isinstance(version, str) and version.isascii() and version.isdecimal() and version.strip("0") != ""


def _check_names(path: Path, entries: dict[str, Any], expect: Shapes) -> None:
    wrong = [
        f"{word} {_some(names)}"
        for word, names in (
            ("missing", sorted(expect.keys() - entries.keys())),
            ("unknown", sorted(entries.keys() - expect.keys())),
        )
        if names
    ]
    wrong += [
        f"{_some([name])} has shape {tuple(entries[name]['shape'])}, expected {tuple(shape)}"
        for name, shape in expect.items()
        if name in entries and entries[name]["shape"] != list(shape)
    ]
    if wrong:
        refuse(path, f"does not fit: {'; '.join(wrong)}")


def _some(names: Iterable[object]) -> str:
    """Names from a file, in one line that ends."""
    names = list(names)
    shown = ", ".join(
        repr(name) if len(repr(name)) < 100 else f"{repr(name)[:100]}..." for name in names[:20]
    )
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def _line(text: object) -> str:
    """Text in one line."""
    return " ".join(str(text).split())[:500]
