"""fuse: pointwise work on the same elements becomes one sweep, a `fused` node.

Bias and ReLU, ReLU's backward, an optimiser's whole update each become one loop over their
elements; broadcasts and constants are repeated inside. Why it is correct: each element of each
result depends on that element alone, and only convex groups are formed, so the sweep can run as one
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..ir import OPS, Graph, Node
from .clusters import Clusters
from .outline import outline
from .target import Target

GENERATED = ("loops", "direct", "winners")  # forms of products that take pointwise work as their epilogue

ANCHORS = ("matmul", "conv2d", "pooled_input_grad")


def fuse(graph: Graph, target: Target) -> Graph:
    """The graph with every pointwise op inside a `fused` node, as few of them as is legal.

    Groups grow from the consumer: what only the backward pass needs of a forward value is computed
    there, so that nothing more than the value itself has to live until then. A product in a
    generated form takes the pointwise work on its elements as its epilogue.
    """
    again = partial(repeated, target)
    clusters = Clusters(graph, again)
    for node in reversed(graph.nodes):
        if not is_pointwise(node):
            continue
        for x in node.inputs:
            if is_pointwise(x) and x.shape == node.shape:
                clusters.merge(x, node, lambda group: True)
    for node in graph.nodes:
        if is_anchor(node):
            for user in graph.users[node]:
                if is_pointwise(user) and user.shape == node.shape:
                    clusters.merge(node, user, partial(_epilogue, graph, clusters))
    return outline(graph, clusters.groups(), _fused, again)


def is_pointwise(node: Node) -> bool:
    """Whether a node is a pointwise op."""
    return OPS[node.op].pointwise


def is_anchor(node: Node) -> bool:
    """Whether a node is a product that can begin a fused group."""
    return node.attrs.get("form") in GENERATED and node.op in ANCHORS


def repeated(target: Target, node: Node) -> bool:
    """Whether a node is cheaper to make anew in each sweep than to store."""
    return node.op in ("broadcast", "full") or (target.generated and node.op == "dropout_mask")


def _epilogue(graph: Graph, clusters: Clusters, group: list[Node]) -> bool:
    """Whether a group is one product and pointwise work on its elements that it does not need.

    Operands smaller than the result must lie along its last axis, or its rows if it is a matrix.
    """
    (anchor, *others) = [n for n in group if is_anchor(n)]
    if others or clusters.needs_any(anchor, group):
        return False
    small = [x for n in group for x in n.inputs if x.op in ("broadcast", "dropout_mask")]
    return all(_along_columns(x) for x in small)


def _along_columns(x: Node) -> bool:
    rank = len(x.shape)
    if x.op == "dropout_mask":
        return x.attrs["perm"] is None or list(x.attrs["perm"]) == sorted(x.attrs["perm"])
    axes = x.attrs["axes"]
    return axes in ((), (rank - 1,), tuple(range(rank - 1)))


def _fused(group: list[Node]) -> tuple[str, Mapping[str, Any]] | None:
    return ("fused", {}) if any(is_pointwise(n) for n in group) else None
