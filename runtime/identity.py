"""What a BLAS library says of itself: its make, its version, its kernels, its threads."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from threading import Lock, Thread
from typing import NamedTuple

# What OpenBLAS's own functions are called: in SciPy's build of it, and with 64-bit integers.
OPENBLAS = ("scipy_openblas_{}", "openblas_{}", "scipy_openblas_{}64_", "openblas_{}64_")
OPENMP = 2  # what openblas_get_parallel says. Source: OpenBLAS's cblas.h


class Threads:
    """How many threads a library runs, for all who call it; `get` and `put` are its functions.

    Limits may overlap in any way: the least of them holds, and after the last of them it is again
    what it was before the first.
    """

    def __init__(self, get: Callable[[], int], put: Callable[[int], None]) -> None:
        self._get, self._put = get, put
        self._lock = Lock()
        self._limits: list[int] = []
        self._before = 0

    def count(self) -> int:
        """How many threads the library runs now."""
        return max(1, self._get())  # BLIS says -1 where nobody has told it, and runs one

    def limit(self, count: int) -> None:
        """Has the library run at most `count` threads, until `release(count)`."""
        with self._lock:
            if not self._limits:
                self._before = self._get()
            self._limits.append(count)
            self._put(min(self._limits))

    def release(self, count: int) -> None:
        """Undoes one `limit(count)`."""
        with self._lock:
            self._limits.remove(count)
            self._put(min(self._limits, default=self._before))

    def shared(self) -> bool:
        """Whether what one thread asks for holds for the others; one more is asked for a moment."""
        with self._lock:
            before = self._get()
            asked = max(1, before) + 1
            asking = Thread(target=self._put, args=(asked,))
            asking.start()
            asking.join()
            seen = self._get()
            self._put(before)
        return seen == asked


KNOWN: dict[tuple[int, int], Threads] = {}  # by the addresses of their functions


class Identity(NamedTuple):
    """A library's make and version; its kernels and threads, None where it cannot be asked."""

    name: str
    version: str
    kernels: str | None = None
    threads: Threads | None = None


def identity(library: ctypes.CDLL, otherwise: Identity) -> Identity:
    """What the library says; `otherwise` where it says nothing, as Accelerate and Netlib's."""
    return _openblas(library) or _blis(library) or _mkl(library) or otherwise


def address(library: ctypes.CDLL, name: str) -> int:
    """Where a function of the library is; AttributeError where it has none of that name."""
    place = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert place is not None
    return place


def _openblas(library: ctypes.CDLL) -> Identity | None:
    form = next((f for f in OPENBLAS if hasattr(library, f.format("get_config"))), None)
    if form is None:
        return None
    version = _version(r"OpenBLAS (\S+)", _text(library, form.format("get_config")))
    kernels = _text(library, form.format("get_corename"))
    threads = None
    if getattr(library, form.format("get_parallel"))() != OPENMP:  # it keeps one number a thread
        threads = _threads(library, form.format("get_num_threads"), form.format("set_num_threads"))
    return Identity("OpenBLAS", version, kernels, threads)


def _blis(library: ctypes.CDLL) -> Identity | None:
    if not hasattr(library, "bli_info_get_version_str"):
        return None
    kernels = _text(library, "bli_arch_string", library.bli_arch_query_id())
    threads = _threads(library, "bli_thread_get_num_threads", "bli_thread_set_num_threads")
    shared = threads.shared()  # AMD's keeps one number a thread
    version = _text(library, "bli_info_get_version_str")
    return Identity("BLIS", version, kernels, threads if shared else None)


def _mkl(library: ctypes.CDLL) -> Identity | None:
    """MKL, which does not tell its kernels: on a CPU of AMD it names none, whatever it runs."""
    if not hasattr(library, "MKL_Get_Version_String"):
        return None
    text = ctypes.create_string_buffer(200)
    library.MKL_Get_Version_String(text, len(text))
    version = _version(r"Version (\S+?)-", text.value.decode())
    threads = _threads(library, "MKL_Get_Max_Threads", "MKL_Set_Num_Threads")
    return Identity("MKL", version, None, threads)


def _version(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _text(library: ctypes.CDLL, name: str, *arguments: int) -> str:
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    return (function(*arguments) or b"").decode()


def _threads(library: ctypes.CDLL, get: str, put: str) -> Threads:
    """One object a library, however often it is opened: only so do overlapping limits end well."""
    places = address(library, get), address(library, put)
    count = ctypes.CFUNCTYPE(ctypes.c_int)(places[0])
    # BLIS takes 64 bits; one that takes an int reads the lower half of the same register.
    limit = ctypes.CFUNCTYPE(None, ctypes.c_int64)(places[1])
    return KNOWN.setdefault(places, Threads(count, limit))
