"""Figures with matplotlib: data, training, what a model has learnt, and what the compiler made.

Each function draws into the Axes it is given, or into those of a new figure, and returns them:
`plot_points(X, y).figure.savefig("data.png")`. DataError names the argument that does not fit;
without matplotlib, an extra, all of them raise CompileError.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ir import DataError
from . import figures_data as checked
from .arguments import integer
from .executable import Executable, compile
from .figures_data import Model, Names, confusion, name_of
from .figures_graph import plot_graph
from .figures_memory import plot_memory
from .figures_style import (
    COLORS,
    FAINT,
    INK,
    MARKERS,
    TEXT,
    WIDTH,
    Look,
    class_color,
    dress,
    new_axes,
    one_axes,
    outlined,
    require_matplotlib,
    save,
    tint,
    undress,
    whole_steps,
)
from .sequential import Sequential
from .training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FASHION_NAMES",
    "confusion",
    "plot_confusion",
    "plot_decision_boundaries",
    "plot_graph",
    "plot_history",
    "plot_images",
    "plot_memory",
    "plot_mistakes",
    "plot_points",
    "require_matplotlib",
    "save_fashion_mnist",
    "save_spiral",
]

# Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST", arXiv 1708.07747, table 2.
FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
Point = tuple[float, float]
MANY_EPOCHS = 20  # above it a dot for each epoch only makes the line thick


def plot_points(X: object, y: object, names: Names = None, ax: Axes | None = None) -> Axes:
    """Points X `[rows, 2]` with labels y `[rows]`: a colour and a marker a class.

    Each class is labelled with its name, or its number, beyond its outermost points.
    """
    points, labels = checked.points(X), checked.labels(y, names)
    checked.check_rows("X", points, "y", labels)
    ax = one_axes(ax, 0.8 * WIDTH, 0.8 * WIDTH)
    _scatter(ax, points, labels, size=5.0, linewidth=0.0)
    _label_classes(ax, points, labels, names)
    dress(ax, f"{len(points):,} points of {len(np.unique(labels))} classes", "$x_0$", "$x_1$")
    ax.set_aspect("equal")
    return ax


def plot_images(
    X: object, y: object, names: Names = None, columns: int = 10, ax: Axes | None = None
) -> Axes:
    """Images X `[rows, 1 or 3, height, width]` with labels y: a row of the first few a class."""
    images, labels = checked.images(X), checked.labels(y, names)
    checked.check_rows("X", images, "y", labels)
    integer("plot_images", "columns", columns)
    classes = np.unique(labels)
    chosen = [np.flatnonzero(labels == k)[:columns] for k in classes]
    ax = one_axes(ax, WIDTH, 0.35 + 0.87 * WIDTH * len(classes) / columns)
    for row, of_class in enumerate(chosen):
        for column, image in enumerate(checked.pixels(images[of_class])):
            _image(ax, image, column, row)
    shown = sum(map(len, chosen))
    dress(ax, f"{shown} of {len(images):,} images, a row a class")
    undress(ax)
    ax.set_xlim(0, columns)
    ax.set_ylim(len(classes), 0)
    ax.set_yticks(np.arange(len(classes)) + 0.5, [name_of(k, names) for k in classes])
    ax.tick_params(left=False)
    ax.set_aspect("equal")
    return ax


def plot_history(history: History, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Loss and accuracy by epoch, of training and, where there is one, of validation: two Axes.

    Training is measured while the model learns and with dropout on: it may well lie behind.
    `plot_history(History(*train_val(...)))` draws what `train_val` returns.
    """
    history = checked.check_history(history)
    left, right = _two(axes)
    lines = {"Loss, mean of the samples": (history.loss, history.val_loss)}
    lines["Accuracy, %"] = (
        [100 * a for a in history.accuracy],
        [100 * a for a in history.val_accuracy],
    )
    for ax, (label, (train, val)) in zip((left, right), lines.items(), strict=True):
        value = "{:.1f}%" if "%" in label else "{:.3f}"
        _curve(ax, train, "training", COLORS[0], "-", "o", value)
        _curve(ax, val, "validation", COLORS[6], "--", "s", value)
        _finish_curves(ax, label, train)
    return [left, right]


def plot_decision_boundaries(
    model: Model,
    X: object,
    y: object,
    names: Names = None,
    ax: Axes | None = None,
    resolution: int = 300,
) -> Axes:
    """What a model of points says in the plane, and X `[rows, 2]` on it; wrong rows have an edge.

    Names or numbers stand in the regions; colour and marker of a point are those of its own class.
    The model is asked at resolution x resolution places.
    """
    integer("plot_decision_boundaries", "resolution", resolution, least=2)
    points = checked.points(X)
    outputs = checked.outputs(model, points)
    labels = checked.labels(y, names, outputs.shape[1])
    checked.check_rows("X", points, "y", labels)
    ax = one_axes(ax, 0.8 * WIDTH, 0.8 * WIDTH)
    low, high = points.min(0), points.max(0)
    margin = 0.08 * max(float((high - low).max()), 1e-6)
    sides = [
        np.linspace(a - margin, b + margin, resolution) for a, b in zip(low, high, strict=True)
    ]
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2).astype(points.dtype)
    said = checked.outputs(model, grid).argmax(1).reshape(resolution, resolution)
    draw_regions(ax, sides[0], sides[1], said, names)
    wrong = outputs.argmax(1) != labels
    _scatter(ax, points[~wrong], labels[~wrong], size=6.0, linewidth=0.0)
    _scatter(ax, points[wrong], labels[wrong], size=14.0, linewidth=0.8)
    title = f"{100 * (1 - wrong.mean()):.1f}% of {len(points):,} points right; black edge: wrong"
    dress(ax, title, "$x_0$", "$x_1$")
    ax.set_aspect("equal")
    return ax


def plot_confusion(
    model: Model, X: object, y: object, names: Names = None, ax: Axes | None = None
) -> Axes:
    """Counts of rows of X by class and answer, shaded by their share of the class.

    On the right, the share of each class that the model got right.
    """
    outputs = checked.outputs(model, X)
    classes = outputs.shape[1]
    labels = checked.labels(y, names, classes)
    checked.check_rows("X", outputs, "y", labels)
    counts = confusion(labels, outputs.argmax(1), classes)
    side = max(0.85 * WIDTH, 1.2 + 0.4 * classes)
    ax = one_axes(ax, side + (0.9 if names else 0.1), side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in zip(*counts.nonzero(), strict=True):
        color = "white" if shares[i, j] > 0.55 else INK
        text = f"{counts[i, j]}"
        ax.text(j, i, text, ha="center", va="center", fontsize=TEXT, color=color)
    accuracy = np.trace(counts) / len(labels)
    dress(ax, f"{accuracy:.1%} of {len(labels):,} rows right", "The model says", "It is")
    ticks = [name_of(k, names) for k in range(classes)]
    turn: Look = {"rotation": 45, "ha": "right"} if names else {}
    ax.set_xticks(range(classes), ticks, **turn)
    ax.set_yticks(range(classes), ticks)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(classes), [f"{100 * shares[k, k]:.0f}%" for k in range(classes)])
    right.tick_params(length=0, labelsize=TEXT)
    right.set_ylabel("Right, of the class", fontsize=TEXT)
    for each in (ax, right):
        each.spines[:].set_visible(False)
    return ax


def plot_mistakes(
    model: Model,
    X: object,
    y: object,
    names: Names = None,
    count: int = 18,
    ax: Axes | None = None,
) -> Axes:
    """Up to `count` images that the model gets wrong, those it was surest of first.

    Below each, what it is, what the model says, and with what probability.
    """
    integer("plot_mistakes", "count", count)
    images = checked.images(X)
    outputs = checked.outputs(model, X)
    labels = checked.labels(y, names, outputs.shape[1])
    checked.check_rows("X", images, "y", labels)
    sure, said = checked.probabilities(outputs).max(1), outputs.argmax(1)
    wrong = np.flatnonzero(said != labels)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    columns, tall = 6, 1.42  # of a cell one wide: the image, and three lines below
    rows = max(1, -(-len(first) // columns))
    ax = one_axes(ax, 1.1 * WIDTH, 0.4 + 1.1 * WIDTH * tall * rows / columns)
    for place, (i, image) in enumerate(zip(first, checked.pixels(images[first]), strict=True)):
        row, column = divmod(place, columns)
        _image(ax, image, column, row * tall)
        truth, answer = name_of(labels[i], names), name_of(said[i], names)
        text = f"is {truth}\nsaid {answer}\n{100 * sure[i]:.0f}% sure"
        ax.text(column + 0.5, row * tall + 1.0, text, ha="center", va="top", fontsize=TEXT)
    which = (
        f"{len(first)} of {len(wrong):,} mistakes, surest first," if len(wrong) else "no mistake"
    )
    dress(ax, f"{which} in {len(images):,} images")
    undress(ax)
    ax.set_xlim(0, columns)
    ax.set_ylim(rows * tall, 0)
    ax.set_aspect("equal")
    return ax


def save_spiral(
    folder: str | PathLike,
    model: Sequential | Executable,
    history: History,
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
) -> list[Path]:
    """Writes a trained model of points to PNGs in `folder`, and returns their paths.

    data, metrics (if there was an epoch), decision_boundaries, confusion, graph, memory.
    """
    data = plot_points(X_train, y_train)
    own = {
        "decision_boundaries": plot_decision_boundaries(model, X_test, y_test),
        "confusion": plot_confusion(model, X_test, y_test),
    }
    return _save(Path(folder), _executable(model, X_train), history, data, own)


def save_fashion_mnist(
    folder: str | PathLike,
    model: Sequential | Executable,
    history: History,
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
) -> list[Path]:
    """Writes a trained model of Fashion-MNIST to PNGs in `folder`, and returns their paths.

    data, metrics (if there was an epoch), confusion, mistakes, graph, memory.
    """
    data = plot_images(X_train, y_train, FASHION_NAMES)
    own = {
        "confusion": plot_confusion(model, X_test, y_test, FASHION_NAMES),
        "mistakes": plot_mistakes(model, X_test, y_test, FASHION_NAMES),
    }
    return _save(Path(folder), _executable(model, X_train), history, data, own)


def _save(
    folder: Path, executable: Executable, history: History, data: Axes, own: dict[str, Axes]
) -> list[Path]:
    drawn = {"data": data}
    if history.loss:
        drawn["metrics"] = plot_history(history)[0]
    drawn |= own
    drawn["graph"] = plot_graph(executable.graph("simplify"))
    drawn["memory"] = plot_memory(executable.plan)
    return [save(folder, name, ax) for name, ax in drawn.items()]


def _executable(model: Sequential | Executable, X: np.ndarray) -> Executable:
    return model if isinstance(model, Executable) else compile(model, X.shape[1:])


def _scatter(
    ax: Axes, points: np.ndarray, labels: np.ndarray, size: float, linewidth: float
) -> None:
    for k in np.unique(labels):
        of_class = points[labels == k]
        ax.scatter(
            of_class[:, 0],
            of_class[:, 1],
            s=size,
            c=class_color(k),
            marker=MARKERS[k % len(MARKERS)],
            linewidths=linewidth,
            edgecolors=INK,
        )


def _label_classes(ax: Axes, points: np.ndarray, labels: np.ndarray, names: Names) -> None:
    """Names each class a little beyond those of its points that are farthest from the middle."""
    middle = points.mean(0)
    for k in np.unique(labels):
        away = points[labels == k] - middle
        far = np.argsort(-np.hypot(*away.T))[: max(1, len(away) // 50)]
        x, y = np.median(away[far], 0)
        length = np.hypot(x, y) or 1.0
        shift = 9 * x / length, 9 * y / length
        _class_label(ax, name_of(k, names), (middle[0] + x, middle[1] + y), shift)


def draw_regions(
    ax: Axes, x: np.ndarray, y: np.ndarray, said: np.ndarray, names: Names = None
) -> None:
    """Tints the plane by class, with a line between classes, and a label deep inside each.

    `said [rows, columns]` are the classes at the places y `[rows]` and x `[columns]`.
    """
    from scipy.ndimage import distance_transform_edt  # few programs draw

    tints = np.array([tint(class_color(k), 0.4) for k in range(said.max() + 1)])
    half = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2  # of a pixel
    extent = (x[0] - half[0], x[-1] + half[0], y[0] - half[1], y[-1] + half[1])
    ax.imshow(tints[said], extent=extent, origin="lower", interpolation="nearest")
    for k in np.unique(said):
        if (said != k).any():
            ax.contour(x, y, said == k, levels=[0.5], colors=[FAINT], linewidths=0.5)
        depth = distance_transform_edt(np.pad(said == k, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        _class_label(ax, name_of(k, names), (float(x[column]), float(y[row])))


def _class_label(ax: Axes, text: str, at: Point, shift: Point = (0.0, 0.0)) -> None:
    """Writes a class at a place, `shift` points away from it."""
    look: Look = {"ha": "center", "va": "center", "fontsize": TEXT + 1, "fontweight": "bold"}
    ax.annotate(text, at, shift, textcoords="offset points", **look, **outlined())


def _image(ax: Axes, image: np.ndarray, left: float, top: float) -> None:
    """An image in the unit square at (left, top), with a thin margin; grey ones as ink on paper."""
    extent = (left + 0.03, left + 0.97, top + 0.97, top + 0.03)
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    ax.imshow(shown, cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="nearest")


def _curve(
    ax: Axes, values: Sequence[float], name: str, color: str, style: str, marker: str, value: str
) -> None:
    if not values or np.isnan(values).all():
        return
    ax.plot(
        range(1, len(values) + 1),
        values,
        style,
        color=color,
        linewidth=1.5,
        marker=marker if len(values) <= MANY_EPOCHS else "",
        markersize=3.5,
        label=f"{name}, last {value.format(values[-1])}",
    )


def _finish_curves(ax: Axes, label: str, train: Sequence[float]) -> None:
    what, _, unit = label.partition(",")
    dress(ax, what, "Epoch", f"{what},{unit}")
    whole_steps(ax)
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.lines:
        ax.legend(fontsize=TEXT, frameon=False)
    if np.isnan(train).all():
        where: Look = {"transform": ax.transAxes, "ha": "center", "va": "center", "fontsize": TEXT}
        ax.text(0.5, 0.5, f"{what.lower()} is NaN in every epoch", **where)


def _two(axes: Sequence[Axes] | None) -> Sequence[Axes]:
    if axes is None:
        return new_axes(2, 1.1 * WIDTH, 0.45 * WIDTH)
    if len(axes) != 2:
        raise DataError(f"axes: got {len(axes)} Axes, expected two: for loss and for accuracy")
    return axes
