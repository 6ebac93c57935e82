"""JAX: an epoch of training is one compiled `lax.scan`, with Adam written out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from ..process import Task

State = tuple[Any, Any, Any, Any, Any]  # parameters, Adam's two moments, step, random key

CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")  # XLA's CPU code is twice as fast as with channels last
EVALUATED = 256  # rows at a time


def make(name: str, task: Task) -> Scanned:
    """The contender: `jax`."""
    return Scanned(task)


class Scanned:
    """Batches are gathered inside the compiled epoch; a ragged last one is a scan of its own."""

    def __init__(self, task: Task) -> None:
        task.only("CrossEntropyLoss", "Adam")
        task.with_sizes()
        self.task = task
        parameters = {name: jnp.array(array) for name, array in task.weights.items()}
        m, v = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        self.state: State = (parameters, m, v, jnp.zeros((), jnp.int32), jax.random.key(0))
        self.x, self.y = _floats(task.data["x"]), jnp.array(task.data["y"])
        self._scan = jax.jit(partial(_scan, task), donate_argnums=0)
        self._logits = jax.jit(partial(_forward, task.logit_layers))
        self._output = jax.jit(partial(_forward, task.layers))

    def epoch(self, order: np.ndarray) -> float:
        whole = len(order) // self.task.batch * self.task.batch
        total = 0.0
        for rows in (order[:whole].reshape(-1, self.task.batch), order[None, whole:]):
            if rows.size:
                self.state, losses = self._scan(self.state, self.x, self.y, jnp.array(rows))
                total += float(jnp.mean(losses)) * rows.size
        return total / len(order)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        total = right = 0.0
        for start in range(0, len(x), EVALUATED):
            rows = slice(start, start + EVALUATED)
            logits, labels = self._logits(self.state[0], _floats(x[rows])), jnp.array(y[rows])
            total += float(_cross_entropy(logits, labels)) * len(labels)
            right += int((logits.argmax(1) == labels).sum())
        return total / len(x), right / len(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._output(self.state[0], _floats(x)))


def _scan(task: Task, state: State, x: Any, y: Any, order: Any) -> tuple[State, Any]:
    """(state, losses) after steps on the batches `order` [steps, rows]."""

    def loss(parameters: Any, rows: Any, key: Any) -> Any:
        logits = _forward(task.logit_layers, parameters, x[rows], key)
        return _cross_entropy(logits, y[rows])

    def step(state: State, rows: Any) -> tuple[State, Any]:
        parameters, m, v, count, key = state
        key, used = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(parameters, rows, used)
        moved = _adam(task.optimizer[1], parameters, m, v, count + 1, gradients)
        return (*moved, count + 1, key), value

    return lax.scan(step, state, order)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -jnp.mean(chosen)


def _adam(
    given: Mapping[str, Any], p: Any, m: Any, v: Any, step: Any, g: Any
) -> tuple[Any, Any, Any]:
    """(parameters, moments) after an update; all trees of arrays. Source: PyTorch's Adam."""
    (beta1, beta2), decay = given["betas"], given["weight_decay"]
    g = jax.tree.map(lambda g, p: g + decay * p, g, p) if decay else g
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, g)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, g)
    size = given["lr"] / (1 - beta1**step)
    root = jnp.sqrt(1 - beta2**step)
    p = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + given["eps"]), p, m, v)
    return p, m, v


def _forward(layers: Any, parameters: Mapping[str, Any], x: Any, key: Any = None) -> Any:
    """The output for a batch; with a random key, dropout is on."""
    for i, (name, arguments) in enumerate(layers):
        match name:
            case "Conv2d":
                pads = [(p, p) for p in arguments["padding"]]
                kernel, stride = parameters[f"{i}.weight"], arguments["stride"]
                x = lax.conv_general_dilated(
                    x, kernel, stride, pads, dimension_numbers=CHANNELS_FIRST
                )
                if arguments["bias"]:
                    x = x + parameters[f"{i}.bias"][:, None, None]
            case "MaxPool2d":
                window, stride = ((1, 1, *arguments[k]) for k in ("kernel_size", "stride"))
                pads = [(0, 0), (0, 0), *((p, p) for p in arguments["padding"])]
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, stride, pads)
            case "Linear":
                x = x @ parameters[f"{i}.weight"].T
                if arguments["bias"]:
                    x = x + parameters[f"{i}.bias"]
            case "ReLU":
                x = jnp.maximum(x, 0)
            case "Softmax":
                x = jax.nn.softmax(x, axis=arguments["dim"])
            case "Flatten":
                x = x.reshape(len(x), -1)
            case "Dropout":
                x = x if key is None else _dropout(x, arguments["p"], jax.random.fold_in(key, i))
            case _:
                raise NotImplementedError(f"no layer {name}")
    return x


def _dropout(x: Any, p: float, key: Any) -> Any:
    return jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0) if p else x


def _floats(x: np.ndarray) -> Any:
    """Images as floats, scaled by 1/255 where they are uint8."""
    given = jnp.array(x)
    return given.astype(jnp.float32) / 255 if given.dtype == jnp.uint8 else given
