"""plan: every value gets a place in one arena, and every step its operands.

Graph -> Plan, in three strokes. First the graph is walked in execution order, and each value gets a
buffer of its own that lives from the step that makes it to the last that reads it; `reshape` and
`item` only give a value another name. Then buffers are shared: the next value of a parameter is
written over the present one (donation), and a pointwise step writes over an operand that dies with
it. At last the buffers get offsets such that no two alive at the same time overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ..ir import Graph, Node, TensorType
from ..ir.graph import result_types
from .memory import Buffer, aligned, allocate, lower_bound
from .once import Once
from .order import VIEWS


class Kernels(Protocol):
    """What the planner asks of a runtime.

    `shards` is into how many parts the rows of a region are cut that workers may take at once; with
    more than one, sums over the rows are partial sums, added up in order after the region.
    """

    @property
    def shards(self) -> int: ...

    def scratch(self, node: Node, rows: int) -> int:
        """Bytes of scratch that a node's kernel needs for `rows` rows."""

    def in_place(self, node: Node, operand: int, result: int) -> bool:
        """Whether a node's kernel may write that result over that operand, which dies with it."""


@dataclass(eq=False)
class Value:
    """A result: an array of `type` at the start of `buffer`.

    `tiled` says that the buffer holds one tile of rows, not the whole batch.
    """

    type: TensorType
    buffer: Buffer
    tiled: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call: `node` on `operands` into `results` at `time`, with a scratch buffer.

    One that is `once` depends on parameters alone: its results stay until these have changed.
    """

    node: Node
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    scratch: Buffer | None
    time: int
    once: bool = False


@dataclass(frozen=True, eq=False)
class Loop:
    """The steps of a region, run `tile` rows at a time.

    `partials` are its sums over rows, each with the buffer of one partial sum per shard: empty
    where the region runs as one.
    """

    tile: int
    steps: tuple[Step, ...]
    partials: tuple[tuple[Value, Buffer], ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """A program: what runs, in order, and where everything is.

    `inputs` and `outputs` say where values are, by name. `moves` names the outputs that replace an
    input but could not be written in place: they are copied there after the last step.
    """

    graph: Graph
    rows: int  # the largest batch
    parts: tuple[Step | Loop, ...]
    buffers: tuple[Buffer, ...]
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    moves: tuple[str, ...]
    arena_bytes: int
    private_bytes: int = 0  # besides, for each worker
    shards: int = 1

    @property
    def bound_bytes(self) -> int:
        """The most bytes that are ever live at once: no arena can be smaller."""
        return lower_bound(self.buffers)[0]

    @property
    def private_buffers(self) -> tuple[Buffer, ...]:
        """The buffers of which every worker has its own: what loops keep of one tile."""
        used = [v.buffer for s in self.steps() for v in (*s.operands, *s.results)]
        used += [s.scratch for s in self.steps() if s.scratch]
        return tuple(dict.fromkeys(b for b in used if b.private))

    def steps(self) -> Iterator[Step]:
        """All steps, those of loops included, in order."""
        for part in self.parts:
            yield from part.steps if isinstance(part, Loop) else (part,)

    def report(self) -> str:
        """The arena, its lower bound, and what is live at the peak, from which layer and why."""
        from .report import plan_report  # the report reads plans

        return plan_report(self)


def plan(graph: Graph, rows: int, stored: frozenset[str], kernels: Kernels) -> Plan:
    """The plan of an ordered graph for batches of up to `rows` rows.

    `stored` names the inputs that live in the model's buffer; `kernels` are those of the runtime.
    """
    walk = _Walk(graph, rows, stored, kernels)
    steps = [s for part in walk.parts for s in (part.steps if isinstance(part, Loop) else (part,))]
    moves = _donate(walk, steps, kernels)
    for step in steps:
        _reuse_dying(walk.values, step, kernels)
    live = {id(v.buffer): v.buffer for v in walk.values}
    live.update((id(s.scratch), s.scratch) for s in steps if s.scratch)
    for part in walk.parts:
        live.update((id(b), b) for _, b in (part.partials if isinstance(part, Loop) else ()))
    shared = tuple(b for b in live.values() if not b.private)
    arena, private = allocate(shared), allocate(b for b in live.values() if b.private)
    parts, shards = tuple(walk.parts), kernels.shards
    places = (walk.inputs, walk.outputs)
    return Plan(graph, rows, parts, shared, *places, moves, arena, private, shards)


class _Walk:
    """The first stroke: steps, and a buffer of its own for each value, with its lifetime."""

    def __init__(self, graph: Graph, rows: int, stored: frozenset[str], kernels: Kernels) -> None:
        self.kernels, self.once = kernels, Once(graph, stored)
        self.clock = 0  # inputs are there at 0; the first step is 1
        self.values: list[Value] = []
        where: dict[Node, tuple[Value, ...]] = {}
        for n in graph.inputs:
            where[n] = (self._value(n.tensor, f"%{n.name}", n.loc, rows),)
            where[n][0].buffer.outer = n.name if n.name in stored else None
        self.clock = 1
        self.parts = list(self._parts(graph, where, rows))
        self.inputs = {n.name: where[n][0] for n in graph.inputs}
        self.outputs = {name: where[n][0] for name, n in graph.outputs.items()}
        for value in self.outputs.values():
            value.buffer.used_at(self.clock)
        for step in (part for part in self.parts if isinstance(part, Step) and part.once):
            self._keep(step)

    def _keep(self, step: Step) -> None:
        """Lets what a step makes stay from batch to batch, and nothing of a batch be in its way."""
        for value in step.results:
            value.buffer.start = 0
            value.buffer.used_at(self.clock)
        if step.scratch is not None:
            step.scratch.start = 0

    def _parts(
        self, graph: Graph, where: dict[Node, tuple[Value, ...]], rows: int
    ) -> Iterator[Step | Loop]:
        for node in graph.nodes:
            if node.op in VIEWS:
                where[node] = self._alias(node, where)
            elif node.op == "region":
                yield self._loop(node, where, rows)
            else:
                results = self._results(node, rows, tiled=False)
                step = self._step(node, where, results, rows)
                yield replace(step, once=self.once(node))

    def _loop(self, region: Node, where: dict[Node, tuple[Value, ...]], rows: int) -> Loop:
        """A region. What it reads or makes for the whole batch is alive all through it."""
        tile, body, begin = region.attrs["tile"], region.attrs["body"], self.clock
        inner = {n: where[x] for n, x in zip(body.inputs, region.inputs, strict=True)}
        makers = dict.fromkeys(_maker(n) for n in body.outputs.values())
        made = {n: self._results(n, rows, tiled=False) for n in makers if n.op != "input"}
        steps = []
        for node in body.nodes:
            if node.op in VIEWS:
                inner[node] = self._alias(node, inner)
            else:
                results = made.get(node) or self._results(node, tile, tiled=True)
                steps.append(self._step(node, inner, results, tile, self.kernels.shards > 1))
        where[region] = tuple(inner[n][0] for n in body.outputs.values())
        outer = [v for x in region.inputs for v in where[x]]
        whole = [v for values in made.values() for v in values]
        for value in (*outer, *whole):
            value.buffer.used_at(self.clock - 1)
        sums = [v for v in whole if not v.type.per_row] if self.kernels.shards > 1 else []
        return Loop(tile, tuple(steps), tuple((v, self._partial(v, begin)) for v in sums))

    def _partial(self, total: Value, begin: int) -> Buffer:
        """Room for the partial sums of a region's shards, until they are added up."""
        nbytes = self.kernels.shards * aligned(total.buffer.nbytes)
        return Buffer(nbytes, begin, self.clock - 1, "partial", total.buffer.loc)

    def _step(
        self,
        node: Node,
        where: dict[Node, tuple[Value, ...]],
        results: tuple[Value, ...],
        rows: int,
        private: bool = False,
    ) -> Step:
        operands = tuple(v for x in node.inputs for v in where[x])
        for value in (*operands, *results):
            value.buffer.used_at(self.clock)
        where[node] = results
        nbytes = self.kernels.scratch(node, rows)
        room = Buffer(nbytes, self.clock, self.clock, "scratch", node.loc) if nbytes else None
        for buffer in (v.buffer for v in results if v.tiled):
            buffer.private = private
        if room is not None:
            room.private = self.kernels.shards > 1
        self.clock += 1
        return Step(node, operands, results, room, self.clock - 1)

    def _results(self, node: Node, rows: int, tiled: bool) -> tuple[Value, ...]:
        types = result_types(node)
        return tuple(self._value(t, node.op, node.loc, rows, tiled and t.per_row) for t in types)

    def _value(self, t: TensorType, label: str, loc: str, rows: int, tiled: bool = False) -> Value:
        value = Value(t, Buffer(t.nbytes(rows), self.clock, self.clock, label, loc), tiled)
        self.values.append(value)
        return value

    def _alias(self, node: Node, where: dict[Node, tuple[Value, ...]]) -> tuple[Value, ...]:
        source = where[node.inputs[0]][node.attrs.get("index", 0)]
        value = Value(node.tensor, source.buffer, source.tiled)
        self.values.append(value)
        return (value,)


def _maker(node: Node) -> Node:
    """The node that computes a value, which may carry another name."""
    while node.op in VIEWS:
        node = node.inputs[0]
    return node


def _donate(walk: _Walk, steps: list[Step], kernels: Kernels) -> tuple[str, ...]:
    """Lets next values be written over present ones; the names for which that is not possible.

    It is if the step that makes the next value comes after every reader of the present one, or is
    the last of them and pointwise.
    """
    makers = {id(v.buffer): (s, i) for s in steps for i, v in enumerate(s.results)}
    moves = []
    for name, new in walk.outputs.items():
        old = walk.inputs.get(name)
        if old is None or old.buffer is new.buffer:
            continue
        made = makers.get(id(new.buffer)) if new.buffer.outer is None else None
        if made and _may_overwrite(*made, old.buffer, kernels):
            _share(walk.values, new.buffer, old.buffer)
        else:
            moves.append(name)
    return tuple(moves)


def _reuse_dying(values: list[Value], step: Step, kernels: Kernels) -> None:
    """Lets a step write over an operand of the same type that is never read again."""
    for index, result in enumerate(step.results):
        if result.buffer.outer is not None or result.buffer.start != step.time:
            continue
        for x in step.operands:
            same = x.type == result.type and x.tiled == result.tiled
            dying = x.buffer.end == step.time and x.buffer.outer is None
            if same and dying and _may_overwrite(step, index, x.buffer, kernels):
                x.buffer.end = result.buffer.end
                _share(values, result.buffer, x.buffer)
                break


def _may_overwrite(step: Step, index: int, old: Buffer, kernels: Kernels) -> bool:
    """Whether a result may be written where `old` is, because nothing will read that."""
    if old.end < step.results[index].buffer.start:
        return True
    reads = [i for i, x in enumerate(step.operands) if x.buffer is old]
    whole = all(step.operands[i].type == step.results[index].type for i in reads)
    only = old.end == step.time == step.results[index].buffer.start
    return only and whole and all(kernels.in_place(step.node, i, index) for i in reads)


def _share(values: list[Value], old: Buffer, new: Buffer) -> None:
    """Makes every value in buffer `old` be in buffer `new`."""
    for value in values:
        if value.buffer is old:
            value.buffer = new
