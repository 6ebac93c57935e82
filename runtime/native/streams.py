"""Loops that do nothing but multiply-adds, or nothing but moves: what a machine's peaks come from.

Every worker calls the same function with a context of a few words: they meet, then each works on
memory of its own and notes how many seconds that took.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..arena import aligned_arena
from .dsl import Array, Function, Value
from .jit import Machine, host
from .parking import prepare
from .prelude import BENCH, MEET, prelude
from .workers import Workers

WORDS = ("meet", "memory", "count", "turns")  # of the context; then come each worker's seconds
RUN_SECONDS = 3e-4  # of one run: short enough that some fall between what else a machine does
RUNS = (8, 40)  # at least and at most: until AGREEING of them are within CLOSE of the best
AGREEING, CLOSE = 4, 1.03
UNROLLED = 8  # vectors a turn of a stream: as many sums as hide the latency of an addition

Loop = Callable[[Function, Array, Value, Value], None]  # (k, memory, floats in it, turns)


class Streams:
    """The loops, compiled for so many workers."""

    def __init__(self, workers: int) -> None:
        functions = [_function(name, loop, workers) for name, loop in LOOPS.items()]
        declared = sorted(set().union(*(k.declared for k in functions)))
        parts = [*declared, *(k.llvm for k in functions), prelude(workers, timed=True)]
        self._machine = Machine("\n\n".join([*parts, "attributes #0 = { nounwind }"]))
        self._workers = Workers(workers)
        self._meet = aligned_arena(MEET)
        self._meet.fill(0)
        prepare(self._meet, BENCH)

    def rate(self, name: str, memory: np.ndarray, count: int, shared: bool) -> float:
        """How many turns over `count` floats of its own all workers do in a second, added up.

        Each worker's best run counts, or the best of all together where they use something shared:
        on a busy machine, that all workers run undisturbed at once is rare.
        """
        assert memory.size >= count * self._workers.count and not memory.ctypes.data % 64
        turns = 1
        for _ in range(2):  # the first of all warms up
            taken = self._run(name, memory, count, turns).max()
            turns = max(1, math.ceil(turns * RUN_SECONDS / taken))
        least, most = RUNS
        runs = [self._run(name, memory, count, turns) for _ in range(least)]
        while len(runs) < most and not _agree(runs, shared):
            runs.append(self._run(name, memory, count, turns))
        return float((turns / _best(runs, shared)).sum())

    def _run(self, name: str, memory: np.ndarray, count: int, turns: int) -> np.ndarray:
        """The seconds that each worker took."""
        words = [self._meet.ctypes.data, memory.ctypes.data, count, turns]
        context = np.array([*words, *[0] * self._workers.count], np.int64)
        self._workers.run(self._machine.address(name), context.ctypes.data)
        return context.view(np.float64)[len(WORDS) :]


def _best(runs: list[np.ndarray], shared: bool) -> np.ndarray:
    """Each worker's least seconds; of something shared those of the run that was over first."""
    if shared:
        return np.full(len(runs[0]), min(run.max() for run in runs))
    return np.min(runs, axis=0)


def _agree(runs: list[np.ndarray], shared: bool) -> bool:
    """Whether enough runs are close to the best."""
    taken = [run.max() for run in runs] if shared else np.array(runs).T
    return bool(np.all(np.sort(taken)[..., AGREEING - 1] <= CLOSE * np.min(taken, axis=-1)))


def chains() -> int:
    """Floats that "fma" works on, a multiply-add each a turn: its count."""
    return _accumulators() * host().lanes


def granule() -> int:
    """What the number of floats of a stream is a multiple of."""
    return 2 * UNROLLED * host().lanes


def _accumulators() -> int:
    return host().registers - 4  # the others hold the two operands, and leave some room


def _fma(k: Function, memory: Array, count: Value, turns: Value) -> None:
    """As many independent chains of `x * factor + term` as there are registers for."""
    lanes = host().lanes
    factor, term = (k.splat(memory.load(i), lanes) for i in range(2))
    chains = [memory.load(i * lanes, lanes) for i in range(_accumulators())]
    chains = k.fold(0, turns, chains, lambda _, c: [x * factor + term for x in c])
    for i, x in enumerate(chains):
        memory.store(x, i * lanes)


def _read(k: Function, memory: Array, count: Value, turns: Value) -> None:
    """The sum of all that is there."""
    lanes = host().lanes
    sums = [k.constant(0.0, "float", lanes)] * UNROLLED

    def turn(at: Value | int, c: list[Value]) -> list[Value]:
        return [x + memory.load(at + i * lanes, lanes) for i, x in enumerate(c)]

    def again(_: Value | int, c: list[Value]) -> list[Value]:
        return k.fold(0, count, c, turn, step=UNROLLED * lanes)

    for i, x in enumerate(k.fold(0, turns, sums, again)):
        memory.store(x, i * lanes)


def _copy(k: Function, memory: Array, count: Value, turns: Value) -> None:
    """The first half, written over the second."""
    lanes, half = host().lanes, count // 2
    with k.range(0, turns), k.range(0, half, UNROLLED * lanes) as at:
        for i in range(UNROLLED):
            memory.store(memory.load(at + i * lanes, lanes), at + i * lanes + half)


def _update(k: Function, memory: Array, count: Value, turns: Value) -> None:
    """All that is there, written over itself, larger by a number that is 0."""
    lanes = host().lanes
    more = k.splat(memory.load() - memory.load(), lanes)
    with k.range(0, turns), k.range(0, count, UNROLLED * lanes) as at:
        for i in range(UNROLLED):
            memory.store(memory.load(at + i * lanes, lanes) + more, at + i * lanes)


LOOPS: dict[str, Loop] = {"fma": _fma, "read": _read, "copy": _copy, "update": _update}


def _function(name: str, loop: Loop, workers: int) -> Function:
    k = Function(name, (("context", "ptr"), ("worker", "i64")))
    words, worker = Array(k, k.parameters["context"], "i64"), k.parameters["worker"]
    meet, place, count, turns = (words.load(i) for i in range(len(WORDS)))
    memory = Array(k, k.convert("inttoptr", place, "ptr"), "float")
    if workers > 1:
        k.call("@meet", k.convert("inttoptr", meet, "ptr"))
    begin = _now(k)
    loop(k, memory.at(worker * count), count, turns)
    seconds = _now(k) - begin
    Array(k, k.parameters["context"], "double").store(seconds, worker + len(WORDS))
    if workers > 1:
        k.call("@meet", k.convert("inttoptr", meet, "ptr"))  # the call is over when all are
    return k


def _now(k: Function) -> Value:
    moment = k.raw("call double @now()", "double")
    assert moment is not None
    return moment
