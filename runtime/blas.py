"""The blas runtime: a plan as a list of prebound calls on views of one arena.

Binding a program to a number of rows resolves every step to BLAS routines and ufuncs with their
arguments in place. Running it is a loop over that list: no shapes, no allocation, no dispatch.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..passes.memory import ALIGN, Buffer
from ..passes.plan import Loop, Plan, Step, Value
from .binding import Binding, Call
from .kernels import KERNELS
from .library import ThreadLimit
from .profile import Profile, profile_of
from .work import PRODUCTS, flops

# FLOP. With products of 13 million the example CNN's step takes about as long on one thread as on
# two: `python -m gemmc.bench step`.
SMALL_PRODUCT = 2.0**25
BOUND_KEPT = 8  # numbers of rows a program stays bound to: a full batch, ragged ones, a few more


@dataclass(frozen=True)
class Bound:
    """A program bound to one number of rows: its calls, and where inputs and outputs are."""

    calls: tuple[tuple[Step | None, tuple[Call, ...]], ...]
    flat: tuple[Call, ...]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


class BlasProgram:
    """A plan, runnable on batches of 1 to `plan.rows` rows.

    `outer` has the model's arrays by name, in the form in which they are stored: they are updated
    in place. `arena` is at least plan.arena_bytes long, and its contents before a run never matter.
    `threads` is how many the BLAS library may use while the program runs; see `suited_threads`.
    """

    def __init__(
        self,
        plan: Plan,
        outer: Mapping[str, np.ndarray],
        arena: np.ndarray,
        threads: int | None = None,
    ) -> None:
        assert arena.nbytes >= plan.arena_bytes and arena.ctypes.data % ALIGN == 0
        self.plan, self.outer, self.arena = plan, outer, arena
        self.limit = ThreadLimit(suited_threads(plan) if threads is None else threads)
        self._bound: OrderedDict[int, Bound] = OrderedDict()

    def bind(self, rows: int) -> Bound:
        """The program for `rows` rows, bound now or before."""
        if rows not in self._bound:
            self._bound[rows] = self._bind(rows)
            if len(self._bound) > BOUND_KEPT:
                self._bound.popitem(last=False)
        self._bound.move_to_end(rows)
        return self._bound[rows]

    def run(self, rows: int) -> Mapping[str, np.ndarray]:
        """Runs on what is in `bind(rows).inputs`; the outputs, as views of the arena."""
        bound = self.bind(rows)
        with self.limit, np.errstate(all="ignore"):
            for call in bound.flat:
                call()
        return bound.outputs

    def profile(self, rows: int, feed: Callable[[], None], repeat: int) -> Profile:
        """The median time of each step over `repeat` runs; `feed` sets the inputs before each."""
        bound = self.bind(rows)
        times = np.zeros((repeat + 1, len(bound.calls)))
        for run in range(repeat + 1):  # the first one warms up
            feed()
            with self.limit, np.errstate(all="ignore"):
                for i, (_, calls) in enumerate(bound.calls):
                    begin = time.perf_counter()
                    for call in calls:
                        call()
                    times[run, i] = time.perf_counter() - begin
        spent: dict[Step, float] = {}
        for (step, _), seconds in zip(bound.calls, np.median(times[1:], axis=0), strict=True):
            if step is not None:
                spent[step] = spent.get(step, 0.0) + float(seconds)
        in_blas = (*PRODUCTS, "sum")
        return profile_of(spent, rows, lambda node: "blas" if node.op in in_blas else "numpy")

    def _bind(self, rows: int) -> Bound:
        assert 1 <= rows <= self.plan.rows
        with np.errstate(all="ignore"):  # a constant may be too large for its dtype
            return self._bind_parts(rows)

    def _bind_parts(self, rows: int) -> Bound:
        calls: list[tuple[Step | None, tuple[Call, ...]]] = []
        for part in self.plan.parts:
            if isinstance(part, Step):
                calls.append((part, tuple(self._calls(part, 0, rows, rows))))
                continue
            for row in range(0, rows, part.tile):
                stop = min(row + part.tile, rows)
                calls += [(s, tuple(self._calls(s, row, stop, rows))) for s in part.steps]
        calls.append((None, tuple(self._moves())))
        flat = tuple(call for _, some in calls for call in some)
        inputs = {k: self._array(v, 0, rows) for k, v in self.plan.inputs.items()}
        outputs = {k: self._array(v, 0, rows) for k, v in self.plan.outputs.items()}
        return Bound(tuple(calls), flat, inputs, outputs)

    def _calls(self, step: Step, row: int, stop: int, rows: int) -> Iterator[Call]:
        operands = [self._array(v, row, stop) for v in step.operands]
        results = [self._array(v, row, stop) for v in step.results]
        room = self._raw(step.scratch, step.scratch.nbytes) if step.scratch else self.arena[:0]
        return KERNELS[step.node.op].bind(Binding(step.node, operands, results, room, row, rows))

    def _moves(self) -> Iterator[Call]:
        """What replaces an input of the model and was not written over it: copied, in the end.

        What is another input as it was before the step is put aside first, or two that trade places
        would both become one of them.
        """
        sources = {name: self.plan.outputs[name] for name in self.plan.moves}
        values = {name: self._array(v, 0, self.plan.rows) for name, v in sources.items()}
        for name, value in sources.items():
            if value.buffer.outer is not None:
                aside = np.empty_like(values[name])
                yield partial(np.copyto, aside, values[name])
                values[name] = aside
        for name, array in values.items():
            yield partial(np.copyto, self.outer[name], array)

    def _array(self, value: Value, row: int, stop: int) -> np.ndarray:
        """The rows from `row` to `stop` of a value; all of one that has no rows."""
        t = value.type
        if value.buffer.outer is not None:
            return self.outer[value.buffer.outer].reshape(t.concrete(stop))
        start = row if t.per_row and not value.tiled else 0
        shape = t.concrete(stop - row)
        skip = start * t.nbytes(1) if t.per_row else 0
        raw = self._raw(value.buffer, t.nbytes(stop - row), skip)
        return raw.view(t.numpy).reshape(shape)

    def _raw(self, buffer: Buffer, nbytes: int, skip: int = 0) -> np.ndarray:
        begin = buffer.offset + skip
        return self.arena[begin : begin + nbytes]


def suited_threads(plan: Plan) -> int | None:
    """1 for a program of small products only; None, the library's own choice, for any other.

    OpenBLAS's threads wait for one another around each product: for small ones that costs what they
    gain, and on a machine that is busy with other things it costs far more.
    """
    products = [0.0]
    for part in plan.parts:
        steps, rows = (part.steps, part.tile) if isinstance(part, Loop) else ((part,), plan.rows)
        products += [flops(step.node, rows) for step in steps]
    return 1 if max(products) < SMALL_PRODUCT and ThreadLimit.possible() else None


def aligned_arena(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    begin = -raw.ctypes.data % ALIGN
    return raw[begin : begin + nbytes]
