"""Where a step runs, and the work it consists of: what the program gives to a kernel and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...ir import Node
from .dsl import Array, Function, Value

Int = Value | int


@dataclass(frozen=True)
class Site:
    """One execution of a step, written into function `k`.

    Operands and results are seen from row `row` of the batch on; there are `rows` rows to work on,
    at most `most`, of a batch of `batch`. Where `accumulate` holds, a sum over rows is added to
    what its result has already. `room` is scratch of this worker alone, in bytes; `workers` of them
    share the step.
    """

    k: Function
    node: Node
    operands: Sequence[Array]
    results: Sequence[Array]
    room: Array
    row: Int
    rows: Int
    most: int
    batch: Int
    accumulate: bool
    workers: int


@dataclass(frozen=True)
class Work:
    """`extent` equal units of work; run(begin, end) does those from begin to end, in any order.

    Bounds that `run` is given are multiples of `grain`, or the extent itself. `also` is more work,
    shared out by itself, which needs nothing of this.
    """

    extent: Int
    run: Callable[[Int, Int], None]
    grain: int = 1
    also: Work | None = None


def alone(run: Callable[[], None]) -> Work:
    """Work that cannot be shared."""
    return Work(1, lambda begin, end: run())
