"""Winograd's convolution: tiles of the image transformed, 16 products of matrices, and back.

A block of tiles goes through all three: its transformed elements and products stay in cache. With a
2 x 2 pool behind it, a tile is a window of that, and pooled where it is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...ir import Node
from ...ir.ops.winograd import A_T, B_T, G
from .contract import Lanes, Loop, blocking, contract, over_columns, over_rows, spans
from .dsl import Array, Value
from .jit import host
from .movers import concrete
from .products import Product, scratch
from .site import Int, Site, Work
from .sweep import lanes_of

TILES = 14  # of a block, if a line of tiles is no longer: at 64 channels they fill 114 KB of L2
ELEMENTS = 16  # of a transformed tile, 4 x 4: as many products of matrices


def tile_lines(node: Node) -> tuple[int, int]:
    """(lines of tiles in a block, tiles in a line); blocks divide a plane, so all are alike."""
    _, h, w, _ = node.shape
    across = w // 2
    most = max(1, TILES // across)
    return max(lines for lines in range(1, most + 1) if h // 2 % lines == 0), across


def scratch_bytes(node: Node) -> int:
    """Bytes of a block's transformed elements and products."""
    lines, across = tile_lines(node)
    return 4 * ELEMENTS * lines * across * (node.inputs[0].shape[3] + node.shape[3])


def emit_weights(site: Site) -> Work:
    """winograd_weights: G w G^T for every pair of channels, input channels shared out."""
    (w,), (u,), k = site.operands, site.results, site.k
    _, _, c, o = site.node.shape

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as channel:
            for start, lanes in lanes_of(o, host().lanes):
                at = channel * o + start
                taps = square(w, at, (3 * c * o, c * o), lanes, 3)
                for e, value in enumerate(itertools.chain(*both_sides(G.tolist(), taps))):
                    u.store(value, at + e * c * o)

    return Work(c, run)


def emit_conv2d(product: Product) -> Work:
    """winograd_conv2d: shared out by blocks of tiles."""
    images = concrete(product.node.shape, product.site.rows)[0]
    made = Winograd(product)
    return Work(images * made.blocks, made.run)


class Winograd:
    """winograd_conv2d of x [N,H,W,C] with u [4,4,C,O]: y [N,Ho,Wo,O], block by block of tiles.

    Scratch holds a block's `elements` [16,tiles,C] and `products` [16,tiles,O], with room for
    `most` tiles: `lines` lines of `across` tiles each.
    """

    def __init__(self, product: Product) -> None:
        node = product.node
        self.k, self.product = product.k, product
        self.x, self.u = product.operands
        _, self.h, self.wide, self.c = node.inputs[0].shape
        _, self.ho, self.wo, self.o = node.shape
        self.lines, self.across = tile_lines(node)
        self.most = self.lines * self.across
        self.elements = scratch(product)
        self.products = self.elements.at(ELEMENTS * self.most * self.c)

    @property
    def blocks(self) -> int:
        """How many an image has."""
        return int(self.ho // 2 // self.lines)

    def run(self, begin: Int, end: Int) -> None:
        """Blocks from begin to end, of one image after the other."""
        with self.k.range(begin, end) as i:
            block = self.k.integer(i)
            n, y = block // self.blocks, block % self.blocks * self.lines
            self._transform(n, y)
            self._multiply()
            self._finish(n, y)

    def _transform(self, n: Int, y: Int) -> None:
        """The elements of a block's tiles, whose lines begin at y."""
        k, c, wide = self.k, self.c, self.wide * self.c
        image = n * (self.h * wide)
        with k.range(0, self.lines) as line, k.range(0, self.across) as q:
            corner = image + (y + line) * (2 * wide) + q * (2 * c)
            for start, lanes in lanes_of(c, host().lanes):
                seen = square(self.x, corner + start, (wide, c), lanes)
                to = line * (self.across * c) + q * c + start
                for e, value in enumerate(itertools.chain(*both_sides(B_T.tolist(), seen))):
                    self.elements.store(value, to + e * self.most * c)

    def _multiply(self) -> None:
        """16 products [tiles,C] by [C,O]."""
        block_rows, v = blocking(self.most, -(-self.o // host().lanes), spans)
        with self.k.range(0, ELEMENTS) as e:

            def stripe(column: Int, lanes: Lanes) -> None:
                def block(tile: Int, count: int) -> None:
                    self._product(e, tile, count, column, lanes)

                over_rows(self.k, 0, self.most, block_rows, block)

            over_columns(self.k, self.o, v * host().lanes, stripe)

    def _product(self, e: Int, tile: Int, count: int, column: Int, lanes: Lanes) -> None:
        """Rows from `tile` on of the e-th product, at some columns."""
        c, o, most = self.c, self.o, self.most
        a, b = self.elements.at(e * (most * c) + tile * c), self.u.at(e * (c * o) + column)
        offsets = [p * c for p in range(count)]
        values = contract(self.k, a, b, [Loop(c, 1, o)], offsets, lanes)
        for p, row in enumerate(values):
            for (at, _), value in zip(lanes, row, strict=True):
                self.products.store(value, e * (most * o) + (tile + p) * o + column + at)

    def _finish(self, n: Int, y: Int) -> None:
        """The results of those tiles."""
        with self.k.range(0, self.lines) as line, self.k.range(0, self.across) as q:
            for start, lanes in lanes_of(self.o, host().lanes):
                self._tile(n, y, line, q, start, lanes)

    def _tile(self, n: Int, y: Int, line: Int, q: Int, start: int, lanes: int) -> None:
        """The 2 x 2 results of tile q of a block's line, pooled if there is a pool."""
        o, wo = self.o, self.wo
        at = line * (self.across * o) + q * o + start
        found = square(self.products, at, (4 * self.most * o, self.most * o), lanes)
        results = both_sides(A_T.tolist(), found)
        first = n * (self.ho * wo) + (y + line) * (2 * wo) + q * 2
        entries = [(first + (i * wo + j), results[i][j]) for i in (0, 1) for j in (0, 1)]
        if self.product.pool is not None:
            window = n * (self.ho * wo // 4) + (y + line) * self.across + q
            self.product.write_window(window, start, o, entries)
            return
        for leading, value in entries:
            self.product.write(leading, start, o, value)


def square(
    array: Array, at: Int, steps: tuple[int, int], lanes: int, size: int = 4
) -> list[list[Value]]:
    """size x size vectors of an array, (from line to line, from one to the next) apart."""
    offsets = [[i * steps[0] + j * steps[1] for j in range(size)] for i in range(size)]
    return [[array.load(at + offset, lanes) for offset in line] for line in offsets]


def both_sides(matrix: Sequence[Sequence[float]], x: list[list[Value]]) -> list[list[Value]]:
    """matrix x matrix^T, for a matrix of few numbers."""
    half = [combined(matrix, [row[j] for row in x]) for j in range(len(x[0]))]
    turned = [[column[i] for column in half] for i in range(len(matrix))]
    return [combined(matrix, row) for row in turned]


def combined(matrix: Sequence[Sequence[float]], x: Sequence[Value]) -> list[Value]:
    """matrix x, without the products that change nothing."""
    result = []
    for row in matrix:
        total: Value | None = None
        for factor, value in sorted(zip(row, x, strict=True), key=lambda term: -term[0]):
            if factor == 0:
                continue
            if total is None:
                total = value if factor == 1 else value * factor
            elif abs(factor) == 1:
                total = total + value if factor > 0 else total - value
            else:
                total = total + value * factor
        assert total is not None
        result.append(total)
    return result
