"""Nodes, graphs and the builder. A node is its value: immutable, made once, dropped when unused.

The builder interns: asking twice for the same op on the same inputs returns the same node, so
common subexpressions never exist twice. A graph keeps only what its outputs need, so dead code
never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import CompileError
from .op import OPS
from .types import TensorType, TupleType, Type

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Node:
    """One op applied to `inputs`; equal only to itself. `match` it as `Node(op, inputs, attrs)`."""

    op: str
    inputs: tuple[Node, ...]
    attrs: Mapping[str, Any]
    type: Type
    loc: str = ""  # the layer the user wrote, "3.Conv2d", with a trailing ' for its backward
    origin: Node | None = None  # what a pass made it from: see passes/provenance.py

    @property
    def tensor(self) -> TensorType:
        """The type of a node that has one result."""
        assert isinstance(self.type, TensorType), f"{self.op} has several results"
        return self.type

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def name(self) -> str:
        """The name of an input."""
        return self.attrs["name"]

    @cached_property
    def written(self) -> str:
        """The attributes as text, which tells apart what compares equal."""
        return written(self.attrs)

    def __repr__(self) -> str:
        label = f" {self.name}" if self.op == "input" else ""
        return f"<{self.op}{label}: {self.type}{'  # ' + self.loc if self.loc else ''}>"


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A function: `inputs` in, named `outputs` out, `nodes` between them in execution order.

    An output that carries the name of an input is that input's next value (a parameter updated in
    place by the plan: donation). `str(graph)` is its text, which `parse` reads back.
    """

    name: str
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, Node]

    def __str__(self) -> str:
        from .text import print_graph  # the printer needs Graph

        return print_graph(self)

    __repr__ = __str__  # so that a body nested in an attribute is compared by its text

    def _repr_html_(self) -> str:
        from .html import graph_html  # the printer needs Graph

        return graph_html(self)

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        """For each node, the nodes that read it, in execution order."""
        found: dict[Node, list[Node]] = {n: [] for n in (*self.inputs, *self.nodes)}
        for node in self.nodes:
            for x in dict.fromkeys(node.inputs):
                found[x].append(node)
        return {n: tuple(u) for n, u in found.items()}

    def input(self, name: str) -> Node:
        """The input called `name`; KeyError if there is none."""
        return {n.name: n for n in self.inputs}[name]

    def to_networkx(self) -> networkx.DiGraph:
        """The graph as a networkx.DiGraph of nodes, with op, type and loc; edges flow."""
        import networkx  # 0.1 s, and few callers need it

        g = networkx.DiGraph(name=self.name)
        for n in (*self.inputs, *self.nodes):
            g.add_node(n, op=n.op, type=str(n.type), loc=n.loc)
            g.add_edges_from((x, n) for x in n.inputs)
        return g


class Builder:
    """Makes nodes: `b.add(x, y)`, `b.sum(x, axes=(0,))`, any registered op by its name.

    Types are inferred, attributes completed with defaults, equal nodes made once. `b.at(loc)` sets
    the layer that nodes made inside it belong to, `b.at(loc, node)` also what they are made from.
    """

    def __init__(self) -> None:
        self._interned: dict[tuple, Node] = {}
        self.loc = ""
        self.origin: Node | None = None

    def __getattr__(self, op: str) -> Callable[..., Node]:
        if op not in OPS:
            raise AttributeError(f"no op is called {op!r}")
        return lambda *inputs, **attrs: self.make(op, inputs, attrs)

    def make(self, op: str, inputs: Sequence[Node], attrs: Mapping[str, Any]) -> Node:
        """The node of `op`; CompileError where the shape rule refuses."""
        spec = OPS[op]
        full = spec.complete(attrs)
        node_type = spec.result([x.type for x in inputs], full)
        return self._intern(op, tuple(inputs), full, node_type, written(full))

    def input(self, name: str, node_type: TensorType) -> Node:
        """An input of the graph under construction."""
        attrs = {"name": name}
        return self._intern("input", (), attrs, node_type, written(attrs))

    def clone(self, node: Node, inputs: Sequence[Node]) -> Node:
        """The same op, attributes and loc on other inputs; an input is made anew."""
        with self.at(node.loc, node):
            if node.op == "input":
                return self.input(node.name, node.tensor)
            if all(x.type == y.type for x, y in zip(inputs, node.inputs, strict=True)):
                return self._intern(node.op, tuple(inputs), node.attrs, node.type, node.written)
            return self.make(node.op, inputs, node.attrs)

    def inline(self, graph: Graph, arguments: Sequence[Node]) -> dict[str, Node]:
        """The nodes of `graph` on `arguments` (one for each input); its outputs by name."""
        if len(arguments) != len(graph.inputs):
            raise CompileError(f"{graph.name}: takes {len(graph.inputs)}, got {len(arguments)}")
        env = dict(zip(graph.inputs, arguments, strict=True))
        for node in graph.nodes:
            env[node] = self.clone(node, [env[x] for x in node.inputs])
        return {name: env[node] for name, node in graph.outputs.items()}

    def graph(self, name: str, inputs: Sequence[Node], outputs: Mapping[str, Node]) -> Graph:
        """The graph of what `outputs` need, in the order in which it was made."""
        needed = reachable(outputs.values())
        missing = [n.name for n in needed if n.op == "input" and n not in set(inputs)]
        assert not missing, f"{name}: reads inputs it does not have: {missing}"
        nodes = tuple(n for n in self._interned.values() if n.op != "input" and n in needed)
        assert len(nodes) == sum(n.op != "input" for n in needed), "nodes of another builder"
        return Graph(name, tuple(inputs), nodes, MappingProxyType(dict(outputs)))

    @contextmanager
    def at(self, loc: str, origin: Node | None = None) -> Iterator[None]:
        """Nodes made inside belong to `loc`, and are made from `origin`."""
        before = self.loc, self.origin
        self.loc, self.origin = loc, origin
        try:
            yield
        finally:
            self.loc, self.origin = before

    def _intern(
        self,
        op: str,
        inputs: tuple[Node, ...],
        attrs: Mapping[str, Any],
        node_type: Type,
        written: str,
    ) -> Node:
        key = (op, *map(id, inputs), written, node_type)
        if key not in self._interned:
            place = (self.loc, self.origin)
            self._interned[key] = Node(op, inputs, MappingProxyType(dict(attrs)), node_type, *place)
        return self._interned[key]


def written(attrs: Mapping[str, Any]) -> str:
    """Attributes as text: 0.0 == -0.0 and 1 == 1.0 == True, but they are different attributes."""
    return repr(sorted(attrs.items()))


def reachable(outputs: Sequence[Node] | Any) -> set[Node]:
    """All nodes that `outputs` need, themselves included."""
    seen: set[Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.inputs)
    return seen


def result_types(node: Node) -> tuple[TensorType, ...]:
    """The types of a node's results, one or several."""
    return node.type.items if isinstance(node.type, TupleType) else (node.tensor,)
