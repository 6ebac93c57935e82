"""The harness: its statistics, its processes, its sample, and that it notices a wrong result."""

from __future__ import annotations

import math
import os
from functools import partial

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
from gemmc.bench import contenders, parity
from gemmc.bench.contenders import Task, layers_of
from gemmc.bench.rounds import compare, median_interval, once
from gemmc.bench.sample import Sample, sample_models
from gemmc.bench.torch_training import network
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


def test_a_contender_works_in_a_process_of_its_own() -> None:
    assert once("alone", os.getpid) != os.getpid()


def test_a_contender_that_dies_is_named() -> None:
    with pytest.raises(SystemExit, match="unlucky: its process ended, exit code 3"):
        once("unlucky", partial(os._exit, 3))


def test_contenders_are_timed_in_every_round_and_give_what_they_returned_first() -> None:
    makes = {name: partial(partial, max, 1, value) for name, value in {"a": 2, "b": 3}.items()}
    measured = compare(makes, rounds=2, seconds=1e-3)
    assert measured.first == {"a": 2, "b": 3}
    assert all(len(s) == 2 and s.min() > 0 for s in measured.seconds.values())


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
    model, (x, y) = sample.model(), map(torch.from_numpy, sample.data())
    net = network(layers_of(model), model.state_dict())
    with FlopCounterMode(display=False) as counter:
        logits = net(x[: sample.batch])
        torch.nn.functional.cross_entropy(logits, y[: sample.batch]).backward()
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


def small_cnn() -> Sequential:
    layers = [
        *(Conv2d(1, 4, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(4, 6, 3, stride=2), ReLU()),
        *(Flatten(), Linear(24, 10), ReLU(), Dropout(0.0), Linear(10, 3), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-3), seed=4)


def small_images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((86, 1, 10, 12), np.float32), rng.integers(0, 3, 86)


SMALL = Task(small_cnn, small_images, batch=8, threads=1, runtime="auto")


@pytest.mark.parametrize("name", ["gemmc train_step", "torch-eager", "torch-tuned", "jax"])
def test_all_trainers_train_the_same_network(name: str) -> None:
    if name == "jax":
        pytest.importorskip("jax")
    ours, theirs = (contenders.trainers(SMALL, (n,))[n]() for n in ("gemmc", name))
    # a few dozen steps in float32 from equal weights, as tests/test_parity.py measured them
    assert [theirs() for _ in range(3)] == pytest.approx([ours() for _ in range(3)], rel=1e-4)


def test_the_onnx_model_computes_what_the_model_does() -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from gemmc.bench.onnx_model import onnx_model

    model, x = small_cnn(), small_images()[0]
    session = onnxruntime.InferenceSession(onnx_model(model, x.shape[1:]))
    made = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(made, model(x), rtol=0, atol=1e-6)
