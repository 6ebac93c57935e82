"""What comes before the speed: gemmc's imports, compiling and memory, in fresh processes.

    gemmc bench start [--runs 7] [--threads 2]

Every figure is the median over fresh processes. Memory is the most that a process had resident,
Python and all imports among it. How long a model's whole training takes, from process start, is
what `gemmc bench MODEL` says, beside others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from ..frontend.command_line import many
from .compare import first, fresh
from .machine import machine
from .models import find, task_of
from .peers import OURS
from .rounds import add_settings, check_arguments, inherited, saved

BATCH, ROWS = 32, 2560
IMPORT = """
import time, numpy, scipy.linalg, llvmlite.binding
begin = time.perf_counter()
import gemmc
print(time.perf_counter() - begin)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_settings(parser)
    parser.add_argument("--runs", type=int, default=7, help="fresh processes a figure, default 7")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its figures."""
    check_arguments(chosen, runs=1, threads=1)
    print(machine(), flush=True)
    benchmark, threads = find("fashion-mnist", None, None), chosen.threads
    data = {name: array[:ROWS] for name, array in benchmark.data(0).items()}
    settings = {"batch": BATCH, "threads": threads, "rows": ROWS, "runtime": chosen.runtime}
    task = task_of(benchmark.model(0), data, **settings)
    runs = "1 fresh process" if chosen.runs == 1 else f"{chosen.runs} fresh processes"
    print(f"\n{runs} a figure, {many(threads, 'thread')}\n")
    _print("import gemmc, after its libraries", [_import_seconds() for _ in range(chosen.runs)])
    with saved(task) as path, tempfile.TemporaryDirectory() as cache:
        begun = [first(OURS, path, True, threads, cache)[0] for _ in range(chosen.runs)]
        _print("example CNN: compile and first step", [c.compile_seconds[0] for c in begun])
        _print("process start through first step", [c.first_seconds[0] for c in begun])
        with fresh(OURS, threads, cache) as (process, _):
            imported = process.ask("peak")
            process.prepare(path)
            process.ask("losses", 0, 1)
            trained = process.ask("peak")
    print("\npeak resident memory of gemmc\n")
    for title, nbytes in (("imports", imported), ("example CNN, a batch of training", trained)):
        print(f"{title:<36} {nbytes / 1e6:>7.0f} MB")


def _print(title: str, seconds: Sequence[float]) -> None:
    ms = 1e3 * np.array(seconds)
    spread = f"({ms.min():.1f} to {ms.max():.1f})"
    print(f"{title:<36} {np.median(ms):>7.1f} ms {spread}", flush=True)


def _import_seconds() -> float:
    command = [sys.executable, "-c", IMPORT]
    pipe, own = subprocess.PIPE, inherited()
    return float(subprocess.run(command, stdout=pipe, text=True, check=True, env=own).stdout)
