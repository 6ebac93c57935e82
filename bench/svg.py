"""Figures as SVG inside a page: its text in the page's font, its ink in the page's colours.

Ink and paper become CSS variables, so that a figure is as readable on a dark page as on a light
one; what is coloured stays as it is.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from ..frontend.figures_style import INK
from .figures_looks import GRID

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VARIABLES = {"#000000": "--ink", INK: "--ink", "#ffffff": "--paper", GRID: "--line"}


def inline(ax: Axes, name: str, caption: str) -> str:
    """The figure of `ax` as an <svg> element; `name` keeps its ids apart from other figures'."""
    from matplotlib import rc_context

    figure, file = ax.get_figure(root=True), io.StringIO()
    assert figure is not None
    # as text, not as paths: it can be found and copied. The salt makes the same ids every time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.S)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text[text.index("<svg ") :])
    text = re.sub(
        r' id="image\w+"', "", text
    )  # equal ones for equal images; nothing refers to them
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    assert box is not None
    label = f'role="img" id="figure-{name}" aria-label="{html.escape(caption)}"'
    opening = f'<svg {box[0]} width="{box[1]}pt" {label}>'
    return opening + text[text.index(">") + 1 :].rstrip()
