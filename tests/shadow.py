"""A plan run without numbers: every byte of memory remembers which value was last written to it.

Whoever reads a value must find all of its bytes written by the node that makes it, so nothing was
written over it too early, in whatever order, loop or place the plan has put things. What a step
reads is taken from the graph, not from the plan. Rows of a loop that workers share are run shard by
shard, each with its own partial sums; a worker's own memory is full of rubbish when it takes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from gemmc.ir import Graph, Node
from gemmc.ir.graph import result_types
from gemmc.passes.memory import Buffer, aligned
from gemmc.passes.order import VIEWS
from gemmc.passes.plan import Kernels, Loop, Plan, Step, Value
from gemmc.passes.tile import sums_rows

Tokens = tuple[int, ...]  # one for each result of a node
Span = tuple[str, int, int]  # a memory, and the bytes from begin to end in it
ARENA, OWN = "", "own"  # the shared arena, and a worker's
SCRATCH = -1


@dataclass(frozen=True)
class Part:
    """The rows from `row` to `stop`, of a shard of a loop: where that keeps its partial sums.

    `again` says that they are not its first ones.
    """

    row: int
    stop: int
    shard: int = 0
    partial: Mapping[Buffer, Buffer] = field(default_factory=dict)
    again: bool = False


class Shadow:
    """The memory of a plan for batches of `rows` rows, and what has been written where."""

    def __init__(self, plan: Plan, rows: int, kernels: Kernels) -> None:
        self.plan, self.rows, self.kernels, self._fresh = plan, rows, kernels, count(1)
        self._whole = Part(0, rows)
        self._unfinished: set[int] = set()  # sums over the batch, of the loop that is running
        self.memory = {ARENA: np.zeros(plan.arena_bytes, np.int64)}
        self.memory[OWN] = np.zeros(plan.private_bytes, np.int64)
        for name, value in plan.inputs.items():
            if value.buffer.outer is not None:
                self.memory[name] = np.zeros(value.buffer.nbytes, np.int64)

    def run(self) -> None:
        """Runs the plan; AssertionError where a step finds something else than it expects."""
        tokens: dict[Node, Tokens] = {}
        for n in self.plan.graph.inputs:
            tokens[n] = self._new(n)
            self._write(self._span(self.plan.inputs[n.name], self._whole), tokens[n][0])
        parts = iter(self.plan.parts)
        for node in self.plan.graph.nodes:
            if node.op in VIEWS:
                tokens[node] = _viewed(node, tokens)
            elif node.op == "region":
                tokens[node] = self._loop(node, next(parts), tokens)
            else:
                tokens[node] = self._new(node)
                self._step(node, next(parts), tokens, self._whole)
        assert next(parts, None) is None, "the plan does more than the graph"
        for name, node in self.plan.graph.outputs.items():
            value = self.plan.outputs[name]
            self._expect(self._span(value, self._whole), tokens[node][0], f"output {name}")
            replaces = name in self.plan.inputs and name not in self.plan.moves
            assert not replaces or value.buffer is self.plan.inputs[name].buffer, name

    def _loop(self, region: Node, loop: Step | Loop, outer: Mapping[Node, Tokens]) -> Tokens:
        assert isinstance(loop, Loop) and loop.tile == region.attrs["tile"]
        body: Graph = region.attrs["body"]
        kept = {n: self._new(n) for n in _makers(body)}
        sums = {n: kept[n][0] for n in kept if sums_rows(n)}
        self._unfinished = set(sums.values())
        partial = {value.buffer: buffer for value, buffer in loop.partials}
        shards = self.plan.shards if partial else 1
        assert len(partial) == (len(sums) if self.plan.shards > 1 else 0)
        self._check_owned(loop)
        tokens: dict[Node, Tokens] = {}
        for shard in range(shards):
            self.memory[OWN][:] = SCRATCH  # whoever takes the shard
            own = self._rows_of(shard, shards)
            for row in own[:: loop.tile]:
                stop = min(row + loop.tile, own.stop)
                part = Part(row, stop, shard, partial, row > own.start)
                inputs = zip(body.inputs, region.inputs, strict=True)
                tokens = {n: outer[x] for n, x in inputs}
                steps = iter(loop.steps)
                for node in body.nodes:
                    if node.op in VIEWS:
                        tokens[node] = _viewed(node, tokens)
                        continue
                    tokens[node] = kept.get(node) or self._new(node)
                    self._step(node, next(steps), tokens, part)
                assert next(steps, None) is None, "the loop does more than its body"
        self._unfinished = set()
        self._total(loop, partial, sums)
        return tuple(kept[n][0] if n in kept else tokens[n][0] for n in body.outputs.values())

    def _check_owned(self, loop: Loop) -> None:
        """Where workers share a loop, what holds one tile is each worker's own."""
        if self.plan.shards == 1:
            return
        for step in loop.steps:
            for v in (*step.operands, *step.results):
                assert v.buffer.private == v.tiled, f"{step.node!r}: shared by the workers"
            assert not step.scratch or step.scratch.private, f"{step.node!r}: shared scratch"

    def _total(
        self, loop: Loop, partial: Mapping[Buffer, Buffer], sums: Mapping[Node, int]
    ) -> None:
        """What the shards have summed up is added up, into where the sum belongs."""
        for step in (s for s in loop.steps if partial and s.node in sums):
            (value,), token = step.results, sums[step.node]
            total = self._span(value, self._whole)
            for shard in range(self.plan.shards):
                part = self._span(value, Part(0, self.rows, shard, partial))
                assert not _overlap(part, total), f"{step.node!r}: its sum and a partial one"
                if self._rows_of(shard):
                    self._expect(part, token, f"{step.node!r}: the sum of shard {shard}")
            self._write(total, token)

    def _rows_of(self, shard: int, shards: int | None = None) -> range:
        shards = shards or self.plan.shards
        return range(self.rows * shard // shards, self.rows * (shard + 1) // shards)

    def _step(
        self, node: Node, step: Step | Loop, tokens: Mapping[Node, Tokens], part: Part
    ) -> None:
        assert isinstance(step, Step) and step.node is node
        read = [token for x in node.inputs for token in tokens[x]]
        operands = [self._span(v, replace(part, partial={})) for v in step.operands]
        results = [self._span(v, part) for v in step.results]
        for i, (span, token) in enumerate(zip(operands, read, strict=True)):
            self._expect(span, token, f"{node!r} at {step.time}: operand {i}")
            assert token not in self._unfinished, f"{node!r}: operand {i} is not summed up yet"
        if sums_rows(node) and part.again:  # accumulates
            self._expect(results[0], tokens[node][0], f"{node!r} at {step.time}: the sum so far")
        self._check_apart(step, operands, results)
        if step.scratch:
            self._write(self._scratch(step), SCRATCH)
        for span, token in zip(results, tokens[node], strict=True):
            self._write(span, token)

    def _check_apart(self, step: Step, operands: list[Span], results: list[Span]) -> None:
        """Results lie apart from each other, and from operands unless the kernel works in place."""
        for j, result in enumerate(results):
            assert not any(_overlap(result, other) for other in results[:j]), step.node
            for i, operand in enumerate(operands):
                in_place = operand == result and self.kernels.in_place(step.node, i, j)
                assert in_place or not _overlap(operand, result), (step.node, i, j)
        if step.scratch:
            scratch = self._scratch(step)
            assert not any(_overlap(scratch, span) for span in (*operands, *results)), step.node

    def _scratch(self, step: Step) -> Span:
        assert step.scratch is not None
        begin = step.scratch.offset
        return OWN if step.scratch.private else ARENA, begin, begin + step.scratch.nbytes

    def _span(self, value: Value, part: Part) -> Span:
        """The bytes of a part of a value: all of one that has no rows, or a partial sum."""
        t, buffer = value.type, part.partial.get(value.buffer, value.buffer)
        begin = 0 if buffer.outer is not None else buffer.offset
        last = begin + buffer.nbytes
        if value.buffer in part.partial:
            begin += part.shard * aligned(t.nbytes(1))
        if t.per_row:
            first = 0 if value.tiled else part.row
            rows = part.stop - part.row
            span = (begin + first * t.nbytes(1), begin + (first + rows) * t.nbytes(1))
        else:
            span = (begin, begin + t.nbytes(1))
        assert span[1] <= last, f"{t} does not fit its buffer"
        return buffer.outer or (OWN if buffer.private else ARENA), *span

    def _new(self, node: Node) -> Tokens:
        return tuple(next(self._fresh) for _ in result_types(node))

    def _write(self, span: Span, token: int) -> None:
        memory, begin, end = span
        self.memory[memory][begin:end] = token

    def _expect(self, span: Span, token: int, message: str) -> None:
        memory, begin, end = span
        assert (self.memory[memory][begin:end] == token).all(), f"{message} was written over"


def _overlap(a: Span, b: Span) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _viewed(node: Node, tokens: Mapping[Node, Tokens]) -> Tokens:
    (x,) = node.inputs
    return (tokens[x][node.attrs["index"]],) if node.op == "item" else tokens[x]


def _makers(body: Graph) -> Iterator[Node]:
    """The nodes of a body whose results are needed outside."""
    for n in body.outputs.values():
        while n.op in VIEWS:
            (n,) = n.inputs
        yield n
