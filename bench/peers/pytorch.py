"""PyTorch, in three ways: as its tutorials write it, tuned, and compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from ..process import Task, Trainer


def make(name: str, task: Task) -> Trainer:
    """`torch`, `torch-tuned` or `torch-compile`."""
    torch.set_num_threads(task.threads)
    return {"torch": Eager, "torch-tuned": Tuned, "torch-compile": Compiled}[name](task)


def network(task: Task) -> nn.Sequential:
    """The layers of a task with its weights, up to the logits."""
    net = nn.Sequential(*(getattr(nn, name)(**given) for name, given in task.logit_layers))
    net.load_state_dict({name: torch.from_numpy(array) for name, array in task.weights.items()})
    return net


class Eager:
    """As the tutorials write it: a DataLoader, the optimiser as it comes, every loss read."""

    def __init__(self, task: Task) -> None:
        task.only("CrossEntropyLoss", "MSELoss", "Adam", "SGD")
        self.task, self.net = task, network(task)
        self.x, self.y = inputs(task.data["x"]), torch.from_numpy(task.data["y"])
        self.loss = getattr(nn, task.loss[0])()
        self.optimizer = self.optimizer_of(task)
        last = [nn.Softmax(**task.layers[-1][1])] if task.has_softmax else []
        self.output: Callable[[Tensor], Tensor] = nn.Sequential(*self.net, *last)

    def optimizer_of(self, task: Task) -> torch.optim.Optimizer:
        """The task's optimiser."""
        name, given = task.optimizer
        return getattr(torch.optim, name)(self.net.parameters(), **given)

    def epoch(self, order: np.ndarray) -> float:
        self.net.train()
        data, total = TensorDataset(self.x, self.y), 0.0
        for x, y in DataLoader(data, batch_size=self.task.batch, sampler=order.tolist()):
            self.optimizer.zero_grad()
            loss = self.loss(self.net(x), y)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(x)
        return total / len(order)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        self.net.eval()
        total, right, labels = 0.0, 0, torch.from_numpy(y)
        with torch.inference_mode():
            for images, wanted in zip(inputs(x).split(256), labels.split(256), strict=True):
                output = self.net(images)
                total += self.loss(output, wanted).item() * len(images)
                if wanted.dim() == 1:
                    right += int((output.argmax(1) == wanted).sum())
        return total / len(x), right / len(x) if labels.dim() == 1 else float("nan")

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.net.eval()
        with torch.inference_mode():
            return self.output(inputs(x)).numpy()


class Tuned(Eager):
    """The fastest eager way: channels last, fused optimiser, batches by index, no waiting."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if self.x.dim() == 4:
            self.net.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)

    def optimizer_of(self, task: Task) -> torch.optim.Optimizer:
        name, given = task.optimizer
        return getattr(torch.optim, name)(self.net.parameters(), **given, fused=True)

    def epoch(self, order: np.ndarray) -> float:
        self.net.train()
        total = torch.zeros(())
        for rows in torch.from_numpy(order).split(self.task.batch):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.forward(self.x[rows], self.y[rows])
            loss.backward()
            self.update()
            total += loss.detach() * len(rows)
        return total.item() / len(order)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return self.loss(self.net(x), y)

    def update(self) -> None:
        """A step of the optimiser."""
        self.optimizer.step()


class Compiled(Tuned):
    """`torch.compile` of the network with its loss, and of the optimiser's step."""

    def __init__(self, task: Task) -> None:
        Eager.__init__(self, task)  # it chooses its layouts itself
        logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # it warns of its own profiler
        self.forward = torch.compile(super().forward)  # type: ignore[method-assign]
        self.update = torch.compile(super().update)  # type: ignore[method-assign]
        self.output = torch.compile(self.output)

    def optimizer_of(self, task: Task) -> torch.optim.Optimizer:
        return Eager.optimizer_of(self, task)


def inputs(x: np.ndarray) -> Tensor:
    """Images as floats, scaled by 1/255 where they are uint8."""
    given = torch.from_numpy(x)
    return given.float() / 255 if given.dtype == torch.uint8 else given
