"""The idx format of the MNIST files, plain or gzipped: a big-endian header, then bytes."""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..backend import Array

MAX_BYTES = 1 << 30  # 1 GiB of pixels: twenty times MNIST
CHUNK = 1 << 20  # memory grows with what was really read, whatever the header claims
GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08  # the idx type code of unsigned bytes


class IdxError(ValueError):
    """An idx file that cannot be read; the message names the file and the reason."""


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Array:
    """An idx file of unsigned bytes as an array.

    The header is 0, 0, type (8: uint8), rank, then one 4-byte big-endian size an axis: magic number 2049
    for labels (n,), 2051 for images (n, h, w). Nothing is allocated on the header's word alone.

    Args:
        path: the file; gzip is recognised by its first bytes.
        max_bytes: the most data accepted.
    Returns:
        A uint8 array of rank 1 or 3 with the header's shape.
    Raises:
        IdxError: one line with the file's name: missing, empty, truncated, wrong magic number, sizes that
            are zero or too large, trailing bytes, or a damaged or falsely named gzip file.
    """
    name = Path(path)
    try:
        with name.open("rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            if start == GZIP_MAGIC:
                with gzip.GzipFile(fileobj=raw) as file:
                    return _parse(file, max_bytes)  # type: ignore[arg-type]
            if name.suffix == ".gz" and start:
                raise IdxError(f"it begins with {start.hex(' ')}, not with gzip's {GZIP_MAGIC.hex(' ')}")
            return _parse(raw, max_bytes)
    except IdxError as error:
        raise IdxError(f"{name}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IdxError(f"{name}: damaged or truncated gzip data ({error})") from error
    except OSError as error:
        raise IdxError(f"{name}: {error.strerror or error}") from error


def _parse(file: BinaryIO, max_bytes: int) -> Array:
    head = _read(file, 4)
    if not head:
        raise IdxError("the file is empty")
    if len(head) < 4:
        raise IdxError(f"truncated: {len(head)} bytes, expected a header of at least 8")
    magic = int.from_bytes(head, "big")
    rank = head[3]
    if head[:3] != bytes([0, 0, UINT8]) or rank not in (1, 3):
        raise IdxError(f"magic number is {magic}, expected 2049 (uint8 labels) or 2051 (uint8 images)")
    sizes = _read(file, 4 * rank)
    if len(sizes) < 4 * rank:
        raise IdxError(f"truncated: the header ends after {4 + len(sizes)} of {4 + 4 * rank} bytes")
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, 4 * rank, 4))
    need = prod(shape)
    if not 0 < need <= max_bytes:
        raise IdxError(f"the header claims shape {shape}, {need} bytes; expected 1 to {max_bytes}")
    data = _read(file, need)
    if len(data) < need:
        raise IdxError(f"truncated: the header claims shape {shape}, {need} bytes, the file has {len(data)}")
    if _read(file, 1):  # at the end this also makes gzip verify its checksum
        raise IdxError(f"trailing bytes after the {need} that the header claims, shape {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read(file: BinaryIO, count: int) -> bytearray:
    """At most count bytes, asked for a chunk at a time."""
    data = bytearray()
    while len(data) < count:
        chunk = file.read(min(CHUNK, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data
