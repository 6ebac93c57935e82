"""Work on one row at a time: softmax, its loss and gradient, and what else reduces rows of a matrix.

A row is a few vectors, held in registers from the first operand to the last result; a reduction over
it is one number, which a broadcast spreads again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir import OPS, Graph, Node
from .dsl import DTYPE_SCALARS, Array, Function, Value
from .jit import host
from .lanes import LANES, as_boolean, put
from .reductions import first_largest
from .site import Int, Site, Work
from .sweep import GRAIN, lanes_of

REDUCING = ("sum", "max", "one_hot", "correct")  # what makes a fused body row by row

Row = list[Value]  # the vectors of a row, or one scalar


class Rows:
    """A fused body over rows: operands are loaded where they are first needed."""

    def __init__(self, k: Function, body: Graph, arrays: dict[Node, Array], width: int) -> None:
        self.k, self.body, self.arrays, self.width = k, body, arrays, width
        self.lanes = lanes_of(width, host().lanes)
        self.fixed = {n: [self._load(n, 0, 0)] for n in body.inputs if n.shape == ()}

    def at(self, n: Int) -> dict[Node, Row]:
        """The values of all nodes for row n."""
        env = dict(self.fixed)
        for node in self.body.nodes:
            for x in node.inputs:
                if x not in env:
                    env[x] = self._operand(x, n)
            env[node] = self._apply(node, [env[x] for x in node.inputs])
        return env

    def _operand(self, x: Node, n: Int) -> Row:
        if len(x.shape) == 1 and x.tensor.per_row:
            return [self._load(x, n, 0)]
        first = n * self.width if x.tensor.per_row else 0
        return [self._load(x, first + start, lanes) for start, lanes in self.lanes]

    def _load(self, x: Node, at: Int, lanes: int) -> Value:
        value = self.arrays[x].load(at, lanes)
        return as_boolean(value) if x.dtype == "bool" else value

    def _apply(self, node: Node, rows: Sequence[Row]) -> Row:
        k, attrs = self.k, dict(node.attrs)
        wide = len(node.shape) == 2
        match node.op:
            case "full":
                scalar = DTYPE_SCALARS[node.dtype]
                return [k.constant(attrs["value"], scalar, n) for n in self._widths(wide)]
            case "broadcast":
                (row,) = rows
                return row * len(self.lanes) if wide and not row[0].lanes else row
            case "sum":
                return [self._total(rows[0], "fadd", -0.0)]
            case "max":
                return [self._total(rows[0], "fmaximum", None)]
            case "one_hot":
                return self._one_hot(rows[0][0])
            case "correct":
                winner = first_largest(rows[0], self._total(rows[0], "fmaximum", None))
                return [k.compare("eq", winner, rows[1][0])]
        return [self._one(node, parts, attrs) for parts in zip(*rows, strict=True)]

    def _one(self, node: Node, parts: Sequence[Value], attrs: dict[str, Any]) -> Value:
        lanes = max(x.lanes for x in parts)
        level = [self.k.splat(x, lanes) if lanes and not x.lanes else x for x in parts]
        return OPS[node.op].evaluate(LANES, *level, **attrs)

    def _widths(self, wide: bool) -> list[int]:
        return [n for _, n in self.lanes] if wide else [0]

    def _total(self, row: Row, how: str, start: float | None) -> Value:
        combine = LANES.add if how == "fadd" else LANES.maximum
        whole = [v for v in row if v.lanes == row[0].lanes]
        total = whole[0]
        for v in whole[1:]:
            total = combine(total, v)
        result = self.k.reduce(how, total, start)
        for v in row[len(whole) :]:
            result = combine(result, self.k.reduce(how, v, start))
        return result

    def _one_hot(self, label: Value) -> Row:
        k = self.k
        short = k.convert("trunc", label, "i32")
        return [
            k.compare("eq", k.splat(short, n), k.lane_numbers(n, "i32") + start)
            for start, n in self.lanes
        ]


def emit(site: Site) -> Work:
    """A fused node whose body reduces rows."""
    body: Graph = site.node.attrs["body"]
    arrays = dict(zip(body.inputs, site.operands, strict=True))
    width = row_width(body)
    code = Rows(site.k, body, arrays, width)

    def run(begin: Int, end: Int) -> None:
        with site.k.range(begin, end) as n:
            env = code.at(n)
            for node, array in zip(body.outputs.values(), site.results, strict=True):
                if len(node.shape) == 1:
                    put(array, env[node][0], n, 0)
                    continue
                for (start, lanes), value in zip(code.lanes, env[node], strict=True):
                    put(array, value, n * width + start, lanes)

    return Work(site.rows, run, max(1, GRAIN // width))


def row_width(body: Graph) -> int:
    """How many elements a row has."""
    return next(n.shape[1] for n in (*body.inputs, *body.nodes) if len(n.shape) == 2)
