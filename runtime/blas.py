"""The blas runtime: a plan as a list of prebound calls on views of one arena.

Binding a program to a number of rows resolves every step to BLAS routines and ufuncs with their
arguments in place. Running it is a loop over that list: no shapes, no allocation, no dispatch.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..ir import Node
from ..passes.memory import ALIGN, Buffer
from ..passes.plan import Loop, Plan, Step, Value
from .binding import Binding, Call
from .cores import cores
from .kernels import KERNELS
from .library import ThreadLimit
from .native.peaks import peaks
from .profile import Profile, Spent, fastest, named, profile_of
from .timeline import Span
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
        """Where the time of a batch goes, over the fastest of `repeat` runs.

        `feed` sets the inputs before each run, and is a row of its own. Ordinary runs, in turns
        with those that are timed step by step, say how long a step takes.
        """
        bound, plain = self.bind(rows), np.zeros(repeat + 1)
        moments = np.zeros((repeat + 1, len(bound.calls) + 2))
        for turn in range(repeat + 1):  # the first one warms up
            begin = time.perf_counter()
            feed()
            self.run(rows)
            plain[turn] = time.perf_counter() - begin
            moments[turn] = self._moments(bound, feed)
        steps: list[Step | str] = ["feed", *(step or "move new values" for step, _ in bound.calls)]
        spent, spans = _spent(steps, moments[1:])
        limits = peaks(min(self.limit.count or cores(), cores()))
        return profile_of(self.plan, rows, spent, _form, plain[1:].min(), limits, spans)

    def _moments(self, bound: Bound, feed: Callable[[], None]) -> list[float]:
        """When a run began, had its inputs, and was done with each step."""
        moments = [time.perf_counter()]
        feed()
        moments.append(time.perf_counter())
        with self.limit, np.errstate(all="ignore"):
            for _, calls in bound.calls:
                for call in calls:
                    call()
                moments.append(time.perf_counter())
        return moments

    def _bind(self, rows: int) -> Bound:
        assert 1 <= rows <= self.plan.rows
        with np.errstate(all="ignore"):  # a constant may be too large for its dtype
            return self._bind_parts(rows)

    def _bind_parts(self, rows: int) -> Bound:
        calls: list[tuple[Step | None, tuple[Call, ...]]] = []
        for part in self.plan.parts:
            calls += self._part(part, rows)
        calls.append((None, tuple(self._moves())))
        flat = tuple(call for _, some in calls for call in some)
        inputs = {k: self._array(v, 0, rows) for k, v in self.plan.inputs.items()}
        outputs = {k: self._array(v, 0, rows) for k, v in self.plan.outputs.items()}
        return Bound(tuple(calls), flat, inputs, outputs)

    def _part(self, part: Step | Loop, rows: int) -> Iterator[tuple[Step | None, tuple[Call, ...]]]:
        if isinstance(part, Step):
            yield part, tuple(self._calls(part, 0, rows, rows))
            return
        for row in range(0, rows, part.tile):
            stop = min(row + part.tile, rows)
            for step in part.steps:
                yield step, tuple(self._calls(step, row, stop, rows))

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


def _spent(
    steps: Sequence[Step | str], moments: np.ndarray
) -> tuple[dict[Step | str, Spent], tuple[Span, ...]]:
    """What steps took in the fastest runs, and the very fastest.

    `moments` [run, 1 + step] are when a run began, and when it was done with each step.
    """
    seconds, whole = np.diff(moments), moments[:, -1] - moments[:, 0]
    mean = seconds[fastest(whole)].mean(axis=0)
    spent = dict.fromkeys(steps, 0.0)
    for what, took in zip(steps, mean, strict=True):
        spent[what] += float(took)
    best = int(whole.argmin())
    begins = moments[best] - moments[best, 0]
    spans = (
        Span(0, *named(what), float(begin), float(took))
        for what, begin, took in zip(steps, begins[:-1], seconds[best], strict=True)
    )
    return {what: Spent(took, took) for what, took in spent.items()}, tuple(spans)


def _form(node: Node) -> str:
    """How a step runs."""
    return "blas" if node.op in (*PRODUCTS, "sum") else "numpy"


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
