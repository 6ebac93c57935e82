"""What a page is made of: sections of words, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first column is words, and so is the last if `ends_in_words`."""

    head: Row
    rows: tuple[Row, ...]
    ends_in_words: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure: what its file is called, what it shows, and one of its Axes."""

    name: str
    caption: str
    ax: Axes


@dataclass(frozen=True)
class Section:
    """A part of the page. A warning is a line that must not be overlooked."""

    title: str
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()


def short(value: float) -> str:
    """A number with three digits, or all of those before the point: 0.0123, 4.56, 7,890."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
