"""Winograd's convolution: tiles of the image transformed, 16 products of matrices, and back.

A block of tiles goes through all three: its transformed elements and products stay in cache. With a
2 x 2 pool behind it, a tile is a window of that, and pooled where it is made.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir import Node
from ...ir.ops.winograd import A_T, B_T, G
from .contract import Loop, blocking, contract, over_rows
from .dsl import Array, Value
from .jit import host
from .movers import concrete
from .products import Product
from .site import Int, Site, Work
from .sweep import lanes_of

TILES = 14  # tiles of a block, if lines of tiles are no longer


def tile_lines(node: Node) -> tuple[int, int]:
    """(lines of tiles in a block, tiles in a line)."""
    _, h, w, _ = node.shape
    across = w // 2
    return max(1, min(h // 2, TILES // across)), across


def scratch(node: Node) -> int:
    """Bytes of a block's transformed elements and products."""
    lines, across = tile_lines(node)
    return 4 * 16 * lines * across * (node.inputs[0].shape[3] + node.shape[3])


def emit_weights(site: Site) -> Work:
    """winograd_weights: G w G^T for every pair of channels, input channels shared out."""
    (w,), (u,), k = site.operands, site.results, site.k
    _, _, c, o = site.node.shape

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as channel:
            for start, lanes in lanes_of(o, host().lanes):
                at = channel * o + start
                taps = [
                    [w.load(at + (i * 3 + j) * c * o, lanes) for j in range(3)] for i in range(3)
                ]
                for i, row in enumerate(both_sides(G.tolist(), taps)):
                    for j, value in enumerate(row):
                        u.store(value, at + (i * 4 + j) * c * o)

    return Work(c, run)


def emit_conv2d(product: Product) -> Work:
    """winograd_conv2d, block by block."""
    k, node, site = product.k, product.node, product.site
    x, u = product.operands
    _, h, wide, c = node.inputs[0].shape
    _, ho, wo, o = node.shape
    lines, across = tile_lines(node)
    most = lines * across
    elements = Array(k, site.room.base, "float", site.room.offset // 4)
    products = elements.at(16 * most * c)

    def transform(image: Int, y: Int, count: int) -> None:
        """The elements of `count` lines of tiles from line y on: [16, tiles, C]."""
        with k.range(0, count) as line, k.range(0, across) as q:
            corner = image + (y + line) * (2 * wide * c) + q * (2 * c)
            for start, lanes in lanes_of(c, host().lanes):
                seen = [
                    [x.load(corner + ((i * wide + j) * c + start), lanes) for j in range(4)]
                    for i in range(4)
                ]
                to = line * (across * c) + q * c + start
                for i, row in enumerate(both_sides(B_T.tolist(), seen)):
                    for j, value in enumerate(row):
                        elements.store(value, to + (i * 4 + j) * most * c)

    def multiply(tiles: int) -> None:
        """16 products [tiles, C] by [C, O]."""
        vectors = -(-o // host().lanes)
        p_block, v_block = blocking(tiles, vectors, True)
        columns = v_block * host().lanes
        whole = o // columns * columns

        def stripe(e: Int, column: Int, lanes: Sequence[tuple[int, int]]) -> None:
            def block(t: Int, count: int) -> None:
                a, b = elements.at(e * (most * c) + t * c), u.at(e * (c * o) + column)
                offsets = [p * c for p in range(count)]
                values = contract(k, a, b, [Loop(c, 1, o)], offsets, lanes)
                for p, row in enumerate(values):
                    for (at, _), value in zip(lanes, row, strict=True):
                        products.store(value, e * (most * o) + (t + p) * o + column + at)

            over_rows(k, 0, tiles, p_block, block)

        with k.range(0, 16) as e:
            if whole:
                with k.range(0, whole, columns) as column:
                    stripe(e, column, lanes_of(columns, host().lanes))
            if o > whole:
                stripe(e, whole, lanes_of(o - whole, host().lanes))

    def finish(n: Int, y: Int, count: int) -> None:
        """The results of those tiles, pooled if there is a pool."""
        with k.range(0, count) as line, k.range(0, across) as q:
            for start, lanes in lanes_of(o, host().lanes):
                at = line * (across * o) + q * o + start
                found = [
                    [products.load(at + (i * 4 + j) * most * o, lanes) for j in range(4)]
                    for i in range(4)
                ]
                results = both_sides(A_T.tolist(), found)
                first = n * (ho * wo) + (y + line) * (2 * wo) + q * 2
                entries = [(first + (i * wo + j), results[i][j]) for i in (0, 1) for j in (0, 1)]
                if product.pool is not None:
                    window = n * (ho * wo // 4) + (y + line) * across + q
                    product.write_window(window, start, o, entries)
                    continue
                for leading, value in entries:
                    product.write(leading, start, o, value)

    def block(n: Int, y: Int, count: int) -> None:
        transform(n * (h * wide * c), y, count)
        multiply(count * across)
        finish(n, y, count)

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as n:
            over_rows(k, 0, ho // 2, lines, lambda y, count: block(n, y, count))

    return Work(concrete(node.shape, site.rows)[0], run)


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
