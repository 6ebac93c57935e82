"""Many networks, gemmc beside PyTorch (channels last, fused Adam): parity, then time, worst first.

    python -m gemmc.bench sweep [--grid] [--only 3,17] [--limit 10] [--compiled 6] [--parity]

The 60 networks of a fixed sample (`bench/sample.py`), or with `--grid` one kind of network over
channels, image size, kernel, stride and batch (`bench/grid.py`). First losses and gradients of
every network are compared with PyTorch's, dropout off, and where they part the sweep stops. Then
gemmc and PyTorch train each network in turns, by epochs; torch.compile takes part in a few.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from ..frontend.command_line import many
from ..ir import CompileError
from . import publish, steps
from .grid import GRID, grid_models
from .machine import NEEDS_TORCH, machine
from .parity import check
from .results import OURS, Result
from .rounds import check_arguments, processes
from .same import Parted
from .sample import Sample, sample_models
from .steps import COMPILED, TUNED, Network
from .sweep_table import HEAD, line, table

NEEDS = NEEDS_TORCH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    steps.add_arguments(parser, rounds=9, seconds=0.1)
    parser.add_argument("--grid", action="store_true", help="the grid instead of the sample")
    for side, values in GRID.items():
        about = f"of the grid, default {' '.join(map(str, values))}"
        parser.add_argument(f"--{side}", type=int, nargs="+", default=values, help=about)
    parser.add_argument("--only", type=_numbers, help="the networks of these numbers: 3,17")
    parser.add_argument("--limit", type=int, help="the first so many networks")
    about = "how many torch.compile takes part in, evenly spaced, default 6"
    parser.add_argument("--compiled", type=int, default=6, help=about)
    parser.add_argument("--parity", action="store_true", help="compare with PyTorch, time nothing")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table, sorted, when all is measured."""
    check_arguments(chosen, repeat=1, threads=1, limit=1)
    publish.check_places(chosen)
    facts = machine()
    print(facts, flush=True)
    samples = _samples(chosen)
    _check(samples, chosen.runtime, chosen.threads)
    print(f"\n{many(len(samples), 'network')}: losses and gradients are PyTorch's", flush=True)
    if chosen.parity:
        return
    print(f"training step, {many(chosen.threads, 'thread')}\n\n{HEAD}", flush=True)
    results = []
    for result in _results(samples, chosen):
        results.append(result)
        print(line(result), flush=True)
    print(f"\nsorted, worst first\n\n{table(results)}")
    publish.publish(results, facts, chosen)


def _samples(chosen: argparse.Namespace) -> Sequence[Sample]:
    sides = {side: getattr(chosen, side) for side in GRID}
    every = grid_models(sides) if chosen.grid else sample_models()
    kept = [s for s in every if chosen.only is None or s.number in chosen.only][: chosen.limit]
    if not kept:
        most = max(s.number for s in every)
        raise CompileError(f"--only: no such network: their numbers are 0 to {most}")
    return kept


def _check(samples: Sequence[Sample], runtime: str, threads: int) -> None:
    """Parted at the first network that gemmc and PyTorch do not compute alike."""
    for sample in samples:
        print(f"\rparity of network {sample.number} ", end="", file=sys.stderr, flush=True)
        if wrong := check(sample, runtime, threads):
            raise Parted("\n  ".join([f"network {sample.number}, {sample}:", *wrong]))


def _results(samples: Sequence[Sample], chosen: argparse.Namespace) -> Iterator[Result]:
    compiled = spaced(len(samples), chosen.compiled)
    names = (OURS, TUNED, COMPILED) if compiled else (OURS, TUNED)
    with processes(names, chosen.threads) as opened:
        for place, sample in enumerate(samples):
            part = {n: p for n, p in opened.items() if n != COMPILED or place in compiled}
            yield steps.times(_network(sample, chosen), part, chosen)


def _network(sample: Sample, chosen: argparse.Namespace) -> Network:
    facts = {"number": sample.number, "flops": sample.flops, **sample.place}
    made = (sample.model(), sample.data(), sample.batch)
    return Network("grid" if chosen.grid else "sweep", str(sample), *made, chosen.threads, facts)


def spaced(count: int, wanted: int) -> set[int]:
    """So many of `range(count)`, evenly spaced from the first; all if there are fewer."""
    return {place * count // wanted for place in range(wanted)}


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}
