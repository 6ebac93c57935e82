"""Figures of what a comparison took: time, memory, and how the times divide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..frontend.figures_style import INK, TEXT, WIDTH, dress, new_axes, one_axes, outlined
from ..ir import DataError
from .figures_looks import lines_behind, look_of, plain_numbers
from .report_parts import short
from .results import OURS, Contender, Result
from .tables import unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP = {"train": "Training step", "infer": "Inference call"}
# What bars show beside the time of a step: a field of Contender, its name, and what makes its unit.
BARS = {
    "first_seconds": ("Process start to first step, s", 1.0),
    "whole_seconds": ("Process start to trained model, s", 1.0),
    "peak_bytes": ("Peak memory, MB", 1e-6),
}
BAR = 0.62  # the height of a bar, of the distance between two


def plot_times(result: Result) -> list[Axes]:
    """Bars of time and memory: medians, with quartiles as error bars; an Axes for each measured."""
    unit, scale = unit_of(np.array(c.seconds) for c in result.contenders)
    step = f"{STEP[result.mode]}, batch {result.batch}, {unit}"
    bars = {"seconds": (step, scale), **BARS}
    drawn = [name for name in bars if any(getattr(c, name) for c in result.contenders)]
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    height = rows * (0.55 + 0.27 * len(result.contenders))
    axes = new_axes(columns, 0.6 * columns * WIDTH, height, rows)
    for ax in axes[len(drawn) :]:
        ax.remove()
    for ax, name in zip(axes, drawn, strict=False):
        title, scale = bars[name]
        _bars(ax, [(c, scale * np.array(getattr(c, name))) for c in result.contenders])
        dress(ax, title)
    return axes[: len(drawn)]


def plot_ratios(results: Sequence[Result], ax: Axes | None = None) -> Axes:
    """gemmc's time divided by each contender's, medians with their 95% intervals: left is faster.

    DataError if gemmc was measured alone.
    """
    pairs = [(r, c.name) for r in results for c in r.contenders if c.name != OURS]
    if not pairs:
        raise DataError("results: gemmc was measured alone, expected another contender")
    ax = one_axes(ax, 1.1 * WIDTH, 0.7 + 0.24 * len(pairs))
    for place, (result, name) in enumerate(pairs):
        ratio, look = result.ratio(name), look_of(name)
        ax.plot([ratio.low, ratio.high], [place, place], color=look.color, linewidth=2)
        ax.plot(ratio.median, place, look.marker, color=look.color, markersize=6)
        ax.annotate(
            short(ratio.median), (ratio.high, place), (5, 0), textcoords="offset points",
            va="center", fontsize=TEXT, **outlined(),
        )  # fmt: skip
    labels = [f"{r.model}, {r.mode}, batch {r.batch}: {name}" for r, name in pairs]
    ax.set_yticks(range(len(pairs)), labels)
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ratio_axis(ax, [x for r, name in pairs for x in r.ratio(name)])
    dress(ax, "gemmc's time divided by that of ...; left of 1, gemmc is faster")
    return ax


def ratio_axis(ax: Axes, ratios: Sequence[float]) -> None:
    """A logarithmic axis across that has all ratios and 1, with a line there."""
    ax.set_xscale("log")
    ax.set_xlim(min(*ratios, 0.9) / 1.3, max(*ratios, 1.1) * 1.6)
    plain_numbers(ax.xaxis)
    ax.axvline(1, color=INK, linewidth=1)
    lines_behind(ax, "x")


def _bars(ax: Axes, measured: Sequence[tuple[Contender, np.ndarray]]) -> None:
    most = max(np.percentile(values, 75) for _, values in measured if len(values))
    for place, (contender, values) in enumerate(measured):
        if not len(values):
            ax.text(0.01 * most, place, "not measured", va="center", fontsize=TEXT)
            continue
        look = look_of(contender.name)
        low, middle, high = np.percentile(values, (25, 50, 75))
        ax.barh(
            place, middle, BAR, color=look.color, hatch=look.hatch, edgecolor="white", linewidth=0,
            xerr=[[middle - low], [high - middle]], error_kw={"ecolor": INK, "capsize": 2.5},
        )  # fmt: skip
        ax.annotate(
            short(middle), (high, place), (4, 0), textcoords="offset points", va="center",
            fontsize=TEXT,
        )  # fmt: skip
    ax.set_yticks(range(len(measured)), [c.name for c, _ in measured])
    ax.set_ylim(len(measured) - 0.5, -0.5)
    ax.set_xlim(0, 1.18 * most)
    lines_behind(ax, "x")
