"""Inference with the example CNN, gemmc beside ONNX Runtime.

    python -m gemmc.bench infer [--batch 1 32 256]

A call takes a batch of images as an array and returns the probabilities as one. Both compute the
same before they are timed.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import numpy as np

from ..frontend.executable import compile
from ..frontend.experiments import fashion_model
from .contenders import cnn_data
from .machine import machine
from .rounds import Measured, Work, compare, rows
from .rounds import add_arguments as add_turns

PACKAGES = "ONNX Runtime: pip install onnx onnxruntime"
NEEDS = {"onnxruntime": PACKAGES, "onnx": PACKAGES}
ALIKE = 1e-5  # between probabilities: two orders of summation in float32, and some room


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_turns(parser, rounds=15, seconds=0.2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its tables."""
    print(machine(), flush=True)
    for batch in chosen.batch:
        makes = {
            "gemmc": partial(gemmc_calls, batch, chosen.threads, chosen.runtime),
            "onnxruntime": partial(onnxruntime_calls, batch, chosen.threads),
        }
        measured = compare(makes, chosen.rounds, chosen.seconds)
        _check_alike(measured)
        print(f"\nexample CNN, inference, batch {batch}, {chosen.threads} threads\n")
        print(rows(measured.seconds, "us a call", 1e6), flush=True)


def gemmc_calls(batch: int, threads: int, runtime: str) -> Work:
    """Calls of the executable."""
    most = None if threads >= (os.cpu_count() or 1) else threads  # it may choose fewer
    executable = compile(fashion_model(), (1, 28, 28), batch, runtime, most)
    x = cnn_data()[0][:batch]
    return lambda: executable(x)


def onnxruntime_calls(batch: int, threads: int) -> Work:
    """Calls of an inference session with the same weights."""
    import onnxruntime  # an extra: only this contender needs it

    from .onnx_model import onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        onnx_model(fashion_model(), (1, 28, 28)), options, providers=["CPUExecutionProvider"]
    )
    x = cnn_data()[0][:batch]
    return lambda: session.run(None, {"x": x})[0]


def _check_alike(measured: Measured) -> None:
    ours, theirs = (measured.first[name] for name in ("gemmc", "onnxruntime"))
    apart = float(np.max(np.abs(ours - theirs)))
    if not apart <= ALIKE:
        raise SystemExit(f"onnxruntime: its probabilities are {apart:.2g} from gemmc's")
