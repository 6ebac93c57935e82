"""Products of matrices by generated loops, with the pointwise work that follows them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ...ir import Graph, Node
from ...ir.graph import result_types
from ...passes.fuse import ANCHORS
from .contract import (
    Lanes,
    Loop,
    blocking,
    contract_in_parts,
    evenly,
    over_columns,
    over_rows,
    sharing,
    spans,
    with_singles,
)
from .dsl import BITS, Array, Value
from .jit import host
from .lanes import Body, Spot, length, put
from .movers import borders
from .pools import better
from .site import Int, Site, Work

WRITTEN = 100  # instructions up to which what follows a block's sums is written out for each
FEW = 8  # sums of a block that are too few where there could be more
UPDATED = 16  # vectors of a block that an update then reads and writes: few, its code is long
LINE = 8  # vectors of a line that an update goes through together
PANEL_WIDTH = 256  # columns from which lines lie so far apart that they fall into few cache sets
PANEL_BYTES = 1 << 17  # of an operand from which it stays in no first-level cache
PANEL_LINES = 48  # on the left from which copying a panel is little beside its use


Leading = Int | tuple[Int, Int, Int]  # all indices but the last: a row, or (image, line, place)


class Product:
    """A product at a site: its node, operands, and how its elements are written.

    A fused node has a product first, and then pointwise work on its elements. It may have a
    max-pool between them; then `pool` is that, and `write_window` takes all entries of a window.
    What it makes of images may get a border.
    """

    def __init__(self, site: Site) -> None:
        self.k, self.site, self.accumulate = site.k, site, site.accumulate
        self.pool: Node | None = None
        self.outputs: list[tuple[Node, Array]] = []  # of a fused node
        body: Graph | None = site.node.attrs.get("body")
        if body is None:
            self.node, self.operands, self.body = site.node, list(site.operands), None
            return
        self.node = next(n for n in body.nodes if n.op in ANCHORS)
        arrays = dict(zip(body.inputs, site.operands, strict=True))
        self.operands = [arrays[x] for x in self.node.inputs]
        rank = len(self.node.shape)
        cut = (tuple(range(rank - 1)), (rank - 1,))
        self.outputs = list(zip(body.outputs.values(), site.results, strict=True))
        inside = [n for n in body.nodes if n.op != "pad"]
        made = [bordered(n) for n, _ in self.outputs]
        self.pool = next((n for n in body.nodes if n.op == "max_pool2d"), None)
        if self.pool is None:
            self.body = Body(self.k, body, arrays, cut, inside, made)
            return
        at = inside.index(self.pool)
        early = [n for n in inside[:at] if n is not self.node]
        late = [n for n in inside[at + 1 :] if n.op != "item"]
        self.items = {n.attrs["index"]: n for n in body.users[self.pool]}
        self.before = Body(self.k, body, arrays, cut, early, self.pool.inputs)
        self.body = Body(self.k, body, arrays, cut, late, made)

    def borders(self) -> Work | None:
        """The borders of results that have one, as work of its own, shared out by images."""
        work: Work | None = None
        for node, array in self.outputs:
            if node.op == "pad":
                work = self._border(node, array, work)
        return work

    def _border(self, pad: Node, array: Array, also: Work | None) -> Work:
        step = math.prod(pad.shape[1:])

        def run(begin: Int, end: Int) -> None:
            borders(self.k, pad, array.at(begin * step), end - begin)

        return Work(times_rows(pad.shape[:1], self.site.rows)[0], run, also=also)

    def write(self, leading: Leading, column: Int, width: int, value: Value) -> None:
        """Finishes the elements (leading, column...) of a result `width` wide, and stores them."""
        flat = self._number(leading, self.node.shape) * width + column
        if self.body is None:
            (result,) = self.site.results
            if self.accumulate and not self.node.tensor.per_row:
                value = result.load(flat, value.lanes) + value
            result.store(value, flat)
            return
        self._finish(leading, column, self.node.shape, {self.node: value})

    def write_block(
        self, row: Int, column: Int, width: int, lanes: Lanes, sums: Sequence[Sequence[Value]]
    ) -> None:
        """Finishes a block of sums, lines from `row` on: where that is long, in a loop."""
        turns = len(sums) * len(lanes)
        if turns == 1 or turns * self._length <= WRITTEN or not _alike(lanes):
            for p, values in enumerate(sums):
                for (start, _), value in zip(lanes, values, strict=True):
                    self.write(row + p, column + start, width, value)
            return
        k, n = self.k, lanes[0][1]
        kept = k.stack(sums[0][0].scalar, turns * n)
        for number, value in enumerate(itertools.chain.from_iterable(sums)):
            kept.store(value, number * n)
        with k.range(0, len(sums)) as i, k.range(0, len(lanes) * n, n) as at:
            value = kept.load(i * (len(lanes) * n) + at, n)
            self.write(row + i, column + at, width, value)

    @cached_property
    def _length(self) -> int:
        """About how many instructions `write` is."""
        return length(self.body.nodes) if self.body is not None else 1

    def write_window(
        self, leading: Leading, column: Int, width: int, entries: Sequence[tuple[Int, Value]]
    ) -> None:
        """Pools the entries of a window, each (its own position's number, value), and goes on."""
        k, pool = self.k, self.pool
        assert pool is not None
        best = which = None
        for number, (own, value) in enumerate(entries):
            spot = Spot((own, column), own * width + column, value.lanes, self.site.row)
            x = self.before.at(spot, {self.node: value})[pool.inputs[0]]
            if best is None or which is None:
                best, which = x, k.constant(0, "i8", value.lanes)
                continue
            wins = better(x, best)
            best = k.select(wins, x, best)
            which = k.select(wins, k.constant(number, "i8", value.lanes), which)
        found = {0: best, 1: which}
        given = {node: found[i] for i, node in self.items.items()}
        self._finish(leading, column, result_types(pool)[0].shape, given)

    def _finish(
        self, leading: Leading, column: Int, shape: tuple, given: Mapping[Node, Any]
    ) -> None:
        """Evaluates what follows `given`, a vector of a result of `shape`, and stores it."""
        assert self.body is not None
        lanes, position = next(iter(given.values())).lanes, self._number(leading, shape)
        flat = position * shape[-1] + column
        env = self.body.at(Spot((position, column), flat, lanes, self.site.row), given)
        for node, array in self.outputs:
            at = flat
            if node.op == "pad":
                assert isinstance(leading, tuple)
                (_, top, left, _), (n, y, x) = node.attrs["low"], leading
                at = self._number((n, y + top, x + left), node.shape) * shape[-1] + column
            put(array, env[bordered(node)], at, lanes)

    @staticmethod
    def _number(leading: Leading, shape: tuple) -> Int:
        """The number of a position in images of `shape`, or a row's own."""
        if not isinstance(leading, tuple):
            return leading
        (n, y, x), (_, high, wide, _) = leading, shape
        return n * (high * wide) + y * wide + x


def emit_matmul(product: Product) -> Work:
    """matmul, b not transposed, and panel_matmul."""
    return Matmul(product).work()


class Matmul:
    """`rows` times `width` results, a block of whose rows and columns is summed in registers.

    a is [rows, terms], or with transpose_a [terms, rows]; b is [terms, width], or panels of columns
    [panels, terms, of width]. Where b is so wide that the lines of a block's columns lie far apart,
    they are copied together first, for all rows of blocks (see `panel_bytes`).
    """

    def __init__(self, product: Product) -> None:
        node, site = product.node, product.site
        self.k, self.product = product.k, product
        self.a, self.b = product.operands
        self.rows: Int
        right = node.inputs[1].shape
        self.width, self.line = node.shape[-1], right[-1]  # columns, and those of a line of b
        if node.attrs.get("transpose_a"):
            n, inner = times_rows(node.inputs[0].shape[:-1], site.rows)
            left = node.shape[0]
            self.rows, self.row_step, self.terms = left, 1, Loop(n * inner, left, self.width)
        else:
            n, inner = times_rows(node.shape[:-1], site.rows)
            depth = right[-2]
            self.rows, self.row_step, self.terms = n * inner, depth, Loop(depth, 1, self.line)
        self._choose_blocks(self.rows if isinstance(self.rows, int) else site.most * inner)

    def _choose_blocks(self, most: int) -> None:
        """Sizes of a block, for `most` rows at most, and whether columns are shared out."""
        node, vectors = self.product.node, -(-self.line // host().lanes)
        self.copied = scratch(self.product) if panel_bytes(node, self.product.site.most) else None
        wide = self.width > host().lanes
        self.by_columns = wide and (self.width > most or self.copied is not None)
        cover = spans if isinstance(self.rows, int) else evenly
        self.block_rows, v = blocking(most, vectors, cover, in_parts=True)
        # Blocks divide the most rows there are, and one that is begun is done whole: it reads rows
        # beyond the batch's, for which there must be room, and what it makes of them, nobody reads.
        # In a region those are rows of other tiles.
        alone = isinstance(self.product.site.row, int)
        self.beyond = cover is evenly and alone and self.block_rows * v >= min(FEW, most * vectors)
        if cover is evenly and not self.beyond:
            cover = with_singles
            self.block_rows, v = blocking(most, vectors, cover, in_parts=True)
        if self.by_columns and not self._in_panels:
            v = sharing(most, self.block_rows, v, vectors, cover, self.product.site.workers)
        if _large_operands(self.product) > 1:  # an update: whole lines of all it reads and writes
            v = min(LINE, vectors)
            self.block_rows, self.beyond = max(1, UPDATED // v), False
        self.columns = v * host().lanes

    @property
    def _in_panels(self) -> bool:
        """Whether b's columns are divided among several panels."""
        return self.line != self.width

    def work(self) -> Work:
        """Shared out by columns where they are many, else by rows."""
        if self.by_columns:
            grain = self.line if self._in_panels else self.columns
            return Work(self.width, lambda a, b: self._part(0, self.rows, a, b), grain)
        return Work(self.rows, lambda a, b: self._part(a, b, 0, self.width), self.block_rows)

    def _part(self, top: Int, bottom: Int, begin: Int, end: Int) -> None:
        """[top:bottom, begin:end] of the result."""
        k = self.k
        if not self._in_panels:

            def stripe(column: Int, lanes: Lanes) -> None:
                self._stripe(top, bottom, self.b.at(column), column, lanes)

            over_columns(k, self.width, self.columns, stripe, begin, end)
            return
        with k.range(begin, end, self.line) as first:
            panel = self.b.at(first * self.product.node.inputs[1].shape[1])

            def inside(column: Int, lanes: Lanes) -> None:
                self._stripe(top, bottom, panel.at(column), first + column, lanes)

            over_columns(k, self.line, self.columns, inside)

    def _stripe(self, begin: Int, end: Int, b: Array, column: Int, lanes: Lanes) -> None:
        """Rows from begin to end of the columns at `lanes` from `column` on, where b begins."""
        terms = self.terms
        if self.copied is not None:
            self._copy(b, self.copied, lanes)
            b, terms = self.copied, Loop(terms.extent, terms.a, self.columns)

        def block(row: Int, count: int) -> None:
            offsets = [p * self.row_step for p in range(count)]
            a = self.a.at(row * self.row_step)
            sums = contract_in_parts(self.k, a, b, terms, offsets, lanes)
            self.product.write_block(row, column, self.width, lanes, sums)

        if not self.beyond:
            over_rows(self.k, begin, end, self.block_rows, block)
            return
        with self.k.range(begin, end, self.block_rows) as row:
            block(row, self.block_rows)

    def _copy(self, b: Array, panel: Array, lanes: Lanes) -> None:
        """A block's columns of b to the panel [terms, columns]."""
        with self.k.range(0, self.terms.extent) as i:
            for at, n in lanes:
                panel.store(b.load(i * self.terms.b + at, n), i * self.columns + at)


def scratch(product: Product, scalar: str = "float") -> Array:
    """The scratch of this worker alone."""
    room = product.site.room
    return Array(product.k, room.base, scalar, room.offset * 8 // BITS[scalar])


def panel_bytes(node: Node, rows: int) -> int:
    """Scratch for a matmul whose right operand's columns are copied together, block by block.

    That pays where the operand is wider than PANEL_WIDTH and larger than PANEL_BYTES, and has
    rows enough on its left: 0 elsewhere.
    """
    if node.op == "panel_matmul":
        return 0
    a, b = (x.tensor.concrete(rows) for x in node.inputs)
    terms, lines = math.prod(b[:-1]), math.prod(a[:-1])
    if node.attrs["transpose_a"]:
        lines = a[-1]
    if b[-1] < PANEL_WIDTH or terms * b[-1] * 4 < PANEL_BYTES or lines < PANEL_LINES:
        return 0
    return terms * LINE * host().lanes * 4


def bordered(node: Node) -> Node:
    """What a node puts a border around, or the node itself."""
    return node.inputs[0] if node.op == "pad" else node


def _alike(lanes: Lanes) -> bool:
    """Whether all vectors of a block are as wide."""
    return len({n for _, n in lanes}) == 1


def _large_operands(product: Product) -> int:
    """How many operands as large as the result its epilogue reads."""
    body = product.site.node.attrs.get("body")
    return sum(x.shape == product.node.shape for x in body.inputs) if body is not None else 0


def times_rows(leading: Sequence, rows: Int) -> tuple[Int, int]:
    """Leading axes as (rows, what they are multiplied by); (1, n) where there is no N."""
    rowed = bool(leading) and not isinstance(leading[0], int)
    return (rows, math.prod(leading[1:])) if rowed else (1, math.prod(leading))
