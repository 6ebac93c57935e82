"""Winograd's convolution: tiles of the image transformed, products of matrices, and back.

A block of tiles goes through all three: its transformed elements and products stay in cache. With a
2 x 2 pool behind it, the windows of a tile are pooled where they are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from ...ir import Node
from ...ir.ops.winograd import A_T, B_T, SEEN, G, Strip, strips
from .contract import Lanes, Loop, blocking, contract, over_columns, over_rows, spans
from .dsl import Array, Value
from .jit import host
from .movers import concrete
from .products import Product, scratch
from .site import Int, Site, Work

TILES = 16  # of a block at most: enough for the weights, which are read once for each block
ROOM = 300_000  # bytes of a block's elements and products at most: a part of the L2 cache
FEWEST = 4  # tiles of a block, however many channels they have


def most_tiles(node: Node) -> int:
    """Tiles of a block at most."""
    channels = node.inputs[0].shape[3] + node.shape[3]
    return max(FEWEST, min(TILES, ROOM // (4 * SEEN * SEEN * channels)))


def scratch_bytes(node: Node) -> int:
    """Bytes of a block's transformed elements and products."""
    channels = node.inputs[0].shape[3] + node.shape[3]
    return 4 * SEEN * SEEN * most_tiles(node) * channels


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
    """winograd_conv2d: shared out by blocks of tiles, those of 4 x 4 and those of 2 x 2."""
    _, h, w, _ = product.node.shape
    work: Work | None = None
    for _, alike in itertools.groupby(strips(h, w), lambda strip: strip.size):
        work = Tiles(product, list(alike)).work(work)
    assert work is not None
    return work


class Tiles:
    """The tiles of one size of winograd_conv2d of x [N,H,W,C] with u [6,6,C,O]: y [N,Ho,Wo,O].

    Tiles are numbered through all strips of all images; a block is as many as `count` of them, in
    order. Scratch holds a block's `elements` [seen,seen,count,C] and `products`
    [seen,seen,count,O]. What of them is beyond the last tile, nobody reads.
    """

    def __init__(self, product: Product, alike: Sequence[Strip]) -> None:
        node, site = product.node, product.site
        self.k, self.product, self.strips = product.k, product, alike
        self.x, self.u = product.operands
        _, self.h, self.wide, self.c = node.inputs[0].shape
        _, self.ho, self.wo, self.o = node.shape
        self.size = alike[0].size
        self.seen = self.size + 2
        self.each = sum(strip.down * strip.across for strip in alike)  # tiles of an image
        self.total = concrete(node.shape, site.rows)[0] * self.each
        most = site.most * self.each if node.tensor.per_row else self.each * node.shape[0]
        turns = -(-most // (most_tiles(node) * site.workers))  # blocks that a worker does
        self.count = -(-most // (turns * site.workers))
        self.steps = self.count * self.c, self.count * self.o  # from one element to the next
        self.elements = scratch(product)
        self.products = self.elements.at(self.seen * self.seen * self.steps[0])

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
        number = self.k.integer(tile)
        n, t = number // self.each, number % self.each
        places = list(self._places(t))
        if len(places) == 1:
            return n, *places[0]
        here = t < self.strips[0].down * self.strips[0].across
        line, column = (self.k.select(here, a, b) for a, b in zip(*places, strict=True))
        return n, line, column

    def _places(self, t: Value) -> Iterator[tuple[Value, Value]]:
        """Line and column of tile t in each strip, t counted on from one to the next."""
        for strip in self.strips:
            line, column = t // strip.across, t % strip.across
            yield line * strip.size + strip.top, column * strip.size + strip.left
            t = self.k.integer(t - strip.down * strip.across)

    def _transform(self, t: Int, n: Int, line: Int, column: Int) -> None:
        """The elements of a block's tile t."""
        c, wide, seen, to = self.c, self.wide * self.c, self.seen, self.steps[0]
        corner = n * (self.h * wide) + line * wide + column * c

        def channels(start: Int, lanes: Lanes) -> None:
            for at, count in lanes:
                x, elements = self.x.at(corner + start + at), self.elements.at(t * c + start + at)
                kept = self._columns(B_T[self.size], x, (wide, c), count)
                with self.k.range(0, seen) as i:
                    row = [kept.load(i * (seen * count) + j * count, count) for j in range(seen)]
                    for j, value in enumerate(applied(B_T[self.size], row)):
                        elements.store(value, i * (seen * to) + j * to)

        over_columns(self.k, c, host().lanes, channels)

    def _columns(
        self, matrices: Sequence[np.ndarray], x: Array, steps: tuple[int, int], lanes: int
    ) -> Array:
        """The matrices times each column of [seen,seen] vectors: lines of `seen`, on the stack.

        Elements of x are steps[0] apart from line to line, steps[1] from one to the next.
        """
        kept = self.k.stack(x.scalar, self.seen * self.seen * lanes)
        with self.k.range(0, self.seen) as j:
            column = [x.load(j * steps[1] + i * steps[0], lanes) for i in range(self.seen)]
            for i, value in enumerate(applied(matrices, column)):
                kept.store(value, j * lanes + i * self.seen * lanes)
        return kept

    def _multiply(self) -> None:
        """A product [count,C] by [C,O] for each element."""
        block_rows, v = blocking(self.count, -(-self.o // host().lanes), spans)
        with self.k.range(0, self.seen) as i, self.k.range(0, self.seen) as j:
            e, weights = i * self.seen + j, (i * SEEN + j) * (self.c * self.o)

            def stripe(column: Int, lanes: Lanes) -> None:
                def block(tile: Int, rows: int) -> None:
                    self._product(e, self.u.at(weights + column), tile, rows, column, lanes)

                over_rows(self.k, 0, self.count, block_rows, block)

            over_columns(self.k, self.o, v * host().lanes, stripe)

    def _product(self, e: Int, u: Array, tile: Int, rows: int, column: Int, lanes: Lanes) -> None:
        """Rows from `tile` on of the e-th product, at some columns."""
        c, o = self.c, self.o
        elements = self.elements.at(e * self.steps[0] + tile * c)
        offsets = [p * c for p in range(rows)]
        sums = contract(self.k, elements, u, [Loop(c, 1, o)], offsets, lanes)
        for p, row in enumerate(sums):
            for (at, _), value in zip(lanes, row, strict=True):
                self.products.store(value, e * self.steps[1] + (tile + p) * o + column + at)

    def _finish(self, t: Int, n: Int, line: Int, column: Int) -> None:
        """The results of a block's tile t, pooled if there is a pool."""
        steps, seen = (self.seen * self.steps[1], self.steps[1]), self.seen
        tall = 2 if self.product.pool is not None else 1

        def channels(start: Int, lanes: Lanes) -> None:
            for at, count in lanes:
                found = self.products.at(t * self.o + start + at)
                kept = self._columns(A_T[self.size], found, steps, count)
                with self.k.range(0, self.size, tall) as i:
                    lines = []
                    for r in range(tall):
                        first = i * (seen * count) + r * seen * count
                        row = [kept.load(first + j * count, count) for j in range(seen)]
                        lines.append(applied(A_T[self.size], row))
                    self._write(lines, n, line + i, column, start + at)

        over_columns(self.k, self.o, host().lanes, channels)

    def _write(
        self, lines: Sequence[Sequence[Value]], n: Int, y: Int, x: Int, channel: Int
    ) -> None:
        """A line of a tile's results from (y, x) of image n on; two where they are pooled."""
        k, o, wo = self.k, self.o, self.wo
        first = n * (self.ho * wo) + y * wo + x
        if self.product.pool is None:
            for j, value in enumerate(lines[0]):
                self.product.write(first + j, channel, o, value)
            return
        windows = wo // 2
        window = n * (self.ho // 2 * windows) + k.integer(y) // 2 * windows + k.integer(x) // 2
        for j in range(0, self.size, 2):
            spots = itertools.product((0, 1), (j, j + 1))
            entries = [(first + (r * wo + p), lines[r][p]) for r, p in spots]
            self.product.write_window(window + j // 2, channel, o, entries)


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
