"""`gemmc doctor`: what this machine runs gemmc with, and what holds it back."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..ir.environment import cache_folder, data_folder
from ..runtime.library import Library, blas_library
from .datasets import DEBIAN_FOLDER

PACKAGES = ("gemmc", "numpy", "scipy", "networkx", "safetensors", "tqdm", "matplotlib", "torch")
CORE_TYPE = "OPENBLAS_CORETYPE"
THREAD_LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
# What OpenBLAS calls its kernels for CPUs that have AVX-512.
WIDE_KERNELS = ("SkylakeX", "Cooperlake", "Sapphirerapids", "Zen")


def report() -> str:
    """A line a fact, then a line a finding with what to do about it."""
    library = blas_library()
    facts = [f"{name:<11} {fact}" for name, fact in _facts(library)]
    found = list(findings(library, dict(os.environ), cpu_flags()))
    advice = [f"! {finding}" for finding in found] or ["nothing holds this machine back"]
    return "\n".join([*facts, "", *advice])


def findings(library: Library, environment: dict[str, str], flags: set[str]) -> Iterator[str]:
    """What holds a machine back, given its BLAS, environment variables and CPU flags."""
    forced = environment.get(CORE_TYPE)
    if forced and "avx512f" in flags and library.kernels not in WIDE_KERNELS:
        yield (
            f"{CORE_TYPE}={forced} makes OpenBLAS use {library.kernels} kernels on a CPU with "
            f"AVX-512, which is slower: unset {CORE_TYPE}"
        )
    elif forced:
        yield f"{CORE_TYPE}={forced} chooses OpenBLAS's kernels by hand: unset it to let it choose"
    for name in THREAD_LIMITS:
        limit = environment.get(name, "")
        if limit.isdigit() and int(limit) < cores():
            yield f"{name}={limit} limits BLAS to {limit} of {cores()} cores: unset it to use all"
    if library.threads and library.threads > cores():
        yield (
            f"BLAS runs {library.threads} threads on {cores()} cores and will wait for itself: "
            f"set OPENBLAS_NUM_THREADS={cores()}"
        )


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> set[str]:
    """The CPU's features as Linux lists them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return set(next((line.split()[2:] for line in lines if line.startswith("flags")), []))


def _facts(library: Library) -> Iterator[tuple[str, str]]:
    system = f"{platform.system()} {platform.machine()}"
    yield "python", f"{platform.python_version()} on {system}, {cores()} cores"
    kernels = f", {library.kernels} kernels, {library.threads} threads" if library.kernels else ""
    yield "blas", f"{library.name} {library.version}{kernels}"
    for package in PACKAGES:
        yield package, _version(package)
    for folder in filter(None, (data_folder(), cache_folder(), DEBIAN_FOLDER)):
        yield "data", f"{folder} ({'there' if folder.is_dir() else 'not there'})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
