"""IDX files, plain or packed by gzip: one is read only if its header says just what is expected.

Every field of the header, and the size of a plain file, is checked before memory is allocated, and
then as much is allocated as was expected: no file can make us read or hold more. gzip's checksum is
checked as well, because the end of the stream is reached.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import DataError

__all__ = ["IMAGES_MAGIC", "LABELS_MAGIC", "Bytes", "find", "read"]

Bytes: TypeAlias = NDArray[np.uint8]

# Source: http://yann.lecun.com/exdb/mnist: two zero bytes, 8 for unsigned bytes, the dimensions.
IMAGES_MAGIC, LABELS_MAGIC = 0x0803, 0x0801
KINDS = {IMAGES_MAGIC: " (images)", LABELS_MAGIC: " (labels)"}
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20  # GzipFile makes a copy of what it is asked for
AGAIN = "delete it and get it again"


def find(folder: Path, name: str) -> Path | None:
    """Where `name`, plain or packed, lies in `folder`, file or not; None if it does not."""
    packed = folder / f"{name}.gz"
    return next((path for path in (folder / name, packed) if os.path.lexists(path)), None)


def read(path: Path, magic: int, dims: dict[str, int]) -> Bytes:
    """`[product of dims]` bytes from `path`, whose header must be `magic` and `dims`.

    `dims` gives each dimension's name and size. Contents decide whether a file is packed, not the
    name: a browser may have unpacked it on its way.

    Raises DataError naming the file and the field that differs.
    """
    if not os.path.isfile(path):  # or opening it may wait forever, for a pipe's other end
        raise DataError(f"fashion_mnist: {path} is not a file, expected one: {AGAIN}")
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as stream:
                    return _parse(path, stream, None, magic, dims)
            return _parse(path, file, os.fstat(file.fileno()).st_size, magic, dims)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"fashion_mnist: {path}: gzip data: {error}: {AGAIN}") from error
    except OSError as error:
        raise DataError(f"fashion_mnist: {path} cannot be read: {error.strerror}") from error


def _parse(
    path: Path, stream: io.BufferedIOBase, file_nbytes: int | None, magic: int, dims: dict[str, int]
) -> Bytes:
    _check_header(path, stream, magic, dims)
    expected = math.prod(dims.values())
    if file_nbytes is not None:
        _check_size(path, file_nbytes - _header_nbytes(dims), expected)
    data = np.empty(expected, np.uint8)
    _check_size(path, _fill(data, stream) + len(stream.read(1)), expected)  # reads gzip's checksum
    return data


def _check_header(path: Path, stream: io.BufferedIOBase, magic: int, dims: dict[str, int]) -> None:
    nbytes = _header_nbytes(dims)
    head = stream.read(nbytes)
    if len(head) >= 4 and (found := int.from_bytes(head[:4], "big")) != magic:
        raise DataError(
            f"fashion_mnist: {path}: magic number is 0x{found:08x}{KINDS.get(found, '')}, "
            f"expected 0x{magic:08x}{KINDS[magic]}"
        )
    if len(head) < nbytes:
        raise DataError(
            f"fashion_mnist: {path}: header has {len(head)} bytes, expected {nbytes}: {AGAIN}"
        )
    for (field, expected), (found,) in zip(
        dims.items(), struct.iter_unpack(">I", head[4:]), strict=True
    ):
        if found != expected:
            raise DataError(f"fashion_mnist: {path}: {field} is {found}, expected {expected}")


def _check_size(path: Path, found: int, expected: int) -> None:
    if found != expected:
        seen = str(found) if found < expected else "more"  # of a packed file we read one byte more
        raise DataError(
            f"fashion_mnist: {path}: data has {seen} bytes, expected {expected}: {AGAIN}"
        )


def _fill(data: Bytes, stream: io.BufferedIOBase) -> int:
    """How many bytes of `data` the stream had."""
    view, at = data.data, 0
    while at < len(view) and (n := stream.readinto(view[at : at + CHUNK])):
        at += n
    return at


def _header_nbytes(dims: dict[str, int]) -> int:
    return 4 + 4 * len(dims)
