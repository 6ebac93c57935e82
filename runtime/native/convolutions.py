"""Convolutions and their weight gradients by generated loops, on bordered images in NHWC."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .contract import (
    IN_FLIGHT,
    Lanes,
    Loop,
    Part,
    blocking,
    contract,
    contract_inside,
    over_columns,
    over_rows,
    spans,
    stencil,
)
from .dsl import Array, Function, Value
from .jit import host
from .movers import concrete, fill
from .products import Product
from .site import Int, Work

HELD = 10  # weights, in vectors, that stay in registers besides a block's sums
ENOUGH = 14  # accumulators from which a block of one line is efficient
JOINED = 64  # positions below which a plane's terms are too few to pay for storing a block
APART = 8  # channels from which a tap is worth blocks of its own
FEW = 8  # taps and channels that are blocked over all lines of a kernel

Spot = tuple[int, int]  # a position in a block: (line, column)
Sums = Mapping[Spot, Sequence[Value]]  # of each position the vectors of a block's channels


def emit_conv2d(product: Product) -> Work:
    """conv2d on bordered images, and a max-pool behind it: shared out by images, few by lines."""
    images = concrete(product.node.shape, product.site.rows)[0]
    made = Convolution(product)
    few = product.site.most < 2 * product.site.workers
    if few and made.hp % made.lines == 0:
        return Work(images * made.bands, made.run_bands, also=product.borders())
    return Work(images, made.run, also=product.borders())


def emit_weight_grad(product: Product) -> Work:
    """conv2d_weight_grad on bordered images: sums over all of them, by one worker."""
    return Work(1, WeightGrad(product).run)


@dataclass(frozen=True)
class Block:
    """`tall` by `across` windows of image n from line y and column q of windows on.

    Of each, the output channels at `lanes` from `channel` on. A window is a position if there is
    no pool.
    """

    n: Int
    y: Int
    q: Int
    tall: int
    across: int
    channel: Int
    lanes: Lanes


class Convolution:
    """conv2d: positions of y [N,Ho,Wo,O] by output channels, over taps and channels.

    The image x is [N,H,W,C], its border of `zeros` included, and w is [kh,kw,C,O]. With a pool
    behind it, blocks are of whole windows, `hp` by `wp` of `ph` by `pw` positions. Where a kernel
    has few terms its weights stay in registers, and each element of the image is read once for all
    positions that it counts for.
    """

    def __init__(self, product: Product) -> None:
        node = product.node
        self.k, self.product = product.k, product
        self.x, self.w = product.operands
        _, self.h, self.wide, self.c = node.inputs[0].shape
        _, self.ho, self.wo, self.o = node.shape
        self.kh, self.kw = node.inputs[1].shape[:2]
        self.sh, self.sw = node.attrs["stride"]
        self.zp, self.zq = node.attrs["zeros"]
        window: tuple[int, int] = product.pool.attrs["kernel"] if product.pool else (1, 1)
        self.ph, self.pw = window
        self.hp, self.wp = self.ho // self.ph, self.wo // self.pw
        vectors = -(-self.o // host().lanes)
        unit, terms = self.ph * self.pw, self.kh * self.kw * self.c
        (self.lines, self.count), v = _windows(self.hp, self.wp, unit, vectors)
        self.columns, self.held = v * host().lanes, terms * v if terms * v <= HELD else 0
        if self.held:
            self.lines, self.count = 1, _beside(self.held, self.wp, unit * v)

    def run(self, begin: Int, end: Int) -> None:
        """Images from begin to end."""
        with self.k.range(begin, end) as n:
            over_columns(
                self.k, self.o, self.columns, lambda channel, lanes: self._plane(n, channel, lanes)
            )

    @property
    def bands(self) -> int:
        """How many times the lines of a block an image has."""
        return int(self.hp // self.lines)

    def run_bands(self, begin: Int, end: Int) -> None:
        """Bands from begin to end, of one image after the other."""
        with self.k.range(begin, end) as i:
            band = self.k.integer(i)
            n, y = band // self.bands, band % self.bands * self.lines

            def columns(channel: Int, lanes: Lanes) -> None:
                self._line(n, y, self.lines, channel, lanes)

            over_columns(self.k, self.o, self.columns, columns)

    def _plane(self, n: Int, channel: Int, lanes: Lanes) -> None:
        """All windows of an image, block by block."""

        def line(y: Int, tall: int) -> None:
            self._line(n, y, tall, channel, lanes)

        over_rows(self.k, 0, self.hp, self.lines, line)

    def _line(self, n: Int, y: Int, tall: int, channel: Int, lanes: Lanes) -> None:
        """`tall` lines of an image's windows, from line y on."""

        def block(q: Int, across: int) -> None:
            self._block(Block(n, y, q, tall, across, channel, lanes))

        over_rows(self.k, 0, self.wp, self.count, block)

    def _block(self, at: Block) -> None:
        """The sums of a block's positions, and the windows made of them."""
        tall, across = at.tall * self.ph, at.across * self.pw
        spots = list(itertools.product(range(tall), range(across)))
        offsets = [(r * self.sh * self.wide + p * self.sw) * self.c for r, p in spots]
        y, q = self.ph * self.sh * self.wide * self.c, self.pw * self.sw * self.c
        x = self.x.at(at.n * (self.h * self.wide * self.c) + at.y * y + at.q * q)
        w = self.w.at(at.channel)
        if self.held:
            sums = stencil(self.k, x, w, self._taps(), self.o, offsets, at.lanes)
        else:
            sums = self._sums(x, w, at, spots, offsets)
        self._write(at, dict(zip(spots, sums, strict=True)))

    def _taps(self) -> list[int]:
        """Where the kernel's [kh,kw,C] lie in the image, from a position's first element."""
        taps = itertools.product(range(self.kh), range(self.kw), range(self.c))
        return [(i * self.wide + j) * self.c + z for i, j, z in taps]

    def _sums(
        self, x: Array, w: Array, at: Block, spots: Sequence[Spot], offsets: Sequence[int]
    ) -> list[list[Value]]:
        """A block's sums, without the taps that see nothing but the border of zeros.

        Those of a whole line of taps are left out where none of the block's lines sees anything
        else; those of one tap where the block is as wide as the plane.
        """
        tap = self.wide * self.c, self.kw * self.c * self.o  # a line of taps, in x and in w
        first, last = self._lines_of_taps(at.y * self.ph, at.tall * self.ph)
        x, w, lines = x.at(first * tap[0]), w.at(first * tap[1]), Loop(last - first, *tap)
        if self.zq and isinstance(at.q, int) and at.across == self.wp:
            parts = [self._part(j, spots) for j in range(self.kw)]
            return contract_inside(self.k, x, w, lines, parts, offsets, at.lanes)
        within = Loop(self.kw * self.c, 1, self.o)
        return contract(self.k, x, w, [lines, within], offsets, at.lanes)

    def _lines_of_taps(self, y: Int, tall: int) -> tuple[Int, Int]:
        """Lines of the kernel, from and to, that see more than border from `tall` lines at y on."""
        if not self.zp:
            return 0, self.kh
        first = self.k.maximum(0, self.zp - (y + tall - 1) * self.sh)
        return first, self.k.minimum(self.kh, self.h - self.zp - y * self.sh)

    def _part(self, j: int, spots: Sequence[Spot]) -> Part:
        """The channels of the j-th tap of a line, for the positions that see the image there."""
        seen = range(self.zq, self.wide - self.zq)
        places = [i for i, (_, p) in enumerate(spots) if p * self.sw + j in seen]
        return Part(j * self.c, Loop(self.c, 1, self.o), places)

    def _write(self, at: Block, sums: Sums) -> None:
        """The results of a block: its positions, or its windows pooled."""
        for r, p in itertools.product(range(at.tall), range(at.across)):
            for v, (start, _) in enumerate(at.lanes):
                y, q, channel = at.y + r, at.q + p, at.channel + start
                if self.product.pool is not None:
                    self._write_window(at.n, y, q, channel, sums, (r, p), v)
                    continue
                self.product.write((at.n, y, q), channel, self.o, sums[r, p][v])

    def _write_window(
        self, n: Int, y: Int, q: Int, channel: Int, sums: Sums, window: tuple[int, int], v: int
    ) -> None:
        """The v-th vector of all positions of a window, pooled."""
        corner = n * (self.ho * self.wo) + y * (self.ph * self.wo) + q * self.pw
        entries = []
        for i, j in itertools.product(range(self.ph), range(self.pw)):
            spot = window[0] * self.ph + i, window[1] * self.pw + j
            entries.append((corner + (i * self.wo + j), sums[spot][v]))
        self.product.write_window((n, y, q), channel, self.o, entries)


def _windows(lines: int, across: int, unit: int, vectors: int) -> tuple[tuple[int, int], int]:
    """((lines, windows in a line), vectors) of a block; a window has `unit` positions."""
    count, v = blocking(across, vectors, spans, unit)
    if count == across and across * unit * v < ENOUGH:
        every, v = blocking(lines * across, vectors, spans, unit)
        return (max(1, min(lines, every // across)), across), v
    return (1, count), v


def _beside(held: int, across: int, unit: int) -> int:
    """How many of `across` windows a block has beside weights that stay in registers.

    As few as hide the latency of `unit` sums each and leave none over: each takes code.
    """
    fitting = [n for n in range(1, across + 1) if n * unit + held < host().registers]
    even = [n for n in fitting if across % n == 0 and n * unit >= IN_FLIGHT]
    return min(even) if even else max(fitting, default=1)


@dataclass(frozen=True)
class Taps:
    """Taps of channels that are blocked together: elements at `offsets` behind that of a tap.

    `tap` is (line, column) in the kernel, `start` a channel or a tap of its line. Their rows of the
    result [kh * kw * C, O] lie side by side from `row` on.
    """

    tap: tuple[Int, Int]
    start: Int
    offsets: Sequence[int]
    row: Int


class WeightGrad:
    """conv2d_weight_grad: taps of channels of dw [kh,kw,C,O] by output channels, over positions.

    The image x is [N,H,W,C], its border of `zeros` included, and dy is [N,Ho,Wo,O]. Where planes
    are small, the images join the terms, so that a block is stored once. Positions of which a tap
    sees nothing but the border of zeros are left out.
    """

    def __init__(self, product: Product) -> None:
        node = product.node
        self.k, self.product = product.k, product
        self.x, self.dy = product.operands
        _, self.h, self.wide, self.c = node.inputs[0].shape
        _, self.ho, self.wo, self.o = node.inputs[1].shape
        self.kh, self.kw = node.shape[:2]
        self.sh, self.sw = node.attrs["stride"]
        zeros: tuple[int, int] = node.attrs["zeros"] if node.attrs["stride"] == (1, 1) else (0, 0)
        self.zp, self.zq = zeros
        self.images = concrete(node.inputs[0].shape, product.site.rows)[0]
        self.joined = self.ho * self.wo < JOINED
        self.apart = bool(self.zq) and self.c >= APART  # each tap on its own, else a line together
        self.run_length = self.c if self.apart else self.kw * self.c
        self.few = not self.apart and self.run_length <= FEW  # then all lines are blocked together
        rows = self.kh * self.run_length if self.few else self.run_length
        self.block_rows, v = blocking(rows, -(-self.o // host().lanes), spans)
        self.columns = v * host().lanes

    def run(self, begin: Int, end: Int) -> None:
        """All of dw; where images are not joined, each adds to what those before it made."""
        if self.joined:
            self._image(0)
            return
        site = self.product.site
        if not site.accumulate:
            fill(self.k, site.results[0], math.prod(self.product.node.shape), 0.0)
            self.product.accumulate = True
        with self.k.range(0, self.images) as n:
            self._image(n)

    def _image(self, n: Int) -> None:
        """Image n's terms of dw, or all images' from n on where they are joined."""
        taps = self._kernel if self.few else self._lines
        over_columns(self.k, self.o, self.columns, lambda c, lanes: taps(n, c, lanes))

    def _kernel(self, n: Int, channel: Int, lanes: Lanes) -> None:
        """All taps of the kernel as rows of the same blocks."""
        ends = [divmod(t, self.run_length) for t in range(self.kh * self.run_length)]
        offsets = [i * self.wide * self.c + at for i, at in ends]
        row = 0
        for count, size in spans(len(offsets), self.block_rows):
            for _ in range(count):
                taps = Taps((0, 0), 0, offsets[row : row + size], row)
                self._block(n, taps, channel, lanes)
                row += size

    def _lines(self, n: Int, channel: Int, lanes: Lanes) -> None:
        """Each line of taps, or each tap, in blocks of its own."""
        k, kw = self.k, self.kw if self.apart else 1
        with k.range(0, self.kh) as i, k.range(0, kw) as j:
            row = i * (self.kw * self.c) + j * self.c

            def block(start: Int, count: int) -> None:
                taps = Taps((i, j), start, range(count), row + start)
                self._block(n, taps, channel, lanes)

            over_rows(k, 0, self.run_length, self.block_rows, block)

    def _block(self, n: Int, taps: Taps, channel: Int, lanes: Lanes) -> None:
        """Rows of dw at some output channels: the sums over positions."""
        (i, j), wide, c, o = taps.tap, self.wide * self.c, self.c, self.o
        y, stop_y = _inside(self.k, i, self.h, 0 if self.few else self.zp, self.ho)
        q, stop_q = _inside(self.k, j, self.wide, self.zq, self.wo) if self.apart else (0, self.wo)
        loops = [
            Loop(stop_y - y, self.sh * wide, self.wo * o),
            Loop(stop_q - q, self.sw * c, o),
        ]
        if self.joined:
            loops = [Loop(self.images, self.h * wide, self.ho * self.wo * o), *loops]
        x = self.x.at(n * (self.h * wide) + (y + i) * wide + (q + j) * c + taps.start)
        dy = self.dy.at(n * (self.ho * self.wo * o) + y * (self.wo * o) + q * o + channel)
        for p, values in enumerate(contract(self.k, x, dy, loops, taps.offsets, lanes)):
            for (v, _), value in zip(lanes, values, strict=True):
                self.product.write(taps.row + p, channel + v, o, value)


def _inside(k: Function, tap: Int, size: int, zeros: int, positions: int) -> tuple[Int, Int]:
    """The positions, from and to, at which a tap sees more than `zeros` elements of border."""
    if not zeros:
        return 0, positions
    stop = size - zeros - tap
    return k.maximum(0, zeros - tap), k.minimum(positions, stop)
