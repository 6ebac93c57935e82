"""Running a program through the pipeline and the runtime it is for, in an arena full of rubbish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gemmc.ir import Graph
from gemmc.passes.pack import pack_array, unpack_array
from gemmc.passes.pipeline import Program, make_plan, run_passes
from gemmc.passes.plan import Kernels, Plan
from gemmc.passes.target import Target
from gemmc.runtime import kernels
from gemmc.runtime.arena import aligned_arena
from gemmc.runtime.blas import BlasProgram
from gemmc.runtime.native.kernels import NativeKernels
from gemmc.runtime.native.runtime import NativeProgram

Arrays = Mapping[str, np.ndarray]
POISONS = ("nan", "1234.5")  # every bit set is a NaN in float32 and float64


@dataclass(frozen=True)
class Compiled:
    """A program, the graph after each pass, and its plan."""

    program: Program
    stages: Mapping[str, Graph]
    plan: Plan
    threads: int

    @property
    def differentiated(self) -> Graph:
        """What the program means, before anything is optimised."""
        return self.stages["autodiff"]

    def run(self, arrays: Arrays, rows: int, poison: str = "nan") -> dict[str, np.ndarray]:
        """All outputs on a batch of `rows` rows, in their logical form; `arrays` is only read."""
        storage, runner = self.program.storage, self._runner
        for name, slot in self._outer.items():
            form = self.program.forms.get(name)
            slot[...] = pack_array(arrays[name], form) if form else arrays[name]
        poison_bytes(runner.arena, poison)
        for name, slot in runner.bind(rows).inputs.items():
            if name not in storage:
                slot[...] = arrays[name]
        outputs = dict(runner.run(rows))
        replaced = self.stages["order"].outputs.keys() & storage.keys()
        outputs.update((name, self._outer[name]) for name in replaced)
        return {k: self._logical(k, y) for k, y in outputs.items()}

    @cached_property
    def _outer(self) -> dict[str, np.ndarray]:
        """Room for the stored inputs, in the form in which they are stored."""
        types = {name: self.plan.inputs[name].type for name in self.program.storage}
        return {name: np.zeros(t.concrete(1), t.numpy) for name, t in types.items()}

    @cached_property
    def _runner(self) -> BlasProgram | NativeProgram:
        if self.program.target.generated:
            return NativeProgram(self.plan, self._outer, self.threads)
        return BlasProgram(self.plan, self._outer, aligned_arena(self.plan.arena_bytes))

    def _logical(self, name: str, array: np.ndarray) -> np.ndarray:
        form = self.program.forms.get(name)
        shape = self.differentiated.outputs[name].shape
        return np.array(unpack_array(array, form, shape) if form else array)


def compile_program(program: Program, threads: int = 1) -> Compiled:
    """The program after every pass, planned for the runtime that its target describes.

    Where loops are generated that is the native one, with so many threads; else it is blas.
    """
    stages = run_passes(program)
    plan = make_plan(program, stages["order"], kernels_for(program.target))
    return Compiled(program, stages, plan, threads)


def kernels_for(target: Target) -> Kernels:
    """The kernels of the runtime that a target describes."""
    return NativeKernels(target.shards) if target.generated else kernels


def poison_bytes(arena: np.ndarray, poison: str) -> None:
    """Fills an arena with one of POISONS."""
    if poison == "nan":
        arena.fill(0xFF)
    else:
        whole = arena[: arena.nbytes // 4 * 4].view(np.float32)
        whole.fill(float(poison))
