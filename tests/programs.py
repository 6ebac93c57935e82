"""Models of every kind, the programs traced from them, and arrays to run those on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gemmc import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    MSELoss,
    ReLU,
    Sequential,
    Softmax,
    ops,
)
from gemmc.frontend.trace import trace_program
from gemmc.frontend.value import Value
from gemmc.ir import Graph, TensorType
from gemmc.ir.types import FLOATS
from gemmc.passes.pipeline import Program
from gemmc.passes.target import CPU, Target

Model = tuple[Sequential, tuple[int, ...]]


def spiral() -> Model:
    """The spiral's MLP."""
    layers = [Linear(2, 32), ReLU(), Linear(32, 16), ReLU(), Linear(16, 8), Softmax()]
    return Sequential(layers, CrossEntropyLoss(), Adam(1e-3)), (2,)


def cnn(size: int = 28) -> Model:
    """The example CNN, for images of 28 x 28 or smaller."""
    features = 32 * (size // 4) ** 2
    layers = [
        *(Conv2d(1, 16, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(features, 128), ReLU(), Dropout()),
        *(Linear(128, 10), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(1e-3)), (1, size, size)


def conv_alone() -> Model:
    """One convolution, and images for targets."""
    return Sequential([Conv2d(3, 5, (3, 2), padding=1)], MSELoss(), SGD(0.1)), (3, 6, 7)


def strided() -> Model:
    """Convolutions with strides and wide padding, pools that overlap and are padded."""
    layers = [
        *(Conv2d(3, 6, (3, 4), stride=(2, 1), padding=(1, 3)), ReLU()),
        *(MaxPool2d(3, stride=2, padding=1), Conv2d(6, 4, 1), ReLU()),
        *(Conv2d(4, 4, 3, stride=2, padding=2), Flatten(), Linear(48, 7)),
    ]
    return Sequential(layers, CrossEntropyLoss(), SGD(0.1, momentum=0.9, weight_decay=1e-3)), (
        3,
        13,
        9,
    )


def same_padding() -> Model:
    """Even kernels that keep the size, a ReLU in front of a pool, dropout on images."""
    layers = [
        *(Conv2d(2, 4, (2, 4), padding="same"), ReLU(), Dropout(0.3), MaxPool2d((2, 3))),
        *(
            Conv2d(4, 3, 3, padding="same", bias=False),
            Flatten(),
            Linear(27, 5),
            ReLU(),
            Linear(5, 2),
        ),
    ]
    return Sequential(layers, MSELoss(), Adam(1e-2, weight_decay=0.1)), (2, 6, 9)


def wide() -> Model:
    """One Linear layer without a bias, and a single output."""
    return Sequential([Linear(9, 1, bias=False)], MSELoss(), SGD(0.1)), (9,)


class Standardised(Module):
    """Images less a share of their channel's sum over the whole batch, over its deviation."""

    def forward(self, x: Value) -> Value:
        x = x - ops.reshape(ops.sum(x * 0.02, (0, 2, 3)), (1, 1))
        return x / ops.reshape(ops.sqrt(ops.mean(x * x, (0, 2, 3)) + 0.1), (1, 1))


def batch_norm() -> Model:
    """Convolutions whose results depend on all rows of the batch: no tile can know them."""
    layers = [
        *(Conv2d(2, 3, 3, padding=1), Standardised(), ReLU(), MaxPool2d(2)),
        *(Conv2d(3, 4, 2), Standardised(), Flatten(), Linear(16, 3)),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(1e-2)), (2, 6, 6)


class Tied(Module):
    """A Linear whose weights stand elsewhere too: as a second product, by rows, and elementwise."""

    def __init__(self) -> None:
        self.inner = Linear(6, 4)

    def forward(self, x: Value) -> Value:
        w = self.inner.weight
        y = ops.relu(self.inner(x)) @ w
        return y.make("matmul", ops.softmax(w, 1) * ops.exp(w), transpose_b=True) + ops.sum(w, (1,))


def tied() -> Model:
    """Weights that are stored in one form and needed in two."""
    return Sequential([Tied(), Linear(4, 1)], MSELoss(), Adam(1e-2, weight_decay=0.1)), (6,)


MODELS: dict[str, Callable[[], Model]] = {
    "spiral": spiral,
    "cnn": lambda: cnn(12),
    "conv alone": conv_alone,
    "strided": strided,
    "same padding": same_padding,
    "batch norm": batch_norm,
    "wide": wide,
    "tied": tied,
}


def program(name: str, given: Model, rows: int, target: Target = CPU) -> Program:
    """What `compile` gives to the passes for one of PROGRAMS; "grads" with dropout."""
    model, shape = given
    return trace_program(model, shape, name, "f32", name in ("step", "grads"), rows, target)


def draw_inputs(graph: Graph, rows: int, seed: int) -> dict[str, np.ndarray]:
    """An array for each input: parameters scaled by their size, state positive, labels in range."""
    rng = np.random.default_rng(seed)
    names = {n.name for n in graph.inputs}
    classes = min((n.attrs["classes"] for n in graph.nodes if n.op == "one_hot"), default=2)
    drawn = {}
    for n in graph.inputs:
        is_state = n.name.rpartition(".")[0] in names
        drawn[n.name] = _draw(rng, n.tensor, rows, classes, is_state)
    if "lr" in drawn:
        drawn["lr"] = np.asarray(0.01, drawn["lr"].dtype)
    return drawn


def _draw(
    rng: np.random.Generator, t: TensorType, rows: int, classes: int, is_state: bool
) -> np.ndarray:
    shape = t.concrete(rows)
    if t.dtype not in FLOATS:
        return np.asarray(rng.integers(1 if not shape else 0, max(2, classes), shape)).astype(
            t.numpy
        )
    scale = 1.0 if t.per_row or len(shape) < 2 else (3.0 / np.prod(shape[1:])) ** 0.5
    low = 0.1 if is_state else -1.0  # a running mean of squares is not negative
    return np.asarray(rng.uniform(low, 1.0, shape) * scale).astype(t.numpy)


def widened(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers in float64."""
    return {k: a.astype(np.float64) if a.dtype == np.float32 else a for k, a in arrays.items()}
