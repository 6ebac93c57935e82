"""The page: one HTML file with its style, its scripts and its data inside.

The scripts are ES modules, kept as files and found through an import map; the graphs are laid out
by dagre (vendor/).
"""

from __future__ import annotations

import base64
import json
import math
import re
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from ..executable import Executable
from .data import explorer_data

SCRIPTS = (
    *("store", "dom", "units", "layout", "nodes", "graph", "details", "diff", "memory"),
    *("roofline", "steps", "stages", "search", "keys", "main"),
)
STYLES = ("page", "side", "graph", "views")


def save_page(executable: Executable, path: str | PathLike, title: str = "model") -> Path:
    """Writes the explorer of an executable's main program; OSError where that cannot be."""
    path = Path(path)
    path.write_text(page(explorer_data(executable, title)), "utf-8")
    return path


def page(data: dict[str, Any]) -> str:
    """The page of `explorer_data`, which needs nothing besides."""
    modules = {f"explorer/{name}": _as_url(_read(f"{name}.js")) for name in SCRIPTS}
    dagre, _, _ = _read("vendor/dagre.min.js").partition("//# sourceMappingURL")
    parts = {
        "title": escape(data["title"]),
        "style": "\n".join(_read(f"{name}.css") for name in STYLES),
        "dagre": dagre,
        "license": _read("vendor/LICENSE.dagre").strip(),
        "modules": json.dumps({"imports": modules}, indent=0),
        "data": _as_json(data),
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _as_url(script: str) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(script.encode()).decode()}"


def _as_json(data: dict[str, Any]) -> str:
    """JSON that may stand in a script element: no number that is none, nothing that ends it."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    """Data with None for infinities and NaN, and six digits of other numbers."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
