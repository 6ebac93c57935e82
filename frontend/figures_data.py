"""What figures ask of the arrays, models and histories they are given, and what they count.

Each check returns the array in the form in which it is drawn, or raises a DataError that names the
argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ..ir import DataError
from .batches import as_array
from .training import History

Model = Callable[[np.ndarray], np.ndarray]  # a Sequential, an Executable
Names = Sequence[str] | None


def points(X: object) -> np.ndarray:
    """X as points `[rows, 2]` of float32, at least one, all finite."""
    array = _numbers("X", X)
    if array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"X: got shape {list(array.shape)}, expected points [rows, 2]")
    _check_some("X", array)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise DataError(f"X: row {row} is {array[row].tolist()}, expected finite numbers")
    return array.astype(np.float32)


def images(X: object) -> np.ndarray:
    """X as images `[rows, 1 or 3, height, width]`, at least one; the same array, not a copy."""
    array = _numbers("X", X)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        wanted = "images [rows, 1 or 3, height, width]"
        raise DataError(f"X: got shape {list(array.shape)}, expected {wanted}")
    _check_some("X", array)
    return array


def pixels(array: np.ndarray) -> np.ndarray:
    """Some images as float32 from 0 to 1: uint8 by 255, others by the range of all of them."""
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
    if not np.isfinite((low, high)).all():
        raise DataError("X: has a pixel that is NaN or infinite, expected finite numbers")
    return (array.astype(np.float32) - low) / (high - low or 1.0)


def labels(y: object, names: Names, classes: int | None = None, name: str = "y") -> np.ndarray:
    """y as labels `[rows]` of int64, each from 0 to below `classes`, and with a name if any has."""
    array = _numbers(name, y)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        seen = f"{array.dtype} {list(array.shape)}"
        raise DataError(f"{name}: got {seen}, expected integer labels [rows]")
    _check_some(name, array)
    if names is not None and classes is not None and len(names) != classes:
        raise DataError(f"names: got {len(names)}, expected {classes}, one a class")
    known = len(names) if names is not None else classes
    unknown = (array < 0) | (array >= known if known is not None else False)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        wanted = "at least 0" if known is None else f"0 to {known - 1}"
        raise DataError(f"{name}: got label {array[row]} at row {row}, expected {wanted}")
    return array.astype(np.int64)


def check_rows(x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> None:
    """DataError if two arrays differ in their number of rows."""
    if len(x) != len(y):
        raise DataError(f"{x_name}, {y_name}: got {len(x)} and {len(y)} rows, expected the same")


def outputs(model: Model, X: object) -> np.ndarray:
    """What a model of classes gives for X: `[rows, classes]`, without a NaN."""
    if not callable(model):
        raise DataError(f"model: got {type(model).__name__}, expected a Sequential or Executable")
    given = _numbers("X", X)
    _check_some("X", given)
    made = np.asarray(model(given))
    if made.ndim != 2 or len(made) != len(given) or made.shape[1] < 2:
        wanted = f"[{len(given)}, classes], at least 2 classes"
        raise DataError(f"model: gives shape {list(made.shape)}, expected {wanted}")
    if np.isnan(made).any():
        row = int(np.flatnonzero(np.isnan(made).any(1))[0])
        raise DataError(f"model: gives NaN for row {row} of X: it has no answer to draw")
    return made


def probabilities(made: np.ndarray) -> np.ndarray:
    """The outputs of a model as they are if they are probabilities, else their softmax."""
    x = made.astype(np.float64)
    if (x >= 0).all() and np.allclose(x.sum(1), 1, atol=1e-3):  # sums of float32
        return x
    e = np.exp(x - x.max(1, keepdims=True))
    return cast(np.ndarray, e / e.sum(1, keepdims=True))


def confusion(y: object, said: object, classes: int) -> np.ndarray:
    """`[classes, classes]` int64: how many rows of class i were said to be of class j."""
    truth, answers = labels(y, None, classes), labels(said, None, classes, "said")
    check_rows("said", answers, "y", truth)
    counts = np.bincount(truth * classes + answers, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def check_history(history: object) -> History:
    """`history`, if it has an epoch and lists as long as each other."""
    if not isinstance(history, History):
        raise DataError(f"history: got {type(history).__name__}, expected the History of a fit")
    epochs = len(history.loss)
    if not epochs:
        raise DataError("history: has no epochs, expected at least one")
    for name in ("accuracy", "val_loss", "val_accuracy"):
        length = len(getattr(history, name))
        if length != epochs and (length or name == "accuracy"):
            raise DataError(f"history: {name} has {length} epochs, expected {epochs}, as loss has")
    return history


def name_of(label: int, names: Names) -> str:
    """The name of a class, or its number."""
    return str(label) if names is None else names[label]


def _numbers(name: str, given: Any) -> np.ndarray:
    array = as_array(name, given)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{name}: got dtype {array.dtype}, expected numbers")
    return array


def _check_some(name: str, array: np.ndarray) -> None:
    if array.ndim == 0 or not len(array):
        raise DataError(f"{name}: got shape {list(array.shape)}, expected at least one row")
