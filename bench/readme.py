"""The table of results in README.md, from reports that are kept: `make results` runs this.

    python -m gemmc.bench.readme README.md bench/measured/*.json

It replaces what lies between two marks, so that nobody writes a figure by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..frontend.command_line import many
from ..ir import DataError
from .results import Contender, Report, Result, load
from .steps import TUNED
from .tables import unit_of

BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
DOUBTS = "\\* The machine was not quiet, or rounds did not agree: the report's warnings say what."
Row = tuple[str, str, str, str]


def refresh(text: str, reports: Sequence[Report]) -> str:
    """A page with the results of `reports` between its marks; DataError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"the page: has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{markdown(reports)}\n{END}{after}"


def markdown(reports: Sequence[Report]) -> str:
    """A table for each machine and day, and below the commands that measured it."""
    groups: dict[str, list[Report]] = {}
    for report in reports:
        machine = report.machine
        versions = f"PyTorch {machine.versions['torch']}, " if "torch" in machine.versions else ""
        head = f"{machine.cpu}, {many(machine.cores, 'core')}, {versions}{report.date}"
        groups.setdefault(head, []).append(report)
    return "\n\n".join(_group(head, group) for head, group in groups.items())


def _group(head: str, reports: Sequence[Report]) -> str:
    rows = [row for report in reports for row in _rows(report)]
    lines = [f"| {head} | gemmc | fastest other | gemmc / it |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    commands = ", ".join(f"`{report.command}`" for report in reports)
    doubts = [DOUBTS] if any("*" in row[-1] for row in rows) else []
    return "\n".join([*lines, "", f"Measured by {commands}.", *doubts])


def _rows(report: Report) -> Iterator[Row]:
    networks = [r for r in report.results if r.model == "sweep"]
    if networks:
        yield _sweep(networks)
    for result in report.results:
        if result.model not in ("sweep", "grid", "scaling") and len(result.contenders) > 1:
            yield from _model(result)


def _model(result: Result) -> Iterator[Row]:
    other = min(result.contenders[1:], key=lambda c: c.median)
    what = "training step" if result.mode == "train" else "inference"
    star = " \\*" if result.warnings else ""
    yield (
        f"{result.title}: {what}, batch {result.batch}, {many(result.threads, 'thread')}",
        _time(result.ours.seconds),
        f"{_time(other.seconds)}, {other.name}",
        f"{result.ratio(other.name)}{star}",
    )
    if result.epochs:
        soonest = min(result.contenders[1:], key=lambda c: float(np.median(c.whole_seconds)))
        yield (
            f"the same, {many(result.epochs, 'epoch')} from process start; test accuracy",
            _whole(result.ours),
            f"{_whole(soonest)}, {soonest.name}",
            f"{np.median(result.ours.whole_seconds) / np.median(soonest.whole_seconds):.2f}{star}",
        )


def _sweep(results: Sequence[Result]) -> Row:
    ratios = [result.ratio(TUNED).median for result in results]
    star = " \\*" if any(result.warnings for result in results) else ""
    said = f"median {np.median(ratios):.2f}, worst {max(ratios):.2f}{star}"
    return f"{many(len(results), 'network')}, training step", "", TUNED, said


def _time(seconds: Sequence[float]) -> str:
    samples = np.array(seconds)
    unit, scale = unit_of([samples])
    return f"{scale * np.median(samples):.3g} {unit}"


def _whole(contender: Contender) -> str:
    accuracy = f"; {np.mean(contender.test_accuracies):.1%}" if contender.test_accuracies else ""
    return f"{_time(contender.whole_seconds)}{accuracy}"


def main(page: str, *files: str) -> None:
    """Writes the results of `files` into a page."""
    path = Path(page)
    path.write_text(refresh(path.read_text(), [load(file) for file in files]))


if __name__ == "__main__":
    main(*sys.argv[1:])
