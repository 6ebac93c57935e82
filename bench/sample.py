"""A fixed sample of 60 networks of the kind people train on a CPU, drawn log-uniformly.

Two in three are convolutional: one to four blocks of convolution, ReLU and perhaps a max-pool, then
one or two Linear layers, some with dropout; the others are MLPs. Channels are 1 to 128, images 8
to 64 pixels wide, kernels 1 to 7, strides 1 or 2, batches 1 to 1,024, MLPs 2 to 2,048 wide. A draw
is kept if a step of training is at most 20 GFLOP and 2 GB. With a fixed seed it is always the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..frontend import layers as layer_types
from ..frontend.losses import CrossEntropyLoss
from ..frontend.optimizers import Adam
from ..frontend.sequential import Sequential

Shape = tuple[int, ...]
Layers = tuple[tuple[str, dict[str, Any]], ...]  # names and arguments: ours are PyTorch's

SEED, COUNT = 20, 60
MOST_FLOPS, MOST_BYTES = 20e9, 2e9  # a step of training
MOST_FEATURES = 16_384  # between the convolutions and the first Linear layer
EPOCH_FLOPS, EPOCH_BYTES, EPOCH_BATCHES = 8e9, 64e6, 128  # an epoch is at most this, or two batches
SHORT = {"Conv2d": "conv", "Linear": "linear", "MaxPool2d": "pool", "Dropout": "dropout"}


@dataclass(frozen=True)
class Sample:
    """A network, its input and its batch."""

    number: int
    batch: int
    input_shape: Shape
    layers: Layers
    place: Mapping[str, int] = field(default_factory=dict)  # in a grid; empty for one drawn

    def model(self, dropout: bool = True) -> Sequential:
        """The network, made anew, with cross-entropy and Adam."""
        made = [
            getattr(layer_types, name)(**arguments)
            for name, arguments in self.layers
            if dropout or name != "Dropout"
        ]
        return Sequential(made, CrossEntropyLoss(), Adam(lr=1e-3), seed=self.number)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """An epoch of normal inputs and random labels."""
        rng, rows = np.random.default_rng(self.number), self.batch * self.batches
        x = rng.standard_normal((rows, *self.input_shape), np.float32)
        return x, rng.integers(0, self.layers[-1][1]["out_features"], rows)

    @property
    def batches(self) -> int:
        """The batches of an epoch."""
        nbytes = 4 * self.batch * math.prod(self.input_shape)
        most = min(EPOCH_FLOPS / self.flops, EPOCH_BYTES / nbytes, EPOCH_BATCHES)
        return max(2, int(most))

    @property
    def flops(self) -> int:
        """Of the products in a training step: forward, weight gradients and input gradients."""
        forward = [f for _, f, _ in self._walk() if f]
        return 2 * self.batch * (3 * sum(forward) - forward[0])  # the first needs no input gradient

    @property
    def nbytes(self) -> int:
        """Of activations and their gradients, parameters, theirs, and Adam's two moments."""
        walked = list(self._walk())
        activations = math.prod(self.input_shape) + 2 * sum(math.prod(s) for s, _, _ in walked)
        return 4 * (self.batch * activations + 4 * sum(p for _, _, p in walked))

    def is_within_limits(self) -> bool:
        """Whether a step is short and small enough, and the first Linear layer one people use."""
        first = next(arguments for name, arguments in self.layers if name == "Linear")
        small = self.flops <= MOST_FLOPS and self.nbytes <= MOST_BYTES
        return small and first["in_features"] <= MOST_FEATURES

    def __str__(self) -> str:
        """In one line: "3x32x32 conv 16 k3, pool, linear 10"."""
        shape = "x".join(map(str, self.input_shape))
        return f"{shape} {', '.join(_brief(*layer) for layer in self.layers if layer[0] in SHORT)}"

    def _walk(self) -> Iterator[tuple[Shape, int, int]]:
        """Each layer's output shape, multiplications a row, and parameters."""
        shape = self.input_shape
        for name, arguments in self.layers:
            shape, taps = _output(name, arguments, shape)
            outputs = shape[0] if taps else 0
            yield shape, taps * math.prod(shape), outputs * (taps + 1)


def sample_models() -> tuple[Sample, ...]:
    """The sample, in the order of its numbers."""
    rng = np.random.default_rng(SEED)
    return tuple(_kept(rng, number) for number in range(COUNT))


def output_shape(layers: Layers, shape: Shape) -> Shape:
    """The shape of a row behind these layers, for rows of `shape`."""
    for name, arguments in layers:
        shape, _ = _output(name, arguments, shape)
    return shape


def _kept(rng: np.random.Generator, number: int) -> Sample:
    """The first draw that is within the limits."""
    while True:
        draw = _mlp if number % 3 == 2 else _cnn
        input_shape, layers = draw(rng)
        made = Sample(number, _log_uniform(rng, 1, 1024), input_shape, layers)
        if made.is_within_limits():
            return made


def _cnn(rng: np.random.Generator) -> tuple[Shape, Layers]:
    side = _log_uniform(rng, 8, 64)
    shape: Shape = (int(rng.choice((1, 3))), side, side)
    input_shape, layers = shape, []
    for _ in range(rng.integers(1, 5)):
        for layer in _block(rng, shape):
            shape, _ = _output(*layer, shape)
            layers.append(layer)
    features = math.prod(shape)
    layers.append(("Flatten", {}))
    widths = [_log_uniform(rng, 16, 512)] if rng.random() < 0.7 else []
    return input_shape, (*layers, *_linears(rng, features, widths))


def _block(rng: np.random.Generator, shape: Shape) -> Layers:
    """A convolution, ReLU and perhaps a max-pool of images that are large enough for one."""
    c, side, _ = shape
    kernel = min(_log_uniform(rng, 1, 7), side)
    stride = 2 if rng.random() < 0.2 else 1
    padding = kernel // 2 if rng.random() < 0.8 else 0
    sizes = {"kernel_size": kernel, "stride": stride, "padding": padding}
    channels = {"in_channels": c, "out_channels": _log_uniform(rng, 1, 128)}
    conv: tuple[str, dict[str, Any]] = ("Conv2d", {**channels, **sizes})
    block: Layers = (conv, ("ReLU", {}))
    if rng.random() < 0.5 and _output(*conv, shape)[0][1] >= 4:
        block += (("MaxPool2d", {"kernel_size": 2}),)
    return block


def _mlp(rng: np.random.Generator) -> tuple[Shape, Layers]:
    features = _log_uniform(rng, 2, 2048)
    widths = [_log_uniform(rng, 8, 2048) for _ in range(rng.integers(1, 5))]
    return (features,), _linears(rng, features, widths)


def _linears(rng: np.random.Generator, features: int, widths: list[int]) -> Layers:
    """Linear layers of these widths with ReLU, some with dropout, and one for 2 to 100 classes."""
    layers: list[tuple[str, dict[str, Any]]] = []
    dropout = rng.random() < 0.4
    for width in widths:
        layers += [("Linear", {"in_features": features, "out_features": width}), ("ReLU", {})]
        layers += [("Dropout", {"p": 0.5})] if dropout else []
        features = width
    classes = _log_uniform(rng, 2, 100)
    return (*layers, ("Linear", {"in_features": features, "out_features": classes}))


def _output(name: str, arguments: dict[str, Any], shape: Shape) -> tuple[Shape, int]:
    """(output shape, multiplications an output element) of a layer."""
    match name:
        case "Conv2d":
            kernel, stride, padding = (arguments[k] for k in ("kernel_size", "stride", "padding"))
            side = (shape[1] + 2 * padding - kernel) // stride + 1
            return (arguments["out_channels"], side, side), shape[0] * kernel**2
        case "MaxPool2d":
            side = shape[1] // arguments["kernel_size"]
            return (shape[0], side, side), 0
        case "Linear":
            return (arguments["out_features"],), shape[0]
        case "Flatten":
            return (math.prod(shape),), 0
    return shape, 0


def _brief(name: str, arguments: dict[str, Any]) -> str:
    if name == "Conv2d":
        kernel, stride, padding = (arguments[k] for k in ("kernel_size", "stride", "padding"))
        strided = f" s{stride}" if stride > 1 else ""
        padded = f" p{padding}" if padding else ""
        return f"conv {arguments['out_channels']} k{kernel}{strided}{padded}"
    return f"linear {arguments['out_features']}" if name == "Linear" else SHORT[name]


def _log_uniform(rng: np.random.Generator, least: int, most: int) -> int:
    """A whole number whose logarithm is spread evenly."""
    return min(most, int(math.exp(rng.uniform(math.log(least), math.log(most + 1)))))
