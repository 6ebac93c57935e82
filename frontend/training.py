"""Training over epochs: the loop, its history, and the functions people call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..ir import CompileError
from ..runtime.work import CALL_SECONDS
from .arguments import integer
from .batches import Batches, row_shape
from .progress import Interrupt, Progress, interruptible
from .sequential import Sequential

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .executable import Executable

Data = tuple[Batches, Batches]


@dataclass
class History:
    """What `fit` saw: an entry an epoch in each list, and the seconds it all took.

    loss and accuracy are means over the epoch's samples, measured while training (dropout on).
    Without validation data val_loss and val_accuracy stay empty. `interrupted` says that Ctrl-C
    ended training, at a step boundary: the lists hold the epochs that were completed.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def last(self) -> str:
        """The latest epoch in words."""
        text = f"loss {self.loss[-1]:.4f}, accuracy {self.accuracy[-1]:.4f}"
        if self.val_loss:
            val = self.val_loss[-1], self.val_accuracy[-1]
            text += f", val loss {val[0]:.4f}, val accuracy {val[1]:.4f}"
        return text

    def brief(self) -> str:
        """The latest epoch in a few columns."""
        text = f"loss {self.loss[-1]:.3f}, accuracy {self.accuracy[-1]:.1%}"
        if self.val_loss:
            text += f"; val {self.val_loss[-1]:.3f}, {self.val_accuracy[-1]:.1%}"
        return text

    def plot(self, axes: Sequence[Axes] | None = None) -> list[Axes]:
        """Draws loss and accuracy by epoch, as `figures.plot_history` does: two Axes."""
        from .figures import plot_history  # figures know histories, and matplotlib is an extra

        return plot_history(self, axes)


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch number `epoch` of a model with `seed` sees n rows: [n] int64."""
    given = {"seed": seed, "epoch": epoch, "n": n}
    seed, epoch, n = (integer("epoch_order", name, v, least=0) for name, v in given.items())
    return np.random.default_rng([seed, epoch]).permutation(n)


def train_val(
    model: Sequential,
    X_train: object,
    y_train: object,
    X_val: object,
    y_val: object,
    epochs: int = 100,
    batch_size: int = 32,
    verbose_freq: int = 10,
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Trains and validates; (train losses, train accuracies, val losses, val accuracies), by epoch.

    On a terminal there is a progress bar, elsewhere a line every verbose_freq epochs; 0 is silent.
    Ctrl-C ends training at a step boundary and returns the lists so far; the model stays usable.
    """
    from .executable import compile  # executables train with this module

    integer("train_val", "epochs", epochs, least=0)
    integer("train_val", "verbose_freq", verbose_freq, least=0)
    executable = compile(_checked_model(model), row_shape("X_train", X_train), batch_size)
    train = executable.checked("X_train", X_train, "y_train", y_train)
    val = executable.checked("X_val", X_val, "y_val", y_val)
    history = fit(executable, train, val, epochs, True, verbose_freq)
    return history.loss, history.accuracy, history.val_loss, history.val_accuracy


def test(model: Sequential, X_test: object, y_test: object) -> tuple[float, float]:
    """(mean loss, accuracy) of a model on test data, in evaluation mode."""
    from .executable import compile  # executables train with this module

    executable = compile(_checked_model(model), row_shape("X_test", X_test), TEST_ROWS)
    return executable.evaluate_checked(*executable.checked("X_test", X_test, "y_test", y_test))


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
TEST_ROWS = 128  # rows at a time: enough to fill the BLAS, few enough to stay in cache


def fit(
    executable: Executable, train: Data, val: Data | None, epochs: int, shuffle: bool, verbose: int
) -> History:
    """The loop behind `Executable.fit`, on checked data."""
    model, history, begin = executable.model, History(), time.perf_counter()
    rows = len(train[0])
    progress = Progress(epochs, -(-rows // executable.batch_size), verbose)
    with closing(progress), interruptible() as interrupt:
        for epoch in range(epochs):
            order = epoch_order(model.seed, model.state.epoch, rows) if shuffle else np.arange(rows)
            result = _train_epoch(executable, train, order, progress, interrupt)
            if result is None:
                history.interrupted = True
                break
            model.state.epoch += 1
            history.loss.append(result[0])
            history.accuracy.append(result[1])
            if val is not None:
                loss, accuracy = executable.evaluate_checked(*val)
                history.val_loss.append(loss)
                history.val_accuracy.append(accuracy)
            history.seconds = time.perf_counter() - begin
            progress.epoch(epoch + 1, history)
    return history


def _train_epoch(
    executable: Executable,
    train: Data,
    order: np.ndarray,
    progress: Progress,
    interrupt: Interrupt,
) -> tuple[float, float] | None:
    """(mean loss, accuracy) of an epoch; None if Ctrl-C ended it early, at a step boundary."""
    loss = right = 0.0
    size, turn = executable.batch_size, 1  # batches in a call
    start = 0
    while start < len(order):
        if interrupt.requested:
            return None
        rows = order[start : start + turn * size]
        begin = time.perf_counter()
        summed, correct = executable.steps(*train, rows)
        seconds = time.perf_counter() - begin
        loss += summed
        right += correct
        start += len(rows)
        progress.step(-(-len(rows) // size))
        turn = max(1, min(4 * turn, int(turn * CALL_SECONDS / max(seconds, 1e-9))))
    return loss / len(order), right / len(order)


def _checked_model(model: object) -> Sequential:
    if not isinstance(model, Sequential):
        raise CompileError(f"model: got {type(model).__name__}, expected a Sequential")
    return model
