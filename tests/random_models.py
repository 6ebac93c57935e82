"""Random Sequential models: small, of every layer and argument, each from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gemmc import (
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    MSELoss,
    Optimizer,
    ReLU,
    Sequential,
    Softmax,
)
from gemmc.frontend.trace import output_type

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass
class Case:
    """A model, a batch for it, and how many rows to compile it for."""

    seed: int
    model: Sequential
    input_shape: Shape
    x: np.ndarray
    y: np.ndarray
    batch_size: int

    def __repr__(self) -> str:
        batch = f"{len(self.x)} of {self.batch_size} rows {list(self.input_shape)}"
        return f"seed {self.seed}, {batch}: {self.model}"


def random_case(seed: int, optimizer: Optimizer | None = None) -> Case:
    """A random model of 0 to 3 convolution blocks and 0 to 3 Linear layers behind them."""
    rng = np.random.default_rng(seed)
    images = rng.random() < 0.8
    shape: Shape = (_int(rng, 1, 9),)
    if images:
        shape = (_int(rng, 1, 4), _int(rng, 4, 14), _int(rng, 4, 14))
    layers, out = _conv_blocks(rng, shape) if images else ([], shape)
    if not images or rng.random() < 0.85:
        layers += _head(rng, out)
    loss: CrossEntropyLoss | MSELoss = MSELoss()
    if isinstance(layers[-1], Linear) and rng.random() < 0.6:
        loss = CrossEntropyLoss()
    if len(out) == 1 or isinstance(layers[-1], Linear):
        layers += [Softmax()] if rng.random() < 0.5 else []
    model = Sequential(layers, loss, optimizer, seed=seed)
    rows = _int(rng, 1, 17)
    x = rng.normal(size=(rows, *shape)).astype(np.float32)
    wanted = output_type(model, shape).concrete(rows)
    y: np.ndarray = rng.normal(size=wanted).astype(np.float32)
    if isinstance(loss, CrossEntropyLoss):
        y = rng.integers(0, wanted[1], rows)
    batch_size = rows if rng.random() < 0.4 else _int(rng, rows, 64)
    return Case(seed, model, shape, x, y, batch_size)


def in_few_bits(case: Case) -> Case:
    """The same model with parameters and inputs of two or three bits each.

    Sums of their products are exact in float32, so every ReLU and every max-pool decides alike on
    any machine, and meets ties: an ordinary float is on the other side of a kink now and then.
    """
    rng = np.random.default_rng(case.seed)
    arrays = {}
    for name, array in case.model.state_dict().items():
        unit = 2.0 ** -round(math.log2(2.0 * math.sqrt(max(1, math.prod(array.shape[1:])))))
        arrays[name] = rng.integers(-3, 4, array.shape) * np.float32(unit)
    case.model.load_state_dict(arrays)
    x = rng.integers(-4, 5, case.x.shape).astype(np.float32) / 4
    return replace(case, x=x)


def _conv_blocks(rng: np.random.Generator, shape: Shape) -> tuple[list[Module], Shape]:
    layers: list[Module] = []
    c, *size = shape
    for _ in range(_int(rng, 1, 3)):
        conv, size = _conv(rng, c, size)
        layers.append(conv)
        c = conv.out_channels
        if rng.random() < 0.7:
            layers.append(ReLU())
        if rng.random() < 0.6:
            pool, size = _pool(rng, size)
            layers.append(pool)
            if rng.random() < 0.2:
                layers.append(ReLU())
        if rng.random() < 0.2:
            layers.append(Dropout(0.0))
    return layers, (c, *size)


def _head(rng: np.random.Generator, shape: Shape) -> list[Module]:
    features = math.prod(shape)
    layers: list[Module] = [Flatten()] if len(shape) > 1 else []
    for i in range(_int(rng, 1, 3)):
        if i > 0 and rng.random() < 0.8:
            layers.append(ReLU())
        wider = _int(rng, 2, 33)
        layers.append(Linear(features, wider, bias=rng.random() < 0.8))
        features = wider
    return layers


def _conv(rng: np.random.Generator, c: int, size: list[int]) -> tuple[Conv2d, list[int]]:
    out, bias = _int(rng, 1, 9), rng.random() < 0.8
    if rng.random() < 0.25:
        return Conv2d(c, out, _pair(rng, 1, 5), padding="same", bias=bias), size
    padding = _pair(rng, 0, 3)
    kernel = tuple(_int(rng, 1, min(5, s + 2 * p)) for s, p in zip(size, padding, strict=True))
    stride = _pair(rng, 1, 3) if rng.random() < 0.4 else (1, 1)
    conv = Conv2d(c, out, (kernel[0], kernel[1]), _brief(stride), _brief(padding), bias)
    return conv, _windows(size, conv.kernel_size, stride, padding)


def _pool(rng: np.random.Generator, size: list[int]) -> tuple[MaxPool2d, list[int]]:
    h, w = (_int(rng, 1, min(4, s)) for s in size)
    kernel, stride, padding = (h, w), None, (0, 0)
    if rng.random() < 0.6:
        stride = _pair(rng, 1, 4)
    if rng.random() < 0.4:
        padding = (_int(rng, 0, h // 2), _int(rng, 0, w // 2))
    pool = MaxPool2d(_brief(kernel), stride, _brief(padding))
    return pool, _windows(size, pool.kernel_size, pool.stride, padding)


def _windows(size: list[int], kernel: Pair, stride: Pair, padding: Pair) -> list[int]:
    return [
        (s + 2 * p - k) // t + 1 for s, k, t, p in zip(size, kernel, stride, padding, strict=True)
    ]


def _pair(rng: np.random.Generator, least: int, most: int) -> Pair:
    first = _int(rng, least, most)
    return (first, first) if rng.random() < 0.5 else (first, _int(rng, least, most))


def _brief(size: Pair) -> int | Pair:
    """An integer where both are the same, so that both ways to write a size occur."""
    return size[0] if size[0] == size[1] else size


def _int(rng: np.random.Generator, least: int, most: int) -> int:
    return int(rng.integers(least, most + 1))
