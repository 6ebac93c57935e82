"""Training as people call it: what comes back, in which order, and that it can be repeated."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from twins import twin

import gemmc
from gemmc import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Executable,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
    Softmax,
    train_val,
)

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def stripes() -> Split:
    """Noisy images, 18 x 18, striped in one of four directions: X_train, y_train, X_val, y_val."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 500)
    row, column = np.mgrid[:18, :18]
    waves = np.array([row, column, row + column, row - column]) * (2 * np.pi / 4)
    phase = rng.uniform(0, 2 * np.pi, (500, 1, 1))
    X = np.sin(waves[y] + phase) + rng.normal(size=(500, 18, 18))
    X = X[:, None].astype(np.float32)
    return X[:400], y[:400], X[400:], y[400:]


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    """75 points in the plane and which of three arms of a spiral each is on."""
    return gemmc.datasets.spiral(points=25, classes=3)


def mlp(seed: int = 0, p: float = 0.2, optimizer: gemmc.Optimizer | None = None) -> Sequential:
    layers = [Linear(2, 12), ReLU(), Dropout(p), Linear(12, 3), Softmax()]
    return Sequential(layers, CrossEntropyLoss(), optimizer or Adam(lr=1e-2), seed=seed)


def bits(model: Sequential) -> bytes:
    return b"".join(model.state.get(name).tobytes() for name in model.state.shapes)


def test_the_seeds_usage_example_learns(stripes: Split) -> None:
    X_train, y_train, X_val, y_val = stripes
    num_classes = 4
    model = Sequential(
        layers=[
            Conv2d(in_channels=1, out_channels=16, kernel_size=3),
            ReLU(),
            MaxPool2d(kernel_size=2, stride=2),
            Flatten(),
            Linear(1024, num_classes),
            Softmax(),
        ],
        loss_func=CrossEntropyLoss(),
        optimizer=Adam(lr=1e-3),
    )
    epochs = 12
    train_losses, train_accuracies, val_losses, val_accuracies = train_val(
        model,
        *(X_train, y_train, X_val, y_val),
        epochs=epochs,
        batch_size=32,
        verbose_freq=10,
    )
    for values in (train_losses, train_accuracies, val_losses, val_accuracies):
        assert len(values) == epochs
        assert all(type(v) is float and np.isfinite(v) for v in values)
    assert train_losses[0] > 1.0 and train_losses[-1] < 0.2  # log(4) is 1.39
    assert val_accuracies[-1] > 0.95 and train_accuracies[-1] > 0.95  # by chance: 0.25
    loss, accuracy = gemmc.test(model, X_val, y_val)
    # in batches of 128 rows instead of 32: the sums are in another order
    assert loss == pytest.approx(val_losses[-1], rel=1e-5) and accuracy == val_accuracies[-1]
    probabilities = model(X_val)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)  # four float32 terms
    assert np.mean(probabilities.argmax(1) == y_val) == accuracy


def test_an_epoch_is_steps_in_the_given_order_and_its_loss_the_mean_over_samples(points) -> None:
    X, y = points  # 75 rows: two batches of 32 and one of 11
    one, two = mlp(seed=5), mlp(seed=5)
    history = gemmc.compile(one, (2,), 32).fit(X, y, X[:40], y[:40], epochs=3)
    exe = gemmc.compile(two, (2,), 32)
    for epoch in range(3):
        order = gemmc.epoch_order(5, epoch, 75)
        batches = [order[:32], order[32:64], order[64:]]
        means = [exe.train_step(X[rows], y[rows]) for rows in batches]
        # the same numbers, multiplied and added in float64
        expected = np.dot(means, [32, 32, 11]) / 75
        assert history.loss[epoch] == pytest.approx(expected, rel=1e-12)
        val = exe.evaluate(X[:40], y[:40])
        assert (history.val_loss[epoch], history.val_accuracy[epoch]) == val
    assert bits(one) == bits(two)


def test_without_shuffling_the_order_is_that_of_the_rows(points) -> None:
    X, y = points
    one, two = mlp(), mlp()
    gemmc.compile(one, (2,), 32).fit(X, y, epochs=2, shuffle=False)
    exe = gemmc.compile(two, (2,), 32)
    for _ in range(2):
        for rows in (slice(0, 32), slice(32, 64), slice(64, 75)):
            exe.train_step(X[rows], y[rows])
    assert bits(one) == bits(two)


def test_training_accuracy_is_measured_on_the_way(points) -> None:
    """With dropout off and a learning rate of 0, it is that of evaluation."""
    X, y = points
    exe = gemmc.compile(mlp(p=0.0, optimizer=SGD(lr=0.0)), (2,), 32)
    history = exe.fit(X, y, epochs=2)
    loss, accuracy = exe.evaluate(X, y)
    assert history.accuracy == [accuracy] * 2
    assert history.loss == pytest.approx([loss] * 2, rel=1e-6)  # batches of other rows


def test_an_epochs_order_is_a_permutation_that_differs_by_epoch_and_seed() -> None:
    orders = [gemmc.epoch_order(seed, epoch, 50) for seed in (0, 1) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert len({order.tobytes() for order in orders}) == 6
    assert gemmc.epoch_order(1, 2, 50).tolist() == orders[5].tolist()
    assert gemmc.epoch_order(0, 0, 1).tolist() == [0]


def test_orders_are_as_random_as_permutations_should_be() -> None:
    """Over 2,000 epochs each row comes first equally often: chi-square of 9 degrees of freedom."""
    first = np.array([gemmc.epoch_order(3, epoch, 10)[0] for epoch in range(2000)])
    counts = np.bincount(first, minlength=10)
    assert np.sum((counts - 200) ** 2 / 200) < 33.7  # exceeded once in 10,000 seeds


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(points, runtime: str) -> None:
    X, y = points
    models = [mlp(seed) for seed in (3, 3, 4)]
    starts = [bits(m) for m in models]
    losses = [gemmc.compile(m, (2,), 32, runtime=runtime).fit(X, y, epochs=3).loss for m in models]
    assert starts[0] == starts[1] != starts[2]
    assert losses[0] == losses[1] and bits(models[0]) == bits(models[1])
    assert losses[0] != losses[2] and bits(models[0]) != bits(models[2])


def test_training_in_parts_is_training_in_one_go(points) -> None:
    X, y = points
    whole, parts = mlp(), mlp()
    losses = gemmc.compile(whole, (2,), 32).fit(X, y, epochs=5).loss
    exe = gemmc.compile(parts, (2,), 32)
    seen = [loss for epochs in (1, 0, 3) for loss in exe.fit(X, y, epochs=epochs).loss]
    last, _, _, _ = train_val(parts, X, y, X, y, epochs=1, batch_size=32, verbose_freq=0)
    assert seen + last == losses
    assert bits(whole) == bits(parts)
    assert (parts.state.step, parts.state.epoch) == (15, 5)


def test_executables_of_one_model_share_its_parameters(points) -> None:
    X, y = points
    model = mlp(p=0.0)
    small, large = gemmc.compile(model, (2,), 8), gemmc.compile(model, (2,), 75)
    slow = gemmc.compile(model, (2,), 75, runtime="reference")
    apart = mlp(p=0.0)
    alone = gemmc.compile(apart, (2,), 75)
    for exe in (large, slow, small):
        rows = slice(0, exe.batch_size)
        # rounding of float32: other runtimes, other sums
        expected = alone.train_step(X[rows], y[rows])
        assert exe.train_step(X[rows], y[rows]) == pytest.approx(expected, rel=1e-5)
        for one, two in pairwise([small(X), large(X), slow(X), model(X)]):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert model.state.step == 3
    model.load_state_dict({name: 0 * a for name, a in model.state_dict().items()})
    for outputs in (small(X), large(X), slow(X), model(X)):
        np.testing.assert_allclose(outputs, 1 / 3, rtol=1e-6)


def test_a_new_learning_rate_holds_from_the_next_step_without_compiling(
    points, monkeypatch
) -> None:
    X, y = points[0][:32], points[1][:32]
    model = mlp(p=0.0, optimizer=SGD(lr=0.5, momentum=0.9))
    theirs, exe = twin(model), gemmc.compile(model, (2,), 32)
    exe.train_step(X, y), theirs.train_step(X, y)
    monkeypatch.setattr(Executable, "_compile", None)
    assert model.optimizer is not None and theirs.optimizer is not None
    for lr in (0.05, 0.0, 1.0, 0.25):
        model.optimizer.lr = lr
        theirs.optimizer.param_groups[0]["lr"] = lr
        # rounding, over a handful of steps
        assert exe.train_step(X, y) == pytest.approx(theirs.train_step(X, y), rel=1e-5)
    for name, p in theirs.state().items():
        np.testing.assert_allclose(model.state_dict()[name], p, rtol=1e-5, atol=1e-6)


def test_a_learning_rate_of_0_moves_no_parameter(points) -> None:
    X, y = points
    for optimizer in (Adam(lr=0.0), SGD(lr=0.0, momentum=0.9)):
        model = mlp(optimizer=optimizer)
        before = model.state_dict()
        gemmc.compile(model, (2,), 32).fit(X, y, epochs=2)
        assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())


def test_the_accuracy_of_a_loss_without_one_is_nan(points) -> None:
    X = points[0]
    model = Sequential([Linear(2, 1)], MSELoss(), SGD())
    y = X[:, :1] * 2
    lists = train_val(model, X, y, X, y, epochs=2, verbose_freq=0)
    assert all(np.isfinite(v) for v in (*lists[0], *lists[2]))
    assert all(np.isnan(v) for v in (*lists[1], *lists[3]))
    assert np.isnan(gemmc.test(model, X, y)[1])


def test_a_history_has_an_entry_an_epoch(points) -> None:
    X, y = points
    exe = gemmc.compile(mlp(), (2,), 32)
    plain, validated, none = (
        exe.fit(X, y, epochs=2),
        exe.fit(X, y, X, y, 3),
        exe.fit(X, y, epochs=0),
    )
    assert (len(plain.loss), len(plain.accuracy)) == (2, 2)
    assert plain.val_loss == plain.val_accuracy == []
    for values in (validated.loss, validated.accuracy, validated.val_loss, validated.val_accuracy):
        assert len(values) == 3 and all(type(v) is float for v in values)
    assert none.loss == [] and plain.seconds > 0 and not plain.interrupted


@pytest.mark.parametrize(
    ("epochs", "freq", "shown"),
    [(7, 3, [1, 3, 6, 7]), (4, 1, [1, 2, 3, 4]), (3, 10, [1, 3]), (3, 0, []), (1, 1, [1])],
)
def test_every_verbose_freq_epochs_there_is_a_line(
    points, capsys: pytest.CaptureFixture, epochs: int, freq: int, shown: list[int]
) -> None:
    X, y = points
    lists = train_val(mlp(), X, y, X, y, epochs=epochs, verbose_freq=freq)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shown)
    for line, epoch in zip(lines, shown, strict=True):
        loss, accuracy, val_loss, val_accuracy = (values[epoch - 1] for values in lists)
        assert line.startswith(
            f"epoch {epoch}/{epochs}: loss {loss:.4f}, accuracy {accuracy:.4f}, "
            f"val loss {val_loss:.4f}, val accuracy {val_accuracy:.4f}"
        )


def test_evaluation_is_the_mean_over_rows_in_any_batch_size(points) -> None:
    X, y = points
    model = mlp()
    probabilities = model(X).astype(np.float64)
    expected = -np.log(probabilities[np.arange(75), y]).mean()
    accuracy = np.mean(probabilities.argmax(1) == y)
    for batch_size in (1, 7, 32, 75, 100):
        loss, right = gemmc.compile(model, (2,), batch_size).evaluate(X, y)
        assert loss == pytest.approx(expected, rel=1e-6)  # float32 logarithms
        assert right == pytest.approx(accuracy, rel=1e-12)


def test_the_summary_counts_parameters_and_shows_shapes() -> None:
    layers = [Conv2d(1, 16, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(1024, 10, bias=False)]
    model = Sequential(layers)
    text = model.summary((1, 18, 18))
    counts = [sum(p.numel() for p in layer.parameters()) for layer in twin(model).net]
    for i, line in enumerate(text.splitlines()[2:7]):
        name = f"{i}.{type(layers[i]).__name__}"
        assert line.startswith(name)
        assert (f" {counts[i]:,} " in line) == bool(counts[i])
    # Of a row: two FLOPs for each of 9 x 16 x 16 x 16 and 1024 x 10 multiply-adds; 4 bytes a float.
    flops, floats = 2 * (36864 + 10240), 2 * 4096 + 2 * 1024 + 10
    total = [f"{n:,}" for n in (sum(counts), flops, 4 * floats)]
    assert text.splitlines()[-1].split() == ["total", *total]
    for shape in ("[N,16,16,16]", "[N,16,8,8]", "[N,1024]", "[N,10]"):
        assert shape in text
    assert "[N" not in model.summary() and f"{sum(counts):,}" in model.summary()


def test_the_summary_writes_layers_as_one_writes_them() -> None:
    layers = [Conv2d(1, 16, (3, 5), padding=1), ReLU(), MaxPool2d(2), Dropout(0.25)]
    rows = Sequential(layers).summary().splitlines()[2:6]
    for row, written in zip(
        rows, ("1, 16, (3, 5), padding=1 ", "", "2, stride=2 ", "p=0.25 "), strict=True
    ):
        assert row[len("2.MaxPool2d  ") :].startswith(written)


@pytest.mark.parametrize(
    ("part", "attribute", "value"),
    [
        ("optimizer", "betas", (0.5, 0.9)),
        ("optimizer", "eps", 1e-3),
        ("optimizer", "learning_rate", 1e-3),  # it is `lr`
        ("layer", "p", 0.1),
    ],
)
def test_a_hyper_parameter_changed_after_compiling_is_refused(part, attribute, value) -> None:
    layers = [Linear(2, 4), Dropout(0.5), Linear(4, 3)]
    model = Sequential(layers, CrossEntropyLoss(), Adam())
    executable = gemmc.compile(model, (2,), 8)
    x, y = np.zeros((8, 2), np.float32), np.zeros(8, np.int64)
    executable.train_step(x, y)
    setattr(model.optimizer if part == "optimizer" else layers[1], attribute, value)
    for call in (executable.train_step, executable.fit, executable.loss_and_grads):
        with pytest.raises(gemmc.CompileError, match=rf"{attribute}: .* compile again"):
            call(x, y)
    assert model.state.step == 1
    gemmc.compile(model, (2,), 8).train_step(x, y)


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_bar_shows_steps_time_left_loss_and_accuracy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    X, y = gemmc.datasets.spiral(points=16, classes=2)
    layers = [Linear(2, 2), Softmax()]
    model = Sequential(layers, CrossEntropyLoss(), Adam())
    train_val(model, X, y, X, y, epochs=3, batch_size=8, verbose_freq=1)
    last = terminal.getvalue().replace("\r", "\n").strip().splitlines()[-1]
    assert "12/12 steps" in last and "left" in last
    assert "loss" in last and "accuracy" in last and "val" in last
    assert capsys.readouterr().out == ""
