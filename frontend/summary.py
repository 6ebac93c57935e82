"""The table that `model.summary()` returns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .arguments import sample_shape

if TYPE_CHECKING:
    from .sequential import Sequential


def summary(model: Sequential, input_shape: tuple[int, ...] | None = None) -> str:
    """A row a layer: name, arguments, parameters, and, with input_shape, the output's shape."""
    shapes = (
        _output_shapes(model, sample_shape(input_shape))
        if input_shape
        else [""] * len(model.layers)
    )
    rows = [("layer", "arguments", "output", "parameters")]
    for i, layer in enumerate(model.layers):
        count = sum(math.prod(p.shape) for _, p in layer.named_parameters())
        arguments = ", ".join(f"{k}={v}" for k, v in layer.arguments().items())
        rows.append((model.loc(i), arguments, shapes[i], f"{count:,}" if count else ""))
    total = sum(math.prod(p.shape) for p in model.parameters.values())
    rows.append(("total", "", "", f"{total:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join(
            [*(c.ljust(w) for c, w in zip(row[:3], widths, strict=False)), row[3].rjust(widths[3])]
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _output_shapes(model: Sequential, input_shape: tuple[int, ...]) -> list[str]:
    from .sequential import Sequential
    from .trace import output_type

    shapes = []
    for n in range(1, len(model.layers) + 1):
        part = Sequential(model.layers[:n])
        shapes.append(str(output_type(part, input_shape)).removeprefix("f32"))
    return shapes
