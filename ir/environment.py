"""The environment variables that gemmc reads, all of them, here and nowhere else."""

from __future__ import annotations

import os

from .errors import CompileError


def check_level() -> int:
    """GEMMC_CHECK: 0 nothing, 1 verify after every pass, 2 also compare `interpret` around it."""
    text = os.environ.get("GEMMC_CHECK", "0")
    if text not in ("0", "1", "2"):
        raise CompileError(f"GEMMC_CHECK: got {text!r}, expected 0, 1 or 2")
    return int(text)
