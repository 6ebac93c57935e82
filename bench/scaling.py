"""The example CNN over batch size, channels and threads: time a sample, gemmc beside PyTorch.

    python -m gemmc.bench scaling [--batches 1 8 32 128 512] [--channels 4 8 16 32 64]

One of the three varies while the others stay: batches of `--batch`, 16 channels (and 32 behind the
second convolution), `--threads` threads. Threads go from one to `--threads`. Without PyTorch gemmc
is measured alone.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from statistics import mode
from typing import NamedTuple

import numpy as np

from ..frontend import datasets
from ..frontend.command_line import many
from ..frontend.layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Softmax
from ..frontend.losses import CrossEntropyLoss
from ..frontend.optimizers import Adam
from ..frontend.sequential import Sequential
from ..ir import CompileError
from . import publish, steps
from .machine import NEEDS_TORCH, machine
from .results import OURS, Ratio, Result, median_interval
from .rounds import check_arguments, measure, processes
from .steps import TUNED, Network

BATCHES, CHANNELS = (1, 8, 32, 128, 512), (4, 8, 16, 32, 64)
OWN_CHANNELS = 16  # of the example CNN, behind its first convolution
STEPS = 64  # of an epoch, or as many as 6,000 images make
HEAD = f"{'':>9} {'gemmc us a sample':>18} {'torch-tuned us':>15}   gemmc / it (95% interval)"


class Point(NamedTuple):
    """Where the network is measured: one of these varies while the others stay."""

    batch: int
    channels: int
    threads: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    steps.add_arguments(parser, rounds=9, seconds=0.15)
    parser.add_argument("--batch", type=int, default=128, help="while others vary, default 128")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its tables."""
    check_arguments(chosen, repeat=1, threads=1, batch=1, batches=1, channels=1)
    publish.check_places(chosen)
    facts = machine()
    print(facts, flush=True)
    names = (OURS, TUNED) if importlib.util.find_spec("torch") else (OURS,)
    if TUNED not in names:
        print(f"{OURS} alone: {TUNED} needs {NEEDS_TORCH['torch']}")
    threads = range(1, chosen.threads + 1)
    varied = {"batch": chosen.batches, "channels": chosen.channels, "threads": threads}
    own = Point(chosen.batch, OWN_CHANNELS, chosen.threads)
    measured: dict[Point, Result] = {}
    with processes(names, chosen.threads) as opened:
        for side, values in varied.items():
            print(f"\n{side}, {staying(side, own)}\n{HEAD}", flush=True)
            for value in values:
                point = own._replace(**{side: value})
                if point not in measured:
                    measured[point] = steps.times(_network(point), opened, chosen)
                print(_line(value, measured[point]), flush=True)
    if chosen.threads > 1:
        print(f"\n{_speedup(own, chosen)}", flush=True)
    found = list(measured.values())
    print("\n".join(["", *doubtful(found)]))
    publish.publish(found, facts, chosen)


def point_of(result: Result) -> Point:
    """Where a result of `scaling` was measured."""
    return Point(result.batch, result.facts["channels"], result.threads)


def doubtful(results: Sequence[Result]) -> list[str]:
    """Of `scaling`'s results, which ones the machine was too noisy for, in a line."""
    return steps.doubts(results, lambda r: " x ".join(map(str, point_of(r))))


def along(side: str, results: Sequence[Result]) -> list[Result]:
    """Those of `scaling`'s results between which only `side` varies, by its values."""
    points = [point_of(r) for r in results]
    own = Point(*map(mode, zip(*points, strict=True)))  # each side stays while the others vary
    kept = [r for r in results if point_of(r) == own._replace(**{side: getattr(point_of(r), side)})]
    return sorted(kept, key=lambda r: getattr(point_of(r), side))


def staying(side: str, own: Point) -> str:
    """What does not vary along a side: "16 channels, 2 threads"."""
    stay = {
        "batch": f"batch {own.batch}",
        "channels": many(own.channels, "channel"),
        "threads": many(own.threads, "thread"),
    }
    return ", ".join(text for s, text in stay.items() if s != side)


def scaled_model(channels: int) -> Sequential:
    """The example CNN with so many channels, and twice as many, behind its convolutions."""
    layers = [
        *(Conv2d(1, channels, kernel_size=3, padding=1), ReLU(), MaxPool2d(2)),
        *(Conv2d(channels, 2 * channels, kernel_size=3, padding=1), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(98 * channels, 128), ReLU(), Dropout(), Linear(128, 10), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-3), seed=0)


def _network(point: Point) -> Network:
    x, y, _, _ = datasets.fashion_mnist(subset=True)
    rows = point.batch * min(STEPS, len(x) // point.batch)
    if not rows:
        raise CompileError(f"--batches: got {point.batch}, expected at most {len(x)} images")
    title = f"example CNN, {point.channels} and {2 * point.channels} channels"
    made = (scaled_model(point.channels), (x[:rows], y[:rows]), point.batch, point.threads)
    return Network("scaling", title, *made, facts={"channels": point.channels})


def _line(value: int, result: Result) -> str:
    us = {c.name: 1e6 * c.median / result.batch for c in result.contenders}
    beside = f"{us[TUNED]:>15.4g}   {result.ratio(TUNED)}" if TUNED in us else ""
    return f"{value:>9} {us[OURS]:>18.4g} {beside}".rstrip()


def _speedup(own: Point, chosen: argparse.Namespace) -> str:
    """On how many threads gemmc is how fast: a process on one takes turns with one on several."""
    with processes([OURS], 1) as one, processes([OURS], own.threads) as several:
        steps.prepare(_network(own._replace(threads=1)), one.values(), chosen.runtime)
        steps.prepare(_network(own), several.values(), chosen.runtime)
        turns = {"one": one[OURS], "several": several[OURS]}
        seconds, _ = measure(turns, chosen.repeat, chosen.seconds)
    times = seconds["one"] / seconds["several"]
    ratio = Ratio(float(np.median(times)), *median_interval(times))
    return f"gemmc, in turns, on {many(own.threads, 'thread')} and on one: {ratio} times as fast"
