"""Checks of arguments: each error names the class, the argument, what was seen and expected."""

from __future__ import annotations

import inspect
import math
from numbers import Integral, Real
from typing import Any

from ..ir import CompileError

INT64_END = 2**63  # seeds and counters are int64 in the compiled programs


def integer(owner: str, name: str, value: object, least: int = 1) -> int:
    """`value` as an int of at least `least`, and below 2**63."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise CompileError(f"{owner}: {name}: got {value!r}, expected an integer >= {least}")
    if int(value) >= INT64_END:
        raise CompileError(f"{owner}: {name}: got {value!r}, expected an integer below 2**63")
    return int(value)


def sample_shape(given: object) -> tuple[int, ...]:
    """`given` as the shape of one input, without the rows."""
    if not isinstance(given, (tuple, list)) or not given:
        raise CompileError(
            f"input_shape: got {given!r}, expected the shape of one sample, such as (1, 28, 28)"
        )
    return tuple(integer("compile", "input_shape", d) for d in given)


def of_constructor(made: object) -> dict[str, Any]:
    """The constructor's arguments, from the attributes of the same names."""
    names = inspect.signature(type(made).__init__).parameters
    return {n: getattr(made, n) for n in names if n != "self" and hasattr(made, n)}


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
    try:
        x = float(value)
    except OverflowError:  # an integer too large for one
        x = math.inf
    if not math.isfinite(x) or not least <= x <= most or (open_end and x == most):
        raise CompileError(f"{owner}: {name}: got {value!r}, expected {wanted}")
    return x
