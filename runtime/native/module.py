"""A program's module: its functions, the places of values in its arenas, and how work is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from ...passes.memory import Buffer, aligned
from ...passes.plan import Plan
from ...passes.plan import Value as Place
from .dsl import BITS, DTYPE_SCALARS, Array, Function, Value
from .prelude import prelude
from .site import Int, Work
from .stamps import log_bytes, stamp

POINTERS = (("arena", "ptr"), ("state", "ptr"), ("own", "ptr"), ("x", "ptr"))
PARAMETERS = (*POINTERS, ("rows", "i64"), ("worker", "i64"))


@dataclass(frozen=True)
class Call:
    """A function that a batch runs, what it touches, and the slot of what it does (stamps.py).

    `alone` says that only the first worker has work. `touches` is (read, written), None for all.
    One that is `once` need not run again until the model's arrays have changed.
    """

    name: str
    alone: bool
    slot: int | None = None
    touches: tuple[Sequence[Buffer], Sequence[Buffer]] | None = None
    once: bool = False

    def waits_for(self, earlier: Call) -> bool:
        """Whether what another worker does in `earlier` has to be done before."""
        if self.alone and earlier.alone:
            return False
        if self.touches is None or earlier.touches is None:
            return True
        (reads, writes), (read, written) = self.touches, earlier.touches
        pairs = [*product(writes, (*read, *written)), *product(reads, written)]
        return any(_same_memory(a, b) for a, b in pairs)


def _same_memory(a: Buffer, b: Buffer) -> bool:
    if a.private or b.private:
        return False
    if a.outer is not None or b.outer is not None:
        return a.outer == b.outer
    return a.offset < b.offset + b.room and b.offset < a.offset + a.room


def meetings(calls: Sequence[Call], since: Sequence[Call] = ()) -> list[bool]:
    """Before which calls the workers have to meet; `since` are those since they last met."""
    found: list[bool] = []
    for call in calls:
        meet = any(call.waits_for(earlier) for earlier in since)
        since = [call] if meet else [*since, call]
        found.append(meet)
    return found


@dataclass
class Module:
    """The functions of a program, in order, and which of them a batch runs."""

    plan: Plan
    offsets: Mapping[str, int]  # of the model's arrays, bytes from the first one
    workers: int
    timed: bool = False  # whether each worker notes when it was done with what: see stamps.py
    functions: list[Function] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # what a batch runs, in order

    @property
    def own_bytes(self) -> int:
        """Bytes of each worker's own arena; behind the plan's is the log of a timed module."""
        log = log_bytes(self.plan) if self.timed else 0
        return aligned(self.plan.private_bytes) + aligned(log)

    @property
    def arena_bytes(self) -> int:
        """Bytes of the shared arena, every worker's own, and room for what moves put aside."""
        return aligned(self.plan.arena_bytes) + self.workers * self.own_bytes + self.aside_bytes

    @property
    def aside_bytes(self) -> int:
        """Bytes of the inputs that replace other inputs; see `_add_moves`."""
        moved = [self.plan.outputs[name] for name in self.plan.moves]
        return sum(aligned(v.type.nbytes(1)) for v in moved if v.buffer.outer is not None)

    @cached_property
    def keeps_x(self) -> bool:
        """Whether the inputs x are read only, so that they may be the caller's own."""
        written = [v for step in self.plan.steps() for v in step.results]
        x, others = self.plan.inputs.get("x"), [*written, *self.plan.outputs.values()]
        return x is not None and all(v.buffer is not x.buffer for v in others)

    def text(self) -> str:
        """The module as LLVM text."""
        declared = sorted(set().union(*(f.declared for f in self.functions)))
        parts = [*declared, *(f.llvm for f in self.functions), prelude(self.workers, self.timed)]
        return "\n\n".join([*parts, "attributes #0 = { nounwind }"])

    def listing(self) -> str:
        """The module as loops people can read."""
        return "\n\n".join(f.listing for f in self.functions)


def place(m: Module, k: Function, value: Place, row: Int) -> Array:
    """Where a value's rows from `row` on are."""
    scalar, t = DTYPE_SCALARS[value.type.dtype], value.type
    array = in_buffer(m, k, value.buffer, scalar)
    return array.at(row * t.size(1)) if t.per_row and not value.tiled else array


def in_buffer(m: Module, k: Function, buffer: Buffer, scalar: str) -> Array:
    """A buffer as elements of `scalar`: in the model's state, an own arena, or the shared one.

    The inputs x are where the caller of the step says, if they are only read.
    """
    nbytes = BITS[scalar] // 8
    if m.keeps_x and buffer is m.plan.inputs["x"].buffer:
        return Array(k, k.parameters["x"], scalar)
    if buffer.outer is not None:
        return Array(k, k.parameters["state"], scalar, m.offsets[buffer.outer] // nbytes)
    base = k.parameters["own" if buffer.private else "arena"]
    return Array(k, base, scalar, buffer.offset // nbytes)


def share(k: Function, work: Work, workers: int, alone: bool = False) -> bool:
    """Emits each worker's part of some work; whether only the first has any."""
    first = _share(k, work, workers, alone)
    return (work.also is None or share(k, work.also, workers, alone)) and first


def _share(k: Function, work: Work, workers: int, alone: bool) -> bool:
    """`share` without what is to be done besides."""
    if workers == 1:
        work.run(0, work.extent)
        return True
    worker = k.parameters["worker"]
    if alone or (isinstance(work.extent, int) and work.extent <= work.grain):
        with k.when(worker.equals(0)):
            work.run(0, work.extent)
        return True
    units = (work.extent + (work.grain - 1)) // work.grain
    begin = units * worker // workers * work.grain
    end = units * (worker + 1) // workers * work.grain
    work.run(begin, k.minimum(end, work.extent))
    return False


def clock(m: Module, k: Function, own: Value, slot: int) -> None:
    """In a timed module: what was done since the last clock belongs to a slot."""
    if m.timed:
        stamp(m.plan, k, own, slot)


def partial_sum(m: Module, k: Function, value: Place, buffer: Buffer, shard: Int) -> Array:
    """Where a shard of a region sums a value."""
    scalar = DTYPE_SCALARS[value.type.dtype]
    size = aligned(value.type.nbytes(1)) // (BITS[scalar] // 8)
    return in_buffer(m, k, buffer, scalar).at(shard * size)


def as_arrays(plan: Plan, arena: np.ndarray) -> Callable[[Place, int], np.ndarray]:
    """A function from a value of the plan and a number of rows to its array in the arena."""

    def array(value: Place, rows: int) -> np.ndarray:
        begin, t = value.buffer.offset, value.type
        return arena[begin : begin + t.nbytes(rows)].view(t.numpy).reshape(t.concrete(rows))

    return array
