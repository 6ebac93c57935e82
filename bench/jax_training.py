"""JAX's side: an epoch of training as one compiled `lax.scan`, with Adam written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Layers = Iterable[tuple[str, Mapping[str, Any]]]
State = tuple[Any, Any, Any, Any, Any]  # parameters, Adam's two moments, step, random key

LEARNING_RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")  # XLA's CPU code is twice as fast as with channels last


def scanned(
    layers: Layers, weights: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, batch: int
) -> Callable[[np.ndarray], float]:
    """An epoch over rows in a given order, a whole number of batches; its mean loss."""
    parameters = {name: jnp.array(array) for name, array in weights.items()}
    m, v = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    state: State = (parameters, m, v, jnp.zeros((), jnp.int32), jax.random.key(0))
    images, labels, layers = jnp.array(x), jnp.array(y), list(layers)

    def loss(parameters: Any, rows: Any, key: Any) -> Any:
        logits = _forward(layers, parameters, images[rows], key)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[rows][:, None], axis=1)
        return -jnp.mean(chosen)

    def step(state: State, rows: Any) -> tuple[State, Any]:
        parameters, m, v, count, key = state
        key, used = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(parameters, rows, used)
        return (*_adam(parameters, m, v, count + 1, gradients), count + 1, key), value

    compiled = jax.jit(lambda state, order: lax.scan(step, state, order), donate_argnums=0)

    def epoch(order: np.ndarray) -> float:
        nonlocal state
        state, losses = compiled(state, jnp.array(order.reshape(-1, batch)))
        return float(jnp.mean(losses))

    return epoch


def _adam(p: Any, m: Any, v: Any, step: Any, g: Any) -> tuple[Any, Any, Any]:
    """(parameters, moments) after an update; all trees of arrays. Source: PyTorch's Adam."""
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    size = LEARNING_RATE / (1 - BETA1**step)
    root = jnp.sqrt(1 - BETA2**step)
    p = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + EPS), p, m, v)
    return p, m, v


def _forward(layers: Layers, parameters: Mapping[str, Any], x: Any, key: Any) -> Any:
    """The output of a batch, with dropout on."""
    for i, (name, arguments) in enumerate(layers):
        match name:
            case "Conv2d":
                pads = [(p, p) for p in arguments["padding"]]
                kernel, stride = parameters[f"{i}.weight"], arguments["stride"]
                x = lax.conv_general_dilated(
                    x, kernel, stride, pads, dimension_numbers=CHANNELS_FIRST
                )
                x = x + parameters[f"{i}.bias"][:, None, None]
            case "MaxPool2d":
                window, stride = ((1, 1, *arguments[k]) for k in ("kernel_size", "stride"))
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, stride, "VALID")
            case "Linear":
                x = x @ parameters[f"{i}.weight"].T + parameters[f"{i}.bias"]
            case "ReLU":
                x = jnp.maximum(x, 0)
            case "Flatten":
                x = x.reshape(len(x), -1)
            case "Dropout":
                kept = 1 - arguments["p"]
                mask = jax.random.bernoulli(jax.random.fold_in(key, i), kept, x.shape)
                x = jnp.where(mask, x / kept, 0)
            case _:
                raise SystemExit(f"jax: no layer {name}")
    return x
