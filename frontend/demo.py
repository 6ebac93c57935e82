"""`gemmc demo`: two experiments in small, and what the compiler made of them."""

from __future__ import annotations

import time

import numpy as np

from . import datasets
from .executable import Executable, compile
from .experiments import fashion_model, spiral_model
from .sequential import Sequential

STEP_ROWS = 3200  # images of an epoch that is timed
VALIDATION_IMAGES = 600  # of the 6,000 shipped for training


def demo() -> None:
    """Trains both models on data that ships with the package, and prints how."""
    print("gemmc demo: two networks, compiled and trained on this machine\n")
    _spiral()
    print()
    _fashion()


def _spiral() -> None:
    X, y = datasets.spiral(points=1000, classes=8)
    X_train, X_val, X_test, y_train, y_val, y_test = datasets.train_val_test_split(X, y)
    executable = _compiled("spiral: 8 classes of 1,000 points in the plane", spiral_model(), (2,))
    history = executable.fit(X_train, y_train, X_val, y_val, epochs=100, verbose=25)
    _result(executable, history.seconds, *executable.evaluate(X_test, y_test))


def _fashion() -> None:
    X, y, X_test, y_test = datasets.fashion_mnist(subset=True)
    title = "Fashion-MNIST: 6,000 of its images of clothes"
    executable = _compiled(title, fashion_model(), (1, 28, 28))
    print("\nthe graph after `simplify`, ReLU moved behind the pool, softmax and loss made one:\n")
    print(executable.ir("simplify"))
    print(f"\n{executable.plan.report()}\n")
    kept = VALIDATION_IMAGES
    history = executable.fit(X[kept:], y[kept:], X[:kept], y[:kept], epochs=8, verbose=1)
    _result(executable, history.seconds, *executable.evaluate(X_test, y_test))
    _beside_blas(X, y)
    print("\nwhere a training step's time goes, forward and backward ('), in us:\n")
    print(executable.profile(X[:32], y[:32]).by_layer())


def _beside_blas(X: np.ndarray, y: np.ndarray) -> None:
    """Prints how long a training step takes on the native runtime, and on NumPy and BLAS alone."""
    ms = {}
    for runtime in ("native", "blas"):
        executable = compile(fashion_model(), (1, 28, 28), 32, runtime)
        executable.fit(X[:STEP_ROWS], y[:STEP_ROWS], epochs=1)  # warms up
        seconds = executable.fit(X[:STEP_ROWS], y[:STEP_ROWS], epochs=1).seconds
        ms[runtime] = 1e3 * seconds / (STEP_ROWS // 32)
    print(
        f"\na training step of 32 images: {ms['native']:.2f} ms native, {ms['blas']:.2f} ms on the "
        f"blas runtime, {ms['blas'] / ms['native']:.0f} times as long"
    )


def _compiled(title: str, model: Sequential, shape: tuple[int, ...]) -> Executable:
    print(f"== {title}\n")
    begin = time.perf_counter()
    executable = compile(model, shape, batch_size=32)
    seconds = time.perf_counter() - begin
    print(model.summary(shape))
    stages = " > ".join(executable.stages)
    print(f"\ncompiled in {seconds:.2f} s: {stages}")
    plan = executable.plan
    sizes = f"arena {plan.arena_bytes:,} bytes, lower bound {plan.bound_bytes:,}"
    print(f"one training step of 32 rows: {len(list(plan.steps()))} steps, {sizes}")
    return executable


def _result(executable: Executable, seconds: float, loss: float, accuracy: float) -> None:
    steps = executable.model.state.step
    print(f"test loss {loss:.3f}, test accuracy {accuracy:.1%}")
    print(f"{steps:,} training steps and their validation in {seconds:.1f} s")
