"""Values of the loop language: scalars, vectors and memory, and how they are written down.

A `Value` is made by a `Function` (dsl.py) and overloads the operators; an `Array` is typed memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dsl import Function

BITS = {"float": 32, "double": 64, "i64": 64, "i32": 32, "i16": 16, "i8": 8, "i1": 1}
DTYPE_SCALARS = {"f32": "float", "f64": "double", "i64": "i64", "u8": "i8", "bool": "i8"}
SHORT = {"float": "f32", "double": "f64"}  # in the names of intrinsics
INFIX = {
    "fadd": "+",
    "fsub": "-",
    "fmul": "*",
    "fdiv": "/",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "sdiv": "/",
    "udiv": "/",
    "srem": "%",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "lshr": ">>",
    "ashr": ">>",
}


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar (`lanes` 0) or vector in SSA form; of an i64, `ref` plus the number `plus`."""

    k: Function
    ref: str
    scalar: str
    lanes: int = 0
    plus: int = 0

    @property
    def type(self) -> str:
        """The LLVM type."""
        return f"<{self.lanes} x {self.scalar}>" if self.lanes else self.scalar

    @property
    def floating(self) -> bool:
        return self.scalar in ("float", "double")

    def __add__(self, other: Value | float) -> Value:
        if self.scalar == "i64" and not self.lanes:
            return self.k.integer_sum(self, other)
        return self.k.binary("fadd" if self.floating else "add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        if isinstance(other, int) and self.scalar == "i64" and not self.lanes:
            return self + -other
        return self.k.binary("fsub" if self.floating else "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.k.binary("fsub" if self.floating else "sub", self.k.like(other, self), self)

    def __mul__(self, other: Value | float) -> Value:
        if self.scalar == "i64" and not self.lanes and isinstance(other, int):
            return self.k.integer_product(self, other)
        return self.k.binary("fmul" if self.floating else "mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self.k.binary("fdiv", self, other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self.k.binary("sdiv", self, other)

    def __mod__(self, other: Value | int) -> Value:
        return self.k.binary("srem", self, other)

    def __neg__(self) -> Value:
        return self.k.unary("fneg", self) if self.floating else self.k.like(0, self) - self

    def __and__(self, other: Value | int) -> Value:
        return self.k.binary("and", self, other)

    def __or__(self, other: Value | int) -> Value:
        return self.k.binary("or", self, other)

    def __xor__(self, other: Value | int) -> Value:
        return self.k.binary("xor", self, other)

    def __lshift__(self, other: Value | int) -> Value:
        return self.k.binary("shl", self, other)

    def __rshift__(self, other: Value | int) -> Value:
        return self.k.binary("lshr", self, other)

    def __lt__(self, other: Value | float) -> Value:
        return self.k.compare("lt", self, other)

    def __le__(self, other: Value | float) -> Value:
        return self.k.compare("le", self, other)

    def __gt__(self, other: Value | float) -> Value:
        return self.k.compare("gt", self, other)

    def equals(self, other: Value | float) -> Value:
        """Whether both are equal; false where one is NaN. (`==` is identity.)"""
        return self.k.compare("eq", self, other)


@dataclass(frozen=True, slots=True)
class Array:
    """Memory: elements of `scalar` from `base` (a ptr) plus `offset` elements on."""

    k: Function
    base: Value
    scalar: str
    offset: Value | int = 0

    def at(self, offset: Value | int) -> Array:
        """The same memory seen from `offset` elements further on."""
        return Array(self.k, self.base, self.scalar, self.offset + offset)

    def load(self, offset: Value | int = 0, lanes: int = 0) -> Value:
        """The element there, or the vector of `lanes` elements from there."""
        return self.k.load(self, self.offset + offset, lanes)

    def store(self, value: Value, offset: Value | int = 0) -> None:
        """Writes a scalar or a vector there."""
        self.k.store(self, self.offset + offset, value)

    def pointer(self, offset: Value | int = 0) -> Value:
        """The address as a ptr."""
        return self.k.address(self.base, self.scalar, self.offset + offset)


def show(x: Value | float, plus: int | None = None) -> str:
    """A value as the listing names it."""
    if not isinstance(x, Value):
        return str(x)
    name = x.ref[1:] if x.ref.startswith("%") else x.ref
    added = x.plus if plus is None else plus
    return f"{name} + {added}" if added else name


def suffix(x: Value) -> str:
    """How an overloaded intrinsic names the type of x."""
    short = SHORT.get(x.scalar, x.scalar)
    return f"v{x.lanes}{short}" if x.lanes else short


def literal(value: float, scalar: str) -> str:
    """A number as LLVM writes it; floats by their bits, so that none is rounded twice."""
    if scalar not in ("float", "double"):
        bits = BITS[scalar]
        return str((int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1))
    if scalar == "float":
        (value,) = struct.unpack("<f", struct.pack("<f", clipped(value)))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def clipped(value: float) -> float:
    """value as float32 has it: infinite where it is too large."""
    largest = 3.4028235677973366e38  # halfway between the largest float32 and the next power of two
    if value == value and abs(value) >= largest:
        return float("inf") if value > 0 else float("-inf")
    return value
