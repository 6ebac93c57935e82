"""The golden texts: for each pass, graphs before and after, as files in tests/golden.

    // Why the two differ, in a sentence.
    // pass: lower conv_form='shift'
    graph f(%x: ...) { ... }
    // ->
    graph f(%x: ...) { ... }

The words behind the pass are its options. A file may hold several such cases, one after the other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmc.ir import Graph, parse
from gemmc.passes.autodiff import autodiff
from gemmc.passes.fuse import fuse
from gemmc.passes.layout import Layout, layout
from gemmc.passes.lower import lower
from gemmc.passes.order import order
from gemmc.passes.pack import pack
from gemmc.passes.simplify import simplify
from gemmc.passes.target import Target
from gemmc.passes.tile import tile

FOLDER = Path(__file__).with_name("golden")

PASSES: Mapping[str, Callable[..., Graph]] = {
    "simplify": simplify,
    "autodiff": lambda g, wrt: autodiff(g, wrt, {}),
    "layout": lambda g, **forms: layout(g, _layouts(forms)),
    "pack": lambda g, **forms: pack(g, _layouts(forms)),
    "lower": lambda g, **target: lower(g, Target(**target)),
    "fuse": lambda g, **target: fuse(g, Target(**target)),
    "tile": lambda g, rows, **target: tile(g, rows, Target(**target)),
    "order": order,
}


@dataclass(frozen=True)
class Golden:
    """One case: where it stands, its pass with options, and the texts before and after."""

    name: str
    run: str
    options: Mapping[str, Any]
    before: str
    after: str

    def __str__(self) -> str:
        return self.name

    def apply(self, graph: Graph) -> Graph:
        """The graph after the pass."""
        return PASSES[self.run](graph, **self.options)


def _layouts(forms: Mapping[str, Any]) -> dict[str, Layout]:
    return {name: Layout(*form) for name, form in forms.items()}


def _read(path: Path) -> list[Golden]:
    cases = re.split(r"^// pass: ", path.read_text(), flags=re.MULTILINE)[1:]
    return [_case(f"{path.stem}-{i}", text) for i, text in enumerate(cases, 1)]


def _case(name: str, text: str) -> Golden:
    header, rest = text.split("\n", 1)
    run, _, words = header.partition(" ")
    call = ast.parse(f"f({words})", mode="eval").body
    assert isinstance(call, ast.Call), header
    options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    before, after = rest.split("// ->\n")
    without_comment = re.sub(r"^//.*\n", "", after, flags=re.MULTILINE)
    return Golden(name, run, options, str(parse(before)), without_comment.strip())


GOLDEN = [case for path in sorted(FOLDER.glob("*.ir")) for case in _read(path)]
