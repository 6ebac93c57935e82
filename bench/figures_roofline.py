"""The roofline: kernels by their intensity and speed, below what the machine can do at most.

Source: Williams, Waterman, Patterson, "Roofline", CACM 52 (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..frontend.figures_style import (
    COLORS,
    FAINT,
    INK,
    MARKERS,
    TEXT,
    WIDTH,
    Look,
    dress,
    one_axes,
    outlined,
)
from ..ir import DataError
from ..runtime.native.peaks import Peaks
from .figures_looks import LINES, lines_behind, plain_numbers
from .results import Kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_roofline(kernels: Sequence[Kernel], peaks: Peaks, ax: Axes | None = None) -> Axes:
    """GFLOP/s over FLOP a byte, a mark a kernel that multiplies, by its form; roofs as lines.

    A roof a cache and memory: what could be done if every byte came from there. What does less work
    than is counted, as Winograd's form, may stand above them. DataError if no kernel multiplies.
    """
    shown = [k for k in kernels if k.row.flops and k.row.ms]
    if not shown:
        raise DataError("kernels: none has a product, expected some for a roofline")
    ax = one_axes(ax, 1.1 * WIDTH, 0.7 * WIDTH)
    intensity = np.array([k.row.flops / k.row.nbytes for k in shown])
    least = min(float(intensity.min()), peaks.flops / max(peaks.bytes.values())) / 4
    _roofs(ax, peaks, least, float(intensity.max()) * 2)
    forms = list(dict.fromkeys(k.row.form for k in shown))
    for form, color, marker in zip(forms, COLORS, MARKERS, strict=False):
        at = [i for i, k in enumerate(shown) if k.row.form == form]
        gflops = [shown[i].row.gflops for i in at]
        look: Look = {"color": color, "markersize": 5.5, "markeredgecolor": "white"}
        ax.plot(intensity[at], gflops, marker, label=form, **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_numbers(ax.xaxis)
    plain_numbers(ax.yaxis)
    workers = "one core" if peaks.workers == 1 else f"{peaks.workers} cores"
    dress(ax, f"Products and convolutions on {workers}", "FLOP a byte", "GFLOP/s")
    lines_behind(ax)
    ax.legend(fontsize=TEXT, frameon=False, loc="lower right")
    return ax


def _roofs(ax: Axes, peaks: Peaks, least: float, most: float) -> None:
    """A line for each level, up to the roof that all share, with its name and bytes a second."""
    for place, (level, nbytes) in enumerate(peaks.bytes.items()):
        knee = peaks.flops / nbytes  # FLOP a byte from which on the level does not limit
        roof = [nbytes * least / 1e9, peaks.flops / 1e9]
        ax.plot([least, knee], roof, LINES[place % len(LINES)], color=FAINT, linewidth=1.2)
        ax.annotate(
            f"{level}, {nbytes / 1e9:.0f} GB/s", (0.75 * knee, 0.75 * peaks.flops / 1e9), (0, 3),
            textcoords="offset points", fontsize=TEXT, ha="right", rotation=45,
            rotation_mode="anchor", transform_rotates_text=True, **outlined(),
        )  # fmt: skip
    ax.plot([least, most], [peaks.flops / 1e9] * 2, color=INK, linewidth=1.2)
    ax.annotate(
        f"{peaks.flops / 1e9:.0f} GFLOP/s, multiply-adds", (least, peaks.flops / 1e9), (0, 4),
        textcoords="offset points", fontsize=TEXT, **outlined(),
    )  # fmt: skip
