"""Running native programs: a compiled plan with its arena, context and workers."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...ir import Node
from ...passes.memory import aligned
from ...passes.plan import Plan
from ..arena import address, aligned_arena
from ..library import ThreadLimit, provider
from ..profile import Profile
from ..work import CALL_SECONDS
from .calls import sgemm_address
from .entry import SCALARS, WORDS
from .jit import Machine
from .module import Module, as_arrays
from .parking import prepare
from .prelude import BENCH, MEET
from .program import build
from .target import step_seconds, suited_workers
from .timing import profile
from .workers import Workers

ENTRIES = ("prepare", "run", "predict", "epoch", "apply")
UINT8, FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)


class Context(ctypes.Structure):
    """The words that an entry point is told."""

    _fields_ = tuple(
        (name, ctypes.c_double if SCALARS.get(name) == "double" else ctypes.c_int64)
        for name in WORDS
    )


@dataclass(frozen=True)
class Slots:
    """Where the inputs and outputs of a batch of so many rows are."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


class NativeProgram:
    """A plan, compiled; runnable on batches of 1 to `plan.rows` rows.

    `outer` has the model's arrays by name, in the form in which they are stored: they are updated
    in place. `threads` workers share the work of each step; see `suited_workers`. `version` is
    another number after each change of these arrays: what depends on them alone is made when it is,
    or, without it, in each call.
    """

    def __init__(
        self,
        plan: Plan,
        outer: Mapping[str, np.ndarray],
        threads: int | None = None,
        version: Callable[[], int] | None = None,
    ) -> None:
        self.plan, self.outer, self._version = plan, outer, version
        self._prepares = any(step.once for step in plan.steps())
        self._build(threads or suited_workers(plan), timed=False)

    def _build(self, workers: int, timed: bool) -> None:
        self.base = min((a.ctypes.data for a in self.outer.values()), default=0)
        offsets = {name: a.ctypes.data - self.base for name, a in self.outer.items()}
        self.module = self._module(offsets, workers, timed)
        text = self.module.text()
        self.blas = provider() if "@gemmc_sgemm" in text else None
        symbols = [("gemmc_sgemm", sgemm_address(self.blas))] if self.blas else []
        told = self.blas is not None and self.blas.threads is not None
        if self.blas is not None and not told and workers > 1:
            return self._build(1, timed)  # a BLAS with threads of its own: one worker calls it
        self._limit = ThreadLimit(1 if told else None, self.blas)  # the workers are the threads
        self.machine = Machine(text, symbols)
        self._functions = {name: self.machine.address(name) for name in ENTRIES}
        self.workers = Workers(workers)
        self.arena = aligned_arena(self.module.arena_bytes)
        self._meet = aligned_arena(MEET)
        self._meet.fill(0)
        prepare(self._meet, BENCH)
        self._array = as_arrays(self.plan, self.arena)
        self._slots: dict[int, Slots] = {}
        self._prepared: int | None = None  # for which version of the model's arrays
        places = {"arena": address(self.arena), "state": self.base, "meet": address(self._meet)}
        self._context = Context(**places)
        self._context_address = ctypes.addressof(self._context)

    def _module(self, offsets: Mapping[str, int], workers: int, timed: bool) -> Module:
        return build(self.plan, offsets, workers, timed)

    def bind(self, rows: int) -> Slots:
        """Where inputs are to be put, and outputs will be, for a batch of `rows` rows."""
        if rows not in self._slots:
            assert 1 <= rows <= self.plan.rows
            given = {
                k: self._array(v, rows) for k, v in self.plan.inputs.items() if not v.buffer.outer
            }
            made = {
                k: self._array(v, rows) for k, v in self.plan.outputs.items() if not v.buffer.outer
            }
            if len(self._slots) > 64:
                self._slots.clear()
            self._slots[rows] = Slots(given, made)
        return self._slots[rows]

    def run(self, rows: int) -> Mapping[str, np.ndarray]:
        """Runs on what is in `bind(rows).inputs`; the outputs, as views of the arena."""
        self._context.rows = rows
        self._call("run")
        return self.bind(rows).outputs

    def epoch(
        self,
        x: np.ndarray,
        y: np.ndarray,
        order: np.ndarray,
        lr: float = 0.0,
        step: int = 0,
        seed: int = 0,
    ) -> tuple[float, float]:
        """(sum of loss times rows, number correct) over batches of the rows `order` of x and y.

        x is float32 or uint8, both are contiguous, and y is as the plan's input is. `step` is the
        number of the first batch's step; it goes on by 1 with every batch.
        """
        sums, order = np.zeros(2), np.ascontiguousarray(order, np.int64)
        assert x.flags.c_contiguous and y.flags.c_contiguous
        context = self._context
        context.y, context.order, context.sums = address(y), address(order), address(sums)
        context.lr, context.step, context.seed = lr, step, seed
        self._give(x, len(order))
        self._call("epoch")
        return float(sums[0]), float(sums[1]) if "correct" in self.plan.outputs else float("nan")

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The output for a batch x, which is as for `epoch`: a view of the arena."""
        assert x.flags.c_contiguous
        self._give(x, len(x))
        self._call("predict")
        return self.bind(len(x)).outputs["output"]

    def apply(self, x: np.ndarray, out: np.ndarray) -> None:
        """Writes the output for every row of x into `out`; x is as for `epoch`."""
        assert x.flags.c_contiguous and out.flags.c_contiguous and len(out) == len(x)
        self._context.out = address(out)
        self._give(x, len(x))
        self._call("apply")

    def takes(self, x: np.ndarray, y: np.ndarray | None = None) -> bool:
        """Whether `epoch` or `apply` can read rows of these arrays without a conversion."""
        fits = y is None or y.dtype == self.plan.inputs["y"].type.numpy
        return fits and x.dtype in (FLOAT32, UINT8)

    @cached_property
    def call_rows(self) -> int:
        """Rows for which a call takes about CALL_SECONDS, in whole batches."""
        seconds = sum(step_seconds(step, self.plan.rows) for step in self.plan.steps())
        return max(1, int(CALL_SECONDS / max(seconds, 1e-6))) * self.plan.rows

    def profile(self, rows: int, feed: Callable[[], None], repeat: int) -> Profile:
        """Where the time of a batch goes, which `feed` puts into the inputs; see timing.py.

        Measured by a twin of this program, compiled for it, in `repeat` turns with this one.
        """
        twin = copy.copy(self)
        twin._slots = {}
        twin._build(self.workers.count, timed=True)
        feed()
        return profile(self, twin, rows, repeat, form)

    def own_arenas(self) -> np.ndarray:
        """The workers' private arenas, a row of bytes each."""
        count, size = self.workers.count, self.module.own_bytes
        begin = aligned(self.plan.arena_bytes)
        return self.arena[begin : begin + count * size].reshape(count, size)

    def text(self, stage: str) -> str:
        """The program as "loops", "llvm" or "assembly"."""
        match stage:
            case "loops":
                return self.module.listing()
            case "llvm":
                return self.machine.llvm
        return self.machine.assembly

    def _call(self, name: str) -> None:
        with self._limit:
            if self._prepares:
                self._prepare()
            self.workers.run(self._functions[name], self._context_address)

    def _prepare(self) -> None:
        """Makes what depends on the model's arrays alone, if they have changed."""
        version = self._version() if self._version is not None else None
        if version is None or version != self._prepared:
            self.workers.run(self._functions["prepare"], self._context_address)
            self._prepared = version

    def _give(self, x: np.ndarray, count: int) -> None:
        """Tells where the rows of x are, and how many the call is about."""
        context = self._context
        context.x, context.count, context.bytes = address(x), count, x.dtype == UINT8


def form(node: Node) -> str:
    """How a step runs: the form chosen for its product, else "loops"."""
    if "body" in node.attrs:
        return next((form(n) for n in node.attrs["body"].nodes if n.attrs.get("form")), "loops")
    if node.op in ("shift_matmul", "shift_matmul_weight_grad"):
        return "blas"
    return node.attrs.get("form") or "loops"
