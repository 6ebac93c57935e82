"""sanitize: native programs that run step by step, with a guard between the steps.

Each call of a batch has an entry point of its own. A region is one call: who holds what in it is
gone through before, as for one tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

import numpy as np

from ...passes.plan import Loop, Step
from ..sanitize import Guard, check_alive, refuse_profile
from .entry import add_run
from .module import Module
from .runtime import NativeProgram


class SanitizedNativeProgram(NativeProgram):
    """A NativeProgram that is guarded."""

    def run(self, rows: int) -> Mapping[str, np.ndarray]:
        """Runs on what is in `bind(rows).inputs`; SanitizeError where the plan is at fault."""
        self._context.rows = rows
        self._guard.start()
        names = iter(self._names)
        for part in self.plan.parts:
            self._run_part(part, names, rows)
        for name in names:  # moves
            self._call(name)
        self._guard.finish()
        return self.bind(rows).outputs

    def takes(self, x: np.ndarray, y: np.ndarray | None = None) -> bool:
        """False: batches are run one by one."""
        return False

    def profile(self, *arguments: object) -> NoReturn:
        """CompileError: the times would be those of the checks."""
        refuse_profile()

    def _run_part(self, part: Step | Loop, names: Iterator[str], rows: int) -> None:
        guard = self._guard
        if isinstance(part, Step):
            guard.begin(part)
            self._call(next(names))
            guard.end(part, self._results(part, rows))
            return
        guard.enter(part)
        for step in part.steps:
            guard.begin(step)
            guard.end(step)
        for _ in range(2 if part.partials else 1):  # the region, and its totals
            self._call(next(names))
        for step in part.steps:
            for array in self._results(step, rows):
                check_alive(step, array)
        guard.leave(part)

    def _results(self, step: Step, rows: int) -> list[np.ndarray]:
        """The results that are there for the whole batch, as arrays of the arena."""
        whole = [v for v in step.results if not v.tiled and v.buffer.outer is None]
        return [self._array(v, rows) for v in whole]

    def _module(self, offsets: Mapping[str, int], workers: int, timed: bool) -> Module:
        m = super()._module(offsets, workers, timed)
        self._names = [f"run{i}" for i in range(len(m.calls))]
        for name, call in zip(self._names, m.calls, strict=True):
            add_run(replace(m, calls=[replace(call, once=False)]), name)
        return m

    def _prepare(self) -> None:
        """Nothing: each batch runs all steps."""

    def _build(self, workers: int, timed: bool) -> None:
        super()._build(workers, timed)
        self._functions |= {name: self.machine.address(name) for name in self._names}
        own = [raw[: self.plan.private_bytes] for raw in self.own_arenas()]
        self._guard = Guard(self.plan, self.arena[: self.plan.arena_bytes], own)
