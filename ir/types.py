"""Types of values: `f32[N,16,28,28]`, where `N`, always first, is the rows of the batch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from .errors import CompileError


class Rows:
    """The symbol `N`: how many rows this batch has, known only when a program runs."""

    def __repr__(self) -> str:
        return "N"


N = Rows()
Dim = int | Rows

DTYPES: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f64": np.float64,
    "i64": np.int64,
    "u8": np.uint8,
    "bool": np.bool_,
}
FLOATS = ("f32", "f64")


@dataclass(frozen=True)
class TensorType:
    """An array of `dtype` (a key of DTYPES) and `shape`; only the first dimension may be `N`."""

    shape: tuple[Dim, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise CompileError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        for axis, dim in enumerate(self.shape):
            if dim is N and axis == 0:
                continue
            if not isinstance(dim, int) or dim < 1:
                raise CompileError(f"shape {self.shape}: dimension {axis} is {dim}, expected >= 1")

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def per_row(self) -> bool:
        """Whether the value has one entry for each row of the batch."""
        return bool(self.shape) and self.shape[0] is N

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(DTYPES[self.dtype])

    def concrete(self, rows: int) -> tuple[int, ...]:
        """The shape when the batch has `rows` rows."""
        return tuple(rows if isinstance(d, Rows) else d for d in self.shape)

    def size(self, rows: int) -> int:
        """How many elements there are when the batch has `rows` rows."""
        return math.prod(self.concrete(rows))

    def nbytes(self, rows: int) -> int:
        """How many bytes a batch of `rows` rows takes."""
        return self.size(rows) * self.numpy.itemsize

    def like(self, *shape: Dim) -> TensorType:
        """The same dtype with another shape."""
        return TensorType(shape, self.dtype)


@dataclass(frozen=True)
class TupleType:
    """The type of an op with several results; the op `item` takes one out."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = TensorType | TupleType


def parse_type(text: str) -> Type:
    """The type that prints as `text`; CompileError where there is none."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        return TupleType(tuple(_tensor(t) for t in re.findall(r"\w+\[[^\]]*\]", text)))
    return _tensor(text)


def _tensor(text: str) -> TensorType:
    match = re.fullmatch(r"(\w+)\[((?:(?:N|\d+)(?:, ?|(?=\])))*)\]", text)
    if not match:
        raise CompileError(f"type: got {text!r}, expected something like f32[N,16]")
    dims = re.findall(r"N|\d+", match[2])
    return TensorType(tuple(N if d == "N" else int(d) for d in dims), match[1])


def axes_product(shape: tuple[Dim, ...]) -> tuple[int, Dim]:
    """(product of the numbers, `N` or 1): what a reshape must keep."""
    rows: Dim = N if any(d is N for d in shape) else 1
    return math.prod(d for d in shape if isinstance(d, int)), rows
