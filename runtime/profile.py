"""Where the time of a program goes, step by step and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ir import Node
from ..passes.plan import Step
from .work import flops


@dataclass(frozen=True)
class Row:
    """One step: its time, work and traffic. `form` says how it runs: "blas", "numpy" or "loops"."""

    layer: str
    op: str
    form: str
    ms: float
    gflops: float  # 10^9 floating-point operations a second; products only
    gbps: float  # 10^9 bytes of operands and results a second
    share: float  # of the whole


@dataclass(frozen=True)
class Profile:
    """The rows of a step, in order; prints as a table by step, `by_layer()` as one by layer."""

    rows: tuple[Row, ...]

    @property
    def ms(self) -> float:
        """The whole step."""
        return sum(r.ms for r in self.rows)

    @property
    def blas_share(self) -> float:
        """The share of the products' floating-point operations that the BLAS library did."""
        work = {r: r.gflops * r.ms for r in self.rows}
        total = sum(work.values())
        return sum(w for r, w in work.items() if r.form == "blas") / total if total else 0.0

    def by_layer(self) -> str:
        """A table of the time each layer takes, forward and backward ('), the longest first."""
        layers: dict[str, float] = {}
        for r in self.rows:
            layers[r.layer] = layers.get(r.layer, 0.0) + r.ms
        ordered = sorted(layers.items(), key=lambda item: -item[1])
        lines = [f"{'layer':<20} {'ms':>8} {'share':>6}"]
        lines += [f"{k:<20} {ms:>8.3f} {ms / self.ms:>6.1%}" for k, ms in ordered]
        return "\n".join([*lines, f"{'total':<20} {self.ms:>8.3f}"])

    def __str__(self) -> str:
        lines = [f"{'layer':<18} {'op':<26} {'form':<8} {'ms':>8} {'GFLOP/s':>8} {'GB/s':>7} share"]
        for r in self.rows:
            rates = f"{r.gflops:>8.1f} {r.gbps:>7.1f} {r.share:>6.1%}"
            lines.append(f"{r.layer:<18} {r.op:<26} {r.form:<8} {r.ms:>8.3f} {rates}")
        blas = f"BLAS did {self.blas_share:.0%} of the products' FLOPs"
        return "\n".join([*lines, f"{'total':<54} {self.ms:>8.3f}", blas])


def profile_of(spent: Mapping[Step, float], rows: int, form: Callable[[Node], str]) -> Profile:
    """The profile of steps that took so many seconds for `rows` rows; `form` says how each runs."""
    total = sum(spent.values())
    return Profile(tuple(_row(step, rows, s, total, form(step.node)) for step, s in spent.items()))


def _row(step: Step, rows: int, seconds: float, total: float, form: str) -> Row:
    values = (*step.operands, *step.results)
    nbytes = sum(v.type.nbytes(rows) for v in values)
    work = flops(step.node, rows)
    loc = step.node.loc or "(shared)"
    rates = (work / seconds / 1e9, nbytes / seconds / 1e9) if seconds else (0.0, 0.0)
    return Row(loc, step.node.op, form, seconds * 1e3, *rates, seconds / total)
