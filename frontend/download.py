"""The four files of Fashion-MNIST, downloaded once into a folder and checked by their SHA-256.

A file arrives under the name NAME.gz.part, is checked as a whole, and only then gets its own name,
at once: what has its own name is complete. A part that an earlier attempt left is continued if the
server can, and thrown away if the sum of the whole is wrong. One process at a time downloads into
a folder; the others wait, and find the files there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from ..ir.errors import DataError
from . import idx

__all__ = ["complete"]


class Packed(NamedTuple):
    """What the original `.gz` file is, byte for byte."""

    nbytes: int
    sha256: str


# Source: github.com/zalandoresearch/fashion-mnist publishes the MD5 of these four files; size and
# SHA-256 are of the files that have those. Debian's differ from them in the header of the gzip.
FILES = {
    "train-images-idx3-ubyte": Packed(
        26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte": Packed(
        29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte": Packed(
        4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte": Packed(
        5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
TIMEOUT_S = 20.0  # to connect, and between one chunk and the next
CHUNK = 1 << 16
BY_HAND = (
    "get the four files of Fashion-MNIST by hand and set GEMMC_DATA to their folder, or install "
    "dataset-fashion-mnist (Debian, Ubuntu), or use subset=True"
)


def complete(folder: Path | None) -> Path:
    """`folder`, made if need be, with those of the four files downloaded that it lacked: 30 MB.

    Raises DataError if that fails, or there is no folder; files that came whole stay, and parts.
    """
    if folder is None:
        raise DataError(f"fashion_mnist: this user has no home to download to: {BY_HAND}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock"):
            for name, wanted in FILES.items():
                if idx.find(folder, name) is None:
                    _download(folder / f"{name}.gz", wanted)
    except OSError as error:
        raise DataError(
            f"fashion_mnist: cannot download to {folder}: {error}: {BY_HAND}"
        ) from error
    return folder


class _RefusedError(Exception):
    """What a server sent is not the file."""


def _download(path: Path, wanted: Packed) -> None:
    part, tried = path.with_name(f"{path.name}.part"), []
    for mirror in MIRRORS:
        url = mirror + path.name
        try:
            _make_whole(part, url, wanted)
        except (OSError, HTTPException, _RefusedError) as error:
            tried.append(f"{url}: {error}")
        else:
            os.replace(part, path)
            return
    raise DataError(f"fashion_mnist: cannot download {path}: tried {'; '.join(tried)}: {BY_HAND}")


def _make_whole(part: Path, url: str, wanted: Packed) -> None:
    continued = _fetch(part, url, wanted.nbytes)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == wanted.sha256:
        return
    part.unlink()
    if not continued:
        raise _RefusedError(f"SHA-256 is {found}, expected {wanted.sha256}")
    _make_whole(part, url, wanted)  # the bad bytes may be those of the earlier attempt


def _fetch(part: Path, url: str, nbytes: int) -> bool:
    """Brings `part` to `nbytes` bytes; whether some of them were there before."""
    there = part.stat().st_size if part.exists() else 0
    if there == nbytes:
        return True
    response, start = _open(url, there if there < nbytes else 0, nbytes)
    with response:
        # Refused before the part is touched: a page to log in to a network is no reason to lose it.
        if response.length is not None and start + response.length != nbytes:
            raise _RefusedError(f"has {start + response.length} bytes, expected {nbytes}")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, start, nbytes)
    return start > 0


def _open(url: str, start: int, nbytes: int) -> tuple[HTTPResponse, int]:
    """The response, and at which byte of the file it begins: `start`, or 0 from some servers."""
    if start:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:  # Range Not Satisfiable
                raise
        else:
            if response.status != 206:  # Partial Content
                return response, 0
            if response.headers["Content-Range"] == f"bytes {start}-{nbytes - 1}/{nbytes}":
                return response, start
            response.close()
    return urllib.request.urlopen(url, timeout=TIMEOUT_S), 0


def _copy(response: HTTPResponse, file: BinaryIO, start: int, nbytes: int) -> None:
    name = Path(file.name).name.removesuffix(".part")
    with tqdm(
        desc=name, initial=start, total=nbytes, unit="B", unit_scale=True, disable=None
    ) as bar:  # None: shown on a terminal only
        at = start
        while chunk := response.read(CHUNK):
            at += len(chunk)
            if at > nbytes:
                raise _RefusedError(f"has more than the expected {nbytes} bytes")
            file.write(chunk)
            bar.update(len(chunk))
    if at < nbytes:
        raise _RefusedError(f"ended after {at} of {nbytes} bytes")
    file.flush()
    os.fsync(file.fileno())  # or a power cut could leave the name without the bytes


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until nobody else is inside; the system lets go for a process that is killed."""
    with path.open("ab") as file:
        _lock(file)
        yield


if sys.platform == "win32":
    import errno
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno != errno.EDEADLK:  # which is ten seconds of waiting
                    raise
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
