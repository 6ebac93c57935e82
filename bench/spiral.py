"""The spiral experiment as a program of its own: trains, tests, prints loss and accuracy as JSON.

python -m gemmc.bench.spiral RUNTIME DATA.npz EPOCHS BATCH THREADS
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from ..frontend.executable import compile
from ..frontend.experiments import spiral_model


def main(runtime: str, path: str, epochs: int, batch: int, threads: int) -> None:
    """Trains and tests on what `path` holds, from the spiral model's own weights."""
    with np.load(path) as file:
        x, y, x_test, y_test = (file[name] for name in ("x", "y", "x_test", "y_test"))
    executable = compile(spiral_model(), x.shape[1:], batch, runtime, threads)
    executable.fit(x, y, epochs=epochs)
    print(json.dumps(executable.evaluate(x_test, y_test)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime")
    parser.add_argument("path")
    for name in ("epochs", "batch", "threads"):
        parser.add_argument(name, type=int)
    main(**vars(parser.parse_args()))
