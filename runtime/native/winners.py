"""Gradients that walk only the entries that won in a max-pool behind their convolution.

Of each window one entry a channel has a gradient at most, so a channel of the convolution's result
has as many terms as there are windows, wherever in their windows they lie: that is computed from
the winner's number. The channels of the image lie in the lanes, the taps in registers.
"""

from __future__ import annotations

from ...ir import Node
from .bits import HELD, each_bit, each_noted, joined, note_across, words
from .dsl import Array, Function, Value
from .jit import host
from .movers import concrete, fill
from .products import Product, scratch
from .site import Int, Work
from .sweep import lanes_of

Uses = dict[int, list[tuple[int, int]]]


class Windows:
    """The windows of an image, of which each starts somewhere in a plane `wide` positions wide."""

    def __init__(self, k: Function, node: Node, shape: tuple, wide: int, channels: int) -> None:
        _, self.ho, self.wo, self.o = shape
        self.k, (_, kw) = k, node.attrs["pool"]
        sh, sw = node.attrs["pool_stride"]
        self.steps = sh * wide * channels, sw * channels
        self.kw, self.line, self.channels = kw, wide * channels, channels

    @property
    def count(self) -> int:
        """How many there are in an image."""
        return self.ho * self.wo

    def corner(self, window: Value) -> Value:
        """Where a window starts in the plane, by its number."""
        down, across = self.steps
        line = self.k.binary("udiv", window, self.k.constant(self.wo, "i64"))
        return window * across + line * (down - self.wo * across)

    def place(self, entry: Value) -> Value:
        """Where an entry lies in the plane, from its window's corner; by arithmetic, as loads are
        what these loops wait for."""
        line = self.k.binary("udiv", entry, self.k.constant(self.kw, "i64"))
        return entry * self.channels + line * (self.line - self.kw * self.channels)


def emit_weight_grad(product: Product) -> Work:
    """pooled_weight_grad: with the image's channels in the lanes, or with few, the result's."""
    turned = product.node.attrs["turned"]
    return Work(1, TurnedWeightGrad(product).run if turned else WeightGrad(product).run)


class WeightGrad:
    """pooled_weight_grad with few channels: dw [kh,kw,C,O], the result's channels in the lanes.

    The image x is [N,H,W,C], g and winner are [N,Ho,Wo,O]. Each element that a window reaches is
    loaded once, and multiplied with what each of the window's entries has of the gradient.
    """

    def __init__(self, product: Product) -> None:
        node, self.site = product.node, product.site
        self.k = product.k
        self.x, self.g, self.winner = product.operands
        (self.dw,) = self.site.results
        self.kh, self.kw, self.c, self.o = node.shape
        _, self.h, self.wide, _ = node.inputs[0].shape
        _, self.ho, self.wo, _ = node.inputs[1].shape
        (self.ph, self.pw), self.stride = node.attrs["pool"], node.attrs["pool_stride"]
        self.taps = self.kh * self.kw * self.c
        self.images = concrete(node.inputs[1].shape, self.site.rows)[0]

    def run(self, begin: Int, end: Int) -> None:
        """All of dw, image by image."""
        if not self.site.accumulate:
            fill(self.k, self.dw, self.o * self.taps, 0.0)
        uses = self._uses()
        with self.k.range(0, self.images) as n:
            for start, lanes in lanes_of(self.o, host().lanes):
                self._image(n, start, lanes, uses)

    def _uses(self) -> Uses:
        """For each element that a window reaches: the (entry, tap) that meet there."""
        uses: Uses = {}
        for e in range(self.ph * self.pw):
            for t in range(self.taps):
                i, j, z = t // (self.kw * self.c), t // self.c % self.kw, t % self.c
                place = ((e // self.pw + i) * self.wide + e % self.pw + j) * self.c + z
                uses.setdefault(place, []).append((e, t))
        return uses

    def _image(self, n: Int, start: int, lanes: int, uses: Uses) -> None:
        """An image's terms of dw[..., start:start+lanes]."""
        (sh, sw), wide = self.stride, self.wide * self.c

        def line(y: Int, sums: list[Value]) -> list[Value]:
            def window(q: Int, sums: list[Value]) -> list[Value]:
                corner = n * (self.h * wide) + y * (sh * wide) + q * (sw * self.c)
                at = (n * (self.ho * self.wo) + y * self.wo + q) * self.o + start
                return self._window(corner, at, lanes, sums, uses)

            return self.k.fold(0, self.wo, sums, window)

        zeros = [self.k.constant(0.0, "float", lanes)] * self.taps
        for t, value in enumerate(self.k.fold(0, self.ho, zeros, line)):
            at = t * self.o + start
            self.dw.store(self.dw.load(at, lanes) + value, at)

    def _window(
        self,
        corner: Int,
        at: Int,
        lanes: int,
        sums: list[Value],
        uses: Uses,
    ) -> list[Value]:
        """The sums of all taps with a window's terms."""
        k, sums = self.k, list(sums)
        gradient, which = self.g.load(at, lanes), self.winner.load(at, lanes)
        parts = [
            k.select(k.compare("eq", which, k.constant(e, "i8", lanes)), gradient, 0.0)
            for e in range(self.ph * self.pw)
        ]
        for place in sorted(uses):
            spread = k.splat(self.x.load(corner + place), lanes)
            for e, t in uses[place]:
                sums[t] = k.fma(spread, parts[e], sums[t])
        return sums


def weight_grad_scratch(node: Node) -> int:
    """Bytes of the notes of pooled_weight_grad on which windows have a gradient."""
    _, ho, wo, o = node.inputs[1].shape
    return 8 * words(ho * wo) * o if node.attrs["turned"] else 0


class TurnedWeightGrad:
    """pooled_weight_grad turned: dw [O,kh,kw,C], the image's channels in the lanes.

    The taps of one of the result's channels stay in registers, over all windows of an image whose
    gradient is not 0 (a ReLU shuts some): these are noted for all channels at first.
    """

    def __init__(self, product: Product) -> None:
        node, self.site = product.node, product.site
        self.k = product.k
        self.x, self.g, self.winner = product.operands
        (self.dw,) = self.site.results
        self.o, self.kh, self.kw, self.c = node.shape
        _, self.h, self.wide, _ = node.inputs[0].shape
        self.windows = Windows(self.k, node, node.inputs[1].shape, self.wide, self.c)
        self.images = concrete(node.inputs[1].shape, self.site.rows)[0]
        self.taps = [(a * self.wide + b) * self.c for a in range(self.kh) for b in range(self.kw)]
        self.notes = scratch(product, "i64")

    def run(self, begin: Int, end: Int) -> None:
        """All of dw, image by image."""
        if not self.site.accumulate:
            fill(self.k, self.dw, self.o * len(self.taps) * self.c, 0.0)
        with self.k.range(0, self.images) as n:
            g = self.g.at(n * (self.windows.count * self.o))
            note_across(self.k, g, self.windows.count, self.o, self.notes)
            with self.k.range(0, self.o) as channel:
                for start, lanes in lanes_of(self.c, host().lanes):
                    self._channel(n, channel, start, lanes)

    def _channel(self, n: Int, channel: Int, start: int, lanes: int) -> None:
        """An image's terms of dw[channel, :, :, start:start+lanes]."""
        k, first = self.k, n * (self.windows.count * self.o) + channel
        image = self.x.at(n * (self.h * self.wide * self.c) + start)

        def turn(window: Value, sums: list[Value]) -> list[Value]:
            at = window * self.o + first
            spread = k.splat(self.g.load(at), lanes)
            entry = k.convert("zext", self.winner.load(at), "i64")
            corner = self.windows.corner(window) + self.windows.place(entry)
            pairs = zip(self.taps, sums, strict=True)
            return [k.fma(spread, image.load(corner + tap, lanes), s) for tap, s in pairs]

        zeros, notes = [k.constant(0.0, "float", lanes)] * len(self.taps), self.notes.at(channel)
        sums = each_noted(k, notes, self.o, self.windows.count, zeros, turn)
        result = self.dw.at(channel * (len(self.taps) * self.c) + start)
        for t, value in enumerate(sums):
            result.store(result.load(t * self.c, lanes) + value, t * self.c)


def plane_size(node: Node) -> tuple[int, int]:
    """Height and width of the bordered plane in which pooled_input_grad sums."""
    (h, w), (_, kh, kw, _) = node.attrs["size"], node.inputs[2].shape
    return h + kh - 1, w + kw - 1


def input_grad_scratch(node: Node) -> int:
    """Bytes of that plane."""
    h, w = plane_size(node)
    return 4 * h * w * node.inputs[2].shape[3]


def emit_input_grad(product: Product) -> Work:
    """pooled_input_grad: shared out by images."""
    images = concrete(product.node.shape, product.site.rows)[0]
    return Work(images, InputGrad(product).run)


class InputGrad:
    """pooled_input_grad: dx [N,H,W,C] from g and winner [N,Ho,Wo,O] and weights [O,kh,kw,C].

    All that a window reaches, `tall` by `across` positions, is summed in registers, and added to a
    bordered plane [height,width,C], of which dx is the inside. For each entry of the window, the
    channels that won there with a gradient that is not 0 (a ReLU shuts some) are the bits of one
    integer, and a loop goes from bit to bit.
    """

    def __init__(self, product: Product) -> None:
        node = product.node
        self.k, self.product = product.k, product
        self.g, self.winner, self.w = product.operands
        self.o, self.kh, self.kw, self.c = node.inputs[2].shape
        (self.ph, self.pw), self.stride = node.attrs["pool"], node.attrs["pool_stride"]
        _, self.h, self.wide, _ = node.shape
        self.padding, (self.height, self.width) = node.attrs["padding"], plane_size(node)
        _, self.ho, self.wo, _ = node.inputs[0].shape
        self.tall, self.across = self.ph + self.kh - 1, self.pw + self.kw - 1
        self.plane = scratch(product)

    def run(self, begin: Int, end: Int) -> None:
        """Images from begin to end."""
        with self.k.range(begin, end) as n:
            fill(self.k, self.plane, self.height * self.width * self.c, 0.0)
            self._image(n)
            self._crop(n)

    def _image(self, n: Int) -> None:
        """Adds all windows of an image to the plane."""
        with self.k.range(0, self.ho) as y:
            for start, lanes in lanes_of(self.c, host().lanes):
                self._line(n, y, start, lanes)

    def _line(self, n: Int, y: Int, start: int, lanes: int) -> None:
        """Adds a line of windows to the plane, channels from `start` on.

        The columns that the next window reaches too stay in registers.
        """
        (sh, sw), o = self.stride, self.o
        first = n * (self.ho * self.wo * o) + y * (self.wo * o)
        line, shared = y * (sh * self.width * self.c) + start, max(0, self.across - sw)

        def window(x: Int, carried: list[Value]) -> list[Value]:
            corner = x * (sw * self.c) + line
            fresh = [self.plane.load(corner + p, lanes) for p in self._places(shared, self.across)]
            sums = self._window(x * o + first, [*carried, *fresh], start, lanes)
            self._store(sums[: len(fresh)], corner)
            return sums[len(fresh) :]

        begun = [self.plane.load(line + p, lanes) for p in self._places(0, shared)]
        self._store(self.k.fold(0, self.wo, begun, window), line + self.wo * sw * self.c)

    def _places(self, first: int, last: int) -> list[int]:
        """What columns of a window reach of the plane, from its corner on, column by column."""
        columns = range(first, last)
        return [(i * self.width + j) * self.c for j in columns for i in range(self.tall)]

    def _store(self, sums: list[Value], corner: Int) -> None:
        """Whole columns of sums to the plane."""
        for place, value in zip(self._places(0, len(sums) // self.tall), sums, strict=True):
            self.plane.store(value, corner + place)

    def _window(self, at: Int, sums: list[Value], start: int, lanes: int) -> list[Value]:
        """The sums of the positions that a window reaches, column by column, with what it adds."""
        for first, count in lanes_of(self.o, HELD):
            g, winner = self.g.at(at + first), self.winner.at(at + first)
            for number, bits in enumerate(won(self.k, g, winner, count, self.ph * self.pw)):
                y, x = divmod(number, self.pw)
                columns = [(x + j) * self.tall + y for j in range(self.kw)]
                around = [column + i for i in range(self.kh) for column in columns]
                after = self._entry(at, bits, first, [sums[s] for s in around], start, lanes)
                for s, value in zip(around, after, strict=True):
                    sums[s] = value
        return sums

    def _entry(
        self, at: Int, bits: Value, first: int, sums: list[Value], start: int, lanes: int
    ) -> list[Value]:
        """The sums of the kh * kw positions around an entry, with what its channels add."""
        k, taps = self.k, self.kh * self.kw * self.c

        def turn(channel: Value, sums: list[Value]) -> list[Value]:
            w = self.w.at(channel * taps + start)
            spread = k.splat(self.g.load(at + channel), lanes)
            return [k.fma(spread, w.load(t * self.c, lanes), s) for t, s in enumerate(sums)]

        return each_bit(k, bits, sums, turn, first)

    def _crop(self, n: Int) -> None:
        """The plane without its border, as the image's gradient."""
        p, q = self.padding
        with self.k.range(0, self.h) as y, self.k.range(0, self.wide) as x:
            inside = (y + p) * (self.width * self.c) + (x + q) * self.c
            for start, lanes in lanes_of(self.c, host().lanes):
                first = n * (self.h * self.wide) + y * self.wide + x
                value = self.plane.load(inside + start, lanes)
                self.product.write(first, start, self.c, value)


def won(k: Function, g: Array, winner: Array, count: int, entries: int) -> list[Value]:
    """Which of up to 64 channels won at each entry, with a gradient not 0: bits of an i64 each."""
    found: list[list[tuple[int, Value]]] = [[] for _ in range(entries)]
    for at, n in lanes_of(count, host().lanes):
        alive, which = k.compare("une", g.load(at, n), 0.0), winner.load(at, n)
        for entry, parts in enumerate(found):
            parts.append((at, alive & k.compare("eq", which, k.constant(entry, "i8", n))))
    # Where a loop ends is not foreseen: what the next one begins with should be there by then.
    return [k.pinned(joined(k, parts)) for parts in found]
