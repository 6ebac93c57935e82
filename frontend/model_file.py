"""Models in a user's file: what FILE.py:NAME on a command line means."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..ir import CompileError


def named_object(text: str, known: Iterable[str]) -> object:
    """The object that FILE.py:NAME names; CompileError lists `known`, what else there is."""
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name:
        others = ", ".join(known)
        raise CompileError(f"model: got {text!r}, expected {others}, or FILE.py:NAME")
    defined = definitions(file)
    if name not in defined:
        raise CompileError(f"model: {file} has no {name!r}")
    return defined[name]


def definitions(file: str) -> dict[str, Any]:
    """What running a file defines, by name; running it is what importing it does."""
    if not Path(file).is_file():
        raise CompileError(f"model: {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)
