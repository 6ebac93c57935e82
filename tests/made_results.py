"""Made-up results of benchmarks, for what is drawn, sorted and written of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemmc.bench.grid import GRID, grid_models
from gemmc.bench.results import Contender, History, Kernel, Machine, Report, Result
from gemmc.bench.sample import Sample, sample_models
from gemmc.runtime.native.peaks import Level, Peaks
from gemmc.runtime.profile import Row

ROUNDS = 9
MACHINE = Machine("a CPU", 2, "Linux", "3.11", "a BLAS", {"numpy": "2"}, {"A": "1"}, ("A is slow",))


def seconds(middle: float, seed: int) -> tuple[float, ...]:
    """Times of rounds around a median."""
    spread = np.random.default_rng(seed).uniform(-0.05, 0.05, ROUNDS)
    return tuple((middle * (1 + spread - np.median(spread))).tolist())


def comparison() -> Result:
    """A whole training of three contenders on points."""
    plane = tuple(tuple((i + j) // 6 % 3 for j in range(20)) for i in range(20))
    history = History((2.0, 1.0, 0.5), (2.1, 1.1, 0.6), (0.2, 0.5, 0.8))
    contenders = tuple(
        Contender(
            *(name, "1.0", seconds(ms / 1e3, place), (0.2, 0.3), (0.5, 0.6), (3.0, 3.5)),
            *((200_000_000,), (2.0, 1.9), history, (0.4,), (0.9,), plane),
        )
        for place, (name, ms) in enumerate({"gemmc": 1, "torch": 8, "jax": 2}.items())
    )
    made = Result("spiral", "points & <arms>", "train", 32, 2, "auto", 3, contenders)
    return Result(**{**vars(made), "extent": (-1.0, 1.0, -1.0, 1.0), "absent": {"keras": "pip"}})


def alone() -> Result:
    """gemmc's inference, without anybody else."""
    ours = Contender("gemmc", "1.0", seconds(1e-4, 5))
    return Result("mlp", "an MLP", "infer", 1, 1, "auto", 0, (ours,))


def of_network(kind: str, sample: Sample, ratio: float, *others: str) -> Result:
    """A network of a sweep, that takes `ratio` of the second that all others take."""
    names = {"gemmc": ratio, **dict.fromkeys(("torch-tuned", *others), 1.0)}
    contenders = tuple(Contender(n, seconds=(s,) * ROUNDS) for n, s in names.items())
    facts = {"number": sample.number, "flops": sample.flops, **sample.place}
    given = (sample.batch, 2, "auto", 0, contenders)
    return Result(kind, str(sample), "train", *given, facts=facts)


def sweep() -> list[Result]:
    """The whole sample; the higher the number, the slower. Three were run by torch.compile."""
    return [
        of_network("sweep", s, 0.1 + s.number / 100, *(["torch-compile"] if i % 20 == 0 else []))
        for i, s in enumerate(sample_models())
    ]


def grid() -> list[Result]:
    """A small grid, in which a network takes as long as its kernel is wide."""
    sides = {**GRID, "image": (8,), "channels": (4, 16), "batch": (1, 32)}
    return [of_network("grid", s, 0.1 * s.place["kernel"]) for s in grid_models(sides)]


def scaling(points: Sequence[tuple[int, int, int]]) -> list[Result]:
    """Results of `scaling` at batch, channels and threads: a microsecond a sample and channel."""
    return [
        Result(
            *("scaling", "example CNN", "train", batch, threads, "auto", 0),
            tuple(
                Contender(n, seconds=(1e-6 * times * batch * channels / threads,) * ROUNDS)
                for n, times in {"gemmc": 1, "torch-tuned": 4}.items()
            ),
            facts={"channels": channels},
        )
        for batch, channels, threads in points
    ]


POINTS = [(1, 16, 2), (8, 16, 2), (128, 16, 2), (128, 4, 2), (128, 64, 2), (128, 16, 1)]
PEAKS = Peaks(
    1, 2e11, (Level("L1", 1000, 4e11, 4e11, 4e11), Level("memory", 1 << 20, 4e10, 3e10, 3e10))
)


def kernels() -> tuple[Kernel, ...]:
    """A product below the roof, one above it, and a kernel without products."""
    rows = {
        "matmul": Row("0", "matmul", "blas", 1.0, 100.0, 10.0, 0.5, 0.5, "compute", 1e8, 10**7),
        "conv": Row("0", "conv2d", "winograd", 1.0, 400.0, 10.0, 0.4, 2.0, "compute", 4e8, 10**7),
        "sum": Row("0", "sum", "loops", 1.0, 0.0, 10.0, 0.1, 0.3, "memory", 0.0, 10**7),
    }
    return tuple(Kernel(name, "some shape", row) for name, row in rows.items())


def reports() -> list[Report]:
    """One of each kind."""
    given = {"date": "2026-11-23", "machine": MACHINE}
    return [
        Report("gemmc bench spiral", results=(comparison(), alone()), **given),
        Report("gemmc bench sweep", results=tuple(sweep()), **given),
        Report("gemmc bench sweep --grid", results=tuple(grid()), **given),
        Report("gemmc bench scaling", results=tuple(scaling(POINTS)), **given),
        Report("gemmc bench kernels", kernels=kernels(), peaks=PEAKS, **given),
    ]
