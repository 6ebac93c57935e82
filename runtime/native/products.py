"""Products and convolutions by generated loops, with the pointwise work that follows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...ir import Graph, Node
from .contract import Loop, blocking, contract, over_rows, spans
from .dsl import Array, Value
from .jit import host
from .movers import concrete, fill
from .lanes import Body, Spot, put
from .site import Int, Site, Work
from .sweep import lanes_of

ANCHORS = ("matmul", "conv2d", "pooled_input_grad")
Write = Callable[[Int, Int, Int, Value], None]  # (leading index, column, flat element, lanes)


class Product:
    """A product at a site: its node, operands, and how its elements are written.

    A fused node has a product first and pointwise work on its elements after it.
    """

    def __init__(self, site: Site) -> None:
        self.k, self.site, self.accumulate = site.k, site, site.accumulate
        body: Graph | None = site.node.attrs.get("body")
        if body is None:
            self.node, self.operands, self.body = site.node, list(site.operands), None
            return
        self.node = next(n for n in body.nodes if n.op in ANCHORS)
        arrays = dict(zip(body.inputs, site.operands, strict=True))
        self.operands = [arrays[x] for x in self.node.inputs]
        rank = len(self.node.shape)
        cut = (tuple(range(rank - 1)), (rank - 1,))
        self.body = Body(self.k, body, arrays, cut)
        self.outputs = list(zip(body.outputs.values(), site.results, strict=True))

    def write(self, leading: Int, column: Int, width: int, value: Value) -> None:
        """Finishes the elements (leading, column...) of a result `width` wide, and stores them."""
        flat = leading * width + column
        if self.body is None:
            (result,) = self.site.results
            if self.accumulate and not self.node.tensor.per_row:
                value = result.load(flat, value.lanes) + value
            result.store(value, flat)
            return
        spot = Spot((leading, column), flat, value.lanes, self.site.row)
        env = self.body.at(spot, {self.node: value})
        for node, array in self.outputs:
            put(array, env[node], flat, value.lanes)


def emit_matmul(product: Product) -> Work:
    """matmul: rows of a by columns of b; with transpose_a columns of both, over all rows."""
    node, site = product.node, product.site
    a, b = product.operands
    if node.attrs["transpose_a"]:
        rows, inner = _times_rows(node.inputs[0].shape[:-1], site.rows)
        left, width = node.shape
        return _blocks(product, a, b, [Loop(_extent(rows, inner), left, width)], left, 1, width)
    if node.attrs["transpose_b"]:
        return emit_dots(product)
    rows, inner = _times_rows(node.shape[:-1], site.rows)
    depth, width = node.inputs[1].shape
    return _blocks(
        product, a, b, [Loop(depth, 1, width)], _extent(rows, inner), depth, width, site.most * inner
    )


def _times_rows(leading: Sequence, rows: Int) -> tuple[Int, int]:
    """Leading axes as (rows, what they are multiplied by); (1, n) where there is no N."""
    rowed = bool(leading) and not isinstance(leading[0], int)
    return (rows, math.prod(leading[1:])) if rowed else (1, math.prod(leading))


def _extent(rows: Int, inner: int) -> Int:
    return rows * inner


def _blocks(
    product: Product,
    a: Array,
    b: Array,
    loops: Sequence[Loop],
    rows: Int,
    row_step: int,
    width: int,
    most: int = 0,
) -> Work:
    """`rows` times `width` results; shared out by columns where they are many, else by rows."""
    k = product.k
    vectors = -(-width // host().lanes)
    nominal = rows if isinstance(rows, int) else most
    p_block, v_block = blocking(nominal, vectors, isinstance(rows, int))
    columns = v_block * host().lanes

    def block(row: Int, count: int, column: Int, lanes: Sequence[tuple[int, int]]) -> None:
        offsets = [p * row_step for p in range(count)]
        values = contract(k, a.at(row * row_step), b.at(column), loops, offsets, lanes)
        for p in range(count):
            for (start, _), value in zip(lanes, values[p], strict=True):
                product.write(row + p, column + start, width, value)

    def stripe(begin: Int, end: Int, column: Int, lanes: Sequence[tuple[int, int]]) -> None:
        over_rows(k, begin, end, p_block, lambda row, n: block(row, n, column, lanes))

    whole = width // columns * columns
    rest = lanes_of(width - whole, host().lanes)

    def by_columns(begin: Int, end: Int) -> None:
        if whole:
            with k.range(begin, k.minimum(end, whole), columns) as column:
                stripe(0, rows, column, lanes_of(columns, host().lanes))
        if not rest:
            return
        if isinstance(end, int):
            stripe(0, rows, whole, rest)
            return
        with k.when(end.equals(width)):
            stripe(0, rows, whole, rest)

    def by_rows(begin: Int, end: Int) -> None:
        if whole:
            with k.range(0, whole, columns) as column:
                stripe(begin, end, column, lanes_of(columns, host().lanes))
        if rest:
            stripe(begin, end, whole, rest)

    if width >= 4 * columns or width > nominal:
        return Work(width, by_columns, columns)
    return Work(rows, by_rows, p_block)


def emit_dots(product: Product) -> Work:
    """matmul with transpose_b: dot products of rows of a with rows of b, lanes along both."""
    k, node, site = product.k, product.node, product.site
    a, b = product.operands
    rows, inner = _times_rows(node.shape[:-1], site.rows)
    width, depth = node.inputs[1].shape
    lanes = host().lanes
    whole, rest = depth // lanes * lanes, depth % lanes
    p_block, q_block = min(4, max(1, site.most * inner)), 4

    def block(row: Int, count: int, column: Int, columns: int) -> None:
        def step(i: Int, acc: list[Value], n: int = lanes) -> list[Value]:
            xs = [a.load((row + p) * depth + i, n) for p in range(count)]
            ys = [b.load((column + q) * depth + i, n) for q in range(columns)]
            pairs = [(x, y) for x in xs for y in ys]
            return [k.fma(x, y, z) for (x, y), z in zip(pairs, acc, strict=True)]

        sums: list[Value] = []
        if whole:
            zeros = [k.constant(0.0, a.scalar, lanes)] * (count * columns)
            sums = [k.reduce("fadd", v, -0.0) for v in k.fold(0, whole, zeros, step, lanes)]
        if rest:
            zeros = [k.constant(0.0, a.scalar, rest)] * (count * columns)
            tails = [k.reduce("fadd", v, -0.0) for v in step(whole, zeros, rest)]
            sums = [s + t for s, t in zip(sums, tails, strict=True)] if sums else tails
        for p in range(count):
            for q in range(columns):
                product.write(row + p, column + q, width, sums[p * columns + q])

    def run(begin: Int, end: Int) -> None:
        over_rows(
            k,
            begin,
            end,
            q_block,
            lambda column, m: over_rows(
                k, 0, rows * inner, p_block, lambda row, n: block(row, n, column, m)
            ),
        )

    return Work(width, run, q_block)


def emit_conv2d(product: Product) -> Work:
    """conv2d on bordered images: positions by output channels, over taps and channels."""
    k, node, site = product.k, product.node, product.site
    x, w = product.operands
    _, h, wide, c = node.inputs[0].shape
    _, ho, wo, o = node.shape
    kh, kw = node.inputs[1].shape[:2]
    sh, sw = node.attrs["stride"]
    loops = [Loop(kh, wide * c, kw * c * o), Loop(kw * c, 1, o)]
    vectors = lanes_of(o, host().lanes)
    p_block, v_block = _positions(ho, wo, len(vectors))

    def plane(n: Int, column: Int, lanes: Sequence[tuple[int, int]]) -> None:
        def block(y: Int, q: Int, lines: int, count: int) -> None:
            spots = [(r, p) for r in range(lines) for p in range(count)]
            offsets = [(r * sh * wide + p * sw) * c for r, p in spots]
            start = x.at(n * (h * wide * c) + y * (sh * wide * c) + q * (sw * c))
            values = contract(k, start, w.at(column), loops, offsets, lanes)
            first = n * (ho * wo) + y * wo + q
            for (r, p), row in zip(spots, values, strict=True):
                for (at, _), value in zip(lanes, row, strict=True):
                    product.write(first + (r * wo + p), column + at, o, value)

        lines, count = p_block
        over_rows(
            k,
            0,
            ho,
            lines,
            lambda y, r: over_rows(k, 0, wo, count, lambda q, m: block(y, q, r, m)),
        )

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as n:
            step = v_block * host().lanes
            whole = o // step * step
            if whole:
                with k.range(0, whole, step) as column:
                    plane(n, column, lanes_of(step, host().lanes))
            if o > whole:
                plane(n, whole, lanes_of(o - whole, host().lanes))

    return Work(concrete(node.shape, site.rows)[0], run)


def _positions(ho: int, wo: int, vectors: int) -> tuple[tuple[int, int], int]:
    """((lines, positions in a line), vectors) of a block of a plane."""
    p, v = blocking(wo, vectors, True)
    lines = 1
    if p == wo and wo * v < 14:
        p_all, v = blocking(ho * wo, vectors, True)
        lines = max(1, min(ho, p_all // wo))
    return (lines, p), v


def emit_weight_grad(product: Product) -> Work:
    """conv2d_weight_grad on bordered images: taps of channels by output channels, over positions.

    Where planes are small, the images join the terms, so that a block is stored once.
    """
    k, node, site = product.k, product.node, product.site
    x, dy = product.operands
    _, h, wide, c = node.inputs[0].shape
    _, ho, wo, o = node.inputs[1].shape
    kh, kw = node.shape[:2]
    sh, sw = node.attrs["stride"]
    loops = [Loop(ho, sh * wide * c, wo * o), Loop(wo, sw * c, o)]
    images = concrete(node.inputs[0].shape, site.rows)[0]
    joined = ho * wo < 64
    if joined:
        loops = [Loop(images, h * wide * c, ho * wo * o), *loops]
    run_length = kw * c
    p_block, v_block = blocking(run_length if run_length > 8 else kh * run_length, -(-o // host().lanes), True)

    def block(n: Int, start: Int, offsets: Sequence[int], first: Int, column: Int, lanes) -> None:  # type: ignore[no-untyped-def]
        at = x.at(n * (h * wide * c) + start)
        values = contract(k, at, dy.at(n * (ho * wo * o) + column), loops, offsets, lanes)
        for p, row in enumerate(values):
            for (v, _), value in zip(lanes, row, strict=True):
                product.write(first + p, column + v, o, value)

    def taps(n: Int, column: Int, lanes: Sequence[tuple[int, int]]) -> None:
        if run_length <= 8:
            every = [(t // run_length) * wide * c + t % run_length for t in range(kh * run_length)]
            at = 0
            for count, size in spans(len(every), p_block):
                for _ in range(count):
                    block(n, 0, every[at : at + size], at, column, lanes)
                    at += size
            return
        with k.range(0, kh) as i:
            over_rows(
                k,
                0,
                run_length,
                p_block,
                lambda r, m: block(
                    n, i * (wide * c) + r, list(range(m)), i * run_length + r, column, lanes
                ),
            )

    def channels(n: Int) -> None:
        step = v_block * host().lanes
        whole = o // step * step
        if whole:
            with k.range(0, whole, step) as column:
                taps(n, column, lanes_of(step, host().lanes))
        if o > whole:
            taps(n, whole, lanes_of(o - whole, host().lanes))

    def run(begin: Int, end: Int) -> None:
        if joined:
            channels(0)
            return
        if not site.accumulate:
            fill(k, site.results[0], math.prod(node.shape), 0.0)
            product.accumulate = True
        with k.range(0, images) as n:
            channels(n)

    return Work(1, run)
