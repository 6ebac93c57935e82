"""`gemmc bench`: gemmc beside PyTorch and other peers on this machine.

    gemmc bench fashion-mnist --against torch,torch-tuned,torch-compile
    gemmc bench FILE.py:NAME --input-shape 1,28,28 --mode both --json result.json

compares one model; the other benchmarks, listed below, have options of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from ..frontend.command_line import REFUSED, Parser
from ..ir import GemmcError
from . import choices, compare, forms, kernels, report, scaling, start, sweep
from .models import BENCHMARKS

OTHERS = (sweep, scaling, kernels, start, report, choices, forms)


def main(words: Sequence[str]) -> int:
    """Runs the benchmark that the command line names; its exit code."""
    chosen = _parser(words).parse_args(words)
    chosen.words = words
    try:
        for package, install in chosen.needs.items():
            if importlib.util.find_spec(package) is None:
                raise GemmcError(f"{chosen.what}: needs {install}")
        chosen.run(chosen)
    except GemmcError as error:
        print(f"gemmc bench: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _parser(words: Sequence[str]) -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="gemmc bench", description=__doc__, formatter_class=form)
    whats = parser.add_subparsers(dest="what", required=True, metavar="MODEL|BENCHMARK")
    for name, benchmark in BENCHMARKS.items():
        _add(whats, name, compare, benchmark.title)
    for module in OTHERS:
        about = (module.__doc__ or "").split("\n")[0]
        _add(whats, module.__name__.rsplit(".", 1)[1], module, about)
    if words and ".py:" in words[0]:
        _add(whats, words[0], compare, "a model of your own")
    return parser


def _add(whats: argparse._SubParsersAction, name: str, module: ModuleType, about: str) -> None:
    one = whats.add_parser(name, help=about, description=about)
    module.add_arguments(one)
    one.set_defaults(run=module.run, needs=getattr(module, "NEEDS", {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
