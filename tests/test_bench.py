"""The harness: its statistics, its contenders, its sample; and that a wrong result is noticed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gemmc import (
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Softmax,
)
from gemmc.bench import parity
from gemmc.bench.models import task_of
from gemmc.bench.peers import PEERS
from gemmc.bench.peers.ours import compiled
from gemmc.bench.peers.pytorch import network
from gemmc.bench.process import Task, Trainer, epoch_order, module_of, read
from gemmc.bench.results import median_interval
from gemmc.bench.sample import Sample, sample_models
from gemmc.frontend import training
from gemmc.frontend.trace import output_type

SAMPLE = sample_models()
QUICK = 5e6  # FLOP a step: a model is compared in a fraction of a second
each_sample = pytest.mark.parametrize("sample", SAMPLE, ids=lambda s: f"no{s.number}")


@pytest.mark.parametrize("n", [6, 9, 15, 40])
def test_the_interval_holds_the_median_with_95_percent_and_none_inside_it_does(n: int) -> None:
    low, high = (int(v) for v in median_interval(np.arange(float(n))))
    # the median lies between the order statistics low and high, counted from 0, if more than
    # `low` and at most `high` of the samples are below it
    covered = [
        sum(math.comb(n, k) for k in range(a + 1, b + 1)) / 2**n
        for a, b in ((low, high), (low + 1, high - 1))
    ]
    assert covered[0] >= 0.95 > covered[1]


def test_the_interval_of_a_few_rounds_is_all_of_them() -> None:
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)


def test_the_sample_is_always_the_same() -> None:
    assert sample_models() == SAMPLE
    assert [s.number for s in SAMPLE] == list(range(60))
    # as it was first drawn: figures of two versions are of the same networks
    assert str(SAMPLE[3]).startswith("3x24x24 conv 21 k5 s2 p2, conv 8 k1, pool, conv 16 k1, pool")
    assert sum(s.flops for s in SAMPLE) == 38_170_506_010


@each_sample
def test_a_network_of_the_sample_is_within_the_limits(sample: Sample) -> None:
    assert 1 <= sample.batch <= 1024
    assert sample.flops <= 20e9 and sample.nbytes <= 2e9
    if len(sample.input_shape) == 3:
        assert 8 <= sample.input_shape[1] == sample.input_shape[2] <= 64
    for name, arguments in sample.layers:
        if name == "Conv2d":
            assert 1 <= arguments["in_channels"] <= 128 and 1 <= arguments["out_channels"] <= 128
            assert 1 <= arguments["kernel_size"] <= 7 and 1 <= arguments["stride"] <= 2
        elif name == "Linear":
            assert 1 <= arguments["out_features"] <= 2048
    classes = sample.layers[-1][1]["out_features"]
    assert output_type(sample.model(), sample.input_shape).shape[1:] == (classes,)
    _, y = sample.data()
    assert len(y) == sample.batch * sample.batches and y.max() < classes


@pytest.mark.parametrize("sample", [s for s in SAMPLE if s.flops < QUICK], ids=str)
def test_the_flops_of_a_step_are_those_that_pytorch_counts(sample: Sample) -> None:
    x, y = (array[: sample.batch] for array in sample.data())
    data, settings = {"x": x, "y": y}, {"batch": sample.batch, "threads": 1, "rows": len(x)}
    net = network(task_of(sample.model(), data, **settings))
    with FlopCounterMode(display=False) as counter:
        logits = net(torch.from_numpy(x))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)).backward()
    assert sample.flops == counter.get_total_flops()


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(s, marks=[pytest.mark.slow] if s.flops > QUICK else [], id=f"no{s.number}")
        for s in SAMPLE
    ],
)
def test_losses_and_gradients_are_pytorchs(sample: Sample) -> None:
    assert parity.check(sample, "auto", threads=1) == []


WRONG = {
    "a gradient off by 1%": lambda losses, g: (losses, {**g, "0.weight": 1.01 * g["0.weight"]}),
    "a border that is missing": lambda losses, g: (losses, {**g, "input": _inside(g["input"])}),
    "a gradient that is NaN": lambda losses, g: (losses, {**g, "0.bias": np.nan * g["0.bias"]}),
    "a gradient of another shape": lambda losses, g: (losses, {**g, "0.bias": g["0.bias"][:-1]}),
    "an update that does nothing": lambda losses, g: ([losses[0]] * len(losses), g),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_result_is_noticed(wrong: str) -> None:
    right = parity.torch_result(SAMPLE[3], threads=1)
    assert parity.disagreements(right, right) == []
    assert len(parity.disagreements(WRONG[wrong](*right), right)) >= 1


def _inside(gradient: np.ndarray) -> np.ndarray:
    inside = np.zeros_like(gradient)
    inside[..., 1:-1, 1:-1] = gradient[..., 1:-1, 1:-1]
    return inside


def small_cnn(classes: int = 3) -> Sequential:
    layers = [
        *(Conv2d(1, 4, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(4, 6, 3, stride=2), ReLU()),
        *(Flatten(), Linear(24, 10), ReLU(), Dropout(), Linear(10, classes), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-3), seed=4)


def small_task(mode: str = "train") -> Task:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (86, 1, 10, 12), np.uint8)
    data = {"x": x, "y": rng.integers(0, 3, len(x))}
    return task_of(small_cnn(), data, mode, dropout=False, batch=8, threads=1, rows=len(x))


def trainer(name: str, task: Task) -> Trainer:
    """The contender, in this process; skips where its library is missing, or its compiler."""
    for package in PEERS[name].packages:
        pytest.importorskip(package)
    if name == "tinygrad" and shutil.which("clang") is None:
        pytest.skip("tinygrad needs clang")
    return module_of(PEERS[name].module).make(name, task)


TRAINERS = [name for name, peer in PEERS.items() if "train" in peer.modes]
SLOW = {"torch-compile", "tinygrad"}  # half a minute to compile


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in TRAINERS],
)
def test_all_trainers_train_the_same_network(name: str) -> None:
    task = small_task()
    ours, theirs = trainer("gemmc", task), trainer(name, task)
    x, y = task.data["x"], task.data["y"]
    for epoch in range(3):  # of 11 steps, the last one of 6 rows
        order = epoch_order(task.seed, epoch, len(x))
        # a few dozen steps in float32 from equal weights, as tests/test_parity.py measured them
        assert theirs.epoch(order) == pytest.approx(ours.epoch(order), rel=1e-4)
    assert theirs.evaluate(x, y) == pytest.approx(ours.evaluate(x, y), rel=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PEERS]
)
def test_all_contenders_predict_the_same(name: str) -> None:
    task = small_task("infer")
    x = task.data["x"][:8]
    said = trainer(name, task).predict(x)
    assert x.dtype == np.float32 and x.max() <= 1
    np.testing.assert_allclose(said, trainer("gemmc", task).predict(x), rtol=0, atol=1e-6)


def test_gemmcs_contender_trains_as_fit_does() -> None:
    task = small_task()
    ours, executable = trainer("gemmc", task), compiled(task)
    fitted = executable.fit(task.data["x"], task.data["y"], epochs=2).loss
    orders = [epoch_order(task.seed, epoch, task.rows) for epoch in range(2)]
    assert [ours.epoch(order) for order in orders] == pytest.approx(fitted, rel=1e-6)


def test_orders_are_those_of_training() -> None:
    np.testing.assert_array_equal(epoch_order(3, 7, 50), training.epoch_order(3, 7, 50))


def test_a_task_reads_back_as_it_was_written(tmp_path: Path) -> None:
    task = small_task()
    task.save(tmp_path / "task.npz")
    again = read(tmp_path / "task.npz")
    assert json.dumps(again.layers) == json.dumps(task.layers)
    assert (again.mode, again.batch, again.seed, again.pieces) == ("train", 8, 4, 11)
    for kept, was in ((again.weights, task.weights), (again.data, task.data)):
        assert kept.keys() == was.keys()
        for name, array in was.items():
            np.testing.assert_array_equal(kept[name], array)
