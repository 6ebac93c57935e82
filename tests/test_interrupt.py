"""Ctrl-C: training ends at a step boundary, with what is done so far, and the model goes on."""

import signal
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import gemmc
from gemmc.frontend.experiments import spiral_model
from gemmc.runtime.blas import BlasProgram
from gemmc.runtime.native.runtime import NativeProgram

X, Y = gemmc.datasets.spiral(points=40, classes=8)
STEPS = 10  # an epoch, in batches of 32
each_runtime = pytest.mark.parametrize("runtime", ["native", "blas"])


@dataclass
class Pressed:
    """The steps that were made until the call in which Ctrl-C was pressed had ended."""

    steps: int = 0


def _press_at(monkeypatch, at: int) -> Pressed:
    """Sends SIGINT to this process in the middle of the call that makes step number `at`.

    On the blas runtime that is a call of its own; the native one makes several steps in a call.
    """
    pressed, step, epoch = Pressed(), BlasProgram.run, NativeProgram.epoch

    def count(steps: int) -> None:
        if pressed.steps < at <= pressed.steps + steps:
            signal.raise_signal(signal.SIGINT)
        pressed.steps += steps

    def one_step(self, rows):
        count(1)
        return step(self, rows)

    def several(self, x, y, order, *scalars):
        count(-(-len(order) // self.plan.rows))
        return epoch(self, x, y, order, *scalars)

    monkeypatch.setattr(BlasProgram, "run", one_step)
    monkeypatch.setattr(NativeProgram, "epoch", several)
    return pressed


@each_runtime
def test_ctrl_c_ends_fit_at_a_step_boundary_with_the_epochs_so_far(runtime, monkeypatch):
    model = spiral_model()
    executable = gemmc.compile(model, (2,), 32, runtime=runtime)
    pressed = _press_at(monkeypatch, 25)
    history = executable.fit(X, Y, epochs=10)
    assert history.interrupted
    assert len(history.loss) == len(history.accuracy) == 2
    assert model.state.step == pressed.steps, "what was under way is finished, and no more begun"
    assert 25 <= pressed.steps < 25 + (1 if runtime == "blas" else STEPS)


@each_runtime
def test_the_model_goes_on_from_where_ctrl_c_stopped_it(runtime, monkeypatch):
    model, twin = spiral_model(), spiral_model()
    executable, straight = (gemmc.compile(m, (2,), 32, runtime=runtime) for m in (model, twin))
    with monkeypatch.context() as patched:
        steps = _press_at(patched, 5)
        executable.fit(X, Y, epochs=3)
    order = gemmc.epoch_order(twin.seed, 0, len(X))
    for start in range(0, steps.steps * 32, 32):
        rows = order[start : start + 32]
        straight.train_step(X[rows], Y[rows])
    assert 5 <= model.state.step == twin.state.step
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


@each_runtime
def test_a_step_that_does_not_come_to_its_end_is_not_counted(runtime, monkeypatch):
    model = spiral_model()
    executable = gemmc.compile(model, (2,), 32, runtime=runtime)
    executable.train_step(X[:32], Y[:32])
    runner = executable.compiled().runner
    with monkeypatch.context() as patched:
        patched.setattr(runner, "run", lambda rows: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            executable.train_step(X[:32], Y[:32])
    assert model.state.step == 1
    executable.train_step(X[:32], Y[:32])
    assert model.state.step == 2


def test_after_fit_ctrl_c_is_pythons_again():
    gemmc.compile(spiral_model(), (2,)).fit(X, Y, epochs=1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_fit_in_another_thread_leaves_signals_alone():
    seen = []

    def train():
        gemmc.compile(spiral_model(), (2,)).fit(X, Y, epochs=1)
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_handler_of_the_users_own_stays_in_place():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *args: calls.append(args))
    try:
        gemmc.compile(spiral_model(), (2,)).fit(X, Y, epochs=1)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 1
