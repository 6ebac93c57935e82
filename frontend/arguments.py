"""Checks of arguments: each error names the class, the argument, what was seen and expected."""

from __future__ import annotations

import math
from numbers import Integral, Real

from ..ir import CompileError


def integer(owner: str, name: str, value: object, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise CompileError(f"{owner}: {name}: got {value!r}, expected an integer >= {least}")
    return int(value)


def pair(owner: str, name: str, value: object, least: int = 1) -> tuple[int, int]:
    """`value`, an integer or a pair of them (height, width), as a pair."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        first, second = both
        return integer(owner, name, first, least), integer(owner, name, second, least)
    except (CompileError, ValueError):
        wanted = f"an integer >= {least} or a pair of them"
        raise CompileError(f"{owner}: {name}: got {value!r}, expected {wanted}") from None


def number(
    owner: str,
    name: str,
    value: object,
    least: float,
    most: float = math.inf,
    open_end: bool = False,
) -> float:
    """`value` as a finite float from `least` to `most`, without `most` itself if open_end."""
    wanted = f"a number >= {least:g}"
    if most < math.inf:
        wanted = f"a number from {least:g} to {'below ' if open_end else ''}{most:g}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise CompileError(f"{owner}: {name}: got {value!r}, expected {wanted}")
    x = float(value)
    if not math.isfinite(x) or not least <= x <= most or (open_end and x == most):
        raise CompileError(f"{owner}: {name}: got {value!r}, expected {wanted}")
    return x
