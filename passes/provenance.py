"""provenance: which nodes of one stage became which nodes of the next.

A pass makes nodes, and every node it makes while it looks at another remembers that one (`origin`):
a copy what it is a copy of, the result of a rule what the rule was offered, a gradient what it is
the gradient of. Between two stages lie nodes of neither, so the chain is followed until it meets
the stage before. A `fused` node or a region comes from all that is in it. Inputs keep their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..ir import Graph, Node


@dataclass(frozen=True)
class Change:
    """What one pass did: the graph before and the graph after it."""

    before: Graph
    after: Graph

    def sources(self, node: Node) -> tuple[Node, ...]:
        """The nodes before the pass that `node`, of the graph after it, was made from."""
        return tuple(dict.fromkeys(self._sources(node)))

    def gradient(self, node: Node) -> bool:
        """Whether the pass made `node` for the gradient of its source, which is still there."""
        old = self._met(node)
        return old is not None and bool(old.loc) and node.loc == f"{old.loc}'"

    def kept(self, node: Node) -> Node | None:
        """The node before the pass that `node` still is: same op, operands and result; or None."""
        if node not in self._kept:
            old = self._met(node)
            self._kept[node] = old if old is not None and self._same(old, node) else None
        return self._kept[node]

    @cached_property
    def _kept(self) -> dict[Node, Node | None]:
        return {}

    @cached_property
    def _old(self) -> set[Node]:
        return set(all_nodes(self.before))

    @cached_property
    def _old_inputs(self) -> dict[str, Node]:
        return {n.name: n for n in self.before.inputs}

    def _sources(self, node: Node) -> Iterator[Node]:
        old = self._met(node)
        if old is not None:
            yield old
        elif "body" in node.attrs:
            for inner in node.attrs["body"].nodes:
                yield from self._sources(inner)
        elif node.op == "item" and "body" in node.inputs[0].attrs:
            results = node.inputs[0].attrs["body"].outputs.values()
            yield from self._sources([*results][node.attrs["index"]])

    def _met(self, node: Node) -> Node | None:
        """Where the chain of origins meets the stage before."""
        if node.op == "input":
            return self._old_inputs.get(node.name)
        found: Node | None = node
        while found is not None and found not in self._old:
            found = found.origin
        return found

    def _same(self, old: Node, new: Node) -> bool:
        if old is new or old.op == new.op == "input":
            return True
        told = [(n.op, n.type, n.loc, repr(dict(n.attrs)), len(n.inputs)) for n in (old, new)]
        pairs = zip(old.inputs, new.inputs, strict=False)
        return told[0] == told[1] and all(self._same_operand(x, y) for x, y in pairs)

    def _same_operand(self, old: Node, new: Node) -> bool:
        """Whether an operand is still the same; what a body calls its own inputs does not count."""
        inner = new.op == "input" and new.name not in self._old_inputs
        return inner or old in self._sources(new)


def all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the bodies in it, in the order in which they are printed."""
    for node in graph.nodes:
        yield node
        if "body" in node.attrs:
            yield from all_nodes(node.attrs["body"])
