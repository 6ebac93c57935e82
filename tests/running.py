"""Running a program through the pipeline and the blas runtime, in an arena full of rubbish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gemmc.ir import Graph
from gemmc.passes.pack import pack_array, unpack_array
from gemmc.passes.pipeline import Program, make_plan, run_passes
from gemmc.passes.plan import Plan
from gemmc.runtime import kernels
from gemmc.runtime.blas import BlasProgram, aligned_arena

Arrays = Mapping[str, np.ndarray]
POISONS = ("nan", "1234.5")  # every bit set is a NaN in float32 and float64


@dataclass(frozen=True)
class Compiled:
    """A program, the graph after each pass, and its plan."""

    program: Program
    stages: Mapping[str, Graph]
    plan: Plan

    @property
    def differentiated(self) -> Graph:
        """What the program means, before anything is optimised."""
        return self.stages["autodiff"]

    def run(self, arrays: Arrays, rows: int, poison: str = "nan") -> dict[str, np.ndarray]:
        """All outputs on a batch of `rows` rows, in their logical form; `arrays` is only read."""
        storage = self.program.storage
        outer = {name: self._stored(name, arrays[name]) for name in storage}
        runner = BlasProgram(self.plan, outer, aligned_arena(self.plan.arena_bytes))
        poison_bytes(runner.arena, poison)
        for name, slot in runner.bind(rows).inputs.items():
            if name not in storage:
                slot[...] = arrays[name]
        outputs = dict(runner.run(rows))
        next_values = {name: outer[name] for name in outputs.keys() & storage.keys()}
        return {k: self._logical(k, next_values.get(k, y)) for k, y in outputs.items()}

    def _stored(self, name: str, array: np.ndarray) -> np.ndarray:
        form = self.program.forms.get(name)
        return np.array(pack_array(array, form) if form else array, order="C")

    def _logical(self, name: str, array: np.ndarray) -> np.ndarray:
        form = self.program.forms.get(name)
        shape = self.differentiated.outputs[name].shape
        return np.array(unpack_array(array, form, shape) if form else array)


def compile_program(program: Program) -> Compiled:
    """The program after every pass, planned for the blas runtime."""
    stages = run_passes(program)
    return Compiled(program, stages, make_plan(program, stages["order"], kernels))


def poison_bytes(arena: np.ndarray, poison: str) -> None:
    """Fills an arena with one of POISONS."""
    if poison == "nan":
        arena.fill(0xFF)
    else:
        whole = arena[: arena.nbytes // 4 * 4].view(np.float32)
        whole.fill(float(poison))
