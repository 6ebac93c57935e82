"""A training step of the example CNN, gemmc beside PyTorch eager, and where gemmc's time goes.

    python -m gemmc.bench step [--batch 32] [--rounds 15] [--steps 40]

Both run in processes of their own with the same initial weights and the same batch, take turns
(A B A B), and are warmed up first. The figure is the median over rounds of the ratio of their times
in that round, with the interval that holds the median with 95% confidence.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from ..frontend import datasets
from ..frontend.executable import compile
from ..frontend.experiments import fashion_model

Make = Callable[[int, int | None], Callable[[], object]]

WARM_UP = 30  # steps: PyTorch's allocator and both BLAS's thread pools have settled by then
HELD_BACK = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40, help="steps a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its tables."""
    print(machine(), flush=True)
    contenders = {
        "gemmc": Contender(_gemmc_steps, chosen.batch, None),
        "gemmc, all cores": Contender(_gemmc_steps, chosen.batch, chosen.threads),
        "torch eager": Contender(_torch_steps, chosen.batch, chosen.threads),
    }
    times = {name: np.zeros(chosen.rounds) for name in contenders}
    for turn in range(-1, chosen.rounds):  # round -1 warms up
        for name, contender in contenders.items():
            seconds = contender.run(WARM_UP if turn < 0 else chosen.steps)
            if turn >= 0:
                times[name][turn] = 1e3 * seconds / chosen.steps
    for contender in contenders.values():
        contender.close()
    print(f"\nexample CNN, training step, batch {chosen.batch}, {chosen.rounds} rounds\n")
    for name, ms in times.items():
        low, high = np.percentile(ms, (25, 75))
        print(f"{name:<17} {np.median(ms):7.2f} ms a step (quartiles {low:.2f} to {high:.2f})")
    for name in list(times)[:-1]:
        ratios = times[name] / times["torch eager"]
        low, high = median_interval(ratios)
        interval = f"95% interval {low:.2f} to {high:.2f}"
        print(f"{name} / torch eager: {np.median(ratios):.2f} times ({interval})")
    print(f"\n{_profile(chosen.batch)}")


def machine() -> str:
    """The machine and libraries a figure belongs to, and what holds them back."""
    blas = np.__config__.show(mode="dicts")["Build Dependencies"]["blas"]
    held = [f"{k}={os.environ[k]}" for k in HELD_BACK if k in os.environ]
    return "\n".join(
        [
            f"cpu     {_cpu_name()}, {os.cpu_count()} cores, {platform.machine()}",
            f"python  {platform.python_version()}, numpy {np.__version__}, {blas.get('name')}",
            f"environment  {' '.join(held) or 'nothing that holds BLAS back'}",
        ]
    )


def median_interval(samples: np.ndarray) -> tuple[float, float]:
    """The order statistics that enclose the median with 95% confidence, from the binomial."""
    ordered, n = np.sort(samples), len(samples)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    return float(ordered[max(k - 1, 0)]), float(ordered[min(n - k, n - 1)])


class Contender:
    """A process that runs training steps when asked and says how long they took."""

    def __init__(self, make: Make, batch: int, threads: int | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share thread pools
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, make, batch, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def run(self, steps: int) -> float:
        """The seconds that `steps` steps took."""
        self._pipe.send(steps)
        return float(self._pipe.recv())

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send(0)
        self._process.join()


def _serve(pipe: Connection, make: Make, batch: int, threads: int | None) -> None:
    step = make(batch, threads)
    while steps := pipe.recv():
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(time.perf_counter() - begin)


def _batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    X, y, _, _ = datasets.fashion_mnist(subset=True)
    return X[:rows].astype(np.float32) / 255, y[:rows]


def _gemmc_steps(batch: int, threads: int | None) -> Callable[[], object]:
    executable = compile(fashion_model(), (1, 28, 28), batch, "blas", threads)
    images, labels = _batch(batch)
    x, y = executable.checked("x", images, "y", labels)
    order = np.arange(batch)
    return lambda: executable.step(x, y, order)


def _torch_steps(batch: int, threads: int | None) -> Callable[[], object]:
    import torch  # an extra: only this contender needs it
    from torch import nn

    torch.set_num_threads(threads or 1)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)),
    )
    weights = fashion_model().state_dict()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    x, y = map(torch.from_numpy, _batch(batch))

    def step() -> float:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def _profile(batch: int) -> str:
    executable = compile(fashion_model(), (1, 28, 28), batch, runtime="blas")
    return executable.profile(*_batch(batch), repeat=50).by_layer()


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"
