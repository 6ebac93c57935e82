"""fuse: pointwise work on the same elements becomes one sweep, a `fused` node.

Bias and ReLU, ReLU's backward, an optimiser's whole update each become one loop over their
elements; broadcasts and constants are repeated inside. Why it is correct: each element of each
result depends on that element alone, and only convex groups are formed, so the sweep can run as one
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ir import OPS, Graph, Node
from .clusters import Clusters
from .outline import outline


def fuse(graph: Graph) -> Graph:
    """The graph with every pointwise op inside a `fused` node, as few of them as is legal.

    Groups grow from the consumer: what only the backward pass needs of a forward value is computed
    there, so that nothing more than the value itself has to live until then.
    """
    clusters = Clusters(graph, repeated)
    for node in reversed(graph.nodes):
        if not is_pointwise(node):
            continue
        for x in node.inputs:
            if is_pointwise(x) and x.shape == node.shape:
                clusters.merge(x, node, lambda group: True)
    return outline(graph, clusters.groups(), _fused, repeated)


def is_pointwise(node: Node) -> bool:
    """Whether a node is a pointwise op."""
    return OPS[node.op].pointwise


def repeated(node: Node) -> bool:
    """Whether a node is cheaper to make anew in each sweep than to store."""
    return node.op in ("broadcast", "full")


def _fused(group: list[Node]) -> tuple[str, Mapping[str, Any]] | None:
    return ("fused", {}) if is_pointwise(group[0]) else None
