"""`python -m gemmc.bench BENCHMARK`: gemmc beside PyTorch and other peers on this machine."""

import argparse
import importlib.util
import sys

from . import accuracy, choices, experiment, forms, infer, scaling, start, step, sweep

BENCHMARKS = (step, infer, start, experiment, accuracy, sweep, scaling, choices, forms)


def main() -> int:
    """Runs the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gemmc.bench", description=__doc__)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for module in BENCHMARKS:
        name, about = module.__name__.rsplit(".", 1)[1], (module.__doc__ or "").split("\n")[0]
        one = benchmarks.add_parser(name, help=about, description=about)
        module.add_arguments(one)
        one.set_defaults(run=module.run, needs=getattr(module, "NEEDS", {}))
    chosen = parser.parse_args()
    for package, install in chosen.needs.items():
        if importlib.util.find_spec(package) is None:
            print(f"gemmc.bench: needs {install}", file=sys.stderr)
            return 2
    chosen.run(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
