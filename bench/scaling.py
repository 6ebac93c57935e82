"""A training step of the example CNN at batch 128, gemmc on two threads beside one.

python -m gemmc.bench scaling [--threads 2] [--batch 128]
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from .contenders import cnn_data, cnn_task, gemmc_epochs
from .machine import machine
from .rounds import add_arguments as add_turns
from .rounds import compare, rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_turns(parser, rounds=15, seconds=0.25)
    parser.add_argument("--batch", type=int, default=128)


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    print(machine(), flush=True)
    counts = (chosen.threads, 1)
    tasks = {f"{n} threads": cnn_task(chosen.batch, n, chosen.runtime) for n in counts}
    makes = {name: partial(gemmc_epochs, task) for name, task in tasks.items()}
    measured = compare(makes, chosen.rounds, chosen.seconds)
    batches = len(cnn_data()[0]) // chosen.batch
    print(f"\nexample CNN, training step, batch {chosen.batch}\n")
    print(rows(measured.seconds, "ms a step", 1e3 / batches))
    many, one = measured.seconds.values()
    print(f"\n{np.median(one / many):.2f} times as fast on {chosen.threads} threads")
