"""Ops that carry a graph: what a pass has put together stays readable, and inlines back."""

from __future__ import annotations

from typing import Any

from ..errors import CompileError
from ..graph import Graph
from ..interpret import interpret
from ..op import REQUIRED, Op, register
from ..types import N, TensorType, TupleType, Type


class Block(Op):
    """Runs `body` on its operands; several outputs make a tuple, in the order of the body's."""

    attrs = {"body": REQUIRED, "rows": N}
    differentiable = False

    def infer(self, *types: TensorType, body: Graph, **attrs: Any) -> Type:
        if tuple(n.type for n in body.inputs) != types:
            seen = ", ".join(map(str, types))
            raise CompileError(f"{self.name}: operands {seen} do not fit the body's inputs")
        results = tuple(n.tensor for n in body.outputs.values())
        return results[0] if len(results) == 1 else TupleType(results)

    def evaluate(self, xp: Any, *arrays: Any, body: Graph, rows: int, **attrs: Any) -> Any:
        given = {n.name: a for n, a in zip(body.inputs, arrays, strict=True)}
        results = tuple(interpret(body, given, rows).values())
        return results[0] if len(results) == 1 else results


@register
class Fused(Block):
    """Pointwise work done in one sweep over its elements, chunk by chunk."""


@register
class Region(Block):
    """Steps in which each row depends on its own row only, run `tile` rows at a time.

    Sums over the batch (a body's outputs that are not per row) accumulate over the tiles, in order.
    """

    attrs = {**Block.attrs, "tile": REQUIRED}
