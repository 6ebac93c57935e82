"""The spiral experiment over several seeds, gemmc beside PyTorch on the same splits.

    python -m gemmc.bench accuracy [--seeds 5] [--epochs 100]

Both start from the same weights and see the same batches in the same order; what differs is who
computes. Printed: test accuracy and loss a seed, their means, and the time each took to train.
PyTorch trains as `torch-tuned` does, on one thread: faster than two for a network of this size.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ..frontend.executable import compile
from ..frontend.experiments import EXPERIMENTS, Split, spiral_model
from ..frontend.training import epoch_order
from .contenders import layers_of
from .machine import NEEDS_TORCH, machine
from .rounds import RUNTIMES

BATCH = 32
NEEDS = NEEDS_TORCH
Result = tuple[float, float, float]  # test loss, test accuracy, seconds of training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="of gemmc")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    print(machine(), flush=True)
    print("\nseed    gemmc: accuracy   loss      s    torch: accuracy   loss      s")
    rows = []
    for seed in range(chosen.seeds):
        split = EXPERIMENTS["spiral"].load(seed, False)
        ours = _gemmc(seed, split, chosen.epochs, chosen.runtime)
        theirs = _torch(seed, split, chosen.epochs)
        rows.append((ours, theirs))
        print(f"{seed:<4} {_row(ours)} {_row(theirs)}", flush=True)
    ours, theirs = np.mean(np.array(rows), axis=0)
    print(f"mean {_row(tuple(ours))} {_row(tuple(theirs))}")


def _row(result: Result) -> str:
    loss, accuracy, seconds = result
    return f"{accuracy:>18.2%} {loss:>6.3f} {seconds:>6.2f}"


def _gemmc(seed: int, split: Split, epochs: int, runtime: str) -> Result:
    X_train, _, X_test, y_train, _, y_test = split
    executable = compile(spiral_model(seed), (2,), BATCH, runtime)
    history = executable.fit(X_train, y_train, epochs=epochs)
    loss, accuracy = executable.evaluate(X_test, y_test)
    return loss, accuracy, history.seconds


def _torch(seed: int, split: Split, epochs: int) -> Result:
    import torch  # an extra: only this contender needs it

    from .torch_training import evaluate, network, tuned

    torch.set_num_threads(1)
    X_train, X_test, y_train, y_test = (torch.from_numpy(split[i]) for i in (0, 2, 3, 5))
    model = spiral_model(seed)
    net = network(layers_of(model), model.state_dict())
    train = tuned(net, X_train, y_train, BATCH)
    begin = time.perf_counter()
    for epoch in range(epochs):
        train(epoch_order(seed, epoch, len(X_train)))
    seconds = time.perf_counter() - begin
    return *evaluate(net, X_test, y_test), seconds
