"""The examples that the ops list, as graphs of one op and arrays to run them on."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gemmc.ir import OPS, Builder, Graph, Node, Op, TensorType, parse_type
from gemmc.ir.graph import result_types
from gemmc.ir.text import _literal
from gemmc.ir.types import FLOATS

Types = tuple[TensorType, ...]

# What `lower` makes of float32 products where loops are generated, and no other runtime runs.
GENERATED = (
    *("panel_matmul", "pooled_input_grad", "pooled_weight_grad"),
    *("winograd_conv2d", "winograd_weights"),
)


@dataclass(frozen=True)
class Example:
    """One call of an op: the text it was read from, the types of its operands, its attributes."""

    text: str
    op: Op
    types: Types
    attrs: Mapping[str, Any]

    def __str__(self) -> str:
        return self.text

    @property
    def float_operands(self) -> list[int]:
        """Which operands gradients flow into."""
        return [i for i, t in enumerate(self.types) if t.dtype in FLOATS]

    def in_float64(self) -> Example:
        """The same call with float64 for float32."""
        types = tuple(TensorType(t.shape, _wide(t.dtype)) for t in self.types)
        attrs = {
            k: _wide(v) if k == "dtype" else v for k, v in self.op.complete(self.attrs).items()
        }
        return replace(self, types=types, attrs=attrs)

    def graph(self) -> Graph:
        """Inputs x0, x1, ... and outputs y0, y1, ..., one for each result."""
        b = Builder()
        inputs = [b.input(f"x{i}", t) for i, t in enumerate(self.types)]
        results = results_of(b, b.make(self.op.name, inputs, self.attrs))
        return b.graph("example", inputs, {f"y{i}": y for i, y in enumerate(results)})

    def draw(self, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """Operands from the op's domain."""
        drawn = (draw(t, rng, rows, self.op.domain) for t in self.types)
        return {f"x{i}": array for i, array in enumerate(drawn)}


def read(text: str) -> Example:
    """The call that a line such as `matmul f32[N,5], f32[5,3] {transpose_b=True}` writes."""
    match = re.fullmatch(r"(\w+) ?([^{]*?) ?(?:\{(.*)\})?", text)
    assert match, text
    types = tuple(parse_type(t) for t in re.findall(r"\w+\[[^\]]*\]", match[2]))
    assert all(isinstance(t, TensorType) for t in types), text
    call = ast.parse(f"f({match[3] or ''})", mode="eval").body
    assert isinstance(call, ast.Call)
    attrs = {str(k.arg): _literal(k.value) for k in call.keywords}
    return Example(text, OPS[match[1]], types, attrs)  # type: ignore[arg-type]


def joined(graphs: Sequence[Graph]) -> Graph:
    """One graph of many that have nothing in common, so that they are compiled together.

    Inputs and outputs of graph number i have `i.` in front of their names.
    """
    b = Builder()
    inputs: list[Node] = []
    outputs: dict[str, Node] = {}
    for i, graph in enumerate(graphs):
        own = [b.input(f"{i}.{n.name}", n.tensor) for n in graph.inputs]
        inputs += own
        outputs.update((f"{i}.{name}", y) for name, y in b.inline(graph, own).items())
    return b.graph("joined", inputs, outputs)


def results_of(b: Builder, node: Node) -> Sequence[Node]:
    """The results of a node, each by itself."""
    types = result_types(node)
    return [b.item(node, index=i) for i in range(len(types))] if len(types) > 1 else [node]


def draw(
    t: TensorType, rng: np.random.Generator, rows: int, domain: tuple[float, float]
) -> np.ndarray:
    """An array of type `t` with entries from `domain`; integers stop before its end."""
    low, high = domain
    shape = t.concrete(rows)
    if t.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if t.dtype not in FLOATS:
        least = max(0, math.ceil(low)) if t.dtype == "u8" else math.ceil(low)
        return rng.integers(least, math.ceil(high), shape).astype(t.numpy)
    return np.asarray(rng.uniform(low, high, shape)).astype(t.numpy)


def _wide(dtype: str) -> str:
    return "f64" if dtype == "f32" else dtype


EXAMPLES = [read(text) for op in OPS.values() for text in op.examples]
