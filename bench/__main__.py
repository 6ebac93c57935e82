"""`python -m gemmc.bench step|accuracy|choices|forms`: gemmc beside PyTorch on this machine."""

import argparse
import importlib.util
import sys

from . import accuracy, choices, forms, step


def main() -> int:
    """Runs the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gemmc.bench", description=__doc__)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for module in (step, accuracy, choices, forms):
        name, about = module.__name__.rsplit(".", 1)[1], (module.__doc__ or "").split("\n")[0]
        one = benchmarks.add_parser(name, help=about, description=about)
        module.add_arguments(one)
        one.set_defaults(run=module.run, against_torch=module in (step, accuracy))
    chosen = parser.parse_args()
    if chosen.against_torch and importlib.util.find_spec("torch") is None:
        print("gemmc.bench: needs PyTorch: pip install 'gemmc[torch]'", file=sys.stderr)
        return 2
    chosen.run(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
