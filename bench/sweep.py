"""60 networks, gemmc beside PyTorch (channels last, fused Adam): parity, then time, worst first.

    python -m gemmc.bench sweep [--only 3,17] [--limit 10] [--json FILE] [--parity]

The sample is fixed (`bench/sample.py`). First losses and gradients of every network are compared
with PyTorch's, dropout off, and where they part the sweep stops. Then both train each network in
turns, by epochs. `of torch` is the time of gemmc's step, divided by that of PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .contenders import Task, gemmc_epochs, torch_epochs
from .machine import NEEDS_TORCH, machine
from .parity import check
from .rounds import Contender, measure, median_interval, processes
from .rounds import add_arguments as add_turns
from .sample import Sample, sample_models

NEEDS = NEEDS_TORCH
SMALL = 50e6  # FLOP a step: below it PyTorch's time is mostly overhead
OURS, TORCH = "gemmc", "torch-tuned"
HEAD = "of torch (95% interval)    gemmc ms  torch ms    MFLOP  batch   no  network"


class Row(NamedTuple):
    """What came of one network: medians over the rounds, milliseconds a step."""

    number: int
    network: str
    batch: int
    flops: int
    ratio: float
    low: float
    high: float
    gemmc_ms: float
    torch_ms: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_turns(parser, rounds=9, seconds=0.1)
    parser.add_argument("--only", type=_numbers, help="the networks of these numbers: 3,17")
    parser.add_argument("--limit", type=int, help="the first so many networks")
    parser.add_argument("--parity", action="store_true", help="compare with PyTorch, time nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table, sorted, when all is measured."""
    print(machine(), flush=True)
    samples = sample_models()
    if chosen.only is not None:
        samples = tuple(s for s in samples if s.number in chosen.only)
    samples = samples[: chosen.limit]
    if not samples:
        raise SystemExit("sweep: no such network: their numbers are 0 to 59")
    _check(samples, chosen.runtime, chosen.threads)
    print(f"\n{len(samples)} networks: losses and gradients are PyTorch's", flush=True)
    if chosen.parity:
        return
    print(f"training step, {chosen.threads} threads\n\n{HEAD}", flush=True)
    rows = []
    with processes((OURS, TORCH)) as opened:
        for sample in samples:
            rows.append(_row(sample, opened, chosen))
            print(_text(rows[-1]), flush=True)
    rows.sort(key=lambda row: row.ratio, reverse=True)
    print("\nsorted, worst first\n")
    print("\n".join([HEAD, *map(_text, rows), "", _summary(rows)]))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


def _check(samples: Sequence[Sample], runtime: str, threads: int) -> None:
    """Stops at the first network that gemmc and PyTorch do not compute alike."""
    with processes(("parity",)) as opened:
        for sample in samples:
            print(f"\rparity of network {sample.number} ", end="", file=sys.stderr, flush=True)
            opened["parity"].prepare(partial(partial, check, sample, runtime, threads))
            if wrong := opened["parity"].run()[1]:
                raise SystemExit("\n  ".join([f"\nnetwork {sample.number}, {sample}:", *wrong]))


def _row(sample: Sample, opened: Mapping[str, Contender], chosen: argparse.Namespace) -> Row:
    """Times one network."""
    task = Task(sample.model, sample.data, sample.batch, chosen.threads, chosen.runtime)
    opened[OURS].prepare(partial(gemmc_epochs, task))
    opened[TORCH].prepare(partial(torch_epochs, TORCH, task))
    seconds = measure(opened, chosen.rounds, chosen.seconds).seconds
    ratios = seconds[OURS] / seconds[TORCH]
    ms = (float(1e3 * np.median(seconds[name]) / sample.batches) for name in (OURS, TORCH))
    facts = (sample.number, str(sample), sample.batch, sample.flops)
    return Row(*facts, float(np.median(ratios)), *median_interval(ratios), *ms)


def _text(row: Row) -> str:
    ratio = f"{row.ratio:>8.3f} ({row.low:.3f} to {row.high:.3f})"
    times = f"{row.gemmc_ms:>9.4g} {row.torch_ms:>9.4g} {row.flops / 1e6:>8.1f}"
    return f"{ratio:<26} {times} {row.batch:>6} {row.number:>4}  {row.network}"


def _summary(rows: list[Row]) -> str:
    """The figures that the table is read for."""
    every = np.array([row.ratio for row in rows])
    small = [row.ratio for row in rows if row.flops < SMALL]
    lines = [f"median of all {len(rows)}: {np.median(every):.3f}"]
    if small:
        lines.append(f"median of {len(small)} below 50 MFLOP: {np.median(small):.3f}")
    lines.append(f"worst: {every.max():.3f}, slower than PyTorch: {int((every > 1).sum())}")
    return "\n".join(lines)


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}
