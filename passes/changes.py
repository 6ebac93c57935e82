"""changes: what each pass changed, as a diff in which a value keeps its name throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import unified_diff
from itertools import count

from ..ir import Graph, Node
from ..ir.text import print_graph
from .provenance import Change

CONTEXT = 2  # unchanged lines shown around a change
Names = dict[Node, str]


def diffs(stages: Mapping[str, Graph]) -> Iterator[tuple[str, str]]:
    """(stage, unified diff against the stage before) for each stage that differs from that.

    A node has the name of the one that it was made from if that has the same op. So the lines of a
    diff are what was made, dropped, moved or given other operands, and no mere renumbering.
    """
    (last, before), *later = stages.items()
    names = {n: str(i) for i, n in enumerate(before.nodes)}
    fresh = count(len(names))
    for stage, after in later:
        renamed = _follow(Change(before, after), names, fresh)
        old, new = print_graph(before, names), print_graph(after, renamed)
        lines = unified_diff(old.split("\n"), new.split("\n"), last, stage, n=CONTEXT, lineterm="")
        if text := "\n".join(lines):
            yield stage, text
        last, before, names = stage, after, renamed


def _follow(change: Change, names: Names, fresh: Iterator[int]) -> Names:
    """The names of the nodes after a change: those of their sources, each once, or fresh ones."""
    found: Names = {}
    taken: set[str] = set()
    for node in change.after.nodes:
        sources = (s for s in change.sources(node) if s.op == node.op and s in names)
        kept = next((names[s] for s in sources if names[s] not in taken), None)
        found[node] = kept or str(next(fresh))
        taken.add(found[node])
    return found
