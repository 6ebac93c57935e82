"""`gemmc doctor`: what this machine runs gemmc with, and what holds it back."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..ir import CompileError
from ..ir.environment import cache_folder, data_folder
from ..runtime.cores import cores as cores
from ..runtime.library import Provider, provider, scipy_provider
from . import machine
from .command_line import many
from .datasets import DEBIAN_FOLDER

PACKAGES = (
    "gemmc",
    "numpy",
    "scipy",
    "llvmlite",
    "networkx",
    "safetensors",
    "tqdm",
    "matplotlib",
    "torch",
)
# By make: the variable that chooses its kernels, and those that limit its threads. BLIS runs one
# thread unless a variable says more, so none of its holds a machine back.
VARIABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "OpenBLAS": ("OPENBLAS_CORETYPE", ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")),
    "BLIS": ("BLIS_ARCH_TYPE", ()),
    "MKL": ("MKL_ENABLE_INSTRUCTIONS", ("MKL_NUM_THREADS", "OMP_NUM_THREADS")),
}
# What they call their kernels for CPUs that have AVX-512, and for those they do not know.
WIDE_KERNELS = ("SkylakeX", "Cooperlake", "Sapphirerapids", "skx", "knl", "zen4", "zen5")
GENERIC_KERNELS = ("Generic", "generic")


def report() -> str:
    """A line a fact, then a line a finding with what to do about it; measuring takes a second."""
    own, environment, flags = scipy_provider(), dict(os.environ), cpu_flags()
    native, found = own, list(findings(own, environment, flags))
    try:
        native = provider()
    except CompileError as error:
        found.append(str(error))
    if native != own:
        found += kernel_findings(native, environment, flags)
    measured = machine.measure()
    found += [*machine.findings(measured), *_missing()]
    known = [*_facts(own, native), *machine.facts(measured)]
    facts = [f"{name:<11} {fact}" for name, fact in known]
    advice = [f"! {finding}" for finding in dict.fromkeys(found)]
    return "\n".join([*facts, "", *(advice or ["nothing holds this machine back"])])


def findings(library: Provider, environment: dict[str, str], flags: set[str]) -> Iterator[str]:
    """What holds a machine back, given its BLAS, environment variables and CPU flags."""
    yield from kernel_findings(library, environment, flags)
    _, limits = VARIABLES.get(library.name, ("", ()))
    for name in limits:
        limit = environment.get(name, "")
        if limit.isdigit() and int(limit) < cores():
            yield f"{name}={limit} limits BLAS to {limit} of {cores()} cores: unset it to use all"
    count = library.threads.count() if library.threads else 0
    if limits and count > cores():
        yield (
            f"BLAS runs {count} threads on {many(cores(), 'core')} and will wait for itself: "
            f"set {limits[0]}={cores()}"
        )


def kernel_findings(
    library: Provider, environment: dict[str, str], flags: set[str]
) -> Iterator[str]:
    """Why a library's kernels are not the best for the CPU."""
    variable, _ = VARIABLES.get(library.name, ("", ()))
    forced, kernels = environment.get(variable), library.kernels
    if forced and kernels and "avx512f" in flags and kernels not in WIDE_KERNELS:
        yield (
            f"{variable}={forced} makes {library.name} use {kernels} kernels on a CPU with "
            f"AVX-512, which is slower: unset {variable}"
        )
    elif forced:
        yield f"{variable}={forced} chooses kernels for {library.name}: unset it to let it choose"
    elif kernels in GENERIC_KERNELS:
        yield (
            f"{library.name} {library.version} has no kernels for this CPU but its {kernels} ones: "
            "use a newer version, or another library"
        )


def cpu_flags() -> set[str]:
    """The CPU's features as Linux lists them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return set(next((line.split()[2:] for line in lines if line.startswith("flags")), []))


def _missing() -> Iterator[str]:
    """What is not there and should be."""
    if not _version("llvmlite")[0].isdigit():
        yield (
            "llvmlite is not installed: models are trained on the blas runtime, several times "
            "slower: pip install llvmlite"
        )
    if not any(folder.is_dir() for folder in _data_folders()):
        cache = cache_folder()
        first = f"downloaded to {cache} when first used" if cache else "there is no place for it"
        yield f"no folder has Fashion-MNIST: it is {first}; or let GEMMC_DATA name one that has it"


def _data_folders() -> list[Path]:
    cache = cache_folder()
    folders = (data_folder(), cache and cache / "fashion-mnist", DEBIAN_FOLDER)
    return [folder for folder in folders if folder]


def _facts(own: Provider, native: Provider) -> Iterator[tuple[str, str]]:
    system = f"{platform.system()} {platform.machine()}"
    yield "python", f"{platform.python_version()} on {system}, {many(cores(), 'core')}"
    yield "blas", _described(own)
    if native != own:
        yield "native blas", f"{_described(native)}, {native.path}"
    for package in PACKAGES:
        yield package, _version(package)
    for folder in _data_folders():
        yield "data", f"{folder} ({'there' if folder.is_dir() else 'not there'})"


def _described(library: Provider) -> str:
    kernels = f", {library.kernels} kernels" if library.kernels else ""
    threads = f", {many(library.threads.count(), 'thread')}" if library.threads else ""
    return f"{library.name} {library.version}".rstrip() + kernels + threads


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
