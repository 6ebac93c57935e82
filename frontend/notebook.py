"""An executable in a notebook: its model, the compiler's stages, and its memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from ..ir.html import graph_html
from .summary import NUMBERS, layer_rows

if TYPE_CHECKING:
    from .executable import Executable


def executable_html(executable: Executable) -> str:
    """The layers as a table, then, to unfold, each stage of the main program and its plan."""
    compiled = executable.compiled()
    plan, seconds = compiled.plan, compiled.seconds
    title = (
        f"<b>{escape(plan.graph.name)}</b> on the {executable.runtime} runtime, up to {plan.rows} "
        f"rows: {len(list(plan.steps()))} steps, arena {plan.arena_bytes:,} bytes"
    )
    stages = (
        f"<li>{name} ({1e3 * seconds[name]:.1f} ms) {graph_html(graph)}</li>"
        for name, graph in compiled.stages.items()
    )
    parts = {
        f"{len(compiled.stages)} stages, {1e3 * sum(seconds.values()):.0f} ms": _list(stages),
        "memory": f"<pre>{escape(plan.report())}</pre>",
    }
    unfolding = (
        f"<details><summary>{k}</summary>{content}</details>" for k, content in parts.items()
    )
    return f"<div><p>{title}</p>{_layers(executable)}{''.join(unfolding)}</div>"


def _layers(executable: Executable) -> str:
    rows = [row.cells for row in layer_rows(executable.model, executable.input_shape)]
    head = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, str]) -> str:
    sides = {c: "right" if c in NUMBERS else "left" for c in row}
    return "".join(
        f'<td style="text-align:{sides[c]}">{escape(text)}</td>' for c, text in row.items()
    )


def _list(items: Iterable[str]) -> str:
    return f"<ol>{''.join(items)}</ol>"
