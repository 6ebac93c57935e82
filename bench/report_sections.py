"""What a page says about a report: a section a comparison; a sweep, a grid or scaling is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..frontend.command_line import many
from ..runtime.native.peaks import Peaks
from .figures import plot_curves, plot_planes
from .figures_roofline import plot_roofline
from .figures_sweep import plot_grid, plot_scaling, plot_sweep, plot_work
from .figures_time import plot_ratios, plot_times
from .report_parts import Drawing, Row, Section, Table, short
from .results import OURS, Contender, Kernel, Report, Result
from .scaling import doubtful
from .steps import COMPILED, TUNED
from .sweep_table import sides, summary, worst_first
from .tables import unit_of

ROUNDS = "Medians over the rounds; error bars are quartiles."


def sections(report: Report) -> list[Section]:
    """The sections of a report; each of its results is in one."""
    makes = {"sweep": _sweep, "grid": _sweep, "scaling": _scaling}
    models = [r for r in report.results if r.model not in makes]
    made = [_comparison(result) for result in models]
    if sum(len(r.contenders) - 1 for r in models) > 1:
        caption = "Medians over the rounds, and intervals that hold them with 95% confidence."
        made.append(
            Section("All ratios", drawings=(Drawing("ratios", caption, plot_ratios(models)),))
        )
    for kind, make in makes.items():
        if of_kind := [r for r in report.results if r.model == kind]:
            made.append(make(of_kind))
    if report.kernels and report.peaks:
        made.append(_kernels(report.kernels, report.peaks))
    return made


def _comparison(result: Result) -> Section:
    what = "training" if result.mode == "train" else "inference"
    threads = many(result.threads, "thread")
    lines = [f"Batch {result.batch}, {threads}, {many(len(result.ours.seconds), 'round')}."]
    if result.epochs:
        lines.append(
            f"The whole training is {many(result.epochs, 'epoch')}, each with a validation."
        )
    lines += [f"Did not take part: {name}: {why}" for name, why in result.absent.items()]
    return Section(
        f"{result.title}: {what}",
        tuple(lines),
        result.warnings,
        (_times(result),),
        tuple(_drawings(result)),
    )


def _drawings(result: Result) -> list[Drawing]:
    name = f"{result.model}_{result.mode}".replace("-", "_")  # a file's NAME may hold more
    name = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    drawn = [Drawing(f"{name}_times", ROUNDS, plot_times(result)[0])]
    histories = {c.name: c.history for c in result.contenders if c.history.loss}
    if histories:
        caption = "Loss and accuracy by epoch, over each other; the lines below are broader."
        drawn.append(Drawing(f"{name}_curves", caption, plot_curves(histories)[0]))
    if any(c.plane for c in result.contenders):
        caption = "What the trained networks say everywhere in the plane."
        drawn.append(Drawing(f"{name}_planes", caption, plot_planes(result)[0]))
    return drawn


def _times(result: Result) -> Table:
    """A row a contender, without the columns that nobody has."""
    unit, scale = unit_of(np.array(c.seconds) for c in result.contenders)
    head = (
        *("", f"{unit} a {'step' if result.mode == 'train' else 'call'}", "quartiles"),
        *("gemmc / it", "95% interval", "compile s", "first s", "whole s", "peak MB"),
        *("test accuracy", "test loss"),
    )
    rows = [_row(result, c, scale) for c in result.contenders]
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    chosen = [tuple(row[i] for i in kept) for row in (head, *rows)]
    return Table(chosen[0], tuple(chosen[1:]))


def _row(result: Result, c: Contender, scale: float) -> Row:
    low, high = np.percentile(scale * np.array(c.seconds), (25, 75))
    ratio = result.ratio(c.name)
    beside = ("", "")
    if c.name != OURS:
        beside = (short(ratio.median), f"{short(ratio.low)} to {short(ratio.high)}")
    return (
        *(c.name, short(scale * c.median), f"{short(low)} to {short(high)}", *beside),
        *(_median(s) for s in (c.compile_seconds, c.first_seconds, c.whole_seconds)),
        f"{np.median(c.peak_bytes) / 1e6:.0f}" if c.peak_bytes else "",
        f"{np.mean(c.test_accuracies):.2%}" if c.test_accuracies else "",
        f"{np.mean(c.test_losses):.4f}" if c.test_losses else "",
    )


def _median(seconds: Sequence[float]) -> str:
    return f"{np.median(seconds):.2f}" if seconds else ""


def _sweep(results: Sequence[Result]) -> Section:
    kind = results[0].model
    found = summary(results)
    caption = "gemmc's time divided by PyTorch's, worst first, with 95% intervals."
    drawn = [Drawing(f"{kind}_ratios", caption, plot_sweep(results))]
    drawn.append(Drawing(f"{kind}_work", "The same over the work of a step.", plot_work(results)))
    if sides(results):
        caption = "The same along each side of the grid: a dot a network, and medians."
        drawn.append(Drawing(f"{kind}_sides", caption, plot_grid(results)[0]))
    sort = "A grid" if kind == "grid" else "A sample"
    return Section(
        f"{sort} of {many(len(results), 'network')}: training",
        tuple(line for line in found if not line.startswith("!")),
        _warnings(found),
        (_networks(results),),
        tuple(drawn),
    )


def _warnings(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line.removeprefix("! ") for line in lines if line.startswith("!"))


def _networks(results: Sequence[Result]) -> Table:
    head = (
        *("no.", "of torch-tuned", "95% interval", "gemmc ms", "torch-tuned ms"),
        *("torch-compile ms", "MFLOP", "batch", "network"),
    )
    rows = []
    for r in worst_first(results):
        ms = {c.name: short(1e3 * c.median) for c in r.contenders}
        median, low, high = (short(value) for value in r.ratio(TUNED))
        times = (ms[OURS], ms[TUNED], ms.get(COMPILED, ""))
        work = (f"{r.facts['flops'] / 1e6:.1f}", f"{r.batch}", r.title)
        rows.append((f"{r.facts['number']}", median, f"{low} to {high}", *times, *work))
    return Table(head, tuple(rows), ends_in_words=True)


def _scaling(results: Sequence[Result]) -> Section:
    names = [c.name for c in results[0].contenders]
    head = ("channels", "batch", "threads", *(f"{name} us a sample" for name in names))
    rows = []
    for r in results:
        us = (short(1e6 * c.median / r.batch) for c in r.contenders)
        rows.append((f"{r.facts['channels']}", f"{r.batch}", f"{r.threads}", *us))
    return Section(
        "The example CNN over batch size, channels and threads: training",
        tables=(Table(head, tuple(rows)),),
        warnings=_warnings(doubtful(results)),
        drawings=(Drawing("scaling", ROUNDS, plot_scaling(results)[0]),),
    )


def _kernels(kernels: Sequence[Kernel], peaks: Peaks) -> Section:
    head = ("kernel", "form", "us", "GFLOP/s", "GB/s", "of its limit", "bound by", "shape")
    rows = []
    for k in sorted(kernels, key=lambda k: k.row.fraction):
        gflops = f"{k.row.gflops:.1f}" if k.row.flops else ""
        rates = (f"{1e3 * k.row.ms:.2f}", gflops, f"{k.row.gbps:.1f}", f"{k.row.fraction:.0%}")
        rows.append((k.kernel, k.row.form, *rates, k.row.bound, k.shape))
    caption = "Each product and convolution, below what the machine does at most in the same run."
    drawn = [plot_roofline(kernels, peaks)] if any(k.row.flops for k in kernels) else []
    return Section(
        "Kernels beside the machine's peak",
        tuple(str(peaks).split("\n")),
        tables=(Table(head, tuple(rows), ends_in_words=True),),
        drawings=tuple(Drawing("roofline", caption, ax) for ax in drawn),
    )
