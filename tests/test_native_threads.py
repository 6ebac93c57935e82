"""Threads of the native runtime: they change no bit of any result, and get in nobody's way."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from native_running import data
from programs import MODELS, Model, cnn, spiral
from random_models import random_case
from running import POISONS, poison_bytes
from twins import twin

import gemmc
from gemmc import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Executable,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
)
from gemmc.runtime.native.target import suited_workers

ROOT = Path(gemmc.__file__).parent
Made = Callable[[], Model]


def native(given: Model, batch_size: int = 8, threads: int | None = 1) -> Executable:
    model, shape = given
    return gemmc.compile(model, shape, batch_size, runtime="native", threads=threads)


def stored(exe: Executable) -> dict[str, bytes]:
    """Parameters and optimiser state, bit by bit."""
    return {name: a.tobytes() for name, a in exe.model.state.stored.items()}


def told(value: object) -> object:
    """Numbers and arrays as bytes, so that equal means every bit."""
    if isinstance(value, (tuple, list)):
        return [told(v) for v in value]
    if isinstance(value, dict):
        return {k: told(v) for k, v in value.items()}
    return np.asarray(value).tobytes()


def everything(exe: Executable, before: Callable[[str], None] = lambda program: None) -> list:
    """What the ways to use a model give, over several steps with ragged batches.

    The model is afterwards what it was; before(program) is called before each run.
    """
    size, seen = exe.batch_size, []
    x, y = data(exe, 2 * size + size // 2 + 1, seed=1)
    with exe.model.state.kept():
        for rows in (size, max(1, size - 1), 1):
            before("grads")
            seen.append(told(exe.loss_and_grads(x[:rows], y[:rows], train=True)))
            before("step")
            seen.append(told(exe.train_step(x[:rows], y[:rows])))
        before("step")
        history = exe.fit(x, y, epochs=2)
        seen.append(told([history.loss, history.accuracy]))
        before("evaluate")
        seen.append(told(exe.evaluate(x, y)))
        return [*seen, stored(exe)]


RANDOM = [*range(300, 310)]
SAMPLE: dict[str, Made] = {"the example CNN": lambda: cnn(28), "spiral": spiral}


def random_model(seed: int) -> Model:
    case = random_case(seed, [Adam(1e-2), SGD(0.1, momentum=0.9)][seed % 2])
    layers = case.model.layers
    if seed % 3 == 0:
        layers = [Dropout(0.3), *layers]
    return Sequential(layers, case.model.loss_func, case.model.optimizer, seed=seed), (
        case.input_shape
    )


@pytest.mark.parametrize("name", SAMPLE)
def test_any_number_of_threads_gives_the_same_bits_as_one(name: str) -> None:
    expected = everything(native(SAMPLE[name]()))
    for threads in (2, 3, 4):
        exe = native(SAMPLE[name](), threads=threads)
        for run in range(3):
            assert everything(exe) == expected, f"{threads} threads, run {run}"


def wide() -> Model:
    """Linear layers whose columns several workers share, however few rows there are."""
    layers = [Linear(900, 176), ReLU(), Linear(176, 1000), ReLU(), Linear(1000, 10)]
    return Sequential(layers, CrossEntropyLoss(), SGD(0.1)), (900,)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 29])
@pytest.mark.parametrize("name", ["the example CNN", "wide"])
def test_a_batch_of_few_rows_has_the_same_bits_on_any_number_of_threads(
    name: str, rows: int
) -> None:
    seen = []
    for threads in (1, 2, 3, 4):
        exe = native((SAMPLE | {"wide": wide})[name](), rows, threads)
        x, y = data(exe, rows, seed=3)
        seen.append(told([exe(x), exe.loss_and_grads(x, y)]))
    assert seen == seen[:1] * 4


@pytest.mark.parametrize("name", ["cnn", "batch norm", "same padding"])
def test_a_thousand_steps_are_the_same_to_the_last_bit(name: str) -> None:
    """A worker that did not wait for another would be seen in one of them."""
    states = []
    for threads in (1, 2, 3):
        exe = native(MODELS[name](), 6, threads)
        x, y = data(exe, 6 * 50 - 1, seed=11)
        history = exe.fit(x, y, epochs=20)
        assert np.isfinite(history.loss).all()
        states.append((history.loss, stored(exe)))
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("seed", RANDOM)
def test_any_number_of_threads_gives_the_same_bits_for_random_models(seed: int) -> None:
    size = 1 + seed % 13
    expected = everything(native(random_model(seed), size))
    threads = 2 + seed % 3
    exe = native(random_model(seed), size, threads)
    for _ in range(2):
        assert everything(exe) == expected, f"seed {seed}, {threads} threads"


def test_many_more_threads_than_cores_only_take_longer() -> None:
    threads = 3 * (os.cpu_count() or 1) + 2
    expected = everything(native(MODELS["conv alone"]()))
    assert everything(native(MODELS["conv alone"](), threads=threads)) == expected


@pytest.mark.parametrize(("name", "threads"), [("cnn", 1), *((name, 3) for name in MODELS)])
def test_what_is_in_the_arena_before_a_run_changes_nothing(name: str, threads: int) -> None:
    """The private arenas of the workers are part of it."""
    exe = native(MODELS[name](), 6, threads)

    def poisoned(program: str, poison: str) -> None:
        runner, plan = exe._program(program, program != "evaluate").runner, exe.plan
        if program == "step":
            assert runner.arena.nbytes >= plan.arena_bytes + threads * plan.private_bytes
        poison_bytes(runner.arena, poison)

    one, other = (everything(exe, partial(poisoned, poison=poison)) for poison in POISONS)
    assert one == other == everything(exe)


def test_a_program_of_small_steps_has_one_worker_and_a_large_one_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gemmc.runtime.native.target.cores", lambda: 4)
    small, large = native(spiral(), 32), native(cnn(28), 256)
    plans = [small.compiled(p).plan for p in ("step", "predict")]
    assert [suited_workers(plan) for plan in plans] == [1, 1]
    assert suited_workers(large.compiled("step").plan) == 4


def test_one_large_step_is_enough_for_all_cores_if_many_batches_share_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The small steps beside it count for nothing; to call workers for it alone costs more."""
    monkeypatch.setattr("gemmc.runtime.native.target.cores", lambda: 4)
    exe = native((Sequential([Linear(112, 112)], CrossEntropyLoss(), SGD()), (112,)))
    plans = [exe.compiled(program).plan for program in ("evaluate", "predict")]
    assert [suited_workers(plan) for plan in plans] == [4, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_python_threads_that_share_an_executable_take_turns(threads: int) -> None:
    exe = native(cnn(12), 8, threads)
    batches = [data(exe, 8, seed)[0] for seed in range(4)]
    wanted = [exe(x) for x in batches]
    wrong = [0] * len(batches)

    def call(i: int) -> None:
        for _ in range(100):
            wrong[i] += not np.array_equal(exe(batches[i]), wanted[i])

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(batches))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers) and wrong == [0, 0, 0, 0]


def test_two_models_train_at_the_same_time_in_two_python_threads() -> None:
    """Compiled there as well; each is what it is alone."""
    makes = [lambda: cnn(12), MODELS["same padding"]]
    expected = [everything(native(make(), threads=2)) for make in makes]
    seen: dict[int, list] = {}

    def train(number: int) -> None:
        seen[number] = everything(native(makes[number](), threads=2))

    threads = [threading.Thread(target=train, args=(i,)) for i in range(len(makes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "hangs"
    assert [seen[i] for i in range(len(makes))] == expected


def test_two_executables_of_one_model_take_turns_on_its_parameters() -> None:
    """One of 8 rows and one of 5, on other numbers of threads, and one alone for both."""
    given, twins = cnn(12), cnn(12)
    one, other = native(given, 8, 1), native(given, 5, 3)
    alone = native(twins, 8, 2)
    x, y = data(one, 8, seed=2)
    for step in range(6):
        rows = (8, 5, 3)[step % 3]
        exe = one if rows == 8 else other
        # sums of fewer rows are the same sums, so both agree in what rounding leaves
        assert exe.train_step(x[:rows], y[:rows]) == pytest.approx(
            alone.train_step(x[:rows], y[:rows]), rel=1e-5
        )
    assert given[0].state.step == twins[0].state.step == 6
    for name, array in given[0].state_dict().items():
        np.testing.assert_allclose(array, twins[0].state_dict()[name], rtol=1e-3, atol=1e-4)


def test_an_executable_may_be_let_go_at_any_time() -> None:
    """Its code and arena are freed while its threads may still be on their way out.

    Those belong to the Python thread that trained, and end with it.
    """
    before = threading.active_count()

    def train() -> None:
        for i in range(20):
            exe = native(MODELS["wide"](), 4, threads=3)
            x, y = data(exe, 4, seed=i)
            exe.train_step(x, y)
            del exe
        gc.collect()

    training = threading.Thread(target=train)
    training.start()
    training.join(60)
    for _ in range(500):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before, "threads outlive what they worked for"


TRADE = """
import numpy as np
import gemmc
from gemmc import *

class Trading(Optimizer):
    # Its states trade places, and one is the parameter as it was: none can be written in place.
    state_names = ("one", "two", "before")
    def update(self, p, g, state, step):
        one, two = state["one"], state["two"]
        return p - g * self.lr, {"one": two, "two": one + 1.0, "before": p}

states = []
for runtime in ("native", "reference"):
    model = Sequential([Linear(1500, 2000)], MSELoss(), Trading(0.5), seed=1)
    exe = gemmc.compile(model, (1500,), 2, runtime=runtime, threads=2)
    x = np.random.default_rng(0).normal(size=(2, 1500)).astype(np.float32)
    losses = [exe.train_step(x, np.zeros((2, 2000), np.float32)) for _ in range(3)]
    np.testing.assert_allclose(losses, sorted(losses, reverse=True))
    states.append([model.state.get(name) for name in model.state.shapes])
for one, other in zip(*states):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
print("same")
"""


def test_arrays_larger_than_a_stack_may_trade_places() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRADE],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_an_epoch_in_native_code_is_its_steps_one_by_one(threads: int) -> None:
    """Bytes are divided by 255, and what native code does not read itself is converted before."""
    given = cnn(12)
    exe, model = native(given, 8, threads), given[0]
    rng = np.random.default_rng(10)
    images = rng.integers(0, 256, (29, *exe.input_shape)).astype(np.uint8)
    floats, labels = images.astype(np.float32) / 255, rng.integers(0, 10, 29)
    seen = []
    for x in (images, floats, floats.astype(np.float64), np.asfortranarray(floats)):
        for y in (labels, labels.astype(np.int8)):
            with model.state.kept():
                history = exe.fit(x, y, epochs=2)
                seen.append((history.loss, history.accuracy, stored(exe)))
    assert all(other == seen[0] for other in seen[1:])
    with model.state.kept():
        for epoch in range(2):
            order = gemmc.epoch_order(model.seed, epoch, 29)
            rows = [order[at : at + 8] for at in range(0, 29, 8)]
            losses = [exe.train_step(images[r], labels[r]) * len(r) for r in rows]
            assert sum(losses) / 29 == pytest.approx(seen[0][0][epoch], rel=1e-12)
        assert stored(exe) == seen[0][2]


def test_numbers_below_the_normal_ones_are_0_inside_and_nowhere_else() -> None:
    """In one batch, in many rows at once, and in an epoch."""
    model = Sequential([Linear(1, 1, bias=False)], MSELoss(), SGD(0.0), seed=1)
    model.load_state_dict({"0.weight": np.full((1, 1), 1e-30, np.float32)})
    exe = native((model, (1,)))
    x = np.full((10_000, 1), 1e-10, np.float32)
    for rows in (x[:8], x):
        assert not exe(rows).any()
        assert (rows * np.float32(1e-30)).all()
    exe.fit(x[:8], x[:8], epochs=1)
    assert (x * np.float32(1e-30)).all()


def interrupted_by(seconds: float, run: Callable[[], object]) -> object:
    """What run() gives if Ctrl-C is pressed after so long."""
    pressing = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    pressing.start()
    try:
        return run()
    finally:
        pressing.join()


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_in_a_long_fit_leaves_the_model_at_a_step_boundary(threads: int) -> None:
    given, size = cnn(12), 8
    exe = native(given, size, threads)
    x, y = data(exe, 500 * size - 3, seed=3)
    history = interrupted_by(0.25, lambda: exe.fit(x, y, epochs=10**9))
    assert isinstance(history, gemmc.History) and history.interrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model, again = given[0], native(cnn(12), size, 1)
    steps = model.state.step
    assert steps > 0 and len(history.loss) == model.state.epoch == steps // 500
    wanted, targets = again.checked("x", x, "y", y)
    for order in chunks(model.seed, len(x), steps, size):
        again.step(wanted, targets, order)
    assert stored(exe) == stored(again), f"after {steps} steps"
    exe.train_step(x[:size], y[:size])  # and goes on


def chunks(seed: int, rows: int, steps: int, size: int) -> Iterator[np.ndarray]:
    """The rows of each of the first steps that fit makes."""
    per_epoch = -(-rows // size)
    for epoch in range(-(-steps // per_epoch)):
        order = gemmc.epoch_order(seed, epoch, rows)
        for step in range(min(per_epoch, steps - epoch * per_epoch)):
            yield order[step * size : (step + 1) * size]


class Alarm(Exception):
    """Raised wherever the main thread happens to be, as Ctrl-C is outside of fit."""


def test_an_exception_from_a_signal_at_any_moment_leaves_no_worker_waiting() -> None:
    exe = native(spiral(), 8, threads=3)
    x, y = data(exe, 8, seed=4)
    exe.train_step(x, y)

    def ring(number: int, frame: object) -> None:
        raise Alarm

    usual, rung = signal.signal(signal.SIGALRM, ring), 0
    rng = np.random.default_rng(5)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(2e-5, 1e-3)))
                while True:
                    exe.train_step(x, y)
            except Alarm:
                rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert rung == 300
    assert np.isfinite(exe.train_step(x, y))


def test_a_forked_process_trains_with_threads_of_its_own() -> None:
    exe = native(cnn(12), 8, threads=3)
    x, y = data(exe, 8, seed=6)
    exe.train_step(x, y)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def child() -> None:
        theirs.send(told([exe.train_step(x, y) for _ in range(3)]))

    process = context.Process(target=child)
    process.start()
    try:
        assert mine.poll(60), "hangs"
        assert mine.recv() == told([exe.train_step(x, y) for _ in range(3)])
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()


SCRIPT = """
import os, sys, threading
import numpy as np
import gemmc
from gemmc import *

layers = [Conv2d(1, 16, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(576, 10)]
model = Sequential(layers, CrossEntropyLoss(), Adam())
exe = gemmc.compile(model, (1, 14, 14), 8, runtime="native", threads=3)
X = np.random.default_rng(0).normal(size=(100, 1, 14, 14)).astype(np.float32)
y = np.arange(100) % 10
exe.fit(X, y, epochs=2)
print("trained", flush=True)
"""
ENDS = {
    "at the end of the script": ("", 0, "trained"),
    "by sys.exit": ("sys.exit(3)", 3, "trained"),
    "by sys.exit from within a loop of steps": (
        """
        for i in range(10):
            exe.train_step(X[:8], y[:8])
            if i == 5:
                sys.exit(4)
        """,
        4,
        "trained",
    ),
    "by an exception of the user's": (
        "exe.train_step(X[:8], y[:8]); 1 / 0",
        1,
        "ZeroDivisionError",
    ),
    "by a fault of the user's": ("exe.train_step(X[:9], y[:9])", 1, "DataError"),
    "by os._exit": ("os._exit(5)", 5, "trained"),
    "while another thread trains that need not be waited for": (
        """
        other = gemmc.compile(model, (1, 14, 14), 8, runtime="native", threads=2)
        given = {"epochs": 10**9}
        thread = threading.Thread(target=other.fit, args=(X, y), kwargs=given, daemon=True)
        thread.start()
        thread.join(0.3)
        """,
        0,
        "trained",
    ),
    "when another thread has trained to its end": (
        """
        def train():
            threading.main_thread().join()
            print(len(exe.fit(X, y, epochs=30).loss), "epochs more")
        threading.Thread(target=train).start()
        """,
        0,
        "30 epochs more",
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_process_that_has_trained_ends(how: str) -> None:
    code, status, said = ENDS[how]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(code)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=60,  # it would hang for ever
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr


def classifier() -> Model:
    layers = [
        *(Conv2d(2, 8, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Conv2d(8, 16, 3), ReLU(), Flatten(), Linear(144, 12), ReLU(), Linear(12, 4)),
    ]
    return Sequential(layers, CrossEntropyLoss(), SGD(0.1), seed=7), (2, 10, 10)


def pooled_twice() -> Model:
    """Its second convolution hands back the gradients of those that won in its pool."""
    layers = [
        *(Conv2d(2, 8, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Conv2d(8, 16, 3, padding=1), ReLU(), MaxPool2d(2), Flatten(), Linear(64, 4)),
    ]
    return Sequential(layers, CrossEntropyLoss(), SGD(0.1), seed=7), (2, 8, 8)


def regression() -> Model:
    layers = [Linear(5, 9), ReLU(), Linear(9, 3)]
    return Sequential(layers, MSELoss(), SGD(0.1), seed=8), (5,)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [classifier, pooled_twice, regression])
def test_nan_and_infinities_in_the_input_come_out_as_in_pytorch(make: Made, threads: int) -> None:
    exe = native(make(), 6, threads)
    for odd in (np.nan, np.inf, -np.inf):
        with exe.model.state.kept():
            check_against_pytorch(exe, odd)


def check_against_pytorch(exe: Executable, odd: float) -> None:
    x, y = data(exe, 6, seed=9)
    x[(2, *(1,) * (x.ndim - 1))] = odd
    theirs = twin(exe.model)
    _, wanted = theirs.loss_and_grads(x, y)
    loss, grads = exe.loss_and_grads(x, y)
    assert np.isnan(loss)
    for name, expected in wanted.items():
        np.testing.assert_array_equal(np.isnan(grads[name]), np.isnan(expected), err_msg=name)
        np.testing.assert_array_equal(np.isinf(grads[name]), np.isinf(expected), err_msg=name)
    for _ in range(2):
        assert np.isnan(exe.train_step(x, y)) and np.isnan(theirs.train_step(x, y))
    for name, expected in theirs.state().items():
        seen = exe.model.state_dict()[name]
        np.testing.assert_array_equal(np.isnan(seen), np.isnan(expected), err_msg=name)
    assert np.isnan(exe.evaluate(x, y)[0])
    with torch.no_grad():
        np.testing.assert_array_equal(np.isnan(exe(x)), np.isnan(theirs.predict(x)))
