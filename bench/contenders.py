"""Who trains: gemmc, PyTorch and JAX, each as a function that makes an epoch of training.

All start from the same weights and see the same batches in the same order; the work that is timed
is an epoch. Each returns the mean loss of its epoch, so that a comparison can see that all trained
the same network.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..frontend import datasets
from ..frontend.executable import Executable, compile
from ..frontend.experiments import EXPERIMENTS, fashion_model, spiral_model
from ..frontend.layers import Softmax
from ..frontend.sequential import Sequential
from ..frontend.training import epoch_order
from .rounds import Make, Measured, Work

Data = tuple[np.ndarray, np.ndarray]

CNN_ROWS = 2560  # an epoch: long beside what `fit` does once, short beside a round of JAX
ALIKE = 0.1  # relative: how far first epochs may part, as everyone draws other dropout masks
EAGER = ("torch-eager", "torch-tuned")
TORCH = (*EAGER, "torch-compile")


@dataclass(frozen=True)
class Task:
    """A model, the epoch it trains on, and how it is run."""

    model: Callable[[], Sequential]
    source: Callable[[], Data]
    batch: int
    threads: int
    runtime: str

    def data(self) -> Data:
        """Inputs and labels of an epoch, a whole number of batches."""
        x, y = self.source()
        whole = len(x) // self.batch * self.batch
        return x[:whole], y[:whole]

    def compiled(self, x: np.ndarray) -> Executable:
        """The model, compiled for inputs like x."""
        most = None if self.threads >= (os.cpu_count() or 1) else self.threads
        return compile(self.model(), x.shape[1:], self.batch, self.runtime, most)


def cnn_data() -> Data:
    """2,560 images of Fashion-MNIST [2560, 1, 28, 28] float32, and labels."""
    X, y, _, _ = datasets.fashion_mnist(subset=True)
    return X[:CNN_ROWS].astype(np.float32) / 255, y[:CNN_ROWS]


def spiral_data() -> Data:
    """The training rows of the spiral experiment [5600, 2], and labels."""
    split = EXPERIMENTS["spiral"].load(0, False)
    return split[0], split[3]


def cnn_task(batch: int, threads: int, runtime: str) -> Task:
    """Training of the example CNN."""
    return Task(fashion_model, cnn_data, batch, threads, runtime)


def spiral_task(batch: int, threads: int, runtime: str) -> Task:
    """Training of the spiral's MLP."""
    return Task(spiral_model, spiral_data, batch, threads, runtime)


def layers_of(model: Sequential) -> list[tuple[str, dict[str, Any]]]:
    """The layers by name and arguments, as PyTorch needs them: its loss takes logits."""
    kept = model.layers[:-1] if isinstance(model.layers[-1], Softmax) else model.layers
    return [(type(layer).__name__, layer.arguments()) for layer in kept]


def trainers(task: Task, names: tuple[str, ...] = ()) -> dict[str, Make]:
    """The contenders called `names`, or all whose packages are there; JAX's absence is told."""
    makes: dict[str, Make] = {
        "gemmc": partial(gemmc_epochs, task),
        "gemmc train_step": partial(gemmc_steps, task),
        **{name: partial(torch_epochs, name, task) for name in TORCH},
        "jax": partial(jax_epochs, task),
    }
    if importlib.util.find_spec("jax") is None:
        print("jax is not installed and left out: pip install jax")
        del makes["jax"]
    return {name: make for name, make in makes.items() if not names or name in names}


def gemmc_epochs(task: Task) -> Work:
    """gemmc as training runs: an epoch is one call of `fit`."""
    x, y = task.data()
    executable = task.compiled(x)
    return lambda: executable.fit(x, y, epochs=1).loss[0]


def gemmc_steps(task: Task) -> Work:
    """gemmc called step by step, batches gathered by the caller."""
    x, y = task.data()
    executable = task.compiled(x)

    def epoch(order: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(order), task.batch):
            rows = order[start : start + task.batch]
            total += executable.train_step(x[rows], y[rows]) * len(rows)
        return total / len(order)

    return _in_order(epoch, executable.model.seed, len(x))


def torch_epochs(variant: str, task: Task) -> Work:
    """PyTorch, in one of the ways of `torch_training`."""
    import torch  # an extra: only this contender needs it

    from .torch_training import VARIANTS, network

    torch.set_num_threads(task.threads)
    model, (x, y) = task.model(), task.data()
    net = network(layers_of(model), model.state_dict())
    epoch = VARIANTS[variant](net, torch.from_numpy(x), torch.from_numpy(y), task.batch)
    return _in_order(epoch, model.seed, len(x))


def jax_epochs(task: Task) -> Work:
    """JAX: the whole epoch is one compiled scan."""
    os.environ["NPROC"] = str(task.threads)  # the size of XLA's pool; read when it is imported
    from .jax_training import scanned

    model, (x, y) = task.model(), task.data()
    epoch = scanned(layers_of(model), model.state_dict(), x, y, task.batch)
    return _in_order(epoch, model.seed, len(x))


def check_alike(measured: Measured) -> None:
    """Stops if a contender's first epoch went otherwise than gemmc's."""
    ours = measured.first["gemmc"]
    for name, theirs in measured.first.items():
        if not abs(theirs - ours) <= ALIKE * ours:
            raise SystemExit(
                f"{name}: the first epoch's mean loss is {theirs:.4f}, gemmc's {ours:.4f}: they do "
                "not train the same network"
            )


def _in_order(epoch: Callable[[np.ndarray], float], seed: int, rows: int) -> Work:
    """Epochs over rows in the orders in which `fit` sees them."""
    numbers = itertools.count()
    return lambda: epoch(epoch_order(seed, next(numbers), rows))
