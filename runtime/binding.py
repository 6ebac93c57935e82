"""What a kernel is given when a step is bound to arrays, and what a kernel is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Node

Call = Callable[[], object]  # one BLAS routine or ufunc with its arguments, ready to run


@dataclass(frozen=True)
class Binding:
    """One execution of a step: the arrays of its operands and results, all C-contiguous.

    `room` is its scratch, as bytes. It works on rows `row` and following of a batch of `rows`; a
    kernel that sums over the batch starts anew at row 0 and accumulates from there.
    """

    node: Node
    operands: Sequence[np.ndarray]
    results: Sequence[np.ndarray]
    room: np.ndarray
    row: int
    rows: int

    @property
    def first(self) -> bool:
        """Whether this is the first tile of the batch."""
        return self.row == 0


def _no_scratch(node: Node, rows: int) -> int:
    return 0


def _never_in_place(node: Node, operand: int, result: int) -> bool:
    return False


@dataclass(frozen=True)
class Kernel:
    """How an op runs: `bind` yields its calls, `scratch` says how many bytes it needs besides.

    `in_place` tells whether a result may be written over an operand that dies with the step.
    """

    bind: Callable[[Binding], Iterator[Call]]
    scratch: Callable[[Node, int], int] = _no_scratch
    in_place: Callable[[Node, int, int], bool] = _never_in_place
