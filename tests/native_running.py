"""Running native code in tests: single functions on arrays, and graphs in an arena of rubbish."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import llvmlite.binding as llvm
import numpy as np
import pytest
from running import Compiled, kernels_for

from gemmc import CrossEntropyLoss, Executable
from gemmc.ir import Graph, TensorType
from gemmc.passes.pipeline import Program, make_plan
from gemmc.passes.plan import Loop
from gemmc.runtime.native import contract, jit, target
from gemmc.runtime.native.dsl import Array, Function, Value
from gemmc.runtime.native.jit import Machine
from gemmc.runtime.native.prelude import flush_mode

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


@contextmanager
def a_cpu_without(monkeypatch: pytest.MonkeyPatch, *prefixes: str) -> Iterator[None]:
    """Inside, code is generated as for a CPU without the features whose names begin so."""
    features = llvm.get_host_cpu_features()
    for name in features:
        features[name] &= not name.startswith(prefixes)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(llvm, "get_host_cpu_features", lambda: features)
            _forget()
            yield
    finally:
        _forget()


def _forget() -> None:
    """Empties the caches of what is known of the CPU."""
    for cached in (jit.host, target.native_target, contract.blocking):
        cached.cache_clear()


def alone(given: Program, threads: int = 1) -> Compiled:
    """A program of kernels' ops only: each is a step of the plan, and no pass has seen them."""
    plan = make_plan(given, given.graph, kernels_for(given.target))
    stages = dict.fromkeys(("autodiff", "order"), given.graph)
    return Compiled(given, stages, plan, threads)


def beyond(compiled: Compiled, rows: int) -> np.ndarray:
    """The bytes of the shared arena that no value of a batch of `rows` rows lies in."""
    plan = compiled.plan
    free = np.ones(plan.arena_bytes, bool)
    steps = [v for s in plan.steps() for v in (*s.operands, *s.results)]
    for v in (*steps, *plan.inputs.values(), *plan.outputs.values()):
        if not v.buffer.private:
            nbytes = v.buffer.nbytes if v.tiled else v.type.nbytes(rows)
            free[v.buffer.offset : v.buffer.offset + nbytes] = False
    rooms = [s.scratch for s in plan.steps() if s.scratch and not s.scratch.private]
    for part in plan.parts:
        rooms += [b for _, b in part.partials] if isinstance(part, Loop) else []
    for room in rooms:
        free[room.offset : room.offset + room.nbytes] = False
    return compiled._runner.arena[: plan.arena_bytes][free]


def data(exe: Executable, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets that fit a model."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, *exe.input_shape)).astype(np.float32)
    shape = exe.output_type.concrete(rows)
    if isinstance(exe.model.loss_func, CrossEntropyLoss):
        return x, rng.integers(0, shape[1], rows)
    return x, rng.normal(size=shape).astype(np.float32)


def whole_numbers(graph: Graph, rows: int, seed: int, largest: int = 3) -> dict[str, np.ndarray]:
    """Small whole numbers for each input: sums of their products are exact in any order."""
    rng = np.random.default_rng(seed)
    return {n.name: _whole(n.tensor, rows, rng, largest) for n in graph.inputs}


def _whole(t: TensorType, rows: int, rng: np.random.Generator, largest: int) -> np.ndarray:
    shape = t.concrete(rows)
    low = 0 if t.dtype in ("u8", "i64") else -largest
    high = 1 if t.dtype == "bool" else largest
    return np.asarray(rng.integers(low, high + 1, shape)).astype(t.numpy)
