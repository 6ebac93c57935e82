"""order: an execution order with a low peak of live memory.

List scheduling: of the nodes whose operands are ready, the one that adds least to what is live, and
of equals the one that came first. A parameter's new value waits for every reader of the old one, so
that the plan can write it in place. Any order of a graph computes the same.
"""

from __future__ import annotations

from ..ir import Builder, Graph, Node
from ..ir.graph import result_types

VIEWS = ("reshape", "item")  # another name for a value that exists already


def order(graph: Graph, rows: int) -> Graph:
    """The graph, and the regions in it, with their nodes reordered, for a batch of `rows`."""
    graph = _order_regions(graph)
    waits = {n: set(n.inputs) - set(graph.inputs) for n in graph.nodes}
    _wait_for_old_readers(graph, waits)
    left = {n: len(users) for n, users in graph.users.items()}
    for n in graph.outputs.values():
        left[n] += 1  # an output is never freed
    index = {n: i for i, n in enumerate(graph.nodes)}
    dependents: dict[Node, list[Node]] = {n: [] for n in graph.nodes}
    for node, others in waits.items():
        for other in others:
            dependents[other].append(node)
    ready = [n for n in graph.nodes if not waits[n]]
    done: list[Node] = []
    while ready:
        node = min(ready, key=lambda n: (_growth(n, left, rows), index[n]))
        ready.remove(node)
        done.append(node)
        for x in set(node.inputs):
            left[x] -= 1
        for n in dependents[node]:
            waits[n].discard(node)
            if not waits[n]:
                ready.append(n)
    assert len(done) == len(graph.nodes), "nodes wait for one another"
    return Graph(graph.name, graph.inputs, tuple(done), graph.outputs)


def _growth(node: Node, left: dict[Node, int], rows: int) -> int:
    """Bytes that running `node` adds to what is live.

    A stored parameter that dies counts as freed although it is not in the arena: that draws an
    update forward, which frees its gradient.
    """
    made = 0 if node.op in VIEWS else _nbytes(node, rows)
    dying = [x for x in set(node.inputs) if left[x] == 1]
    return made - sum(_nbytes(x, rows) for x in dying)


def _nbytes(node: Node, rows: int) -> int:
    return sum(t.nbytes(rows) for t in result_types(node))


def _order_regions(graph: Graph) -> Graph:
    b = Builder()
    env = {n: b.clone(n, ()) for n in graph.inputs}
    for node in graph.nodes:
        attrs = dict(node.attrs)
        if node.op == "region":
            attrs["body"] = order(attrs["body"], attrs["tile"])
        with b.at(node.loc, node):
            env[node] = b.make(node.op, [env[x] for x in node.inputs], attrs)
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return b.graph(graph.name, [env[n] for n in graph.inputs], outputs)


def _wait_for_old_readers(graph: Graph, waits: dict[Node, set[Node]]) -> None:
    """Makes each node that gives an input's next value wait for those that read the present one.

    Where a reader needs the new value, that is impossible; the plan then keeps both.
    """
    for old in graph.inputs:
        new = graph.outputs.get(old.name)
        while new is not None and new.op in VIEWS:
            new = new.inputs[0]
        if new is None or new.op == "input":
            continue
        readers = _readers(graph, old) - {new}
        if not any(_needs(reader, new, waits) for reader in readers):
            waits[new] |= readers


def _readers(graph: Graph, node: Node) -> set[Node]:
    """The nodes that read a value, under whatever name."""
    found: set[Node] = set()
    for user in graph.users[node]:
        found |= _readers(graph, user) if user.op in VIEWS else {user}
    return found


def _needs(node: Node, other: Node, waits: dict[Node, set[Node]]) -> bool:
    """Whether `node` waits for `other`, directly or through others."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if n is other:
            return True
        if n not in seen:
            seen.add(n)
            stack.extend(waits[n])
    return False
