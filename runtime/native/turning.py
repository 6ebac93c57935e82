"""Squares of vectors, transposed: in registers, or from memory to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .dsl import Array, Function, Value
from .jit import host

FOUR = 4  # lanes that a vector has at least, and lines that are turned inside of vectors


def widened(k: Function, x: Value, lanes: int) -> Value:
    """A vector of so many lanes, of which those that x has not may be anything."""
    return x if x.lanes == lanes else k.shuffle(x, x, [i % x.lanes for i in range(lanes)])


def turned(k: Function, lines: Sequence[Value]) -> list[Value]:
    """A square of vectors, transposed: log2 rounds of interleaving halves."""
    half, found = len(lines) // 2, dict(enumerate(lines))
    while half:
        found, half = interleaved(k, found, len(lines), half), half // 2
    return list(found.values())


def interleaved(k: Function, lines: Mapping[int, Value], n: int, half: int) -> dict[int, Value]:
    """One round: lines whose numbers differ in the bit `half` trade the lanes that differ in it."""
    following = dict(lines)
    low = [j if not j & half else n + (j ^ half) for j in range(n)]
    high = [j | half if not j & half else n + j for j in range(n)]
    for i in lines:
        if not i & half:
            following[i] = k.shuffle(lines[i], lines[i | half], low)
            following[i | half] = k.shuffle(lines[i], lines[i | half], high)
    return following


def turn(k: Function, x: Array, x_step: int, y: Array, y_step: int) -> None:
    """Transposes a square of vectors of f32 from x to y, whose lines lie so many elements apart."""
    lanes = host().lanes
    parameters = (("x", "ptr"), ("x_step", "i64"), ("y", "ptr"), ("y_step", "i64"))
    k.procedure(f"turn.{lanes}", parameters, _turn)
    k.call(f"@turn.{lanes}", x.pointer(), k.integer(x_step), y.pointer(), k.integer(y_step))


def _turn(k: Function) -> None:
    """Four lines of the result at a time, put together from quarters of a vector or so: those of
    four lines of x come into one vector as they are loaded, and what is left is done inside them.
    """
    lanes, p = host().lanes, k.parameters
    x, y = Array(k, p["x"], "float"), Array(k, p["y"], "float")
    with k.range(0, lanes, FOUR) as column:
        lines = {}
        for i in range(FOUR):
            starts = [x.at(p["x_step"] * line) for line in range(i, lanes, FOUR)]
            lines[i] = _joined(k, [start.load(column, FOUR) for start in starts])
        for half in (2, 1):
            lines = interleaved(k, lines, lanes, half)
        to = y.at(p["y_step"] * column)
        for i, line in lines.items():
            to.store(line, p["y_step"] * i)


def _joined(k: Function, parts: list[Value]) -> Value:
    """Vectors of the same length, a power of two of them, side by side in one."""
    while len(parts) > 1:
        both = range(2 * parts[0].lanes)
        parts = [k.shuffle(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]
