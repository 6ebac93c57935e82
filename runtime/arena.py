"""Memory for programs."""

from __future__ import annotations

import numpy as np

from ..passes.memory import ALIGN


def aligned_arena(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    begin = -raw.ctypes.data % ALIGN
    return raw[begin : begin + nbytes]
