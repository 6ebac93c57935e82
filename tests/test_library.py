"""BLAS libraries: threads are limited inside a run and restored after it; doctor's findings."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread

import numpy as np
import pytest

import gemmc
from gemmc.frontend.doctor import cores, findings, report
from gemmc.frontend.experiments import spiral_model
from gemmc.runtime import library
from gemmc.runtime.blas import suited_threads
from gemmc.runtime.identity import Threads
from gemmc.runtime.library import Provider, ThreadLimit, scipy_provider

THREADS = scipy_provider().threads
needs_threads = pytest.mark.skipif(THREADS is None, reason="SciPy's BLAS is told no threads")


class Counted(Threads):
    """A library's number of threads, without the library."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(lambda: self.number, lambda count: setattr(self, "number", count))


def with_threads(number: int) -> Provider:
    return Provider("OpenBLAS", "0.3", "Haswell", Counted(number), 0)


@needs_threads
@pytest.mark.parametrize("count", [1, 2])
def test_a_limit_holds_inside_and_is_undone_outside(count: int) -> None:
    before = THREADS.count()
    with ThreadLimit(count):
        assert THREADS.count() == count
    assert THREADS.count() == before


@needs_threads
def test_a_limit_is_undone_when_a_run_fails() -> None:
    before = THREADS.count()
    with pytest.raises(ZeroDivisionError), ThreadLimit(before + 1):
        raise ZeroDivisionError
    assert THREADS.count() == before


def test_a_limit_of_none_leaves_the_library_alone() -> None:
    threads = with_threads(4)
    with ThreadLimit(None, threads):
        assert threads.threads.count() == 4


def test_of_limits_inside_one_another_the_least_holds_until_it_ends() -> None:
    blas = with_threads(4)
    one, two = ThreadLimit(1, blas), ThreadLimit(2, blas)
    seen = []
    with two:
        seen.append(blas.threads.count())
        with one, two, one:
            seen.append(blas.threads.count())
        seen.append(blas.threads.count())
    assert seen == [2, 1, 2]
    assert blas.threads.count() == 4


def test_limits_of_two_threads_that_overlap_are_undone_by_the_last() -> None:
    blas = with_threads(4)
    limit, inside, leave = ThreadLimit(1, blas), Event(), Event()

    def other() -> None:
        with limit:
            inside.set()
            leave.wait(10)

    thread = Thread(target=other)
    with limit:
        thread.start()
        assert inside.wait(10)
    assert blas.threads.count() == 1  # the other still counts on it
    leave.set()
    thread.join()
    assert blas.threads.count() == 4


def test_limits_of_many_threads_are_all_undone_in_the_end() -> None:
    blas = with_threads(4)
    too_many = []

    def work(count: int) -> None:
        for _ in range(200):
            with ThreadLimit(count, blas):
                if blas.threads.count() > count:
                    too_many.append(count)

    workers = [Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert too_many == []
    assert blas.threads.count() == 4


@needs_threads
def test_threads_change_nothing_but_time() -> None:
    X, y = gemmc.datasets.spiral(points=10)
    one, other = (gemmc.compile(spiral_model(), (2,), runtime="blas", threads=t) for t in (2, None))
    assert one.train_step(X[:32], y[:32]) == pytest.approx(other.train_step(X[:32], y[:32]))


def test_a_library_that_cannot_be_told_refuses_a_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untold = replace(scipy_provider(), threads=None)
    monkeypatch.setattr(library, "scipy_provider", lambda: untold)
    with pytest.raises(gemmc.CompileError, match=r"threads: got 2, but .* threads=None"):
        gemmc.compile(spiral_model(), (2,), runtime="blas", threads=2)
    gemmc.compile(spiral_model(), (2,), runtime="blas")(np.zeros((1, 2), np.float32))


@needs_threads
def test_programs_of_small_products_use_one_thread_and_others_the_librarys_choice() -> None:
    small = gemmc.compile(spiral_model(), (2,), runtime="blas")
    wide = gemmc.Sequential([gemmc.Linear(1024, 1024)])
    large = gemmc.compile(
        wide, (1024,), batch_size=64, runtime="blas"
    )  # 2 * 64 * 1024 * 1024 = 134 MFLOP
    assert suited_threads(small.plan) == 1
    assert suited_threads(large.plan) is None


@needs_threads
def test_a_run_leaves_the_callers_threads_as_they_were() -> None:
    before = THREADS.count()
    small = gemmc.compile(spiral_model(), (2,), runtime="blas", threads=2)
    small(np.zeros((1, 2), np.float32))
    assert THREADS.count() == before


NARROW = with_threads(1)
FORCED = {"OPENBLAS_CORETYPE": "Haswell", "BLIS_ARCH_TYPE": "4"}
CASES = [
    (NARROW, {}, {"avx2"}, []),
    (NARROW, FORCED, {"avx512f"}, ["unset OPENBLAS_CORETYPE"]),
    (NARROW, FORCED, {"avx2"}, ["unset it to let it choose"]),
    (NARROW, {"OMP_NUM_THREADS": str(cores())}, set(), []),
    (Provider("accelerate", "", None, None, 0), FORCED, set(), []),
    (with_threads(cores() + 1), {}, set(), [f"OPENBLAS_NUM_THREADS={cores()}"]),
    (replace(with_threads(cores() + 1), name="BLIS"), {}, set(), []),
    (Provider("BLIS", "0.9", "haswell", None, 0), FORCED, {"avx512f"}, ["unset BLIS_ARCH_TYPE"]),
    (Provider("BLIS", "0.9", "skx", None, 0), FORCED, {"avx512f"}, ["let it choose"]),
    (Provider("BLIS", "0.9", "generic", None, 0), {}, set(), ["use a newer version"]),
]


@pytest.mark.parametrize(("found", "environment", "flags", "expected"), CASES)
def test_doctor_says_what_holds_a_machine_back_and_what_to_do(
    found: Provider, environment: dict[str, str], flags: set[str], expected: list[str]
) -> None:
    said = list(findings(found, environment, flags))
    assert len(said) == len(expected)
    for line, words in zip(said, expected, strict=True):
        assert words in line


def test_doctor_finds_a_limit_below_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemmc.frontend.doctor.cores", lambda: 8)
    (line,) = findings(NARROW, {"OMP_NUM_THREADS": "2"}, set())
    assert "OMP_NUM_THREADS=2 limits BLAS to 2 of 8 cores" in line


def test_doctor_names_a_library_of_its_own_for_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Provider("BLIS", "0.9", "generic", None, 0)
    monkeypatch.setattr("gemmc.frontend.doctor.provider", lambda: other)
    said = report()
    assert "native blas BLIS 0.9, generic kernels" in said
    assert "! BLIS 0.9 has no kernels for this CPU" in said


def test_doctor_says_what_is_wrong_with_gemmc_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMC_BLAS", "/no/such/library")
    said = report()
    assert "! GEMMC_BLAS=/no/such/library: there is no such file" in said
    assert "native blas" not in said
