"""Outlining: groups of nodes become nodes that carry a body graph, `fused` or `region`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir import Builder, Graph, Node

Make = Callable[[list[Node]], tuple[str, Mapping[str, Any]] | None]


def outline(
    graph: Graph, groups: Sequence[Sequence[Node]], make: Make, absorbed: Callable[[Node], bool]
) -> Graph:
    """`graph` with each group for which `make` gives (op, attributes) outlined into one such node.

    Operands for which `absorbed` holds are repeated inside each body that reads them; those that
    nothing else needs vanish from the graph outside. `groups` must be in dependency order. Where
    there is nothing to outline, the graph comes back as it is.
    """
    blocks = [make(list(group)) for group in groups]
    if not any(blocks):
        return graph
    b = Builder()
    env = {n: b.clone(n, ()) for n in graph.inputs}
    outputs = set(graph.outputs.values())
    for group, made in zip(groups, blocks, strict=True):
        if made is None:
            for node in group:
                env[node] = b.clone(node, [_outside(b, env, x) for x in node.inputs])
            continue
        body, operands, results = _body(graph, group, absorbed, outputs)
        with b.at(_loc(group)):
            arguments = [_outside(b, env, x) for x in operands]
            block = b.make(made[0], arguments, {**made[1], "body": body})
            for i, node in enumerate(results):
                env[node] = block if len(results) == 1 else b.item(block, index=i)
    named = {name: _outside(b, env, n) for name, n in graph.outputs.items()}
    return b.graph(graph.name, [env[n] for n in graph.inputs], named)


def _outside(b: Builder, env: dict[Node, Node], node: Node) -> Node:
    """`node` in the new graph; an absorbed operand that is needed outside as well is made here."""
    if node not in env:
        env[node] = b.clone(node, [_outside(b, env, x) for x in node.inputs])
    return env[node]


def _body(
    graph: Graph, group: Sequence[Node], absorbed: Callable[[Node], bool], outputs: set[Node]
) -> tuple[Graph, list[Node], list[Node]]:
    """(a group's body, the outer nodes that are its operands, the nodes that are its results)."""
    b, members = Builder(), set(group)
    env: dict[Node, Node] = {}
    operands: list[Node] = []

    def inside(node: Node) -> Node:
        if node not in env:
            if node in members or (absorbed(node) and node.op != "input"):
                env[node] = b.clone(node, [inside(x) for x in node.inputs])
            else:
                operands.append(node)
                env[node] = b.input(f"x{len(operands) - 1}", node.tensor)
        return env[node]

    def read_outside(node: Node) -> bool:
        """Whether something outside needs the node, other than to make it anew inside a body."""
        if node in outputs:
            return True
        users = graph.users[node]
        return any(read_outside(u) if absorbed(u) else u not in members for u in users)

    for node in group:
        inside(node)
    results = [n for n in group if read_outside(n)]
    named = {f"y{i}": env[n] for i, n in enumerate(results)}
    return b.graph("body", [env[x] for x in operands], named), operands, results


def _loc(group: Sequence[Node]) -> str:
    """The layer of the product in a group, where most of the work is; else that of its result."""
    products = [n for n in group if "form" in n.attrs]
    return next((n.loc for n in (*products, *reversed(group)) if n.loc), "")
