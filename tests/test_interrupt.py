"""Ctrl-C: training ends at a step boundary, with what is done so far, and the model goes on."""

import signal
import threading

import numpy as np
import pytest

import gemmc
from gemmc.frontend.experiments import spiral_model
from gemmc.runtime.blas import BlasProgram

X, Y = gemmc.datasets.spiral(points=40, classes=8)


def _press_at(monkeypatch, run):
    """Sends SIGINT to this process in the middle of training step number `run`."""
    counted = {"runs": 0}
    original = BlasProgram.run

    def pressing(self, rows):
        counted["runs"] += 1
        if counted["runs"] == run:
            signal.raise_signal(signal.SIGINT)
        return original(self, rows)

    monkeypatch.setattr(BlasProgram, "run", pressing)


def test_ctrl_c_ends_fit_at_a_step_boundary_with_the_epochs_so_far(monkeypatch):
    model = spiral_model()
    executable = gemmc.compile(model, (2,), batch_size=32)  # 10 steps an epoch
    _press_at(monkeypatch, 25)
    history = executable.fit(X, Y, epochs=10)
    assert history.interrupted
    assert len(history.loss) == len(history.accuracy) == 2
    assert model.state.step == 25, "the step that was under way is finished, and no other begun"


def test_the_model_goes_on_from_where_ctrl_c_stopped_it(monkeypatch):
    model = spiral_model()
    executable = gemmc.compile(model, (2,), batch_size=32)
    with monkeypatch.context() as patched:
        _press_at(patched, 5)
        executable.fit(X, Y, epochs=3)
    twin = spiral_model()
    straight = gemmc.compile(twin, (2,), batch_size=32)
    order = gemmc.epoch_order(twin.seed, 0, len(X))
    for start in range(0, 5 * 32, 32):
        rows = order[start : start + 32]
        straight.train_step(X[rows], Y[rows])
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


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
