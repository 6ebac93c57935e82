"""Contenders that take turns: each in a process of its own, A B A B, a ratio a round.

A contender is made by a function that can be pickled; what it returns is the work, and the work is
what is timed. Before the rounds every contender is warmed up and told how often to repeat its work,
so that a turn is long beside the clock and beside what wakes up after a pause. What is reported is
the median over rounds of the ratio of two times in the same round, with the interval that holds the
median with 95% confidence: a slow minute of the machine slows both.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Work = Callable[[], object]
Make = Callable[[], Work]

RUNTIMES = ("auto", "native", "blas")
WARM_UPS = 4  # one that compiles, one without, and two that find how often to repeat
PAUSE = 0.03  # seconds: the threads of the last contender stop spinning, and leave it the cores


def add_arguments(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """The options that all comparisons share, with their defaults."""
    parser.add_argument("--rounds", type=int, default=rounds)
    about = f"a turn lasts at least about so long, default {seconds}"
    parser.add_argument("--seconds", type=float, default=seconds, help=about)
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options that say how gemmc, and everybody, runs."""
    parser.add_argument("--threads", type=int, default=2, help="of every contender, default 2")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="of gemmc")


class Contender:
    """A process that does its work when asked, and says how long it took."""

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share thread pools
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, make: Make) -> None:
        """Makes the work that `run` does from now on."""
        self._ask(make)

    def run(self, times: int = 1) -> tuple[float, Any]:
        """(seconds, what the last one returned) of doing the work so many times."""
        seconds, value = self._ask(times)
        return seconds, value

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()

    def _ask(self, message: Make | int) -> Any:
        try:
            self._pipe.send(message)
            return self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise SystemExit(f"{self.name}: its process ended, exit code {code}") from None


def _serve(pipe: Connection) -> None:
    work: Work = _nothing
    with suppress(EOFError):
        while True:
            message = pipe.recv()
            if not isinstance(message, int):
                work = _nothing  # what the last work holds is free before the next is made
                work = message()
                pipe.send(None)
                continue
            begin = time.perf_counter()
            for _ in range(message):
                value = work()
            pipe.send((time.perf_counter() - begin, value))


def _nothing() -> None:
    """The work of a process that has not been told any."""


@contextmanager
def processes(names: Sequence[str]) -> Iterator[dict[str, Contender]]:
    """A contender for each name; their processes end with the block."""
    opened = {name: Contender(name) for name in names}
    try:
        yield opened
    finally:
        for contender in opened.values():
            contender.close()


def once(name: str, work: Work) -> Any:
    """What `work`, which can be pickled itself, returns when done once in a fresh process."""
    with processes([name]) as opened:
        opened[name].prepare(partial(_itself, work))
        return opened[name].run()[1]


def _itself(work: Work) -> Work:
    return work


@dataclass(frozen=True)
class Measured:
    """Seconds of one piece of work, a contender and round, and what its very first one returned."""

    seconds: dict[str, np.ndarray]
    first: dict[str, Any]


def compare(makes: Mapping[str, Make], rounds: int, seconds: float) -> Measured:
    """The times of contenders that have processes of their own for this comparison."""
    with processes(list(makes)) as opened:
        for name, make in makes.items():
            opened[name].prepare(make)
        return measure(opened, rounds, seconds)


def measure(contenders: Mapping[str, Contender], rounds: int, seconds: float) -> Measured:
    """The times of contenders that have been prepared, over rounds, in turns."""
    first, repeats = {}, {}
    for name, contender in contenders.items():
        repeats[name], first[name] = _warm_up(contender, seconds)
    times = {name: np.zeros(rounds) for name in contenders}
    for turn in range(rounds):
        for name, contender in contenders.items():
            time.sleep(PAUSE)
            times[name][turn] = contender.run(repeats[name])[0] / repeats[name]
    return Measured(times, first)


def _warm_up(contender: Contender, seconds: float) -> tuple[int, Any]:
    """(how many times the work is to be done a turn, what it returned first)."""
    took, first = contender.run()
    repeats = 1
    for _ in range(WARM_UPS - 1):
        repeats = max(1, math.ceil(repeats * seconds / took))
        took = contender.run(repeats)[0]
    return repeats, first


def median_interval(samples: np.ndarray) -> tuple[float, float]:
    """The order statistics that enclose the median with 95% confidence, from the binomial."""
    ordered, n = np.sort(samples), len(samples)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    return float(ordered[max(k - 1, 0)]), float(ordered[min(n - k, n - 1)])


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The median of the rounds' ratios and its interval: "0.52 (0.50 to 0.55)"."""
    ratios = ours / theirs
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def rows(seconds: Mapping[str, np.ndarray], unit: str, scale: float) -> str:
    """A row a contender: its median time, quartiles, and the first one's time divided by its own.

    `scale` turns seconds of one piece of work into `unit`.
    """
    ours, *_ = seconds
    lines = [f"{'':<17} {unit:>10}   {'quartiles':<20} {ours} / it (95% interval)"]
    for name, times in seconds.items():
        low, middle, high = np.percentile(scale * times, (25, 50, 75))
        quartiles = f"{low:.4g} to {high:.4g}"
        divided = "" if name == ours else ratio(seconds[ours], times)
        lines.append(f"{name:<17} {middle:>10.4g}   {quartiles:<20} {divided}".rstrip())
    return "\n".join(lines)
