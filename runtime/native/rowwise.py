"""Work on one row at a time: softmax, its loss and gradient, and what else reduces a matrix's rows.

A row is held in registers from the first operand to the last result: as a few vectors, or, where it
is narrow, side by side with others, each in a lane. A reduction over it is one number, which a
broadcast spreads again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir import OPS, Graph, Node
from .dsl import DTYPE_SCALARS, Array, Function, Value
from .jit import host
from .lanes import LANES, as_boolean, put
from .pools import better
from .reductions import first_largest
from .site import Int, Site, Work
from .sweep import GRAIN, lanes_of

REDUCING = ("sum", "max", "one_hot", "correct")  # what makes a fused body row by row

Row = list[Value]  # the parts of a row, or one part that is a number of it


class Rows:
    """A fused body for some rows: operands are loaded where they are first needed.

    Here the elements of one row lie in lanes: `parts` are its vectors.
    """

    def __init__(self, k: Function, body: Graph, arrays: dict[Node, Array], width: int) -> None:
        self.k, self.body, self.arrays, self.width = k, body, arrays, width
        self.parts = lanes_of(width, host().lanes)
        self.fixed = {n: [self._load(n, 0, 0)] for n in body.inputs if n.shape == ()}

    def at(self, n: Int) -> dict[Node, Row]:
        """The values of all nodes for row n."""
        env = dict(self.fixed)
        for node in self.body.nodes:
            for x in node.inputs:
                if x not in env:
                    env[x] = self.operand(x, n)
            env[node] = self._apply(node, [env[x] for x in node.inputs])
        return env

    def operand(self, x: Node, n: Int) -> Row:
        """An operand of row n: its elements, one number of it, or what is the same for all rows."""
        if len(x.shape) == 1 and x.tensor.per_row:
            return [self._load(x, n, 0)]
        first = n * self.width if x.tensor.per_row else 0
        return [self._load(x, first + start, lanes) for start, lanes in self.parts]

    def store(self, array: Array, node: Node, row: Row, n: Int) -> None:
        """Writes a result of row n; one that is the same for all rows is written with each."""
        if len(node.shape) < 2:
            put(array, row[0], n if node.shape else 0, 0)
            return
        for (start, lanes), value in zip(self.parts, row, strict=True):
            put(array, value, n * self.width + start, lanes)

    def total(self, row: Row, how: str) -> Value:
        """The elements of a row combined: "fadd" or "fmaximum"."""
        start = -0.0 if how == "fadd" else None
        whole = [v for v in row if v.lanes == row[0].lanes]
        result = self.k.reduce(how, combined(whole, how), start)
        for v in row[len(whole) :]:
            result = combined([result, self.k.reduce(how, v, start)], how)
        return result

    def one_hot(self, label: Value) -> Row:
        """Whether each element is the label's."""
        k, short = self.k, self.k.convert("trunc", label, "i32")
        return [
            k.compare("eq", k.splat(short, n), k.lane_numbers(n, "i32") + start)
            for start, n in self.parts
        ]

    def winner(self, row: Row) -> Value:
        """The number of the first largest element, or of the first NaN; i64."""
        return first_largest(row, self.total(row, "fmaximum"))

    def spread(self, number: Value) -> Row:
        """A number of the row in place of each part."""
        return [number] * len(self.parts)

    def lanes(self, wide: bool) -> list[int]:
        """The lanes of the parts of a row, or of a number of it."""
        return [n for _, n in self.parts] if wide else [0]

    def _load(self, x: Node, at: Int, lanes: int) -> Value:
        value = self.arrays[x].load(at, lanes)
        return as_boolean(value) if x.dtype == "bool" else value

    def _apply(self, node: Node, rows: Sequence[Row]) -> Row:
        attrs, wide = dict(node.attrs), len(node.shape) == 2
        match node.op:
            case "full":
                scalar = DTYPE_SCALARS[node.dtype]
                return [self.k.constant(attrs["value"], scalar, n) for n in self.lanes(wide)]
            case "broadcast":
                (row,) = rows
                return self.spread(row[0]) if wide and attrs["axes"] != (1,) else row
            case "sum" | "max":
                return [self.total(rows[0], "fadd" if node.op == "sum" else "fmaximum")]
            case "one_hot":
                return self.one_hot(rows[0][0])
            case "correct":
                return [self.k.compare("eq", self.winner(rows[0]), rows[1][0])]
        return [self._one(node, parts, attrs) for parts in zip(*rows, strict=True)]

    def _one(self, node: Node, parts: Sequence[Value], attrs: dict[str, Any]) -> Value:
        lanes = max(x.lanes for x in parts)
        level = [self.k.splat(x, lanes) if lanes and not x.lanes else x for x in parts]
        return OPS[node.op].evaluate(LANES, *level, **attrs)


class Columns(Rows):
    """The same for as many rows as there are lanes, each in a lane: `parts` are the columns.

    Reductions go over registers and a number of a row is a lane, which suits narrow rows. Rows
    beyond the last are the last again: they compute and write the same.
    """

    def __init__(self, k: Function, body: Graph, arrays: dict[Node, Array], width: int) -> None:
        super().__init__(k, body, arrays, width)
        self.count = host().lanes
        self.parts = [(c, self.count) for c in range(width)]
        self.rows = k.lane_numbers(self.count, "i64")

    def begin(self, n: Int, end: Int) -> None:
        """The rows from n on, below end, are meant from now on."""
        k = self.k
        every = k.lane_numbers(self.count, "i64") + k.splat(k.integer(n), self.count)
        last = k.splat(k.integer(end - 1), self.count)
        self.rows = k.intrinsic("smin", every, last)

    def operand(self, x: Node, n: Int) -> Row:
        array = self.arrays[x]
        if not x.tensor.per_row:
            return [self._load(x, start, 0) for start, _ in self.parts]
        if len(x.shape) == 1:
            values = [self.k.gather(array, self.rows)]
        else:
            first = self.rows * self.k.constant(self.width, "i64", self.count)
            values = [self.k.gather(array.at(c), first) for c, _ in self.parts]
        return [as_boolean(v) for v in values] if x.dtype == "bool" else values

    def store(self, array: Array, node: Node, row: Row, n: Int) -> None:
        k, places = self.k, self.rows
        if not node.shape:
            put(array, row[0], 0, 0)
            return
        if len(node.shape) == 2:
            places = self.rows * k.constant(self.width, "i64", self.count)
        for c, value in enumerate(row):
            whole = value if value.lanes else k.splat(value, self.count)
            if whole.scalar == "i1":
                whole = k.convert("zext", whole, "i8")
            k.scatter(array.at(c), places, whole)

    def total(self, row: Row, how: str) -> Value:
        return combined(row, how)

    def one_hot(self, label: Value) -> Row:
        return [self.k.compare("eq", label, c) for c, _ in self.parts]

    def winner(self, row: Row) -> Value:
        k, best, which = self.k, row[0], self.k.constant(0, "i64", self.count)
        for c, x in enumerate(row[1:], 1):
            wins = better(x, best)
            best = k.select(wins, x, best)
            which = k.select(wins, k.constant(c, "i64", self.count), which)
        return which

    def lanes(self, wide: bool) -> list[int]:
        return [self.count] * (len(self.parts) if wide else 1)


def combined(parts: Sequence[Value], how: str) -> Value:
    """Values summed, or the largest of them, in pairs."""
    combine = LANES.add if how == "fadd" else LANES.maximum
    while len(parts) > 1:
        pairs = [combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + list(parts[len(pairs) * 2 :])
    return parts[0]


def emit(site: Site) -> Work:
    """A fused node whose body reduces rows."""
    k, body = site.k, site.node.attrs["body"]
    arrays = dict(zip(body.inputs, site.operands, strict=True))
    width = row_width(body)
    outputs = list(zip(body.outputs.values(), site.results, strict=True))

    def write(code: Rows, n: Int) -> None:
        env = code.at(n)
        for node, array in outputs:
            code.store(array, node, env[node], n)

    def by_rows(begin: Int, end: Int) -> None:
        code = Rows(k, body, arrays, width)
        with k.range(begin, end) as n:
            write(code, n)

    def by_columns(begin: Int, end: Int) -> None:
        code = Columns(k, body, arrays, width)
        with k.range(begin, end, host().lanes) as n:
            code.begin(n, end)
            write(code, n)

    if width <= host().lanes:
        return Work(site.rows, by_columns, -(-GRAIN // width // host().lanes) * host().lanes)
    return Work(site.rows, by_rows, max(1, GRAIN // width))


def row_width(body: Graph) -> int:
    """How many elements a row has."""
    return next(n.shape[1] for n in (*body.inputs, *body.nodes) if len(n.shape) == 2)
