"""The register-blocked kernel behind every generated product and convolution.

    acc[p][v] += a[offset[p] + ka] * b[v's lanes + kb]     over loops of (ka, kb)

A block of accumulators stays in registers while its terms stream past: one vector of b serves every
p, one element of a, spread over the lanes, every v. In a product of matrices p is a row; in a
convolution a position, and the loops run over the kernel's rows and over the taps and channels that
lie side by side; in a weight gradient p is a tap of a channel, and the loops run over positions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from .dsl import Array, Function, Value
from .jit import host
from .site import Int
from .sweep import lanes_of

UNROLLED = 96  # multiply-adds up to which a whole loop is unrolled: beyond, code outweighs branches
TURNS = 4  # turns of a longer loop that are written out as one, so that its branch is seldom
TURN_TERMS = 32  # multiply-adds that turns are joined up to: a block of as many hides its branch
MOST_ROWS, MOST_VECTORS = 28, 8  # of a block: 28 accumulators and 1 of b fit into 32 registers
IN_FLIGHT = 8  # accumulators that keep two multiply-adds a cycle of latency 4 going
MOST_PARTS = 4  # of which a sum is made at most, to have enough accumulators in flight

Lanes = Sequence[tuple[int, int]]  # (start, lanes) of the vectors of a block, in elements


@dataclass(frozen=True)
class Loop:
    """A loop over `extent` terms; a and b advance by so many elements a turn."""

    extent: Int
    a: int
    b: int


@dataclass(frozen=True)
class Part:
    """A loop over terms that only `places` of a block have, `start` elements further on in a.

    Where it starts in b follows from the parts before it.
    """

    start: int
    loop: Loop
    places: Sequence[int]


def contract(
    k: Function, a: Array, b: Array, loops: Sequence[Loop], offsets: Sequence[int], lanes: Lanes
) -> list[list[Value]]:
    """The accumulators of one block: for each of `offsets` a vector for each (start, lanes)."""
    zeros = _zeros(k, a, offsets, lanes)
    return _by_places(_terms(k, a, b, list(loops), offsets, lanes, zeros), lanes)


def contract_in_parts(
    k: Function, a: Array, b: Array, loop: Loop, offsets: Sequence[int], lanes: Lanes
) -> list[list[Value]]:
    """The same over one loop, the sums of few places in parts, which are added up at last."""
    parts, extent = parts_of(len(offsets)), loop.extent
    if parts == 1 or not isinstance(extent, int):
        return contract(k, a, b, [loop], offsets, lanes)
    zeros, whole = _zeros(k, a, offsets, lanes), extent // parts * parts
    n = len(zeros)

    def term(i: Int, values: list[Value]) -> list[Value]:
        return _term(k, a.at(i * loop.a), b.at(i * loop.b), offsets, lanes, values)

    def several(i: Int, values: list[Value]) -> list[Value]:
        sums = (term(i + part, values[part * n : part * n + n]) for part in range(parts))
        return list(itertools.chain.from_iterable(sums))

    sums = k.fold(0, whole, zeros * parts, several, parts)
    acc = sums[:n]
    for part in range(1, parts):
        acc = [x + y for x, y in zip(acc, sums[part * n :], strict=False)]
    for i in range(whole, extent):
        acc = term(i, acc)
    return _by_places(acc, lanes)


def parts_of(places: int) -> int:
    """In how many parts the sums of a block of few places are, so that enough are under way.

    By the places alone: how many vectors a block has may depend on the workers, no bit may.
    """
    return max(1, min(MOST_PARTS, IN_FLIGHT // places))


def contract_inside(
    k: Function,
    a: Array,
    b: Array,
    outer: Loop,
    parts: Sequence[Part],
    offsets: Sequence[int],
    lanes: Lanes,
) -> list[list[Value]]:
    """The same where some terms are known to be zero for some places: `parts` in each turn."""
    width = len(lanes)

    def turn(i: Int, values: list[Value]) -> list[Value]:
        at, values = 0, list(values)
        for part in parts:
            slots = [p * width + v for p in part.places for v in range(width)]
            terms = [offsets[p] for p in part.places]
            x, y = a.at(i * outer.a + part.start), b.at(i * outer.b + at)
            if terms:
                after = _terms(k, x, y, [part.loop], terms, lanes, [values[s] for s in slots])
                for s, value in zip(slots, after, strict=True):
                    values[s] = value
            at += part.loop.extent * part.loop.b if isinstance(part.loop.extent, int) else 0
        return values

    return _by_places(k.fold(0, outer.extent, _zeros(k, a, offsets, lanes), turn), lanes)


def _zeros(k: Function, a: Array, offsets: Sequence[int], lanes: Lanes) -> list[Value]:
    return [k.constant(0.0, a.scalar, n) for _ in offsets for _, n in lanes]


def _by_places(acc: list[Value], lanes: Lanes) -> list[list[Value]]:
    return [acc[i : i + len(lanes)] for i in range(0, len(acc), len(lanes))]


def _terms(
    k: Function,
    a: Array,
    b: Array,
    loops: list[Loop],
    offsets: Sequence[int],
    lanes: Lanes,
    acc: list[Value],
) -> list[Value]:
    """The accumulators with all terms of nested `loops` added; the innermost loop is unrolled."""
    if not loops:
        return _term(k, a, b, offsets, lanes, acc)
    loop, *inner = loops

    def body(i: Int, values: list[Value]) -> list[Value]:
        return _terms(k, a.at(i * loop.a), b.at(i * loop.b), inner, offsets, lanes, values)

    if not isinstance(loop.extent, int):
        return k.fold(0, loop.extent, acc, body)
    if not inner and loop.extent * len(acc) <= UNROLLED:
        for i in range(loop.extent):
            acc = body(i, acc)
        return acc
    step = max(1, min(TURNS, TURN_TERMS // len(acc))) if not inner else 1
    whole = loop.extent // step * step

    def several(i: Int, values: list[Value]) -> list[Value]:
        for turn in range(step):
            values = body(i + turn, values)
        return values

    acc = k.fold(0, whole, acc, several, step)
    for i in range(whole, loop.extent):
        acc = body(i, acc)
    return acc


def _term(
    k: Function,
    a: Array,
    b: Array,
    offsets: Sequence[int],
    lanes: Lanes,
    acc: list[Value],
) -> list[Value]:
    """The accumulators with one term added: a vector of b, an element of a for each place."""
    row = [b.load(start, n) for start, n in lanes]
    out = []
    for p, offset in enumerate(offsets):
        x = a.load(offset)
        spread: dict[int, Value] = {}
        for v, (_, n) in enumerate(lanes):
            if n not in spread:
                spread[n] = k.splat(x, n)
            out.append(k.fma(spread[n], row[v], acc[p * len(lanes) + v]))
    return out


def stencil(
    k: Function,
    a: Array,
    b: Array,
    taps: Sequence[int],
    b_step: int,
    places: Sequence[int],
    lanes: Lanes,
) -> list[list[Value]]:
    """The same where there are few terms: those of b are loaded once, each element of a too.

    The accumulator of a place is the sum over taps t of a[place + taps[t]] * b[t * b_step].
    """
    held = [[b.load(t * b_step + at, n) for at, n in lanes] for t in range(len(taps))]
    sums: list[list[Value | None]] = [[None] * len(lanes) for _ in places]
    uses: dict[int, list[tuple[int, int]]] = {}  # of an element of a: (place, tap)
    for (p, place), (t, tap) in itertools.product(enumerate(places), enumerate(taps)):
        uses.setdefault(place + tap, []).append((p, t))
    for offset in sorted(uses):
        x = a.load(offset)
        spread = {n: k.splat(x, n) for n in {n for _, n in lanes}}
        for (p, t), (v, (_, n)) in itertools.product(uses[offset], enumerate(lanes)):
            before = sums[p][v]
            term = spread[n], held[t][v]
            sums[p][v] = term[0] * term[1] if before is None else k.fma(*term, before)
    return [[value for value in row if value is not None] for row in sums]


Cover = Callable[[int, int], Iterable[tuple[int, int]]]  # see `spans`


@cache
def blocking(
    rows: int, vectors: int, cover: Cover, unit: int = 1, in_parts: bool = False
) -> tuple[int, int]:
    """(rows, vectors) of a block of accumulators for so many of both: the fastest.

    `cover` says how blocks cover the rows: `spans`, `with_singles` or `evenly`. Each row stands for
    `unit` accumulators a vector, times `parts_of` its rows if they are summed in parts.
    """
    sizes = itertools.product(
        range(1, min(vectors, MOST_VECTORS) + 1), range(1, min(rows, MOST_ROWS) + 1)
    )
    cycles = {}
    for v, p in sizes:
        units = p * unit * (parts_of(p) if in_parts else 1)
        if (p, v) == (1, 1) or _fits(units, v):
            cycles[v, p] = _block_cycles(p, v, rows, vectors, cover, unit)
    v, p = _fewest(cycles)
    return p, v


def sharing(rows: int, p: int, most: int, vectors: int, cover: Cover, workers: int) -> int:
    """How many of at most `most` vectors a block of p rows has, if `workers` share its columns."""
    cycles = {}
    for v in range(1, most + 1):
        columns = -(-vectors // v)
        uneven = -(-columns // workers) * workers / columns
        cycles[v, p] = _block_cycles(p, v, rows, vectors, cover, 1) * uneven
    return _fewest(cycles)[0]


def _fewest(cycles: Mapping[tuple[int, int], float]) -> tuple[int, int]:
    """What takes the fewest cycles; the first of those that differ by rounding alone."""
    least = min(cycles.values()) * (1 + 1e-9)
    return next(size for size, count in cycles.items() if count <= least)


def _block_cycles(p: int, v: int, rows: int, vectors: int, cover: Cover, unit: int) -> float:
    """About the cycles a term that so many rows and vectors take in blocks of p by v.

    Two multiply-adds a cycle, two loads a cycle, and no block is faster than its multiply-adds'
    latency. Infinite for blocks that do not cover the rows.
    """
    blocks = list(cover(rows, p))
    if not blocks:
        return math.inf
    columns = [v] * (vectors // v) + [vectors % v] * (vectors % v > 0)
    cycles = sum(_cycles(r * unit, c) * n for n, r in blocks for c in columns)
    return cycles * (1.0 + 0.02 * len(blocks) * len(set(columns)))  # code takes time to compile


def _fits(p: int, v: int) -> bool:
    """Whether p by v accumulators, a vector of b each and one of a have registers.

    Where there are fewer than 32, one more is left to LLVM.
    """
    registers = host().registers
    return p * v + v + 1 <= (registers if registers >= 32 else registers - 1)


def _cycles(p: int, v: int) -> float:
    """About how long a term of p by v accumulators takes: multiply-adds, loads or waiting for both.

    It ranks blocks. Of the waiting a quarter is taken off, as terms overlap; a quarter of a cycle
    is added for the loop.
    """
    return max(p * v / 2, (p + v) / 2, IN_FLIGHT / 2 * 0.75) + 0.25


def spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(how many, size) of the blocks that cover exactly `total`."""
    if total // size:
        yield total // size, size
    if total % size:
        yield 1, total % size


def with_singles(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(how many, size): blocks of `size`, then what is left one by one."""
    if total // size:
        yield total // size, size
    if total % size:
        yield total % size, 1


def evenly(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(how many, size) of blocks that leave nothing over; none where some would be left."""
    if total % size == 0:
        yield total // size, size


def over_rows(
    k: Function, begin: Int, end: Int, size: int, block: Callable[[Int, int], None]
) -> None:
    """block(start, count) over rows from begin to end: `size` at a time, then what is left.

    If the bounds are known that is one block, else one row after another.
    """
    if isinstance(begin, int) and isinstance(end, int):
        at = begin
        for n, count in spans(end - begin, size):
            with k.range(at, at + n * count, count) as i:
                block(i, count)
            at += n * count
        return
    last = k.integer(end)
    whole = (last - begin) // size * size + begin
    with k.range(begin, whole, size) as i:
        block(i, size)
    if size > 1:
        with k.range(whole, last) as i:
            block(i, 1)


def over_columns(
    k: Function,
    total: int,
    size: int,
    block: Callable[[Int, Lanes], None],
    begin: Int = 0,
    end: Int | None = None,
) -> None:
    """block(column, lanes) over `total` columns: `size` of them at a time, then what is left.

    Over those from `begin` to `end` only, if given: multiples of `size`, or the end of all.
    """
    end = total if end is None else end
    whole = total // size * size
    if whole:
        with k.range(begin, k.minimum(end, whole), size) as column:
            block(column, lanes_of(size, host().lanes))
    if total == whole:
        return
    rest = lanes_of(total - whole, host().lanes)
    if isinstance(end, int):
        block(whole, rest)
        return
    with k.when(end.equals(total)):
        block(whole, rest)
