"""The table that `model.summary()` returns."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir import TensorType
from ..runtime.work import flops
from .arguments import sample_shape

if TYPE_CHECKING:
    from .losses import Loss
    from .module import Module
    from .optimizers import Optimizer
    from .sequential import Sequential

NUMBERS = ("parameters", "FLOPs/row", "bytes/row")
SIZED = ("output", "FLOPs/row", "bytes/row")  # columns that need to know the input's shape


@dataclass(frozen=True)
class LayerRow:
    """A layer: its output's type, its parameters, and for one row of a batch, forward, its work.

    `flops` counts those of products; `nbytes` is what the output takes. Without an input shape
    they are 0, and there is no output.
    """

    layer: str
    arguments: str
    output: TensorType | None
    parameters: int
    flops: int
    nbytes: int

    @property
    def cells(self) -> dict[str, str]:
        """The row as text, by column."""
        return {
            "layer": self.layer,
            "arguments": self.arguments,
            "output": str(self.output).removeprefix("f32") if self.output else "",
            "parameters": _number(self.parameters),
            "FLOPs/row": _number(self.flops),
            "bytes/row": _number(self.nbytes),
        }


def layer_rows(model: Sequential, input_shape: tuple[int, ...] | None = None) -> list[LayerRow]:
    """A row a layer, and one with the totals."""
    shape = sample_shape(input_shape) if input_shape else None
    outputs = _outputs(model, shape) if shape else [None] * len(model.layers)
    work = _work(model, shape) if shape else {}
    rows = []
    for i, (layer, output) in enumerate(zip(model.layers, outputs, strict=True)):
        count = sum(math.prod(p.shape) for _, p in layer.named_parameters())
        nbytes = output.nbytes(1) if output else 0
        loc = model.loc(i)
        rows.append(LayerRow(loc, written(layer), output, count, work.get(loc, 0), nbytes))
    sums = (sum(getattr(r, k) for r in rows) for k in ("parameters", "flops", "nbytes"))
    return [*rows, LayerRow("total", "", None, *sums)]


def summary(model: Sequential, input_shape: tuple[int, ...] | None = None) -> str:
    """The layers as a table: name, arguments, parameters; with input_shape also shapes and work."""
    cells = [row.cells for row in layer_rows(model, input_shape)]
    columns = [c for c in cells[0] if input_shape or c not in SIZED]
    widths = {c: max(len(c), *(len(row[c]) for row in cells)) for c in columns}
    lines = [
        "  ".join(_aligned(c, row[c], widths[c]) for c in columns)
        for row in ({c: c for c in columns}, *cells)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def written(part: Module | Loss | Optimizer) -> str:
    """The constructor's arguments as one writes them: those that are not the default."""
    texts = []
    parameters = inspect.signature(type(part)).parameters
    for name, value in part.arguments().items():
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            texts.append(repr(_short(value)))
        elif _short(value) != _short(default):
            texts.append(f"{name}={_short(value)!r}")
    return ", ".join(texts)


def _short(value: object) -> object:
    """A pair of equal sizes as the one size."""
    pair = isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]
    return value[0] if pair and isinstance(value, tuple) else value


def _aligned(column: str, text: str, width: int) -> str:
    return text.rjust(width) if column in NUMBERS else text.ljust(width)


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _outputs(model: Sequential, input_shape: tuple[int, ...]) -> list[TensorType]:
    from .sequential import Sequential
    from .trace import output_type

    parts = (Sequential(model.layers[:n]) for n in range(1, len(model.layers) + 1))
    return [output_type(part, input_shape) for part in parts]


def _work(model: Sequential, input_shape: tuple[int, ...]) -> dict[str, int]:
    """The floating-point operations of each layer's products on one row."""
    from .trace import trace

    work: dict[str, int] = {}
    for node in trace(model, input_shape, "predict", "f32", False).nodes:
        work[node.loc] = work.get(node.loc, 0) + int(flops(node, 1))
    return work
