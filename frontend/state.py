"""The model's memory: parameters, optimiser state and counters in one buffer.

The model alone decides how things are packed; every Executable of a model works on this buffer, so
what one has learnt the others know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..ir import DataError
from ..passes.layout import Layout
from ..passes.memory import ALIGN, aligned
from ..passes.pack import pack_array, unpack_array
from ..runtime.arena import aligned_arena
from .batches import as_array

COUNTERS = ("step", "epoch")


class State:
    """Named float32 arrays, each with a logical shape and the form in which it is stored."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], forms: Mapping[str, Layout]) -> None:
        self.shapes, self.forms = dict(shapes), dict(forms)
        rooms = [aligned(math.prod(s) * 4) for s in self.shapes.values()]
        self._buffer = aligned_arena(sum(rooms) + ALIGN)
        self._buffer.fill(0)
        self.counters = self._buffer[: 8 * len(COUNTERS)].view(np.int64)
        self.stored: dict[str, np.ndarray] = {}
        self.version = 0  # goes up when something is written: after that, and before a step too
        at = ALIGN
        for (name, shape), room in zip(self.shapes.items(), rooms, strict=True):
            form = self.forms.get(name)
            flat = self._buffer[at : at + math.prod(shape) * 4].view(np.float32)
            self.stored[name] = flat.reshape(form.shape if form else shape)
            at += room

    @property
    def nbytes(self) -> int:
        """Bytes of the whole buffer."""
        return self._buffer.nbytes

    @property
    def step(self) -> int:
        """How many training steps the model has made."""
        return int(self.counters[0])

    @step.setter
    def step(self, value: int) -> None:
        self.counters[0] = value
        self.version += 1

    @property
    def epoch(self) -> int:
        """How many epochs of `fit` the model has made: which order comes next."""
        return int(self.counters[1])

    @epoch.setter
    def epoch(self, value: int) -> None:
        self.counters[1] = value

    def get(self, name: str) -> np.ndarray:
        """A copy of an array in its logical shape."""
        form, stored = self.forms.get(name), self.stored[name]
        logical = unpack_array(stored, form, self.shapes[name]) if form else stored
        return np.array(logical, order="C")

    def put(self, name: str, array: np.ndarray) -> None:
        """Replaces an array, given in its logical shape."""
        form = self.forms.get(name)
        np.copyto(self.stored[name], pack_array(array, form) if form else array)
        self.version += 1

    def __reduce__(self) -> tuple[Any, ...]:
        """What is copied and pickled: the buffer once, not each array in it."""
        return _remade, (self.shapes, self.forms, self._buffer)

    def copy_from(self, buffer: np.ndarray) -> None:
        """Takes over the buffer of a state with the same shapes and forms."""
        self._buffer[:] = buffer
        self.version += 1

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever happens inside, the whole state is afterwards as it was."""
        before = self._buffer.copy()
        try:
            yield
        finally:
            self.copy_from(before)

    def checked(
        self, arrays: object, names: Sequence[str], source: str = "state_dict"
    ) -> dict[str, np.ndarray]:
        """`arrays` as float32, exactly `names` with their shapes; else DataError."""
        if not isinstance(arrays, Mapping):
            raise DataError(f"{source}: got {type(arrays).__name__}, expected arrays by name")
        missing = [n for n in names if n not in arrays]
        unknown = [n for n in arrays if n not in names]
        if missing or unknown:
            raise DataError(
                f"{source}: missing {missing or 'nothing'}, unexpected {unknown or 'nothing'}: "
                "expected the arrays of a model with the same layers"
            )
        found = {}
        for name in names:
            array = as_array(f"{source}: {name}", arrays[name])
            if array.shape != self.shapes[name] or array.dtype.kind != "f":
                raise DataError(
                    f"{source}: {name}: got {array.dtype} {list(array.shape)}, "
                    f"expected floats {list(self.shapes[name])}"
                )
            found[name] = array.astype(np.float32)
        return found


def _remade(shapes: Any, forms: Any, buffer: np.ndarray) -> State:
    made = State(shapes, forms)
    made.copy_from(buffer)
    return made
