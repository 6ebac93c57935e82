"""PyTorch's side: three ways to train a network, and the spiral as a program of its own.

Imports PyTorch and NumPy alone, so that `python bench/torch_training.py` starts as fast as a script
that somebody wrote for PyTorch:

    python -P bench/torch_training.py VARIANT DATA.npz EPOCHS BATCH THREADS
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Layers = Iterable[tuple[str, Mapping[str, Any]]]  # the names of layers and their arguments
Epoch = Callable[[np.ndarray], float]  # trains on the rows in this order; the mean loss

LEARNING_RATE = 1e-3
EVALUATED = 256  # rows at a time


def network(layers: Layers, weights: Mapping[str, np.ndarray]) -> nn.Sequential:
    """The network of these layers with these weights."""
    net = nn.Sequential(*(getattr(nn, name)(**arguments) for name, arguments in layers))
    net.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return net


def eager(net: nn.Sequential, x: Tensor, y: Tensor, batch: int) -> Epoch:
    """As the tutorials write it: a DataLoader, Adam as it comes, the loss read at every step."""
    data = TensorDataset(x, y)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    loss = nn.CrossEntropyLoss()

    def epoch(order: np.ndarray) -> float:
        total = 0.0
        for images, labels in DataLoader(data, batch_size=batch, sampler=order.tolist()):
            optimizer.zero_grad()
            value = loss(net(images), labels)
            value.backward()
            optimizer.step()
            total += value.item() * len(images)
        return total / len(order)

    return epoch


def tuned(net: nn.Sequential, x: Tensor, y: Tensor, batch: int) -> Epoch:
    """Eager, with what makes it fast: channels last, fused Adam, batches by index, no waiting."""
    if x.dim() == 4:
        net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)
    loss = nn.CrossEntropyLoss()

    def epoch(order: np.ndarray) -> float:
        total = torch.zeros(())
        for rows in torch.from_numpy(order).split(batch):
            optimizer.zero_grad(set_to_none=True)
            value = loss(net(x[rows]), y[rows])
            value.backward()
            optimizer.step()
            total += value.detach() * len(rows)
        return total.item() / len(order)

    return epoch


def compiled(net: nn.Sequential, x: Tensor, y: Tensor, batch: int) -> Epoch:
    """torch.compile of the network with its loss, and of the optimiser's step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    loss = nn.CrossEntropyLoss()
    forward = torch.compile(lambda images, labels: loss(net(images), labels))
    update = torch.compile(optimizer.step)

    def epoch(order: np.ndarray) -> float:
        total = torch.zeros(())
        for rows in torch.from_numpy(order).split(batch):
            optimizer.zero_grad(set_to_none=True)
            value = forward(x[rows], y[rows])
            value.backward()
            update()
            total += value.detach() * len(rows)
        return total.item() / len(order)

    return epoch


VARIANTS = {"torch-eager": eager, "torch-tuned": tuned, "torch-compile": compiled}


def evaluate(net: nn.Sequential, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(mean loss, accuracy) in evaluation mode."""
    net.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for images, labels in zip(x.split(EVALUATED), y.split(EVALUATED), strict=True):
            output = net(images)
            loss += nn.functional.cross_entropy(output, labels, reduction="sum").item()
            right += int((output.argmax(1) == labels).sum())
    net.train()
    return loss / len(x), right / len(x)


def _train_spiral(variant: str, path: str, epochs: int, batch: int, threads: int) -> None:
    """Trains and tests on what `path` holds; prints test loss and accuracy as JSON."""
    torch.set_num_threads(threads)
    with np.load(path) as file:
        arrays = dict(file)
    layers = json.loads(str(arrays.pop("layers")))
    x, y, x_test, y_test = (
        torch.from_numpy(arrays.pop(name)) for name in ("x", "y", "x_test", "y_test")
    )
    net = network(layers, arrays)
    epoch = VARIANTS[variant](net, x, y, batch)
    for _ in range(epochs):
        epoch(torch.randperm(len(x)).numpy())
    print(json.dumps(evaluate(net, x_test, y_test)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("path")
    for name in ("epochs", "batch", "threads"):
        parser.add_argument(name, type=int)
    _train_spiral(**vars(parser.parse_args()))
