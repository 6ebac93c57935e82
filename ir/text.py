"""The text form of a graph: what `print(graph)` shows and `parse` reads back.

    graph step(%x: f32[N,4], %0.weight: f32[3,4]) {
      %0: f32[N,3] = matmul %x, %0.weight {transpose_b=True}  # 0.Linear
      %1: f32[N,3] = fused %0 (%a: f32[N,3]) {  # 1.ReLU
        %0: f32[N,3] = relu %a
        return y=%0
      }
      return y=%1
    }

Grammar, a statement a line:

    graph     = "graph" name block
    block     = "(" [%name ":" type {"," %name ":" type}] ")" "{" {statement} return "}"
    statement = %name ":" type "=" op [%name {"," %name}] [attrs] [block] ["#" loc]
    attrs     = "{" key "=" literal {"," key "=" literal} "}"        literals of Python, N, inf, nan
    return    = "return" name "=" %name {"," name "=" %name}

Attributes that have their default value are left out. Names inside a nested block are its own. A
line that ends with a comma goes on in the next one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import CompileError
from .graph import Builder, Graph, Node
from .op import OPS, REQUIRED
from .types import N, TensorType, Type, parse_type

WIDTH = 80  # columns of a list of inputs or results
SHOWN = 200  # characters of a line that is not understood: it may be a whole binary file

_TYPE = r"\([^()]*\)|\w+\[[^\]]*\]"
_INPUT = rf"%([\w.]+): ({_TYPE})"
_STATEMENT = re.compile(
    rf"%(?P<name>[\w.]+): (?P<type>{_TYPE}) = (?P<op>\w+)(?P<args>(?:,? %[\w.]+)*)"
    r"(?: \{(?P<attrs>[^{}]*)\})?(?: \((?P<block>.*)\) \{)?(?:  # (?P<loc>.*))?"
)
_NAMES = {"N": N, "inf": float("inf"), "nan": float("nan")}


def print_graph(graph: Graph, names: Mapping[Node, str] | None = None) -> str:
    """The text of a graph; `parse` gives back a graph that prints the same.

    `names` has a name for each node; without it they are numbered in execution order.
    """
    return f"graph {graph.name}{_print_block(graph, '', names)}"


def parse(text: str) -> Graph:
    """The graph that prints as `text`; CompileError names the line that is not understood."""
    lines = _Lines(text)
    header = lines.next()
    match = re.fullmatch(r"graph ([\w.-]+)\((.*)\) \{", header)
    if not match:
        raise lines.error("'graph name(%x: f32[N,4]) {'")
    graph = _parse_block(lines, match[1], match[2])
    if lines.rest():
        raise lines.error("the end of the text")
    return graph


def print_attr(value: Any) -> str:
    """An attribute as a literal that the parser reads back."""
    return repr(value)


def _print_block(graph: Graph, indent: str, given: Mapping[Node, str] | None = None) -> str:
    names = {n: n.attrs.get("name", "?") for n in graph.inputs}  # broken graphs print as well
    names.update(given or {n: str(i) for i, n in enumerate(graph.nodes)})
    inputs = [f"%{names[n]}: {n.type}" for n in graph.inputs]
    lines = [f"({_listed(inputs, indent)}) {{"]
    for node in graph.nodes:
        lines.append(f"{indent}  {_print_statement(node, names, indent + '  ')}")
    results = _listed([f"{key}=%{names.get(n, '?')}" for key, n in graph.outputs.items()], indent)
    return "\n".join([*lines, f"{indent}  return {results}", f"{indent}}}"])


def _listed(items: Sequence[str], indent: str) -> str:
    """Items with commas between them, broken into lines of about WIDTH."""
    text = line = ""
    for item in items:
        if line and len(line) + len(item) > WIDTH:
            text, line = f"{text}{line},\n{indent}    ", ""
        line += f", {item}" if line else item
    return text + line


def _print_statement(node: Node, names: dict[Node, str], indent: str) -> str:
    defaults = OPS[node.op].attrs if node.op in OPS else {}
    shown = {k: v for k, v in node.attrs.items() if repr(v) != repr(defaults.get(k, REQUIRED))}
    body = shown.pop("body", None)
    text = f"%{names[node]}: {node.type} = {node.op}"
    if node.inputs:
        text += " " + ", ".join(f"%{names.get(x, '?')}" for x in node.inputs)
    if shown:
        text += " {" + ", ".join(f"{k}={print_attr(v)}" for k, v in shown.items()) + "}"
    loc = f"  # {node.loc}" if node.loc else ""
    if body is None:
        return text + loc
    header, _, rest = _print_block(body, indent).partition("{\n")
    return f"{text} {header}{{{loc}\n{rest}"


class _Lines:
    """The lines of a text that are not empty, with the number of the last one read."""

    def __init__(self, text: str) -> None:
        self._lines: list[tuple[int, str]] = []
        self._at = -1
        for number, line in enumerate(text.split("\n"), 1):
            if self._lines and self._lines[-1][1].endswith(","):
                self._lines[-1] = (number, f"{self._lines[-1][1]} {line.strip()}")
            elif line.strip():
                self._lines.append((number, line.strip()))

    def next(self) -> str:
        self._at += 1
        if self._at == len(self._lines):
            raise CompileError("IR text: ends inside a block, expected '}'")
        return self._lines[self._at][1]

    def rest(self) -> bool:
        self._at += 1
        return self._at < len(self._lines)

    def error(self, expected: str) -> CompileError:
        number, line = self._lines[self._at]
        seen = line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
        return CompileError(f"IR text, line {number}: got {seen!r}, expected {expected}")


def _parse_block(lines: _Lines, name: str, inputs: str) -> Graph:
    b = Builder()
    env: dict[str, Node] = {}
    if inputs and not re.fullmatch(rf"{_INPUT}(?:, {_INPUT})*", inputs):
        raise lines.error("inputs written %name: type")
    for key, text in re.findall(_INPUT, inputs):
        node_type = _parse_type(lines, text)
        if not isinstance(node_type, TensorType) or key in env:
            raise lines.error("inputs that are tensors, each with a name of its own")
        env[key] = b.input(key, node_type)
    arguments = tuple(env.values())
    while not (line := lines.next()).startswith("return "):
        key, node = _parse_statement(lines, line, b, env)
        if key in env:
            raise lines.error(f"a new name; %{key} is made already")
        env[key] = node
    outputs = dict(_parse_return(lines, line, env))
    if lines.next() != "}":
        raise lines.error("'}'")
    return b.graph(name, arguments, outputs)


def _parse_statement(
    lines: _Lines, line: str, b: Builder, env: dict[str, Node]
) -> tuple[str, Node]:
    match = _STATEMENT.fullmatch(line)
    if not match:
        raise lines.error("'%name: type = op %a, %b {key=value}'")
    if match["op"] not in OPS:
        raise lines.error(f"an op; {match['op']!r} is none")
    inputs = [_lookup(lines, env, a) for a in re.findall(r"%([\w.]+)", match["args"])]
    attrs = _parse_attrs(lines, match["attrs"] or "")
    with b.at(match["loc"] or ""):
        if match["block"] is not None:
            attrs["body"] = _parse_block(lines, "body", match["block"])
        try:
            node = b.make(match["op"], inputs, attrs)
        except (CompileError, TypeError) as error:
            raise lines.error(f"a valid {match['op']}: {error}") from error
    if node.type != _parse_type(lines, match["type"]):
        raise lines.error(f"type {node.type}, which is what the op gives")
    return match["name"], node


def _parse_return(lines: _Lines, line: str, env: dict[str, Node]) -> Iterator[tuple[str, Node]]:
    for part in line.removeprefix("return ").split(", "):
        match = re.fullmatch(r"([\w.]+)=%([\w.]+)", part)
        if not match:
            raise lines.error("'return name=%value'")
        yield match[1], _lookup(lines, env, match[2])


def _parse_type(lines: _Lines, text: str) -> Type:
    try:
        return parse_type(text)
    except CompileError as error:
        raise lines.error(f"a type: {error}") from error


def _lookup(lines: _Lines, env: dict[str, Node], name: str) -> Node:
    if name not in env:
        raise lines.error(f"a value made above; %{name} is none")
    return env[name]


def _parse_attrs(lines: _Lines, text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError(text)
        return {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise lines.error("attributes written key=literal") from error


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_literal(operand)
        case ast.Tuple(elts=elements):
            return tuple(_literal(e) for e in elements)
    return ast.literal_eval(node)
