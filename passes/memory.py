"""Memory: buffers with lifetimes, and their offsets in one arena.

Source: greedy by size, Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net
Inference" (2020), arXiv 2001.03288: the largest buffer first, each at the lowest offset at which it
overlaps none that is alive at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ALIGN = 64  # bytes: one cache line, one AVX-512 vector


def aligned(nbytes: int) -> int:
    """nbytes rounded up to ALIGN."""
    return -(-nbytes // ALIGN) * ALIGN


@dataclass(eq=False)
class Buffer:
    """`nbytes` bytes alive from step `start` to step `end`, both included.

    `outer` names a buffer of the model that it is, if it is not in the arena. `private` says that
    every worker has its own, in an arena apart. `label` and `loc` say what is kept there and which
    layer made it.
    """

    nbytes: int
    start: int
    end: int
    label: str
    loc: str
    outer: str | None = None
    private: bool = False
    offset: int = 0

    def used_at(self, time: int) -> None:
        """Keeps the buffer alive until step `time`."""
        self.end = max(self.end, time)

    def overlaps(self, other: Buffer) -> bool:
        """Whether both are in the arena and alive at one time."""
        together = self.start <= other.end and other.start <= self.end
        return together and self.outer is None and other.outer is None

    @property
    def room(self) -> int:
        """Bytes it takes in the arena, rounded up to ALIGN."""
        return aligned(self.nbytes)


def allocate(buffers: Iterable[Buffer]) -> int:
    """Sets the offset of every buffer that belongs in the arena; returns the arena's bytes."""
    inner = [b for b in buffers if b.outer is None]
    by_size = sorted(inner, key=lambda b: (-b.room, b.start))
    by_span = sorted(inner, key=lambda b: (b.start - b.end, -b.room))
    best = min((by_size, by_span), key=_place)
    return _place(best)


def lower_bound(buffers: Sequence[Buffer]) -> tuple[int, int]:
    """(the most bytes alive at one step, that step): what no arena can be smaller than."""
    change: dict[int, int] = {}
    for b in buffers:
        if b.outer is None:
            change[b.start] = change.get(b.start, 0) + b.room
            change[b.end + 1] = change.get(b.end + 1, 0) - b.room
    live, peak, when = 0, 0, 0
    for time in sorted(change):
        live += change[time]
        if live > peak:
            peak, when = live, time
    return peak, when


def _place(buffers: Sequence[Buffer]) -> int:
    placed: list[Buffer] = []
    for b in buffers:
        b.offset = _lowest_gap(b, sorted(filter(b.overlaps, placed), key=lambda p: p.offset))
        placed.append(b)
    return max((b.offset + b.room for b in placed), default=0)


def _lowest_gap(buffer: Buffer, taken: Sequence[Buffer]) -> int:
    offset = 0
    for other in taken:
        if offset + buffer.room <= other.offset:
            break
        offset = max(offset, other.offset + other.room)
    return offset
