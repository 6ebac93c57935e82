"""One page, report.html, and figures, from results that were saved with --json.

gemmc bench report RESULT.json [RESULT.json ...] --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..frontend.command_line import check_folder
from . import results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("files", nargs="+", metavar="RESULT.json", help="what --json wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")


def run(chosen: argparse.Namespace) -> None:
    """Reads the results, and writes the page and its figures."""
    check_folder("--out", chosen.out)
    from .report_html import write  # needs matplotlib

    for path in write([results.load(file) for file in chosen.files], chosen.out):
        print(f"wrote {path}")
