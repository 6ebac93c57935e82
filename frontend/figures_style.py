"""What all figures share: when matplotlib is there, colours, sizes, and how an Axes is made.

Figures are made without pyplot, so that they work without a screen and leave the user's own pyplot
state alone. Whatever a figure sets, it sets on its own Axes: rcParams stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir import CompileError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT, TITLE = 8.0, 9.0  # points: readable where a figure of WIDTH is printed at its own size
WIDTH = 6.0  # inches: a text column
DPI = 200
INK, FAINT = "#222222", "#8a8a8a"
Look = dict[str, Any]  # keywords for an artist

# Ten colours that the colour-blind can tell apart, also two by two.
# Source: M. Petroff, "Accessible Color Sequences for Data Visualization" (2021), arXiv 2107.02270.
COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MARKERS = "osD^vPX<>"  # nine, prime to ten: 90 classes have a pair of colour and marker each


def require_matplotlib() -> None:
    """CompileError, with the line that brings it, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401  # an extra, and 0.3 s
    except ImportError as error:
        raise CompileError("figures need matplotlib: pip install 'gemmc[plot]'") from error


def one_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the Axes of a new figure of that many inches."""
    return ax if ax is not None else new_axes(1, width, height)[0]


def new_axes(columns: int, width: float, height: float, rows: int = 1) -> list[Axes]:
    """The Axes, row by row, of a new figure of that many inches."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="compressed")
    return list(figure.subplots(rows, columns, squeeze=False).flat)


def dress(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Sets an Axes' title, and the labels of its axes, in the house's sizes."""
    ax.set_title(title, fontsize=TITLE, loc="left")
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    ax.tick_params(labelsize=TEXT)
    ax.spines[["top", "right"]].set_visible(False)


def whole_steps(ax: Axes) -> None:
    """Lets the axis across, of epochs or steps, have whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    ax.xaxis.set_major_locator(locator)


def undress(ax: Axes) -> None:
    """Takes away spines and ticks, for pictures whose place says nothing."""
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])


def class_color(label: int) -> str:
    """The colour of a class."""
    return COLORS[label % len(COLORS)]


def tint(color: str, share: float) -> tuple[float, ...]:
    """`share` of a colour on white."""
    from matplotlib.colors import to_rgb

    return tuple(1 - share * (1 - c) for c in to_rgb(color))


def outlined(ground: str | tuple[float, ...] = "white") -> Look:
    """Keywords for text that stays readable on what crosses it: an outline in a colour."""
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2.5, foreground=ground)], "color": INK}


def text_size(text: str, points: float = TEXT) -> tuple[float, float]:
    """(width, height) in inches of a text of some lines, as it will be drawn."""
    from matplotlib.textpath import TextPath

    lines = text.split("\n")
    widths = [TextPath((0, 0), line, size=points).vertices[:, 0].max() for line in lines if line]
    return float(max(widths, default=0.0)) / 72, len(lines) * 1.1 * points / 72


def save(folder: Path, name: str, ax: Axes) -> Path:
    """Writes the figure of `ax` to `folder/name.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path
