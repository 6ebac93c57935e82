"""The strict array namespace `xp` in which every pointwise op's meaning is written, once.

Strict means: operands have equal dtypes, a conversion is an explicit `cast`, booleans act only
through `where`, and a constant takes its dtype from an operand. So the same few lines mean the same
thing to NumPy here, to the recorder of a runtime that turns them into calls, and to a code
generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .types import DTYPES

UNARY: dict[str, np.ufunc] = {
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
BINARY: dict[str, np.ufunc] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "pow": np.power,
}
COMPARE: dict[str, np.ufunc] = {
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
}


class NumpyNamespace:
    """`xp` over NumPy arrays: the functions of UNARY, BINARY and COMPARE, and the three below."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ufunc = UNARY.get(name) or BINARY.get(name) or COMPARE.get(name)
        if ufunc is None:
            raise AttributeError(f"xp has no {name!r}")

        def call(*args: np.ndarray) -> Any:
            assert len({a.dtype for a in args}) == 1, f"{name}: {[a.dtype for a in args]}"
            return ufunc(*args)

        return call

    def where(self, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x where the condition holds, else y; whatever the other one is, NaN included."""
        assert condition.dtype == np.bool_ and x.dtype == y.dtype
        return np.where(condition, x, y)

    def cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        """x in another dtype."""
        return x.astype(DTYPES[dtype])

    def constant(self, value: float, like: np.ndarray) -> np.ndarray:
        """The number `value` in the dtype of `like`."""
        return np.asarray(value, like.dtype)


NUMPY = NumpyNamespace()
