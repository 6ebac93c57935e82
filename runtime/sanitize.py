"""sanitize: programs that check their plan while they run.

Every buffer is held from the step that writes it first until the last that reads it, as the plan
says, and all bytes that no one holds are NaN. To hold what another holds is an error, and so is to
read a buffer that is not held. What a kernel reads of no one's bytes shows as that very NaN (all
bits set, which no arithmetic makes of other numbers) in its results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn

import numpy as np

from ..ir import CompileError, SanitizeError
from ..passes.memory import Buffer
from ..passes.plan import Loop, Plan, Step
from .binding import Call
from .blas import BlasProgram, Bound

DEAD = 0xFF  # each byte of memory that no one holds: NaN in float32 and float64


class Guard:
    """Who holds which bytes of a plan's arena, and of the workers' own ones, at this moment."""

    def __init__(self, plan: Plan, shared: np.ndarray, own: Sequence[np.ndarray] = ()) -> None:
        self.plan = plan
        self._memory = {False: [shared], True: own}
        self._held: dict[Buffer, None] = {}
        self._log: list[Buffer] = []  # all that were held in this batch
        self._check_inside(plan)
        loops = [part for part in plan.parts if isinstance(part, Loop)]
        self._looped = {step for loop in loops for step in loop.steps}
        tiled = [v.buffer for s in self._looped for v in s.results if v.tiled]
        self._tiled = {*tiled, *(s.scratch for s in self._looped)}

    def _check_inside(self, plan: Plan) -> None:
        for buffer in (*plan.buffers, *plan.private_buffers):
            room = plan.private_bytes if buffer.private else plan.arena_bytes
            inside = 0 <= buffer.offset <= room - buffer.room
            if buffer.outer is None and not inside:
                raise SanitizeError(f"plan: {told(buffer)}: the arena has {room:,} bytes")

    def start(self) -> None:
        """A batch begins: only its inputs are held."""
        self._held.clear()
        self._log.clear()
        for value in self.plan.inputs.values():
            self._hold(value.buffer, "the batch")
        inputs = [(raw, raw.copy()) for b in self._held for raw in self._bytes(b)]
        for memory in (*self._memory[False], *self._memory[True]):
            memory.fill(DEAD)
        for raw, content in inputs:
            raw[...] = content
        self._release(b for b in self._held if b.end == 0)  # inputs that nothing reads

    def enter(self, loop: Loop) -> None:
        """A loop begins: what it makes for the whole batch is held."""
        whole = [v.buffer for step in loop.steps for v in step.results if not v.tiled]
        for buffer in (*whole, *(b for _, b in loop.partials)):
            self._hold(buffer, _who(loop.steps[0]))

    def begin(self, step: Step) -> None:
        """A step begins, on a tile or all rows: it may read its operands and write its results."""
        for value in step.operands:
            self._check_held(value.buffer, _who(step))
        for value in step.results:
            self._hold(value.buffer, _who(step))
        if step.scratch:
            self._hold(step.scratch, _who(step))

    def end(self, step: Step, results: Iterable[np.ndarray] = ()) -> None:
        """A step is done. In a loop it lets go only of what holds one tile."""
        for array in results:
            check_alive(step, array)
        looped = step in self._looped
        ended = (b for b in self._held if b.end <= step.time)
        self._release(b for b in ended if not looped or b in self._tiled)

    def leave(self, loop: Loop) -> None:
        """A loop is done, and with it what nothing behind it reads."""
        self._release(b for b in self._held if b.end <= loop.steps[-1].time)

    def finish(self) -> None:
        """A batch is done: its outputs are still held."""
        for name, value in self.plan.outputs.items():
            self._check_held(value.buffer, f"output {name}:")

    def _hold(self, buffer: Buffer, who: str) -> None:
        if buffer.outer is not None or buffer in self._held:
            return
        for other in _sharing(buffer, self._held):
            raise SanitizeError(
                f"{who} takes {told(buffer)}, which overlaps {told(other)}: that is still needed"
            )
        self._held[buffer] = None
        self._log.append(buffer)

    def _check_held(self, buffer: Buffer, who: str) -> None:
        if buffer.outer is not None or buffer in self._held:
            return
        since = next(map(told, _sharing(buffer, reversed(self._log))), "nothing")
        raise SanitizeError(f"{who} reads {told(buffer)}, which is gone: {since} came after it")

    def _release(self, buffers: Iterable[Buffer]) -> None:
        for buffer in list(buffers):
            del self._held[buffer]
            for raw in self._bytes(buffer):
                raw.fill(DEAD)

    def _bytes(self, buffer: Buffer) -> list[np.ndarray]:
        """A buffer's bytes: in the shared arena, or each worker's own."""
        memory = self._memory[buffer.private]
        return [m[buffer.offset : buffer.offset + buffer.room] for m in memory]


class SanitizedBlasProgram(BlasProgram):
    """A BlasProgram with a guard around each step, on each tile."""

    def __init__(
        self,
        plan: Plan,
        outer: Mapping[str, np.ndarray],
        arena: np.ndarray,
        threads: int | None = None,
    ) -> None:
        super().__init__(plan, outer, arena, threads)
        self._guard = Guard(plan, arena)

    def profile(self, *arguments: object) -> NoReturn:
        """CompileError: the times would be those of the checks."""
        refuse_profile()

    def _bind_parts(self, rows: int) -> Bound:
        bound = super()._bind_parts(rows)
        return replace(bound, flat=(self._guard.start, *bound.flat, self._guard.finish))

    def _part(self, part: Step | Loop, rows: int) -> Iterator[tuple[Step | None, tuple[Call, ...]]]:
        if isinstance(part, Step):
            yield from super()._part(part, rows)
            return
        yield None, (partial(self._guard.enter, part),)
        yield from super()._part(part, rows)
        yield None, (partial(self._guard.leave, part),)

    def _calls(self, step: Step, row: int, stop: int, rows: int) -> Iterator[Call]:
        yield partial(self._guard.begin, step)
        yield from super()._calls(step, row, stop, rows)
        results = [self._array(v, row, stop) for v in step.results]
        yield partial(self._guard.end, step, results)


def check_alive(step: Step, result: np.ndarray) -> None:
    """SanitizeError if a step's result has numbers of dead memory, taken over or left there."""
    if result.dtype.kind != "f":
        return
    words = result.reshape(-1).view(f"u{result.itemsize}")
    if (words == np.iinfo(words.dtype).max).any():
        raise SanitizeError(
            f"{_who(step)} has the NaN of memory that no one holds in its result {result.shape}: "
            "it read such memory, or left a part of its result unwritten"
        )


def refuse_profile() -> NoReturn:
    """CompileError: what is checked while it runs has no times worth knowing."""
    raise CompileError("profile: compiled with sanitize=True, expected sanitize=False")


def _who(step: Step) -> str:
    return f"step {step.time}, {step.node.op}{f' of {step.node.loc}' if step.node.loc else ''}:"


def _sharing(buffer: Buffer, others: Iterable[Buffer]) -> Iterator[Buffer]:
    """Those of the others that have bytes of a buffer's."""
    for other in others:
        begin, end = other.offset, other.offset + other.room
        apart = buffer.offset >= end or buffer.offset + buffer.room <= begin
        if other is not buffer and other.private == buffer.private and not apart:
            yield other


def told(buffer: Buffer) -> str:
    """What a buffer is, where it is, and when."""
    of = f" of {buffer.loc}" if buffer.loc else ""
    place = f"{'private ' if buffer.private else ''}bytes {buffer.offset:,}"
    life = f"steps {buffer.start} to {buffer.end}"
    return f"{buffer.label}{of} ({place} to {buffer.offset + buffer.room:,}, {life})"
