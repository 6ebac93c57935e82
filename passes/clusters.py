"""Groups of nodes that may become one: convex, so that no path leaves a group and comes back.

Used by `fuse` (pointwise work into one sweep) and `tile` (steps into one loop over rows). A group
is legal if contracting it leaves the graph without cycles, that is if no node outside lies both
below and above it. Both are kept as bit masks: descendants over the contracted graph, so that they
follow every merge, ancestors over the graph as it was given. That is enough, because a way out of a
group and back to it ends in an edge of the graph, at a node that is both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import TopologicalSorter

from ..ir import Graph, Node


class Clusters:
    """A partition of a graph's nodes, at first one each; `merge` joins two groups if that is legal.

    Nodes for which `repeated` holds are in no group: each group that needs one makes it anew, from
    what that is made of (`sources`).
    """

    def __init__(self, graph: Graph, repeated: Callable[[Node], bool]) -> None:
        self.nodes, self._repeated = graph.nodes, repeated
        self.refused: dict[tuple[Node, Node], str] = {}  # why two were not joined when first tried
        self._bit = {n: 1 << i for i, n in enumerate(graph.nodes)}
        self._free = sum(bit for n, bit in self._bit.items() if repeated(n))
        self._group = {n: [n] for n in graph.nodes if not repeated(n)}
        self._above = dict(self._bit)  # a node's ancestors and itself
        self._below = dict(self._bit)
        for n in graph.nodes:
            for x in n.inputs:
                self._above[n] |= self._above.get(x, 0)
        for n in reversed(graph.nodes):
            for x in n.inputs:
                if x in self._bit:
                    self._below[x] |= self._below[n]

    def sources(self, node: Node) -> Iterator[Node]:
        """The operands of a node, seen through those that are made anew."""
        for x in node.inputs:
            if x in self._bit and self._repeated(x):
                yield from self.sources(x)
            else:
                yield x

    def needs_any(self, node: Node, others: Iterable[Node]) -> bool:
        """Whether `node` needs one of `others`, itself aside, in the graph as it was given."""
        wanted = sum(self._bit[n] for n in others if n is not node)
        return bool(self._above[node] & wanted)

    def merge(self, a: Node, b: Node, refuse: Callable[[list[Node]], str]) -> None:
        """Joins the groups of a and b if the result is convex and nothing refuses it.

        `refuse` says why the nodes of both may not be one group, "" if they may; why two were not
        joined is kept in `refused`.
        """
        if self._group[a] is self._group[b]:
            return
        union = self._group[a] + self._group[b]
        inside, above, below = self._union(union)
        between = above & below & ~inside & ~self._free
        if why := self._detour(between) if between else refuse(union):
            self.refused.setdefault((a, b), why)
            return
        for n in union:
            self._group[n] = union
        for n, reached in self._below.items():
            if reached & inside:
                self._below[n] = reached | below

    def group(self, node: Node) -> Sequence[Node]:
        """The group that a node is in, in no order; empty for an input or what is made again."""
        return self._group.get(node, ())

    def groups(self) -> list[list[Node]]:
        """The groups, each in execution order, sorted so that what is needed comes first."""
        index = {n: i for i, n in enumerate(self.nodes)}
        members = {id(g): sorted(g, key=index.__getitem__) for g in self._group.values()}
        sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(members, ()))
        for n in self._group:
            for x in self.sources(n):
                if x in self._group and self._group[x] is not self._group[n]:
                    sorter.add(id(self._group[n]), id(self._group[x]))
        return [members[key] for key in sorter.static_order()]

    def _detour(self, between: int) -> str:
        node = next(n for n, bit in self._bit.items() if bit & between)
        where = f" of {node.loc}" if node.loc else ""
        return f"{node.op}{where} has to run in between: it needs the group, and the group needs it"

    def _union(self, nodes: Sequence[Node]) -> tuple[int, int, int]:
        inside = above = below = 0
        for n in nodes:
            inside |= self._bit[n]
            above |= self._above[n]
            below |= self._below[n]
        return inside, above, below
