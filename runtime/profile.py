"""Where the time of a program goes, step by step and layer by layer, beside what limits it.

A runtime measures seconds; here they become rows. What a step could do at best follows from its
arithmetic, the bytes it touches and the machine's peaks: the roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from ..ir import Node
from ..passes.plan import Loop, Plan, Step, Value
from .native.peaks import Peaks
from .timeline import Span, write_trace
from .work import flops

OTHER, SHARED = "(batch)", "(shared)"  # layers of what is no step, and of steps of no layer
FASTEST = 0.1  # of all runs count: what disturbs a run can only make it slower
OVERHEAD = 0.1  # of the limit: what does less is held up by something else


@dataclass(frozen=True)
class Spent:
    """Seconds that a step took: of all workers on average, and of the one that took longest."""

    mean: float
    longest: float


@dataclass(frozen=True)
class Row:
    """One step: its time, work and traffic. `form` says how it runs: "blas", "numpy", "direct"...

    `ms` is a mean over workers; rates are those of all together. What a step can do at best is
    given by its `flops` or its `nbytes`: `bound` says by which, "compute", "L1", "L2", "L3" or
    "memory", and `fraction` how much of that it reaches. What reaches little is bound by
    "overhead", and so is a row that is no step: what happens around the steps. The Winograd form
    and gradients behind a max-pool do less than their `flops`, and may go beyond 1.
    """

    layer: str
    op: str
    form: str
    ms: float
    gflops: float  # 10^9 floating-point operations a second; products only
    gbps: float  # 10^9 bytes of operands and results a second
    share: float  # of the whole
    fraction: float = 0.0
    bound: str = "overhead"
    flops: float = 0.0
    nbytes: int = 0


@dataclass(frozen=True)
class Profile:
    """The rows of a step, in order; prints as a table by step, `by_layer()` as one by layer.

    `step_ms` is how long a step takes when nothing but the whole is timed. `spans` are what each
    worker did in a few batches, for `trace`.
    """

    rows: tuple[Row, ...]
    step_ms: float
    peaks: Peaks
    spans: tuple[Span, ...] = ()

    @cached_property
    def ms(self) -> float:
        """All rows together."""
        return sum(r.ms for r in self.rows)

    @property
    def blas_share(self) -> float:
        """The share of the products' floating-point operations that the BLAS library did."""
        total = sum(r.flops for r in self.rows)
        return sum(r.flops for r in self.rows if r.form == "blas") / total if total else 0.0

    def by_layer(self) -> str:
        """A table of the time each layer takes, forward and backward ('), the longest first."""
        layers: dict[str, float] = {}
        for r in self.rows:
            layers[r.layer] = layers.get(r.layer, 0.0) + r.ms
        ordered = sorted(layers.items(), key=lambda item: -item[1])
        unit, scale = self._unit
        lines = [f"{'layer':<20} {unit:>8} {'share':>6}"]
        lines += [f"{k:<20} {ms * scale:>8.3f} {ms / self.ms:>6.1%}" for k, ms in ordered]
        return "\n".join([*lines, f"{'total':<20} {self.ms * scale:>8.3f}"])

    def as_dict(self) -> dict[str, Any]:
        """Rows, peaks and the step's time, for JSON."""
        kept = {"rows": [asdict(r) for r in self.rows], "peaks": asdict(self.peaks)}
        return {"ms": self.ms, "step_ms": self.step_ms, **kept}

    def trace(self, path: str | PathLike) -> None:
        """Writes what each worker did in a few batches, for Perfetto or chrome://tracing."""
        write_trace(path, self.spans)

    def __str__(self) -> str:
        unit, scale = self._unit
        head = f"{'layer':<18} {'op':<26} {'form':<8} {unit:>8} {'share':>6} {'GFLOP/s':>8}"
        lines = [f"{head} {'GB/s':>7} {'of limit':>8} bound by"]
        for r in self.rows:
            times = f"{r.ms * scale:>8.3f} {r.share:>6.1%}"
            rates = f"{r.gflops or '':>8.1f}" if r.gflops else " " * 8
            rates += f" {r.gbps:>7.1f}" if r.gbps else " " * 8
            limit = f"{r.fraction:>8.0%}" if r.nbytes else " " * 8
            lines.append(f"{r.layer:<18} {r.op:<26} {r.form:<8} {times} {rates} {limit} {r.bound}")
        return "\n".join([*lines, f"{'total':<54} {self.ms * scale:>8.3f}", "", *self._notes()])

    def _notes(self) -> Iterator[str]:
        unit, scale = self._unit
        yield (
            f"a step takes {self.step_ms * scale:.4g} {unit} when only the whole is timed: "
            f"the rows add up to {self.ms / self.step_ms:.1%} of that"
        )
        yield f"BLAS did {self.blas_share:.0%} of the products' FLOPs"
        yield "this machine at most:"
        yield from (f"  {line}" for line in str(self.peaks).splitlines())

    @property
    def _unit(self) -> tuple[str, float]:
        """In what times are printed, and how many of it a millisecond is."""
        return ("ms", 1.0) if self.ms >= 1 else ("us", 1e3)


def profile_of(
    plan: Plan,
    rows: int,
    spent: Mapping[Step | str, Spent],
    form: Callable[[Node], str],
    step_seconds: float,
    peaks: Peaks,
    spans: tuple[Span, ...] = (),
) -> Profile:
    """The profile of a plan's steps, and of what else takes time, for a batch of `rows` rows.

    `form` says how a node runs, `step_seconds` how long all takes when nothing else is timed.
    """
    total = sum(s.mean for s in spent.values()) or 1.0
    tiles = {s: part.tile for part in plan.parts if isinstance(part, Loop) for s in part.steps}
    found = []
    for what, seconds in spent.items():
        if isinstance(what, str):
            share = seconds.mean / total
            found.append(Row(*named(what), "", seconds.mean * 1e3, 0.0, 0.0, share))
        else:
            at_once = min(tiles.get(what, rows), rows)
            found.append(_row(what, rows, at_once, seconds, total, form(what.node), peaks))
    return Profile(tuple(found), step_seconds * 1e3, peaks, spans)


def fastest(whole: np.ndarray) -> np.ndarray:
    """Which of some runs count, given how long they took."""
    return whole <= np.quantile(whole, FASTEST, method="higher")


def named(what: Step | str) -> tuple[str, str]:
    """The layer and op of a step, or of what else takes time."""
    if isinstance(what, str):
        return OTHER, what
    return what.node.loc or SHARED, what.node.op


def _row(
    step: Step, rows: int, at_once: int, spent: Spent, total: float, form: str, peaks: Peaks
) -> Row:
    work, nbytes = flops(step.node, rows), _nbytes(step, rows)
    workers = peaks.workers if at_once < rows else 1  # each has a tile of its own
    level = peaks.level(_nbytes(step, at_once) * workers)
    updated = 2 * sum(v.type.nbytes(rows) for v in step.results if _in_place(step, v))
    moving = (nbytes - updated) / level.stream + updated / level.update
    least = {"compute": work / peaks.flops, level.name: moving}
    bound, seconds = max(least, key=least.__getitem__), spent.longest
    fraction = least[bound] / seconds if seconds else 0.0
    gflops, gbps = (x / seconds / 1e9 if seconds else 0.0 for x in (work, nbytes))
    rates = (spent.mean * 1e3, gflops, gbps, spent.mean / total, fraction)
    by = bound if fraction >= OVERHEAD else "overhead"
    return Row(*named(step), form, *rates, bound=by, flops=work, nbytes=nbytes)


def _in_place(step: Step, result: Value) -> bool:
    return any(x.buffer is result.buffer for x in step.operands)


def _nbytes(step: Step, rows: int) -> int:
    return sum(v.type.nbytes(rows) for v in (*step.operands, *step.results))
