"""Profiles of native programs: ordinary runs and runs that note moments, in turns.

The ordinary program says how long a step takes. Its twin, the same code with stamps, says where
that time goes. Both run batch after batch from the same weights, as training does, and what counts
of both is what was fastest: what disturbs a run can only make it slower.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir import Node
from ...passes.plan import Plan, Step
from ..cores import cores
from ..profile import Profile, Spent, fastest, named, profile_of
from ..timeline import Span
from .entry import SCALARS, has_epoch
from .peaks import peaks
from .stamps import AFTER, BEFORE, BEGIN, MOVES, Log, capacity, log_words, read_log

if TYPE_CHECKING:
    from .runtime import NativeProgram

TURN_SECONDS = 0.002  # of a run of either program: short enough to be disturbed not always
SHOWN = 3  # batches of a trace


def profile(
    plain: NativeProgram, twin: NativeProgram, rows: int, repeat: int, form: Callable[[Node], str]
) -> Profile:
    """The profile of what is in `plain.bind(rows).inputs`; `twin` is its timed copy."""
    batches = _Batches(plain, rows)
    first, clock = _moment(twin), time.perf_counter()
    count = batches.a_turn(plain)
    ones, turns, logs = [], [], []
    for _ in range(repeat):
        ones.append(batches.run(plain, 1))
        turns.append(batches.run(plain, count))
        logs.append(_logged(twin, batches, count))
    tick = (time.perf_counter() - clock) / (_moment(twin) - first)
    limits = peaks(min(plain.workers.count, cores()))
    spent, spans = _spent(plain.plan, logs, tick), _spans(plain.plan, logs, tick)
    # The call itself, and a first batch that finds other things in the caches, are in both; where
    # something else held up the one, so that it took longer than many, only the mean is known.
    one, turn = min(ones), min(turns)
    step = (turn - one) / (count - 1) if count > 1 and turn > one else turn / count
    return profile_of(plain.plan, rows, spent, form, step, limits, tuple(spans))


class _Batches:
    """One batch again and again, from the same weights: what both programs run."""

    def __init__(self, plain: NativeProgram, rows: int) -> None:
        self.rows, self.epochs = rows, has_epoch(plain.plan)
        self.inputs = {name: slot.copy() for name, slot in plain.bind(rows).inputs.items()}
        self.state = {name: array.copy() for name, array in plain.outer.items()}
        short = self.epochs and rows < plain.plan.rows  # is an epoch's last batch
        self.most = 1 if short else capacity(plain.plan)

    def a_turn(self, plain: NativeProgram) -> int:
        """How many batches take about TURN_SECONDS."""
        count = 1
        for _ in range(3):  # the first one warms up
            count = math.ceil(TURN_SECONDS / self.run(plain, count) * count)
            count = max(1, min(count, self.most))
        return count

    def run(self, program: NativeProgram, count: int) -> float:
        """The seconds that so many batches take."""
        for name, array in self.state.items():
            np.copyto(program.outer[name], array)
        return self._epoch(program, count) if self.epochs else self._calls(program, count)

    def _epoch(self, program: NativeProgram, count: int) -> float:
        lr, step, seed = (self.inputs.get(name, np.zeros(())) for name in SCALARS)
        order = np.tile(np.arange(self.rows), count)
        begin = time.perf_counter()
        program.epoch(self.inputs["x"], self.inputs["y"], order, float(lr), int(step), int(seed))
        return time.perf_counter() - begin

    def _calls(self, program: NativeProgram, count: int) -> float:
        seconds = 0.0
        for _ in range(count):
            for name, slot in program.bind(self.rows).inputs.items():
                np.copyto(slot, self.inputs[name])
            begin = time.perf_counter()
            program.run(self.rows)
            seconds += time.perf_counter() - begin
        return seconds


def _logged(twin: NativeProgram, batches: _Batches, count: int) -> list[Log]:
    """What each worker notes in so many batches."""
    logs = [log_words(twin.plan, own) for own in twin.own_arenas()]
    for words in logs:
        words[0] = 1
    batches.run(twin, count)
    return [read_log(words) for words in logs]


def _spent(plan: Plan, logs: Sequence[list[Log]], tick: float) -> dict[Step | str, Spent]:
    """What steps took, and what is around them, in the fastest of all batches.

    The first batch of a turn, which finds other things in the caches, is left out if it can be.
    """
    steps = [step for step in plan.steps() if not step.once]
    last = max(step.time for step in plan.steps())
    skip = int((logs[0][0].slots == BEGIN).sum() > 1)
    binned = [[log.by_batch(last) for log in workers] for workers in logs]
    ticks, counts = (  # [worker, batch, slot]
        np.concatenate([[b[i][skip:] for b in workers] for workers in binned], axis=1)
        for i in range(2)
    )
    if not has_epoch(plan):
        ticks[..., BEGIN - MOVES] = 0  # what Python does between two calls
    whole = ticks[0].sum(axis=-1)
    seconds, counts = tick * ticks[:, fastest(whole)].mean(axis=1), counts.sum(axis=1)
    slots: dict[Step | str, int] = {name: s for s, name in BEFORE.items()}
    slots |= {step: step.time for step in steps}
    slots |= {name: s for s, name in AFTER.items()}
    return {
        what: Spent(seconds[:, s - MOVES].mean(), seconds[:, s - MOVES].max())
        for what, s in slots.items()
        if isinstance(what, Step) or counts[:, s - MOVES].any()
    }


def _spans(plan: Plan, logs: Sequence[list[Log]], tick: float) -> Iterator[Span]:
    """What each worker did in the last few batches of the fastest turn."""
    names = {s: named(name) for s, name in (BEFORE | AFTER).items()}
    names |= {s.time: named(s) for s in plan.steps()}
    turn = min(logs, key=lambda logs: logs[0].moments[-1] - logs[0].moments[0])
    kept = [np.flatnonzero(log.slots == BEGIN)[-SHOWN:][0] for log in turn]
    start = min(int(log.moments[first]) for log, first in zip(turn, kept, strict=True))
    for worker, (log, first) in enumerate(zip(turn, kept, strict=True)):
        ends, begins = log.moments[first + 1 :], log.moments[first:-1]
        for slot, begin, end in zip(log.slots[first + 1 :], begins, ends, strict=True):
            times = (begin - start) * tick, (end - begin) * tick
            yield Span(worker, *names[int(slot)], *times)


def _moment(program: NativeProgram) -> int:
    """Now, in ticks."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(program.machine.address("tick"))())
