"""The whole Fashion-MNIST experiment, gemmc beside PyTorch, accuracy side by side.

    python -m gemmc.bench experiment [--seeds 1] [--epochs 10] [--subset]

Data are read and split, the network is made, compiled and trained with a validation after every
epoch, and tested. Every run has a fresh process; a seed gives all of them the same split, weights
and order of batches. `train` is what the epochs and their validation took, `whole` all of it, after
the imports. `peak` is the most memory the process had resident; PyTorch's have gemmc's modules
loaded as well, which are 20 MB of it.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import NamedTuple

import numpy as np

from ..frontend.executable import compile
from ..frontend.experiments import EXPERIMENTS, fashion_model
from ..frontend.training import epoch_order
from .contenders import EAGER, layers_of
from .machine import NEEDS_TORCH, machine, peak_memory
from .rounds import Work, add_settings, once

NEEDS = NEEDS_TORCH
BATCH = 32
FASHION = EXPERIMENTS["fashion-mnist"]


class Setting(NamedTuple):
    """What a run of the experiment is given."""

    seed: int
    epochs: int
    subset: bool
    threads: int
    runtime: str


class Outcome(NamedTuple):
    """What came of a run: test loss and accuracy, seconds, bytes."""

    loss: float
    accuracy: float
    train: float
    whole: float
    peak: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_settings(parser)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=FASHION.epochs)
    parser.add_argument("--subset", action="store_true", help="the 7,000 images that ship")


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    print(machine(), flush=True)
    images = "7,000" if chosen.subset else "70,000"
    print(f"\nFashion-MNIST, {images} images, {chosen.epochs} epochs, {chosen.threads} threads\n")
    print(
        f"seed  {'':<12} {'train s':>8} {'whole s':>8} {'accuracy':>9} {'loss':>7} {'peak MB':>8}"
    )
    outcomes: dict[str, list[Outcome]] = {}
    for seed in range(chosen.seeds):
        given = Setting(seed, chosen.epochs, chosen.subset, chosen.threads, chosen.runtime)
        runs: dict[str, Work] = {"gemmc": partial(gemmc_experiment, given)}
        runs |= {name: partial(torch_experiment, name, given) for name in EAGER}
        for name, work in runs.items():
            outcomes.setdefault(name, []).append(once(name, work))
            print(f"{seed:<4}  {_row(name, outcomes[name][-1])}", flush=True)
    if chosen.seeds > 1:
        for name, of_seeds in outcomes.items():
            print(f"mean  {_row(name, Outcome(*np.mean(of_seeds, axis=0)))}")


def gemmc_experiment(given: Setting) -> Outcome:
    """The experiment on gemmc."""
    begin = time.perf_counter()
    X_train, X_val, X_test, y_train, y_val, y_test = FASHION.load(given.seed, given.subset)
    model = fashion_model(given.seed)
    executable = compile(model, FASHION.input_shape, BATCH, given.runtime, given.threads)
    history = executable.fit(X_train, y_train, X_val, y_val, given.epochs)
    tested = executable.evaluate(X_test, y_test)
    return Outcome(*tested, history.seconds, time.perf_counter() - begin, peak_memory())


def torch_experiment(variant: str, given: Setting) -> Outcome:
    """The experiment on PyTorch, in one of the ways of `torch_training`."""
    import torch  # an extra: only this contender needs it

    from .torch_training import VARIANTS, evaluate, network

    torch.set_num_threads(given.threads)
    begin = time.perf_counter()
    X_train, X_val, X_test, y_train, y_val, y_test = map(
        torch.from_numpy, FASHION.load(given.seed, given.subset)
    )
    model = fashion_model(given.seed)
    net = network(layers_of(model), model.state_dict())
    started = time.perf_counter()
    train = VARIANTS[variant](net, X_train.float() / 255, y_train, BATCH)
    X_val = X_val.float() / 255
    for number in range(given.epochs):
        train(epoch_order(given.seed, number, len(X_train)))
        evaluate(net, X_val, y_val)
    trained = time.perf_counter()
    tested = evaluate(net, X_test.float() / 255, y_test)
    return Outcome(*tested, trained - started, time.perf_counter() - begin, peak_memory())


def _row(name: str, o: Outcome) -> str:
    times = f"{o.train:>8.2f} {o.whole:>8.2f}"
    return f"{name:<12} {times} {o.accuracy:>9.2%} {o.loss:>7.3f} {o.peak / 1e6:>8.0f}"
