"""Faults: what is wrong with a model, an argument or an array is said, and nothing has moved.

A row of a table is a fault and the words its message must have: the layer or argument, what was
seen, what was expected, and, where it can be said, what would fix it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from trained_models import Trained, assert_refused

import gemmc
from gemmc import (
    SGD,
    Adam,
    CompileError,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    Softmax,
)

nan, inf = math.nan, math.inf


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


RIGHT: dict[Any, dict[str, Any]] = {  # arguments that each class accepts
    Conv2d: {"in_channels": 1, "out_channels": 2, "kernel_size": 3},
    MaxPool2d: {"kernel_size": 2},
    Linear: {"in_features": 3, "out_features": 2},
    Parameter: {"shape": (3,)},
    Sequential: {"layers": [ReLU()]},
}

ARGUMENTS: list[tuple[Any, dict[str, Any], str]] = [  # class, wrong arguments, words
    (Conv2d, {"in_channels": 0}, "got 0, expected an integer >= 1"),
    (Conv2d, {"in_channels": True}, "got True, expected an integer"),
    (Conv2d, {"out_channels": -3}, "got -3, expected an integer >= 1"),
    (Conv2d, {"out_channels": 3.0}, "got 3.0, expected an integer"),
    (Conv2d, {"kernel_size": 0}, "got 0, expected an integer >= 1 or a pair of them"),
    (Conv2d, {"kernel_size": (3, 0)}, "got (3, 0), expected an integer >= 1 or a pair"),
    (Conv2d, {"kernel_size": (3, 3, 3)}, "got (3, 3, 3), expected an integer >= 1 or a pair"),
    (Conv2d, {"kernel_size": None}, "got None, expected an integer >= 1 or a pair"),
    (Conv2d, {"stride": 0}, "got 0, expected an integer >= 1 or a pair"),
    (Conv2d, {"padding": -1}, "got -1, expected an integer >= 0 or a pair"),
    (Conv2d, {"padding": "full"}, "got 'full', expected a size, \"same\" or \"valid\""),
    (Conv2d, {"padding": "same", "stride": 2}, '"same" needs stride 1, got stride (2, 2)'),
    (MaxPool2d, {"kernel_size": 0}, "got 0, expected an integer >= 1 or a pair"),
    (MaxPool2d, {"kernel_size": 17}, "got (17, 17), expected at most 256 entries"),
    (MaxPool2d, {"stride": 0}, "got 0, expected an integer >= 1 or a pair"),
    (MaxPool2d, {"padding": 2}, "got (2, 2), expected at most half the kernel (2, 2)"),
    (Linear, {"in_features": 0}, "got 0, expected an integer >= 1"),
    (Linear, {"in_features": "3"}, "got '3', expected an integer"),
    (Linear, {"out_features": 2.5}, "got 2.5, expected an integer"),
    (Dropout, {"p": 1.5}, "got 1.5, expected a number from 0 to 1"),
    (Dropout, {"p": -0.1}, "got -0.1, expected a number from 0 to 1"),
    (Dropout, {"p": nan}, "got nan, expected a number from 0 to 1"),
    (Dropout, {"p": "half"}, "got 'half', expected a number from 0 to 1"),
    (Softmax, {"dim": 0}, "got 0, expected an integer >= 1"),
    (Adam, {"lr": nan}, "got nan, expected a number >= 0"),
    (Adam, {"lr": None}, "got None, expected a number >= 0"),
    (SGD, {"lr": -1}, "got -1, expected a number >= 0"),
    (SGD, {"lr": inf}, "got inf, expected a number >= 0"),
    (SGD, {"lr": 10**400}, "expected a number >= 0"),
    (Adam, {"betas": 0.9}, "got 0.9, expected a pair of numbers"),
    (Adam, {"betas": (0.9, 1.0)}, "got 1.0, expected a number from 0 to below 1"),
    (Adam, {"betas": (nan, 0.9)}, "got nan, expected a number from 0 to below 1"),
    (Adam, {"eps": -1.0}, "got -1.0, expected a number >= 0"),
    (Adam, {"weight_decay": nan}, "got nan, expected a number >= 0"),
    (SGD, {"momentum": -0.1}, "got -0.1, expected a number >= 0"),
    (SGD, {"weight_decay": inf}, "got inf, expected a number >= 0"),
    (Parameter, {"shape": (3, 0)}, "got (3, 0), expected a tuple of integers >= 1"),
    (Parameter, {"shape": 3}, "got 3, expected a tuple of integers >= 1"),
    (Parameter, {"init": 3}, "got 3, expected a function of (rng, shape)"),
    (Sequential, {"seed": -1}, "got -1, expected an integer >= 0"),
    (Sequential, {"seed": 1.5}, "got 1.5, expected an integer >= 0"),
    (Sequential, {"seed": 2**63}, "expected an integer below 2**63"),
    (Sequential, {"layers": []}, "got [], expected a list of at least one layer"),
    (Sequential, {"layers": ReLU()}, "got ReLU(), expected a list of at least one layer"),
    (Sequential, {"layers": [ReLU(), ReLU]}, "entry 1: got <class", ),
    (Sequential, {"layers": [ReLU(), ReLU]}, "expected a Module: use ReLU()"),
    (Sequential, {"layers": [abs]}, "entry 0: got <built-in function abs>, expected a Module"),
    (Sequential, {"layers": [Sequential([ReLU()])]}, "entry 0: got a Sequential, expected a"),
    (Sequential, {"layers": [Linear(3, 3)] * 2}, "0.weight and 1.weight are one Parameter"),
    (Sequential, {"loss_func": MSELoss}, "expected a Loss: use MSELoss()"),
    (Sequential, {"loss_func": "mse"}, "got 'mse', expected a Loss"),
    (Sequential, {"optimizer": Adam}, "expected an Optimizer: use Adam()"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "wrong", "words"), ARGUMENTS)
def test_a_bad_constructor_argument_is_refused_by_name(
    trained: Trained, made: Any, wrong: dict[str, Any], words: str
) -> None:
    argument = next(iter(wrong))
    owner = () if argument in ("layers", "loss_func", "optimizer") else (f"{made.__name__}: ",)
    arguments = {**RIGHT.get(made, {}), **wrong}
    assert_refused(
        trained, CompileError, lambda: made(**arguments), (*owner, f"{argument}: ", words)
    )


Layers = list[Module]
MODELS: list[tuple[Layers, tuple[int, ...], str]] = [  # layers, shape of a sample, message
    (
        [Conv2d(1, 16, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(1024, 10), Softmax()],
        (1, 16, 30),
        "4.Linear: got 1568 features from 3.Flatten, expected 1024: use Linear(1568, 10)",
    ),
    (
        [Flatten(), Linear(64, 32), ReLU(), Linear(16, 10)],
        (1, 8, 8),
        "3.Linear: got 32 features from 2.ReLU, expected 16: use Linear(32, 10)",
    ),
    (
        [Linear(4, 3)],
        (5,),
        "0.Linear: got 5 features from the input, expected 4: use Linear(5, 3)",
    ),
    (
        [Conv2d(1, 2, 3), Linear(72, 10)],
        (1, 8, 8),
        "1.Linear: got [N, 2, 6, 6] from 0.Conv2d, expected features [N, 72]: put Flatten()",
    ),
    (
        [Conv2d(3, 4, 3), Flatten(), Linear(144, 10)],
        (1, 8, 8),
        "0.Conv2d: got 1 channels from the input, expected 3: use Conv2d(1, 4, (3, 3))",
    ),
    (
        [Conv2d(1, 4, 3), ReLU(), Conv2d(3, 4, (2, 3))],
        (1, 8, 8),
        "2.Conv2d: got 4 channels from 1.ReLU, expected 3: use Conv2d(4, 4, (2, 3))",
    ),
    (
        [Flatten(), Conv2d(64, 2, 3)],
        (1, 8, 8),
        "1.Conv2d: got [N, 64] from 0.Flatten, expected images [N, C, H, W]",
    ),
    (
        [Conv2d(1, 4, 3), Conv2d(4, 4, (2, 9), padding=(0, 1))],
        (1, 8, 8),
        "1.Conv2d: got 6 x 6 images from 0.Conv2d, smaller than the kernel (2, 9) with padding "
        "(0, 1): use a kernel_size of at most (6, 8)",
    ),
    (
        [Conv2d(1, 4, 3), MaxPool2d(7), Flatten()],
        (1, 8, 8),
        "1.MaxPool2d: got 6 x 6 images from 0.Conv2d, smaller than the kernel (7, 7) with padding "
        "(0, 0): use a kernel_size of at most (6, 6)",
    ),
    (
        [Flatten(), MaxPool2d(2)],
        (1, 8, 8),
        "1.MaxPool2d: got [N, 64] from 0.Flatten, expected images [N, C, H, W]",
    ),
    (
        [Flatten(), Linear(64, 10), Softmax(dim=3)],
        (1, 8, 8),
        "2.Softmax: got [N, 10] from 1.Linear, expected a dimension 3",
    ),
    (
        [Conv2d(1, 2, 3)],
        (1, 8, 8),
        "CrossEntropyLoss: got an output [N, 2, 6, 6] from 0.Conv2d, expected [N, classes]: put "
        "Flatten()",
    ),
]


@pytest.mark.parametrize(("layers", "shape", "message"), MODELS)
def test_a_layer_that_does_not_fit_is_refused_with_what_would(
    trained: Trained, layers: Layers, shape: tuple[int, ...], message: str
) -> None:
    model = Sequential(layers, CrossEntropyLoss(), Adam())
    x, y = np.zeros((2, *shape), np.float32), np.zeros(2, int)
    before = model.state_dict()
    assert_refused(trained, CompileError, lambda: gemmc.compile(model, shape), (message,))
    assert_refused(trained, CompileError, lambda: gemmc.train_val(model, x, y, x, y), (message,))
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())
