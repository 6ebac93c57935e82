"""The meaning of any graph at any stage: NumPy, node by node, slow and obviously right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import DataError
from .graph import Graph, result_types
from .op import OPS, resolve
from .xp import NUMPY


def interpret(
    graph: Graph, arrays: Mapping[str, Any], rows: int | None = None
) -> dict[str, np.ndarray]:
    """The outputs of `graph` by name, given its inputs by name.

    Inputs must have the declared dtypes; `N` is `rows`, or as the inputs have it, and must agree.
    The arrays are only read, and outputs may be views of them.
    """
    env: dict[Any, Any] = {n: np.asarray(arrays[n.name]) for n in graph.inputs}
    rows = rows_of(graph, env, rows)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            attrs = {k: resolve(v, rows) for k, v in node.attrs.items()}
            value = OPS[node.op].evaluate(NUMPY, *(env[x] for x in node.inputs), **attrs)
            _check(node, value, rows)
            env[node] = value
    return {name: env[node] for name, node in graph.outputs.items()}


def rows_of(graph: Graph, env: Mapping[Any, np.ndarray], rows: int | None = None) -> int:
    """`N` as the inputs have it (1 if none has); DataError where an input does not fit its type."""
    if rows is None:
        rows = next((len(env[n]) for n in graph.inputs if n.tensor.per_row and env[n].ndim), 1)
    for n in graph.inputs:
        if env[n].shape != n.tensor.concrete(rows) or env[n].dtype != n.tensor.numpy:
            seen = f"{env[n].dtype}{list(env[n].shape)}"
            raise DataError(f"%{n.name}: got {seen}, expected {n.type} with N = {rows}")
    return rows


def _check(node: Any, value: Any, rows: int) -> None:
    """The rule and the meaning of an op must agree: a mismatch is a fault of the op."""
    results = value if isinstance(value, tuple) else (value,)
    for result, t in zip(results, result_types(node), strict=True):
        seen = (np.shape(result), result.dtype)
        assert seen == (t.concrete(rows), t.numpy), f"{node}: evaluates to {seen}, not {t}"
