"""A comparison as text: times with their spread, what comes before and after them, and doubts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..frontend.command_line import many
from .peers import TORCH
from .results import Contender, Result, median_interval
from .same import STEPS, check_losses, reference

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def table(result: Result) -> str:
    """All of a result, as `gemmc bench` prints it."""
    what = "a training step" if result.mode == "train" else "a call, inference"
    rounds = many(len(result.ours.seconds), "round")
    ways = f"batch {result.batch}, {many(result.threads, 'thread')}, {rounds}"
    seconds = {c.name: np.array(c.seconds) for c in result.contenders}
    torches = [seconds[name] for name in TORCH if name in seconds]
    if len(torches) > 1:  # in each round the fastest
        seconds["best torch"] = np.min(torches, axis=0)
    parts = [
        f"{result.title}: {what}, {ways}",
        rows(seconds, *unit_of(seconds.values()), "a step" if result.mode == "train" else "a call"),
        _whole(result),
        *_notes(result),
    ]
    return "\n\n".join(parts)


def unit_of(samples: Iterable[np.ndarray]) -> tuple[str, float]:
    """(unit, units a second) in which the smallest median is at least 1."""
    least = min(float(np.median(s)) for s in samples)
    seconds, unit = next(((s, u) for s, u in UNITS if least >= s), UNITS[-1])
    return unit, 1 / seconds


def rows(seconds: Mapping[str, np.ndarray], unit: str, scale: float, of: str = "") -> str:
    """A row a contender: its median time, quartiles, and the first one's time divided by its own.

    `scale` turns seconds of one piece of work into `unit`.
    """
    ours, *_ = seconds
    head = f"{unit} {of}".rstrip()
    lines = [f"{'':<14} {head:>10}   {'quartiles':<20} {ours} / it (95% interval)"]
    for name, times in seconds.items():
        low, middle, high = np.percentile(scale * times, (25, 50, 75))
        quartiles = f"{low:.4g} to {high:.4g}"
        divided = "" if name == ours else ratio(seconds[ours], times)
        lines.append(f"{name:<14} {middle:>10.4g}   {quartiles:<20} {divided}".rstrip())
    return "\n".join(lines)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The median of the rounds' ratios and its interval: "0.52 (0.50 to 0.55)"."""
    ratios = ours / theirs
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def _whole(result: Result) -> str:
    """What comes before the first step, and the training as a whole."""
    head = f"{'':<14} {'compile s':>10} {'first s':>8} {'peak MB':>8}"
    if result.epochs:
        head += f" {'whole s':>8} {'accuracy':>9} {'loss':>7}"
    return "\n".join([head, *(_facts(c, result.epochs) for c in result.contenders)])


def _facts(c: Contender, epochs: int) -> str:
    compiled, first = (np.median(s) for s in (c.compile_seconds, c.first_seconds))
    line = f"{c.name:<14} {compiled:>10.2f} {first:>8.2f} {max(c.peak_bytes) / 1e6:>8.0f}"
    if not epochs:
        return line
    accuracy = f"{np.mean(c.test_accuracies):.2%}" if c.test_accuracies else ""
    tested = f"{np.median(c.whole_seconds):>8.2f} {accuracy:>9} {np.mean(c.test_losses):>7.3f}"
    return f"{line} {tested}"


def _notes(result: Result) -> list[str]:
    what = "step" if result.mode == "train" else "call"
    notes = [
        f"compile: model made, and first {what}; first: from process start through that {what}; "
        "peak: resident memory"
    ]
    if result.epochs:
        runs = len(result.ours.whole_seconds)
        times = "" if runs == 1 else f"; medians and means over {runs} seeds"
        epochs = many(result.epochs, "epoch")
        notes.append(
            f"whole: from process start through {epochs} with validation; then its test{times}"
        )
    if len(result.contenders) > 1 and result.ours.first_losses:
        losses = {c.name: c.first_losses for c in result.contenders if c.first_losses}
        notes.append(
            f"the same training: losses of the first {STEPS} steps, dropout off, are at most "
            f"{check_losses(losses):.0e} from {reference(list(losses))}'s"
        )
    lines = ["\n".join(notes)]
    if result.absent:
        lines.append("\n".join(f"not here: {name}: {why}" for name, why in result.absent.items()))
    if result.warnings:
        lines.append("\n".join(f"! {warning}" for warning in result.warnings))
    return lines
