"""Which of many numbers are not 0, as the bits of integers, and loops that go from bit to bit.

Such a loop does only the work that there is. Its end is not foreseen by the processor, some twenty
cycles: it should have more to do than that.
"""

from __future__ import annotations

from collections.abc import Callable

from .contract import Lanes, over_columns
from .dsl import BITS, Array, Function, Value
from .jit import host
from .site import Int

HELD = BITS["i64"]  # bits of one integer

Turn = Callable[[Value, list[Value]], list[Value]]


def words(count: int) -> int:
    """How many integers hold so many bits."""
    return -(-count // HELD)


def note_along(k: Function, x: Array, lines: Int, width: int, notes: Array) -> None:
    """Which elements of each line of x [lines, width] are not 0: notes [lines, words]."""
    with k.range(0, lines) as line:

        def word(at: Int, lanes: Lanes) -> None:
            start = x.at(line * width + at)
            alive = [(i, k.compare("une", start.load(i, n), 0.0)) for i, n in lanes]
            notes.store(joined(k, alive), line * words(width) + at // HELD)

        over_columns(k, width, HELD, word)


def note_across(
    k: Function,
    x: Array,
    lines: Int,
    width: int,
    notes: Array,
    begin: Int = 0,
    end: Int | None = None,
) -> None:
    """In which lines of x [lines, width] each element is not 0: notes [words, width].

    Only those from `begin` to `end`, if given: multiples of a vector, or the end of all.
    """
    with k.range(0, lines, HELD) as first:
        count = k.minimum(lines - first, HELD)

        def vector(at: Int, lanes: Lanes) -> None:
            ((_, n),) = lanes
            start = x.at(first * width + at)

            def line(i: Int, values: list[Value]) -> list[Value]:
                found, bit = values
                alive = k.compare("une", start.load(i * width, n), 0.0)
                return [k.select(alive, found | bit, found), bit + bit]

            none, one = k.constant(0, "i64", n), k.constant(1, "i64", n)
            found, _ = k.fold(0, count, [none, one], line)
            notes.store(found, first // HELD * width + at)

        over_columns(k, width, host().lanes, vector, begin, end)


def each_noted(
    k: Function, notes: Array, step: int, count: Int, values: list[Value], turn: Turn
) -> list[Value]:
    """turn(i, values) for each of `count` that is noted, its words `step` elements apart."""

    def word(first: Int, values: list[Value]) -> list[Value]:
        return each_bit(k, notes.load(first // HELD * step), values, turn, first)

    return k.fold(0, count, values, word, HELD)


def joined(k: Function, parts: list[tuple[int, Value]]) -> Value:
    """Vectors of truth values, each with the number of its first lane, as the bits of an i64."""
    total = k.constant(0, "i64")
    for at, part in parts:
        bits = k.bits(part)
        wide = k.convert("zext", bits, "i64") if part.lanes < HELD else bits
        total = total | (wide << at if at else wide)
    return total


def each_bit(k: Function, bits: Value, values: list[Value], turn: Turn, first: Int) -> list[Value]:
    """turn(first + i, values) for each bit i that is set, from the lowest."""

    def step(carried: list[Value]) -> list[Value]:
        left, *rest = carried
        others = left & k.binary("add", left, k.constant(-1, "i64"))
        return [others, *turn(k.lowest_bit(left) + first, rest)]

    return k.fold_while([bits, *values], lambda v: k.compare("ne", v[0], 0), step)[1:]
