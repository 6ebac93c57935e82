"""What command lines have in common: errors in one line, exit codes, places that are checked."""

from __future__ import annotations

import argparse
from os import PathLike
from pathlib import Path
from typing import NoReturn

from ..ir import CompileError

REFUSED, INTERRUPTED = 2, 130  # exit codes: a bad argument or file; Ctrl-C


class Parser(argparse.ArgumentParser):
    """argparse's, with what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}: see {self.prog} --help\n")


def check_file(option: str, file: str | PathLike | None) -> None:
    """CompileError if the file that an option names, if it does, could not be written later."""
    if file is None:
        return
    folder = Path(file).resolve().parent
    if not folder.is_dir():
        raise CompileError(f"{option}: {file}: there is no folder {folder}")
    if Path(file).is_dir():
        raise CompileError(f"{option}: {file}: is a folder, expected the name of a file")


def check_folder(option: str, folder: str | PathLike | None) -> None:
    """CompileError if what an option names, if it does, is there and no folder."""
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise CompileError(f"{option}: {folder}: is no folder")
