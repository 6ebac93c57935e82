"""Figures of a comparison: curves of training, and what the networks say in the plane.

Each function draws into new Axes and returns them, as the figures of `gemmc.figures` do:
`plot_curves(histories)[0].figure.savefig("curves.png")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..frontend.figures import draw_regions, plot_decision_boundaries
from ..frontend.figures_data import Model
from ..frontend.figures_style import TEXT, WIDTH, dress, new_axes, whole_steps
from ..ir import DataError
from .figures_looks import lines_behind, look_of
from .results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = 10  # on a curve at most
BROAD = 5.0  # points: the first contender's line
CURVES = {
    "loss": "Loss, training",
    "accuracy": "Accuracy, training, %",
    "val_loss": "Loss, validation",
    "val_accuracy": "Accuracy, validation, %",
}


class Curves(Protocol):
    """An entry an epoch in each list; gemmc's own History has `accuracy`, of training, as well."""

    @property
    def loss(self) -> Sequence[float]: ...
    @property
    def val_loss(self) -> Sequence[float]: ...
    @property
    def val_accuracy(self) -> Sequence[float]: ...


def plot_curves(histories: Mapping[str, Curves]) -> list[Axes]:
    """Loss and accuracy by epoch, of training and validation, all contenders over each other.

    An Axes for each that somebody has. Lines grow thinner from contender to contender, so that
    those below can be seen. DataError if nobody has an epoch.
    """
    drawn = [name for name in CURVES if any(getattr(h, name, ()) for h in histories.values())]
    if not drawn:
        raise DataError("histories: have no epochs, expected at least one")
    columns = 3 if len(drawn) == 3 else 2
    rows = -(-len(drawn) // columns)
    axes = new_axes(columns, 0.55 * columns * WIDTH, (0.1 + 0.42 * rows) * WIDTH, rows)
    for ax in axes[len(drawn) :]:
        ax.remove()
    for ax, name in zip(axes, drawn, strict=False):
        for place, (contender, history) in enumerate(histories.items()):
            scale = 100 if "accuracy" in name else 1
            values = scale * np.array(getattr(history, name, ()))
            _curve(ax, contender, values, place, len(histories))
        dress(ax, CURVES[name], "Epoch")
        whole_steps(ax)
        lines_behind(ax)
        ax.legend(fontsize=TEXT, frameon=False)
    return axes[: len(drawn)]


def plot_boundaries(models: Mapping[str, Model], X: np.ndarray, y: np.ndarray) -> list[Axes]:
    """What models of points say in the plane, side by side, and X `[rows, 2]` on it.

    Points that a model gets wrong have a black edge. DataError if there is no model.
    """
    if not models:
        raise DataError("models: is empty, expected a model for each contender")
    axes = new_axes(len(models), 0.62 * WIDTH * len(models), 0.68 * WIDTH)
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        plot_decision_boundaries(model, X, y, ax=ax)
        ax.set_title(f"{name}: {ax.get_title(loc='left')}", fontsize=TEXT, loc="left")
    return axes


def plot_planes(result: Result) -> list[Axes]:
    """What the contenders' networks say in the plane after training, side by side, two in a row.

    DataError if nobody was asked, as with models of other than points.
    """
    asked = [c for c in result.contenders if c.plane]
    if not asked:
        raise DataError(f"{result.model}: has no planes: they are of models of points")
    rows = -(-len(asked) // 2)
    axes = new_axes(2, 1.1 * WIDTH, 0.58 * WIDTH * rows, rows)
    left, right, bottom, top = result.extent
    for ax in axes[len(asked) :]:
        ax.remove()
    for ax, contender in zip(axes, asked, strict=False):
        said = np.array(contender.plane)
        x, y = np.linspace(left, right, said.shape[1]), np.linspace(bottom, top, said.shape[0])
        draw_regions(ax, x, y, said)
        tested = contender.test_accuracies[:1]
        accuracy = f": test accuracy {tested[0]:.2%}" if tested else ""
        dress(ax, contender.name + accuracy, "$x_0$", "$x_1$")
        ax.set_aspect("equal")
    return axes[: len(asked)]


def _curve(ax: Axes, contender: str, values: np.ndarray, place: int, count: int) -> None:
    if not len(values) or np.isnan(values).all():
        return
    look = look_of(contender)
    apart = -(-len(values) // MARKS)  # of the marks on a curve; contenders' beside each other
    ax.plot(
        range(1, len(values) + 1),
        values,
        look.line,
        color=look.color,
        linewidth=BROAD if place == 0 else BROAD * 0.6 * (count - place) / count,
        alpha=0.5 if place == 0 else 1.0,
        marker=look.marker,
        markevery=(apart * place // count, apart),
        markersize=4.0,
        label=f"{contender}, last {values[-1]:.4g}",
    )
