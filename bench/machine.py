"""What a figure belongs to: the machine, the versions, the environment, and memory in use."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

NEEDS_TORCH = {"torch": "PyTorch: pip install 'gemmc[torch]'"}
LIBRARIES = ("numpy", "scipy", "llvmlite", "torch", "jax", "onnxruntime")
# The first line holds gemmc's BLAS back, the second PyTorch's libraries, the third both.
HELD_BACK = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GEMMC_BLAS", "GEMMC_CHECK"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_NUM_THREADS"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY"),
)


def machine() -> str:
    """The machine and libraries a figure belongs to, and what holds them back."""
    blas = np.__config__.show(mode="dicts")["Build Dependencies"]["blas"]
    found = ((name, _version(name)) for name in LIBRARIES)
    versions = ", ".join(f"{name} {number}" for name, number in found if number)
    held = [f"{k}={os.environ[k]}" for k in HELD_BACK if k in os.environ]
    return "\n".join(
        [
            f"cpu     {_cpu_name()}, {os.cpu_count()} cores, {platform.machine()}",
            f"python  {platform.python_version()}, {versions}; NumPy's BLAS: {blas.get('name')}",
            f"environment  {' '.join(held) or 'nothing that holds BLAS back'}",
        ]
    )


def peak_memory() -> int:
    """The most bytes this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts, on Linux, from the process that spawned this one
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"
