"""Who can take part beside gemmc, what each needs, and how it is to be had.

The modules here but `ours` are loaded as files by `process.py`, without gemmc: they import NumPy
and their own library alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...ir import CompileError

FOLDER = Path(__file__).parent
OURS = "gemmc"


@dataclass(frozen=True)
class Peer:
    """A contender: the module that makes it, the packages it needs, and what it can do."""

    module: str  # a name, or a file with the ending .py
    packages: tuple[str, ...]  # the first one's version is the contender's
    install: str
    modes: tuple[str, ...] = ("train", "infer")
    environment: Mapping[str, str] = field(default_factory=dict)  # {threads} stands for their count

    @property
    def version(self) -> str:
        """The library and its version: "torch 2.13.0"."""
        try:
            return f"{self.packages[0]} {version(self.packages[0])}"
        except PackageNotFoundError:
            return self.packages[0]

    def missing(self) -> str:
        """What would bring it here; "" if it is here."""
        there = all(importlib.util.find_spec(name) is not None for name in self.packages)
        return "" if there else self.install


def _file(name: str) -> str:
    return str(FOLDER / f"{name}.py")


_GEMMC = Peer("gemmc.bench.peers.ours", ("gemmc",), "pip install gemmc")
_TORCH = Peer(_file("pytorch"), ("torch",), "pip install 'gemmc[torch]'")
_XLA = {"NPROC": "{threads}", "JAX_PLATFORMS": "cpu"}  # the size of XLA's pool, read at import
PEERS: dict[str, Peer] = {
    OURS: _GEMMC,
    "gemmc-steps": _GEMMC,
    "torch": _TORCH,
    "torch-tuned": _TORCH,
    "torch-compile": _TORCH,
    "jax": Peer(_file("jax_scan"), ("jax",), "pip install jax", environment=_XLA),
    "keras": Peer(
        _file("keras_fit"),
        ("keras", "jax"),
        "pip install keras jax",
        environment={**_XLA, "KERAS_BACKEND": "jax"},
    ),
    "onnxruntime": Peer(
        _file("onnx_session"), ("onnxruntime", "onnx"), "pip install onnx onnxruntime", ("infer",)
    ),
    "tinygrad": Peer(
        _file("tinygrad_jit"), ("tinygrad",), "pip install tinygrad", environment={"DEV": "CPU"}
    ),
}
TORCH = ("torch", "torch-tuned", "torch-compile")


def checked(names: str) -> tuple[str, ...]:
    """The contenders in a list with commas; CompileError names one that nobody knows."""
    given = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in given:
        if name not in PEERS or name == OURS:
            known = ", ".join(n for n in PEERS if n != OURS)
            raise CompileError(f"--against: got {name!r}, expected some of {known}")
    return given
