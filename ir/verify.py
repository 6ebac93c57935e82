"""The verifier: types inferred anew, values made before they are used, donation well typed."""

from __future__ import annotations

from .errors import CompileError, VerifyError
from .graph import Graph, Node
from .op import OPS


def verify(graph: Graph) -> None:
    """VerifyError, with the node and the graph, if `graph` breaks a rule of the IR."""
    seen: set[Node] = set()
    for node in graph.inputs:
        _require(node.op == "input", graph, node, "stands among the inputs but is none")
        seen.add(node)
    names = [n.name for n in graph.inputs]
    _require(len(names) == len(set(names)), graph, None, f"two inputs share a name: {names}")
    for node in graph.nodes:
        _require(node not in seen, graph, node, "is executed twice")
        for x in node.inputs:
            _require(x in seen, graph, node, f"uses {x!r} before it is made")
        _require(node.op in OPS, graph, node, f"is no op: none is called {node.op!r}")
        _require(node.op != "input", graph, node, "is an input, but not among the inputs")
        try:
            OPS[node.op].complete(node.attrs)
            inferred = OPS[node.op].result([x.type for x in node.inputs], node.attrs)
        except (CompileError, TypeError) as error:
            raise _error(graph, node, f"does not fit its inputs: {error}") from error
        _require(inferred == node.type, graph, node, f"has type {node.type}, inferred {inferred}")
        if "body" in node.attrs:
            verify(node.attrs["body"])
        seen.add(node)
    for name, node in graph.outputs.items():
        _require(node in seen, graph, node, f"is output {name!r} but is never made")
        if name in names:
            old = graph.input(name)
            _require(old.type == node.type, graph, node, f"replaces {name!r} of type {old.type}")


def _require(holds: bool, graph: Graph, node: Node | None, message: str) -> None:
    if not holds:
        raise _error(graph, node, message)


def _error(graph: Graph, node: Node | None, message: str) -> VerifyError:
    who = f"{node!r} " if node else ""
    return VerifyError(f"graph {graph.name}: {who}{message}\n{graph}")
