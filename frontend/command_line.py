"""What command lines have in common: errors in one line, exit codes, places that are checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

from ..ir import CompileError

REFUSED, INTERRUPTED = 2, 130  # exit codes: a bad argument or file; Ctrl-C


class Parser(argparse.ArgumentParser):
    """argparse's, with what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}: see {self.prog} --help\n")


def many(count: int, word: str) -> str:
    """A number and what it counts: "1 thread", "2,000 threads"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def check_file(option: str, file: str | PathLike | None) -> None:
    """CompileError if the file that an option names, if it does, could not be written later."""
    if file is None:
        return
    folder = Path(file).resolve().parent
    if not folder.is_dir():
        raise CompileError(f"{option}: {file}: there is no folder {folder}")
    if Path(file).is_dir():
        raise CompileError(f"{option}: {file}: is a folder, expected the name of a file")
    if Path(file).exists():
        if not os.access(file, os.W_OK):
            raise CompileError(f"{option}: {file}: may not be written to")
    else:
        _check_writable(option, file, folder)


def check_folder(option: str, folder: str | PathLike | None) -> None:
    """CompileError if what an option names, if it does, could not be made and written to later."""
    if folder is None:
        return
    path = Path(folder).resolve()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        raise CompileError(f"{option}: {folder}: {there} is no folder")
    _check_writable(option, folder, there)


def _check_writable(option: str, place: str | PathLike, folder: Path) -> None:
    """Makes a file in a folder that is there, and takes it away: only this tells in every case."""
    with writing(option, place), TemporaryFile(dir=folder):
        pass


@contextmanager
def writing(option: str, place: str | PathLike) -> Iterator[None]:
    """What fails to be written inside is a CompileError that names the option and the place."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise CompileError(f"{option}: {place}: cannot be written to: {why}") from error
