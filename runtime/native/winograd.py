"""Winograd's convolution: tiles of the image transformed, products of matrices, and back.

A block of tiles goes through all three: its transformed elements and products stay in cache. With a
2 x 2 pool behind it, the windows of a tile are pooled where they are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from ...ir import Node
from ...ir.ops.winograd import A_T, B_T, SEEN, G, Part, parts
from .contract import Lanes, Loop, blocking, contract, over_columns, over_rows, spans
from .dsl import Array, Function, Value
from .jit import host
from .movers import concrete
from .products import Product, scratch
from .site import Int, Site, Work

Transform = Mapping[int, Sequence[np.ndarray]]  # sparse matrices by the results a side

TILES = 16  # of a block at most: enough for the weights, which are read once for each block
ROOM = 300_000  # bytes of a block's elements and products at most: a part of the L2 cache
FEWEST = 4  # tiles of a block, however many channels they have


def most_tiles(node: Node) -> int:
    """Tiles of a block at most."""
    channels = node.inputs[0].shape[3] + node.shape[3]
    return max(FEWEST, min(TILES, ROOM // (4 * SEEN * SEEN * channels)))


def scratch_bytes(node: Node) -> int:
    """Bytes of a block's transformed elements and products."""
    return 4 * SEEN * SEEN * most_tiles(node) * (node.inputs[0].shape[3] + node.shape[3])


def block_tiles(site: Site, node: Node) -> int:
    """Tiles of a block with which the one who has most to do has least.

    A block is always done whole, and costs as much as one more tile besides.
    """
    images = site.most if node.tensor.per_row else node.shape[0]
    tiles = [(p.down * p.across * images, p) for p in parts(*node.shape[1:3])]

    def cost(count: int) -> int:
        shares = (-(-total // count // site.workers) for total, _ in tiles)
        seen = ((p.tall + 2) * (p.wide + 2) for _, p in tiles)
        return sum(a * b for a, b in zip(shares, seen, strict=True)) * (count + 1)

    return min(range(most_tiles(node), FEWEST - 1, -1), key=cost)


def emit_weights(site: Site) -> Work:
    """winograd_weights: G w G^T for every pair of channels, input channels shared out.

    A line of elements is made for all channels before the next: what is stored in a turn lies
    far apart, and would else fall into few cache sets.
    """
    (w,), (u,), k = site.operands, site.results, site.k
    _, _, c, o = site.node.shape
    factors = k.stack(w.scalar, G.size)
    for i, factor in enumerate(G.ravel().tolist()):
        factors.store(k.constant(factor, w.scalar), i)

    def run(begin: Int, end: Int) -> None:
        with k.range(0, SEEN) as i, k.range(begin, end) as channel:
            line = [factors.load(i * 3 + tap) for tap in range(3)]

            def columns(start: Int, lanes: Lanes) -> None:
                for at, n in lanes:
                    to = channel * o + start + at
                    row = [weighted(line, w.at(to + tap * c * o), 3 * c * o, n) for tap in range(3)]
                    for j, value in enumerate(applied([G], row)):
                        u.store(value, i * (SEEN * c * o) + to + j * c * o)

            over_columns(k, o, host().lanes, columns)

    return Work(c, run)


def weighted(factors: Sequence[Value], array: Array, step: int, lanes: int) -> Value:
    """The sum of factor times vector of an array, `step` apart."""
    total: Value | None = None
    for i, factor in enumerate(factors):
        term = array.load(i * step, lanes), array.k.splat(factor, lanes)
        total = term[0] * term[1] if total is None else array.k.fma(*term, total)
    assert total is not None
    return total


def emit_conv2d(product: Product) -> Work:
    """winograd_conv2d: shared out by blocks of tiles, each of its parts for itself."""
    work = product.borders()
    for part in parts(*product.node.shape[1:3]):
        work = Tiles(product, part).work(work)
    assert work is not None
    return work


class Tiles:
    """The tiles of one part of winograd_conv2d of x [N,H,W,C] with u [6,6,C,O]: y [N,Ho,Wo,O].

    They are numbered through all images; a block is as many as `count` of them, in order. Scratch
    holds a block's `elements` [down,across,count,C], of `seen` (down, across), and `products`
    [down,across,count,O]. What of them is beyond the last tile, nobody reads.
    """

    def __init__(self, product: Product, part: Part) -> None:
        node = product.node
        self.k, self.product, self.part = product.k, product, part
        self.x, self.u = product.operands
        _, self.h, self.wide, self.c = node.inputs[0].shape
        _, self.ho, self.wo, self.o = node.shape
        self.seen = part.tall + 2, part.wide + 2
        self.each = part.down * part.across  # tiles of an image
        self.total = concrete(node.shape, product.site.rows)[0] * self.each
        self.count = block_tiles(product.site, node)
        self.elements = scratch(product)
        self.products = self.elements.at(SEEN * SEEN * self.count * self.c)

    def work(self, also: Work | None) -> Work:
        """All tiles, block by block."""
        return Work(self.total, self._run, self.count, also)

    def _run(self, begin: Int, end: Int) -> None:
        """Tiles from begin to end."""
        k = self.k
        with k.range(begin, end, self.count) as first:
            count = k.minimum(end - first, self.count)
            with k.range(0, count) as t:
                self._transform(t, *self._place(first + t))
            self._multiply()
            with k.range(0, count) as t:
                self._finish(t, *self._place(first + t))

    def _place(self, tile: Int) -> tuple[Int, Int, Int]:
        """(image, line, column) of a tile's first result."""
        part, number = self.part, self.k.integer(tile)
        n, t = number // self.each, number % self.each
        line, column = t // part.across, t % part.across
        return n, line * part.tall + part.top, column * part.wide + part.left

    def _transform(self, t: Int, n: Int, line: Int, column: Int) -> None:
        """The elements of a block's tile t."""
        c, wide, apart = self.c, self.wide * self.c, self.count * self.c
        corner = n * (self.h * wide) + line * wide + column * c

        def channels(start: Int, lanes: Lanes) -> None:
            for at, count in lanes:
                x, elements = self.x.at(corner + start + at), self.elements.at(t * c + start + at)
                kept = self._columns(B_T, x, (wide, c), count)
                with self.k.range(0, self.seen[0]) as i:
                    row = self._row(B_T, kept, i, count)
                    for j, value in enumerate(row):
                        elements.store(value, i * (self.seen[1] * apart) + j * apart)

        over_columns(self.k, c, host().lanes, channels)

    def _columns(self, transform: Transform, x: Array, steps: tuple[int, int], lanes: int) -> Array:
        """Each column of the vectors that a tile sees, transformed: on the stack, line by line.

        Elements of x are steps[0] apart from line to line, steps[1] from one to the next.
        """
        (down, across), matrices = self.seen, transform[self.part.tall]
        kept = self.k.stack(x.scalar, down * across * lanes)
        with self.k.range(0, across) as j:
            column = [x.load(j * steps[1] + i * steps[0], lanes) for i in range(down)]
            for i, value in enumerate(applied(matrices, column)):
                kept.store(value, j * lanes + i * across * lanes)
        return kept

    def _row(self, transform: Transform, kept: Array, line: Int, lanes: int) -> list[Value]:
        """A line of those columns, transformed as well."""
        across = self.seen[1]
        row = [kept.load(line * (across * lanes) + j * lanes, lanes) for j in range(across)]
        return applied(transform[self.part.wide], row)

    def _multiply(self) -> None:
        """A product [count,C] by [C,O] for each element: one function for all parts."""
        k, name = self.k, f"winograd.{self.count}.{self.c}.{self.o}"
        k.procedure(
            name, [*((x, "ptr") for x in "auy"), ("down", "i64"), ("across", "i64")], self._products
        )
        pointers = [array.pointer() for array in (self.elements, self.u, self.products)]
        k.call(f"@{name}", *pointers, *map(k.integer, self.seen))

    def _products(self, k: Function) -> None:
        """y = a u for each of `down` x `across` elements, of the u that all tiles need."""
        given, (c, o, count) = k.parameters, (self.c, self.o, self.count)
        a, u, y = (Array(k, given[name], self.x.scalar) for name in "auy")
        block_rows, v = blocking(count, -(-o // host().lanes), spans)

        def block(e: Int, weights: Array, tile: Int, rows: int, column: Int, lanes: Lanes) -> None:
            offsets, terms = [p * c for p in range(rows)], [Loop(c, 1, o)]
            left = a.at(e * (count * c) + tile * c)
            for p, row in enumerate(contract(k, left, weights.at(column), terms, offsets, lanes)):
                for (at, _), value in zip(lanes, row, strict=True):
                    y.store(value, e * (count * o) + (tile + p) * o + column + at)

        def stripe(e: Int, weights: Array, column: Int, lanes: Lanes) -> None:
            over_rows(k, 0, count, block_rows, lambda t, n: block(e, weights, t, n, column, lanes))

        with k.range(0, given["down"]) as i, k.range(0, given["across"]) as j:
            e, weights = i * given["across"] + j, u.at(i * (SEEN * c * o) + j * (c * o))
            over_columns(
                k, o, v * host().lanes, lambda column, lanes: stripe(e, weights, column, lanes)
            )

    def _finish(self, t: Int, n: Int, line: Int, column: Int) -> None:
        """The results of a block's tile t, pooled if there is a pool."""
        apart, tall = self.count * self.o, 2 if self.product.pool is not None else 1

        def channels(start: Int, lanes: Lanes) -> None:
            for at, count in lanes:
                found = self.products.at(t * self.o + start + at)
                kept = self._columns(A_T, found, (self.seen[1] * apart, apart), count)
                with self.k.range(0, self.part.tall, tall) as i:
                    lines = [self._row(A_T, kept, i + r, count) for r in range(tall)]
                    self._write(lines, n, line + i, column, start + at)

        over_columns(self.k, self.o, host().lanes, channels)

    def _write(
        self, lines: Sequence[Sequence[Value]], n: Int, y: Int, x: Int, channel: Int
    ) -> None:
        """A line of a tile's results from (y, x) of image n on; two where they are pooled."""
        k, o, wo = self.k, self.o, self.wo
        if self.product.pool is None:
            for j, value in enumerate(lines[0]):
                self.product.write((n, y, x + j), channel, o, value)
            return
        first = n * (self.ho * wo) + y * wo + x
        line, column = k.integer(y) // 2, k.integer(x) // 2
        for j in range(0, self.part.wide, 2):
            spots = itertools.product((0, 1), (j, j + 1))
            entries = [(first + (r * wo + p), lines[r][p]) for r, p in spots]
            self.product.write_window((n, line, column + j // 2), channel, o, entries)


def applied(matrices: Sequence[np.ndarray], x: Sequence[Value]) -> list[Value]:
    """The matrices times x, the last one first, without the products that change nothing."""
    for matrix in reversed(matrices):
        x = [combined(row.tolist(), x) for row in matrix]
    return list(x)


def combined(factors: Sequence[float], x: Sequence[Value]) -> Value:
    """The sum of factor times value: begun with a term that is a value, if there is one."""
    terms = [(f, v) for f, v in zip(factors, x, strict=True) if f]
    terms.sort(key=lambda term: (term[0] != 1, abs(term[0]) == 1))
    factor, total = terms[0]
    if factor != 1:
        total = total * factor
    for factor, value in terms[1:]:
        if abs(factor) == 1:
            total = total + value if factor > 0 else total - value
        else:
            total = value.k.fma(value, value.k.like(factor, value), total)
    return total
