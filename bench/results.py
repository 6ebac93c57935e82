"""What a benchmark found: every raw sample, where it was taken, and what was in the way.

A `Report` is what one run of `gemmc bench` writes with `--json` and what tables, figures and the
README are made of: the machine, and a `Result` for each comparison, with a `Contender` for each who
took part. Times are seconds, memory is bytes, and nothing is averaged: a list has an entry a round,
a process, an epoch or a step, as its comment says.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..frontend.command_line import many
from ..ir import CompileError, DataError
from ..runtime.native.peaks import Peaks
from ..runtime.profile import Row

FORMAT = "gemmc bench 1"
MODES = ("train", "infer")
OURS = "gemmc"
NOT_NEGATIVE = ("seconds", "compile_seconds", "first_seconds", "whole_seconds", "peak_bytes")


@dataclass(frozen=True)
class Machine:
    """What the times belong to."""

    cpu: str
    cores: int  # that this process may use
    system: str  # "Linux x86_64"
    python: str
    blas: str  # library, version and the kernels it chose: "OpenBLAS 0.3.30, SkylakeX kernels"
    versions: Mapping[str, str]  # of libraries, by package
    environment: Mapping[str, str]  # variables that are set and may hold a contender back
    findings: tuple[str, ...] = ()  # what holds gemmc's BLAS back, in words

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        held = " ".join(f"{name}={value}" for name, value in self.environment.items())
        lines = [
            f"cpu          {self.cpu}, {many(self.cores, 'core')}, {self.system}",
            f"blas         {self.blas}",
            f"versions     python {self.python}, {versions}",
            f"environment  {held or 'no variable that holds a contender back'}",
        ]
        return "\n".join([*lines, *(f"! {finding}" for finding in self.findings)])


@dataclass(frozen=True)
class History:
    """An entry an epoch: mean loss while training (dropout on), then validation after it."""

    loss: tuple[float, ...] = ()
    val_loss: tuple[float, ...] = ()
    val_accuracy: tuple[float, ...] = ()


@dataclass(frozen=True)
class Contender:
    """What one program did. What was not measured is empty, or None."""

    name: str
    version: str = ""  # of its library: "torch 2.13.0"
    seconds: tuple[float, ...] = ()  # of a training step, or of a call; one a round
    compile_seconds: tuple[float, ...] = ()  # model made and first step or call; one a process
    first_seconds: tuple[float, ...] = ()  # from process start through the same; one a process
    whole_seconds: tuple[float, ...] = ()  # from process start to a trained model; one a process
    peak_bytes: tuple[int, ...] = ()  # resident, once trained (or timed, if not); one a process
    first_losses: tuple[float, ...] = ()  # of the first steps from equal weights, dropout off
    history: History = field(default_factory=History)  # of the first process that trained
    test_losses: tuple[float, ...] = ()  # after a whole training; one a process, each its own seed
    test_accuracies: tuple[float, ...] = ()  # the same; empty where the loss knows no right answer
    plane: tuple[tuple[int, ...], ...] = ()  # predicted classes on `Result.extent`, row by row

    def __post_init__(self) -> None:
        for name in NOT_NEGATIVE:
            if not all(math.isfinite(s) and s > 0 for s in getattr(self, name)):
                seen = getattr(self, name)
                raise DataError(f"{self.name}: {name}: got {seen}, expected numbers above 0")

    @property
    def median(self) -> float:
        """Seconds of a step or call, the median over the rounds."""
        return float(np.median(self.seconds))


class Ratio(NamedTuple):
    """A median over rounds, and the interval that holds it with 95% confidence."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Result:
    """One comparison. The first contender is gemmc; all have the same number of rounds."""

    model: str  # "spiral", or what else the command line named
    title: str  # in words: "spiral of 8 classes, 3 Linear layers"
    mode: str  # "train" or "infer": what `seconds` are of
    batch: int
    threads: int
    runtime: str  # of gemmc
    epochs: int  # of the whole training; 0 if there was none
    contenders: tuple[Contender, ...]
    absent: Mapping[str, str] = field(default_factory=dict)  # who did not take part, and why
    warnings: tuple[str, ...] = ()  # what makes the figures doubtful; empty on a quiet machine
    extent: tuple[float, ...] = ()  # of the planes: left, right, bottom, top
    facts: Mapping[str, int] = field(default_factory=dict)  # of a sweep's network: FLOP, sizes

    def __post_init__(self) -> None:
        where = f"{self.model}, {self.mode}"
        if self.mode not in MODES:
            raise DataError(f"{where}: mode: got {self.mode!r}, expected {' or '.join(MODES)}")
        names = [c.name for c in self.contenders]
        if names[:1] != [OURS] or len(set(names)) != len(names):
            raise DataError(f"{where}: contenders: got {names}, expected {OURS} and others, once")
        rounds = {c.name: len(c.seconds) for c in self.contenders}
        if len(set(rounds.values())) != 1:
            raise DataError(f"{where}: seconds: got {rounds} rounds, expected as many of each")

    @property
    def ours(self) -> Contender:
        """gemmc."""
        return self.contenders[0]

    def contender(self, name: str) -> Contender:
        """The one called `name`; CompileError lists those there are."""
        for contender in self.contenders:
            if contender.name == name:
                return contender
        known = ", ".join(c.name for c in self.contenders)
        raise CompileError(f"contender: got {name!r}, expected one of {known}")

    def ratios(self, name: str) -> np.ndarray:
        """gemmc's time divided by that of contender `name`, a round each: below 1, gemmc wins."""
        return np.array(self.ours.seconds) / np.array(self.contender(name).seconds)

    def ratio(self, name: str) -> Ratio:
        """The median of `ratios`, with its interval."""
        ratios = self.ratios(name)
        return Ratio(float(np.median(ratios)), *median_interval(ratios))


@dataclass(frozen=True)
class Kernel:
    """A generated kernel, or a product of BLAS, at one shape: its step's row of a profile."""

    kernel: str
    shape: str
    row: Row


@dataclass(frozen=True)
class Report:
    """One run of the harness: comparisons, or kernels beside the peaks of the same run."""

    command: str  # as it was typed
    date: str  # "2026-11-23"
    machine: Machine
    results: tuple[Result, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    peaks: Peaks | None = None  # of the machine, where there are kernels

    def save(self, path: str | PathLike) -> None:
        """Writes it as JSON."""
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, allow_nan=False)
        try:
            Path(path).write_text(text + "\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error}") from error


def load(path: str | PathLike) -> Report:
    """The report that `save` wrote. DataError names the file and the entry that is wrong."""
    try:
        read = json.loads(Path(path).read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{path}: is no JSON: {error}") from error
    seen = read.pop("format", None) if isinstance(read, dict) else None
    if seen != FORMAT:
        raise DataError(f"{path}: format: got {seen!r}, expected {FORMAT!r}: measure again")
    return _made(Report, read, f"{path}")


def median_interval(samples: np.ndarray) -> tuple[float, float]:
    """The order statistics that enclose the median with 95% confidence, from the binomial."""
    ordered, n = np.sort(samples), len(samples)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    return float(ordered[max(k - 1, 0)]), float(ordered[min(n - k, n - 1)])


def _made(wanted: Any, value: Any, where: str) -> Any:
    """`value`, as read from JSON, as the type that an annotation says."""
    if dataclasses.is_dataclass(wanted):
        return _made_fields(wanted, value, where)
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is tuple and isinstance(value, list):
        return tuple(_made(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _made(inner[1], v, f"{where}.{key}") for key, v in value.items()}
    if origin in (Union, types.UnionType):
        return None if value is None else _made(inner[0], value, where)
    allowed = (int, float) if wanted is float else wanted
    if origin is None and isinstance(value, allowed) and not isinstance(value, bool):
        return wanted(value)
    expected = getattr(origin or wanted, "__name__", str(wanted))
    raise DataError(f"{where}: got {value!r}, expected {expected}")


def _made_fields(wanted: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{where}: got {value!r}, expected the fields of a {wanted.__name__}")
    known = {f.name for f in dataclasses.fields(wanted)}
    if known != value.keys():
        missing, more = sorted(known - value.keys()), sorted(value.keys() - known)
        raise DataError(f"{where}: {wanted.__name__}: fields missing {missing}, not known {more}")
    hints = get_type_hints(wanted)
    return wanted(**{name: _made(hints[name], v, f"{where}.{name}") for name, v in value.items()})
