"""Stamps: a timed module notes, worker by worker, when it was done with what.

A stamp appends a slot and a moment to the log at the end of the worker's own arena; the time since
the stamp before is that slot's. A stamp takes 10 ns, most of which a CPU spends on what comes next,
so a step takes as long with stamps as without; at the beginning of each batch come two with nothing
between them, which say how long no work at all seems to take. A module that is not timed has none
of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...passes.memory import aligned
from ...passes.plan import Loop, Plan
from .dsl import Array, Function, Value
from .jit import host

# Slots besides those of the steps, which have their times from 1 on.
BEGIN, NOTHING, GATHER, WAIT, TALLY, TOTALS, MOVES = range(-1, -8, -1)
BEFORE = {BEGIN: "next batch", NOTHING: "one stamp", GATHER: "gather rows"}
AFTER = {
    TOTALS: "add partial sums",
    MOVES: "move new values",
    TALLY: "add up loss",
    WAIT: "wait for others",
}
LOGGED = 1 << 15  # stamps that a log has room for, if one batch does not need more

# The time stamp counter of x86 counts at a constant rate and is the same on all cores.
X86_TICK = """
declare i64 @llvm.readcyclecounter()
define i64 @tick() #0 {
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}"""
TICK = """
define i64 @tick() #0 {
  %now = call double @now()
  %nanos = fmul double %now, 1.0e9
  %whole = fptosi double %nanos to i64
  ret i64 %whole
}"""


def tick() -> str:
    """tick() -> i64, in LLVM text: a moment, in a unit that the machine chooses."""
    return X86_TICK if host().triple.startswith("x86_64") else TICK


def stamp(plan: Plan, k: Function, own: Value, slot: int) -> None:
    """Ends what belongs to a slot: what this worker has done since its last stamp."""
    log = Array(k, own, "i64", aligned(plan.private_bytes) // 8)
    end, moment = log.load(), k.raw("call i64 @tick()", "i64")
    assert moment is not None
    log.store(k.constant(slot, "i64"), end)
    log.store(moment, end + 1)
    log.store(end + 2)


def capacity(plan: Plan) -> int:
    """How many batches a log has room for."""
    return max(1, LOGGED // _stamps(plan))


def log_bytes(plan: Plan) -> int:
    """Bytes of a worker's log: where it ends, then pairs of a slot and a moment."""
    return 8 * (1 + 2 * _stamps(plan) * capacity(plan))


def _stamps(plan: Plan) -> int:
    """The most stamps that a worker makes in a batch."""
    count = len(BEFORE) + len(AFTER) + 4  # of what is around the steps; workers also wait there
    for part in plan.parts:
        if isinstance(part, Loop):
            tiles = -(-plan.rows // part.tile) + plan.shards
            count += tiles * len(part.steps) + 3
        else:
            count += 2
    return count


@dataclass(frozen=True)
class Log:
    """A worker's stamps of one call, as they were made: slots, and moments in ticks."""

    slots: np.ndarray
    moments: np.ndarray

    def by_batch(self, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(ticks, how many stamps), [batch, slot]: slot s, of at most `last`, is at s - MOVES."""
        batches, width = np.cumsum(self.slots == BEGIN), last - MOVES + 1
        place = (batches[1:] - 1) * width + self.slots[1:] - MOVES
        size = int(batches[-1]) * width
        ticks = np.bincount(place, np.diff(self.moments), minlength=size)
        return ticks.reshape(-1, width), np.bincount(place, minlength=size).reshape(-1, width)


def log_words(plan: Plan, own: np.ndarray) -> np.ndarray:
    """The log in a worker's own arena; its first word says where the next stamp goes."""
    begin = aligned(plan.private_bytes)
    return own[begin : begin + log_bytes(plan)].view(np.int64)


def read_log(words: np.ndarray) -> Log:
    """What was noted since the first word was set to 1."""
    made = words[1 : words[0]].reshape(-1, 2)
    return Log(made[:, 0].copy(), made[:, 1].copy())
