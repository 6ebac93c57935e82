"""Gradients that walk only the entries that won in a max-pool behind their convolution.

Of each window one entry a channel has a gradient at most, so a channel of the convolution's result
has as many terms as there are windows, wherever in their windows they lie: where comes from a table
by the winner's number. The channels of the image lie in the lanes, the taps in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...ir import Node
from .dsl import Array, Function, Value
from .jit import host
from .movers import concrete, fill
from .products import Product
from .site import Int, Work
from .sweep import lanes_of

UNROLLED = 8  # windows in a line up to which the loop over them is unrolled
BITS_HELD = 64  # channels whose bits one integer holds


class Windows:
    """The windows of an image, of which each starts somewhere in a plane `wide` positions wide."""

    def __init__(self, k: Function, node: Node, shape: tuple, wide: int, channels: int) -> None:
        _, self.ho, self.wo, self.o = shape
        self.k, (_, kw) = k, node.attrs["pool"]
        sh, sw = node.attrs["pool_stride"]
        self.steps = sh * wide * channels, sw * channels
        count = math.prod(node.attrs["pool"])
        places = [(e // kw * wide + e % kw) * channels for e in range(count)]
        self.entries = _table(k, places)

    @property
    def count(self) -> int:
        return self.ho * self.wo

    def each(self, g: Array, winner: Array, values: list[Value], turn: Turn) -> list[Value]:
        """turn(gradient, place, values) for each window of a channel; g and winner are at its first.

        `place` is where in the plane the entry lies that won.
        """
        k = self.k

        def line(y: Int, values: list[Value]) -> list[Value]:
            def window(x: Int, values: list[Value]) -> list[Value]:
                at = y * (self.wo * self.o) + x * self.o
                entry = self.entries.load(k.convert("zext", winner.load(at), "i64"))
                place = entry + y * self.steps[0] + x * self.steps[1]
                return turn(g.load(at), place, values)

            if self.wo <= UNROLLED:
                for x in range(self.wo):
                    values = window(x, values)
                return values
            return k.fold(0, self.wo, values, window)

        return k.fold(0, self.ho, values, line)


Turn = Callable[[Value, Value, list[Value]], list[Value]]


def emit_weight_grad(product: Product) -> Work:
    """pooled_weight_grad: with the image's channels in the lanes, or with few, the result's."""
    return _turned_weight_grad(product) if product.node.attrs["turned"] else _few_channels(product)


def _few_channels(product: Product) -> Work:
    """Each element that a window reaches, times what each of its entries has of the gradient."""
    k, node, site = product.k, product.node, product.site
    x, g, winner = product.operands
    (dw,) = site.results
    kh, kw, c, o = node.shape
    _, h, wide, _ = node.inputs[0].shape
    _, ho, wo, _ = node.inputs[1].shape
    (ph, pw), (sh, sw) = node.attrs["pool"], node.attrs["pool_stride"]
    uses: dict[int, list[tuple[int, int]]] = {}  # of an element: (entry, tap)
    for e in range(ph * pw):
        for t in range(kh * kw * c):
            i, j, z = t // (kw * c), t // c % kw, t % c
            place = ((e // pw + i) * wide + e % pw + j) * c + z
            uses.setdefault(place, []).append((e, t))

    def window(corner: Int, at: Int, lanes: int, sums: list[Value]) -> list[Value]:
        gradient, which = g.load(at, lanes), winner.load(at, lanes)
        parts = [
            k.select(k.compare("eq", which, k.constant(e, "i8", lanes)), gradient, 0.0)
            for e in range(ph * pw)
        ]
        sums = list(sums)
        for place in sorted(uses):
            spread = k.splat(x.load(corner + place), lanes)
            for e, t in uses[place]:
                sums[t] = k.fma(spread, parts[e], sums[t])
        return sums

    def image(n: Int, start: int, lanes: int) -> None:
        def line(y: Int, sums: list[Value]) -> list[Value]:
            def one(q: Int, sums: list[Value]) -> list[Value]:
                corner = n * (h * wide * c) + y * (sh * wide * c) + q * (sw * c)
                return window(corner, (n * (ho * wo) + y * wo + q) * o + start, lanes, sums)

            return k.fold(0, wo, sums, one)

        zeros = [k.constant(0.0, "float", lanes)] * (kh * kw * c)
        for t, value in enumerate(k.fold(0, ho, zeros, line)):
            dw.store(dw.load(t * o + start, lanes) + value, t * o + start)

    def run(begin: Int, end: Int) -> None:
        if not site.accumulate:
            fill(k, dw, o * kh * kw * c, 0.0)
        with k.range(0, concrete(node.inputs[1].shape, site.rows)[0]) as n:
            for start, lanes in lanes_of(o, host().lanes):
                image(n, start, lanes)

    return Work(1, run)


def _turned_weight_grad(product: Product) -> Work:
    """For each channel of the result, its taps in registers, over all windows."""
    k, node, site = product.k, product.node, product.site
    x, g, winner = product.operands
    (dw,) = site.results
    o, kh, kw, c = node.shape
    _, h, wide, _ = node.inputs[0].shape
    windows = Windows(k, node, node.inputs[1].shape, wide, c)
    taps = [(a * wide + b) * c for a in range(kh) for b in range(kw)]

    def channel(n: Int, number: Int, start: int, lanes: int) -> None:
        first = n * (windows.count * o) + number
        image = x.at(n * (h * wide * c) + start)

        def turn(gradient: Value, place: Value, sums: list[Value]) -> list[Value]:
            spread = k.splat(gradient, lanes)
            return [
                k.fma(spread, image.load(place + t, lanes), s)
                for t, s in zip(taps, sums, strict=True)
            ]

        zeros = [k.constant(0.0, "float", lanes)] * len(taps)
        sums = windows.each(g.at(first), winner.at(first), zeros, turn)
        result = dw.at(number * (kh * kw * c) + start)
        for t, value in enumerate(sums):
            result.store(result.load(t * c, lanes) + value, t * c)

    def run(begin: Int, end: Int) -> None:
        if not site.accumulate:
            fill(k, dw, o * kh * kw * c, 0.0)
        with k.range(0, concrete(node.inputs[1].shape, site.rows)[0]) as n, k.range(0, o) as number:
            for start, lanes in lanes_of(c, host().lanes):
                channel(n, number, start, lanes)

    return Work(1, run)


def plane_size(node: Node) -> tuple[int, int]:
    """Height and width of the bordered plane in which pooled_input_grad sums."""
    (h, w), (_, kh, kw, _) = node.attrs["size"], node.inputs[2].shape
    return h + kh - 1, w + kw - 1


def input_grad_scratch(node: Node) -> int:
    """Bytes of that plane."""
    h, w = plane_size(node)
    return 4 * h * w * node.inputs[2].shape[3]


def emit_input_grad(product: Product) -> Work:
    """pooled_input_grad: all that a window reaches is summed in registers, in a bordered plane.

    For each entry of the window, the channels that won there with a gradient that is not 0 (a ReLU
    shuts some) are the bits of one integer, and a loop goes from bit to bit.
    """
    k, node, site = product.k, product.node, product.site
    g, winner, w = product.operands
    o, kh, kw, c = node.inputs[2].shape
    (ph, pw), (sh, sw) = node.attrs["pool"], node.attrs["pool_stride"]
    _, h, wide, _ = node.shape
    (p, q), (height, width) = node.attrs["padding"], plane_size(node)
    _, ho, wo, _ = node.inputs[0].shape
    plane = Array(k, site.room.base, "float", site.room.offset // 4)
    across = pw + kw - 1

    def entry(at: Int, number: int, sums: list[Value], start: int, lanes: int) -> list[Value]:
        """The sums of the positions around one entry, with what its channels add."""

        def turn(channel: Value, sums: list[Value]) -> list[Value]:
            taps, spread = (
                w.at(channel * (kh * kw * c) + start),
                k.splat(g.load(at + channel), lanes),
            )
            return [k.fma(spread, taps.load(t * c, lanes), s) for t, s in enumerate(sums)]

        for first, count in lanes_of(o, BITS_HELD):
            bits = won(k, g.at(at + first), winner.at(at + first), count, number)
            sums = each_bit(k, bits, sums, lambda i, v, first=first: turn(i + first, v))
        return sums

    def window(at: Int, corner: Int, start: int, lanes: int) -> None:
        spots = [(i * width + j) * c + start for i in range(ph + kh - 1) for j in range(across)]
        sums = [plane.load(corner + s, lanes) for s in spots]
        for number in range(ph * pw):
            y, x = divmod(number, pw)
            around = [(y + i) * across + x + j for i in range(kh) for j in range(kw)]
            after = entry(at, number, [sums[s] for s in around], start, lanes)
            for s, value in zip(around, after, strict=True):
                sums[s] = value
        for s, value in zip(spots, sums, strict=True):
            plane.store(value, corner + s)

    def image(n: Int) -> None:
        with k.range(0, ho) as y, k.range(0, wo) as x:
            at = n * (ho * wo * o) + y * (wo * o) + x * o
            corner = y * (sh * width * c) + x * (sw * c)
            for start, lanes in lanes_of(c, host().lanes):
                window(at, corner, start, lanes)

    def crop(n: Int) -> None:
        with k.range(0, h) as y, k.range(0, wide) as x:
            inside = (y + p) * (width * c) + (x + q) * c
            for start, lanes in lanes_of(c, host().lanes):
                first = n * (h * wide) + y * wide + x
                product.write(first, start, c, plane.load(inside + start, lanes))

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as n:
            fill(k, plane, height * width * c, 0.0)
            image(n)
            crop(n)

    return Work(concrete(node.shape, site.rows)[0], run)


def won(k: Function, g: Array, winner: Array, count: int, entry: int) -> Value:
    """Which of up to 64 channels won at an entry with a gradient not 0, as the bits of an i64."""
    total = k.constant(0, "i64")
    for start, n in lanes_of(count, host().lanes):
        alive = k.compare("une", g.load(start, n), 0.0)
        here = k.compare("eq", winner.load(start, n), k.constant(entry, "i8", n))
        part = k.bits(alive & here)
        wide = k.convert("zext", part, "i64") if n < BITS_HELD else part
        total = total | (wide << start if start else wide)
    return total


def each_bit(
    k: Function, bits: Value, values: list[Value], turn: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """turn(i, values) for each bit i that is set, from the lowest."""

    def step(carried: list[Value]) -> list[Value]:
        left, *rest = carried
        others = left & k.binary("add", left, k.constant(-1, "i64"))
        return [others, *turn(k.lowest_bit(left), rest)]

    return k.fold_while([bits, *values], lambda v: k.compare("ne", v[0], 0), step)[1:]


def _table(k: Function, numbers: Sequence[int]) -> Array:
    """Numbers on the stack, to be looked up."""
    table = k.stack("i64", len(numbers))
    for i, number in enumerate(numbers):
        table.store(k.constant(number, "i64"), i)
    return table
