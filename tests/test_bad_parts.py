"""Mistakes in what users write: each is refused when compiling, with the name of the part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gemmc
from gemmc import (
    CompileError,
    Linear,
    Loss,
    Module,
    MSELoss,
    Optimizer,
    Parameter,
    ReLU,
    Sequential,
    ops,
)


def layer(forward: object, **parameters: Parameter) -> Module:
    """A layer Mine with that forward."""
    made = type("Mine", (Module,), {"forward": forward})()
    for name, parameter in parameters.items():
        setattr(made, name, parameter)
    return made


def loss(forward: object, **attributes: object) -> Loss:
    return type("MyLoss", (Loss,), {"forward": forward, **attributes})()


def optimizer(update: object, *names: str) -> Optimizer:
    return type("MyOptimizer", (Optimizer,), {"update": update, "state_names": names})(0.1)


def ones(*shape: int) -> Parameter:
    return Parameter(shape, gemmc.ones)


ONE = ones(4)

BAD_LAYERS = [
    (lambda: Module(), "has no forward(self, x)"),
    (lambda: layer(lambda s, x: x if x > 0 else -x), "use ops.where"),
    (lambda: layer(lambda s, x: x * float(x)), "has no value while a model is traced"),
    (lambda: layer(lambda s, x: x * np.ones(4)), "operand: got ndarray, expected a traced value"),
    (lambda: layer(lambda s, x: x @ 3), "@: got int, expected a traced value"),
    (lambda: layer(lambda s, x: x if x.shape[0] > 3 else -x), "its rows N are no number"),
    (lambda: layer(lambda s, x: np.tanh(x)), "does not support ufuncs"),
    (lambda: layer(lambda s, x: x[:, 0]), "'Value' object is not subscriptable"),
    (lambda: layer(lambda s, x: next(v for v in x)), "'Value' object is not iterable"),
    (lambda: layer(lambda s, x: ops.matmul(x, np.ones((4, 2)))), "a Parameter each"),
    (lambda: layer(lambda s, x: x.sum(1)), "what gemmc.ops has"),
    (lambda: layer(lambda s, x: None), "forward: got None, expected floats with the rows first"),
    (lambda: layer(lambda s, x: ops.sum(x)), "forward: got <Value f32[]>, expected floats"),
    (lambda: layer(lambda s, x: x > 0), "forward: got <Value bool[N,4]>, expected floats"),
    (lambda: layer(lambda s, x: x + s.w, w=ones(3)), "(N, 4) and (3,) do not broadcast"),
    (lambda: layer(lambda s, x: x @ s.w, w=ones(3, 4)), "f32[N,4] and f32[3,4] do not fit"),
    (lambda: layer(lambda s, x: ops.reshape(x, (3,))), "f32[N,4] has not the elements of (N, 3)"),
    (lambda: layer(lambda s, x: ops.where(x, 1.0, 0.0)), "where: dtypes do not fit"),
    (lambda: layer(lambda s, x: ops.softmax(x, 5)), "axes: got (5,), expected axes of (N, 4)"),
    (lambda: layer(lambda s, x: ops.max(x, (0,))), "the rows of a batch are only ever summed"),
    (lambda: layer(lambda s, x: ops.dropout(x, 2.0)), "got p = 2.0, expected a number from 0 to 1"),
    (lambda: layer(lambda s, x: ops.max_pool2d(x, 0)), "kernel: got 0, expected an integer >= 1"),
]


@pytest.mark.parametrize(("made", "words"), BAD_LAYERS, ids=[words for _, words in BAD_LAYERS])
def test_a_users_layer_that_cannot_be_traced_is_named(
    made: Callable[[], Module], words: str
) -> None:
    model = Sequential([ReLU(), made()], MSELoss(), gemmc.SGD())
    with pytest.raises(CompileError) as raised:
        gemmc.compile(model, (4,))
    assert str(raised.value).startswith(("1.Mine: ", "1.Module: "))
    assert words in str(raised.value)


def test_what_python_cannot_do_in_a_forward_keeps_its_cause() -> None:
    with pytest.raises(CompileError, match=r"0\.Mine: AttributeError: .*'missing'") as raised:
        gemmc.compile(Sequential([layer(lambda s, x: s.missing)]), (4,))
    assert isinstance(raised.value.__cause__, AttributeError)


BAD_PARTS = [
    (loss(lambda s, o, t: (o - t) ** 2), "MyLoss: forward: got <Value f32[N,4]>: use ops.mean"),
    (loss(lambda s, o, t: 1.0), "MyLoss: forward: got 1.0, expected one number"),
    (Loss(), "Loss: has no forward(self, output, target)"),
    (
        loss(lambda s, o, t: ops.mean(o * t), target_dtype="int"),
        "MyLoss: target_dtype: got 'int', expected i64 or float",
    ),
    (
        loss(lambda s, o, t: ops.mean(o * t), correct=lambda s, o, t: o),
        "MyLoss: correct: got <Value f32[N,4]>, expected booleans [N]",
    ),
    (optimizer(lambda s, p, g, state, n: p - g), "MyOptimizer: update: got <Value f32[4,4]>"),
    (optimizer(lambda s, p, g, state, n: (p - g, {"m": g})), "with the state []"),
    (optimizer(lambda s, p, g, state, n: (p - g, {}), "m"), "with the state ['m']"),
    (
        optimizer(lambda s, p, g, state, n: (ops.sum(p), {})),
        "MyOptimizer: update: p: got <Value f32[]>, expected a value like p, f32[4,4]",
    ),
    (Optimizer(0.1), "Optimizer: has no update(self, p, g, state, step)"),
]


@pytest.mark.parametrize(("part", "words"), BAD_PARTS, ids=[words for _, words in BAD_PARTS])
def test_a_users_loss_or_optimizer_that_cannot_be_traced_is_named(
    part: Loss | Optimizer, words: str
) -> None:
    parts = (part, gemmc.SGD()) if isinstance(part, Loss) else (MSELoss(), part)
    model = Sequential([Linear(4, 4)], *parts)
    with pytest.raises(CompileError) as raised:
        gemmc.compile(model, (4,))
    for some in words.split(": use "):
        assert some in str(raised.value)


class Listed(Module):
    def __init__(self) -> None:
        self.blocks = [Linear(4, 4), ReLU()]


class Twice(Module):
    def __init__(self) -> None:
        self.first = self.second = Linear(4, 4)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([Listed()], "Listed: blocks: got layers or parameters in a list, expected each"),
        ([ReLU(), Twice()], "1.first.weight and 1.second.weight are one Parameter"),
        ([layer(0, w=ONE), layer(0, w=ONE)], "0.w and 1.w are one Parameter"),
        ([layer(0, w=Parameter((3,), lambda rng, shape: np.ones(2)))], "0.w: init made [2]"),
    ],
)
def test_parameters_that_would_not_be_trained_as_written_are_refused(
    layers: list[Module], words: str
) -> None:
    with pytest.raises(CompileError) as raised:
        Sequential(layers)
    assert words in str(raised.value)
