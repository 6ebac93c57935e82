"""The command line: `python -m gemmc COMMAND` and the console script `gemmc`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import GemmcError
from .frontend.demo import demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code: 0, or 2 where what was asked for is refused."""
    parser = argparse.ArgumentParser(
        prog="gemmc", description="A graph compiler that trains small networks on the CPU's BLAS."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="train two models and show what the compiler did to them")
    parser.parse_args(arguments)
    try:
        demo()
    except GemmcError as error:
        print(f"gemmc: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
