"""A program as text: its graph, and below it what passes need to know besides.

    graph step(%x: f32[N,2], %0.bias: f32[2], ...) {
      ...
    }
    // rows: 32
    // wrt: ('0.bias',)
    // storage: {'0.bias': None, '0.weight': ((3, 2), (1, 0))}
    // target: {'generated': True, 'shards': 4}
    // update of 0.bias:
    graph update(%p: f32[2], %g: f32[2], ...) {
      ...
    }

All that stands below the graph may be left out: then batches have up to 32 rows, the graph is
differentiated by its float inputs that have no rows, and their gradients are outputs. Other lines
that begin with // are comments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..ir import CompileError, Graph, parse
from ..ir.types import FLOATS
from .layout import Layout
from .pipeline import Program
from .target import CPU, Target

ROWS = 32
KINDS: Mapping[str, tuple[type, str]] = {
    "rows": (int, "an integer >= 1"),
    "wrt": (tuple, "a tuple of names"),
    "storage": (dict, "a dict of forms"),
    "target": (dict, "a dict of the fields of a Target"),
}
_FACT = re.compile(rf"// ({'|'.join(KINDS)}): (.*)")
_UPDATE = re.compile(r"// update of ([\w.]+):")


def print_program(program: Program) -> str:
    """The text of a program; `parse_program` gives back one that prints the same."""
    storage = {name: form and (form.factored, form.perm) for name, form in program.storage.items()}
    default, target = asdict(Target()), asdict(program.target)
    changed = {key: value for key, value in target.items() if value != default[key]}
    facts = {"rows": program.rows, "wrt": program.wrt, "storage": storage, "target": changed}
    lines = [str(program.graph), *(f"// {key}: {value!r}" for key, value in facts.items())]
    for name, update in program.updates.items():
        lines += [f"// update of {name}:", str(update)]
    return "\n".join(lines)


def parse_program(text: str, target: Target = CPU) -> Program:
    """The program that prints as `text`; CompileError names the line that is not understood.

    It is for `target` if the text does not say for which.
    """
    lines = text.split("\n")
    updates = {i: match[1] for i, line in enumerate(lines) if (match := _UPDATE.match(line))}
    starts = [0, *updates]
    graphs = [_graph(lines, *span) for span in zip(starts, [*updates, len(lines)], strict=True)]
    facts = dict(_facts(lines))
    try:
        storage = {k: form and Layout(*form) for k, form in facts.get("storage", {}).items()}
        target = Target(**facts["target"]) if "target" in facts else target
    except TypeError as error:
        raise CompileError(f"IR text: storage or target: {error}") from error
    wrt = facts.get("wrt", _parameters(graphs[0]))
    names = [n.name for n in graphs[0].inputs]
    if unknown := [name for name in wrt if name not in names]:
        raise CompileError(f"IR text: wrt: got {unknown}, expected names of inputs: {names}")
    named = dict(zip(updates.values(), graphs[1:], strict=True))
    return Program(graphs[0], facts.get("rows", ROWS), wrt, named, storage, target)


def _graph(lines: Sequence[str], start: int, end: int) -> Graph:
    """The graph in lines from `start` to `end`; errors name the line as it is in the whole text."""
    own = ("" if line.startswith("//") else line for line in lines[start:end])
    return parse("\n" * start + "\n".join(own))


def _parameters(graph: Graph) -> tuple[str, ...]:
    inputs = (n for n in graph.inputs if n.dtype in FLOATS and not n.tensor.per_row)
    return tuple(n.name for n in inputs)


def _facts(lines: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        if match := _FACT.fullmatch(line):
            yield match[1], _literal(number, match[1], match[2])


def _literal(number: int, key: str, text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = None
    kind, wanted = KINDS[key]
    if type(value) is not kind or (isinstance(value, int) and value < 1):
        raise CompileError(f"IR text, line {number}: {key}: got {text}, expected {wanted}")
    return value
