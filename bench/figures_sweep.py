"""Figures of many networks: ratios of a sweep, the worst first, along a grid, and scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..frontend.figures_style import COLORS, INK, TEXT, WIDTH, Look, dress, new_axes, one_axes
from .figures_looks import lines_behind, look_of, plain_numbers
from .figures_time import ratio_axis
from .results import Result
from .scaling import Point, along, point_of, staying
from .steps import COMPILED, TUNED
from .sweep_table import by_side, ratios_to, sides, worst_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 60  # networks that have a line of their own, the worst of them
LONGEST = 68  # letters of a network's name


def plot_sweep(results: Sequence[Result], ax: Axes | None = None) -> Axes:
    """gemmc's time beside torch-tuned's, a line a network, the worst first, up to 60 of them.

    Diamonds are beside torch-compile, where it took part.
    """
    shown = worst_first(results)[:SHOWN]
    ax = one_axes(ax, 1.25 * WIDTH, 0.8 + 0.135 * len(shown))
    for name in (COMPILED, TUNED):
        look, first = look_of(name), True
        for place, result in enumerate(shown):
            if name not in {c.name for c in result.contenders}:
                continue
            median, low, high = result.ratio(name)
            label = f"beside {name}" if first else None
            ax.plot([low, high], [place, place], color=look.color, linewidth=1)
            ax.plot(median, place, look.marker, color=look.color, markersize=4, label=label)
            first = False
    names = [_short(f"{r.facts['number']}: {r.title}", f", batch {r.batch}") for r in shown]
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.3, -0.7)
    ratio_axis(ax, ratios_to(TUNED, results) + ratios_to(COMPILED, results))
    which = f"the worst {len(shown)} of {len(results)}" if len(results) > SHOWN else "worst first"
    dress(ax, f"gemmc's time divided by PyTorch's, {which}")
    ax.tick_params(axis="y", labelsize=0.75 * TEXT)
    ax.legend(fontsize=TEXT, frameon=False, loc="upper left")
    return ax


def plot_work(results: Sequence[Result], ax: Axes | None = None) -> Axes:
    """gemmc's time beside torch-tuned's over the FLOP of a step, a mark a network."""
    ax = one_axes(ax, WIDTH, 0.6 * WIDTH)
    kinds = {"convolutions": ("conv", COLORS[0], "o"), "Linear layers only": ("", COLORS[6], "s")}
    for label, (word, color, marker) in kinds.items():
        of_kind = [r for r in results if ("conv" in r.title) == bool(word)]
        flops = [r.facts["flops"] for r in of_kind]
        look: Look = {"color": color, "markersize": 5, "markeredgecolor": "white"}
        if of_kind:
            ax.plot(flops, ratios_to(TUNED, of_kind), marker, label=label, **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhline(1, color=INK, linewidth=1)
    plain_numbers(ax.yaxis)
    dress(ax, "gemmc's time divided by torch-tuned's", "FLOP of a training step", "below 1: faster")
    lines_behind(ax)
    ax.legend(fontsize=TEXT, frameon=False)
    return ax


def plot_grid(results: Sequence[Result]) -> list[Axes]:
    """gemmc's time beside torch-tuned's along the sides of a grid: networks, and their medians."""
    drawn = sides(results)
    axes = new_axes(len(drawn), 1.25 * WIDTH, 0.42 * WIDTH)
    rng = np.random.default_rng(0)  # networks side by side, not over each other
    for ax, side in zip(axes, drawn, strict=True):
        for place, (_, ratios) in enumerate(by_side(side, results)):
            beside = place + rng.uniform(-0.2, 0.2, len(ratios))
            ax.plot(beside, ratios, "o", color=COLORS[0], markersize=2.5, alpha=0.6)
            ax.plot([place - 0.32, place + 0.32], [np.median(ratios)] * 2, color=INK, linewidth=2)
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
        ax.set_xticks(range(place + 1), [str(value) for value, _ in by_side(side, results)])
        ax.axhline(1, color=INK, linewidth=0.8, linestyle="--")
        dress(ax, side)
        lines_behind(ax, "y")
        ax.sharey(axes[0])
        ax.tick_params(labelleft=ax is axes[0])
    axes[0].set_ylabel("gemmc / torch-tuned", fontsize=TEXT)
    return axes


def plot_scaling(results: Sequence[Result]) -> list[Axes]:
    """Time a sample over batch size, channels and threads, medians with quartiles."""
    drawn = [side for side in Point._fields if len(along(side, results)) > 1]
    axes = new_axes(len(drawn), 0.42 * WIDTH * len(drawn), 0.45 * WIDTH)
    for ax, side in zip(axes, drawn, strict=True):
        seen = along(side, results)
        values = [getattr(point_of(r), side) for r in seen]
        for name in (c.name for c in seen[0].contenders):
            us = [1e6 * np.array(r.contender(name).seconds) / r.batch for r in seen]
            low, middle, high = np.array([np.percentile(u, (25, 50, 75)) for u in us]).T
            look = look_of(name)
            ax.errorbar(
                values, middle, [middle - low, high - middle], color=look.color, label=name,
                marker=look.marker, linestyle=look.line, capsize=2.5, markersize=5,
            )  # fmt: skip
        _powers(ax, values)
        dress(ax, f"{side.capitalize()}; {staying(side, point_of(seen[0]))}")
        lines_behind(ax)
    axes[0].set_ylabel("us a sample, training", fontsize=TEXT)
    axes[0].legend(fontsize=TEXT, frameon=False)
    return axes


def _short(text: str, end: str) -> str:
    room = LONGEST - len(end)
    return (text if len(text) <= room else f"{text[: room - 2]} …") + end


def _powers(ax: Axes, values: Sequence[int]) -> None:
    """Logarithmic axes, with ticks at the values that were measured."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(values, [str(v) for v in values])
    ax.minorticks_off()
    plain_numbers(ax.yaxis)
