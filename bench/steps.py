"""Training steps of many networks, one after the other, timed by the same contenders' processes.

What the sweep and the scaling have in common: their options, how a network is timed, and what comes
of it: a `Result` a network, whose `facts` tell it from the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..frontend.sequential import Sequential
from . import noise, publish
from .models import task_of
from .results import Contender, Result
from .rounds import Process, measure, saved
from .rounds import add_arguments as add_turns

TUNED, COMPILED = "torch-tuned", "torch-compile"


@dataclass(frozen=True)
class Network:
    """A network, an epoch of data (x and y, whole batches), and how it is trained."""

    kind: str  # of Result.model: "sweep", "grid" or "scaling"
    title: str
    model: Sequential
    data: tuple[np.ndarray, np.ndarray]
    batch: int
    threads: int
    facts: Mapping[str, int] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """The options of a benchmark of many networks, with their defaults."""
    add_turns(parser, rounds, seconds)
    publish.add_arguments(parser)


def times(network: Network, opened: Mapping[str, Process], chosen: argparse.Namespace) -> Result:
    """What training steps of a network take; `opened` are contenders' processes by name."""
    pieces = prepare(network, opened.values(), chosen.runtime)
    seconds, others = measure(opened, chosen.repeat, chosen.seconds)
    contenders = tuple(
        Contender(name, seconds=tuple((taken / pieces).tolist())) for name, taken in seconds.items()
    )
    warnings, runtime = noise.warnings(contenders, others), chosen.runtime
    return Result(
        *(network.kind, network.title, "train", network.batch, network.threads, runtime),
        epochs=0,
        contenders=contenders,
        warnings=warnings,
        facts=network.facts,
    )


def prepare(network: Network, contenders: Iterable[Process], runtime: str) -> int:
    """Has contenders make a network, with its data; the steps that a piece of their work has."""
    batch, threads, (x, y) = network.batch, network.threads, network.data
    made: dict[str, Any] = {"batch": batch, "threads": threads, "runtime": runtime}
    task = task_of(network.model, {"x": x, "y": y}, rows=len(x), **made)
    with saved(task) as path:
        for process in contenders:
            process.prepare(path)
    return task.pieces


def doubts(results: Sequence[Result], name: Callable[[Result], str]) -> list[str]:
    """A line with the names of those results that have warnings; none if there are none."""
    doubtful = [name(r) for r in results if r.warnings]
    count = f"{len(doubtful)} of {len(results)}"
    reason = "the machine was noisy, rounds were few, or both equally fast; --json says which"
    return [f"! {count} doubtful ({reason}): {', '.join(doubtful)}"] if doubtful else []
