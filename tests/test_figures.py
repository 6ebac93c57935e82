"""Figures: laws of what they show, read from what was drawn; and that matplotlib stays an extra."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemmc
from gemmc import CompileError, DataError, Executable, History, datasets
from gemmc.frontend import figures, figures_style
from gemmc.frontend.experiments import fashion_model, spiral_model
from gemmc.frontend.figures_graph import place
from gemmc.frontend.figures_style import COLORS, MARKERS
from gemmc.passes.memory import lower_bound

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.collections import PathCollection  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.image import imread  # noqa: E402
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle  # noqa: E402
from matplotlib.text import Text  # noqa: E402

NAMES = figures.FASHION_NAMES
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Trained:
    """A model trained a little, what training saw, and test rows; figures of it, made once."""

    executable: Executable
    history: History
    X: np.ndarray
    y: np.ndarray
    drawn: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def spiral() -> Trained:
    X, y = datasets.spiral(points=60, classes=8)
    t = _trained(gemmc.compile(spiral_model(), (2,)), X, y, epochs=4)
    t.drawn["data"] = figures.plot_points(X, y)
    t.drawn["decision_boundaries"] = figures.plot_decision_boundaries(
        t.executable, X, y, resolution=60
    )
    t.drawn["confusion"] = figures.plot_confusion(t.executable, X, y)
    return t


@pytest.fixture(scope="module")
def fashion() -> Trained:
    X, y, X_test, y_test = datasets.fashion_mnist(subset=True)
    executable = gemmc.compile(fashion_model(), (1, 28, 28))
    t = _trained(executable, X[::10], y[::10], epochs=1)
    t.X, t.y = X_test[::3], y_test[::3]
    t.drawn["data"] = figures.plot_images(t.X, t.y, NAMES, columns=8)
    t.drawn["confusion"] = figures.plot_confusion(executable, t.X, t.y, NAMES)
    t.drawn["mistakes"] = figures.plot_mistakes(executable, t.X, t.y, NAMES)
    return t


def _trained(executable: Executable, X: np.ndarray, y: np.ndarray, epochs: int) -> Trained:
    history = executable.fit(X, y, X[:40], y[:40], epochs=epochs)
    drawn: dict[str, Any] = {
        "metrics": history.plot()[0],
        "graph": figures.plot_graph(executable.graph("simplify")),
        "memory": figures.plot_memory(executable.plan),
    }
    return Trained(executable, history, X, y, drawn)


@pytest.fixture(params=["spiral", "fashion"])
def each(request: pytest.FixtureRequest) -> Trained:
    return request.getfixturevalue(request.param)


def texts(ax: Any) -> list[str]:
    return [t.get_text() for t in ax.texts if t.get_text()]


def overlapping(boxes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows (left, low, right, high) whose insides meet, by more than rounding."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    meet = np.all(low < high - 1e-9 * np.abs(high), -1)
    return [(i, j) for i, j in np.argwhere(meet).tolist() if i < j]


# Files


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_style, "DPI", 60)  # writing a PNG takes longer than drawing it


@pytest.mark.usefixtures("small")
def test_the_figures_of_the_spiral_are_written_as_pngs(spiral: Trained, tmp_path: Path) -> None:
    data = (spiral.X, spiral.y)
    paths = figures.save_spiral(tmp_path / "new", spiral.executable, spiral.history, *data, *data)
    names = "data metrics decision_boundaries confusion graph memory"
    assert paths == [tmp_path / "new" / f"{name}.png" for name in names.split()]
    assert_pictures(paths)


@pytest.mark.usefixtures("small")
def test_the_figures_of_fashion_mnist_are_written_as_pngs(fashion: Trained, tmp_path: Path) -> None:
    data = (fashion.X, fashion.y)
    model = fashion.executable.model
    paths = figures.save_fashion_mnist(tmp_path, model, History(), *data, *data)
    names = "data confusion mistakes graph memory"  # without an epoch there are no metrics
    assert paths == [tmp_path / f"{name}.png" for name in names.split()]
    assert_pictures(paths)


def assert_pictures(paths: list[Path]) -> None:
    for path in paths:
        assert path.read_bytes().startswith(PNG)
        pixels = imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 150
        colours = np.rint(255 * pixels).astype(np.int64) @ (1 << 16, 1 << 8, 1)
        assert len(np.unique(colours)) > 20, path.name


def test_nothing_is_cut_off_and_no_text_is_smaller_than_8_points(each: Trained) -> None:
    for name, ax in each.drawn.items():
        figure = ax.figure
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert drawn.x0 > -0.01, name
        assert drawn.y0 > -0.01, name
        assert drawn.x1 < width + 0.01, name
        assert drawn.y1 < height + 0.01, name
        assert all(t.get_fontsize() >= 8 for t in figure.findobj(Text) if t.get_text()), name


# Data and models


def test_every_point_is_drawn_once_in_the_colour_of_its_class(spiral: Trained) -> None:
    for name in ("data", "decision_boundaries"):
        ax = spiral.drawn[name]
        clouds = [
            (np.asarray(c.get_offsets()), matplotlib.colors.to_hex(c.get_facecolor()[0]))
            for c in ax.collections
            if isinstance(c, PathCollection)
        ]
        found = {tuple(x): color for points, color in clouds for x in points.tolist()}
        assert sum(len(points) for points, _ in clouds) == len(spiral.X)
        wanted = {tuple(x): COLORS[k] for x, k in zip(spiral.X.tolist(), spiral.y, strict=True)}
        middle = (0.0, 0.0)  # where all arms begin
        assert {**found, middle: ""} == {**wanted, middle: ""}


def test_classes_are_named_where_their_points_are_or_where_the_model_says_so(
    spiral: Trained,
) -> None:
    assert texts(spiral.drawn["data"]) == [str(k) for k in range(8)]
    ax = spiral.drawn["decision_boundaries"]
    said = {t.get_text(): spiral.executable([t.xy]).argmax() for t in ax.texts}
    assert said == {k: int(k) for k in said}


def test_the_plane_has_the_colour_of_what_the_model_says(spiral: Trained) -> None:
    ax = spiral.drawn["decision_boundaries"]
    (plane,) = ax.images
    shown = np.asarray(plane.get_array())
    left, right, low, high = plane.get_extent()
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, shown.shape[0], (2, 200))
    x = left + (columns + 0.5) * (right - left) / shown.shape[1]
    y = low + (rows + 0.5) * (high - low) / shown.shape[0]
    said = spiral.executable(np.stack([x, y], 1).astype(np.float32)).argmax(1)
    tints = {tuple(shown[r, c]): k for r, c, k in zip(rows, columns, said, strict=True)}
    # A pixel's middle is known up to rounding, so one on a boundary may go either way.
    agree = [tints[tuple(shown[r, c])] == k for r, c, k in zip(rows, columns, said, strict=True)]
    assert np.mean(agree) > 0.97
    assert len(set(tints.values())) == len(tints)


def test_images_stand_in_the_row_of_their_class_in_their_order(fashion: Trained) -> None:
    ax = fashion.drawn["data"]
    assert len(ax.images) == 80
    for image in ax.images:
        left, _, bottom, _ = image.get_extent()
        i = np.flatnonzero(fashion.y == int(bottom))[int(left)]
        assert np.allclose(image.get_array(), fashion.X[i, 0] / 255, atol=1e-6)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(NAMES)


def test_the_confusion_counts_every_row_and_agrees_with_evaluate(each: Trained) -> None:
    outputs = each.executable(each.X)
    said, classes = outputs.argmax(1), outputs.shape[1]
    counts = figures.confusion(each.y, said, classes)
    _, accuracy = each.executable.evaluate(each.X, each.y)
    assert counts.sum() == len(each.X)
    assert np.trace(counts) == round(accuracy * len(each.X))
    assert np.array_equal(counts.sum(1), np.bincount(each.y, minlength=classes))
    shown = np.zeros_like(counts)
    for t in each.drawn["confusion"].texts:
        j, i = t.get_position()
        shown[i, j] = int(t.get_text())
    assert np.array_equal(shown, counts)


def test_mistakes_are_wrong_images_the_surest_first(fashion: Trained) -> None:
    ax = fashion.drawn["mistakes"]
    outputs = fashion.executable(fashion.X)
    said, sure = outputs.argmax(1), outputs.max(1)
    wrong = np.flatnonzero(said != fashion.y)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:18]
    assert len(ax.images) == len(order) == 18
    for i, image, text in zip(order, ax.images, texts(ax), strict=True):
        assert np.allclose(image.get_array(), fashion.X[i, 0] / 255, atol=1e-6)
        names = f"is {NAMES[fashion.y[i]]}\nsaid {NAMES[said[i]]}"
        assert text == f"{names}\n{100 * sure[i]:.0f}% sure"


def test_a_model_without_mistakes_has_none_to_show(fashion: Trained) -> None:
    right = fashion.executable(fashion.X).argmax(1)
    ax = figures.plot_mistakes(fashion.executable, fashion.X, right)
    assert not ax.images
    assert ax.get_title(loc="left") == f"no mistake in {len(right)} images"


def test_logits_are_as_sure_as_the_probabilities_they_stand_for() -> None:
    def logits(X: np.ndarray) -> np.ndarray:
        return np.tile(np.log([0.2, 0.7, 0.1]) + 5, (len(X), 1))

    ax = figures.plot_mistakes(logits, np.ones((1, 1, 2, 2)), [0])
    assert texts(ax) == ["is 0\nsaid 1\n70% sure"]


# Training


def test_the_curves_are_the_history_with_accuracy_in_percent(each: Trained) -> None:
    history = each.history
    loss, accuracy = history.plot()
    for ax, lists, factor in (
        (loss, (history.loss, history.val_loss), 1),
        (accuracy, (history.accuracy, history.val_accuracy), 100),
    ):
        for line, values in zip(ax.lines, lists, strict=True):
            assert np.array_equal(line.get_xdata(), range(1, len(values) + 1))
            assert np.allclose(line.get_ydata(), np.multiply(values, factor))
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--"]
        assert all(float(tick).is_integer() for tick in ax.get_xticks())
        assert ax.get_xlabel() == "Epoch"
    assert accuracy.get_ylabel() == "Accuracy, %"


def test_a_history_without_validation_or_accuracy_is_drawn_as_far_as_it_goes() -> None:
    loss, accuracy = History([0.5, 0.25], [math.nan] * 2).plot()
    assert len(loss.lines) == 1
    assert not accuracy.lines
    assert texts(accuracy) == ["accuracy is NaN in every epoch"]


def test_what_train_val_returns_makes_a_history() -> None:
    X, y = datasets.spiral(points=8, classes=2)
    model = gemmc.Sequential(
        [gemmc.Linear(2, 2)], gemmc.CrossEntropyLoss(), gemmc.Adam(lr=1e-2), seed=0
    )
    lists = gemmc.train_val(model, X, y, X, y, epochs=3, verbose_freq=0)
    assert len(History(*lists).plot()[0].lines) == 2


def test_figures_are_drawn_into_the_axes_they_are_given(spiral: Trained) -> None:
    a, b = Figure().subplots(1, 2)
    assert figures.plot_points(spiral.X, spiral.y, ax=a) is a
    assert figures.plot_memory(spiral.executable.plan, a) is a
    assert spiral.history.plot([a, b]) == [a, b]


# What the compiler made


@pytest.mark.parametrize("stage", ["trace", "simplify", "cleanup", "fuse", "order"])
def test_no_two_nodes_of_a_graph_share_a_place(each: Trained, stage: str) -> None:
    graph = each.executable.graph(stage)
    cells = place(graph)
    assert set(cells) == {*graph.inputs, *graph.nodes}
    assert len(set(cells.values())) == len(cells)


def test_a_graph_is_laid_out_the_same_way_every_time() -> None:
    graphs = [gemmc.compile(spiral_model(), (2,)).graph("fuse") for _ in range(3)]
    laid_out = [[cells[n] for n in g.nodes] for g in graphs for cells in [place(g)]]
    assert laid_out[0] == laid_out[1] == laid_out[2]


@pytest.mark.parametrize("stage", ["simplify", "order"])
def test_a_graph_is_drawn_with_a_box_a_node_and_an_arrow_an_edge(
    spiral: Trained, stage: str
) -> None:
    graph = spiral.executable.graph(stage)
    ax = figures.plot_graph(graph) if stage != "simplify" else spiral.drawn["graph"]
    boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    g = graph.to_networkx()
    assert len(boxes) == g.number_of_nodes() == len(graph.inputs) + len(graph.nodes)
    assert len(arrows) == g.number_of_edges()
    assert not overlapping(np.array([p.get_bbox().extents for p in boxes]))
    layers = {n.loc.removesuffix("'") for n in graph.nodes if n.loc}
    assert layers - {"Adam"} <= set(texts(ax))


def test_text_in_a_graph_fits_its_box(fashion: Trained) -> None:
    ax = fashion.drawn["graph"]
    ax.figure.draw_without_rendering()
    boxes = [p.get_window_extent() for p in ax.patches if isinstance(p, FancyBboxPatch)]
    inside = [t.get_window_extent() for t in ax.texts if "\n" in t.get_text()]
    assert len(inside) == len(boxes)
    for box, text in zip(boxes, inside, strict=True):
        assert box.x0 <= text.x0 <= text.x1 <= box.x1
        assert box.y0 <= text.y0 <= text.y1 <= box.y1


def test_gradients_stand_beside_what_they_are_the_gradient_of(fashion: Trained) -> None:
    cells = place(fashion.executable.graph("cleanup"))
    for node, cell in cells.items():
        if node.loc.endswith("'"):
            assert (cell.band, cell.part) == (node.loc[:-1], "backward")
    parts = {cell.band: cell.part for node, cell in cells.items() if node.loc == "Adam"}
    assert parts == dict.fromkeys(
        ["0.Conv2d", "3.Conv2d", "7.Linear", "10.Linear", "Adam"], "update"
    )


def test_the_memory_map_has_a_rectangle_for_each_buffer_of_the_arena(each: Trained) -> None:
    plan, ax = each.executable.plan, each.drawn["memory"]
    shown = np.array(
        [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height())
         for p in ax.patches if isinstance(p, Rectangle)]
    )  # fmt: skip
    scale = (1 << 20) if "MiB" in ax.get_ylabel() else (1 << 10)
    wanted = [
        (b.start - 0.5, b.offset / scale, b.end + 0.5, (b.offset + b.room) / scale)
        for b in plan.buffers
        if b.outer is None
    ]
    assert np.allclose(sorted(shown.tolist()), sorted(wanted))
    assert not overlapping(shown)
    assert shown[:, 3].max() * scale == pytest.approx(plan.arena_bytes)


def test_the_memory_map_marks_the_peak_and_names_the_largest_buffers(each: Trained) -> None:
    plan, ax = each.executable.plan, each.drawn["memory"]
    _, peak = lower_bound(plan.buffers)
    assert [peak, peak] in [list(line.get_xdata()) for line in ax.lines]
    words = " ".join(texts(ax)).split()  # at no-break spaces too
    assert f"step {peak}" in " ".join(words)
    inner = sorted((b for b in plan.buffers if b.outer is None), key=lambda b: -b.room)
    for b in inner[:10]:
        assert b.label in words
        assert not b.loc or b.loc in words


def test_a_label_in_the_memory_map_fits_its_buffer(each: Trained) -> None:
    ax = each.drawn["memory"]
    ax.figure.draw_without_rendering()
    boxes = [p.get_window_extent() for p in ax.patches if isinstance(p, Rectangle)]
    inside = [t for t in ax.texts if t.get_path_effects() and not t.get_text().isdigit()]
    assert len(inside) > 3
    for t in inside:
        e = t.get_window_extent()
        middle = (e.x0 + e.x1) / 2, (e.y0 + e.y1) / 2
        (box,) = [b for b in boxes if b.contains(*middle)]
        # One pixel at 100 dots an inch: antialiasing.
        assert box.x0 - 1 <= e.x0 <= e.x1 <= box.x1 + 1, t.get_text()
        assert box.y0 - 1 <= e.y0 <= e.y1 <= box.y1 + 1, t.get_text()


# Colours


def test_the_colour_blind_can_tell_any_two_classes_apart() -> None:
    """A difference of 15 in CIELAB; 2.3 is just noticeable.

    Source: Machado, Oliveira and Fernandes 2009, severity 1.0, in linear RGB.
    """
    deuteranopia = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    protanopia = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for seen_as in (np.eye(3), deuteranopia, protanopia):
        lab = _lab(np.clip(linear @ np.transpose(seen_as), 0, 1))
        for a, b in itertools.combinations(range(len(COLORS)), 2):
            assert np.linalg.norm(lab[a] - lab[b]) > 15, (COLORS[a], COLORS[b])


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.transpose(to_xyz) / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    parts = [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])]
    return np.stack(parts, -1)


def test_a_class_has_its_pair_of_colour_and_marker_alone() -> None:
    pairs = {(k % len(COLORS), k % len(MARKERS)) for k in range(90)}
    assert len(pairs) == 90


# Without matplotlib, and beside it


@pytest.mark.parametrize("name", ["points", "images", "history", "graph", "memory", "save"])
def test_without_matplotlib_a_figure_says_what_brings_it(
    name: str, fashion: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable, X, y = fashion.executable, fashion.X, fashion.y
    calls: dict[str, Callable[[], object]] = {
        "points": lambda: figures.plot_points([[0.0, 1.0]], [0]),
        "images": lambda: figures.plot_images(X, y),
        "history": fashion.history.plot,
        "graph": lambda: figures.plot_graph(executable.graph("simplify")),
        "memory": lambda: figures.plot_memory(executable.plan),
        "save": lambda: figures.save_fashion_mnist(
            tmp_path / "new", executable, fashion.history, X, y, X, y
        ),
    }
    for loaded in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, loaded, None)
    with pytest.raises(CompileError, match=r"pip install 'gemmc\[plot\]'"):
        calls[name]()
    assert not list(tmp_path.iterdir())


def test_importing_gemmc_leaves_matplotlib_alone_and_figures_leave_pyplot_alone() -> None:
    program = """
import sys, gemmc
assert "matplotlib" not in sys.modules
from gemmc.frontend import figures
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()  # a dict of them would ask for a backend
figures.plot_points([[0.0, 1.0], [1.0, 0.0]], [0, 1]).figure.savefig(sys.argv[1])
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, "/dev/null"], check=True, timeout=60)


# Refusals


POINTS, LABELS = np.zeros((3, 2), np.float32), np.array([0, 1, 2])
IMAGES = np.zeros((3, 1, 2, 2), np.uint8)


def answers(X: np.ndarray) -> np.ndarray:
    return np.eye(3)[np.arange(len(X)) % 3]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"X: got shape \[3, 3\], expected points", lambda: figures.plot_points(np.eye(3), LABELS)),
        (r"X: row 1 is \[0.0, inf\]", lambda: figures.plot_points([[0, 0], [0, np.inf]], [0, 1])),
        (r"X: got shape \[0, 2\], expected at least one", lambda: figures.plot_points(
            POINTS[:0], LABELS[:0])),
        (r"X: got dtype <U2, expected numbers", lambda: figures.plot_points("ab", LABELS)),
        (r"X, y: got 3 and 2 rows", lambda: figures.plot_points(POINTS, LABELS[:2])),
        (r"y: got float64 \[3\], expected integer labels", lambda: figures.plot_points(
            POINTS, LABELS * 1.0)),
        (r"y: got label -1 at row 0, expected at least 0", lambda: figures.plot_points(
            POINTS, LABELS - 1)),
        (r"y: got label 2 at row 2, expected 0 to 1", lambda: figures.plot_points(
            POINTS, LABELS, ["a", "b"])),
        (r"X: got shape \[3, 2\], expected images", lambda: figures.plot_images(POINTS, LABELS)),
        (r"X: has a pixel that is NaN", lambda: figures.plot_images(IMAGES * np.nan, LABELS)),
        (r"plot_images: columns: got 0", lambda: figures.plot_images(IMAGES, LABELS, columns=0)),
        (r"y: got label 3 at row 2, expected 0 to 2", lambda: figures.plot_confusion(
            answers, POINTS, [0, 1, 3])),
        (r"names: got 2, expected 3", lambda: figures.plot_confusion(
            answers, POINTS, LABELS, ["a", "b"])),
        (r"said, y: got 2 and 3 rows", lambda: figures.confusion(LABELS, LABELS[:2], 3)),
        (r"model: got int, expected a Sequential", lambda: figures.plot_confusion(
            3, POINTS, LABELS)),  # type: ignore[arg-type]
        (r"model: gives shape \[3, 1\]", lambda: figures.plot_decision_boundaries(
            lambda X: X[:, :1], POINTS, LABELS)),
        (r"model: gives NaN for row 0", lambda: figures.plot_mistakes(
            lambda X: answers(X) * np.nan, IMAGES, LABELS)),
        (r"history: got list", lambda: figures.plot_history([])),  # type: ignore[arg-type]
        (r"history: has no epochs", lambda: figures.plot_history(History())),
        (r"history: val_loss has 1 epochs, expected 2", lambda: figures.plot_history(
            History([1.0, 1.0], [0.5, 0.5], [1.0], [0.5]))),
        (r"axes: got 1 Axes, expected two", lambda: figures.plot_history(
            History([1.0], [0.5]), [Figure().subplots()])),
        (r"graph: got str", lambda: figures.plot_graph("step")),  # type: ignore[arg-type]
        (r"plan: got str", lambda: figures.plot_memory("step")),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_by_name(message: str, call: Callable[[], object]) -> None:
    with pytest.raises((DataError, CompileError), match=message):
        call()
