"""tinygrad: a training step under TinyJit, called for every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.helpers import Context
from tinygrad.nn.optim import SGD, Adam

if TYPE_CHECKING:
    from ..process import Task

OPTIMIZERS = {"Adam": Adam, "SGD": SGD}


def make(name: str, task: Task) -> Jitted:
    """The contender: `tinygrad`."""
    return Jitted(task)


class Jitted:
    """A step and a call under TinyJit for whole batches; ragged ones run without."""

    def __init__(self, task: Task) -> None:
        task.only("CrossEntropyLoss", "Adam", "SGD")
        task.with_sizes()
        self.task = task
        self.weights = {name: Tensor(array) for name, array in task.weights.items()}
        self.x, self.y = _floats(task.data["x"]), task.data["y"].astype(np.int32)
        self.optimizer = _optimizer(task, list(self.weights.values()))
        self._jitted = TinyJit(self._step)
        self._output = TinyJit(self._forward)

    def epoch(self, order: np.ndarray) -> float:
        size, total = self.task.batch, 0.0
        with Context(TRAINING=1):
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                step = self._jitted if len(rows) == size else self._step
                loss = step(Tensor(self.x[rows]).realize(), Tensor(self.y[rows]).realize())
                total += loss.item() * len(rows)
        return total / len(order)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        total, right, size = 0.0, 0, self.task.batch
        for start in range(0, len(x), size):
            labels = y[start : start + size]
            logits = self._logits(Tensor(_floats(x[start : start + size])))
            loss = logits.sparse_categorical_crossentropy(Tensor(labels.astype(np.int32)))
            total += loss.item() * len(labels)
            right += int((logits.numpy().argmax(1) == labels).sum())
        return total / len(x), right / len(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        output = self._output if len(x) == self.task.batch else self._forward
        return output(Tensor(_floats(x)).realize()).numpy()

    def _step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self._logits(x).sparse_categorical_crossentropy(y).backward()
        return loss.realize(*self.optimizer.schedule_step())

    def _forward(self, x: Any) -> Any:
        logits = self._logits(x)
        output = logits.softmax(self.task.layers[-1][1]["dim"]) if self.task.has_softmax else logits
        return output.realize()

    def _weights(self, layer: int, kind: str) -> Any:
        return self.weights.get(f"{layer}.{kind}")

    def _logits(self, x: Any) -> Any:
        for i, (name, given) in enumerate(self.task.logit_layers):
            weight, bias = (self._weights(i, kind) for kind in ("weight", "bias"))
            match name:
                case "Conv2d":
                    x = x.conv2d(weight, bias, stride=given["stride"], padding=given["padding"])
                case "MaxPool2d":
                    x = x.max_pool2d(given["kernel_size"], given["stride"], 1, given["padding"])
                case "Linear":
                    x = x.linear(weight.transpose(), bias)
                case "ReLU":
                    x = x.relu()
                case "Flatten":
                    x = x.flatten(1)
                case "Dropout":
                    x = x.dropout(given["p"]) if given["p"] else x
                case _:
                    raise NotImplementedError(f"no layer {name}")
        return x


def _optimizer(task: Task, weights: list[Any]) -> Any:
    name, given = task.optimizer
    if given["weight_decay"]:
        raise NotImplementedError("its Adam has no weight_decay")
    if name == "SGD":
        return SGD(weights, given["lr"], given["momentum"])
    return Adam(weights, given["lr"], *given["betas"], eps=given["eps"])


def _floats(x: np.ndarray) -> np.ndarray:
    """Images as floats, scaled by 1/255 where they are uint8."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
