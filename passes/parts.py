"""parts: smaller graphs made of a graph, for the search for one on which a pass still fails.

A node that is taken away becomes an input of its type, with a name that begins with FREED.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import count

from ..ir import Builder, Graph, Node
from ..ir.graph import reachable
from ..ir.types import TensorType

FREED = "free"


def size(graph: Graph) -> int:
    """How many nodes a graph has, those of bodies included."""
    return len(graph.nodes) + sum(size(block.attrs["body"]) for block in blocks(graph))


def blocks(graph: Graph) -> list[Node]:
    """The nodes that carry a graph."""
    return [n for n in graph.nodes if "body" in n.attrs]


def part(
    graph: Graph,
    outputs: Mapping[str, Node] | None = None,
    freed: Collection[Node] = (),
    instead: Mapping[Node, Node] | None = None,
) -> Graph:
    """What `outputs` need, with nodes that are `freed` as inputs, and others `instead` of some."""
    env: dict[Node, Node] = {}
    b, fresh = Builder(), _fresh_names(graph)
    for node in (*graph.inputs, *graph.nodes):
        if instead and node in instead:
            env[node] = env[instead[node]]
        elif node in freed and isinstance(node.type, TensorType):
            env[node] = b.input(next(fresh), node.type)
        else:
            env[node] = b.clone(node, [env[x] for x in node.inputs])
    named = {name: env[n] for name, n in (outputs or graph.outputs).items()}
    return _graph(b, graph, named)


def beginning(graph: Graph, size: int) -> Graph:
    """The first `size` nodes; those that no other of them reads are the outputs."""
    nodes = graph.nodes[:size]
    read = {x for n in nodes for x in n.inputs}
    ends = [n for n in nodes if n not in read and isinstance(n.type, TensorType)]
    return part(graph, {f"end{i}": n for i, n in enumerate(ends)} or graph.outputs)


def summed(graph: Graph, node: Node) -> Graph:
    """The graph with the sum of a node for its loss."""
    needed, b = part(graph, {"loss": node}), Builder()
    inputs = [b.clone(n, ()) for n in needed.inputs]
    value = b.inline(needed, inputs)["loss"]
    axes = tuple(range(len(value.shape)))
    return b.graph(graph.name, inputs, {"loss": b.sum(value, axes=axes) if axes else value})


def with_body(graph: Graph, block: Node, body: Graph) -> Graph:
    """The graph with another body in a block, a part of the present one.

    New inputs of the body are new inputs of the graph, new outputs new outputs. What is no longer a
    result of the block becomes an input.
    """
    b, fresh, old = Builder(), _fresh_names(graph), block.attrs["body"]
    operands = {n.name: x for n, x in zip(old.inputs, block.inputs, strict=True)}
    names, found = [*old.outputs], dict[str, Node]()
    env: dict[Node, Node] = {}
    for node in (*graph.inputs, *graph.nodes):
        taken = node.inputs[0] if node.op == "item" else node
        if node is block:
            given = {k: env[x] for k, x in operands.items()}
            found = _results(b, block, body, given, fresh)
        if taken is block and isinstance(node.type, TensorType):
            name = names[node.attrs.get("index", 0)]
            env[node] = found.get(name) or b.input(next(fresh), node.type)
        elif taken is not block:
            env[node] = b.clone(node, [env[x] for x in node.inputs])
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return _graph(b, graph, outputs | {k: n for k, n in found.items() if k not in names})


def _results(
    b: Builder, block: Node, body: Graph, given: Mapping[str, Node], fresh: Iterator[str]
) -> dict[str, Node]:
    """The results, by name, of a block with another body, on what its inputs are `given`."""
    inputs = [given.get(n.name) or b.input(next(fresh), n.tensor) for n in body.inputs]
    with b.at(block.loc, block):
        made = b.make(block.op, inputs, {**block.attrs, "body": body})
        if len(body.outputs) == 1:
            return dict.fromkeys(body.outputs, made)
        return {name: b.item(made, index=i) for i, name in enumerate(body.outputs)}


def _graph(b: Builder, like: Graph, outputs: Mapping[str, Node]) -> Graph:
    """The graph of what outputs need; the inputs that it reads stand in the order of another's."""
    place = {n.name: i for i, n in enumerate(like.inputs)}
    inputs = [n for n in reachable(outputs.values()) if n.op == "input"]
    inputs.sort(key=lambda n: (place.get(n.name, len(place)), n.name))
    return b.graph(like.name, inputs, outputs)


def _fresh_names(graph: Graph) -> Iterator[str]:
    taken = {n.name for n in graph.inputs}
    return (name for i in count() if (name := f"{FREED}{i}") not in taken)
