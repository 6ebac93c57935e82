"""What a figure belongs to: the machine, the versions, the environment, and who else was busy."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..frontend import doctor
from ..runtime.cores import cores
from ..runtime.library import provider
from .results import Machine

NEEDS_TORCH = {"torch": "PyTorch: pip install 'gemmc[torch]'"}
LIBRARIES = (
    *("gemmc", "numpy", "scipy", "llvmlite"),
    *("torch", "jax", "keras", "onnxruntime", "tinygrad"),
)
# The first line holds gemmc's BLAS back, the second PyTorch's libraries, the third everybody.
HELD_BACK = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GEMMC_BLAS", "GEMMC_CHECK"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_NUM_THREADS"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "XLA_FLAGS", "NPROC"),
)


def machine() -> Machine:
    """The machine and libraries a figure belongs to, and what holds them back."""
    library = provider()
    found = ((name, _version(name)) for name in LIBRARIES)
    kernels = f", {library.kernels} kernels" if library.kernels else ""
    return Machine(
        cpu=_cpu_name(),
        cores=cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        blas=f"{library.name} {library.version}".rstrip() + kernels,
        versions={name: number for name, number in found if number},
        environment={k: os.environ[k] for k in HELD_BACK if k in os.environ},
        findings=tuple(doctor.findings(library, dict(os.environ), doctor.cpu_flags())),
    )


class Watch:
    """A context that sees which share of the cores was taken by others: 0 to 1; NaN if unknown.

    `ours` are the processes that are not others; this one is not either. Time that the host of a
    virtual machine takes away counts as others'. Linux alone tells.
    """

    others = float("nan")

    def __init__(self, ours: Sequence[int]) -> None:
        self._ours = [*ours, os.getpid()]

    def __enter__(self) -> Watch:
        self._begin = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        begin, end = self._begin, self._read()
        if begin and end and end[0] > begin[0]:
            total, busy, own = (e - b for e, b in zip(end, begin, strict=True))
            self.others = max(0.0, (busy - own) / total)

    def _read(self) -> tuple[float, float, float] | None:
        """Ticks that our cores have had, were busy, and worked for us."""
        try:
            lines = Path("/proc/stat").read_text().splitlines()
            stats = [Path(f"/proc/{pid}/stat").read_text() for pid in self._ours]
        except OSError:
            return None
        wanted = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split()[1:9] for line in lines if line.split(" ", 1)[0] in wanted]
        # user nice system idle iowait irq softirq steal. Source: proc(5), as what follows
        total = sum(int(t) for row in rows for t in row)
        idle = sum(int(t) for row in rows for t in row[3:5])
        after_name = [stat.rsplit(")", 1)[1].split() for stat in stats]  # a name may have spaces
        own = sum(int(field) for fields in after_name for field in fields[11:13])
        return total, total - idle, own


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
