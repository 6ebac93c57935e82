"""profiling: `gemmc profile`, where the time of a model's training step goes, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .command_line import writing
from .executable import Executable
from .experiments import EXPERIMENTS
from .runtimes import RUNTIMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gemmc profile` takes besides the model."""
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto")
    parser.add_argument("--threads", type=int, help="default: all cores, 1 for small models")
    parser.add_argument("--input-shape", metavar="1,28,28", help="of one sample, for FILE.py:NAME")
    parser.add_argument("--repeat", type=int, default=20, help="turns of measuring, default 20")
    parser.add_argument("--by-layer", action="store_true", help="a row a layer, not a step")
    parser.add_argument("--why", action="store_true", help="say why neighbours were not fused")
    parser.add_argument("--trace", metavar="FILE", help="write a trace for ui.perfetto.dev")
    parser.add_argument("--json", metavar="FILE", help="write rows and peaks")


def profiled(chosen: argparse.Namespace, executable: Executable) -> Iterator[str]:
    """What `gemmc profile` prints."""
    x, y = example_batch(executable, chosen.model)
    profile = executable.profile(x, y, chosen.repeat)
    if chosen.trace:
        with writing("--trace", chosen.trace):
            profile.trace(chosen.trace)
    if chosen.json:
        with writing("--json", chosen.json):
            Path(chosen.json).write_text(json.dumps(profile.as_dict(), indent=1))
    yield profile.by_layer() if chosen.by_layer else str(profile)
    if chosen.why:
        yield "\nleft in steps of their own:"
        yield from map(str, executable.left_apart())
    for file in filter(None, (chosen.trace, chosen.json)):
        yield f"wrote {file}"


def example_batch(executable: Executable, name: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A full batch: the first rows of the experiment called `name`, else random ones that fit."""
    rows = executable.batch_size
    if name in EXPERIMENTS:
        X, _, _, y, _, _ = EXPERIMENTS[name].load(0, True)
        return np.resize(X, (rows, *X.shape[1:])), np.resize(y, rows)
    rng, loss = np.random.default_rng(0), executable.model.loss_func
    x = rng.random((rows, *executable.input_shape), np.float32)
    if loss is None:
        return x, np.zeros(rows)  # refused by what needs a loss
    output = executable.output_type.shape
    shape = (rows, *loss.target_shape(output)[1:])
    if loss.target_dtype == "i64":
        return x, rng.integers(0, loss.classes(output) or 1, shape)
    return x, rng.standard_normal(shape, np.float32)
