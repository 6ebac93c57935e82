"""The optimisers: how a parameter's next value follows from its gradient, as a traced function.

    class SignSGD(gemmc.Optimizer):
        def update(self, p, g, state, step):
            return p - self.lr * gemmc.ops.where(g > 0, 1.0, -1.0), {}

`lr` may be changed between steps (`model.optimizer.lr = 1e-4`); it is an argument of the compiled
program. Other hyper-parameters are compiled in, and an Executable refuses to run after a change.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..ir import CompileError
from . import ops
from .arguments import number, of_constructor
from .value import Value

State = dict[str, Value]


class Optimizer:
    """`update(self, p, g, state, step)` on traced values, for one parameter.

    p and g have the parameter's shape; `state` holds what `state_names` lists, arrays like p that
    start at 0; `step` counts from 1. It returns p's next value and the next state.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        self.lr = lr

    @property
    def lr(self) -> float:
        """The learning rate: a number, or, while a model is traced, the program's argument."""
        return self._lr

    @lr.setter
    def lr(self, value: float | Value) -> None:
        checked = value if isinstance(value, Value) else number(type(self).__name__, "lr", value, 0)
        self._lr: Any = checked

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        """(the parameter's next value, the next state)."""
        raise CompileError(f"{type(self).__name__}: has no update(self, p, g, state, step)")

    def traced(self, lr: Value) -> Optimizer:
        """A copy whose learning rate is a traced value."""
        twin = copy.copy(self)
        twin.lr = lr
        return twin

    def arguments(self) -> Mapping[str, Any]:
        """The constructor's arguments, from the attributes of the same names."""
        return of_constructor(self)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.arguments().items())
        return f"{type(self).__name__}({inside})"


class SGD(Optimizer):
    """p - lr*v with v = momentum*v + g + weight_decay*p. Source: PyTorch's SGD."""

    def __init__(self, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr)
        self.momentum = number("SGD", "momentum", momentum, 0.0)
        self.weight_decay = number("SGD", "weight_decay", weight_decay, 0.0)
        self.state_names = ("momentum_buffer",) if self.momentum else ()

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        if self.weight_decay:
            g = g + p * self.weight_decay
        if not self.momentum:
            return p - g * self.lr, {}
        v = state["momentum_buffer"] * self.momentum + g
        return p - v * self.lr, {"momentum_buffer": v}


class Adam(Optimizer):
    """p - lr * m' / (sqrt(v') + eps), with m, v running means of g and g^2, m', v' unbiased.

    Source: Kingma and Ba 2015, in the form of PyTorch's Adam; weight_decay is added to g.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise CompileError(f"Adam: betas: got {betas!r}, expected a pair of numbers")
        first, second = (number("Adam", "betas", b, 0.0, 1.0, open_end=True) for b in betas)
        self.betas = (first, second)
        self.eps = number("Adam", "eps", eps, 0.0)
        self.weight_decay = number("Adam", "weight_decay", weight_decay, 0.0)

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        beta1, beta2 = self.betas
        if self.weight_decay:
            g = g + p * self.weight_decay
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m = m + (g - m) * (1.0 - beta1)
        v = v * beta2 + g * g * (1.0 - beta2)
        # scalars, in float64: 1 - 0.999**t would lose its digits in float32
        size = self.lr / (1.0 - beta1**step)
        unbias = 1.0 / ops.sqrt(1.0 - beta2**step)
        return p - m / (ops.sqrt(v) * unbias + self.eps) * size, {"exp_avg": m, "exp_avg_sq": v}
