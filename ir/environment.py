"""The environment variables that gemmc reads, all of them, here and nowhere else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import CompileError

# By sys.platform: the variable that names the folder of a user's caches, and the folder in their
# home without it. Source: XDG Base Directory Specification, which has relative names ignored.
CACHES = {"darwin": ("", "Library/Caches"), "win32": ("LOCALAPPDATA", "AppData/Local")}
XDG_CACHE = ("XDG_CACHE_HOME", ".cache")


def check_level() -> int:
    """GEMMC_CHECK: 0 nothing, 1 verify after every pass, 2 also compare `interpret` around it."""
    text = os.environ.get("GEMMC_CHECK", "0")
    if text not in ("0", "1", "2"):
        raise CompileError(f"GEMMC_CHECK: got {text!r}, expected 0, 1 or 2")
    return int(text)


def data_folder() -> Path | None:
    """GEMMC_DATA: the folder with the four IDX files of Fashion-MNIST; None if unset or empty."""
    text = os.environ.get("GEMMC_DATA")
    return Path(text) if text else None


def blas_file() -> Path | None:
    """GEMMC_BLAS: the shared library whose sgemm native code calls; None if unset or empty."""
    text = os.environ.get("GEMMC_BLAS")
    return Path(text).expanduser().absolute() if text else None


def cache_folder() -> Path | None:
    """The folder `gemmc` among the user's caches, there or not; None for a user without a home."""
    variable, default = CACHES.get(sys.platform, XDG_CACHE)
    text = os.environ.get(variable, "")
    folder = text if os.path.isabs(text) else os.path.join(os.path.expanduser("~"), default)
    return Path(folder) / "gemmc" if os.path.isabs(folder) else None
