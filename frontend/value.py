"""Traced values: what a layer's `forward` computes with. Operators append to a graph.

A Value has a shape whose first entry is `N`, a dtype, and the usual operators. Python numbers take
the dtype of the other operand; shapes broadcast as NumPy's do; a scalar takes the dtype of what it
meets. Everything else is in `gemmc.ops`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from ..ir import Builder, CompileError, Node, TensorType
from ..ir.types import FLOATS

Number = int | float


@dataclass
class Trace:
    """One tracing: the builder, and what differs between training and evaluation."""

    builder: Builder = field(default_factory=Builder)
    dtype: str = "f32"
    training: bool = False
    inputs: dict[str, Node] = field(default_factory=dict)
    keys: int = 0  # dropout masks drawn so far: each has a key of its own

    def input(self, name: str, t: TensorType) -> Value:
        """The graph's input of that name, made when first asked for."""
        if name not in self.inputs:
            self.inputs[name] = self.builder.input(name, t)
        return Value(self, self.inputs[name])

    def next_key(self) -> int:
        """A key for one more dropout mask."""
        self.keys += 1
        return self.keys - 1


class Value:
    """A symbolic array: a node of the graph being traced."""

    __array_ufunc__ = None  # NumPy arrays on the left hand over to the operators below
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, node: Node) -> None:
        self.trace, self.node = trace, node

    @property
    def shape(self) -> tuple[Any, ...]:
        """The dimensions; `N` stands for the rows of the batch."""
        return self.node.shape

    @property
    def dtype(self) -> str:
        """ "f32", "f64", "i64" or "bool"."""
        return self.node.dtype

    def make(self, op: str, *others: Value, **attrs: Any) -> Value:
        """The op on this value and others."""
        nodes = [self.node, *(v.node for v in others)]
        return Value(self.trace, self.trace.builder.make(op, nodes, attrs))

    def __repr__(self) -> str:
        return f"<Value {self.node.type}>"

    def __bool__(self) -> bool:
        raise CompileError(
            f"if, and, or, not: got {self!r}, which has no value while a model is traced: "
            "use ops.where"
        )

    def __float__(self) -> float:
        raise CompileError(f"float(): got {self!r}, which has no value while a model is traced")

    def __add__(self, other: Value | Number) -> Value:
        return binary("add", self, other)

    def __radd__(self, other: Number) -> Value:
        return binary("add", other, self)

    def __sub__(self, other: Value | Number) -> Value:
        return binary("sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return binary("sub", other, self)

    def __mul__(self, other: Value | Number) -> Value:
        return binary("mul", self, other)

    def __rmul__(self, other: Number) -> Value:
        return binary("mul", other, self)

    def __truediv__(self, other: Value | Number) -> Value:
        return binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return binary("div", other, self)

    def __pow__(self, other: Value | Number) -> Value:
        if not isinstance(other, Value) and other == 2:
            return self * self
        return binary("pow", self, other)

    def __rpow__(self, other: Number) -> Value:
        return binary("pow", other, self)

    def __neg__(self) -> Value:
        return self.make("neg")

    def __matmul__(self, other: Value) -> Value:
        if not isinstance(other, Value):
            raise CompileError(f"@: got {type(other).__name__}, expected a traced value")
        return self.make("matmul", other)

    def __eq__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return binary("equal", self, other)

    def __lt__(self, other: Value | Number) -> Value:
        return binary("less", self, other)

    def __le__(self, other: Value | Number) -> Value:
        return binary("less_equal", self, other)

    def __gt__(self, other: Value | Number) -> Value:
        return binary("less", other, self)

    def __ge__(self, other: Value | Number) -> Value:
        return binary("less_equal", other, self)


def binary(op: str, x: Value | Number, y: Value | Number) -> Value:
    """A pointwise op of two operands, of which one may be a number, after broadcasting."""
    known = x if isinstance(x, Value) else y
    assert isinstance(known, Value)
    a, b = (lift(v, known) for v in (x, y))
    dtype = common_dtype(a, b)
    a, b = cast(a, dtype), cast(b, dtype)
    shape = broadcast_shape(a.shape, b.shape)
    return expand(a, shape).make(op, expand(b, shape))


def common_dtype(a: Value, b: Value) -> str:
    """The dtype in which two values meet: of the one with dimensions, a float before others."""
    if a.dtype == b.dtype:
        return a.dtype
    if not a.shape and not b.shape:
        return "f64"
    for one, other in ((a, b), (b, a)):
        if one.dtype in FLOATS and (other.dtype not in FLOATS or not other.shape):
            return one.dtype
    raise CompileError(f"dtypes: {a!r} and {b!r} do not go together: use ops.cast")


def cast(x: Value, dtype: str) -> Value:
    """x in another dtype."""
    return x if x.dtype == dtype else x.make("cast", dtype=dtype)


def broadcast_shape(a: tuple, b: tuple) -> tuple:
    """The shape that both broadcast to, as in NumPy; CompileError if there is none."""
    rank = max(len(a), len(b))
    wide_a, wide_b = ((1,) * (rank - len(s)) + tuple(s) for s in (a, b))
    shape = []
    for i, j in zip(wide_a, wide_b, strict=True):
        if i != j and i != 1 and j != 1:
            raise CompileError(f"shapes {a} and {b} do not broadcast")
        shape.append(j if i == 1 else i)
    return tuple(shape)


def expand(x: Value, shape: tuple) -> Value:
    """x broadcast to `shape`, as in NumPy."""
    if x.shape == shape:
        return x
    skipped = len(shape) - len(x.shape)
    axes = tuple(i + skipped for i, d in enumerate(x.shape) if d == shape[i + skipped])
    kept = tuple(shape[a] for a in axes)
    small = x if x.shape == kept else x.make("reshape", shape=kept)
    return small if kept == shape else small.make("broadcast", shape=shape, axes=axes)


def lift(x: Value | Number, like: Value) -> Value:
    """x as a value: a number becomes a scalar of the float dtype that `like` has or stands for."""
    if isinstance(x, Value):
        return x
    if isinstance(x, bool) or not isinstance(x, Real):
        raise CompileError(f"operand: got {type(x).__name__}, expected a traced value or a number")
    dtype = {"f32": "f32", "f64": "f64", "i64": "f64"}.get(like.dtype, like.trace.dtype)
    return Value(like.trace, like.trace.builder.full(shape=(), value=float(x), dtype=dtype))
