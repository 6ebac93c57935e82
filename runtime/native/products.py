"""Products and convolutions by generated loops, with the pointwise work that follows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...ir import Graph, Node
from .contract import Loop, blocking, contract, contract_inside, over_rows, spans, stencil
from .dsl import Array, Function, Value
from .jit import host
from .lanes import Body, Spot, put
from .movers import concrete, fill
from .pools import better
from .site import Int, Site, Work
from .sweep import lanes_of

LINE = 8  # vectors of a line that an update goes through together
PANEL_WIDTH, PANEL_BYTES, PANEL_LINES = 256, 1 << 17, 48  # see panel_bytes
SHARES = 4  # workers among which columns of blocks should divide without a rest
JOINED = 64  # positions below which a plane's terms are too few to pay for storing a block
APART = 8  # channels from which a tap is worth blocks of its own
FEW = 8  # taps and channels that are blocked over all lines of a kernel
HELD = 10  # weights, in vectors, that stay in registers besides a block's sums
ENOUGH = 14  # accumulators from which a block of one line is efficient
Pair = tuple[int, int]
Lanes = Sequence[tuple[int, int]]
Spots = Sequence[Pair]
Found = Mapping[Pair, list[Value]]
ANCHORS = ("matmul", "conv2d", "winograd_conv2d", "pooled_input_grad")


class Product:
    """A product at a site: its node, operands, and how its elements are written.

    A fused node has a product first, and then pointwise work on its elements. It may have a
    max-pool between them; then `pool` is that, and `write_window` takes all entries of a window.
    """

    def __init__(self, site: Site) -> None:
        self.k, self.site, self.accumulate = site.k, site, site.accumulate
        self.pool: Node | None = None
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
        self.pool = next((n for n in body.nodes if n.op == "max_pool2d"), None)
        if self.pool is None:
            self.body = Body(self.k, body, arrays, cut)
            return
        at = body.nodes.index(self.pool)
        early = [n for n in body.nodes[:at] if n is not self.node]
        late = [n for n in body.nodes[at + 1 :] if n.op != "item"]
        self.items = {n.attrs["index"]: n for n in body.users[self.pool]}
        self.before = Body(self.k, body, arrays, cut, early, self.pool.inputs)
        self.body = Body(self.k, body, arrays, cut, late)

    def write(self, leading: Int, column: Int, width: int, value: Value) -> None:
        """Finishes the elements (leading, column...) of a result `width` wide, and stores them."""
        flat = leading * width + column
        if self.body is None:
            (result,) = self.site.results
            if self.accumulate and not self.node.tensor.per_row:
                value = result.load(flat, value.lanes) + value
            result.store(value, flat)
            return
        self._finish(leading, column, flat, {self.node: value})

    def write_window(
        self, leading: Int, column: Int, width: int, entries: Sequence[tuple[Int, Value]]
    ) -> None:
        """Pools the entries of a window, each with its own leading index, and goes on from there."""
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
        self._finish(leading, column, leading * width + column, given)

    def _finish(self, leading: Int, column: Int, flat: Int, given: Mapping[Node, Any]) -> None:
        assert self.body is not None
        lanes = next(iter(given.values())).lanes
        env = self.body.at(Spot((leading, column), flat, lanes, self.site.row), given)
        for node, array in self.outputs:
            put(array, env[node], flat, lanes)


def emit_matmul(product: Product) -> Work:
    """matmul: rows of a by columns of b; with transpose_a columns of both, over all rows."""
    node, site = product.node, product.site
    a, b = product.operands
    if node.attrs["transpose_a"]:
        rows, inner = _times_rows(node.inputs[0].shape[:-1], site.rows)
        left, width = node.shape
        return _blocks(product, a, b, Loop(_extent(rows, inner), left, width), left, 1, width)
    if node.attrs["transpose_b"]:
        return emit_dots(product)
    rows, inner = _times_rows(node.shape[:-1], site.rows)
    depth, width = node.inputs[1].shape
    return _blocks(
        product, a, b, Loop(depth, 1, width), _extent(rows, inner), depth, width, site.most * inner
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
    terms: Loop,
    rows: Int,
    row_step: int,
    width: int,
    most: int = 0,
) -> Work:
    """`rows` times `width` results; shared out by columns where they are many, else by rows.

    Where b is so wide that the lines of a block's columns lie far apart, they are copied together
    first, for all rows of blocks (see `panel_bytes`).
    """
    k, site = product.k, product.site
    vectors = -(-width // host().lanes)
    nominal = rows if isinstance(rows, int) else most
    packed = panel_bytes(product.node, site.most) > 0
    wide = vectors > 1 and (width > nominal or packed)
    shares = SHARES if wide else 1
    p_block, v_block = blocking(nominal, vectors, isinstance(rows, int), shares=shares)
    if node_streams(product) > 1:  # an update: whole lines of all that it reads and writes
        v_block = min(LINE, vectors)
        p_block = max(1, (host().registers - 1 - v_block) // v_block)
    columns = v_block * host().lanes
    panel = Array(k, site.room.base, "float", site.room.offset // 4)

    def stripe(begin: Int, end: Int, column: Int, lanes: Lanes) -> None:
        source, loop = b.at(column), terms
        if packed:
            with k.range(0, terms.extent) as i:
                for at, n in lanes:
                    panel.store(source.load(i * terms.b + at, n), i * columns + at)
            source, loop = panel, Loop(terms.extent, terms.a, columns)

        def block(row: Int, count: int) -> None:
            offsets = [p * row_step for p in range(count)]
            values = contract(k, a.at(row * row_step), source, [loop], offsets, lanes)
            for p in range(count):
                for (start, _), value in zip(lanes, values[p], strict=True):
                    product.write(row + p, column + start, width, value)

        over_rows(k, begin, end, p_block, block)

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

    if wide:
        return Work(width, by_columns, columns)
    return Work(rows, by_rows, p_block)


def panel_bytes(node: Node, rows: int) -> int:
    """Scratch for a matmul whose right operand's columns are copied together, block by block.

    That pays where the operand is wider than a page is long and outgrows the caches' ways, and has
    rows enough on its left: 0 elsewhere.
    """
    if node.op != "matmul" or node.attrs["transpose_b"]:
        return 0
    a, b = (x.tensor.concrete(rows) for x in node.inputs)
    terms, lines = math.prod(b[:-1]), math.prod(a[:-1])
    if node.attrs["transpose_a"]:
        lines = a[-1]
    if b[-1] < PANEL_WIDTH or terms * b[-1] * 4 < PANEL_BYTES or lines < PANEL_LINES:
        return 0
    return terms * LINE * host().lanes * 4


def node_streams(product: Product) -> int:
    """How many operands as large as the result its epilogue reads."""
    body = product.site.node.attrs.get("body")
    if body is None:
        return 0
    return sum(x.shape == product.node.shape for x in body.inputs)


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
    """conv2d on bordered images: positions by output channels, over taps and channels.

    With a pool behind it, blocks are of whole windows. Where a kernel has few terms its weights stay
    in registers, and each element of the image is read once for all positions that it counts for.
    """
    k, node, site = product.k, product.node, product.site
    x, w = product.operands
    _, h, wide, c = node.inputs[0].shape
    _, ho, wo, o = node.shape
    kh, kw = node.inputs[1].shape[:2]
    sh, sw = node.attrs["stride"]
    zp, zq = node.attrs["zeros"]
    ph, pw = product.pool.attrs["kernel"] if product.pool else (1, 1)
    hp, wp = ho // ph, wo // pw  # windows
    loops = [Loop(kh, wide * c, kw * c * o), Loop(kw * c, 1, o)]
    (lines, count), v_block = _positions(hp, wp, ph * pw, -(-o // host().lanes))

    def block(n: Int, y: Int, q: Int, size: tuple[int, int], column: Int, lanes: Lanes) -> None:
        spots = [(r, p) for r in range(size[0] * ph) for p in range(size[1] * pw)]
        start = x.at(n * (h * wide * c) + y * (ph * sh * wide * c) + q * (pw * sw * c))
        if kh * kw * c * len(lanes) <= HELD:
            places = [(r * sh * wide + p * sw) * c for r, p in spots]
            taps = [(i * wide + j) * c + z for i in range(kh) for j in range(kw) for z in range(c)]
            values = stencil(k, start, w.at(column), taps, o, places, lanes)
        else:
            offsets = [(r * sh * wide + p * sw) * c for r, p in spots]
            values = inside(start, w.at(column), y * ph, size[0] * ph, q, spots, offsets, lanes)
        found = dict(zip(spots, values, strict=True))
        for r in range(size[0]):
            for p in range(size[1]):
                for v, (at, _) in enumerate(lanes):
                    finish(n, y + r, q + p, (r, p), found, v, column + at)

    def inside(
        a: Array,
        b: Array,
        y: Int,
        tall: int,
        q: Int,
        spots: Spots,
        offsets: Sequence[int],
        lanes: Lanes,
    ) -> list[list[Value]]:
        """A block's sums, without the taps that see nothing but the border of zeros.

        Those of a whole line of taps are left out where none of the block's lines sees anything
        else; those of one tap where the block is as wide as the plane.
        """
        first = k.maximum(0, zp - (y + tall - 1) * sh) if zp else 0
        last = k.minimum(kh, h - zp - y * sh) if zp else kh
        a, b, taken = a.at(first * (wide * c)), b.at(first * (kw * c * o)), last - first
        if not zq or not isinstance(q, int) or (wo // pw) * pw != 1 + max(p for _, p in spots):
            return contract(k, a, b, [Loop(taken, wide * c, kw * c * o), loops[1]], offsets, lanes)
        inner = [
            (
                j * c,
                Loop(c, 1, o),
                [i for i, (_, p) in enumerate(spots) if zq <= p * sw + j < wide - zq],
            )
            for j in range(kw)
        ]
        return contract_inside(k, a, b, Loop(taken, wide * c, kw * c * o), inner, offsets, lanes)

    def finish(n: Int, y: Int, q: Int, spot: Pair, found: Found, v: int, column: Int) -> None:
        if product.pool is None:
            product.write(n * (ho * wo) + y * wo + q, column, o, found[spot][v])
            return
        corner = n * (ho * wo) + y * (ph * wo) + q * pw
        entries = [
            (corner + (i * wo + j), found[spot[0] * ph + i, spot[1] * pw + j][v])
            for i in range(ph)
            for j in range(pw)
        ]
        product.write_window(n * (hp * wp) + y * wp + q, column, o, entries)

    def plane(n: Int, column: Int, lanes: Lanes) -> None:
        def line(y: Int, r: int) -> None:
            over_rows(k, 0, wp, count, lambda q, m: block(n, y, q, (r, m), column, lanes))

        over_rows(k, 0, hp, lines, line)

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


def _positions(lines: int, across: int, unit: int, vectors: int) -> tuple[tuple[int, int], int]:
    """((lines, units in a line), vectors) of a block of a plane of units of so many positions."""
    units, v = blocking(across, vectors, True, unit)
    if units == across and across * unit * v < ENOUGH:
        every, v = blocking(lines * across, vectors, True, unit)
        return (max(1, min(lines, every // across)), across), v
    return (1, units), v


def emit_weight_grad(product: Product) -> Work:
    """conv2d_weight_grad on bordered images: taps of channels by output channels, over positions.

    Where planes are small, the images join the terms, so that a block is stored once. Positions of
    which a tap sees nothing but the border of zeros are left out.
    """
    k, node, site = product.k, product.node, product.site
    x, dy = product.operands
    _, h, wide, c = node.inputs[0].shape
    _, ho, wo, o = node.inputs[1].shape
    kh, kw = node.shape[:2]
    sh, sw = node.attrs["stride"]
    zp, zq = node.attrs["zeros"] if (sh, sw) == (1, 1) else (0, 0)
    images = concrete(node.inputs[0].shape, site.rows)[0]
    joined = ho * wo < JOINED
    apart = bool(zq) and c >= APART  # each tap on its own, else a line of taps together
    run_length = c if apart else kw * c
    few = not apart and run_length <= FEW  # then all lines of the kernel are blocked together
    block_rows = kh * run_length if few else run_length
    p_block, v_block = blocking(block_rows, -(-o // host().lanes), True)

    def block(
        n: Int,
        tap: tuple[Int, Int],
        start: Int,
        offsets: Sequence[int],
        first: Int,
        column: Int,
        lanes: Lanes,
    ) -> None:
        """Elements of x at `offsets` from `start` behind a tap's first, over positions."""
        y, stop_y = _inside(k, tap[0], h, 0 if few else zp, ho)
        q, stop_q = _inside(k, tap[1], wide, zq, wo) if apart else (0, wo)
        loops = [Loop(stop_y - y, sh * wide * c, wo * o), Loop(stop_q - q, sw * c, o)]
        if joined:
            loops = [Loop(images, h * wide * c, ho * wo * o), *loops]
        seen = x.at(n * (h * wide * c) + (y + tap[0]) * (wide * c) + (q + tap[1]) * c + start)
        gradient = dy.at(n * (ho * wo * o) + y * (wo * o) + q * o + column)
        values = contract(k, seen, gradient, loops, offsets, lanes)
        for p, row in enumerate(values):
            for (v, _), value in zip(lanes, row, strict=True):
                product.write(first + p, column + v, o, value)

    def taps(n: Int, column: Int, lanes: Lanes) -> None:
        if few:
            every = [(t // run_length) * wide * c + t % run_length for t in range(kh * run_length)]
            at = 0
            for count, size in spans(len(every), p_block):
                for _ in range(count):
                    block(n, (0, 0), 0, every[at : at + size], at, column, lanes)
                    at += size
            return
        with k.range(0, kh) as i, k.range(0, kw if apart else 1) as j:
            first = i * (kw * c) + j * c

            def run(r: Int, m: int) -> None:
                block(n, (i, j), r, list(range(m)), first + r, column, lanes)

            over_rows(k, 0, run_length, p_block, run)

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


def _inside(k: Function, tap: Int, size: int, zeros: int, positions: int) -> tuple[Int, Int]:
    """The positions, from and to, at which a tap sees more than `zeros` elements of border."""
    if not zeros:
        return 0, positions
    stop = size - zeros - tap if isinstance(tap, int) else (size - zeros) - tap
    return k.maximum(0, zeros - tap), k.minimum(positions, stop)
