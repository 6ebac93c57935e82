"""The stages of a program as the page shows them: drawn nodes, their texts, what each pass did.

What is drawn is what runs: a region's steps stand in its place, a `fused` node is one box. Every
drawn node knows which nodes of the stage before it was made `from`, or is the gradient `of`, and
which steps of the plan it becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import pairwise
from typing import Any

from ...ir import Graph, Node
from ...ir.graph import result_types
from ...passes.provenance import Change, all_nodes
from ..bands import Group, band_order, groups_of

STATEMENT = re.compile(r" *%[\w.]+: .* = \w")  # the first line of a node in a graph's text
UNSAID = ("broadcast", "full", "item")  # ops in a body that its label leaves out
Told = dict[str, Any]  # what the page is told of a node, or of a stage


@dataclass(frozen=True)
class Stage:
    """A graph after a pass, and the stage before it."""

    name: str
    graph: Graph
    before: Stage | None = None

    @cached_property
    def change(self) -> Change | None:
        """What the pass did; None for the first stage."""
        return Change(self.before.graph, self.graph) if self.before else None

    @cached_property
    def drawn(self) -> Graph:
        """The graph with each region's steps in its place; `origin` is the node drawn."""
        nodes: list[Node] = []
        env = _opened(self.graph, {n: n for n in self.graph.inputs}, nodes)
        outputs = {name: env[n] for name, n in self.graph.outputs.items()}
        return Graph(self.graph.name, self.graph.inputs, tuple(nodes), outputs)

    @cached_property
    def boxes(self) -> tuple[Node, ...]:
        """All that is drawn, inputs first: a node's number is its place in here."""
        return (*self.drawn.inputs, *self.drawn.nodes)

    @cached_property
    def ids(self) -> Mapping[Node, int]:
        """The number of each drawn node, of the node it stands for, and of all that is in that."""
        numbers = {n: i for i, n in enumerate(self.boxes)}
        for n, i in [*numbers.items()]:
            numbers[real_of(n)] = i
            for inner in inside(real_of(n)):
                numbers.setdefault(inner, i)
        return numbers

    @cached_property
    def groups(self) -> Mapping[Node, Group]:
        """The layer and the part of the training step of each drawn node."""
        return groups_of(self.drawn, self.drawn.to_networkx())

    @cached_property
    def names(self) -> Mapping[Node, str]:
        """The names of drawn nodes, as the text has them."""
        real = dict(_names(self.graph))
        return {n: n.name if n.op == "input" else real[real_of(n)] for n in self.boxes}

    @cached_property
    def lines(self) -> list[tuple[str, Node | None]]:
        """The lines of the text, each with the node whose statement begins there."""
        nodes, lines = all_nodes(self.graph), str(self.graph).split("\n")
        return [(line, next(nodes) if STATEMENT.match(line) else None) for line in lines]

    @cached_property
    def spans(self) -> Mapping[Node, tuple[int, int]]:
        """(first line, how many) of each node's text; a block ends as far in as it begins."""
        found = {}
        for start, (text, node) in enumerate(self.lines):
            if node is not None:
                close = text[: len(text) - len(text.lstrip())] + "}"
                end = start
                while "body" in node.attrs and self.lines[end][0] != close:
                    end += 1
                found[node] = (start, end - start + 1)
        return found


def stages_of(graphs: Mapping[str, Graph]) -> list[Stage]:
    """The stages of a program, each with the one before it."""
    found: list[Stage] = []
    for name, graph in graphs.items():
        found.append(Stage(name, graph, found[-1] if found else None))
    return found


def stages_data(stages: list[Stage], times: Mapping[Node, int], rows: int) -> list[Told]:
    """The stages for the page, in order; `times` are the plan's steps by the last stage's nodes."""
    nodes = [[_node(stage, n, rows) for n in stage.boxes] for stage in stages]
    for befores, (stage, afters) in zip(
        nodes, [*zip(stages, nodes, strict=True)][1:], strict=False
    ):
        _link(stage, befores, afters)
    for node, time in times.items():
        nodes[-1][stages[-1].ids[node]]["steps"] = [time]
    for befores, afters in reversed([*pairwise(nodes)]):
        _hand_back(befores, afters)
    return [
        {
            "name": stage.name,
            "bands": band_order(stage.drawn.to_networkx(), stage.groups),
            "lines": [text for text, _ in stage.lines],
            "diff": _diff(stage),
            "gone": _gone(stage, own),
            "nodes": own,
        }
        for stage, own in zip(stages, nodes, strict=True)
    ]


def _node(stage: Stage, n: Node, rows: int) -> Told:
    """What the page is told of a drawn node by itself."""
    band, part = stage.groups.get(n, ("", ""))
    return {
        "name": stage.names[n],
        "op": n.op,
        "label": _label(n),
        "type": str(n.type),
        "bytes": sum(t.nbytes(rows) for t in result_types(n)),
        "band": band,
        "part": part,
        "in": [stage.ids[x] for x in n.inputs],
        "lines": stage.spans.get(real_of(n), (0, 0)),
        "out": [name for name, output in stage.drawn.outputs.items() if output is n],
        "tile": _tile(stage, n),
        "state": "kept",
        "from": [],
        "of": [],
        "steps": [],
    }


def _label(node: Node) -> list[str]:
    """The ops in a node, one after another; the value of a constant."""
    if node.op == "full":
        return [f"{node.attrs['value']:g}"]
    if "body" not in node.attrs:
        return [node.op]
    return [n.op for n in node.attrs["body"].nodes if n.op not in UNSAID]


def _tile(stage: Stage, drawn: Node) -> int:
    """How many rows at a time a node is run on with others; 0 for one that is in no region."""
    region, inner, _ = stage.names[drawn].partition("/")
    return stage.graph.nodes[int(region)].attrs["tile"] if inner and drawn.op != "input" else 0


def _link(stage: Stage, befores: list[Told], afters: list[Told]) -> None:
    """Says what each node was made from, or is the gradient of, and whether it is still that."""
    assert stage.change is not None and stage.before is not None
    for node, told in zip(map(real_of, stage.boxes), afters, strict=True):
        gradient = stage.change.gradient(node)
        sources = sorted({stage.before.ids[x] for x in stage.change.sources(node)})
        told["of" if gradient else "from"] = sources
        moved = any(told["tile"] != befores[i]["tile"] for i in told["from"])
        if gradient or not sources:
            told["state"] = "new"
        elif moved or not stage.change.kept(node):
            told["state"] = "changed"


def _hand_back(befores: list[Told], afters: list[Told]) -> None:
    """Says which steps the nodes of a stage become: those of what was made from them."""
    for told in afters:
        for i in told["from"]:
            befores[i]["steps"] = sorted({*befores[i]["steps"], *told["steps"]})


def _gone(stage: Stage, nodes: list[Told]) -> list[int]:
    """The nodes of the stage before that nothing was made from."""
    used = {i for told in nodes for i in told["from"]}
    return [i for i in range(len(stage.before.boxes)) if i not in used] if stage.before else []


def _diff(stage: Stage) -> Told | None:
    """How the text of the stage before became this one's, as `codes` of difflib.

    The line of a node that was kept is the same, whatever number it has now; lines of kept nodes
    that `left` one place and `came` to another have moved.
    """
    if stage.before is None or stage.change is None:
        return None
    kept = stage.change.kept
    old = [node or text for text, node in stage.before.lines]
    new = [(kept(node) or node) if node else text for text, node in stage.lines]
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    gone = {i for tag, i, j, _, _ in codes if tag != "equal" for i in range(i, j)}
    made = {i for tag, _, _, i, j in codes if tag != "equal" for i in range(i, j)}
    moved = {old[i] for i in gone if isinstance(old[i], Node)} & {new[i] for i in made}
    return {
        "codes": codes,
        "left": [i for i in gone if old[i] in moved],
        "came": [i for i in made if new[i] in moved],
    }


def inside(node: Node) -> Iterator[Node]:
    """Everything in the body of a node, if it has one."""
    return all_nodes(node.attrs["body"]) if "body" in node.attrs else iter(())


def real_of(drawn: Node) -> Node:
    """The node of the stage's graph that a drawn node stands for."""
    return drawn if drawn.op == "input" or drawn.origin is None else drawn.origin


def _opened(graph: Graph, env: dict[Node, Any], nodes: list[Node]) -> dict[Node, Any]:
    """Adds the drawn nodes of a graph, regions opened, to `nodes`; what each node became."""
    for node in graph.nodes:
        operands = tuple(env[x] for x in node.inputs)
        if node.op == "region":
            body = node.attrs["body"]
            inner = _opened(body, dict(zip(body.inputs, operands, strict=True)), nodes)
            results = tuple(inner[n] for n in body.outputs.values())
            env[node] = results if len(results) > 1 else results[0]
        elif node.op == "item" and node.inputs[0].op == "region":
            env[node] = operands[0][node.attrs["index"]]
        else:
            env[node] = Node(node.op, operands, node.attrs, node.type, node.loc, node)
            nodes.append(env[node])
    return env


def _names(graph: Graph, prefix: str = "") -> Iterator[tuple[Node, str]]:
    """The names of nodes in the text, those in a region behind its own: "12/3"."""
    for i, node in enumerate(graph.nodes):
        yield node, f"{prefix}{i}"
        if node.op == "region":
            yield from _names(node.attrs["body"], f"{prefix}{i}/")
