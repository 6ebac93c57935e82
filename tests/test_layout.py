"""What the repository looks like: floors, imports, and that pyproject.toml ships what is there."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["ir", "passes", "runtime", "frontend", "bench"]  # a floor imports only what stands before
SOURCES = sorted(p.relative_to(ROOT) for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))
SHIPPED = [Path("__init__.py"), Path("__main__.py"), *SOURCES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def imports(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted parts of every import: relative ones as `["gemmc", ...]` from the root."""
    package = ["gemmc", *path.parent.parts]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from ((node.lineno, [*base, *parts, alias.name]) for alias in node.names)


def climbs(path: Path, text: str) -> list[str]:
    """The imports of the module at `path` that reach a floor above its own, or the root."""
    own = FLOORS.index(path.parts[0])
    ours = [(line, parts) for line, parts in imports(path, text) if parts[0] == "gemmc"]
    return [
        f"{path}:{line}: {'.'.join(parts)}"
        for line, parts in ours
        if parts[1] not in FLOORS or FLOORS.index(parts[1]) > own
    ]


def absolutes(path: Path, text: str) -> list[str]:
    """The imports in `text` that name gemmc, or a floor, from the outside."""
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return [
        f"{path}:{node.lineno}: {name}"
        for node in nodes
        for name in _absolute_names(node)
        if name.split(".")[0] in {"gemmc", *FLOORS}
    ]


def _absolute_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [node.module or ""]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_floor_imports_only_itself_and_the_floors_below(path: Path) -> None:
    assert climbs(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_inside_the_library_every_import_is_relative(path: Path) -> None:
    assert absolutes(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    "line, climbing",
    [
        ("from . import types", False),
        ("from .types import TensorType", False),
        ("from ..ir import Graph", False),
        ("from .. import ir", False),
        ("from ..runtime import blas", True),
        ("from .. import runtime", True),
        ("from ..frontend.datasets import spiral", True),
        ("from .. import compile", True),
        ("import gemmc.bench", True),
        ("def late():\n    from ..bench import main", True),
        ("import numpy", False),
    ],
)
def test_the_test_of_the_floors_sees_every_kind_of_import(line: str, climbing: bool) -> None:
    assert bool(climbs(Path("passes/fuse.py"), line)) is climbing


def test_only_the_package_and_its_command_line_live_at_the_root() -> None:
    assert {p.name for p in ROOT.glob("*.py")} <= {"__init__.py", "__main__.py"}


def test_every_package_of_the_library_is_named_in_pyproject() -> None:
    there = {".".join(["gemmc", *p.parent.parts]) for p in SOURCES if p.name == "__init__.py"}
    assert {"gemmc", *there} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_module_of_the_library_lies_in_a_package() -> None:
    assert [p for p in SOURCES if not (ROOT / p).with_name("__init__.py").is_file()] == []


def test_every_file_that_pyproject_promises_to_ship_is_there() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    folders = {package: ROOT.joinpath(*package.split(".")[1:]) for package in data}
    missing = [p for package in data for p in data[package] if not any(folders[package].glob(p))]
    assert missing == []


def test_importing_gemmc_loads_none_of_the_extras() -> None:
    code = (
        "import gemmc, sys; print({'torch', 'matplotlib', 'pytest', 'hypothesis'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests"
    )
    assert done.stdout.strip() == "set()"
