"""The process of a contender, told what to do line by line: a list in JSON, `[verb, argument]`.

    python -P process.py MODULE NAME

Imports NumPy and what MODULE does, alone, so that a peer's time to start and its memory are its
own: nothing of gemmc is loaded but by gemmc's contender. MODULE is a file, or the name of a module;
its `make(name, task)` returns the `Trainer` of a contender that it knows.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Named = tuple[str, Mapping[str, Any]]  # of a class, and its constructor's arguments
SPLIT = ("x", "y", "x_val", "y_val", "x_test", "y_test")


@dataclass(frozen=True)
class Task:
    """A model with its first weights, its data, and how it is run.

    Names of classes, arguments and weights are gemmc's, which are PyTorch's. `x` is uint8 images,
    to be scaled by 1/255, or float32. `rows` is how many of them a timed epoch has.
    """

    mode: str  # "train" or "infer"
    layers: tuple[Named, ...]
    loss: Named
    optimizer: Named
    weights: Mapping[str, np.ndarray]
    data: Mapping[str, np.ndarray]  # by SPLIT; those of validation and test may be missing
    batch: int
    threads: int
    seed: int
    rows: int
    runtime: str = "auto"  # of gemmc
    source: str = ""  # the file with the classes that gemmc does not have

    @property
    def logit_layers(self) -> tuple[Named, ...]:
        """The layers without a Softmax at the end: PyTorch's cross-entropy takes logits."""
        return self.layers[:-1] if self.has_softmax else self.layers

    @property
    def has_softmax(self) -> bool:
        """Whether the last layer is one."""
        return self.layers[-1][0] == "Softmax"

    @property
    def pieces(self) -> int:
        """The steps or calls that a piece of timed work has: an epoch's batches, or one."""
        return -(-self.rows // self.batch) if self.mode == "train" else 1

    def only(self, *names: str) -> None:
        """NotImplementedError unless loss and optimiser are among `names`: others are unknown."""
        for kind, (name, _) in (("loss", self.loss), ("optimiser", self.optimizer)):
            if name not in names:
                raise NotImplementedError(f"no {kind} {name}")

    def with_sizes(self) -> tuple[Named, ...]:
        """The layers, if all paddings are sizes; else NotImplementedError: they are in words."""
        for _, arguments in self.layers:
            if isinstance(arguments.get("padding"), str):
                raise NotImplementedError(f"no padding {arguments['padding']!r} of an even kernel")
        return self.layers

    def save(self, path: str | Path) -> None:
        """Writes it as an npz file."""
        fields = {k: v for k, v in vars(self).items() if k not in ("weights", "data")}
        arrays: dict[str, Any] = {f"weights/{k}": v for k, v in self.weights.items()}
        arrays |= {f"data/{k}": v for k, v in self.data.items()}
        np.savez(path, fields=json.dumps(fields), **arrays)


class Trainer(Protocol):
    """What a contender makes of a task. Arrays are NumPy's, the data's as they are in the task."""

    def epoch(self, order: np.ndarray) -> float:
        """Trains on these rows of "x", batch by batch; the mean loss over the rows."""

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """(mean loss, accuracy) of the trained model, dropout off."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The model's output, dropout off, at most `batch` rows."""


def read(path: str | Path) -> Task:
    """The task that `save` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    fields: dict[str, Any] = json.loads(str(arrays.pop("fields")))
    for kind in ("weights", "data"):
        own = [key for key in arrays if key.startswith(f"{kind}/")]
        fields[kind] = {key.removeprefix(f"{kind}/"): arrays[key] for key in own}
    return Task(**fields)


def floats(x: np.ndarray) -> np.ndarray:
    """Inputs as float32: uint8 images are scaled by 1/255."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """`gemmc.frontend.training.epoch_order`, without gemmc."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class Worker:
    """What answers: each public method is a verb, and what it returns is JSON."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module_of(module), name

    def load(self, path: str) -> None:
        """Reads the task in a file."""
        self._trainer: Trainer | None = None  # what the last one holds is free before the next
        self._task = read(path)

    def make(self) -> None:
        """Makes the model of the task, with its first weights."""
        self._trainer, self._epoch = self._module.make(self._name, self._task), 0

    def losses(self, start: int, stop: int) -> list[float]:
        """The losses of steps `start` to `stop` of training, one by one."""
        task, n = self._task, len(self._task.data["x"])
        rows = np.resize(epoch_order(task.seed, 0, n), (stop, task.batch))  # small data, again
        return [self._made.epoch(batch) for batch in rows[start:]]

    def outputs(self) -> list[list[float]]:
        """What the model, as it is, says to a batch."""
        return self._made.predict(self._task.data["x"][: self._task.batch]).tolist()

    def run(self, times: int) -> float:
        """The seconds of so many epochs, or calls, of the task."""
        calls = partial(self._made.predict, self._task.data["x"][: self._task.batch])
        work: Callable[[], object] = self._one_epoch if self._task.mode == "train" else calls
        begin = time.perf_counter()
        for _ in range(times):
            work()
        return time.perf_counter() - begin

    def train(self, epochs: int) -> dict[str, list[float]]:
        """Trains on all rows, with a validation after every epoch: the history."""
        data = self._task.data
        history: dict[str, list[float]] = {"loss": [], "val_loss": [], "val_accuracy": []}
        for epoch in range(epochs):
            order = epoch_order(self._task.seed, epoch, len(data["x"]))
            history["loss"].append(self._made.epoch(order))
            if "x_val" in data:
                loss, accuracy = self._made.evaluate(data["x_val"], data["y_val"])
                history["val_loss"].append(loss)
                history["val_accuracy"].append(accuracy)
        return history

    def test(self) -> list[float | None]:
        """[mean loss, accuracy] on the test data."""
        tested = self._made.evaluate(self._task.data["x_test"], self._task.data["y_test"])
        return [v if math.isfinite(v) else None for v in tested]

    def plane(self, extent: list[float], points: int) -> list[list[int]]:
        """The class of each of points x points in a rectangle: left, right, bottom, top."""
        left, right, bottom, top = extent
        xs = np.linspace(left, right, points, dtype=np.float32)
        ys = np.linspace(bottom, top, points, dtype=np.float32)
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        size = self._task.batch
        said = [self._made.predict(grid[i : i + size]) for i in range(0, len(grid), size)]
        return np.concatenate(said).argmax(1).reshape(points, points).tolist()

    def pieces(self) -> int:
        """The steps, or calls, that `run` makes each time."""
        return self._task.pieces

    def peak(self) -> int:
        """The most bytes this process has had resident so far."""
        return peak_memory()

    @property
    def _made(self) -> Trainer:
        assert self._trainer is not None, "load comes first"
        return self._trainer

    def _one_epoch(self) -> float:
        order = epoch_order(self._task.seed, self._epoch, self._task.rows)
        self._epoch += 1
        return self._made.epoch(order)


def peak_memory() -> int:
    """The most bytes this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts, on Linux, from the process that spawned this one
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def module_of(named: str) -> Any:
    """The module of contenders in a file, or of a name."""
    if not named.endswith(".py"):
        return importlib.import_module(named)
    spec = importlib.util.spec_from_file_location(Path(named).stem, named)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _serve(module: str, name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    worker = None
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        try:
            worker = worker or Worker(module, name)
            answer = {"value": getattr(worker, verb)(*arguments)}
        except NotImplementedError as error:
            answer = {"unable": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
