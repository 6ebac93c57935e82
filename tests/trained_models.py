"""Models trained a little, data that fits them, and the check that a fault moves nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gemmc
from gemmc import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    GemmcError,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    Softmax,
)


class Trained:
    """A classifier, a regression and an image model, trained a little, and data that fits them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(10, 4)).astype(np.float32)
        self.y = np.arange(10) % 3
        self.floats = rng.normal(size=(10, 1)).astype(np.float32)
        self.images = rng.integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
        layers = [Linear(4, 8), ReLU(), Dropout(0.1), Linear(8, 3), Softmax()]
        self.model = Sequential(layers, CrossEntropyLoss(), Adam())
        self.regression = Sequential([Linear(4, 1)], MSELoss(), SGD(momentum=0.9))
        cnn = [Conv2d(1, 2, 3), Flatten(), Linear(72, 3)]
        self.cnn = Sequential(cnn, CrossEntropyLoss(), SGD())
        self.lossless = Sequential([Linear(4, 3)])
        self.untrainable = Sequential([Linear(4, 3)], CrossEntropyLoss())
        self.exe = gemmc.compile(self.model, (4,), 16)
        self.regressing = gemmc.compile(self.regression, (4,), 16)
        self.seeing = gemmc.compile(self.cnn, (1, 8, 8), 16)
        self.reference = gemmc.compile(self.model, (4,), 16, runtime="reference")
        for _ in range(2):
            self.exe.train_step(self.x, self.y)
            self.regressing.train_step(self.x, self.floats)
            self.seeing.train_step(self.images, self.y[:5])

    def labels(self, wrong: int) -> np.ndarray:
        """The labels, of which the one at row 7 is `wrong`."""
        y = self.y.copy()
        y[7] = wrong
        return y

    def state(self) -> list[bytes]:
        """All that a fault must leave as it was."""
        models = (self.model, self.regression, self.cnn, self.lossless, self.untrainable)
        arrays = [a for m in models for a in (m.state.counters, *m.state.stored.values())]
        arrays += [self.x, self.y, self.floats, self.images]
        return [repr(m).encode() for m in models] + [a.tobytes() for a in arrays]


def assert_refused(
    trained: Trained, error: type[GemmcError], run: Callable[[], object], words: tuple[str, ...]
) -> None:
    """Asserts the kind of error, its words, and that nothing moved."""
    before = trained.state()
    with pytest.raises(GemmcError) as raised:
        run()
    message = str(raised.value)
    assert isinstance(raised.value, error) and isinstance(raised.value, ValueError), message
    assert [w for w in words if w not in message] == [], message
    assert trained.state() == before
