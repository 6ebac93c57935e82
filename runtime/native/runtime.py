"""Running native programs: a compiled plan with its arena, context and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...passes.plan import Plan
from ..blas import aligned_arena
from ..library import ThreadLimit, provider
from .jit import Machine
from .program import WORDS, Module, arena_bytes, as_arrays, build
from .workers import Workers


@dataclass(frozen=True)
class Slots:
    """Where the inputs and outputs of a batch of so many rows are."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


class NativeProgram:
    """A plan, compiled; runnable on batches of 1 to `plan.rows` rows.

    `outer` has the model's arrays by name, in the form in which they are stored: they are updated
    in place. `workers` threads share the work of each step.
    """

    def __init__(self, plan: Plan, outer: Mapping[str, np.ndarray], workers: int) -> None:
        self.plan, self.outer = plan, outer
        self.base = min((a.ctypes.data for a in outer.values()), default=0)
        offsets = {name: a.ctypes.data - self.base for name, a in outer.items()}
        self.module: Module = build(plan, offsets, workers)
        self.uses_blas = "@gemmc_sgemm" in self.module.text()
        symbols = [("gemmc_sgemm", provider().sgemm)] if self.uses_blas else []
        self.machine = Machine(self.module.text(), symbols)
        self.workers = Workers(workers)
        self.arena = aligned_arena(arena_bytes(plan, workers))
        self._meet = aligned_arena(128)
        self._meet.fill(0)
        self._array = as_arrays(plan, self.arena)
        self._slots: dict[int, Slots] = {}
        self._context = np.zeros(len(WORDS), np.int64)
        self._put(arena=self.arena.ctypes.data, state=self.base, meet=self._meet.ctypes.data)

    def bind(self, rows: int) -> Slots:
        """Where inputs are to be put, and outputs will be, for a batch of `rows` rows."""
        if rows not in self._slots:
            assert 1 <= rows <= self.plan.rows
            given = {k: self._array(v, rows) for k, v in self.plan.inputs.items() if not v.buffer.outer}
            made = {k: self._array(v, rows) for k, v in self.plan.outputs.items() if not v.buffer.outer}
            if len(self._slots) > 64:
                self._slots.clear()
            self._slots[rows] = Slots(given, made)
        return self._slots[rows]

    def run(self, rows: int) -> Mapping[str, np.ndarray]:
        """Runs on what is in `bind(rows).inputs`; the outputs, as views of the arena."""
        self._put(rows=rows)
        self._call(self._run_address)
        return self.bind(rows).outputs

    def epoch(self, x: np.ndarray, y: np.ndarray, order: np.ndarray) -> tuple[float, float]:
        """(sum of loss times rows, number correct) over batches of the rows `order` of x and y.

        x is float32 or uint8, both are contiguous, and y is as the plan's input is. The scalars are
        taken from the arena; the step count there goes on with every batch.
        """
        sums = np.zeros(2)
        assert x.flags.c_contiguous and y.flags.c_contiguous and order.dtype == np.int64
        pointers = {"x": x, "y": y, "order": order, "sums": sums}
        self._put(**{k: a.ctypes.data for k, a in pointers.items()})
        self._put(count=len(order), bytes=int(x.dtype == np.uint8))
        self._call(self._epoch_address)
        return float(sums[0]), float(sums[1])

    @cached_property
    def _run_address(self) -> int:
        return self.machine.address("run")

    @cached_property
    def _epoch_address(self) -> int:
        return self.machine.address("epoch")

    def _call(self, address: int) -> None:
        if self.uses_blas:
            with ThreadLimit(1):
                self.workers.run(address, self._context.ctypes.data)
        else:
            self.workers.run(address, self._context.ctypes.data)

    def _put(self, **words: int) -> None:
        for name, word in words.items():
            self._context[WORDS.index(name)] = word
