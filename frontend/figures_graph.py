"""The figure of a graph: a band for each layer, in it what goes forward, backward, and updates.

Rows inside a band are topological generations: forward flows down and backward up, so that a
layer's gradient lies beside the layer. Columns are slots: the longest path of a part keeps to slot
0, what joins it stands to its right, and an input beside its first reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from math import hypot
from typing import TYPE_CHECKING

import numpy as np

from ..ir import DataError, Graph, Node
from ..ir.graph import result_types
from .bands import PARTS, Group, band_order, groups_of
from .command_line import many
from .figures_style import (
    FAINT,
    INK,
    TEXT,
    TITLE,
    Look,
    class_color,
    one_axes,
    require_matplotlib,
    text_size,
    tint,
    undress,
)

if TYPE_CHECKING:
    import networkx
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyBboxPatch
    from matplotlib.transforms import Bbox

# Inches: from row to row, between bands, boxes, and parts, inside a box, around everything.
ROW, BAND_GAP, BOX_GAP, PART_GAP, PAD, MARGIN = 0.39, 0.05, 0.16, 0.4, 0.06, 0.1
BENDS = (0.0, 0.15, -0.15, 0.25, -0.25, 0.4, -0.4, 0.6, -0.6)  # of arrows, as straight as can be
ARC_POINTS = 200  # of an arrow: it is cut at its boxes to a 200th of its length
Point = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """Where a node stands: band, part, row in the band, slot in the part (0 is the main path)."""

    band: str
    part: str
    row: int
    slot: int


def plot_graph(graph: Graph, ax: Axes | None = None) -> Axes:
    """The nodes of a graph, layer by layer, with op and type; inputs are white.

    Solid arrows stay in a part; dotted ones carry what forward keeps for backward or an update.
    `→ name` marks an output. One unit of the Axes is an inch: without `ax` the figure has just the
    size in which all text fits, which grows with the graph.
    """
    if not isinstance(graph, Graph):
        raise DataError(f"graph: got {type(graph).__name__}, expected a Graph, as of exe.graph()")
    if not graph.nodes:
        raise DataError(f"graph: {graph.name} has no nodes, expected at least one")
    require_matplotlib()
    cells = place(graph)
    texts = {n: _text(graph, n) for n in cells}
    sizes = {n: text_size(text) for n, text in texts.items()}
    bands = list(dict.fromkeys(c.band for c in cells.values()))
    named = max(text_size(band)[0] for band in bands) + 4 * PAD
    xs, width = _columns(cells, {n: size[0] for n, size in sizes.items()}, named)
    tops, height = _band_tops(cells, bands)
    ax = one_axes(ax, width + 2 * MARGIN, height + 0.5)
    _draw_bands(ax, cells, bands, tops, width)
    at = {
        n: (xs[c.part, c.slot], tops[c.band] + BAND_GAP + ROW * (c.row + 0.5))
        for n, c in cells.items()
    }
    boxes = {
        n: _box(ax, at[n], texts[n], sizes[n], _ground(n, bands.index(c.band)))
        for n, c in cells.items()
    }
    route = _Router([box.get_bbox() for box in boxes.values()], width, height)
    for node in graph.nodes:
        for x in dict.fromkeys(node.inputs):
            _arrow(ax, route(at[x], at[node]), cells[x], cells[node])
    counts = f"{many(len(graph.inputs), 'input')}, {many(len(graph.nodes), 'node')}"
    title = f"Graph of `{graph.name}`: {counts}"
    ax.set_title(title, fontsize=TITLE, loc="left")
    undress(ax)
    ax.set_xlim(0, width)
    ax.set_ylim(height, -_head_parts(ax, xs))
    ax.set_aspect("equal")
    return ax


def place(graph: Graph) -> dict[Node, Cell]:
    """The cell of every input and node; no two share one."""
    g = graph.to_networkx()
    groups = groups_of(graph, g)
    members: dict[Group, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(groups[node], []).append(node)
    rows, main = _rows(members), _main_paths(groups, members)
    cells: dict[Node, Cell] = {}
    taken: set[Cell] = set()
    # What the main path reads stands next to it; of the rest, a node above its reader if it can.
    feeds = {x for n in main for x in n.inputs if groups.get(x) == groups[n]}
    readers_first = graph.nodes[::-1]
    for node in sorted(readers_first, key=lambda n: (n not in main, n not in feeds)):
        readers = [cells[u] for u in graph.users[node] if u in cells and groups[u] == groups[node]]
        slots = chain([c.slot for c in readers if c.slot > 0], count(1))
        wanted = (Cell(*groups[node], rows[node], slot) for slot in slots)
        free = (c for c in wanted if c not in taken)
        cells[node] = Cell(*groups[node], rows[node], 0) if node in main else next(free)
        taken.add(cells[node])
    for x in graph.inputs:
        cells[x] = _beside(cells[_first_reader(graph, x, groups)], taken)
        taken.add(cells[x])
    order = band_order(g, groups)
    return dict(sorted(cells.items(), key=lambda item: order.index(item[1].band)))


def _first_reader(graph: Graph, x: Node, groups: Mapping[Node, Group]) -> Node:
    """The reader beside which an input stands; one that nothing reads stands at the beginning."""
    readers = graph.users[x] or graph.nodes[:1]
    return min(readers, key=lambda n: PARTS.index(groups[n][1]))


def _beside(reader: Cell, taken: set[Cell]) -> Cell:
    """The free cell nearest to a reader: in its row if possible, and off the main path."""
    height = 1 + max(c.row for c in taken if c.band == reader.band)
    reach = len(taken) + 1
    outwards = 1 if reader.slot > 0 else -1
    free = (
        Cell(reader.band, reader.part, row, slot)
        for row in range(height)
        for slot in range(reader.slot - reach, reader.slot + reach)
        if slot * outwards > 0
    )
    # A row away counts a little more than a slot away, and two slots more than one of each.
    return min(
        (c for c in free if c not in taken),
        key=lambda c: hypot(1.1 * (c.row - reader.row), c.slot - reader.slot),
    )


def _rows(members: Mapping[Group, list[Node]]) -> dict[Node, int]:
    """The row of each node in its band: its topological generation, counted from the sinks.

    So a node stands right before its first reader. Backward is turned round, and ends at the top.
    """
    import networkx

    generations = {
        group: list(networkx.topological_generations(_flow(nodes).reverse(copy=False)))
        for group, nodes in members.items()
    }
    height = {band: 0 for band, _ in members}
    for (band, _), found in generations.items():
        height[band] = max(height[band], len(found))
    rows: dict[Node, int] = {}
    for (band, part), found in generations.items():
        for k, nodes in enumerate(found):
            backward = height[band] - len(found) + k
            rows |= dict.fromkeys(nodes, backward if part == "backward" else len(found) - 1 - k)
    return rows


def _main_paths(groups: Mapping[Node, Group], members: Mapping[Group, list[Node]]) -> set[Node]:
    """The longest path of each part, and that of a band's part which it does not touch."""
    import networkx

    main: set[Node] = set()
    for part in PARTS:
        nodes = [n for n, group in groups.items() if group[1] == part]
        main |= set(networkx.dag_longest_path(_flow(nodes)))
    for nodes in members.values():
        if main.isdisjoint(nodes):
            main |= set(networkx.dag_longest_path(_flow(nodes)))
    return main


def _flow(nodes: Sequence[Node]) -> networkx.DiGraph:
    """Nodes and what flows between them, in their order: what a subgraph's hash would shuffle."""
    import networkx

    g = networkx.DiGraph()
    g.add_nodes_from(nodes)
    g.add_edges_from((x, n) for n in nodes for x in n.inputs if x in g)
    return g


def _columns(
    cells: Mapping[Node, Cell], widths: Mapping[Node, float], left: float
) -> tuple[dict[tuple[str, int], float], float]:
    """The middle of each (part, slot), as wide as its widest box, and where the last one ends."""
    widest: dict[tuple[str, int], float] = {}
    for n, c in cells.items():
        key = c.part, c.slot
        widest[key] = max(widest.get(key, 0.0), widths[n] + 2 * PAD)
    middles, x, last = {}, left, PARTS[0]
    for key in sorted(widest, key=lambda k: (PARTS.index(k[0]), k[1])):
        x += PART_GAP if key[0] != last else 0
        middles[key] = x + widest[key] / 2
        x, last = x + widest[key] + BOX_GAP, key[0]
    return middles, x


def _band_tops(cells: Mapping[Node, Cell], bands: Iterable[str]) -> tuple[dict[str, float], float]:
    """The upper edge of each band, and where the last one ends."""
    tops, y = {}, 0.0
    for band in bands:
        tops[band] = y
        y += 2 * BAND_GAP + ROW * (1 + max(c.row for c in cells.values() if c.band == band))
    return tops, y


def _draw_bands(
    ax: Axes, cells: Mapping[Node, Cell], bands: list[str], tops: Mapping[str, float], width: float
) -> None:
    from matplotlib.patches import Rectangle

    for i, band in enumerate(bands):
        rows = 1 + max(c.row for c in cells.values() if c.band == band)
        height = 2 * BAND_GAP + ROW * rows
        ground = tint(class_color(i), 0.15)
        ax.add_patch(Rectangle((0, tops[band]), width, height, facecolor=ground, edgecolor="white"))
        middle = tops[band] + height / 2
        ax.text(PAD, middle, band, va="center", fontsize=TEXT, fontweight="bold", color=INK)


def _head_parts(ax: Axes, xs: Mapping[tuple[str, int], float]) -> float:
    """Names the parts, if there are several, above their main paths; the height that takes."""
    parts = [part for part in PARTS if (part, 0) in xs]
    if len(parts) == 1:
        return 0.0
    for part in parts:
        where: Look = {"ha": "center", "va": "bottom", "fontweight": "bold"}
        ax.text(xs[part, 0], -0.04, part, fontsize=TEXT, color=INK, **where)
    return 0.2


def _ground(node: Node, band: int) -> tuple[float, ...]:
    return tint(class_color(band), 0.0 if node.op == "input" else 0.45)


def _box(
    ax: Axes,
    at: Point,
    text: str,
    size: Point,
    ground: tuple[float, ...],
) -> FancyBboxPatch:
    from matplotlib.patches import FancyBboxPatch

    (x, y), width, height = at, size[0] + 2 * PAD, size[1] + PAD / 2
    corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.05"
    box = FancyBboxPatch(
        corner, width, height, boxstyle=style, facecolor=ground, edgecolor=FAINT, linewidth=0.6
    )
    box.set_zorder(2)
    ax.add_patch(box)
    look: Look = {
        "ha": "center",
        "va": "center",
        "fontsize": TEXT,
        "linespacing": 1.1,
        "color": INK,
    }
    ax.text(x, y, text, zorder=5, **look)
    return box


def _arrow(ax: Axes, curve: np.ndarray, a: Cell, b: Cell) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    far = a.part != b.part or (a.part == "update" and a.band != b.band)
    color, style = (FAINT, (0, (1, 2))) if far else (INK, "-")
    look: Look = {"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.7, "zorder": 1.5}
    ax.add_patch(FancyArrowPatch(path=Path(curve), color=color, linestyle=style, **look))


class _Router:
    """Finds the curve from box to box that passes by the other boxes and stays in the figure."""

    def __init__(self, boxes: Sequence[Bbox], width: float, height: float) -> None:
        self.low = np.array([box.min for box in boxes])
        self.high = np.array([box.max for box in boxes])
        self.inside = np.array([[0.0, 0.0], [width, height]])

    def __call__(self, a: Point, b: Point) -> np.ndarray:
        """Points `[k, 2]` from the edge of the box around a to that around b.

        Of BENDS, the first with which least of it is hidden: arrows pass under other boxes.
        """
        own = self._hits(np.array([a, b])).any(1)
        curves = [_arc(np.array(a), np.array(b), bend) for bend in BENDS]
        within = [c for c in curves if self._within(c)]
        curve = min(within, key=lambda c: np.count_nonzero(self._hits(c)[~own]))
        return curve[~self._hits(curve)[own].any(0)]

    def _hits(self, points: np.ndarray) -> np.ndarray:
        """`[boxes, points]`: whether a box contains a point."""
        return np.all((self.low[:, None] < points) & (points < self.high[:, None]), -1)

    def _within(self, points: np.ndarray) -> bool:
        return bool(np.all((self.inside[0] < points) & (points < self.inside[1])))


def _arc(a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
    """Points on a parabola from a to b whose height is about half of `bend`, as a share of ab."""
    dx, dy = b - a
    corner = (a + b) / 2 + bend * np.array((-dy, dx))
    t = np.linspace(0, 1, ARC_POINTS)[:, None]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b


def _text(graph: Graph, node: Node) -> str:
    """A label: an input's name or an op, the outputs that it is, and the first of its types."""
    types = result_types(node)
    more = f" +{len(types) - 1}" if len(types) > 1 else ""
    names = [name for name, n in graph.outputs.items() if n is node]
    what = f"%{node.name}" if node.op == "input" else node.op
    if "body" in node.attrs:
        what += f" of {len(node.attrs['body'].nodes)}"
    return " → ".join((what, *names)) + f"\n{types[0]}{more}"
