"""Running native code in tests: single functions on arrays, and graphs in an arena of rubbish."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from running import poison_bytes

from gemmc.ir import Graph, TensorType
from gemmc.passes.pipeline import Program, make_plan, run_passes
from gemmc.passes.plan import Loop
from gemmc.runtime.native.dsl import BITS, Array, Function, Value
from gemmc.runtime.native.jit import Machine
from gemmc.runtime.native.kernels import NativeKernels
from gemmc.runtime.native.program import flush_mode
from gemmc.runtime.native.runtime import NativeProgram

SCALARS = {"f": "float", "d": "double", "l": "i64", "i": "i32", "h": "i16", "b": "i8", "B": "i8"}
Write = Callable[..., None]


@dataclass
class Code:
    """Functions written by tests, compiled together when the first of them is called."""

    functions: dict[str, Function] = field(default_factory=dict)
    machine: Machine | None = None

    def add(self, name: str, write: Write, *arguments: np.ndarray | int) -> Function:
        """write(k, ...) becomes a function; it is given an Array for an array, an i64 for an int.

        The arguments only say which is which.
        """
        assert self.machine is None, "compiled already"
        kinds = ["ptr" if isinstance(a, np.ndarray) else "i64" for a in arguments]
        k = Function(name, [(f"a{i}", kind) for i, kind in enumerate(kinds)])
        given: list[Array | Value] = []
        for value, argument in zip(k.parameters.values(), arguments, strict=True):
            if isinstance(argument, np.ndarray):
                given.append(Array(k, value, SCALARS[argument.dtype.char]))
            else:
                given.append(value)
        write(k, *given)
        self.functions[name] = k
        return k

    def call(self, name: str, *arguments: np.ndarray | int) -> None:
        """Runs a function on arrays, which it may write to, and integers."""
        if self.machine is None:
            self.machine = Machine(self.text())
        types = [
            ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_int64 for a in arguments
        ]
        values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        ctypes.CFUNCTYPE(None, *types)(self.machine.address(name))(*values)

    def text(self) -> str:
        """The module."""
        declared = sorted(set().union(*(k.declared for k in self.functions.values())))
        bodies = [k.llvm for k in self.functions.values()]
        return "\n\n".join([*declared, *bodies, flush_mode(), "attributes #0 = { nounwind }"])


def run(write: Write, *arguments: np.ndarray | int) -> None:
    """Compiles one function and calls it."""
    code = Code()
    code.add("f", write, *arguments)
    code.call("f", *arguments)


Arrays = Mapping[str, np.ndarray]


class Native:
    """A graph on the native runtime, run in an arena full of rubbish.

    With `passes` the graph goes through the pipeline; without, it has kernels' ops only, each of
    which becomes a step.
    """

    def __init__(self, given: Program, threads: int = 1, passes: bool = True) -> None:
        self.program, self.threads = given, threads
        graph = run_passes(given)["order"] if passes else given.graph
        self.plan = make_plan(given, graph, NativeKernels(given.target.shards))
        assert not given.storage, "for graphs without stored inputs"
        self.runner = NativeProgram(self.plan, {}, threads)

    def run(self, arrays: Arrays, rows: int, poison: str = "nan") -> dict[str, np.ndarray]:
        """Copies of all outputs on a batch of `rows` rows."""
        poison_bytes(self.runner.arena, poison)
        for name, slot in self.runner.bind(rows).inputs.items():
            slot[...] = arrays[name]
        return {name: np.array(y) for name, y in self.runner.run(rows).items()}

    def beyond(self, rows: int) -> np.ndarray:
        """The bytes of the shared arena that no value of a batch of `rows` rows lies in."""
        free = np.ones(self.plan.arena_bytes, bool)
        values = [v for s in self.plan.steps() for v in (*s.operands, *s.results)]
        shared = [v for v in values if not v.buffer.private]
        for v in (*shared, *self.plan.inputs.values(), *self.plan.outputs.values()):
            begin = v.buffer.offset
            nbytes = v.buffer.nbytes if v.tiled else v.type.nbytes(rows)
            free[begin : begin + nbytes] = False
        rooms = [s.scratch for s in self.plan.steps() if s.scratch and not s.scratch.private]
        for part in self.plan.parts:
            rooms += [b for _, b in part.partials] if isinstance(part, Loop) else []
        for room in rooms:
            free[room.offset : room.offset + room.nbytes] = False
        return self.runner.arena[: self.plan.arena_bytes][free]


def whole_numbers(
    graph: Graph, rows: int, seed: int, largest: int = 3
) -> dict[str, np.ndarray]:
    """Small whole numbers for each input: sums of their products are exact in any order."""
    rng = np.random.default_rng(seed)
    return {n.name: _whole(n.tensor, rows, rng, largest) for n in graph.inputs}


def _whole(t: TensorType, rows: int, rng: np.random.Generator, largest: int) -> np.ndarray:
    shape = t.concrete(rows)
    low = 0 if t.dtype in ("u8", "i64") else -largest
    high = 1 if t.dtype == "bool" else largest
    return np.asarray(rng.integers(low, high + 1, shape)).astype(t.numpy)
