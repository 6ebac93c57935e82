"""The models that `gemmc bench` knows by name, and those in a user's file, as tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..frontend import layers, losses, optimizers
from ..frontend.datasets import train_val_test_split
from ..frontend.experiments import EXPERIMENTS, Split, fashion_model, spiral_model
from ..frontend.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Softmax
from ..frontend.losses import CrossEntropyLoss
from ..frontend.model_file import named_object
from ..frontend.module import Module
from ..frontend.optimizers import Adam
from ..frontend.sequential import Sequential
from ..frontend.trace import output_type
from ..ir import CompileError, DataError
from .process import SPLIT, Named, Task, floats

Arrays = Mapping[str, np.ndarray]
RANDOM_ROWS = 2048  # of made-up data, and at most of a timed epoch, for a model in a file
BUILT_IN = {**vars(layers), **vars(losses), **vars(optimizers)}


@dataclass(frozen=True)
class Benchmark:
    """A model and its data, and how much of it is trained.

    `rows` is how many of a timed epoch: long beside what starting one takes, short beside a round.
    `epochs` and `runs` are chosen so that PyTorch, compiled and not, trains in two minutes on two
    cores; 0 epochs where there is nothing to learn.
    """

    title: str
    model: Callable[[int], Sequential]
    data: Callable[[int], Arrays]
    rows: int
    epochs: int
    runs: int = 1
    source: str = ""


def find(name: str, input_shape: tuple[int, ...] | None, file: Path | None) -> Benchmark:
    """The benchmark called `name`, or of the model that FILE.py:NAME names.

    Such a model is given the arrays X and y of an npz file, split as experiments are, or, without
    a file, random ones [2048, *input_shape], which nothing is to be learnt from.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    found = named_object(name, BENCHMARKS)
    if not isinstance(found, Sequential):
        raise CompileError(f"{name}: got {type(found).__name__}, expected a Sequential")
    if found.loss_func is None or found.optimizer is None:
        raise CompileError(f"{name}: has no loss_func and optimizer, which training needs")
    data = _random(found, input_shape) if file is None else _from_file(file)
    shape = data["x"].shape[1:]
    output_type(found, shape)  # CompileError if they do not fit
    source, epochs = str(Path(name.rpartition(":")[0]).resolve()), 0 if file is None else 10
    rows = min(len(data["x"]), RANDOM_ROWS)
    return Benchmark(name, lambda seed: found, lambda seed: data, rows, epochs, source=source)


def task_of(
    model: Sequential, data: Arrays, mode: str = "train", dropout: bool = True, **settings: Any
) -> Task:
    """A model and its data as a task for contenders.

    `settings` are batch, threads, rows, runtime and source, as `Task` has them. DataError if an
    argument of a layer cannot be written down.
    """
    assert model.loss_func is not None and model.optimizer is not None
    described = tuple(_named(layer, dropout) for layer in model.layers)
    optimizer = _named(model.optimizer)
    weights, seed = model.state_dict(), model.seed
    calls = {"x": floats(data["x"][: settings["batch"]]), "y": data["y"][: settings["batch"]]}
    arrays = dict(data) if mode == "train" else calls
    return Task(
        mode, described, _named(model.loss_func), optimizer, weights, arrays, seed=seed, **settings
    )


def is_known(task: Task) -> bool:
    """Whether peers can make the model: all its parts are gemmc's own."""
    return all(name in BUILT_IN for name, _ in (*task.layers, task.loss, task.optimizer))


def _named(part: Any, dropout: bool = True) -> Named:
    name, arguments = type(part).__name__, dict(part.arguments())
    if name == "Dropout" and not dropout:
        arguments["p"] = 0.0
    if name == "Conv2d":
        arguments["padding"] = _sizes(arguments["padding"], arguments["kernel_size"])
    try:
        json.dumps(arguments)
    except TypeError as error:
        raise DataError(f"{name}: an argument cannot be written down: {error}") from error
    return name, arguments


def _sizes(padding: Any, kernel: tuple[int, ...]) -> Any:
    """A padding in words as sizes; "same" of an even kernel has none."""
    if padding == "valid":
        return (0, 0)
    if padding == "same" and all(k % 2 for k in kernel):
        return tuple(k // 2 for k in kernel)
    return padding


def _random(model: Sequential, shape: tuple[int, ...] | None) -> Arrays:
    """Normal inputs with random labels, or normal targets."""
    if shape is None:
        raise CompileError("--input-shape: missing, expected the shape of one sample: 1,28,28")
    rng, output = np.random.default_rng(model.seed), output_type(model, shape).concrete(RANDOM_ROWS)
    x = rng.standard_normal((RANDOM_ROWS, *shape), np.float32)
    if isinstance(model.loss_func, CrossEntropyLoss):
        return {"x": x, "y": rng.integers(0, output[-1], RANDOM_ROWS)}
    return {"x": x, "y": rng.standard_normal(output, np.float32)}


def _from_file(file: Path) -> Arrays:
    """X and y of an npz file, split into 70, 15 and 15%."""
    try:
        with np.load(file) as arrays:
            X, y = arrays["X"], arrays["y"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"--data: {file}: expected an npz file with X and y: {error}") from error
    return _by_name(train_val_test_split(X, y))


def _by_name(split: Split) -> Arrays:
    X_train, X_val, X_test, y_train, y_val, y_test = split
    return dict(zip(SPLIT, (X_train, y_train, X_val, y_val, X_test, y_test), strict=True))


def _experiment(name: str, subset: bool = False) -> Callable[[int], Arrays]:
    return lambda seed: _by_name(EXPERIMENTS[name].load(seed, subset))


def _classifier(*made: Module) -> Callable[[int], Sequential]:
    return lambda seed: Sequential(list(made), CrossEntropyLoss(), Adam(lr=1e-3), seed)


def _conv(c: int, o: int) -> tuple[Module, Module]:
    return Conv2d(c, o, kernel_size=3, padding=1), ReLU()


MLP = _classifier(
    Flatten(), Linear(784, 256), ReLU(), Linear(256, 128), ReLU(), Linear(128, 10), Softmax()
)
# LeCun et al. 1998, with ReLU and max-pools, as it is written today.
LENET = _classifier(
    *(Conv2d(1, 6, kernel_size=5, padding=2), ReLU(), MaxPool2d(kernel_size=2)),
    *(Conv2d(6, 16, kernel_size=5), ReLU(), MaxPool2d(kernel_size=2)),
    *(Flatten(), Linear(400, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10), Softmax()),
)
# Simonyan and Zisserman 2015, three blocks of it, for images of 28 x 28.
VGG = _classifier(
    *(*_conv(1, 32), *_conv(32, 32), MaxPool2d(kernel_size=2)),
    *(*_conv(32, 64), *_conv(64, 64), MaxPool2d(kernel_size=2)),
    *(*_conv(64, 128), *_conv(128, 128), MaxPool2d(kernel_size=2)),
    *(Flatten(), Linear(1152, 256), ReLU(), Linear(256, 10), Softmax()),
)
_subset = _experiment("fashion-mnist", subset=True)
BENCHMARKS = {
    "spiral": Benchmark(
        "spiral, MLP", spiral_model, _experiment("spiral"), rows=5600, epochs=100, runs=3
    ),
    "fashion-mnist": Benchmark(
        "Fashion-MNIST, example CNN", fashion_model, _experiment("fashion-mnist"), 2560, epochs=2
    ),
    "mlp": Benchmark("Fashion-MNIST's subset, MLP", MLP, _subset, rows=4900, epochs=10),
    "lenet": Benchmark("Fashion-MNIST's subset, LeNet-5", LENET, _subset, rows=2560, epochs=5),
    "vgg": Benchmark("Fashion-MNIST's subset, small VGG", VGG, _subset, rows=640, epochs=1),
}
