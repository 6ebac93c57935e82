"""Pointwise work: a fused body evaluated over all its elements, vector by vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir import Graph
from .jit import host
from .lanes import Body, Spot, groups, put
from .site import Int, Site, Work

GRAIN = 2048  # elements a worker takes at least: some hundred nanoseconds of work


def emit(site: Site) -> Work:
    """A fused node without a product: its outputs, element by element."""
    body: Graph = site.node.attrs["body"]
    arrays = dict(zip(body.inputs, site.operands, strict=True))
    shape = next(iter(body.outputs.values())).shape
    cut = groups(body)
    code = Body(site.k, body, arrays, cut)
    sizes: list[Int] = [_size(shape, group, site.rows) for group in cut] or [1]
    outputs = list(zip(body.outputs.values(), site.results, strict=True))

    def write(at: tuple[Int, ...], flat: Int, lanes: int) -> None:
        env = code.at(Spot(at, flat, lanes, site.row))
        for node, array in outputs:
            put(array, env[node], flat, lanes)

    if len(sizes) == 1:
        known = math.prod(n for n in shape if isinstance(n, int))
        return _flat(site, sizes[0], known % host().lanes == 0, write)
    return _nested(site, sizes, write)


def _size(shape: tuple, group: Sequence[int], rows: Int) -> Int:
    size: Int = 1
    for axis in group:
        size = shape[axis] * size if isinstance(shape[axis], int) else rows * size
    return size


def _flat(site: Site, size: Int, even: bool, write) -> Work:  # type: ignore[no-untyped-def]
    """All axes are one; `even` says that its size is whole vectors."""
    k, width = site.k, host().lanes

    def run(begin: Int, end: Int) -> None:
        if isinstance(begin, int) and isinstance(end, int):
            whole: Int = begin + (end - begin) // width * width
        else:
            whole = (end - begin) // width * width + begin
        if not isinstance(whole, int) or whole > begin:
            with k.range(begin, whole, width) as i:
                write((i,), i, width)
        if isinstance(end, int) and isinstance(begin, int):
            if end > whole:
                write((whole,), whole, end - whole)
            return
        if not even:
            with k.range(whole, end) as i:
                write((i,), i, 0)

    return Work(size, run, GRAIN)


def _nested(site: Site, sizes: Sequence[Int], write) -> Work:  # type: ignore[no-untyped-def]
    """All groups but the last are loops, the last one in vectors."""
    k, width, last = site.k, host().lanes, sizes[-1]
    inner = math.prod(s for s in sizes[1:] if isinstance(s, int))
    assert isinstance(last, int)
    whole = last // width * width

    def line(at: tuple[Int, ...], flat: Int) -> None:
        if whole:
            with k.range(0, whole, width) as c:
                write((*at, c), flat + c, width)
        if last > whole:
            write((*at, whole), flat + whole, last - whole)

    def loops(axis: int, at: tuple[Int, ...], flat: Int) -> None:
        if axis == len(sizes) - 1:
            line(at, flat)
            return
        stride = math.prod(s for s in sizes[axis + 1 :] if isinstance(s, int))
        with k.range(0, sizes[axis]) as i:
            loops(axis + 1, (*at, i), flat + i * stride)

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as i:
            loops(1, (i,), i * inner)

    return Work(sizes[0], run, max(1, GRAIN // inner))


def lanes_of(size: int, width: int) -> list[tuple[int, int]]:
    """(start, lanes) of the vectors that cover `size` elements."""
    return [(i, min(width, size - i)) for i in range(0, size, width)]
