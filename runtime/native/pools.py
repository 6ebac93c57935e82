"""Max-pooling in NHWC, channels in the lanes, with the number of the entry that won."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ir.graph import result_types
from .dsl import Value
from .jit import host
from .movers import concrete, fill
from .site import Int, Site, Work
from .sweep import lanes_of


def _windows(site: Site, shape: tuple, run: Callable[[Int, Int, Int], None]) -> Work:
    """run(row, line, column) for each window of images of `shape`."""
    k, (_, ho, wo, _) = site.k, shape

    def rows(begin: Int, end: Int) -> None:
        with k.range(begin, end) as n, k.range(0, ho) as y, k.range(0, wo) as x:
            run(n, y, x)

    return Work(concrete(shape, site.rows)[0], rows)


def better(x: Value, best: Value) -> Value:
    """Whether x beats the best so far: larger, or NaN where that is none."""
    k = x.k
    return k.compare("ugt", x, best) & k.ordered(best)


def emit_max_pool2d(site: Site) -> Work:
    """max_pool2d: the first of those that tie wins, and the first NaN."""
    (x,), (y, winner), node, k = site.operands, site.results, site.node, site.k
    _, h, w, c = node.inputs[0].shape
    (kh, kw), (sh, sw) = node.attrs["kernel"], node.attrs["stride"]
    shape: tuple[Any, ...] = result_types(node)[0].shape
    _, ho, wo, _ = shape

    def window(n: Int, line: Int, column: Int) -> None:
        start = n * (h * w * c) + line * (sh * w * c) + column * (sw * c)
        out = n * (ho * wo * c) + line * (wo * c) + column * c
        for at, lanes in lanes_of(c, host().lanes):
            best, which = x.load(start + at, lanes), k.constant(0, "i8", lanes)
            for entry in range(1, kh * kw):
                i, j = divmod(entry, kw)
                value = x.load(start + (i * w + j) * c + at, lanes)
                wins = better(value, best)
                best = k.select(wins, value, best)
                which = k.select(wins, k.constant(entry, "i8", lanes), which)
            y.store(best, out + at)
            winner.store(which, out + at)

    return _windows(site, shape, window)


def emit_max_unpool2d(site: Site) -> Work:
    """max_unpool2d: g where an entry won, 0 elsewhere; windows that overlap add up."""
    (g, winner), (dx,), node, k = site.operands, site.results, site.node, site.k
    _, h, w, c = node.shape
    (kh, kw), (sh, sw) = node.attrs["kernel"], node.attrs["stride"]
    _, ho, wo, _ = node.inputs[0].shape
    apart = kh <= sh and kw <= sw
    covered = (kh, kw) == (sh, sw) and (ho * kh, wo * kw) == (h, w)

    def window(n: Int, line: Int, column: Int) -> None:
        start = n * (h * w * c) + line * (sh * w * c) + column * (sw * c)
        at = n * (ho * wo * c) + line * (wo * c) + column * c
        for first, lanes in lanes_of(c, host().lanes):
            value, which = g.load(at + first, lanes), winner.load(at + first, lanes)
            for entry in range(kh * kw):
                i, j = divmod(entry, kw)
                place = start + (i * w + j) * c + first
                won = k.compare("eq", which, k.constant(entry, "i8", lanes))
                part = k.select(won, value, 0.0)
                dx.store(part if apart else dx.load(place, lanes) + part, place)

    work = _windows(site, node.inputs[0].shape, window)

    def run(begin: Int, end: Int) -> None:
        if not covered:
            fill(k, dx.at(begin * (h * w * c)), (end - begin) * (h * w * c), 0.0)
        work.run(begin, end)

    return Work(work.extent, run)
