"""A model beside other libraries: the same training, step by step and as a whole.

    gemmc bench fashion-mnist --against torch,torch-tuned,torch-compile

First everybody trains 20 steps from equal weights, dropout off, and their losses are compared with
PyTorch's. Then contenders take turns, in processes of their own that are started anew halfway: what
differs from process to process is in the intervals as well. At last each trains the model as a
whole, in a fresh process with empty caches, validating after every epoch, and is tested.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..ir import CompileError
from . import noise, peers, publish, same
from .machine import machine
from .models import Benchmark, find, is_known, task_of
from .peers import OURS, PEERS
from .process import Task
from .results import MODES, Contender, History, Result
from .rounds import Process, Unable, add_settings, check_arguments, measure, processes, saved
from .tables import table

SITTINGS = 2  # of processes that take turns: the second are started anew
REPEAT = 42  # rounds, a turn of each contender: 14 can fall into one slow spell of the machine
PLANE = 80  # points along a side of the plane of a model of points
MARGIN = 0.1  # of the points' range, around them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    add = parser.add_argument
    others = ",".join(name for name in PEERS if name != OURS)
    add("--against", default="torch,torch-tuned", metavar="NAMES", help=f"some of {others}")
    add("--mode", choices=(*MODES, "both"), default="train", help="default: train")
    add("--batch", type=int, default=32, help="rows of a step or a call, default 32")
    about = f"turns of each contender, default {REPEAT}, in {SITTINGS} sittings"
    add("--repeat", type=int, default=REPEAT, help=about)
    add("--seconds", type=float, default=0.25, help="a turn lasts about so long, default 0.25")
    add("--epochs", type=int, help="of the whole training; 0 leaves it out")
    add("--runs", type=int, help="whole trainings of each contender")
    add("--input-shape", metavar="1,28,28", help="of one sample, for FILE.py:NAME")
    add("--data", type=Path, metavar="FILE.npz", help="X and y for FILE.py:NAME; default: random")
    publish.add_arguments(parser)
    add_settings(parser)


def run(chosen: argparse.Namespace) -> None:
    """Runs the comparison of the model `chosen.what` and prints its tables."""
    names = peers.checked(chosen.against)
    check_arguments(chosen, batch=1, repeat=SITTINGS, threads=1, runs=1, epochs=0)
    publish.check_places(chosen)
    benchmark = find(chosen.what, _shape(chosen.input_shape), chosen.data)
    if chosen.epochs and not benchmark.epochs:
        raise CompileError("--epochs: nothing is learnt from random data: use --data FILE.npz")
    facts, results = machine(), []
    print(facts, flush=True)
    for mode in MODES if chosen.mode == "both" else (chosen.mode,):
        results.append(compare(benchmark, names, mode, chosen))
        print(f"\n{table(results[-1])}", flush=True)
    publish.publish(results, facts, chosen)


def compare(
    benchmark: Benchmark, names: Sequence[str], mode: str, chosen: argparse.Namespace
) -> Result:
    """gemmc and those of `names` that are here, compared. Parted if they do not do the same."""
    epochs, runs = (
        getattr(benchmark, name) if getattr(chosen, name) is None else getattr(chosen, name)
        for name in ("epochs", "runs")
    )
    settings = {"batch": chosen.batch, "threads": chosen.threads, "runtime": chosen.runtime}

    def task(seed: int = 0, dropout: bool = True) -> Task:
        model, data = benchmark.model(seed), benchmark.data(seed)
        rows = min(benchmark.rows, len(data["x"]))
        return task_of(model, data, mode, dropout, rows=rows, source=benchmark.source, **settings)

    plain, full = _short(task(dropout=False)), task()
    extent = _extent(full.data)
    absent = {name: why for name in names if (why := _absence(name, mode, plain))}
    present = [OURS, *(name for name in names if name not in absent)]
    with tempfile.TemporaryDirectory(prefix="gemmc-cache-") as cache:
        found, unable = _firsts(present, plain, cache)
        found, others = _turns(found, _short(full), chosen, cache)
    del plain, full  # of memory that those who train could use
    if mode == "train" and epochs:
        found = _trained(found, epochs, (task(seed) for seed in range(runs)))
    return Result(
        *(chosen.what, benchmark.title, mode, chosen.batch, chosen.threads, chosen.runtime),
        epochs=epochs if mode == "train" else 0,
        contenders=tuple(found),
        absent={**absent, **unable},
        warnings=noise.warnings(found, others),
        extent=extent,
    )


def _short(task: Task) -> Task:
    """The task with the rows of a timed epoch alone: the others would only fill memory."""
    kept = {name: task.data[name][: max(task.rows, task.batch)] for name in ("x", "y")}
    return replace(task, data=kept)


def _absence(name: str, mode: str, task: Task) -> str:
    """Why a contender does not take part; "" if it does."""
    if missing := PEERS[name].missing():
        return missing
    if mode not in PEERS[name].modes:
        return f"does not {mode}"
    known = is_known(task) or PEERS[name].module == PEERS[OURS].module
    return "" if known else "knows no such layer, loss or optimiser"


def _firsts(names: Sequence[str], task: Task, cache: str) -> tuple[list[Contender], dict[str, str]]:
    """(contenders after their first steps or call, from equal weights; who is unable, and why)."""
    made, outputs, unable = {}, {}, {}
    train = task.mode == "train"
    with saved(task) as path:
        for name in names:
            _say(f"{name} begins")
            try:
                made[name], outputs[name] = first(name, path, train, task.threads, cache)
            except Unable as error:
                unable[name] = str(error)
    if train:
        same.check_losses({name: c.first_losses for name, c in made.items()})
    else:
        same.check_outputs(outputs)
    return list(made.values()), unable


def first(
    name: str, path: Path, train: bool, threads: int, cache: str
) -> tuple[Contender, list[float]]:
    """(a contender after its first steps, or first call; what the call returned)."""
    with fresh(name, threads, cache) as (process, since_start):
        process.ask("load", str(path))
        loaded = since_start()
        process.ask("make")
        begun = process.ask("losses", 0, 1) if train else process.ask("outputs")
        now = since_start()
        losses = [*begun, *process.ask("losses", 1, same.STEPS)] if train else []
    contender = Contender(
        name,
        PEERS[name].version,
        compile_seconds=(now - loaded,),
        first_seconds=(now,),
        first_losses=tuple(losses),
    )
    return contender, [] if train else np.ravel(begun).tolist()


def _turns(
    contenders: Sequence[Contender], task: Task, chosen: argparse.Namespace, cache: str
) -> tuple[list[Contender], float]:
    """(contenders with their rounds and memory, the largest share of the cores others took)."""
    names = [c.name for c in contenders]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[int]] = {name: [] for name in names}
    shares: list[float] = []
    with saved(task) as path:
        for rounds in np.diff(np.linspace(0, chosen.repeat, SITTINGS + 1).astype(int)):
            with processes(names, task.threads, _caches(cache)) as opened:
                for name, process in opened.items():
                    _say(f"{name} makes ready, sitting {len(shares) + 1} of {SITTINGS}")
                    process.prepare(path)
                _say(f"turns, sitting {len(shares) + 1} of {SITTINGS}")
                times, others = measure(opened, int(rounds), chosen.seconds)
                shares.append(others)
                for name, process in opened.items():
                    seconds[name] += (times[name] / task.pieces).tolist()
                    peaks[name].append(process.ask("peak"))
    _say("")
    timed = [
        replace(c, seconds=tuple(seconds[c.name]), peak_bytes=tuple(peaks[c.name]))
        for c in contenders
    ]
    return timed, max(shares)


def _trained(
    contenders: Sequence[Contender], epochs: int, tasks: Iterable[Task]
) -> list[Contender]:
    """The contenders after whole trainings, in turns: each in a process with empty caches."""
    found = [replace(c, peak_bytes=()) for c in contenders]
    for run, task in enumerate(tasks):
        with saved(task) as path:
            for i, contender in enumerate(found):
                _say(f"{contender.name} trains {epochs} epochs, run {run + 1}")
                found[i] = _train(contender, path, epochs, task)
    _say("")
    return found


def _train(so_far: Contender, path: Path, epochs: int, task: Task) -> Contender:
    """The contender after one more whole training."""
    with (
        tempfile.TemporaryDirectory(prefix="gemmc-cache-") as cache,
        fresh(so_far.name, task.threads, cache) as (process, since_start),
    ):
        process.prepare(path)
        history = process.ask("train", epochs)
        seconds, peak = since_start(), process.ask("peak")
        loss, accuracy = process.ask("test")
        extent = _extent(task.data)
        plane = process.ask("plane", extent, PLANE) if extent else []
    made = replace(
        so_far,
        whole_seconds=(*so_far.whole_seconds, seconds),
        peak_bytes=(*so_far.peak_bytes, peak),
        test_losses=(*so_far.test_losses, loss),
        test_accuracies=(*so_far.test_accuracies, *([] if accuracy is None else [accuracy])),
    )
    if so_far.whole_seconds:
        return made
    curves = {name: tuple(values) for name, values in history.items()}
    return replace(made, history=History(**curves), plane=tuple(map(tuple, plane)))


@contextmanager
def fresh(name: str, threads: int, cache: str) -> Iterator[tuple[Process, Callable[[], float]]]:
    """A contender's process, and the seconds since it was started."""
    begin = time.perf_counter()
    with processes([name], threads, _caches(cache)) as opened:
        yield opened[name], lambda: time.perf_counter() - begin


def _caches(folder: str) -> dict[str, str]:
    """Where a contender keeps what it has compiled, and finds it the next time."""
    return {"TORCHINDUCTOR_CACHE_DIR": folder, "CACHEDB": f"{folder}/tinygrad.db"}


def _extent(data: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Around inputs that are points, with a margin: left, right, bottom, top; else empty."""
    if data["x"].shape[1:] != (2,):
        return ()
    low, high = data["x"].min(0), data["x"].max(0)
    room = MARGIN * (high - low)
    sides = zip(low - room, high + room, strict=True)
    return tuple(float(side) for pair in sides for side in pair)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(d) for d in text.split(","))
    except ValueError:
        raise CompileError(f"--input-shape: got {text!r}, expected integers like 1,28,28") from None


def _say(what: str) -> None:
    """What is going on, on a terminal, in a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r{what:<60}\r", end="", file=sys.stderr, flush=True)
