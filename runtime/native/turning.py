"""Squares of vectors, transposed: in registers, or from memory to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .dsl import Array, Function, Value
from .jit import host
from .site import Int


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
    """The rounds of `turned` two by two, by way of memory: LLVM takes long over many shuffles."""
    lanes, p = host().lanes, k.parameters
    source, source_step = Array(k, p["x"], "float"), p["x_step"]
    halves = [n for n in (8, 4, 2, 1) if n < lanes]
    if len(halves) > 2:
        kept = k.stack("float", lanes * lanes)
        _rounds(k, source, source_step, kept, lanes, halves[:-2])
        source, source_step = kept, k.constant(lanes, "i64")
    _rounds(k, source, source_step, Array(k, p["y"], "float"), p["y_step"], halves[-2:])


def _rounds(
    k: Function, x: Array, x_step: Value, y: Array, y_step: Int, halves: Sequence[int]
) -> None:
    """Some rounds, each time for the lines that trade lanes with one another in them."""
    lanes = host().lanes
    together = [i for i in range(lanes) if not i & ~sum(halves)]
    stop, step = (lanes, 2 * halves[0]) if halves[-1] == 1 else (halves[-1], 1)
    with k.range(0, stop, step) as begin:
        first, to = x.at(x_step * begin), y.at(y_step * begin)
        lines = {i: first.load(x_step * i, lanes) for i in together}
        for half in halves:
            lines = interleaved(k, lines, lanes, half)
        for i, line in lines.items():
            to.store(line, y_step * i)
