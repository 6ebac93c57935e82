"""fuse: pointwise work on the same elements becomes one sweep, a `fused` node.

Bias and ReLU, ReLU's backward, an optimiser's whole update each become one loop over their
elements; broadcasts and constants are repeated inside. Why it is correct: each element of each
result depends on that element alone, and only convex groups are formed, so the sweep can run as one
step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..ir import OPS, Graph, Node
from .clusters import Clusters
from .outline import outline
from .target import Target

# Forms of products that take pointwise work as their epilogue, and the ops that have them.
GENERATED = ("loops", "dots", "direct", "winners", "winograd")
ANCHORS = ("matmul", "conv2d", "winograd_conv2d", "pooled_input_grad")

ROW = 8  # vectors of a row that is worked on as one: a quarter of AVX-512's registers
SCORES = 64  # of a row whose winner is found: their comparisons are the bits of one i64
POOLED = 9  # entries of a window, 3 x 3, whose sums a convolution holds in registers at once


def fuse(graph: Graph, target: Target) -> Graph:
    """The graph with every pointwise op inside a `fused` node, as few of them as is legal.

    Groups grow from the consumer: what only the backward pass needs of a forward value is computed
    there, so that nothing more than the value itself has to live until then. A product in a
    generated form takes the pointwise work on its elements as its epilogue.
    """
    stored = {x for n in graph.nodes for x in n.inputs if _reads_array(n, x)}

    def again(node: Node) -> bool:
        return repeated(target, node) and node not in stored

    clusters = Clusters(graph, again)
    _join_pointwise(graph, clusters)
    for node in filter(is_anchor, graph.nodes):
        _take_epilogue(graph, clusters, node)
    if target.generated:
        _join_rows(target, graph, clusters)
    for node in graph.nodes:
        if node.op == "max_pool2d" and _pools_a_convolution(graph, clusters, node):
            _take_pool(graph, clusters, node)
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


def _reads_array(node: Node, operand: Node) -> bool:
    """Whether a node needs an operand as a whole: a product, and what spreads a mask's elements."""
    return is_anchor(node) or (node.op == "broadcast" and operand.op == "dropout_mask")


def _join_pointwise(graph: Graph, clusters: Clusters) -> None:
    """Pointwise ops join those that they feed, from the last to the first."""
    for node in filter(is_pointwise, reversed(graph.nodes)):
        for x in node.inputs:
            if is_pointwise(x) and x.shape == node.shape:
                clusters.merge(x, node, _always)


def _take_epilogue(graph: Graph, clusters: Clusters, node: Node) -> None:
    """`relu(product)` and other pointwise work on a node's elements join its group."""
    for user in graph.users[node]:
        if is_pointwise(user) and user.shape == node.shape:
            clusters.merge(node, user, partial(_is_epilogue, clusters))


def _join_rows(target: Target, graph: Graph, clusters: Clusters) -> None:
    """Reductions of rows join what makes the rows, and what spreads their numbers again."""
    for node in graph.nodes:
        for x in clusters.sources(node):
            if _by_rows(target, x) and _by_rows(target, node):
                clusters.merge(x, node, _on_one_row)


def _always(group: list[Node]) -> bool:
    return True


def _is_epilogue(clusters: Clusters, group: list[Node]) -> bool:
    """Whether a group is one product and pointwise work on its elements that it does not need.

    Operands smaller than the result must lie along its last axis, or its rows if it is a matrix.
    """
    (anchor, *others) = [n for n in group if is_anchor(n)]
    if others or clusters.needs_any(anchor, group):
        return False
    if len({n.shape for n in group if is_pointwise(n)} - {anchor.shape}) > 1:
        return False
    small = [x for n in group for x in n.inputs if x.op in ("broadcast", "dropout_mask")]
    return all(_along_columns(x) for x in small)


def _by_rows(target: Target, node: Node) -> bool:
    """Whether a node makes rows, of a few vectors, or numbers of rows, from such."""
    reduces = node.op in ("sum", "max") and node.attrs["axes"] == (1,)
    if not (reduces or is_pointwise(node) or node.op in ("one_hot", "correct")):
        return False
    shapes = [x.shape for x in (*node.inputs, node) if x.shape]
    wide = {s[1] for s in shapes if len(s) == 2}
    most = SCORES if node.op == "correct" else ROW * target.lanes
    rowed = all(len(s) <= 2 and not isinstance(s[0], int) for s in shapes)
    return rowed and max(wide, default=0) <= most


def _on_one_row(group: list[Node]) -> bool:
    """Whether a group reduces rows, all of one width, and spreads only numbers over them."""
    shapes = {x.shape for n in group for x in (n, *n.inputs) if len(x.shape) == 2}
    reduces = any(n.op in ("sum", "max", "one_hot", "correct") for n in group)
    spread = all(
        x.attrs["axes"] in ((), (0,), (1,)) for n in group for x in n.inputs if x.op == "broadcast"
    )
    masks = any(x.op == "dropout_mask" for n in group for x in n.inputs)
    return reduces and len(shapes) == 1 and spread and not masks and not any(map(is_anchor, group))


def _pools_a_convolution(graph: Graph, clusters: Clusters, pool: Node) -> bool:
    """Whether a pool, its windows side by side, is all that reads a generated convolution."""
    (x,), attrs = pool.inputs, pool.attrs
    if x.op == "input" or attrs["kernel"] != attrs["stride"] or attrs["padding"] != (0, 0):
        return False
    group = clusters.group(x)
    readers = {u for n in group for u in graph.users[n]} - set(group)
    outputs = set(graph.outputs.values()).intersection(group)
    shapes = {"conv2d": attrs["kernel"], "winograd_conv2d": (2, 2)}  # of windows that each can pool
    convolution = any(is_anchor(n) and shapes.get(n.op) == attrs["kernel"] for n in group)
    return (
        convolution and readers == {pool} and not outputs and math.prod(attrs["kernel"]) <= POOLED
    )


def _take_pool(graph: Graph, clusters: Clusters, pool: Node) -> None:
    """`max_pool2d(fused { conv2d ... })`, and pointwise work on its result, become one group."""
    clusters.merge(pool.inputs[0], pool, _always)
    for item in graph.users[pool]:
        clusters.merge(pool, item, _always)
    for item in graph.users[pool]:
        _take_epilogue(graph, clusters, item)


def _along_columns(x: Node) -> bool:
    """Whether a spread operand lies along the last axis or the rows, or a mask in its own order."""
    rank = len(x.shape)
    if x.op == "dropout_mask":
        return x.attrs["perm"] is None or list(x.attrs["perm"]) == sorted(x.attrs["perm"])
    axes = x.attrs["axes"]
    return axes in ((), (rank - 1,), tuple(range(rank - 1)))


def _fused(group: list[Node]) -> tuple[str, Mapping[str, Any]] | None:
    alone = len(group) == 1 and not is_pointwise(group[0])
    return None if alone or group[0].op == "item" else ("fused", {})
