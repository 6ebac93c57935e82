"""What depends on parameters alone, in programs that leave them as they are.

Such a value need not be made anew for each batch, but only once after the parameters have changed:
weights that are transposed, or transformed for Winograd's convolution. It costs as good as nothing,
which `forms` takes into account, and the plan keeps it.
"""

from __future__ import annotations

from collections.abc import Collection

from ..ir import Graph, Node
from ..ir.graph import result_types


class Once:
    """Says of a graph's nodes whether they need be made only once; nodes made of them included.

    `stored` names the inputs that live in the model's buffer. Where a program gives one of them
    another value, nothing is.
    """

    def __init__(self, graph: Graph, stored: Collection[str]) -> None:
        kept = {n.name for n in graph.inputs} & {*stored}
        self._names = frozenset() if kept & graph.outputs.keys() else kept
        self._known: dict[Node, bool] = {}

    def __call__(self, node: Node) -> bool:
        """Whether a value is a parameter, or made of such alone, the same for all batches."""
        if node.op == "input":
            return node.name in self._names
        if node not in self._known:
            rows = any(t.per_row for t in result_types(node))
            self._known[node] = bool(node.inputs) and not rows and all(map(self, node.inputs))
        return self._known[node]
