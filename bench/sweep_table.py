"""The tables of a sweep: a line a network, the worst first, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..frontend.command_line import many
from .grid import GRID
from .results import Result
from .steps import COMPILED, TUNED, doubts

# `of torch`: gemmc's time, divided by that of torch-tuned, and its interval; times are of a step.
HEAD = "of torch (95% interval)     gemmc ms  torch ms  compile ms    MFLOP  batch   no  network"
SMALL = 50e6  # FLOP a step: below it PyTorch's time is mostly overhead


def worst_first(results: Sequence[Result]) -> list[Result]:
    """Results of a sweep by how long gemmc took beside torch-tuned, the longest first."""
    return sorted(results, key=lambda r: r.ratio(TUNED).median, reverse=True)


def line(result: Result) -> str:
    """One network in a line; HEAD says what its columns are."""
    ms = {c.name: 1e3 * c.median for c in result.contenders}
    compiled = f"{ms[COMPILED]:>11.4g}" if COMPILED in ms else f"{'-':>11}"
    times = f"{result.ours.median * 1e3:>9.4g} {ms[TUNED]:>9.4g} {compiled}"
    work = f"{result.facts['flops'] / 1e6:>8.1f} {result.batch:>6} {result.facts['number']:>4}"
    return f"{result.ratio(TUNED)!s:>26} {times} {work}  {result.title}"


def table(results: Sequence[Result]) -> str:
    """All networks, worst first, and below what they say together."""
    return "\n".join([HEAD, *map(line, worst_first(results)), "", *summary(results)])


def summary(results: Sequence[Result]) -> list[str]:
    """The medians and the worst, and for a grid the medians along its sides, in lines."""
    ratios, compiled = ratios_to(TUNED, results), ratios_to(COMPILED, results)
    small = ratios_to(TUNED, [r for r in results if r.facts["flops"] < SMALL])
    lines = [f"median of all {len(ratios)}: {np.median(ratios):.3f}"]
    lines += [f"median of {len(small)} below 50 MFLOP: {np.median(small):.3f}"] if small else []
    lines += [f"worst: {max(ratios):.3f}, slower than PyTorch: {sum(r > 1 for r in ratios)}"]
    if compiled:
        several = f"{np.median(compiled):.3f}, worst {max(compiled):.3f}"
        lines += [f"beside torch-compile, {many(len(compiled), 'network')}: median {several}"]
    for side in sides(results):
        medians = (f"{value}: {np.median(seen):.3f}" for value, seen in by_side(side, results))
        lines.append(f"median by {side:<9} {'   '.join(medians)}")
    return lines + doubts(results, lambda r: str(r.facts["number"]))


def ratios_to(name: str, results: Sequence[Result]) -> list[float]:
    """The ratios of those results in which contender `name` took part."""
    took_part = (r for r in results if name in {c.name for c in r.contenders})
    return [r.ratio(name).median for r in took_part]


def sides(results: Sequence[Result]) -> list[str]:
    """The sides of the grid along which results have several values; none for the sample."""
    return [side for side in GRID if len({r.facts.get(side) for r in results}) > 1]


def by_side(side: str, results: Sequence[Result]) -> list[tuple[int, list[float]]]:
    """(value on a side of the grid, the ratios of its networks), the smallest value first."""
    values = sorted({r.facts[side] for r in results})
    return [(v, ratios_to(TUNED, [r for r in results if r.facts[side] == v])) for v in values]
