"""Keras on JAX: `fit` for an epoch, batches in the order given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from ..process import Task

FIRST = "channels_first"
EVALUATED = 256  # rows at a time


def make(name: str, task: Task) -> Fitted:
    """The contender: `keras`."""
    return Fitted(task)


class Fitted:
    """A Sequential of Keras, with the weights of the task."""

    def __init__(self, task: Task) -> None:
        task.only("CrossEntropyLoss", "Adam")
        task.with_sizes()
        self.task = task
        self.x, self.y = _floats(task.data["x"]), task.data["y"]
        shape = self.x.shape[1:]
        made = [layer for n, given in task.logit_layers for layer in _layers(n, given)]
        self.logits = keras.Sequential([keras.Input(shape), *made])
        self.logits.set_weights([_turned(array) for array in task.weights.values()])
        last = [keras.layers.Softmax(task.layers[-1][1]["dim"])] if task.has_softmax else []
        self.output = keras.Sequential([keras.Input(shape), *made, *last])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.logits.compile(_adam(**task.optimizer[1]), loss)

    def epoch(self, order: np.ndarray) -> float:
        x, y, size = self.x[order], self.y[order], self.task.batch
        done = self.logits.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        return done.history["loss"][0]

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        logits = self.logits.predict(_floats(x), batch_size=EVALUATED, verbose=0)
        right = float((logits.argmax(1) == y).mean())
        return self.logits.evaluate(_floats(x), y, batch_size=EVALUATED, verbose=0), right

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.output.predict_on_batch(_floats(x)))


def _adam(lr: float, betas: Any, eps: float, weight_decay: float) -> Any:
    if weight_decay:
        raise NotImplementedError("its Adam does not add weight_decay to the gradient")
    return keras.optimizers.Adam(lr, *betas, epsilon=eps)


def _layers(name: str, given: Mapping[str, Any]) -> Iterator[Any]:
    """Keras' layers for one of ours."""
    made = keras.layers
    match name:
        case "Conv2d":
            yield from _padding(given)
            size, stride, bias = given["kernel_size"], given["stride"], given["bias"]
            yield made.Conv2D(given["out_channels"], size, stride, data_format=FIRST, use_bias=bias)
        case "MaxPool2d" if any(given["padding"]):
            raise NotImplementedError("its max-pool pads with zeros, not minus infinity")
        case "MaxPool2d":
            yield made.MaxPooling2D(given["kernel_size"], given["stride"], data_format=FIRST)
        case "Linear":
            yield made.Dense(given["out_features"], use_bias=given["bias"])
        case "ReLU":
            yield made.ReLU()
        case "Softmax":
            yield made.Softmax(given["dim"])
        case "Flatten":
            yield made.Flatten()
        case "Dropout":
            yield made.Dropout(given["p"])
        case _:
            raise NotImplementedError(f"no layer {name}")


def _padding(given: Mapping[str, Any]) -> Iterator[Any]:
    if any(given["padding"]):
        yield keras.layers.ZeroPadding2D(tuple(given["padding"]), data_format=FIRST)


def _turned(array: np.ndarray) -> np.ndarray:
    """A weight in Keras' order of axes: outputs last."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _floats(x: np.ndarray) -> np.ndarray:
    """Images as floats, scaled by 1/255 where they are uint8."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
