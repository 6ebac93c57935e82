"""A graph in a notebook: its text, with ops in bold, types and layers in italics."""

from __future__ import annotations

import re
from html import escape

from .graph import Graph
from .text import print_graph

LONG = 40  # lines; a longer text is shown when asked for
STATEMENT = re.compile(r"^(\s*%[\w.]+): (.*?) = (\w+)(.*?)(  # .*)?$")


def graph_html(graph: Graph) -> str:
    """The text of a graph as HTML that unfolds; it brings no style or script of its own."""
    text = print_graph(graph)
    lines = "\n".join(map(_line, text.split("\n")))
    unfolded = " open" if text.count("\n") < LONG else ""
    title = (
        f"graph <b>{escape(graph.name)}</b>: {len(graph.inputs)} inputs, {len(graph.nodes)} nodes"
    )
    pre = f'<pre style="line-height:1.4">{lines}</pre>'
    return f"<details{unfolded}><summary>{title}</summary>{pre}</details>"


def _line(line: str) -> str:
    match = STATEMENT.match(line)
    if not match:
        return escape(line)
    name, type_text, op, rest, loc = (escape(part or "") for part in match.groups())
    return f"{name}: <i>{type_text}</i> = <b>{op}</b>{rest}" + (f"<i>{loc}</i>" if loc else "")
