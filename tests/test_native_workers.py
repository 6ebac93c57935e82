"""The pools of workers: they end with the Python thread they belong to, and nothing stops them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import gemmc
from gemmc import SGD, CrossEntropyLoss, Executable, Linear, ReLU, Sequential
from gemmc.runtime.cores import cores
from gemmc.runtime.native.desk import LOUNGE
from gemmc.runtime.native.parking import MUTEX, SLEEPING
from gemmc.runtime.native.workers import Pool, Workers, pool

X, Y = np.ones((8, 30), np.float32), np.arange(8)
GETAFFINITY = getattr(os, "sched_getaffinity", None)


def small(threads: int = 2) -> Executable:
    layers = [Linear(30, 64), ReLU(), Linear(64, 10)]
    model = Sequential(layers, CrossEntropyLoss(), SGD(0.1), seed=1)
    return gemmc.compile(model, (30,), 8, runtime="native", threads=threads)


def workers() -> set[threading.Thread]:
    """All workers of all pools of this process."""
    return {t for t in threading.enumerate() if t.name.startswith("gemmc-")}


def all_end(these: set[threading.Thread]) -> bool:
    """Whether these workers go home, sooner or later."""
    for thread in these:
        thread.join(20)
    return not any(thread.is_alive() for thread in these)


def in_a_thread(work: Callable[[], object]) -> None:
    """Work in a Python thread of its own, which must come to its end."""
    done = []
    thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "hangs"
    assert done, "what was raised is among the warnings"


def test_a_python_thread_that_ends_sends_its_workers_home() -> None:
    """Those of all its pools, whether they look for work or sleep."""
    exe, before, seen = small(3), workers(), set[threading.Thread]()
    losses = []

    def train(pause: float) -> None:
        losses.append(exe.train_step(X, Y))
        Workers(2)
        seen.update(workers() - before)
        time.sleep(pause)

    for pause in (0.0, 0.05):
        in_a_thread(lambda pause=pause: train(pause))  # type: ignore[misc]
    assert sorted(t.name for t in seen) == ["gemmc-1"] * 4 + ["gemmc-2"] * 2
    assert all_end(seen), "threads outlive the one they work for"
    losses.append(exe.train_step(X, Y))  # and here with those of this thread
    assert losses == sorted(losses, reverse=True)


def test_a_pool_that_cannot_have_all_its_threads_sends_the_others_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, start = set[threading.Thread](), threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if thread.name == "gemmc-2":
            raise RuntimeError("can't start new thread")
        started.add(thread)
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refusing)
        try:
            Pool(3)
        except RuntimeError as error:
            assert "new thread" in str(error)
    assert len(started) == 1 and all_end(started)


def test_a_process_forked_at_the_worst_moment_trains() -> None:
    """A worker, which the new process does not have, holds the mutex of its pool just then."""
    exe = small()
    exe.train_step(X, Y)
    desk = pool(2)._desk
    sleeping, mutex = desk.view(np.int32)[(LOUNGE + SLEEPING) // 4 :], desk.ctypes.data + LOUNGE
    for _ in range(1000):
        if sleeping[0]:
            break
        time.sleep(0.01)
    process = multiprocessing.get_context("fork").Process(target=exe.train_step, args=(X, Y))
    held = ctypes.c_void_p(mutex + MUTEX)
    library = ctypes.CDLL(None)
    library.pthread_mutex_lock(held)
    try:
        process.start()
    finally:
        library.pthread_mutex_unlock(held)
    process.join(20)
    process.kill()
    assert process.exitcode == 0, "hangs"


@pytest.mark.skipif(
    sys.platform != "linux" or cores() < 2, reason="threads cannot be told where to run"
)
@pytest.mark.parametrize("allowed", [True, False])
def test_a_worker_on_the_core_of_another_moves_where_it_may(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is not allowed to goes on where it is."""
    exe, before, place = small(), workers(), os.sched_setaffinity
    two = set(sorted(os.sched_getaffinity(0))[:2])
    one = {min(two)}
    places: list[set[int]] = []

    def noted(thread: int, cores: set[int]) -> None:
        places.append(set(cores))
        place(thread, cores)

    def forbidden(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def crowd() -> None:
        exe.train_step(X, Y)
        (worker,) = workers() - before
        assert worker.native_id is not None
        for thread in (0, worker.native_id):
            place(thread, one)
        monkeypatch.setattr(os, "sched_getaffinity", lambda thread: two)
        monkeypatch.setattr(os, "sched_setaffinity", noted if allowed else forbidden)
        for _ in range(50):
            exe.train_step(X, Y)
            time.sleep(1e-3)
        assert places[:2] == ([two - one, two] if allowed else [])  # off the core, then anywhere
        assert GETAFFINITY is not None
        assert GETAFFINITY(worker.native_id) == (two if allowed else one)
        assert worker.is_alive()

    in_a_thread(crowd)
