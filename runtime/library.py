"""The BLAS library behind SciPy: its name, the kernels it chose for this CPU, its threads."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import scipy

from ..ir import CompileError

PREFIXES = ("scipy_openblas_", "openblas_")
SUFFIXES = ("", "64_")


@dataclass(frozen=True)
class Library:
    """A BLAS library as SciPy was built with; of OpenBLAS also the kernels it chose."""

    name: str
    version: str
    kernels: str | None = None
    threads: int | None = None


def blas_library() -> Library:
    """The library behind scipy.linalg.blas; kernels and threads are None where it cannot tell."""
    built = scipy.__config__.show(mode="dicts")["Build Dependencies"]["blas"]
    name, version = str(built.get("name", "unknown")), str(built.get("version", ""))
    loaded = _openblas()
    if loaded is None:
        return Library(name, version)
    core, count = (_function(loaded, part) for part in ("get_corename", "get_num_threads"))
    if core is None or count is None:
        return Library(name, version)
    core.restype = ctypes.c_char_p
    return Library(name, version, core().decode(), count())


class ThreadLimit:
    """A context in which the BLAS library runs `count` threads, as before afterwards.

    None leaves the library alone. CompileError where it cannot be told, as with Accelerate.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        if count is None:
            return
        loaded = _openblas()
        parts = ("get_num_threads", "set_num_threads")
        get, put = (_function(loaded, part) if loaded else None for part in parts)
        if get is None or put is None:
            name = blas_library().name
            raise CompileError(
                f"threads: got {count}, but {name} cannot be told how many: use threads=None"
            )
        self._get, self._set = get, put

    @staticmethod
    def possible() -> bool:
        """Whether the BLAS library can be told how many threads to run."""
        loaded = _openblas()
        return loaded is not None and _function(loaded, "set_num_threads") is not None

    def __enter__(self) -> None:
        if self.count is not None:
            self._before = self._get()
            self._set(self.count)

    def __exit__(self, *error: object) -> None:
        if self.count is not None:
            self._set(self._before)


@cache
def _openblas() -> ctypes.CDLL | None:
    """OpenBLAS as SciPy's wheel carries it; None if it is linked with another library."""
    package = Path(scipy.__file__).parent
    folders = (package.parent / "scipy.libs", package / ".dylibs")
    found = [path for folder in folders for path in sorted(folder.glob("*openblas*"))]
    return ctypes.CDLL(str(found[0])) if found else None


def _function(library: ctypes.CDLL, part: str) -> ctypes._NamedFuncPointer | None:
    names = (f"{prefix}{part}{suffix}" for prefix in PREFIXES for suffix in SUFFIXES)
    return next((getattr(library, name) for name in names if hasattr(library, name)), None)
