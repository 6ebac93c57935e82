"""What comes before the speed: imports, compiling, short programs as a whole, and memory.

    python -m gemmc.bench start [--runs 7] [--epochs 10] [--subset]

Every figure is the median over fresh processes, which take turns where there are several. The
spiral is timed from the start of the process to its end, on one thread, which is faster than two
for a network of this size; PyTorch's programs import PyTorch and NumPy alone. Memory is the most
that the process had resident, Python and all imports among it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..frontend.executable import compile
from ..frontend.experiments import EXPERIMENTS, fashion_model, spiral_model
from .contenders import EAGER, cnn_data, cnn_task, layers_of
from .experiment import FASHION, Setting, gemmc_experiment
from .machine import NEEDS_TORCH, machine, peak_memory
from .rounds import add_settings, once, rows

NEEDS = NEEDS_TORCH
BATCH, CNN_EPOCHS = 32, 5
SPIRAL_EPOCHS, SPIRAL_THREADS = 100, 1
LEARNED = 0.8  # test accuracy that every trained spiral exceeds
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
    about = "of Fashion-MNIST, for its memory"
    parser.add_argument("--epochs", type=int, default=FASHION.epochs, help=about)
    parser.add_argument("--subset", action="store_true", help="the 7,000 images that ship")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its figures."""
    print(machine(), flush=True)
    threads, runtime = chosen.threads, chosen.runtime
    print(f"\n{chosen.runs} fresh processes a figure, {threads} threads\n")
    _print("import gemmc, after its libraries", [_import_seconds() for _ in range(chosen.runs)])
    first_step = partial(_first_step, threads, runtime)
    times = [once("gemmc", first_step) for _ in range(chosen.runs)]
    _print("example CNN: compile and first step", times)
    print(f"\nspiral, {SPIRAL_EPOCHS} epochs and a test, from process start to end, 1 thread\n")
    print(_spiral_table(chosen.runs, runtime), flush=True)
    print("\npeak resident memory of gemmc\n", flush=True)
    imported, trained = once("gemmc", partial(_cnn_training, threads, runtime))
    given = Setting(0, chosen.epochs, chosen.subset, threads, runtime)
    whole = once("gemmc", partial(gemmc_experiment, given)).peak
    titles = ("imports", "example CNN, training", f"Fashion-MNIST, {chosen.epochs} epochs")
    for title, nbytes in zip(titles, (imported, trained, whole), strict=True):
        print(f"{title:<36} {nbytes / 1e6:>7.0f} MB")


def _print(title: str, seconds: list[float]) -> None:
    ms = 1e3 * np.array(seconds)
    spread = f"({ms.min():.1f} to {ms.max():.1f})"
    print(f"{title:<36} {np.median(ms):>7.1f} ms {spread}", flush=True)


def _import_seconds() -> float:
    return float(_output([sys.executable, "-c", IMPORT]))


def _first_step(threads: int, runtime: str) -> float:
    """Seconds of compiling the CNN and of its first training step."""
    model, (x, y) = fashion_model(), cnn_data()
    begin = time.perf_counter()
    executable = compile(model, x.shape[1:], BATCH, runtime, threads)
    executable.train_step(x[:BATCH], y[:BATCH])
    return time.perf_counter() - begin


def _spiral_table(runs: int, runtime: str) -> str:
    """Seconds of whole processes, in turns; stops if one did not learn."""
    package = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        given = [_spiral_file(Path(folder)), *map(str, (SPIRAL_EPOCHS, BATCH, SPIRAL_THREADS))]
        torch = [sys.executable, "-P", str(package / "torch_training.py")]
        commands = {
            "gemmc": [sys.executable, "-m", "gemmc.bench.spiral", runtime, *given],
            **{name: [*torch, name, *given] for name in EAGER},
        }
        seconds = {name: np.zeros(runs) for name in commands}
        for turn in range(-1, runs):  # turn -1 brings the files into memory
            for name, command in commands.items():
                begin = time.perf_counter()
                loss, accuracy = json.loads(_output(command))
                if turn >= 0:
                    seconds[name][turn] = time.perf_counter() - begin
                if not accuracy > LEARNED:
                    raise SystemExit(f"{name}: test accuracy {accuracy:.1%}, loss {loss:.3f}")
    return rows(seconds, "s", 1.0)


def _spiral_file(folder: Path) -> str:
    """Data, layers and first weights of the spiral in a file: its path."""
    X_train, _, X_test, y_train, _, y_test = EXPERIMENTS["spiral"].load(0, False)
    model, path = spiral_model(), str(folder / "spiral.npz")
    arrays: dict[str, Any] = {"x": X_train, "y": y_train, "x_test": X_test, "y_test": y_test}
    arrays |= model.state_dict()
    np.savez(path, layers=json.dumps(layers_of(model)), **arrays)
    return path


def _cnn_training(threads: int, runtime: str) -> tuple[int, int]:
    """(peak memory before, peak memory after) some epochs of the CNN."""
    before = peak_memory()
    task = cnn_task(BATCH, threads, runtime)
    x, y = task.data()
    task.compiled(x).fit(x, y, epochs=CNN_EPOCHS)
    return before, peak_memory()


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
