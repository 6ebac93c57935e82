"""BLAS libraries: where the sgemm is that native code calls, and how many threads one may run.

`provider` is the library that native code calls. The blas runtime calls SciPy's, whichever it is.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..ir import CompileError
from ..ir.environment import blas_file
from . import trial
from .identity import Identity, Threads, address, identity
from .trial import RIGHT

SGEMM_NAMES = ("sgemm_", "sgemm", "scipy_sgemm_")
ILP64_NAMES = ("sgemm_64_", "sgemm64_", "scipy_sgemm_64_")
ACCELERATE = Path("/System/Library/Frameworks/Accelerate.framework/Accelerate")


@dataclass(frozen=True)
class Provider:
    """A BLAS library. `sgemm` is the address of Fortran's routine, which takes 32-bit integers.

    `kernels` is what it calls the ones it chose for this CPU, if it tells. `threads` is None where
    it cannot be told how many to run, as Accelerate. `path` is None for SciPy's.
    """

    name: str
    version: str
    kernels: str | None
    threads: Threads | None
    sgemm: int
    path: Path | None = None


class ThreadLimit:
    """A context in which a BLAS library runs at most `count` threads, as before afterwards.

    None leaves it alone. The library is SciPy's where none is given. One object may be entered
    again while it holds, and from several threads. CompileError where the library cannot be told.
    """

    def __init__(self, count: int | None, library: Provider | None = None) -> None:
        self.count = count
        if count is None:
            return
        library = library or scipy_provider()
        if library.threads is None:
            raise CompileError(
                f"threads: got {count}, but {library.name} cannot be told how many: "
                "use threads=None"
            )
        self._threads = library.threads

    @staticmethod
    def possible() -> bool:
        """Whether SciPy's library can be told how many threads to run."""
        return scipy_provider().threads is not None

    def __enter__(self) -> None:
        if self.count is not None:
            self._threads.limit(self.count)

    def __exit__(self, *error: object) -> None:
        if self.count is not None:
            self._threads.release(self.count)


def provider() -> Provider:
    """The library that native code calls; its sgemm has computed what it should.

    It is the one that GEMMC_BLAS names. By default it is SciPy's, but Accelerate itself on a Mac
    where SciPy brings OpenBLAS. CompileError says what is wrong with the one named.
    """
    path = blas_file()
    return _default(sys.platform) if path is None else _named(path)


@cache
def scipy_provider() -> Provider:
    """The library behind scipy.linalg.blas; its sgemm has not been tried."""
    import scipy  # here: it takes 0.2 s to load
    from scipy.linalg import cython_blas

    package = Path(scipy.__file__).parent
    folders = (package.parent / "scipy.libs", package / ".dylibs")
    brought = [path for folder in folders for path in sorted(folder.glob("*openblas*"))]
    # What a library is linked with is found through it: SciPy's modules lead to any other BLAS.
    library = ctypes.CDLL(str(brought[0] if brought else cython_blas.__file__))
    built = scipy.__config__.show(mode="dicts")["Build Dependencies"]["blas"]
    known = Identity(str(built.get("name", "unknown")), str(built.get("version", "")))
    return Provider(*identity(library, known), _pointer(cython_blas.__pyx_capi__["sgemm"]))


def _default(platform: str) -> Provider:
    found = scipy_provider()
    if platform == "darwin" and found.name == "OpenBLAS":
        return _asked(*_opened(ACCELERATE, "Accelerate"), ACCELERATE, "Accelerate")
    _try(found.sgemm, found.name)
    return found


@cache
def _named(path: Path) -> Provider:
    where = f"GEMMC_BLAS={path}"
    library, sgemm = _opened(path, where)
    # -I and -S: nothing of the user's, and no packages; it takes 0.02 s.
    command = [sys.executable, "-I", "-S", trial.__file__, str(path), sgemm]
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, stdout=pipe, stderr=merged, text=True, check=False)
    said = [line.strip() for line in done.stdout.splitlines()]  # the library may say things too
    if RIGHT not in said:
        end = f"ends the process, with code {done.returncode}"
        wrong = [end, *said] if done.returncode or not said else said
        raise _refused(where, f"its {sgemm} {'; '.join(filter(None, wrong))}")
    return _asked(library, sgemm, path, where)


def _opened(path: Path, where: str) -> tuple[ctypes.CDLL, str]:
    """The library in a file, and what it calls its sgemm."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        # On a Mac there are libraries without a file, so that one is looked for only now.
        seen = f"it cannot be loaded: {error}" if path.exists() else "there is no such file"
        raise _refused(where, seen) from error
    name = next((n for n in SGEMM_NAMES if hasattr(library, n)), None)
    if name is None:
        wide = next((n for n in ILP64_NAMES if hasattr(library, n)), None)
        seen = f"it has {wide}, which takes 64-bit integers (ILP64)" if wide else "it has no sgemm_"
        raise _refused(where, seen)
    return library, name


def _asked(library: ctypes.CDLL, name: str, path: Path, where: str) -> Provider:
    """What the library says, after it has been tried: BLIS says it only after its first product."""
    sgemm = address(library, name)
    _try(sgemm, where)
    return Provider(*identity(library, Identity(path.name, "")), sgemm, path)


def _try(sgemm: int, where: str) -> None:
    outcome = trial.trial(sgemm)
    if outcome != RIGHT:
        raise _refused(where, f"its sgemm {outcome}")


def _refused(where: str, seen: str) -> CompileError:
    return CompileError(
        f"{where}: {seen}; expected a BLAS library with Fortran's sgemm_ and 32-bit integers "
        "(LP64): let GEMMC_BLAS name one, or unset it"
    )


def _pointer(capsule: object) -> int:
    """The address in a PyCapsule of Cython's."""
    api, name_type = ctypes.pythonapi, ctypes.c_char_p
    name = ctypes.PYFUNCTYPE(name_type, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, name_type)
    place = pointer(("PyCapsule_GetPointer", api))(capsule, name(capsule))
    assert place is not None
    return int(place)
