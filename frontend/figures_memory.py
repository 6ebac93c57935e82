"""The figure of a plan's memory: steps across, arena up, a rectangle a buffer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir import DataError
from ..passes.memory import Buffer, lower_bound
from ..passes.plan import Loop, Plan
from .figures_style import (
    COLORS,
    INK,
    TEXT,
    WIDTH,
    Look,
    dress,
    one_axes,
    outlined,
    text_size,
    tint,
    whole_steps,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {  # of buffers: colour, share of it on white, and hatch, in the order of the key
    "input": (COLORS[7], 0.4, ""),
    "forward": (COLORS[0], 0.45, ""),
    "backward": (COLORS[6], 0.65, ""),
    "update": (COLORS[4], 0.8, ""),
    "scratch": (COLORS[3], 0.25, "////"),
}
PEAK = "black"
LABELLED = 10  # the largest buffers: each has its label inside, or a number and a line in the key
KEY_COLUMNS = 105  # characters of TEXT size across the figure
Point = tuple[float, float]


def plot_memory(plan: Plan, ax: Axes | None = None) -> Axes:
    """The buffers of a plan's arena: when each is alive, and where; the peak of live bytes marked.

    A buffer takes the steps from its first to its last, both included. Those that can hold it carry
    the op and layer that made them, other large ones a number. Bars above the arena are loops over
    tiles of rows. What the model owns (parameters, state) is not in the arena.
    """
    if not isinstance(plan, Plan):
        raise DataError(f"plan: got {type(plan).__name__}, expected the plan of an Executable")
    buffers = sorted((b for b in plan.buffers if b.outer is None), key=lambda b: -b.room)
    if not buffers:
        raise DataError("plan: has no buffer in its arena, expected at least one")
    ax = one_axes(ax, 1.1 * WIDTH, 0.85 * WIDTH)
    unit, scale = _unit(plan.arena_bytes)
    arena = plan.arena_bytes / scale
    ax.set_xlim(min(b.start for b in buffers) - 0.5, max(b.end for b in buffers) + 0.5)
    ax.set_ylim(0, 1.13 * arena)  # room above the arena for the loops and the peak
    live, peak = lower_bound(buffers)
    over = 100 * plan.arena_bytes / live - 100
    number = "{:.2f}" if scale > 1 else "{:.0f}"
    size = f"{number.format(arena)} {unit}"
    title = f"Arena of `{plan.graph.name}`: {size}, {over:.1f}% above the peak"
    dress(ax, title, "Step", f"Place in the arena, {unit}")
    whole_steps(ax)
    grounds = _rectangles(ax, plan, buffers, scale)
    _mark_loops(ax, plan, arena)
    _mark_peak(ax, peak, f"peak: {number.format(live / scale)} {unit} live at step {peak}", arena)
    _label(ax, buffers, grounds, scale)
    return ax


def _unit(arena_bytes: int) -> tuple[str, int]:
    units = (("MiB", 1 << 20), ("KiB", 1 << 10))
    return next((u for u in units if arena_bytes >= u[1]), ("bytes", 1))


def _rectangles(
    ax: Axes, plan: Plan, buffers: Sequence[Buffer], scale: int
) -> list[tuple[float, ...]]:
    """Draws the buffers and the key of their kinds; the ground colour of each buffer."""
    from matplotlib.patches import Patch, Rectangle

    looks: dict[str, Look] = {
        kind: {
            "facecolor": tint(color, share),
            "edgecolor": "#a8a8a8" if hatch else INK,
            "hatch": hatch,
            "linewidth": 0.4,
        }
        for kind, (color, share, hatch) in KINDS.items()
    }
    kinds = kinds_of(plan, buffers)
    for b, kind in zip(buffers, kinds, strict=True):
        corner = (b.start - 0.5, b.offset / scale)
        ax.add_patch(Rectangle(corner, b.end - b.start + 1, b.room / scale, **looks[kind]))
    keys = [Patch(label=kind, **look) for kind, look in looks.items() if kind in kinds]
    place: Look = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.11)}
    ax.legend(handles=keys, ncols=len(keys), fontsize=TEXT, frameon=False, **place)
    return [tint(*KINDS[kind][:2]) for kind in kinds]


def kinds_of(plan: Plan, buffers: Sequence[Buffer]) -> list[str]:
    """Of what kind each buffer is: one of KINDS."""
    writers = (s for s in plan.steps() if any(v.buffer.outer for v in s.results))
    updates = {s.node.loc for s in writers if not s.node.loc.endswith("'")}
    return [_kind(b, updates) for b in buffers]


def _kind(buffer: Buffer, updates: set[str]) -> str:
    if buffer.label == "scratch":
        return "scratch"
    if buffer.label.startswith("%"):
        return "input"
    if buffer.loc in updates:
        return "update"
    return "backward" if buffer.loc.endswith("'") else "forward"


def _mark_peak(ax: Axes, peak: int, text: str, arena: float) -> None:
    ax.plot([peak, peak], [0, 1.05 * arena], color=PEAK, linewidth=1.2, linestyle=(0, (4, 2)))
    late = peak > sum(ax.get_xlim()) / 2
    shift, side = ((-3, 1), "right") if late else ((3, 1), "left")
    look: Look = {"ha": side, "va": "bottom", "fontsize": TEXT, "color": PEAK}
    ax.annotate(text, (peak, arena), shift, textcoords="offset points", **look)


def _mark_loops(ax: Axes, plan: Plan, arena: float) -> None:
    """A bar over the steps of each loop, with how many rows it takes at a time."""
    for part in plan.parts:
        if isinstance(part, Loop):
            first, last = part.steps[0].time - 0.5, part.steps[-1].time + 0.5
            y, text = 1.07 * arena, f"{part.tile} rows at a time"
            ax.plot([first, last], [y, y], color=INK, linewidth=2, solid_capstyle="butt")
            ax.text((first + last) / 2, y, text, ha="center", va="bottom", fontsize=TEXT)


def _label(
    ax: Axes, buffers: Sequence[Buffer], grounds: Sequence[tuple[float, ...]], scale: int
) -> None:
    """Writes op and layer into each buffer that can hold them; the largest others get a number."""
    inch = _inches(ax)
    key: list[str] = []
    for rank, (b, ground) in enumerate(zip(buffers, grounds, strict=True)):
        size = (b.end - b.start + 1) * inch[0], b.room / scale * inch[1]
        middle = (b.start + b.end) / 2, (b.offset + b.room / 2) / scale
        look = {"ha": "center", "va": "center", "fontsize": TEXT, **outlined(ground)}
        fitting = _fitting(b, size)
        if fitting:
            ax.text(*middle, fitting[0], rotation=fitting[1], linespacing=1.0, **look)
        elif rank < LABELLED:
            key.append(f"{len(key) + 1} {b.label} {b.loc}".strip())
            ax.text(*middle, str(len(key)), fontweight="bold", **look)
    # No-break spaces, so that an entry is never broken.
    words = "   ".join(entry.replace(" ", "\xa0") for entry in key)
    below: Look = {"transform": ax.transAxes, "ha": "center", "va": "top", "fontsize": TEXT}
    ax.text(0.5, -0.19, textwrap.fill(words, KEY_COLUMNS), **below)


def _inches(ax: Axes) -> Point:
    """How many inches one unit of an Axes is, across and up."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout, on which the size of the Axes depends
    box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return box.width / (right - left), box.height / (high - low)


def _fitting(b: Buffer, size: Point) -> tuple[str, int] | None:
    """(text, rotation) of a buffer's label as it fits into `size` inches, if it does."""
    if min(size) < text_size("x")[1]:
        return None
    for rotation, (along, across) in ((0, size), (90, size[::-1])):
        for text in (f"{b.label} {b.loc}".strip(), f"{b.label}\n{b.loc}"):
            width, height = text_size(text)
            if width + 0.04 <= along and height <= across:
                return text, rotation
    return None
