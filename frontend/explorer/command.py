"""`gemmc explain`: writes the explorer of a model, and opens it."""

from __future__ import annotations

import argparse
import webbrowser

from ..command_line import writing
from ..executable import Executable
from ..runtimes import RUNTIMES
from .page import save_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gemmc explain` takes besides the model."""
    parser.add_argument(
        "--html", metavar="FILE", default="explain.html", help="default: %(default)s"
    )
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto")
    parser.add_argument("--threads", type=int, help="default: all cores, 1 for small models")
    parser.add_argument("--input-shape", metavar="1,28,28", help="of one sample, for FILE.py:NAME")


def explained(chosen: argparse.Namespace, executable: Executable) -> str:
    """Writes the page, opens it if asked to; what `gemmc explain` prints."""
    with writing("--html", chosen.html):
        path = save_page(executable, chosen.html, chosen.model)
    if chosen.open:
        webbrowser.open(path.resolve().as_uri())
    return f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser"
