"""Arrays on their way into a program: checked as a whole, then gathered batch by batch.

Nothing given is ever written to, and nothing of a whole array's size is made from one that is
contiguous: images stay uint8 until the batch they are gathered into.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..ir import DataError, TensorType

FLOAT_KINDS = "f"


@dataclass(eq=False)
class Batches:
    """A checked array [rows, ...] and how its rows become those of a program's input."""

    array: np.ndarray
    scale: float | None = None  # integers are divided by this
    _stage: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.array)

    def gather(self, order: np.ndarray, slot: np.ndarray) -> None:
        """Puts the rows `order` into `slot`."""
        if self.array.dtype == slot.dtype:
            np.take(self.array, order, axis=0, out=slot, mode="clip")
            return
        stage = self._staged(len(order))
        np.take(self.array, order, axis=0, out=stage, mode="clip")
        self._convert(stage, slot)

    def put(self, start: int, stop: int, slot: np.ndarray) -> None:
        """Puts the rows from `start` to `stop` into `slot`."""
        self._convert(self.array[start:stop], slot)

    def _convert(self, rows: np.ndarray, slot: np.ndarray) -> None:
        if self.scale is None:
            slot[...] = rows
        else:
            scale = slot.dtype.type(self.scale)
            np.divide(rows, scale, out=slot, dtype=slot.dtype, casting="unsafe")

    def _staged(self, rows: int) -> np.ndarray:
        if self._stage is None or len(self._stage) < rows:
            self._stage = np.empty((rows, *self.array.shape[1:]), self.array.dtype)
        return self._stage[:rows]


def inputs(name: str, given: object, shape: tuple[int, ...], least: int = 1) -> Batches:
    """`given` as inputs [rows, *shape]: floats as they are, uint8 scaled by 1/255."""
    array = as_array(name, given)
    if array.ndim == 0 or array.shape[1:] != shape:
        wanted = f"[rows, {', '.join(map(str, shape))}]"
        raise DataError(
            f"{name}: got shape {list(array.shape)}, expected {wanted}{_hint(array, shape)}"
        )
    _check_rows(name, array, least)
    if array.dtype.kind in FLOAT_KINDS:
        return Batches(np.ascontiguousarray(array))
    if array.dtype == np.uint8:
        return Batches(np.ascontiguousarray(array), scale=255.0)
    raise DataError(
        f"{name}: got dtype {array.dtype}, expected floats, or uint8 images, scaled by 1/255: "
        f"use {name}.astype('float32')"
    )


def targets(
    name: str, given: object, t: TensorType, classes: int | None, least: int = 1
) -> Batches:
    """`given` as targets of type `t`: labels in [0, classes) of any integer dtype, or floats."""
    array = as_array(name, given)
    if t.dtype == "i64":
        return Batches(_labels(name, array, t, classes, least))
    wanted = f"[rows{''.join(f', {d}' for d in t.shape[1:])}]"
    if array.ndim == 0 or array.shape[1:] != t.shape[1:]:
        raise DataError(
            f"{name}: got shape {list(array.shape)}, expected {wanted}, exactly the output's"
            f"{_target_hint(name, array, t)}"
        )
    if array.dtype.kind not in FLOAT_KINDS:
        raise DataError(
            f"{name}: got dtype {array.dtype}, expected floats: use {name}.astype('float32')"
        )
    _check_rows(name, array, least)
    return Batches(np.ascontiguousarray(array))


def row_shape(name: str, given: object) -> tuple[int, ...]:
    """The shape of one row of an array [rows, ...]."""
    shape = as_array(name, given).shape
    if len(shape) < 2:
        raise DataError(f"{name}: got shape {list(shape)}, expected [rows, ...]")
    return shape[1:]


def check_lengths(x_name: str, x: Batches, y_name: str, y: Batches) -> None:
    """DataError if inputs and targets differ in their number of rows."""
    if len(x) != len(y):
        raise DataError(f"{x_name}, {y_name}: got {len(x)} and {len(y)} rows, expected the same")


def _labels(
    name: str, array: np.ndarray, t: TensorType, classes: int | None, least: int
) -> np.ndarray:
    if array.ndim == 0 or array.shape[1:] != t.shape[1:]:
        hint = f": use {name}.argmax(1)" if array.shape[1:] == (classes,) else ""
        wanted = f"labels [rows{''.join(f', {d}' for d in t.shape[1:])}]"
        raise DataError(f"{name}: got shape {list(array.shape)}, expected {wanted}{hint}")
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{name}: got dtype {array.dtype}, expected integer labels: use {name}.astype('int64')"
        )
    _check_rows(name, array, least)
    if classes is not None and array.size and not 0 <= array.min() <= array.max() < classes:
        row = int(np.argwhere((array < 0) | (array >= classes))[0][0])
        raise DataError(
            f"{name}: got label {np.ravel(array[row])[0]} at row {row}, expected 0 to "
            f"{classes - 1}: the model has {classes} outputs"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def as_array(name: str, given: object) -> np.ndarray:
    """`given` as an array of numbers."""
    refuse_masked(name, given)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # a tensor
        raise DataError(
            f"{name}: got {type(given).__name__}, expected an array: {error}"
        ) from error
    if array.dtype == object:
        raise DataError(f"{name}: got {type(given).__name__}, expected an array of numbers")
    return array


def refuse_masked(name: str, given: object) -> None:
    """DataError where entries of a NumPy array are masked: they would be read like the others."""
    if not isinstance(given, np.ndarray) or type(given) is np.ndarray:
        return  # sooner than NumPy would say so
    if np.ma.is_masked(given):
        count = np.count_nonzero(np.ma.getmaskarray(given))
        raise DataError(
            f"{name}: got {count} masked entries, expected none: use .filled(0), or leave their "
            "rows out"
        )


def _check_rows(name: str, array: np.ndarray, least: int) -> None:
    if len(array) < least:
        raise DataError(f"{name}: got {len(array)} rows, expected at least {least}")


def _hint(array: np.ndarray, shape: tuple[int, ...]) -> str:
    if array.shape == shape:
        return f": one sample needs its own row, x[None] is {[1, *shape]}"
    if array.shape[1:] == shape[1:] and shape[:1] == (1,):
        return ": images need a channel, x[:, None]"
    if len(shape) == 3 and array.shape[1:] == (*shape[1:], shape[0]):
        return ": the channels come first, x.transpose(0, 3, 1, 2)"
    return ""


def _target_hint(name: str, array: np.ndarray, t: TensorType) -> str:
    return f": use {name}[:, None]" if (*array.shape[1:], 1) == t.shape[1:] else ""
