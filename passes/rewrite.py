"""The driver of rewrite rules: rebuild a graph node by node, offering each new node to the rules.

A rule is a function of a builder and a node; it returns a node of the same type and value, or None.
Its docstring reads `before -> after`, with the condition under which it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir import Builder, Graph, Node

Rule = Callable[[Builder, Node], Node | None]
Rules = Mapping[str, Sequence[Rule]]  # op -> the rules that look at nodes of that op

# Every rule makes a graph smaller or moves an op towards the inputs: few sweeps are needed.
MAX_SWEEPS = 20


def rewrite(graph: Graph, rules: Rules) -> Graph:
    """The graph after all rules, applied until none fires."""
    for _ in range(MAX_SWEEPS):
        graph, fired = sweep(graph, rules)
        if not fired:
            return graph
    raise AssertionError(f"rules do not settle on\n{graph}")


def sweep(graph: Graph, rules: Rules) -> tuple[Graph, bool]:
    """The graph after each node was offered once to its rules, and whether any of them fired.

    Nodes that rules make are offered too.
    """
    b, fired = Builder(), False
    env = {n: b.clone(n, ()) for n in graph.inputs}
    for node in graph.nodes:
        same = b.clone(node, [env[x] for x in node.inputs])
        env[node] = _apply(b, same, rules)
        fired |= env[node] is not same
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return b.graph(graph.name, [env[n] for n in graph.inputs], outputs), fired


def _apply(b: Builder, node: Node, rules: Rules) -> Node:
    for rule in rules.get(node.op, ()):
        with b.at(node.loc, node):
            new = rule(b, node)
        if new is not None and new is not node:
            assert new.type == node.type, f"{rule.__name__}: {node!r} became {new!r}"
            return _apply(b, new, rules)
    return node
