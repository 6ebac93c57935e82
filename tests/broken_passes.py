"""What tests break passes with: a graph in which some nodes are replaced by others."""

from __future__ import annotations

from collections.abc import Callable

from gemmc.ir import Builder, Graph, Node

Change = Callable[[Builder, Node], Node | None]


def rebuilt(graph: Graph, change: Change) -> Graph:
    """The graph with each node that `change` has another one for replaced by that."""
    b = Builder()
    env = {n: b.clone(n, ()) for n in graph.inputs}
    for n in graph.nodes:
        made = b.clone(n, [env[x] for x in n.inputs])
        env[n] = change(b, made) or made
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return b.graph(graph.name, [env[n] for n in graph.inputs], outputs)
