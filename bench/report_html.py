"""`report.html`: tables and figures of saved results on one page that needs nothing else.

No script, no network, figures as SVG in the page; light or dark as the reader's system is.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..frontend.figures_style import require_matplotlib, save
from ..ir import DataError
from .report_parts import Drawing, Section, Table
from .report_sections import sections
from .results import Report
from .svg import inline

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #e2e2e2; --warn: #fff3d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dcdcdc; --paper: #1b1d20; --line: #3a3d42; --warn: #4a3a12; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h1 code { font-size: inherit; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; }
pre { font: 12.5px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, monospace; }
.table { overflow-x: auto; max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--paper); font-weight: 600; }
th:first-child, td:first-child, .words th:last-child, .words td:last-child { text-align: left; }
.words td:last-child { white-space: normal; min-width: 14rem; }
.warning { background: var(--warn); padding: .4rem .8rem; border-radius: .3rem; margin: .4rem 0; }
figure { margin: 1.5rem 0; } figcaption { font-size: 13px; opacity: .8; }
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-family: "DejaVu Sans", Verdana, sans-serif; }
@media print {
  body { max-width: none; } .table { max-height: none; } figure { break-inside: avoid; }
}
"""


def write(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Writes report.html and its figures as PNGs to `folder`; the paths, the page first.

    CompileError where matplotlib is missing; DataError where `folder` cannot be written to.
    """
    require_matplotlib()
    parts = _with_own_names([sections(report) for report in reports])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "report.html"
        page.write_text(render(reports, parts), encoding="utf-8")
        drawn = [d for part in parts for section in part for d in section.drawings]
        return [page, *(save(folder, d.name, d.ax) for d in drawn)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to: {error}") from error


def render(reports: Sequence[Report], parts: Sequence[Sequence[Section]]) -> str:
    """The page of reports, each with its sections."""
    body = [_report(report, part) for report, part in zip(reports, parts, strict=True)]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,"><title>gemmc bench</title><style>{STYLE}</style>',
            "</head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _with_own_names(parts: Sequence[Sequence[Section]]) -> list[list[Section]]:
    """The same sections; of drawings of one name, the second and later ones get a number."""
    seen: Counter[str] = Counter()

    def own(drawing: Drawing) -> Drawing:
        seen[drawing.name] += 1
        count = seen[drawing.name]
        return drawing if count == 1 else replace(drawing, name=f"{drawing.name}_{count}")

    return [[replace(s, drawings=tuple(map(own, s.drawings))) for s in part] for part in parts]


def _report(report: Report, part: Sequence[Section]) -> str:
    head = f"<h1><code>{_text(report.command)}</code></h1><p>{_text(report.date)}</p>"
    facts, found = str(report.machine).split("\n"), report.machine.findings
    machine = "\n".join(line for line in facts if not line.startswith("!"))
    return "\n".join([head, f"<pre>{_text(machine)}</pre>", *_warned(found), *map(_section, part)])


def _section(section: Section) -> str:
    title = f"<h2>{_text(section.title)}</h2>"
    lines = f"<p>{'<br>'.join(map(_text, section.lines))}</p>"
    figures, tables = map(_figure, section.drawings), map(_table, section.tables)
    parts = [title, *_warned(section.warnings), lines, *tables, *figures]
    return f"<section>{''.join(parts)}</section>"


def _warned(warnings: Sequence[str]) -> list[str]:
    return [f'<p class="warning">{_text(warning)}</p>' for warning in warnings]


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in table.head)
    rows = ("".join(f"<td>{_text(value)}</td>" for value in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    words = ' class="words"' if table.ends_in_words else ""
    return f'<div class="table"><table{words}><tr>{head}</tr>{body}</table></div>'


def _figure(drawing: Drawing) -> str:
    picture = inline(drawing.ax, drawing.name, drawing.caption)
    return f"<figure>{picture}<figcaption>{_text(drawing.caption)}</figcaption></figure>"


def _text(text: str) -> str:
    return html.escape(text)
