"""tile: steps on images become regions, loops that run a few rows through all of them at a time.

In a network each row of the batch depends on its own row only, until something sums over the batch.
So a run of such steps can do a few images from the first step to the last before it takes the next:
patches and activations stay in cache. Why it is correct: rows are independent, and sums over the
batch (weight gradients) accumulate tile by tile; nothing inside a region reads such a sum. Patches
that forward and backward both need are made again in each region: a copy in cache costs less than
patches of the whole batch in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..ir import Graph, Node
from ..ir.graph import result_types
from .clusters import Clusters
from .order import VIEWS
from .outline import outline
from .target import Target

REMADE = ("im2col", "pad")  # copies of a value that is kept anyway


def tile(graph: Graph, rows: int, target: Target) -> Graph:
    """The graph with regions, where a batch of `rows` rows does not fit the cache."""
    clusters = Clusters(graph, remade)
    for node in graph.nodes:
        if node.op == "item":
            clusters.merge(node.inputs[0], node, lambda group: "")
    for node in graph.nodes:
        for x in () if remade(node) else clusters.sources(node):
            if _on_images(x) and _on_images(node):
                clusters.merge(x, node, partial(_needs_whole_sum, clusters))

    def region(group: list[Node]) -> tuple[str, Mapping[str, Any]] | None:
        if not _on_images(group[0]) or all(n.op in VIEWS for n in group):
            return None
        size = tile_rows(group, rows, target)
        return ("region", {"tile": size}) if size < rows else None

    return outline(graph, clusters.groups(), region, remade)


def tile_rows(group: Sequence[Node], rows: int, target: Target) -> int:
    """How many rows go through a group together.

    As many as the cache holds, in equal tiles; where there are sums, shards of the rows are what is
    shared out. Elsewhere tiles are: then fewer, down to half, if no share is as large that way.
    """
    widest = max(_row_bytes(n) for n in group)
    fitting = max(1, target.cache_bytes // max(1, widest))
    most = min(fitting, -(-rows // target.shards))
    if any(map(sums_rows, group)):
        tiles = -(-rows // min(rows, fitting))
        return min(most, -(-rows // tiles))

    def share(size: int) -> int:
        return min(rows, -(-rows // (size * target.shards)) * size)

    return min(range(most, most // 2, -1), key=share)


def sums_rows(node: Node) -> bool:
    """Whether a node sums over the rows of the batch: what accumulates over the tiles."""
    return any(_per_row(x) for x in node.inputs) and not _per_row(node)


def _needs_whole_sum(clusters: Clusters, group: list[Node]) -> str:
    """Why the rows of a group are not independent of one another; "" if they are."""
    sums = [n for n in group if sums_rows(n)]
    whole = sums and any(clusters.needs_any(n, sums) for n in group)
    return "a sum over the batch is there only after its last row" if whole else ""


def _on_images(node: Node) -> bool:
    """Whether a node works on values of three dimensions or more; patches are looked through.

    Not one that goes on with a sum over the rows, such as a product that ends in an update: the sum
    is there only after the last tile.
    """
    if node.op == "fused" and sums_rows(node):
        return False
    values = (*node.inputs, node)
    ranks = [t.rank for v in values for t in result_types(v) if t.per_row]
    return bool(ranks) and max(ranks) > 2 and not remade(node) and node.op != "input"


def remade(node: Node) -> bool:
    """Whether a node is a copy that each region makes for itself."""
    return node.op in REMADE and _per_row(node)


def _row_bytes(node: Node) -> int:
    """Bytes a row of what a step reads and writes."""
    values = (*node.inputs, node)
    return sum(t.nbytes(1) for v in values for t in result_types(v) if t.per_row)


def _per_row(node: Node) -> bool:
    return any(t.per_row for t in result_types(node))
