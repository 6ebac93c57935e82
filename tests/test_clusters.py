"""Clusters: two groups are joined just where the graph of groups has no cycle afterwards."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from random_graphs import random_graph

from gemmc.ir import Node
from gemmc.passes.clusters import Clusters

PAIRS = 100  # that are tried on a graph, one after the other


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_joined_just_where_they_make_no_cycle(seed: int) -> None:
    """A fifth of all nodes are made anew where they are needed, and in no group."""
    graph, rng = random_graph(seed), np.random.default_rng(seed)
    anew = {n for n in graph.nodes if rng.random() < 0.2}
    nodes = [n for n in graph.nodes if n not in anew]
    clusters = Clusters(graph, anew.__contains__)
    edges = [(x, n) for n in nodes for x in clusters.sources(n) if x.op != "input"]
    group = {n: n for n in nodes}  # a node stands for each

    def acyclic(joined: dict[Node, Node]) -> bool:
        ways = {(joined[x], joined[n]) for x, n in edges if joined[x] is not joined[n]}
        return networkx.is_directed_acyclic_graph(networkx.DiGraph(ways))

    for _ in range(PAIRS):
        a, b = (nodes[i] for i in rng.choice(len(nodes), 2, replace=False))
        joined = {n: group[b] if g is group[a] else g for n, g in group.items()}
        clusters.merge(a, b, lambda union: "")
        assert (clusters.group(a) is clusters.group(b)) == acyclic(joined)
        if acyclic(joined):
            group = joined
