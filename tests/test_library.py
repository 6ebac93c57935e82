"""The BLAS library: threads are limited inside a run and restored after it; doctor's findings."""

import numpy as np
import pytest

import gemmc
from gemmc.frontend.doctor import cores, findings
from gemmc.frontend.experiments import spiral_model
from gemmc.runtime import library
from gemmc.runtime.blas import suited_threads
from gemmc.runtime.library import Library, ThreadLimit, blas_library

HAS_OPENBLAS = blas_library().threads is not None
needs_openblas = pytest.mark.skipif(not HAS_OPENBLAS, reason="SciPy's BLAS is not OpenBLAS")


@needs_openblas
@pytest.mark.parametrize("count", [1, 2])
def test_a_limit_holds_inside_and_is_undone_outside(count):
    before = blas_library().threads
    with ThreadLimit(count):
        assert blas_library().threads == count
    assert blas_library().threads == before


@needs_openblas
def test_a_limit_is_undone_when_a_run_fails():
    before = blas_library().threads
    with pytest.raises(ZeroDivisionError), ThreadLimit(before + 1):
        raise ZeroDivisionError
    assert blas_library().threads == before


@needs_openblas
def test_threads_change_nothing_but_time():
    X, y = gemmc.datasets.spiral(points=10)
    one, other = (gemmc.compile(spiral_model(), (2,), threads=t) for t in (2, None))
    assert one.train_step(X[:32], y[:32]) == pytest.approx(other.train_step(X[:32], y[:32]))


def test_a_library_that_cannot_be_told_refuses_a_number_of_threads(monkeypatch):
    monkeypatch.setattr(library, "_openblas", lambda: None)
    assert blas_library().threads is None
    with pytest.raises(gemmc.CompileError, match=r"threads: got 2, but .* threads=None"):
        gemmc.compile(spiral_model(), (2,), threads=2)
    gemmc.compile(spiral_model(), (2,))(np.zeros((1, 2), np.float32))


NARROW = Library("scipy-openblas", "0.3", "Haswell", 1)
CASES = [
    (NARROW, {}, {"avx2"}, []),
    (NARROW, {"OPENBLAS_CORETYPE": "Haswell"}, {"avx512f"}, ["unset OPENBLAS_CORETYPE"]),
    (NARROW, {"OPENBLAS_CORETYPE": "Haswell"}, {"avx2"}, ["unset it to let it choose"]),
    (NARROW, {"OMP_NUM_THREADS": str(cores())}, set(), []),
    (Library("accelerate", ""), {}, set(), []),
    (Library("o", "", "Zen", cores() + 1), {}, set(), [f"OPENBLAS_NUM_THREADS={cores()}"]),
]


@pytest.mark.parametrize(("found", "environment", "flags", "expected"), CASES)
def test_doctor_says_what_holds_a_machine_back_and_what_to_do(found, environment, flags, expected):
    said = list(findings(found, environment, flags))
    assert len(said) == len(expected)
    for line, words in zip(said, expected, strict=True):
        assert words in line


def test_doctor_finds_a_limit_below_the_cores(monkeypatch):
    monkeypatch.setattr("gemmc.frontend.doctor.cores", lambda: 8)
    (line,) = findings(NARROW, {"OMP_NUM_THREADS": "2"}, set())
    assert "OMP_NUM_THREADS=2 limits BLAS to 2 of 8 cores" in line


@needs_openblas
def test_programs_of_small_products_use_one_thread_and_others_the_librarys_choice() -> None:
    small = gemmc.compile(spiral_model(), (2,))
    wide = gemmc.Sequential([gemmc.Linear(1024, 1024)])
    large = gemmc.compile(wide, (1024,), batch_size=64)  # 2 * 64 * 1024 * 1024 = 134 MFLOP
    assert suited_threads(small.plan) == 1
    assert suited_threads(large.plan) is None


@needs_openblas
def test_a_run_leaves_the_callers_threads_as_they_were() -> None:
    before = blas_library().threads
    gemmc.compile(spiral_model(), (2,), threads=2)(np.zeros((1, 2), np.float32))
    assert blas_library().threads == before
