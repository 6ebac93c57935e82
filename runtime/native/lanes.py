"""`xp` over lanes: the ops' own `evaluate` emits LLVM when it is given these values.

So the native runtime runs the one declaration of each pointwise op. Values of a body are evaluated
at a `Spot`: so many lanes along the last axis, from one element on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir import OPS, Graph, Node
from ...ir.ops.random import HASH_ROUNDS, drop_threshold, keep_scale
from ...ir.ops.shape import inverse
from . import elementary
from .dsl import DTYPE_SCALARS, Array, Function, Value

BINARY = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
COMPARE = {"equal": "eq", "less": "lt", "less_equal": "le"}
POLYNOMIALS: dict[str, Callable[[Value], Value]] = {
    "exp": elementary.exp,
    "log": elementary.log,
    "tanh": elementary.tanh,
}


LONG = {"dropout_mask": 20, "exp": 30, "log": 30, "tanh": 40}  # instructions; others are about 1

INLINED = 2  # uses of an elementary function in a function of ours until it is called instead


class LaneNamespace:
    """`xp` over Values: scalars or vectors, floats or i1."""

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name in BINARY:
            return lambda x, y: x.k.binary(_op(BINARY[name], x), *_level(x, y))
        if name in COMPARE:
            return lambda x, y: x.k.compare(COMPARE[name], *_level(x, y))
        if name in POLYNOMIALS:
            return lambda x: _elementary(name, x)
        if name == "sqrt":
            return lambda x: x.k.intrinsic("sqrt", x)
        if name == "pow":
            return lambda x, y: x.k.intrinsic("pow", *_level(x, y))
        raise AttributeError(f"xp has no {name!r}")

    def negative(self, x: Value) -> Value:
        return -x

    def maximum(self, x: Value, y: Value) -> Value:
        """The larger one, NaN where either is; against a number a single instruction does it."""
        x, y = _level(x, y)
        if _is_number(y):
            return x.k.select(x.k.compare("gt", y, x), y, x)
        return x.k.intrinsic("maximum", x, y)

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        return x.k.select(condition, x, y)

    def cast(self, x: Value, dtype: str) -> Value:
        """x in another dtype, as NumPy's astype has it."""
        scalar = DTYPE_SCALARS[dtype]
        if dtype == "bool":
            return x if x.scalar == "i1" else x.k.compare("une" if x.floating else "ne", x, 0)
        if x.scalar == "i1":
            return x.k.convert("uitofp" if dtype in ("f32", "f64") else "zext", x, scalar)
        if x.scalar == scalar:
            return x
        if x.floating and dtype in ("f32", "f64"):
            return x.k.convert("fpext" if scalar == "double" else "fptrunc", x, scalar)
        if x.floating:
            whole = x.k.convert("fptosi", x, "i32" if dtype == "u8" else scalar)
            return x.k.convert("trunc", whole, scalar) if dtype == "u8" else whole
        if dtype in ("f32", "f64"):
            return x.k.convert("uitofp" if x.scalar == "i8" else "sitofp", x, scalar)
        return x.k.convert("trunc" if scalar == "i8" else "zext", x, scalar)

    def constant(self, value: float, like: Value) -> Value:
        return like.k.constant(value, like.scalar, like.lanes)


LANES = LaneNamespace()


@dataclass(frozen=True)
class Spot:
    """Where a body is evaluated: `lanes` elements (0: a scalar) along the last axis.

    `at` has an index for each group of axes (see `groups`), `flat` the row-major number of the
    first element; `row` is how many rows of the batch come before the first of the sweep.
    """

    at: tuple[Value | int, ...]
    flat: Value | int
    lanes: int
    row: Value | int = 0


Groups = tuple[tuple[int, ...], ...]


def groups(body: Graph) -> Groups:
    """The axes of a body's shape, those side by side in one group that no operand tells apart."""
    (shape, *_) = {n.shape for n in body.nodes if n.shape} or {()}
    cuts = {0}
    for node in body.nodes:
        if node.op == "broadcast":
            axes = node.attrs["axes"]
            cuts |= {i for i in range(1, len(shape)) if (i in axes) != (i - 1 in axes)}
        elif node.op == "dropout_mask" and not in_order(node):
            cuts |= set(range(len(shape)))
    starts = sorted(cuts)
    return tuple(tuple(range(a, b)) for a, b in zip(starts, [*starts[1:], len(shape)], strict=True))


def in_order(mask: Node) -> bool:
    """Whether a dropout mask's elements lie as the tensor's that the user wrote."""
    perm = mask.attrs["perm"]
    return perm is None or list(perm) == sorted(perm)


class Body:
    """A fused body's code: what does not depend on the element first, then `at` any spot.

    `arrays` says where the body's inputs are; `cut` groups the axes of its shape. `nodes` are those
    to evaluate, `wanted` those whose values are asked for: all, and the outputs, if not given.
    """

    def __init__(
        self,
        k: Function,
        body: Graph,
        arrays: Mapping[Node, Array],
        cut: Groups,
        nodes: Sequence[Node] | None = None,
        wanted: Sequence[Node] | None = None,
    ) -> None:
        self.k, self.arrays, self.cut = k, arrays, cut
        self.nodes = body.nodes if nodes is None else nodes
        self.wanted = list(body.outputs.values()) if wanted is None else wanted
        self.fixed: dict[Node, Value] = {}
        for n in body.inputs:
            if n.shape == ():
                self.fixed[n] = _element(arrays[n], n, 0, 0)
        self.streams = {
            n: stream(self.fixed[n.inputs[0]], self.fixed[n.inputs[1]], n.attrs["key"])
            for n in self.nodes
            if n.op == "dropout_mask"
        }
        for n in self.nodes:
            if n.op not in ("broadcast", "dropout_mask", "item") and n.type == n.tensor.like():
                self.fixed[n] = self._apply(n, self.fixed, 0)

    def at(self, spot: Spot, given: Mapping[Node, Value] | None = None) -> dict[Node, Value]:
        """The values of all nodes at a spot; those `given` are at hand already."""
        env: dict[Node, Value] = {**self.fixed, **(given or {})}
        for node in self.nodes:
            if node in env:
                continue
            for x in node.inputs:
                if x not in env and x.op == "input" and node.op != "broadcast":
                    env[x] = _element(self.arrays[x], x, spot.flat, spot.lanes)
            match node.op:
                case "broadcast":
                    env[node] = self._broadcast(node, env, spot)
                case "dropout_mask":
                    env[node] = self._mask(node, spot)
                case _:
                    env[node] = self._apply(node, env, spot.lanes)
        for x in self.wanted:
            if x not in env:
                env[x] = _element(self.arrays[x], x, spot.flat, spot.lanes)
        return env

    def _apply(self, node: Node, env: Mapping[Node, Value], lanes: int) -> Value:
        attrs: dict[str, Any] = dict(node.attrs)
        if node.op == "full":
            return self.k.constant(attrs["value"], DTYPE_SCALARS[node.dtype], lanes)
        return OPS[node.op].evaluate(LANES, *(env[x] for x in node.inputs), **attrs)

    def _broadcast(self, node: Node, env: Mapping[Node, Value], spot: Spot) -> Value:
        (x,) = node.inputs
        if x in env:
            return env[x]  # the same for every element
        axes, size = node.attrs["axes"], 1
        offset: Value | int = 0
        for group, index in reversed(list(zip(self.cut, spot.at, strict=True))):
            if group[0] in axes:
                offset = index * size + offset
                for axis in group if group[0] else ():
                    size *= node.shape[axis]
        along = bool(axes) and axes[-1] == len(node.shape) - 1
        return _element(self.arrays[x], x, offset, spot.lanes if along else 0)

    def _mask(self, node: Node, spot: Spot) -> Value:
        k, lanes, attrs = self.k, spot.lanes, node.attrs
        first, step = self._logical_index(node, spot)
        x = k.convert("trunc", k.integer(first), "i32")
        if lanes:
            x = k.splat(x, lanes) + k.lane_numbers(lanes, "i32", step)
        threshold, scalar = drop_threshold(attrs["p"]), DTYPE_SCALARS[attrs["dtype"]]
        if threshold >> 32:
            return k.constant(0.0, scalar, lanes)
        keep = k.compare("uge", hash32(x, *self.streams[node]), threshold)
        return k.select(keep, k.constant(keep_scale(attrs["p"]), scalar, lanes), 0.0)

    def _logical_index(self, mask: Node, spot: Spot) -> tuple[Value | int, int]:
        """The number of a spot's first element in the tensor the user wrote, and of the next."""
        skipped = spot.row * math.prod(mask.shape[1:])
        if in_order(mask):
            return spot.flat + skipped, 1
        perm = mask.attrs["perm"]
        sizes = [mask.shape[i] for i in inverse(perm)]
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        first = skipped
        for axis, index in enumerate(spot.at):
            first = index * strides[perm[axis]] + first
        return first, strides[perm[-1]]


def length(nodes: Sequence[Node]) -> int:
    """About how many instructions the nodes of a body are at a spot."""
    return sum(LONG.get(node.op, 1) for node in nodes)


def stream(seed: Value, step: Value, key: int) -> tuple[Value, Value]:
    """ir.ops.random.stream on values: the two words that make the draws of a mask their own."""
    k = seed.k
    word = k.constant(0, "i64")
    for part in (seed, step, k.constant(key, "i64")):
        word = k.binary("add", k.binary("xor", word, part), 0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = k.binary("mul", word ^ (word >> shift), k.constant(factor, "i64"))
        word = word ^ (word >> 31)
    return k.convert("trunc", word, "i32"), k.convert("trunc", word >> 32, "i32")


def _element(array: Array, node: Node, offset: Value | int, lanes: int) -> Value:
    """What is at an offset; booleans become i1."""
    x = array.load(offset, lanes)
    return as_boolean(x) if node.dtype == "bool" else x


def as_boolean(x: Value) -> Value:
    """Bytes 0 or 1 as i1."""
    return x.k.convert("trunc", x, "i1")


def put(array: Array, value: Value, offset: Value | int, lanes: int) -> None:
    """Stores a value; i1 as bytes, a scalar in every lane."""
    if value.scalar == "i1":
        value = value.k.convert("zext", value, "i8")
    array.store(value.k.splat(value, lanes) if lanes and not value.lanes else value, offset)


def hash32(x: Value, low: Value, high: Value) -> Value:
    """ir.ops.random.hash32 on lanes."""
    k = x.k
    x = x ^ k.like(low, x)
    for word in (high, None):
        for shift, factor in HASH_ROUNDS:
            x = k.binary("mul", x ^ (x >> shift), k.like(factor, x))
        x = x ^ (x >> 16)
        if word is not None:
            x = x + k.like(word, x)
    return x


def _op(name: str, x: Value) -> str:
    return name if x.floating else name[1:]


def _level(x: Value, y: Value) -> tuple[Value, Value]:
    """Both with the same lanes."""
    return x.k.like(x, y), x.k.like(y, x)


def _elementary(name: str, x: Value) -> Value:
    if x.scalar != "float":
        return x.k.intrinsic(name, x)
    x.k.uses[name] += 1
    if x.k.uses[name] > INLINED:
        return x.k.outlined(name, POLYNOMIALS[name], x)
    return POLYNOMIALS[name](x)


def _is_number(x: Value) -> bool:
    return not x.ref.startswith("%")
