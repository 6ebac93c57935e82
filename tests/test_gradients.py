"""Gradients: those of random models are PyTorch's, and those of finite differences.

The reference runtime in float64 is held against PyTorch's float64, digit by digit, and against
finite differences, which trust nobody. The native and the blas runtime are held against PyTorch on
models whose kinks are exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from programs import program
from random_models import Case, in_few_bits, random_case
from twins import Twin, assert_close, twin

import gemmc
from gemmc import (
    SGD,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
)
from gemmc.ir import Graph, interpret
from gemmc.passes.pipeline import run_passes
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

Arrays = Mapping[str, np.ndarray]

MODELS = 60
HOST = native_target()
TARGETS = {  # all forms of a convolution, and caches so small that the plans have tiles
    "blas": (
        CPU,
        Target(conv_form="shift", cache_bytes=1 << 14),
        Target(conv_form="im2col", cache_bytes=1 << 12),
    ),
    "native": (
        HOST,
        replace(HOST, cache_bytes=1 << 12),
        replace(HOST, products="blas", conv_form="im2col", cache_bytes=1 << 12),
        replace(HOST, products="blas", conv_form="shift", cache_bytes=1 << 14, shards=3),
    ),
}
SEEDS = [("blas", seed) for seed in range(MODELS)]
SEEDS += [("native", seed) for seed in range(0, MODELS, 2)]  # each compiles for half a second
COORDINATES = 12  # of each array, that finite differences look at
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@pytest.mark.parametrize("seed", range(MODELS))
def test_in_float64_every_gradient_of_a_random_model_is_pytorchs(seed: int) -> None:
    case = random_case(seed)
    exe = gemmc.compile(
        case.model, case.input_shape, case.batch_size, runtime="reference", dtype="float64"
    )
    loss, grads = exe.loss_and_grads(case.x, case.y)
    expected, wanted = twin(case.model, torch.float64).loss_and_grads(case.x, case.y)
    assert loss == pytest.approx(expected, rel=1e-12), case  # float64 has 16 digits
    assert grads.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert grads[name].dtype == np.float64
        assert_close(grads[name], grad, 1e-11, f"{name}: {case}")


@pytest.mark.parametrize("seed", range(15))
def test_in_float64_gradients_of_random_models_are_finite_differences(seed: int) -> None:
    case = random_case(1000 + seed)
    exe = gemmc.compile(
        case.model, case.input_shape, case.batch_size, runtime="reference", dtype="float64"
    )
    arrays = {"x": case.x, "y": case.y, **case.model.state_dict()}
    arrays = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in arrays.items()}
    forward, graph = exe.graph("trace", "grads"), exe.graph("autodiff", "grads")
    grads = interpret(graph, {n.name: arrays[n.name] for n in graph.inputs})
    checked = skipped = 0
    for name in ("x", *case.model.parameters):
        seen = grads[f"{name}.grad"]
        size = np.abs(seen).max()
        for flat in _sampled(seed, seen.size):
            index = np.unravel_index(flat, seen.shape)
            slope = _slope(forward, arrays, name, index)
            if slope is None:
                skipped += 1
                continue
            checked += 1
            # central differences: h^2 f''' is about 1e-8 here, and 1e-16 / h is 1e-11
            assert abs(slope - seen[index]) < 1e-6 * max(1.0, size), f"{name}{index}: {case}"
    assert checked > 9 * skipped, f"{skipped} of {checked + skipped} are at kinks: {case}"


def _sampled(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)[:COORDINATES]


def _slope(graph: Graph, arrays: Arrays, name: str, index: tuple) -> float | None:
    """The slope of the loss along one coordinate, or None where it has a kink within reach."""
    h = 1e-5
    losses = []
    for step in (-h, 0.0, h):
        moved = np.array(arrays[name])
        moved[index] += step
        given = {**arrays, name: moved}
        losses.append(
            float(interpret(graph, {n.name: given[n.name] for n in graph.inputs})["loss"])
        )
    left, right = (losses[1] - losses[0]) / h, (losses[2] - losses[1]) / h
    # a smooth loss makes them differ by h f'', far less than this
    return None if abs(left - right) > 1e-3 else (left + right) / 2


@pytest.mark.parametrize(("runtime", "seed"), SEEDS)
def test_every_gradient_of_a_random_model_is_pytorchs(
    runtime: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, target = _case(seed), _target(runtime, seed)
    monkeypatch.setattr("gemmc.frontend.runtimes.BlasRuntime.target", target)
    monkeypatch.setattr("gemmc.runtime.native.target.native_target", lambda: target)
    exe = gemmc.compile(case.model, case.input_shape, case.batch_size, runtime=runtime)
    expected, wanted = twin(case.model, torch.float64).loss_and_grads(case.x, case.y)
    before = case.model.state_dict()
    loss, grads = exe.loss_and_grads(case.x, case.y)
    assert grads.keys() == wanted.keys()
    # 3e-6 is the worst of 300 models: sums of up to a few thousand float32 products
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-7), case
    for name, grad in wanted.items():
        assert_close(grads[name], grad, 1e-5, f"{name}: {case}")
    # The training step is another program. By SGD at lr 1, it moves parameters by their gradients.
    assert exe.train_step(case.x, case.y) == pytest.approx(expected, rel=1e-5, abs=1e-7), case
    after = case.model.state_dict()
    for name in before:
        moved = before[name] - after[name]  # of parameters below 2, to 24 bits
        error = np.abs(moved - wanted[name]).max()
        assert error <= 1e-5 * max(np.abs(wanted[name]).max(), 0.1), f"{name}: {case}"


@pytest.mark.parametrize("runtime", TARGETS)
def test_the_random_models_cover_ties_tiles_and_ragged_batches(runtime: str) -> None:
    """What the tests above rest on: kinks are exact, and tiles are short and many."""
    tiled = ragged = ties = 0
    for seed in range(0, MODELS, 2):
        case, target = _case(seed), _target(runtime, seed)
        given = program("grads", (case.model, case.input_shape), case.batch_size, target)
        tiles = re.findall(r"tile=(\d+)", str(run_passes(given)["tile"]))
        tiled += any(int(t) < len(case.x) for t in tiles)
        ragged += len(case.x) < case.batch_size
        coarse, fine = (
            _before_softmax(twin(case.model, t)) for t in (torch.float32, torch.float64)
        )
        given = torch.from_numpy(case.x)
        made = coarse(given)
        assert torch.equal(made, fine(given.double()).float()), case
        ties += bool((made == 0).any())
    assert min(tiled, ragged, ties) > MODELS // 10, (tiled, ragged, ties)


def _case(seed: int) -> Case:
    return in_few_bits(random_case(seed, SGD(lr=1.0)))


def _target(runtime: str, seed: int) -> Target:
    """What the model of that seed is compiled for."""
    return TARGETS[runtime][seed // 2 % len(TARGETS[runtime])]


def _before_softmax(theirs: Twin) -> torch.nn.Sequential:
    return theirs.net[:-1] if isinstance(theirs.net[-1], torch.nn.Softmax) else theirs.net


@pytest.fixture
def not_finite() -> np.ndarray:
    """Six images, of which three have an entry that is NaN, infinite, or minus infinite."""
    x = np.random.default_rng(7).normal(size=(6, 2, 8, 8)).astype(np.float32)
    for row, value in enumerate([np.nan, np.inf, -np.inf]):
        x[row, row % 2, 3, 4] = value
    return x


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
def test_nan_and_infinity_spread_as_in_pytorch(runtime: str, not_finite: np.ndarray) -> None:
    layers = [
        *(Conv2d(2, 4, 3, padding=1), ReLU(), MaxPool2d(3, 2, 1)),
        *(Conv2d(4, 3, 3), MaxPool2d(2), ReLU(), Flatten(), Linear(3, 2)),
    ]
    model = Sequential(layers, MSELoss())
    exe = gemmc.compile(model, (2, 8, 8), 6, runtime=runtime)
    expected = twin(model).predict(not_finite)
    assert np.isnan(expected).any(1).tolist() == [True] * 3 + [False] * 3
    # float32 sums of a hundred terms; NaN and infinities are compared exactly
    np.testing.assert_allclose(exe(not_finite), expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(exe.evaluate(not_finite, np.zeros((6, 2), np.float32))[0])


@pytest.mark.parametrize("runtime", ["native", "blas", "reference"])
def test_gradients_pass_by_nan_and_infinity_as_in_pytorch(
    runtime: str, not_finite: np.ndarray
) -> None:
    """At most one NaN in a window: of several PyTorch takes the last, and we the first."""
    model = Sequential([ReLU(), MaxPool2d(2), Flatten(), Linear(32, 3)], MSELoss())
    y = np.zeros((6, 3), np.float32)
    loss, grads = gemmc.compile(model, (2, 8, 8), 6, runtime=runtime).loss_and_grads(not_finite, y)
    expected, wanted = twin(model).loss_and_grads(not_finite, y)
    np.testing.assert_equal(loss, expected)
    assert np.isfinite(wanted["input"]).any() and np.isnan(wanted["input"]).any()
    for name, grad in wanted.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-5, atol=1e-6)  # as above
