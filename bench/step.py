"""A training step of the example CNN and of the spiral's MLP, gemmc beside PyTorch and JAX.

    python -m gemmc.bench step [--model cnn|spiral] [--batch 32 128 256] [--contenders NAME ...]

`gemmc` and the others train whole epochs (`fit`); the time of a step is the epoch's, divided by its
batches. `gemmc train_step` is the same network called a batch at a time. `best torch` is, in each
round, the fastest of the three ways of training with PyTorch.
"""

from __future__ import annotations

import argparse

import numpy as np

from .contenders import TORCH, Task, check_alike, cnn_task, spiral_task, trainers
from .machine import NEEDS_TORCH, machine
from .rounds import add_arguments as add_turns
from .rounds import compare, rows

NEEDS = NEEDS_TORCH
TASKS = {"cnn": (cnn_task, "example CNN"), "spiral": (spiral_task, "spiral MLP")}
BATCHES = {"cnn": (32, 128, 256), "spiral": (32,)}
NAMES = ("gemmc train_step", *TORCH, "jax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_turns(parser, rounds=15, seconds=0.25)
    parser.add_argument("--model", choices=TASKS, help="default: both")
    parser.add_argument("--batch", type=int, nargs="+", help="default: 32, 128, 256; spiral 32")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, help="beside gemmc; default all")
    parser.add_argument("--profile", action="store_true", help="say where gemmc's time goes")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its tables."""
    print(machine(), flush=True)
    for name in [chosen.model] if chosen.model else TASKS:
        make, title = TASKS[name]
        for batch in chosen.batch or BATCHES[name]:
            print(f"\n{title}, training step, batch {batch}, {chosen.threads} threads", flush=True)
            task = make(batch, chosen.threads, chosen.runtime)
            print(f"\n{_table(task, chosen)}", flush=True)
            if chosen.profile:
                print(f"\n{_profile(task)}", flush=True)


def _table(task: Task, chosen: argparse.Namespace) -> str:
    names = ("gemmc", *chosen.contenders) if chosen.contenders else ()
    measured = compare(trainers(task, names), chosen.rounds, chosen.seconds)
    check_alike(measured)
    seconds = dict(measured.seconds)
    if torches := [seconds[name] for name in TORCH if name in seconds]:
        seconds["best torch"] = np.min(torches, axis=0)
    batches = len(task.data()[0]) // task.batch
    return rows(seconds, "ms a step", 1e3 / batches)


def _profile(task: Task) -> str:
    x, y = (array[: task.batch] for array in task.data())
    return task.compiled(x).profile(x, y, repeat=50).by_layer()
