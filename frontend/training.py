"""Training over epochs: the loop, its history, and the functions people call."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..ir import CompileError
from .arguments import integer
from .batches import Batches
from .sequential import Sequential

if TYPE_CHECKING:
    from .executable import Executable

Data = tuple[Batches, Batches]


@dataclass
class History:
    """What `fit` saw: an entry an epoch in each list, and the seconds it all took.

    loss and accuracy are means over the epoch's samples, measured while training (dropout on).
    Without validation data val_loss and val_accuracy stay empty.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch number `epoch` of a model with `seed` sees n rows: [n] int64."""
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
    """
    from .executable import compile  # executables train with this module

    executable = compile(_checked_model(model), _row_shape("X_train", X_train), batch_size)
    history = executable.fit(
        X_train,
        y_train,
        X_val,
        y_val,
        epochs,
        verbose=integer("train_val", "verbose_freq", verbose_freq, 0),
    )
    return history.loss, history.accuracy, history.val_loss, history.val_accuracy


def test(model: Sequential, X_test: object, y_test: object) -> tuple[float, float]:
    """(mean loss, accuracy) of a model on test data, in evaluation mode."""
    from .executable import compile  # executables train with this module

    shape = _row_shape("X_test", X_test)
    return compile(_checked_model(model), shape, TEST_ROWS).evaluate(X_test, y_test)


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
TEST_ROWS = 128  # rows at a time: enough to fill the BLAS, few enough to stay in cache


def fit(
    executable: Executable, train: Data, val: Data | None, epochs: int, shuffle: bool, verbose: int
) -> History:
    """The loop behind `Executable.fit`, on checked data."""
    model, history, begin = executable.model, History(), time.perf_counter()
    rows = len(train[0])
    with _reporter(epochs, verbose) as report:
        for epoch in range(epochs):
            order = epoch_order(model.seed, model.state.epoch, rows) if shuffle else np.arange(rows)
            loss, accuracy = _train_epoch(executable, train, order)
            model.state.epoch += 1
            history.loss.append(loss)
            history.accuracy.append(accuracy)
            if val is not None:
                loss, accuracy = executable.evaluate_checked(*val)
                history.val_loss.append(loss)
                history.val_accuracy.append(accuracy)
            history.seconds = time.perf_counter() - begin
            report(epoch + 1, history)
    return history


def _train_epoch(executable: Executable, train: Data, order: np.ndarray) -> tuple[float, float]:
    loss = right = 0.0
    for start in range(0, len(order), executable.batch_size):
        batch = order[start : start + executable.batch_size]
        mean, correct = executable.step(*train, batch)
        loss += mean * len(batch)
        right += correct
    return loss / len(order), right / len(order)


class _reporter:
    """Reports progress: a bar on a terminal, a line every `verbose` epochs elsewhere."""

    def __init__(self, epochs: int, verbose: int) -> None:
        self.epochs, self.verbose = epochs, verbose
        self._bar = None
        if verbose and sys.stderr.isatty():
            from tqdm import tqdm  # 30 ms, and only for people who watch

            self._bar = tqdm(total=epochs, unit="epoch")

    def __enter__(self) -> Callable[[int, History], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _report(self, epoch: int, history: History) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_line(history), refresh=False)
            self._bar.update()
        elif self.verbose and (epoch % self.verbose == 0 or epoch in (1, self.epochs)):
            print(f"epoch {epoch}/{self.epochs}: {_line(history)}, {history.seconds:.1f} s")


def _line(history: History) -> str:
    text = f"loss {history.loss[-1]:.4f}, accuracy {history.accuracy[-1]:.4f}"
    if history.val_loss:
        text += (
            f", val loss {history.val_loss[-1]:.4f}, val accuracy {history.val_accuracy[-1]:.4f}"
        )
    return text


def _checked_model(model: object) -> Sequential:
    if not isinstance(model, Sequential):
        raise CompileError(f"model: got {type(model).__name__}, expected a Sequential")
    return model


def _row_shape(name: str, x: object) -> tuple[int, ...]:
    shape = np.shape(cast(Any, x))
    if len(shape) < 2:
        raise CompileError(f"{name}: got shape {list(shape)}, expected [rows, ...]")
    return tuple(shape[1:])
