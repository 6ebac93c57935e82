"""What doctor measures: products, other work on the machine, and numbers close to zero."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..runtime.cores import cores
from ..runtime.library import ThreadLimit
from ..runtime.native.peaks import Peaks, peaks

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # version 2: "150000 100000" or "max 100000"
CPU_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # version 1: -1 is no limit
CPU_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
SIZE = 512  # of the square product that is timed: large enough for any library's best kernels
ENOUGH = 0.6  # of the peak of multiply-adds: what a library with fitting kernels reaches at least
BUSY = 0.5  # tasks that run or wait for each core, of the last minute
SCALED = 0.75  # of the cores' peaks added up, that all together should reach
SLOW = 4.0  # times as long for denormal numbers: worth avoiding


@dataclass(frozen=True)
class Measured:
    """A machine: its peaks on one core and on all, what BLAS reaches on one, and what disturbs.

    `load` is how many tasks ran or waited in the last minute, `allowed` the cores' worth of time
    that a container may use, each None where nothing tells. `denormal` is how many times as long
    arithmetic takes on denormal numbers, None if this process flushes them to zero.
    """

    one: Peaks
    every: Peaks
    blas_flops: float
    load: float | None
    allowed: float | None
    denormal: float | None


def measure() -> Measured:
    """This machine, in about a second."""
    one, every = peaks(1), peaks(cores())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Measured(one, every, _blas_flops(), load, _allowed(), denormal_slowdown())


def facts(m: Measured) -> Iterator[tuple[str, str]]:
    """A name and a line for each thing measured."""
    for peak in dict.fromkeys((m.one, m.every)):
        rates = (f"{x.name} {x.read / 1e9:.0f}" for x in peak.levels)
        workers = "1 core" if peak.workers == 1 else f"{peak.workers} cores"
        yield "peak", f"{workers}: {peak.flops / 1e9:.0f} GFLOP/s; reads GB/s: {', '.join(rates)}"
    share = m.blas_flops / m.one.flops
    yield "sgemm", f"{m.blas_flops / 1e9:.0f} GFLOP/s on 1 core, {share:.0%} of its peak"
    load = "unknown" if m.load is None else f"{m.load:.2f}"
    allowed = "" if m.allowed is None else f", {m.allowed:.3g} cores' worth of time allowed"
    yield "load", f"{load}{allowed}"
    times = "flushed to zero" if m.denormal is None else f"kept, {m.denormal:.1f} times as slow"
    yield "denormals", times


def findings(m: Measured) -> Iterator[str]:
    """What is wrong with a machine, each with what to do about it."""
    count = m.every.workers
    if m.one.source == "loops" and m.blas_flops < ENOUGH * m.one.flops:
        yield (
            f"BLAS reaches {m.blas_flops / 1e9:.0f} of {m.one.flops / 1e9:.0f} GFLOP/s on one "
            "core: its kernels do not fit this CPU: see the other findings, use a newer SciPy, or "
            "name another library by GEMMC_BLAS"
        )
    if m.load is not None and m.load > BUSY * count:
        yield (
            f"about {m.load:.1f} tasks run or wait on {count} cores: times are not to be trusted "
            "now, and workers wait for one another: end other work, or leave it a core by threads="
        )
    if m.allowed is not None and m.allowed < count:
        fewer = max(1, int(m.allowed))
        yield (
            f"this container may use {m.allowed:.3g} of the {count} cores it sees: workers beyond "
            f"that are stopped while others wait for them: use threads={fewer}"
        )
    if count > 1 and m.every.flops < SCALED * count * m.one.flops:
        times = m.every.flops / m.one.flops
        yield (
            f"{count} cores do {times:.1f} times what one does: they share a core's units, or the "
            f"machine is busy: try threads={max(1, round(times))}"
        )
    if m.denormal is None:
        yield (
            "this process flushes denormal numbers to zero: a library built with -ffast-math has "
            "set the CPU so, and NumPy's results lose the smallest numbers: import it later, or "
            "rebuild it"
        )
    elif m.denormal > SLOW:
        yield (
            f"denormal numbers are {m.denormal:.0f} times as slow: the native runtime flushes them "
            'to zero while it runs, the blas runtime does not: prefer runtime="native"'
        )


def denormal_slowdown() -> float | None:
    """How many times as long arithmetic on denormal numbers takes; None if they become zero."""
    normal = np.full(1 << 14, 1.0, np.float32)
    denormal = np.full(1 << 14, 1e-39, np.float32)
    half, made = np.float32(0.5), np.empty_like(normal)
    if not (denormal * half).any():
        return None
    tiny, usual = (_best(partial(np.multiply, x, half, out=made)) for x in (denormal, normal))
    return tiny / usual


def _blas_flops() -> float:
    """What a product of square matrices reaches on one thread of SciPy's library, FLOP/s."""
    from scipy.linalg.blas import sgemm  # here: it takes 0.2 s to load

    a = np.asfortranarray(np.ones((SIZE, SIZE), np.float32))
    with ThreadLimit(1 if ThreadLimit.possible() else None):
        return 2.0 * SIZE**3 / _best(lambda: sgemm(1.0, a, a))


def _allowed() -> float | None:
    """Cores' worth of time that the container of this process may use; None without a limit."""
    try:
        if CPU_MAX.exists():
            quota, period = CPU_MAX.read_text().split()
        else:
            quota, period = CPU_QUOTA.read_text(), CPU_PERIOD.read_text()
        limit = float(quota) / float(period)
    except (OSError, ValueError):  # no such files, or "max"
        return None
    return limit if limit > 0 else None


def _best(work: Callable[[], object]) -> float:
    """The least seconds of some runs, after one that warms up."""
    seconds = []
    for _ in range(8):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
