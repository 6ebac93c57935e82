"""Recording: a fused body, written over `xp`, becomes a straight list of array instructions.

The ops' own `evaluate` runs with a namespace that notes what it is asked to do instead of doing it.
So what the blas runtime executes is the one declaration of each op, not a second copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..ir import OPS, Graph, Node
from ..ir.types import DTYPES
from ..ir.xp import BINARY, COMPARE, UNARY


@dataclass(frozen=True, eq=False)
class Var:
    """A value of the body: operand number `operand`, a constant, or an instruction's result.

    `axes` places the axes of an operand that is smaller than the sweep; None means it is as large.
    """

    dtype: np.dtype
    operand: int | None = None
    axes: tuple[int, ...] | None = None
    value: float | None = None


@dataclass(frozen=True, eq=False)
class Instruction:
    """`out = action(*args)`. The action is a ufunc, or one of three on the bits of the operands:
    "cast" converts, "select" is x where the condition holds and 0 elsewhere, "merge" is x or y.
    """

    action: np.ufunc | str
    args: tuple[Var, ...]
    out: Var


@dataclass(frozen=True, eq=False)
class Recording:
    """The instructions of a body and the variables that are its results."""

    instructions: tuple[Instruction, ...]
    results: tuple[Var, ...]


class RecordingNamespace:
    """`xp` over Vars: appends to `instructions`."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []

    def __getattr__(self, name: str) -> Callable[..., Var]:
        ufunc = UNARY.get(name) or BINARY.get(name) or COMPARE.get(name)
        if ufunc is None:
            raise AttributeError(f"xp has no {name!r}")
        boolean = name in COMPARE
        return lambda *args: self._emit(ufunc, args, np.dtype(bool) if boolean else args[0].dtype)

    def where(self, condition: Var, x: Var, y: Var) -> Var:
        # NumPy's masked copies branch on every element; on bits it is a product with 0 or 1, exact
        # for NaN and infinities too
        chosen = None if _is_zero(x) else self._emit("select", (condition, x), x.dtype)
        if _is_zero(y):
            return chosen or x
        otherwise = self._emit(np.logical_not, (condition,), condition.dtype)
        other = self._emit("select", (otherwise, y), y.dtype)
        return self._emit("merge", (chosen, other), x.dtype) if chosen else other

    def cast(self, x: Var, dtype: str) -> Var:
        return self._emit("cast", (x,), np.dtype(DTYPES[dtype]))

    def constant(self, value: float, like: Var) -> Var:
        return Var(like.dtype, value=value)

    def _emit(self, action: np.ufunc | str, args: tuple[Var, ...], dtype: np.dtype) -> Var:
        out = Var(dtype)
        self.instructions.append(Instruction(action, args, out))
        return out


def _is_zero(x: Var) -> bool:
    return x.value == 0.0 and math.copysign(1.0, x.value) > 0.0


@lru_cache(maxsize=1024)
def record(body: Graph) -> Recording:
    """The instructions of a fused body, whose nodes are pointwise ops, broadcasts and constants."""
    xp = RecordingNamespace()
    env: dict[Node, Var] = {}
    shape = next(iter(body.outputs.values())).shape
    for i, n in enumerate(body.inputs):
        env[n] = Var(n.tensor.numpy, operand=i, axes=None if n.shape == shape else ())
    for node in body.nodes:
        args = [env[x] for x in node.inputs]
        env[node] = _record_node(xp, node, args)
    return Recording(tuple(xp.instructions), tuple(env[n] for n in body.outputs.values()))


def _record_node(xp: RecordingNamespace, node: Node, args: list[Var]) -> Var:
    match node.op:
        case "full":
            return Var(node.tensor.numpy, value=node.attrs["value"])
        case "broadcast":
            (x,) = args
            if x.operand is None:
                assert node.inputs[0].shape == () or x.value is not None, node
                return x  # a constant, or what is made of scalars, has every shape already
            return Var(x.dtype, operand=x.operand, axes=node.attrs["axes"])
        case op:
            attrs: dict[str, Any] = dict(node.attrs)
            return OPS[op].evaluate(xp, *args, **attrs)
