"""gemmc, as its users call it: epochs in few calls, or step by step."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ...frontend import layers, losses, optimizers
from ...frontend.executable import Executable, compile
from ...frontend.model_file import definitions
from ...frontend.sequential import Sequential
from ..process import Named, Task, Trainer


def make(name: str, task: Task) -> Trainer:
    """`gemmc`, or `gemmc-steps`: batches gathered by the caller."""
    return {"gemmc": Epochs, "gemmc-steps": Steps}[name](task)


def model_of(task: Task) -> Sequential:
    """The model of a task, with its weights."""
    known = {**vars(layers), **vars(losses), **vars(optimizers)}
    if task.source:
        known = {**definitions(task.source), **known}

    def made(named: Named) -> Any:
        return known[named[0]](**named[1])

    model = Sequential(
        [made(n) for n in task.layers], made(task.loss), made(task.optimizer), task.seed
    )
    model.load_state_dict(task.weights)
    return model


def compiled(task: Task) -> Executable:
    """The model of a task, compiled; on all cores gemmc may choose fewer by itself."""
    most = None if task.threads >= (os.cpu_count() or 1) else task.threads
    shape = task.data["x"].shape[1:]
    return compile(model_of(task), shape, task.batch, task.runtime, most)


class Epochs:
    """An epoch is what `fit` makes of one: a few calls of native code."""

    def __init__(self, task: Task) -> None:
        self.executable = compiled(task)
        self.task = task
        self.data = self.executable.checked("x", task.data["x"], "y", task.data["y"])

    def epoch(self, order: np.ndarray) -> float:
        return self.executable.steps(*self.data, order)[0] / len(order)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        return self.executable.evaluate(x, y)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.executable(x)


class Steps(Epochs):
    """`train_step` for every batch."""

    def epoch(self, order: np.ndarray) -> float:
        x, y, size = self.task.data["x"], self.task.data["y"], self.task.batch
        total = 0.0
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            total += self.executable.train_step(x[rows], y[rows]) * len(rows)
        return total / len(order)
