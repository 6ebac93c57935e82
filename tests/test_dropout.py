"""Dropout: its masks are a pure function of seed, step, layer and element, the same everywhere."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

import gemmc
from gemmc import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    MSELoss,
    ReLU,
    Sequential,
    Softmax,
)

PLANES = (3, 20, 30)
Shape = tuple[int, ...]


def mask(
    *layers: Module,
    shape: Shape = PLANES,
    rows: int = 7,
    batch_size: int | None = None,
    runtime: str = "native",
    seed: int = 0,
    steps: int = 0,
) -> np.ndarray:
    """What dropout multiplies ones by, read off the gradient of the mean of squares."""
    model = Sequential(layers, MSELoss(), SGD(lr=0.0), seed=seed)
    model.load_state_dict({name: _identity(a) for name, a in model.state_dict().items()})
    x = np.ones((rows, *shape), np.float32)
    exe = gemmc.compile(model, shape, batch_size or rows, runtime=runtime)
    y = np.zeros_like(exe(x))
    for _ in range(steps):
        exe.train_step(x, y)
    _, grads = exe.loss_and_grads(x, y, train=True)
    # loss = mean(mask^2 x^2), so its gradient at x = 1 is 2 mask^2 / size
    return np.sqrt(grads["input"] * (x.size / 2))


def _identity(array: np.ndarray) -> np.ndarray:
    """Weights that hand the input on, and biases that add nothing."""
    square = array.ndim > 1
    return np.eye(len(array), dtype=np.float32).reshape(array.shape) if square else 0 * array


def pointwise() -> Conv2d:
    return Conv2d(3, 3, 1)


WAYS: dict[str, tuple[Module, ...]] = {
    "on images": (Dropout(0.3),),
    "on features": (Flatten(), Dropout(0.3)),
    "behind a convolution": (pointwise(), Dropout(0.3)),
    "behind a convolution and a ReLU": (pointwise(), ReLU(), Dropout(0.3)),
    "behind a pool": (pointwise(), MaxPool2d(1), Dropout(0.3)),
    "before a convolution": (Dropout(0.3), pointwise()),
    "between convolutions": (pointwise(), Dropout(0.3), ReLU(), pointwise()),
    "behind a convolution and Flatten": (pointwise(), Flatten(), Dropout(0.3)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
def test_a_mask_is_the_same_in_every_layout_and_runtime(way: str, runtime: str) -> None:
    seen = mask(*WAYS[way], runtime=runtime)
    expected = mask(Dropout(0.3), runtime="reference")
    np.testing.assert_array_equal(seen > 0, expected > 0)


def test_a_mask_is_the_same_in_every_batch_size_and_tile() -> None:
    expected = mask(Dropout(0.3), rows=40)
    for rows, batch_size in ((40, 1000), (3, 40), (17, 40)):
        seen = mask(pointwise(), ReLU(), Dropout(0.3), rows=rows, batch_size=batch_size)
        np.testing.assert_array_equal(seen > 0, expected[:rows] > 0)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_a_mask_drops_with_probability_p_and_scales_what_it_keeps(p: float) -> None:
    seen = mask(Dropout(p), rows=60)
    kept = seen > 0
    if p < 1:
        np.testing.assert_allclose(seen[kept], 1 / (1 - p), rtol=1e-6)  # a square root in float32
    # five standard errors of the mean of that many independent draws
    assert abs(kept.mean() - (1 - p)) <= 5 * np.sqrt(p * (1 - p) / kept.size)
    # along no axis is it uneven: the same bound for each row, channel, line and column
    for axis in range(4):
        some = kept.mean(axis=tuple(a for a in range(4) if a != axis))
        bound = 5 * np.sqrt(p * (1 - p) * kept.shape[axis] / kept.size)
        assert np.abs(some - (1 - p)).max() <= bound


def test_masks_of_other_steps_and_seeds_are_independent() -> None:
    kept = {
        "first": mask(Dropout(0.5)) > 0,
        "one step later": mask(Dropout(0.5), steps=1) > 0,
        "two steps later": mask(Dropout(0.5), steps=2) > 0,
        "seed 1": mask(Dropout(0.5), seed=1) > 0,
        "seed 1, one step later": mask(Dropout(0.5), seed=1, steps=1) > 0,
        "seed 2**40": mask(Dropout(0.5), seed=2**40) > 0,
    }
    for one, two in combinations(kept, 2):
        # independent halves agree half of the time, with a standard error of 0.5 / sqrt(12600)
        assert abs((kept[one] == kept[two]).mean() - 0.5) < 0.025, (one, two)


def test_masks_of_two_layers_are_independent() -> None:
    first, both = mask(Dropout(0.5)) > 0, mask(Dropout(0.5), Dropout(0.5)) > 0
    assert not both[~first].any()
    # of the 6,300 that the first keeps, the second keeps half: five standard errors
    assert abs(both[first].mean() - 0.5) < 5 * 0.5 / np.sqrt(first.sum())


def test_neighbours_in_a_mask_are_independent() -> None:
    kept = mask(Dropout(0.5), rows=20) > 0
    for axis in range(4):
        along = np.moveaxis(kept, axis, 0)
        same = along[1:] == along[:-1]
        assert abs(same.mean() - 0.5) < 5 * 0.5 / np.sqrt(same.size), axis  # five standard errors


def small_cnn(seed: int = 0) -> Sequential:
    layers = [
        *(Conv2d(1, 5, 3, padding=1), ReLU(), Dropout(0.25), MaxPool2d(2)),
        *(Conv2d(5, 6, 3), ReLU(), MaxPool2d(2), Dropout(0.1), Flatten()),
        *(Dropout(0.2), Linear(216, 20), ReLU(), Dropout(0.5), Linear(20, 10), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-3), seed=seed)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    X, y, _, _ = gemmc.datasets.fashion_mnist(subset=True)
    return X[::100], y[::100]


def test_training_with_dropout_is_the_same_on_every_runtime(images) -> None:
    X, y = images
    native, blas, reference = (
        gemmc.compile(small_cnn(), (1, 28, 28), 16, runtime=r)
        for r in ("native", "blas", "reference")
    )
    for step in range(10):
        rows = slice(step % 3 * 16, step % 3 * 16 + 16 - step % 4)
        expected = reference.train_step(X[rows], y[rows])
        # rounding; one wrong entry of a mask would be seen in the second digit
        assert native.train_step(X[rows], y[rows]) == pytest.approx(expected, rel=1e-4)
        assert blas.train_step(X[rows], y[rows]) == pytest.approx(expected, rel=1e-4)


def test_loss_and_grads_use_the_masks_of_the_next_step_and_move_nothing(images) -> None:
    X, y = images[0][:16], images[1][:16]
    model = small_cnn()
    assert model.optimizer is not None
    model.optimizer.lr = 0.0  # so that a step changes the masks, and nothing else
    exe = gemmc.compile(model, (1, 28, 28), 16)
    losses = []
    for _ in range(4):
        before = model.state.counters.copy(), model.state_dict()
        loss, _ = exe.loss_and_grads(X, y, train=True)
        again, _ = exe.loss_and_grads(X, y, train=True)
        np.testing.assert_array_equal(model.state.counters, before[0])
        assert all(np.array_equal(a, before[1][n]) for n, a in model.state_dict().items())
        step = exe.train_step(X, y)
        assert loss == again == pytest.approx(step, rel=1e-6)  # two programs, other sums
        losses.append(step)
    assert len(set(losses)) == 4
    still = exe.loss_and_grads(X, y)[0]
    assert still == pytest.approx(exe.evaluate(X, y)[0], rel=1e-6)
    assert all(abs(still - loss) > 1e-4 for loss in losses)


def test_gradients_under_a_mask_are_pytorchs(images) -> None:
    X = images[0][:9].astype(np.float32) / 255
    y = images[1][:9]
    model = Sequential(
        [Conv2d(1, 4, 3), Dropout(0.4), ReLU(), Flatten(), Linear(2704, 10)], CrossEntropyLoss()
    )
    kept = _mask_behind_conv(X, model)
    w = {k: torch.from_numpy(v).requires_grad_() for k, v in model.state_dict().items()}
    planes = torch.nn.functional.conv2d(torch.from_numpy(X), w["0.weight"], w["0.bias"])
    features = torch.relu(planes * torch.from_numpy(kept)).flatten(1)
    logits = features @ w["4.weight"].T + w["4.bias"]
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    expected.backward()
    exe = gemmc.compile(model, (1, 28, 28), 9)
    loss, grads = exe.loss_and_grads(X, y, train=True)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, p in w.items():
        assert p.grad is not None
        # sums of up to 6,000 float32 products
        np.testing.assert_allclose(grads[name], p.grad, rtol=1e-4, atol=1e-6)


def _mask_behind_conv(X: np.ndarray, model: Sequential) -> np.ndarray:
    """The mask of a model's only dropout, on planes [4, 26, 26]: it knows no other layers."""
    return mask(Dropout(0.4), shape=(4, 26, 26), rows=len(X), seed=model.seed)
