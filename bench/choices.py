"""The measurements behind the blas runtime's choices: ways of doing one thing, side by side.

    python -m gemmc.bench choices

Each row is one piece of work at the sizes of the example CNN's step, batch 32; each column a way of
doing it with NumPy and BLAS. The ways take turns; the figure is the median time of a call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg.blas import sgemm, sgemv

from .machine import machine

Ways = dict[str, Callable[[], object]]
ROUNDS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This benchmark has no options."""


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    print(machine(), flush=True)
    for make in (bias_gradient, selection, bias, patches, input_gradient, chunks):
        print(f"\n{(make.__doc__ or '').splitlines()[0]}")
        for name, us in _times(make()).items():
            print(f"  {name:<44} {us:>8.0f} us")


def bias_gradient() -> Ways:
    """Bias gradient of the first convolution: 25,088 rows of 16 channels, summed."""
    y, out = _random(25088, 16), np.empty(16, np.float32)
    ones = np.ones(len(y), np.float32)
    return {
        "sgemv with a vector of ones": lambda: sgemv(1.0, y.T, ones, 0.0, out, 0, 1, 0, 1, 0, 1),
        "np.add.reduce": lambda: np.add.reduce(y, axis=0, out=out),
    }


def selection() -> Ways:
    """One entry of the first pool's backward: g where it won, 0 elsewhere, 100,352 elements."""
    shape = (32, 14, 14, 16)
    g, out = _random(*shape), np.empty(shape, np.float32)
    won = np.random.default_rng(0).random(shape) < 0.25

    def masked() -> None:
        out.fill(0.0)
        np.copyto(out, g, where=won)

    return {
        "bits times 0 or 1": lambda: np.multiply(g.view("u4"), won, out=out.view("u4")),
        "fill and masked copy": masked,
    }


def bias() -> Ways:
    """Bias of the first convolution, added to 7 images of 28 x 28 x 16."""
    y, one = _random(7, 28, 28, 16), _random(16)
    line = np.tile(one, 28).reshape(28, 16)
    return {
        "repeated along a line": lambda: np.add(y, line, y),
        "broadcast": lambda: np.add(y, one, y),
    }


def patches() -> Ways:
    """Patches of 3 x 3: 7 images of one channel."""
    x, p = _random(7, 30, 30, 1), np.empty((7, 28, 28, 3, 3), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), axis=(1, 2))

    def columns() -> None:
        for i in range(3):
            for j in range(3):
                np.copyto(p[:, :, :, i, j], x[:, i : i + 28, j : j + 28, 0])

    return {
        "a strided copy a column": columns,
        "one strided copy, runs of 3": lambda: np.copyto(p, windows),
    }


def input_gradient() -> Ways:
    """Input gradient of the second convolution: 8 images, 32 channels back to 16."""
    dy, w, turned = _random(8, 16, 16, 32), _random(144, 32), _random(288, 16)
    gathered, dx = np.empty((8, 14, 14, 3, 96), np.float32), np.empty((1568, 16), np.float32)
    a, b, c, d = dy.strides
    seen = np.lib.stride_tricks.as_strided(dy, gathered.shape, (a, b, c, b, d))
    inner = np.ascontiguousarray(dy[:, 1:15, 1:15]).reshape(-1, 32)
    scattered, plane = np.empty((1568, 144), np.float32), np.empty((8, 16, 16, 16), np.float32)

    def gather() -> None:
        np.copyto(gathered, seen)
        sgemm(1.0, turned.T, gathered.reshape(-1, 288).T, 0.0, dx.T, 0, 0, 1)

    def scatter() -> None:
        sgemm(1.0, w.T, inner.T, 0.0, scattered.T, 1, 0, 1)
        plane.fill(0.0)
        parts = scattered.reshape(8, 14, 14, 3, 3, 16)
        for i in range(3):
            for j in range(3):
                view = plane[:, i : i + 14, j : j + 14]
                np.add(view, parts[:, :, :, i, j], view)

    return {"im2col of dy, one product": gather, "one product, col2im": scatter}


def chunks() -> Ways:
    """Adam's sweep over 200,704 parameters, by chunk of so many elements."""
    state = [np.abs(_random(200704)) for _ in range(4)]
    return {f"{size:,}": _adam(state, size) for size in (2048, 8192, 16384, 65536, 200704)}


def _adam(state: list[np.ndarray], size: int) -> Callable[[], None]:
    t, small = np.empty(size, np.float32), np.float32(1e-3)
    cut = [[a[i : i + size] for a in state] for i in range(0, len(state[0]) - size + 1, size)]

    def sweep() -> None:
        for g, p, m, v in cut:
            np.subtract(g, m, t)
            np.multiply(t, small, t)
            np.add(m, t, m)
            np.multiply(v, small, v)
            np.multiply(g, g, t)
            np.multiply(t, small, t)
            np.add(v, t, v)
            np.sqrt(v, t)
            np.multiply(t, small, t)
            np.add(t, small, t)
            np.divide(m, t, t)
            np.multiply(t, small, t)
            np.subtract(p, t, p)

    return sweep


def _times(ways: Ways) -> dict[str, float]:
    """The median microseconds of a call of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 5):  # the first five warm up
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if turn >= 5:
                times[name].append(1e6 * (time.perf_counter() - begin))
    return {name: float(np.median(us)) for name, us in times.items()}


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
