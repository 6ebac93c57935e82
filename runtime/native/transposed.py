"""Products by the rows of the right operand: matmul with transpose_b, and nothing large copied."""

from __future__ import annotations

from ...ir import Node
from .contract import Lanes, Loop, contract_in_parts, over_columns, over_rows
from .dsl import Array, Value
from .jit import host
from .products import Product, scratch, times_rows
from .site import Int, Work
from .sweep import lanes_of
from .turning import turn

DOTS = 4  # rows of either operand of a block of dot products: 16 sums, enough to hide their latency
HALF = 8  # rows of b whose sums with two vectors of a's rows fit into registers


def emit(product: Product) -> Work:
    """matmul with transpose_b, in either form."""
    form = Turned if product.node.attrs["form"] == "turned" else Dots
    return form(product).work()


def panel_bytes(node: Node, rows: int) -> int:
    """Scratch of each worker: the left operand transposed, for `Turned`."""
    if node.attrs["form"] != "turned":
        return 0
    leading, inner = times_rows(node.shape[:-1], rows)
    assert isinstance(leading, int)
    return 4 * _whole(leading * inner) * node.inputs[1].shape[1]


class Dots:
    """matmul with transpose_b: dot products of a's rows [rows, depth] with b's [width, depth].

    Both lie along the lanes, so nothing is copied or spread; sums go over the lanes at the end.
    """

    def __init__(self, product: Product) -> None:
        node, site = product.node, product.site
        self.k, self.product = product.k, product
        self.a, self.b = product.operands
        self.rows, self.inner = times_rows(node.shape[:-1], site.rows)
        self.width, self.depth = node.inputs[1].shape
        self.block_rows = min(DOTS, max(1, site.most * self.inner))

    def work(self) -> Work:
        """Shared out by columns of the result."""
        return Work(self.width, self._run, DOTS)

    def _run(self, begin: Int, end: Int) -> None:
        over_rows(self.k, begin, end, DOTS, self._stripe)

    def _stripe(self, column: Int, columns: int) -> None:
        """All rows of some columns of the result."""

        def block(row: Int, count: int) -> None:
            sums = iter(self._sums(row, count, column, columns))
            for p in range(count):
                for q in range(columns):
                    self.product.write(row + p, column + q, self.width, next(sums))

        over_rows(self.k, 0, self.rows * self.inner, self.block_rows, block)

    def _sums(self, row: Int, count: int, column: Int, columns: int) -> list[Value]:
        """The results of a block, row by row: whole vectors of terms, then the rest of them."""
        k, scalar, lanes = self.k, self.a.scalar, host().lanes
        whole, rest = self.depth // lanes * lanes, self.depth % lanes

        def step(i: Int, acc: list[Value], n: int = lanes) -> list[Value]:
            xs = [self.a.load((row + p) * self.depth + i, n) for p in range(count)]
            ys = [self.b.load((column + q) * self.depth + i, n) for q in range(columns)]
            pairs = [(x, y) for x in xs for y in ys]
            return [k.fma(x, y, z) for (x, y), z in zip(pairs, acc, strict=True)]

        sums: list[Value] = []
        if whole:
            zeros = [k.constant(0.0, scalar, lanes)] * (count * columns)
            sums = [k.reduce("fadd", v, -0.0) for v in k.fold(0, whole, zeros, step, lanes)]
        if rest:
            zeros = [k.constant(0.0, scalar, rest)] * (count * columns)
            tails = [k.reduce("fadd", v, -0.0) for v in step(whole, zeros, rest)]
            sums = [s + t for s, t in zip(sums, tails, strict=True)] if sums else tails
        return sums


class Turned:
    """The same with a's rows in the lanes, for a [rows, depth] that is small.

    Each worker transposes a into a panel [depth, rows]. A block has as many of b's rows as there
    are lanes, by one or two vectors of a's; it is transposed when it is stored.
    """

    def __init__(self, product: Product) -> None:
        node, site = product.node, product.site
        self.k, self.product = product.k, product
        self.a, self.b = product.operands
        leading, inner = times_rows(node.shape[:-1], site.rows)
        self.rows = leading * inner
        self.width, self.depth = node.inputs[1].shape
        self.across = _whole(self.rows if isinstance(self.rows, int) else site.most * inner)
        self.columns = host().lanes * (1 if self.across // host().lanes % 2 else 2)
        self.panel = scratch(product)

    def work(self) -> Work:
        """Shared out by columns of the result."""
        return Work(self.width, self._run, host().lanes)

    def _run(self, begin: Int, end: Int) -> None:
        self._copy()
        over_columns(self.k, self.width, host().lanes, self._block, begin, end)

    def _copy(self) -> None:
        """a to the panel: squares in registers, the rest one by one."""
        k, lanes = self.k, host().lanes
        rows, terms = self.k.integer(self.rows) // lanes * lanes, self.depth // lanes * lanes
        with k.range(0, rows, lanes) as row, k.range(0, terms, lanes) as term:
            source = self.a.at(row * self.depth + term)
            turn(k, source, self.depth, self.panel.at(term * self.across + row), self.across)
        for first_row, first_term, last_term in ((rows, 0, terms), (0, terms, self.depth)):
            with k.range(first_row, self.rows) as row, k.range(first_term, last_term) as term:
                value = self.a.load(row * self.depth + term)
                self.panel.store(value, term * self.across + row)

    def _block(self, column: Int, lanes: Lanes) -> None:
        """All rows of as many columns as there are lanes, or fewer."""
        k, width, ((_, count),) = self.k, host().lanes, lanes
        sums = k.stack(self.a.scalar, width * self.columns)
        square = k.stack(self.a.scalar, width * width)
        with k.range(0, self.rows, self.columns) as row:
            over_rows(k, 0, count, HALF, lambda i, n: self._sums(row, column, i, n, sums))
            with k.range(0, self.columns, width) as part:
                turn(k, sums.at(part), self.columns, square, width)
                first = row + part
                with k.range(0, k.minimum(self.rows - first, width)) as i:
                    value = square.load(i * width, count)
                    self.product.write(first + i, column, self.width, value)

    def _sums(self, row: Int, column: Int, first: Int, count: int, sums: Array) -> None:
        """Some rows of a block before it is transposed."""
        b, a = self.b.at((column + first) * self.depth), self.panel.at(row)
        terms, offsets = Loop(self.depth, 1, self.across), [i * self.depth for i in range(count)]
        lanes = lanes_of(self.columns, host().lanes)
        for i, values in enumerate(contract_in_parts(self.k, b, a, terms, offsets, lanes)):
            for (at, _), value in zip(lanes, values, strict=True):
                sums.store(value, (first + i) * self.columns + at)


def _whole(rows: int) -> int:
    """So many rows, filled up to whole vectors."""
    return -(-rows // host().lanes) * host().lanes
