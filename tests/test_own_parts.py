"""Layers, losses and optimisers as users write them: a forward alone, and the backward is derived.

Each has a twin in PyTorch, written by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from twins import assert_close, twin

import gemmc
from gemmc import (
    SGD,
    CrossEntropyLoss,
    Dropout,
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
from gemmc.frontend.optimizers import State
from gemmc.frontend.value import Value


class Gate(Module):
    """x * sigmoid(x V + c), with two parameters of its own."""

    def __init__(self, features: int) -> None:
        self.v: Any = Parameter((features, features), gemmc.uniform(0.5))
        self.c: Any = Parameter((features,), gemmc.uniform(0.5))

    def forward(self, x: Value) -> Value:
        return x * ops.sigmoid(x @ self.v + self.c)

    @staticmethod
    def twin(x: torch.Tensor, v: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x @ v + c)


class LayerNorm(Module):
    """Normalises each row by its own mean and deviation."""

    def __init__(self, features: int) -> None:
        self.features = features
        self.weight: Any = Parameter((features,), gemmc.uniform(1.0))

    def forward(self, x: Value) -> Value:
        centred = x - ops.reshape(ops.mean(x, (1,)), (1,))
        variance = ops.reshape(ops.mean(centred**2, (1,)), (1,))
        return centred / ops.sqrt(variance + 1e-5) * self.weight

    @staticmethod
    def twin(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, weight.shape, weight)


class BatchNorm(Module):
    """Normalises each feature by its mean and deviation over the batch, which couples the rows."""

    def __init__(self, features: int) -> None:
        self.weight: Any = Parameter((features,), gemmc.uniform(1.0))
        self.bias: Any = Parameter((features,), gemmc.uniform(1.0))

    def forward(self, x: Value) -> Value:
        centred = x - ops.mean(x, (0,))
        return centred / ops.sqrt(ops.mean(centred**2, (0,)) + 1e-5) * self.weight + self.bias

    @staticmethod
    def twin(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True)


class Residual(Module):
    """Two layers and a way around them: a module made of modules."""

    def __init__(self, features: int) -> None:
        self.inner = Linear(features, 7)
        self.outer = Linear(7, features, bias=False)

    def forward(self, x: Value) -> Value:
        return x + self.outer(ops.tanh(self.inner(x)))

    @staticmethod
    def twin(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, outer: torch.Tensor
    ) -> torch.Tensor:
        return x + torch.tanh(x @ weight.T + bias) @ outer.T


class Tied(Module):
    """Encodes and decodes with one matrix: a parameter used twice."""

    def __init__(self, features: int) -> None:
        self.w: Any = Parameter((features, 3), gemmc.uniform(0.7))

    def forward(self, x: Value) -> Value:
        return ops.matmul(ops.relu(x @ self.w), ops.transpose(self.w, (1, 0)))

    @staticmethod
    def twin(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w) @ w.T


class Arithmetic(Module):
    """Numbers on either side of every operator, and the pointwise functions."""

    def __init__(self, features: int) -> None:
        self.s: Any = Parameter((features,), gemmc.uniform(0.5))

    def forward(self, x: Value) -> Value:
        y = (2.0 - x) * 0.5 + 1.0 / (x * x + 2) - (-x) / 3
        y = y + ops.log(ops.exp(x) + 1.0) * self.s + (x**2 + 1.0) ** 0.5 - ops.sqrt(x**2 + 4)
        return ops.where(x > 0.25, y, x**3 * self.s) + ops.where(x <= -0.5, 0.0, 1.5) * x

    @staticmethod
    def twin(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        y = (2.0 - x) * 0.5 + 1.0 / (x * x + 2) - (-x) / 3
        y = y + torch.log(torch.exp(x) + 1.0) * s + (x**2 + 1.0) ** 0.5 - torch.sqrt(x**2 + 4)
        return torch.where(x > 0.25, y, x**3 * s) + torch.where(x <= -0.5, 0.0, 1.5) * x


class Attention(Module):
    """Weighs the features of a row by a softmax of their scores, and by the largest."""

    def __init__(self, features: int) -> None:
        self.q: Any = Parameter((features, features), gemmc.uniform(0.5))

    def forward(self, x: Value) -> Value:
        scores = x @ self.q
        best = ops.reshape(ops.max(scores, (1,)), (1,))
        return ops.softmax(scores) * x + ops.log_softmax(scores) * 0.1 + best

    @staticmethod
    def twin(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        scores = x @ q
        best = scores.amax(1, keepdim=True)
        return torch.softmax(scores, 1) * x + torch.log_softmax(scores, 1) * 0.1 + best


class Planes(Module):
    """Features as an image: padded on one side, convolved, pooled, and flat again."""

    def __init__(self, features: int) -> None:
        self.w: Any = Parameter((features // 4, 1, 2, 2), gemmc.uniform(0.5))

    def forward(self, x: Value) -> Value:
        image = ops.reshape(x, (1, 4, x.shape[1] // 4))
        padded = ops.pad(image, (0, 0, 1, 0), (0, 0, 0, 2), value=0.5)
        made = ops.max_pool2d(ops.conv2d(padded, self.w), (1, 2), stride=(1, 1))
        return ops.flatten(ops.transpose(made, (0, 2, 3, 1)))

    @staticmethod
    def twin(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        image = x.reshape(len(x), 1, 4, -1)
        padded = torch.nn.functional.pad(image, (0, 2, 1, 0), value=0.5)
        made = torch.nn.functional.conv2d(padded, w)
        made = torch.nn.functional.max_pool2d(made, (1, 2), stride=(1, 1))
        return made.permute(0, 2, 3, 1).flatten(1)


OWN_LAYERS = [Gate, LayerNorm, BatchNorm, Residual, Tied, Arithmetic, Attention, Planes]


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
@pytest.mark.parametrize("layer", OWN_LAYERS, ids=lambda c: c.__name__)
def test_the_derived_backward_of_a_users_layer_is_pytorchs(layer: type, runtime: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(9, 12)).astype(np.float32)
    model = Sequential([layer(12), ReLU()], MSELoss(), seed=3)
    exe = gemmc.compile(model, (12,), 16, runtime=runtime)
    y = rng.normal(size=exe(x).shape).astype(np.float32)

    parameters = {k: torch.from_numpy(v).requires_grad_() for k, v in model.state_dict().items()}
    given = torch.from_numpy(x).requires_grad_()
    output = torch.relu(layer.twin(given, *parameters.values()))  # type: ignore[attr-defined]
    expected = torch.nn.functional.mse_loss(output, torch.from_numpy(y))
    expected.backward()

    loss, grads = exe.loss_and_grads(x, y)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    # float32 on both sides, sums of a dozen terms that may cancel
    np.testing.assert_allclose(exe(x), output.detach(), rtol=1e-5, atol=1e-5)
    for name, p in {**parameters, "input": given}.items():
        assert p.grad is not None
        assert_close(grads[name], p.grad.numpy(), 1e-5, name)


class Huber(Loss):
    """Quadratic where the error is below 1, linear outside."""

    def forward(self, output: Value, target: Value) -> Value:
        error = output - target
        size = ops.where(error < 0, -error, error)
        return ops.mean(ops.where(size < 1.0, error**2 * 0.5, size - 0.5))


class Smoothed(Loss):
    """Cross-entropy with a tenth of each label shared out over all classes."""

    target_dtype = "i64"

    def forward(self, output: Value, target: Value) -> Value:
        scores = ops.log_softmax(output)
        own = ops.sum(ops.where(ops.one_hot(target, output.shape[1]), scores, 0.0), (1,))
        return ops.mean(-(own * 0.9 + ops.mean(scores, (1,)) * 0.1))

    def correct(self, output: Value, target: Value) -> Value:
        return ops.correct(output, target)

    def target_shape(self, output: tuple) -> tuple:
        return output[:1]


OWN_LOSSES = [
    (Huber(), torch.nn.HuberLoss(delta=1.0)),
    (Smoothed(), torch.nn.CrossEntropyLoss(label_smoothing=0.1)),
]


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
@pytest.mark.parametrize(("ours", "theirs"), OWN_LOSSES, ids=["Huber", "Smoothed"])
def test_the_derived_backward_of_a_users_loss_is_pytorchs(
    ours: Loss, theirs: torch.nn.Module, runtime: str
) -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(40, 5)).astype(np.float32) * 2
    y: np.ndarray = rng.integers(0, 4, 40)
    model = Sequential([Linear(5, 8), ReLU(), Linear(8, 4)], ours)
    if isinstance(ours, Huber):
        y = rng.normal(size=(40, 4)).astype(np.float32) * 2
    net = twin(model)
    net.loss = theirs
    expected, wanted = net.loss_and_grads(x, y)
    exe = gemmc.compile(model, (5,), 64, runtime=runtime)
    loss, grads = exe.loss_and_grads(x, y)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, grad in wanted.items():
        assert_close(grads[name], grad, 1e-5, name)
    mean, accuracy = exe.evaluate(x, y)
    assert mean == pytest.approx(expected, rel=1e-5)
    hits = np.mean(net.predict(x).argmax(1) == y) if isinstance(ours, Smoothed) else np.nan
    assert accuracy == pytest.approx(hits, nan_ok=True)


class RMSprop(Optimizer):
    """A running mean of squares, as in PyTorch."""

    state_names = ("square_avg",)

    def __init__(self, lr: float, alpha: float) -> None:
        super().__init__(lr)
        self.alpha = alpha

    def update(
        self, p: Value, g: Value, state: dict[str, Value], step: Value
    ) -> tuple[Value, dict[str, Value]]:
        v = state["square_avg"] * self.alpha + g * g * (1 - self.alpha)
        return p - g / (ops.sqrt(v) + 1e-6) * self.lr, {"square_avg": v}


class Decaying(Optimizer):
    """SGD whose rate falls as 1 / (1 + step / 10): `step` counts from 1."""

    def update(
        self, p: Value, g: Value, state: dict[str, Value], step: Value
    ) -> tuple[Value, dict[str, Value]]:
        return p - g * (self.lr / (1.0 + step / 10)), {}


def _decaying(parameters: list) -> Callable[[], None]:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    rule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 / (1 + (done + 1) / 10))

    def step() -> None:
        optimizer.step()
        rule.step()

    return step


OWN_OPTIMIZERS = [
    (lambda: RMSprop(0.01, 0.9), lambda p: torch.optim.RMSprop(p, 0.01, 0.9, eps=1e-6).step),
    (lambda: Decaying(0.1), _decaying),
]


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
@pytest.mark.parametrize(("ours", "theirs"), OWN_OPTIMIZERS, ids=["RMSprop", "Decaying"])
def test_a_users_optimizer_steps_as_pytorchs(
    ours: Callable[[], Optimizer], theirs: Callable[[list], Callable[[], None]], runtime: str
) -> None:
    X, y = gemmc.datasets.spiral(points=20, classes=4)
    model = Sequential([Linear(2, 16), ReLU(), Linear(16, 4)], CrossEntropyLoss(), ours())
    net, exe = twin(model), gemmc.compile(model, (2,), 16, runtime=runtime)
    step = theirs(list(net.net.parameters()))
    for i in range(30):
        rows = slice(i % 5 * 16, i % 5 * 16 + 16)
        expected, _ = net.loss_and_grads(X[rows], y[rows])
        step()
        assert exe.train_step(X[rows], y[rows]) == pytest.approx(expected, rel=1e-5)  # rounding
    for name, p in net.state().items():
        assert_close(model.state_dict()[name], p, 1e-5, name)


def test_a_layer_can_tell_training_from_evaluation() -> None:
    class Doubling(Module):
        def forward(self, x: Value) -> Value:
            return x * 2.0 if self.training else x

    model = Sequential([Doubling()], MSELoss())
    exe = gemmc.compile(model, (1,), 4)
    x, y = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    assert exe(x).tolist() == x.tolist()
    assert exe.loss_and_grads(x, y)[0] == 1.0
    assert exe.loss_and_grads(x, y, train=True)[0] == 4.0


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)], ids=repr)
def test_numbers_of_python_and_numpy_meet_values_from_either_side(number: float) -> None:
    def forward(self: Module, x: Value) -> Value:
        return number * x + x * number - x / number

    x = np.array([[1.5, -2.0]], np.float32)
    made = type("Mine", (Module,), {"forward": forward})()
    assert Sequential([made])(x).tolist() == (x * 3.5).tolist()


class Blocked(Module):
    """A layer with layers inside."""

    def __init__(self) -> None:
        self.linear = Linear(2, 4)
        self.drop = Dropout(0.5)

    def forward(self, x: Value) -> Value:
        return self.drop(self.linear(x))


def test_a_hyper_parameter_of_an_inner_module_is_watched_too() -> None:
    block = Blocked()
    model = Sequential([block], MSELoss(), SGD())
    executable = gemmc.compile(model, (2,), 4)
    block.drop.p = 0.0
    with pytest.raises(gemmc.CompileError, match=r"0.Blocked.drop.p: .* compile again"):
        executable(np.zeros((1, 2), np.float32))


class Scaled(Module):
    """x times numbers that are compiled in."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def forward(self, x: Value) -> Value:
        return x * float(sum(self.numbers))


@pytest.mark.parametrize("numbers", [[1.0, 2.0], np.ones(2)], ids=["list", "array"])
def test_a_hyper_parameter_that_changes_and_stays_itself_is_watched_too(numbers: Any) -> None:
    executable = gemmc.compile(Sequential([Scaled(numbers)]), (2,), 4)
    numbers[0] = 5.0
    with pytest.raises(gemmc.CompileError, match=r"0.Scaled.numbers: got .* compile again"):
        executable(np.zeros((1, 2), np.float32))


def test_calling_a_model_compiles_it_again_after_a_change() -> None:
    drop, x = Dropout(0.5), np.ones((1, 2), np.float32)
    model = Sequential([Linear(2, 3), drop])
    before = model(x)
    drop.p = 0.25
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize("name", ["layers", "loss_func", "optimizer", "seed"])
def test_a_model_keeps_the_parts_it_was_made_with(name: str) -> None:
    model = Sequential([Linear(2, 3)], MSELoss(), SGD())
    with pytest.raises(gemmc.CompileError, match=f"{name}: .* load_state_dict"):
        setattr(model, name, getattr(model, name))


@pytest.mark.parametrize("names", [("g",), ("p",), ("lr",), ("step",), ("m", "m")])
def test_state_names_that_mean_something_else_are_refused(names: tuple[str, ...]) -> None:
    class Own(Optimizer):
        state_names = names

        def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
            return p, state

    model = Sequential([Linear(2, 3)], MSELoss(), Own(0.1))
    with pytest.raises(gemmc.CompileError, match="state_names"):
        gemmc.compile(model, (2,))


class Margin(Loss):
    """(output - sign of the label)^2 for labels 0 and 1 of the output's shape."""

    target_dtype = "i64"

    def target_shape(self, output: tuple) -> tuple:
        return output

    def forward(self, output: Value, target: Value) -> Value:
        sign = ops.where(target == 1, 1.0, -1.0)
        return ops.mean((output - sign) ** 2)


def test_a_loss_may_take_labels_of_the_outputs_shape() -> None:
    model = Sequential([Linear(2, 3)], Margin(), SGD())
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 2, (5, 3))
    loss = gemmc.compile(model, (2,), 5).train_step(x, y)
    weight, bias = Sequential([Linear(2, 3)]).state_dict().values()
    expected = np.mean((x @ weight.T + bias - (2 * y - 1)) ** 2)
    assert loss == pytest.approx(expected, rel=1e-5)
