"""The base of all layers, and the parameters they declare.

    class Scale(gemmc.Module):
        def __init__(self, features):
            self.factor = gemmc.Parameter((features,), init=gemmc.ones)

        def forward(self, x):
            return x * self.factor

While a model is traced, `forward` runs on a copy of the layer whose parameters are traced values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..ir import CompileError
from .arguments import of_constructor
from .value import Value

Init = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 0."""
    return np.zeros(shape, np.float32)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 1."""
    return np.ones(shape, np.float32)


def uniform(bound: float) -> Init:
    """Uniform in [-bound, bound)."""
    return partial(_uniform, bound)


def _uniform(bound: float, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(-bound, bound, shape).astype(np.float32)


class Parameter:
    """An array that training changes: its shape, and its first value, `init(rng, shape)`.

    `perm` is the order in which the model stores its axes; the logical shape stays the user's.
    """

    def __init__(
        self, shape: tuple[int, ...], init: Init = zeros, perm: tuple[int, ...] | None = None
    ) -> None:
        sized = isinstance(shape, (tuple, list)) and len(shape) > 0
        if not sized or any(not isinstance(d, int) or d < 1 for d in shape):
            raise CompileError(
                f"Parameter: shape: got {shape!r}, expected a tuple of integers >= 1"
            )
        if not callable(init):
            raise CompileError(
                f"Parameter: init: got {init!r}, expected a function of (rng, shape)"
            )
        self.shape, self.init, self.perm = tuple(shape), init, perm


class Module:
    """A layer: `forward(self, x)` on traced values. Its backward is derived.

    Parameters and modules kept as attributes are found and named after them, as in PyTorch.
    `self.training` says, inside `forward`, whether the model is being trained.
    """

    training: bool = False

    def forward(self, x: Value) -> Value:
        """The layer's result for a batch x."""
        raise CompileError(f"{type(self).__name__}: has no forward(self, x)")

    def __call__(self, x: Value) -> Value:
        """`forward(x)`, for a layer used inside another one's forward."""
        if not isinstance(x, Value):
            raise CompileError(
                f"{type(self).__name__}: got {type(x).__name__}, expected a traced value: "
                "put the layer into a Sequential and call that"
            )
        return self.forward(x)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of all parameters, those of inner modules as "inner.name"."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield name, value
            elif isinstance(value, Module):
                yield from ((f"{name}.{inner}", p) for inner, p in value.named_parameters())
            elif isinstance(value, (list, tuple, dict)):
                _refuse_hidden(type(self).__name__, name, value)

    def traced(self, values: Mapping[str, Value], training: bool) -> Module:
        """A copy whose parameters are the traced `values`, by name."""
        twin = copy.copy(self)
        twin.training = training
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                setattr(twin, name, values[name])
            elif isinstance(value, Module):
                prefix = f"{name}."
                inner = {
                    k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)
                }
                setattr(twin, name, value.traced(inner, training))
        return twin

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, from the attributes of the same names."""
        return of_constructor(self)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.arguments().items())
        return f"{type(self).__name__}({inside})"


def _refuse_hidden(owner: str, name: str, values: list | tuple | dict) -> None:
    """CompileError for layers and parameters in a container, where nobody looks for them."""
    inside = values.values() if isinstance(values, dict) else values
    if any(isinstance(v, (Module, Parameter)) for v in inside):
        raise CompileError(
            f"{owner}: {name}: got layers or parameters in a {type(values).__name__}, expected "
            "each in an attribute of its own: use setattr(self, name, layer) in a loop"
        )
