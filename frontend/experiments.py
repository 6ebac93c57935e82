"""Two experiments: data, models and protocol, for the command line and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..ir import CompileError
from . import datasets
from .executable import compile
from .layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Softmax
from .losses import CrossEntropyLoss
from .module import Module
from .optimizers import Adam
from .sequential import Sequential

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Experiment:
    """A model and its data: `load(seed, subset)` gives it split into 70, 15 and 15%."""

    name: str
    title: str
    input_shape: tuple[int, ...]
    classes: int
    epochs: int
    model: Callable[[int], Sequential]
    load: Callable[[int, bool], Split]


def spiral_model(seed: int = 0) -> Sequential:
    """The network for the spiral of 8 classes."""
    layers = [Linear(2, 32), ReLU(), Linear(32, 16), ReLU(), Linear(16, 8), Softmax()]
    return _trained_by_adam(layers, seed)


def fashion_model(seed: int = 0) -> Sequential:
    """The convolutional network for Fashion-MNIST."""
    layers = [
        *(Conv2d(1, 16, kernel_size=3, padding=1), ReLU(), MaxPool2d(kernel_size=2)),
        *(Conv2d(16, 32, kernel_size=3, padding=1), ReLU(), MaxPool2d(kernel_size=2)),
        *(Flatten(), Linear(1568, 128), ReLU(), Dropout(), Linear(128, 10), Softmax()),
    ]
    return _trained_by_adam(layers, seed)


def trained_on(experiment: Experiment, subset: bool) -> str:
    """What a model's note "trained on" says: "spiral, all rows"."""
    return f"{experiment.name}, {'the subset' if subset else 'all rows'}"


def find(name: str) -> Experiment:
    """The experiment called `name`; CompileError lists those there are."""
    if name not in EXPERIMENTS:
        raise CompileError(f"experiment: got {name!r}, expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def fitting(model: Sequential) -> Experiment:
    """The experiment whose images or points a model takes; CompileError if it fits none."""
    for experiment in EXPERIMENTS.values():
        try:
            executable = compile(model, experiment.input_shape)
        except CompileError:
            continue
        if executable.output_type.shape[1:] == (experiment.classes,):
            return experiment
    raise CompileError(f"model: fits the data of none of {', '.join(EXPERIMENTS)}")


def _trained_by_adam(layers: list[Module], seed: int) -> Sequential:
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-3), seed=seed)


def _spiral(seed: int, subset: bool) -> Split:
    points = 200 if subset else 1000
    return datasets.train_val_test_split(*datasets.spiral(points, classes=8, seed=seed), seed=seed)


def _fashion(seed: int, subset: bool) -> Split:
    X_train, y_train, X_test, y_test = datasets.fashion_mnist(subset=subset)
    X, y = np.concatenate([X_train, X_test]), np.concatenate([y_train, y_test])
    del X_train, X_test  # 55 MB that the split need not stand beside
    return datasets.train_val_test_split(X, y, seed=seed)


EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment("spiral", "8 spiral arms of 1,000 points", (2,), 8, 100, spiral_model, _spiral),
        Experiment(
            "fashion-mnist", "images of clothes", (1, 28, 28), 10, 10, fashion_model, _fashion
        ),
    )
}
