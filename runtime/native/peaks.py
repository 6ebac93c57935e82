"""What this machine can do at most: FLOP/s, and bytes a second from each cache and memory.

Measured by generated loops, the best of a few short runs, in a fraction of a second: whatever else
the machine does can only make a run slower. A kernel's distance from these is what is left to gain.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from ...passes.memory import ALIGN

CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MAC_CACHES = {"L1": "hw.perflevel0.l1dcachesize", "L2": "hw.perflevel0.l2cachesize"}
UNKNOWN = {"L1": 32 << 10, "L2": 512 << 10}  # bytes, where nothing says how large caches are
MEMORY = (64 << 20, 256 << 20)  # bytes that are taken for more than any cache holds, at least, most
OWN = ("L1", "L2")  # levels that each core has for itself
MOVED = {"read": 4, "copy": 4, "update": 8}  # bytes for each float that is gone through
BEST_OF = 5


@dataclass(frozen=True)
class Level:
    """A cache, or "memory": the bytes a second that all workers read, copy, or update in place.

    `nbytes` is how much memory they went through. A byte that is copied or updated counts twice:
    read, and written.
    """

    name: str
    nbytes: int
    read: float
    copy: float
    update: float

    @property
    def stream(self) -> float:
        """Bytes a second that are read or copied: of what is not updated in place."""
        return max(self.read, self.copy)


@dataclass(frozen=True)
class Peaks:
    """What so many workers do at most: `flops` in a second, in float32; `levels`, nearest first.

    `source` is "loops", or "numpy" where LLVM cannot be had: then the peaks are those of NumPy and
    its BLAS.
    """

    workers: int
    flops: float
    levels: tuple[Level, ...]
    source: str = "loops"

    @property
    def bytes(self) -> Mapping[str, float]:
        """Bytes a second that can be read or copied, by the name of the level."""
        return {level.name: level.stream for level in self.levels}

    def level(self, nbytes: float) -> Level:
        """The nearest level that holds a working set of so many bytes."""
        *caches, memory = self.levels
        return next((c for c in caches if nbytes <= self.caches[c.name]), memory)

    def attainable(self, intensity: float, level: str = "memory") -> float:
        """The roofline: FLOP/s at `intensity` FLOP for each byte that comes from a level.

        Source: Williams, Waterman, Patterson, "Roofline", CACM 52 (2009).
        """
        return min(self.flops, intensity * self.bytes[level])

    @property
    def caches(self) -> Mapping[str, int]:
        """Bytes that all workers' caches hold, by the name of the level; L3 is shared by them."""
        sizes = cache_sizes()
        return {k: n * self.workers if k in OWN else n for k, n in sizes.items()}

    def __str__(self) -> str:
        """A line for the multiply-adds, a line a level."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        lines = [f"{'FMA':<7} {self.flops / 1e9:>7.0f} GFLOP/s, {workers}"]
        for x in self.levels:
            rates = f"{x.read / 1e9:>5.0f} {x.copy / 1e9:>5.0f} {x.update / 1e9:>5.0f}"
            lines.append(f"{x.name:<7} {rates} GB/s read, copied, updated")
        return "\n".join(lines)


@cache
def peaks(workers: int) -> Peaks:
    """The peaks of so many workers, each on a core of its own; measured once a process."""
    try:
        from .streams import Streams, chains, granule  # llvmlite may be missing
    except (ImportError, OSError, RuntimeError):
        return _numpy_peaks(workers)
    streams = Streams(workers)
    sizes = _working_sets(workers)
    memory = _ones(max(sizes.values()))
    flops = 2 * chains() * streams.rate("fma", memory, chains(), shared=False)
    levels = []
    for name, room in sizes.items():
        count, shared = room // 4 // workers // granule() * granule(), name not in OWN
        rates = {
            kind: nbytes * count * streams.rate(kind, memory, count, shared)
            for kind, nbytes in MOVED.items()
        }
        levels.append(Level(name, 4 * count * workers, **rates))
    return Peaks(workers, flops, tuple(levels))


@cache
def cache_sizes() -> Mapping[str, int]:
    """Bytes of the data caches that a core sees, by name: L1, L2, and L3 where there is one."""
    found = _mac_caches() if sys.platform == "darwin" else _linux_caches()
    return UNKNOWN | found


def _working_sets(workers: int) -> dict[str, int]:
    """Bytes to go through for each level: in this one with room to spare, too many for the last."""
    sizes = cache_sizes()
    wanted = {name: workers * sizes[name] // 2 for name in OWN}
    l3 = sizes.get("L3", 0)
    if l3 > 2 * workers * sizes["L2"]:
        wanted["L3"] = min(4 * workers * sizes["L2"], l3 // 2)
    least, most = MEMORY
    return {**wanted, "memory": min(max(4 * l3, least), most)}


def _linux_caches() -> dict[str, int]:
    found = {}
    for folder in CPU_CACHES.glob("index*"):
        kind, level, size = ((folder / f).read_text().strip() for f in ("type", "level", "size"))
        if kind != "Instruction" and (match := re.fullmatch(r"(\d+)([KM]?)", size)):
            found[f"L{level}"] = int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
    return {name: found[name] for name in sorted(found)}


def _mac_caches() -> dict[str, int]:
    found = {}
    for name, key in MAC_CACHES.items():
        asked = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
        if asked.stdout.strip().isdigit() and int(asked.stdout):
            found[name] = int(asked.stdout)
    return found


def _ones(nbytes: int) -> np.ndarray:
    raw = np.ones((nbytes + ALIGN) // 4, np.float32)
    begin = -raw.ctypes.data % ALIGN // 4
    return raw[begin : begin + nbytes // 4]


def _numpy_peaks(workers: int) -> Peaks:
    """NumPy's: a product of 512 x 512 matrices; a dot product and a copy, on one thread each."""
    sizes, n = _working_sets(1), 512
    a, made = np.ones((n, n), np.float32), np.empty((n, n), np.float32)
    flops = 2.0 * n**3 / _best(partial(np.matmul, a, a, out=made))
    levels = []
    for name, nbytes in sizes.items():
        x = _ones(nbytes // 64 * 64)
        first, second = np.split(x, 2)
        read = x.nbytes / _best(partial(np.dot, x, x))
        copy = x.nbytes / _best(partial(np.copyto, second, first))
        update = 2.0 * x.nbytes / _best(partial(np.add, x, 0.0, out=x))
        levels.append(Level(name, x.nbytes, read, copy, update))
    return Peaks(workers, flops, tuple(levels), "numpy")


def _best(work: Callable[[], object]) -> float:
    """The least seconds of a few runs, after one that warms up."""
    seconds = []
    for _ in range(BEST_OF + 1):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
