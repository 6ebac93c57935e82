"""What a user's layer may do besides what layers usually do: every runtime does it.

Each layer below has an input of its own; all are traced, differentiated and compiled as one
program, and outputs and gradients are held against the interpreter in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import draw_inputs, widened
from running import POISONS, compile_program
from twins import assert_close

import gemmc
from gemmc import SGD, Loss, Module, Parameter, Sequential, ops
from gemmc.frontend.value import Trace, Value
from gemmc.ir import Graph, TensorType, interpret
from gemmc.ir.types import N
from gemmc.passes.pipeline import Program, in_float64
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

SHAPE = (N, 3, 4, 5)
ROWS = 6
Layer = Callable[[Value], Value]


def parameter(x: Value, *shape: int) -> Value:
    """One more parameter, of the layer whose input is x."""
    name = f"{x.node.name}.p{len(x.trace.inputs)}"
    return x.trace.input(name, TensorType(shape, "f32"))


def wide(x: Value) -> Value:
    return ops.cast(x, "f64")


def narrow(x: Value) -> Value:
    return ops.cast(x, "f32")


def spatial_dropout(x: Value) -> Value:
    """Whole channels are dropped: one draw for each, spread over the positions."""
    ones = ops.sum(x, (2, 3)) * 0.0 + 1.0
    return x * ops.reshape(ops.dropout(ones, 0.4), (3, 1, 1))


def tied_weights(x: Value) -> Value:
    w = parameter(x, 5, 3)
    return (x @ w) @ ops.transpose(w, (1, 0))


def image_of_weights(x: Value) -> Value:
    """Two images that are weights: a convolution without a batch."""
    return x * ops.sum(ops.conv2d(parameter(x, 2, 3, 6, 5), parameter(x, 4, 3, 2, 2)))


def pooled_convolution(x: Value) -> Value:
    made = ops.relu(ops.conv2d(x, parameter(x, 4, 3, 3, 3), padding=1))
    return ops.max_pool2d(ops.dropout(made, 0.3), 2)


LAYERS: dict[str, Layer] = {
    # in float64
    "wide_product": lambda x: narrow(wide(x) @ wide(parameter(x, 5, 6))),
    "wide_conv": lambda x: narrow(ops.conv2d(wide(x), wide(parameter(x, 2, 3, 3, 3)), padding=1)),
    "wide_stride": lambda x: narrow(ops.conv2d(wide(x), wide(parameter(x, 2, 3, 2, 3)), stride=2)),
    "wide_mean": lambda x: x - narrow(ops.mean(wide(x), (0,))),
    "wide_functions": lambda x: narrow(ops.log(ops.exp(ops.tanh(wide(x))) + 1.5) ** 1.5),
    "wide_pool": lambda x: narrow(ops.max_pool2d(wide(x), 2)),
    "wide_softmax": lambda x: narrow(ops.softmax(wide(x), 2)),
    "wide_dropout": lambda x: narrow(ops.dropout(wide(x), 0.4)),
    "wide_max": lambda x: narrow(ops.max(wide(x), (1, 3))),
    # integers and booleans
    "whole_numbers": lambda x: x * narrow(ops.cast(x * 4.0, "i64")),
    "bytes": lambda x: x * narrow(ops.cast(ops.abs(x) * 100.0 + 30.0, "u8")),
    "from_booleans": lambda x: x * narrow(x > 0.2) + narrow(wide(x <= 0.1)),
    "to_booleans": lambda x: ops.where(ops.cast(ops.relu(x - 0.3), "bool"), x, -x),
    "whole_to_booleans": lambda x: ops.where(ops.cast(ops.cast(x * 2.0, "i64"), "bool"), x, -x),
    # powers and functions
    "powers": lambda x: (x * x + 0.5) ** x + 2.0**x + (x * x + 0.1) ** -0.5 + (x + 3.0) ** 3,
    "large_numbers": lambda x: ops.tanh(x * 30.0) + ops.exp(x * 60.0) * 1e-26,
    "small_numbers": lambda x: ops.log(ops.abs(x) * 1e-30 + 1e-37) + ops.exp(x - 80.0),
    # axes
    "max_of_two_axes": lambda x: ops.max(x, (1, 3)),
    "max_of_an_inner_axis": lambda x: ops.max(x, (2,)),
    "max_of_a_row": lambda x: ops.max(x, (1, 2, 3)),
    "sum_of_two_axes": lambda x: ops.sum(x, (1, 3)),
    "mean_of_the_batch": lambda x: x - ops.reshape(ops.mean(x, (0, 1, 3)), (1,)),
    "sum_of_everything": lambda x: x * ops.sum(x) * 0.01,
    "turned": lambda x: ops.transpose(x, (0, 3, 1, 2)) * 2.0,
    "mirrored_axes": lambda x: ops.transpose(x, (0, 3, 2, 1)) * 2.0,
    "rank_5": lambda x: ops.transpose(ops.reshape(x, (3, 2, 2, 5)), (0, 4, 2, 1, 3)) * 2.0,
    "pairs_turned": lambda x: ops.transpose(ops.reshape(x, (3, 2, 2, 5)), (0, 2, 1, 4, 3)),
    "padded": lambda x: ops.pad(x, (0, 1, 0, 2), (0, 0, 3, 1), value=-0.5) * 2.0,
    "reversed": lambda x: x.make("reverse", axes=(1, 3)) * x,
    "cut": lambda x: x.make("slice", start=(0, 1, 0, 2), size=(N, 2, 3, 3)) * 2.0,
    "softmax_of_channels": lambda x: ops.softmax(x, 1),
    "softmax_of_lines": lambda x: ops.softmax(x, 2),
    "both_softmaxes": lambda x: ops.log_softmax(x, 3) * ops.softmax(x, 1),
    # sharing and spreading
    "spatial_dropout": spatial_dropout,
    "as_it_is": lambda x: x,
    "ones": lambda x: x * 0.0 + 1.0,
    "flat": lambda x: ops.reshape(x, (60,)),
    "gate": lambda x: ops.where(parameter(x, 3, 1, 1) > 0.0, x, x * 0.5),
    "tied_weights": tied_weights,
    "product_of_a_spread": lambda x: (x * 0.0 + parameter(x, 5)) @ parameter(x, 5, 2),
    "product_with_a_softmax": lambda x: x @ ops.softmax(parameter(x, 5, 4), 1),
    "product_with_largest_weights": lambda x: x * ops.max(parameter(x, 5, 4), (1,)),
    # convolutions
    "image_of_weights": image_of_weights,
    "image_of_ones": lambda x: ops.conv2d(x * 0.0 + 1.0, parameter(x, 2, 3, 2, 2)),
    "one_channel": lambda x: ops.conv2d(
        ops.reshape(x, (1, 12, 5)), parameter(x, 7, 1, 3, 3), padding=(1, 2)
    ),
    "pools_in_pools": lambda x: ops.max_pool2d(ops.max_pool2d(x, 2, 1), (2, 3), (1, 2)),
    "pooled_convolution": pooled_convolution,
}


def layers_graph() -> Graph:
    """An output for each layer, and a loss in which every element counts."""
    trace = Trace(training=True)
    loss = trace.input("start", TensorType((), "f32"))
    outputs: dict[str, Value] = {}
    for name, layer in LAYERS.items():
        y = layer(trace.input(f"{name}.x", TensorType(SHAPE, "f32")))
        outputs[name] = y
        loss = loss + ops.mean(y * y)
    inputs = [*trace.inputs.values()]
    named = {name: y.node for name, y in {**outputs, "loss": loss}.items()}
    return trace.builder.graph("layers", inputs, named)


@pytest.mark.parametrize("target", [native_target(), CPU], ids=["native", "blas"])
def test_what_a_layer_does_is_done_by_every_runtime_and_so_is_its_backward(target: Target) -> None:
    graph = layers_graph()
    wrt = tuple(n.name for n in graph.inputs if n.dtype == "f32" and n.name != "start")
    compiled = compile_program(Program(graph, ROWS, wrt, target=target))
    meant = in_float64(compiled.differentiated)
    for rows in (ROWS, 1, ROWS - 1):
        arrays = draw_inputs(graph, rows, seed=rows)
        expected = interpret(meant, widened(arrays), rows)
        one, other = (compiled.run(arrays, rows, poison) for poison in POISONS)
        for name, y in expected.items():
            assert one[name].tobytes() == other[name].tobytes(), f"{name} depends on rubbish"
            # float32 against float64: sums of up to a few hundred terms, some through exp
            assert_close(one[name], y, 2e-5, f"{name} of {rows} rows")


class InFloat64(Loss):
    """A mean of squares that is computed, and handed out, in float64."""

    def forward(self, output: Value, target: Value) -> Value:
        return ops.mean((wide(output) - wide(target)) ** 2)


class Gain(Module):
    """A factor a feature, 1 at first."""

    def __init__(self) -> None:
        self.factors: Any = Parameter((3,), lambda rng, shape: np.ones(shape, np.float32))

    def forward(self, x: Value) -> Value:
        return x * self.factors


class Doubled(Module):
    """The output in float64."""

    def forward(self, x: Value) -> Value:
        return wide(x) * 2.0


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
def test_a_loss_and_an_output_may_be_in_float64(runtime: str) -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(20, 3)).astype(np.float32) for _ in range(2))
    exe = gemmc.compile(Sequential([Gain()], InFloat64(), SGD(0.1)), (3,), 8, runtime=runtime)
    factors = np.ones(3)
    assert exe.evaluate(x, y)[0] == pytest.approx(np.mean((x * factors - y) ** 2), rel=1e-6)
    losses = []
    for start in range(0, 20, 8):
        some, wanted = (a[start : start + 8].astype(np.float64) for a in (x, y))
        error = some * factors - wanted
        losses += [np.mean(error**2)] * len(some)
        factors -= 0.1 * 2 * np.sum(error * some, 0) / error.size
    seen = exe.fit(x, y, epochs=1, shuffle=False).loss
    assert seen == [pytest.approx(np.mean(losses), rel=1e-6)]
    doubled = gemmc.compile(Sequential([Doubled()]), (3,), 8, runtime=runtime)(x)
    np.testing.assert_array_equal(doubled, x.astype(np.float64) * 2)
