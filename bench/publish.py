"""Where the results of a run go: JSON with every raw sample, figures and a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ..frontend.command_line import check_file, check_folder
from ..frontend.figures_style import require_matplotlib
from ..runtime.native.peaks import Peaks
from .results import Kernel, Machine, Report, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark that has something to keep."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every raw sample")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write figures and report.html")


def check_places(chosen: argparse.Namespace) -> None:
    """CompileError, before anything is measured, if the files asked for could not be written."""
    check_file("--json", chosen.json)
    check_folder("--plots", chosen.plots)
    if chosen.plots:
        require_matplotlib()


def measuring(words: Sequence[str]) -> list[str]:
    """What was typed, without where the results go: that is of this machine, and no measurement."""
    kept, places = [], ("--json", "--plots")
    for before, word in zip(["", *words], words, strict=False):
        if before not in places and word.split("=")[0] not in places:
            kept.append(word)
    return kept


def publish(
    results: Sequence[Result],
    machine: Machine,
    chosen: argparse.Namespace,
    kernels: Sequence[Kernel] = (),
    peaks: Peaks | None = None,
) -> None:
    """Writes the files that were asked for; `chosen.words` is the command as it was typed."""
    command, today = " ".join(["gemmc bench", *measuring(chosen.words)]), date.today().isoformat()
    report = Report(command, today, machine, tuple(results), tuple(kernels), peaks)
    if chosen.json:
        report.save(chosen.json)
        print(f"wrote {chosen.json}")
    if chosen.plots:
        from .report_html import write  # needs matplotlib

        for path in write([report], chosen.plots):
            print(f"wrote {path}")
