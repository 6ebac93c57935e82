"""Which layer, and which part of the training step, each node of a graph belongs to.

A band is a layer as the user wrote it; in it lie what goes forward, what comes backward, and the
update of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

from ..ir import Graph, Node

if TYPE_CHECKING:
    import networkx

PARTS = ("forward", "backward", "update")
Group = tuple[str, str]  # (band, part)


def groups_of(graph: Graph, g: networkx.DiGraph) -> dict[Node, Group]:
    """The band and part of every node. An update is with the layer whose parameter it makes."""
    import networkx

    locs = _locs(graph)
    updates = _update_locs(graph, locs)
    bands = {locs[n].removesuffix("'") for n in graph.nodes if locs[n] not in updates}
    owners: dict[Node, set[str]] = {}
    for name, output in graph.outputs.items():
        for n in networkx.ancestors(g, output) | {output}:
            owners.setdefault(n, set()).add(f"{name.split('.')[0]}.")
    groups = {}
    for n in graph.nodes:
        loc = locs[n]
        if loc in updates:
            own = [b for b in bands if len(owners[n]) == 1 and b.startswith(tuple(owners[n]))]
            groups[n] = (own[0] if own else loc, "update")
        else:
            groups[n] = (loc.removesuffix("'"), "backward" if loc.endswith("'") else "forward")
    return groups


def _locs(graph: Graph) -> dict[Node, str]:
    """The layer of each node; one without has that of an operand, or else of a reader."""
    locs = {n: n.loc for n in (*graph.inputs, *graph.nodes)}
    for n in graph.nodes:
        locs[n] = locs[n] or next((locs[x] for x in n.inputs if locs[x]), "")
    for n in reversed(graph.nodes):
        locs[n] = locs[n] or next((locs[u] for u in graph.users[n] if locs[u]), "")
    return locs


def _update_locs(graph: Graph, locs: Mapping[Node, str]) -> set[str]:
    """Where updates are made: after something of the backward, by what has no backward itself."""
    after: set[Node] = set()
    for n in graph.nodes:
        if locs[n].endswith("'") or any(x in after for x in n.inputs):
            after.add(n)
    found = {locs[n] for n in after if not locs[n].endswith("'")}
    return {loc for loc in found if f"{loc}'" not in locs.values()}


def band_order(g: networkx.DiGraph, groups: Mapping[Node, Group]) -> list[str]:
    """The bands as forward reaches their last node; a layer without forward by its number."""
    import networkx

    reached: dict[str, None] = {}
    for generation in networkx.topological_generations(g):
        for n in generation:
            if n in groups and groups[n][1] == "forward":
                reached.pop(groups[n][0], None)
                reached[groups[n][0]] = None
    order = list(reached)
    for band in dict.fromkeys(band for band, _ in groups.values()):
        if band not in order:
            later = [i for i, b in enumerate(order) if _number(b) > _number(band)]
            order.insert(later[0] if later else len(order), band)
    return order


def _number(band: str) -> float:
    """The number of a layer; losses and optimisers have none, and come after all layers."""
    number = band.split(".")[0]
    return int(number) if number.isdigit() else inf
