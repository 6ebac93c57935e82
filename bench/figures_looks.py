"""How contenders look in figures: the same colour, marker, line and hatch in each of them.

Any of the four alone tells contenders apart, so that figures can be read in grey and by the
colour-blind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ..frontend.figures_style import COLORS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

GRID = "#e6e6e6"  # lines behind what is measured


class ContenderLook(NamedTuple):
    """A contender's colour, marker, line style and hatch."""

    color: str
    marker: str
    line: str
    hatch: str


KNOWN = (
    *("gemmc", "torch", "torch-tuned", "torch-compile"),
    *("jax", "keras", "onnxruntime", "tinygrad"),
)
LINES = ("-", "--", "-.", ":")
HATCHES = (
    "",
    "///",
    "\\\\\\",
    "xxx",
    "---",
    "|||",
    "+++",
    "//",
    "\\\\",
)  # lines: dots are long in SVG


def look_of(name: str) -> ContenderLook:
    """The look of a contender; any other name has one of its own."""
    known = name.lower().removeprefix("py")  # PyTorch, in a notebook, is torch
    place = KNOWN.index(known) if known in KNOWN else len(KNOWN)
    return ContenderLook(COLORS[place], MARKERS[place], LINES[place % len(LINES)], HATCHES[place])


def lines_behind(ax: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Draws lines at the ticks, behind what is measured."""
    ax.grid(True, axis=axis, color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def plain_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, written as people do."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
