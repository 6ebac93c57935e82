"""Contenders that take turns: each in a process of its own, A B A B, a ratio a round.

Before the rounds every contender is warmed up and told how often to repeat its work, so that a turn
is long beside the clock and beside what wakes up after a pause. What is reported is the median over
rounds of the ratio of two times in the same round, with the interval that holds the median with 95%
confidence: a slow minute of the machine slows both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..ir import CompileError, GemmcError
from . import process
from .machine import Watch
from .peers import PEERS
from .process import Task

RUNTIMES = ("auto", "native", "blas")
WARM_UPS = 4  # one that compiles, one without, and two that find how often to repeat
PAUSE = 0.03  # seconds: the threads of the last contender stop spinning, and leave it the cores


def inherited() -> dict[str, str]:
    """Our environment, in which modules are compiled once: an installed package's are."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


class Unable(GemmcError):
    """A contender cannot do what it was asked; it says why."""


def add_arguments(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """The options that all comparisons share, with their defaults."""
    about = f"turns of each contender, default {rounds}"
    parser.add_argument("--repeat", type=int, default=rounds, help=about)
    about = f"a turn lasts at least about so long, default {seconds}"
    parser.add_argument("--seconds", type=float, default=seconds, help=about)
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options that say how gemmc, and everybody, runs."""
    parser.add_argument("--threads", type=int, default=2, help="of every contender, default 2")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="of gemmc")


def check_arguments(chosen: argparse.Namespace, **least: int) -> None:
    """CompileError if one of these options, numbers or lists of them, is below its least value."""
    for name, lowest in least.items():
        given = getattr(chosen, name)
        for value in given if isinstance(given, Sequence) else [given]:
            if value is not None and value < lowest:
                raise CompileError(f"--{name}: got {value}, expected a whole number >= {lowest}")


class Process:
    """A contender's process; `environment` is added to ours."""

    def __init__(
        self, name: str, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        peer = PEERS[name]
        own = {key: value.format(threads=threads) for key, value in peer.environment.items()}
        command = [sys.executable, "-P", process.__file__, peer.module, name]
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited(), **own, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        """The operating system's number for it."""
        return self._process.pid

    def prepare(self, path: str | Path) -> None:
        """Has it read the task in a file and make its model."""
        self.ask("load", str(path))
        self.ask("make")

    def run(self, times: int = 1) -> float:
        """Seconds of doing the task's work so many times."""
        return float(self.ask("run", times))

    def ask(self, verb: str, *arguments: Any) -> Any:
        """What a verb of `process.Worker` answers. Unable, or GemmcError if the process ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps([verb, *arguments]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise GemmcError(f"{self.name}: its process ended, exit code {code}")
        answer = json.loads(line)
        if "unable" in answer:
            raise Unable(answer["unable"])
        return answer["value"]

    def close(self) -> None:
        """Ends the process, when it has done what it is doing."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._process.stdout:
            self._process.stdin.close()
            self._process.wait()


@contextmanager
def processes(
    names: Sequence[str], threads: int, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Process]]:
    """A process for each contender; they end with the block."""
    opened: dict[str, Process] = {}
    try:
        for name in names:
            opened[name] = Process(name, threads, environment)
        yield opened
    finally:
        for one in opened.values():
            one.close()


@contextmanager
def saved(task: Task) -> Iterator[Path]:
    """A file that holds a task for processes; it is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="gemmc-bench-") as folder:
        path = Path(folder) / "task.npz"
        task.save(path)
        yield path


def measure(
    opened: Mapping[str, Process], rounds: int, seconds: float
) -> tuple[dict[str, np.ndarray], float]:
    """(seconds of one piece of work, a contender and round; the share of the cores others took).

    The processes have been prepared.
    """
    repeats = {name: _warm_up(one, seconds) for name, one in opened.items()}
    times = {name: np.zeros(rounds) for name in opened}
    with Watch([one.pid for one in opened.values()]) as watch:
        for turn in range(rounds):
            for name, one in opened.items():
                time.sleep(PAUSE)
                times[name][turn] = one.run(repeats[name]) / repeats[name]
    return times, watch.others


def _warm_up(one: Process, seconds: float) -> int:
    """How many times the work is to be done a turn."""
    took, repeats = one.run(), 1
    for _ in range(WARM_UPS - 1):
        repeats = max(1, math.ceil(repeats * seconds / took))
        took = one.run(repeats)
    return repeats
