"""Products that leave out the terms in which an element of the left operand is 0.

Where a ReLU and a dropout shut most of a layer, most of its gradient is 0, and so is most of the
work of the two products behind it.
"""

from __future__ import annotations

import math

from ...ir import Node
from .bits import each_noted, note_across, note_along, words
from .contract import Lanes, over_columns
from .dsl import Array, Value
from .jit import host
from .products import Product, scratch, times_rows
from .site import Int, Work

MOST_VECTORS = 16  # of a piece of the result's line, whose sums stay in registers
SPARE = 4  # registers that are needed besides them
LEFT = 8  # terms that may be left of a line's, by which pieces are chosen
LOOP = 20  # cycles that a loop over them costs, as its end is not foreseen


def scratch_bytes(node: Node, rows: int) -> int:
    """Bytes of the notes on which elements are not 0: a bit for each of a line's, in whole i64."""
    *leading, last = node.inputs[0].tensor.concrete(rows)
    lines, terms = math.prod(leading), last
    if node.attrs["transpose_a"]:
        lines, terms = terms, lines
    return 8 * lines * words(terms)


class Nonzero:
    """matmul of a [rows, terms], or with transpose_a [terms, rows], by b [terms, width].

    The elements of a line of a that are not 0 are the bits of integers, and a loop goes from bit to
    bit: each adds its line of b, times itself, to a piece of the result's line in registers.
    """

    def __init__(self, product: Product) -> None:
        node, site = product.node, product.site
        self.k, self.product = product.k, product
        self.a, self.b = product.operands
        self.across, self.width = bool(node.attrs["transpose_a"]), node.shape[-1]
        leading, inner = times_rows(node.inputs[0].shape[:-1], site.rows)
        self.lines, self.last = leading * inner, node.inputs[0].shape[-1]
        shares = 1 if self.across else site.workers
        self.columns = _vectors(self.width, shares) * host().lanes
        self.notes = scratch(product, "i64")

    def work(self) -> Work:
        """Shared out by rows where these do not come from the batch, else by columns."""
        if self.across:
            return Work(self.last, self._rows, host().lanes)
        return Work(self.width, self._columns, self.columns)

    def _rows(self, begin: Int, end: Int) -> None:
        """[begin:end, :] of the result, for a [terms, rows]."""
        note_across(self.k, self.a, self.lines, self.last, self.notes, begin, end)

        def stripe(column: Int, lanes: Lanes) -> None:
            with self.k.range(begin, end) as row:
                notes, a = self.notes.at(row), self.a.at(row)
                sums = self._sums(notes, self.last, self.lines, a, self.last, column, lanes)
                self.product.write_block(row, column, self.width, lanes, [sums])

        over_columns(self.k, self.width, self.columns, stripe)

    def _columns(self, begin: Int, end: Int) -> None:
        """[:, begin:end] of the result, for a [rows, terms]."""
        note_along(self.k, self.a, self.lines, self.last, self.notes)

        def stripe(column: Int, lanes: Lanes) -> None:
            with self.k.range(0, self.lines) as row:
                notes, a = self.notes.at(row * words(self.last)), self.a.at(row * self.last)
                sums = self._sums(notes, 1, self.last, a, 1, column, lanes)
                self.product.write_block(row, column, self.width, lanes, [sums])

        over_columns(self.k, self.width, self.columns, stripe, begin, end)

    def _sums(
        self, notes: Array, apart: int, terms: Int, a: Array, step: int, column: Int, lanes: Lanes
    ) -> list[Value]:
        """The sums of a row's columns at `lanes` from `column` on.

        Its terms are noted in words `apart` elements apart, and a's elements lie `step` apart.
        """
        k, b = self.k, self.b.at(column)

        def turn(term: Value, sums: list[Value]) -> list[Value]:
            x, line = a.load(term * step), b.at(term * self.width)
            spread = {n: k.splat(x, n) for n in {n for _, n in lanes}}
            pairs = zip(lanes, sums, strict=True)
            return [k.fma(spread[n], line.load(at, n), s) for (at, n), s in pairs]

        zeros = [k.constant(0.0, a.scalar, n) for _, n in lanes]
        return each_noted(k, notes, apart, terms, zeros, turn)


def _vectors(width: int, shares: int) -> int:
    """Vectors of a piece, so that `shares` workers have as little as possible to do."""
    vectors = -(-width // host().lanes)

    def cycles(v: int) -> float:
        rounds = -(-vectors // (v * shares))
        return rounds * (LEFT * max(v + 1, 8) / 2 + LOOP + v)

    return min(range(1, min(vectors, MOST_VECTORS, host().registers - SPARE) + 1), key=cycles)
