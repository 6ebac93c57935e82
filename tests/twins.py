"""PyTorch twins: for a model of ours, the same one in PyTorch, with the same weights.

A twin has our layers under our numbers, so that the names of both state_dicts agree; a Softmax in
front of a CrossEntropyLoss becomes an Identity, as PyTorch's loss takes logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

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
)

torch.set_num_threads(1)  # the networks are small, and other tests want the cores

LAYERS: dict[type[Module], Callable[[Any], nn.Module]] = {
    Conv2d: lambda m: nn.Conv2d(
        m.in_channels,
        m.out_channels,
        m.kernel_size,
        m.stride,
        m.padding,
        bias=m.bias is not None,
    ),
    Linear: lambda m: nn.Linear(m.in_features, m.out_features, bias=m.bias is not None),
    MaxPool2d: lambda m: nn.MaxPool2d(m.kernel_size, m.stride, m.padding),
    ReLU: lambda m: nn.ReLU(),
    Softmax: lambda m: nn.Softmax(m.dim),
    Flatten: lambda m: nn.Flatten(),
    Dropout: lambda m: nn.Dropout(m.p),
}
LOSSES: dict[object, type[nn.Module]] = {CrossEntropyLoss: nn.CrossEntropyLoss, MSELoss: nn.MSELoss}


@dataclass
class Twin:
    """A model in PyTorch, trained the way ours is."""

    net: nn.Sequential
    loss: nn.Module
    optimizer: torch.optim.Optimizer | None

    def train_step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One step of training; the batch's mean loss before it."""
        assert self.optimizer is not None
        self.optimizer.zero_grad()
        loss = self.loss(self.net(self.tensor(x)), self.tensor(y))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss_and_grads(self, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """What `Executable.loss_and_grads` returns."""
        self.net.zero_grad()
        given = self.tensor(x).requires_grad_()
        loss = self.loss(self.net(given), self.tensor(y))
        loss.backward()
        grads = {name: p.grad.numpy() for name, p in self.net.named_parameters()}
        assert given.grad is not None
        return loss.item(), {**grads, "input": given.grad.numpy()}

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The output in evaluation mode."""
        self.net.eval()
        with torch.no_grad():
            made = self.net(self.tensor(x)).numpy()
        self.net.train()
        return made

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the parameters."""
        return {name: p.detach().numpy().copy() for name, p in self.net.named_parameters()}

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A copy in the twin's dtype; labels stay integers."""
        made = torch.from_numpy(np.array(array))
        return made.to(self.dtype) if made.is_floating_point() else made.long()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.net.parameters()).dtype


def twin(model: Sequential, dtype: torch.dtype = torch.float32) -> Twin:
    """The twin of `model`, with its weights as they are now."""
    layers = [LAYERS[type(layer)](layer) for layer in model.layers]
    if isinstance(model.loss_func, CrossEntropyLoss) and isinstance(model.layers[-1], Softmax):
        layers[-1] = nn.Identity()
    net = nn.Sequential(*layers)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
    loss = LOSSES.get(type(model.loss_func), nn.Identity)()
    net = net.to(dtype)
    return Twin(net, loss, _optimizer(model, net))


def assert_close(seen: object, expected: np.ndarray, tolerance: float, message: str) -> None:
    """Fails where the largest difference is not below `tolerance` of the largest entry."""
    array = np.asarray(seen)
    assert array.shape == expected.shape, message
    worst = np.max(np.abs(array - expected), initial=0.0)
    assert worst <= tolerance * max(np.max(np.abs(expected), initial=0.0), 1e-6), message


def _optimizer(model: Sequential, net: nn.Module) -> torch.optim.Optimizer | None:
    match model.optimizer:
        case Adam() as o:
            return torch.optim.Adam(net.parameters(), o.lr, o.betas, o.eps, o.weight_decay)
        case SGD() as o:
            return torch.optim.SGD(net.parameters(), o.lr, o.momentum, weight_decay=o.weight_decay)
    return None
