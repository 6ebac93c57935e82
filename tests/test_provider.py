"""The BLAS library that native code calls: found, tried before it is used, refused with reasons."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy

import gemmc
from gemmc.runtime import library
from gemmc.runtime.library import Provider, ThreadLimit, provider, scipy_provider
from gemmc.runtime.trial import RIGHT, SGEMM, trial

ROOT = Path(gemmc.__file__).parent
BRANDS = ("openblas*/libopenblas*.so.*", "blis*/libblis*.so.*", "*/libblas*.so.*")
FILES = {p.resolve() for brand in BRANDS for p in Path("/usr/lib").glob(f"*/{brand}")}
INSTALLED = sorted(p for p in FILES if "64" not in p.name)
INSTALLED_ILP64 = sorted(p for p in FILES if "64" in p.name)
NUMPYS_ILP64 = sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas64*"))
COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
SIZES = [(1, 1, 1), (3, 5, 7), (17, 1, 9), (1, 33, 2), (31, 29, 37), (65, 127, 66)]
# A library of one loop nest. Its Fortran would stop at a negative size, and so end the process.
SOURCE = """
#include <stdint.h>
#include <stdlib.h>
void NAME(char *ta, char *tb, INT *m, INT *n, INT *k, float *alpha, float *a, INT *lda,
          float *b, INT *ldb, float *beta, float *c, INT *ldc) {
    if (*m < 0) exit(0);
    for (INT j = 0; j < *n; j++)
        for (INT i = 0; i < *m; i++) {
            float sum = 0, *at = c + i + j * *ldc;
            for (INT l = 0; l < *k; l++)
                sum += (*ta == 'T' ? a[l + i * *lda] : a[i + l * *lda]) *
                       (*tb == 'T' ? b[j + l * *ldb] : b[l + j * *ldb]);
            *at = *alpha * sum BETA;
        }
}
#ifdef STORAGE
static STORAGE int64_t threads = -1;
const char *bli_info_get_version_str(void) { return "1.2"; }
int bli_arch_query_id(void) { return 3; }
const char *bli_arch_string(int id) { return id == 3 ? "three" : "wrong"; }
int64_t bli_thread_get_num_threads(void) { return threads; }
void bli_thread_set_num_threads(int64_t count) { threads = count; }
#endif
#ifdef PARALLEL
static int threads = 4;
const char *openblas_get_config(void) { return "OpenBLAS 9.8.7 DYNAMIC_ARCH"; }
const char *openblas_get_corename(void) { return "Core"; }
int openblas_get_parallel(void) { return PARALLEL; }
int openblas_get_num_threads(void) { return threads; }
void openblas_set_num_threads(int count) { threads = count; }
#endif
"""
NO_BLAS = "#include <stdlib.h>\nvoid sgemm_(void) { abort(); }"
Build = Callable[..., Path]
Use = Callable[[Path | str], Provider]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A shared library of C, with these macros."""
    if COMPILER is None:
        pytest.skip("no C compiler")

    def made(source: str = SOURCE, **macros: str) -> Path:
        given = {"NAME": "sgemm_", "INT": "int32_t", "BETA": "+ *beta * *at"} | macros
        (tmp_path / "tiny.c").write_text(source)
        options = [f"-D{name}={text}" for name, text in given.items()]
        command = [COMPILER, "-shared", "-fPIC", *options, "-o", "libtiny.so", "tiny.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        return tmp_path / "libtiny.so"

    return made


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """The provider where GEMMC_BLAS is this path."""

    def used(path: Path | str) -> Provider:
        monkeypatch.setenv("GEMMC_BLAS", str(path))
        return provider()

    return used


def assert_multiplies(found: Provider, m: int, k: int, n: int, forms: str) -> None:
    """C = 2 A B - C by columns, where each matrix has one row more than the product may touch."""
    rng = np.random.default_rng(m * k * n)

    def drawn(rows: int, columns: int) -> np.ndarray:
        return np.asfortranarray(rng.normal(size=(rows + 1, columns)).astype(np.float32))

    a = drawn(*((k, m) if forms[0] == "T" else (m, k)))
    b = drawn(*((n, k) if forms[1] == "T" else (k, n)))
    c = drawn(m, n)
    left, right = (x[:-1].T if f == "T" else x[:-1] for x, f in zip((a, b), forms, strict=True))
    expected = c.astype(np.float64)
    expected[:-1] = 2 * (left.astype(np.float64) @ right) - expected[:-1]
    sizes = [np.array(size, np.int32) for size in (m, n, k, len(a), len(b), len(c))]
    two, minus_one = np.array(2, np.float32), np.array(-1, np.float32)
    m_, n_, k_, lda, ldb, ldc = sizes
    operands = (m_, n_, k_, two, a, lda, b, ldb, minus_one, c, ldc)
    SGEMM(found.sgemm)(*(f.encode() for f in forms), *(x.ctypes.data for x in operands))
    # k roundings, each by half a unit in the last place of a number below 32
    np.testing.assert_allclose(c, expected, rtol=0, atol=(k + 2) * 2e-6)


@pytest.mark.parametrize("forms", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_the_default_multiplies(m: int, k: int, n: int, forms: str) -> None:
    assert_multiplies(provider(), m, k, n, forms)


def test_by_default_it_is_scipys_except_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMMC_BLAS", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert provider() is scipy_provider()
    monkeypatch.setenv("GEMMC_BLAS", "")  # as unset
    assert provider() is scipy_provider()


def test_on_a_mac_it_is_accelerate_where_scipy_brings_openblas(
    monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    monkeypatch.delenv("GEMMC_BLAS", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    path = build()
    monkeypatch.setattr(library, "ACCELERATE", path)
    own = replace(scipy_provider(), name="OpenBLAS")
    monkeypatch.setattr(library, "scipy_provider", lambda: own)
    assert (provider().name, provider().path) == (path.name, path)
    accelerate = replace(own, name="accelerate")
    monkeypatch.setattr(library, "scipy_provider", lambda: accelerate)
    assert provider() is accelerate


@pytest.mark.parametrize("path", INSTALLED, ids=str)
def test_installed_libraries_multiply_and_limit_their_threads(path: Path) -> None:
    """Each in a process of its own: OpenBLAS waits for ever for threads PyTorch's OpenMP denies.

    Besides, of two libraries with one soname the second would bring nothing of its own.
    """
    script = f"from test_provider import check_installed; check_installed({str(path)!r})"
    env = os.environ | {"GEMMC_BLAS": str(path), "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def check_installed(path: str) -> None:
    """What holds for the library that GEMMC_BLAS names."""
    found = provider()
    for m, k, n in SIZES:
        for forms in ("NN", "NT", "TN", "TT"):
            assert_multiplies(found, m, k, n, forms)
    assert str(found.path) == path
    if found.threads is not None:
        before = found.threads.count()
        with ThreadLimit(2, found):
            assert found.threads.count() == 2
            with ThreadLimit(1, found):
                assert found.threads.count() == 1
        assert found.threads.count() == before


@pytest.mark.parametrize("path", INSTALLED_ILP64 + NUMPYS_ILP64, ids=str)
def test_installed_libraries_of_64_bit_integers_are_refused(path: Path, use: Use) -> None:
    with pytest.raises(gemmc.CompileError, match=r"GEMMC_BLAS=.*64-bit.*expected .*\(LP64\)"):
        use(path)


def test_one_library_opened_twice_counts_its_limits_together(use: Use) -> None:
    folder = Path(scipy.__file__).parents[1] / "scipy.libs"
    carried = next(folder.glob("*openblas*"), None)
    if carried is None:
        pytest.skip("SciPy is linked with another library")
    found = use(carried)
    assert found.threads is scipy_provider().threads
    assert found.kernels == scipy_provider().kernels


@pytest.mark.parametrize("name", ["sgemm_", "sgemm", "scipy_sgemm_"])
def test_a_library_may_call_it_in_several_ways(name: str, build: Build, use: Use) -> None:
    found = use(build(NAME=name))
    assert (found.name, found.version, found.kernels, found.threads) == (
        "libtiny.so",
        "",
        None,
        None,
    )
    assert_multiplies(found, 3, 5, 7, "NT")


def test_a_library_says_its_version_and_kernels(build: Build, use: Use) -> None:
    blis = use(build(STORAGE=" "))
    assert (blis.name, blis.version, blis.kernels) == ("BLIS", "1.2", "three")
    assert blis.threads is not None
    before = blis.threads.count()
    with ThreadLimit(3, blis):
        assert blis.threads.count() == 3
    assert before == blis.threads.count() == 1


def test_numbers_of_threads_that_hold_for_one_thread_only_are_not_set(
    build: Build, use: Use
) -> None:
    assert use(build(STORAGE="_Thread_local")).threads is None
    with pytest.raises(gemmc.CompileError, match="threads: got 1, but BLIS cannot be told"):
        ThreadLimit(1, provider())


@pytest.mark.parametrize(("parallel", "told"), [("1", True), ("2", False)])
def test_openblas_is_told_its_threads_unless_it_is_built_with_openmp(
    parallel: str, told: bool, build: Build, use: Use
) -> None:
    found = use(build(PARALLEL=parallel))
    assert (found.name, found.version, found.kernels) == ("OpenBLAS", "9.8.7", "Core")
    assert (found.threads is not None) == told


WRONG = [
    ({"INT": "int64_t"}, r"its sgemm_ ends the process, with code 0"),
    ({"NAME": "sgemm_64_"}, r"it has sgemm_64_, which takes 64-bit integers \(ILP64\)"),
    ({"NAME": "dgemm_"}, r"it has no sgemm_"),
    ({"BETA": ""}, r"its sgemm_ makes \[100.0, .*\] of \[99, "),
    ({"source": NO_BLAS}, r"its sgemm_ ends the process, with code -"),
]


@pytest.mark.parametrize(("macros", "seen"), WRONG, ids=lambda w: str(w)[:40])
def test_what_is_no_sgemm_is_refused(
    macros: dict[str, str], seen: str, build: Build, use: Use
) -> None:
    path = build(**macros)
    with pytest.raises(
        gemmc.CompileError, match=rf"GEMMC_BLAS={path}: {seen}.*; expected .* unset"
    ):
        use(path)


def test_a_path_without_a_library_is_refused(use: Use, tmp_path: Path) -> None:
    with pytest.raises(gemmc.CompileError, match="GEMMC_BLAS=.*nowhere.so: there is no such file"):
        use(tmp_path / "nowhere.so")
    (text := tmp_path / "text.so").write_text("no library")
    with pytest.raises(gemmc.CompileError, match="GEMMC_BLAS=.*text.so: it cannot be loaded: "):
        use(text)


def test_a_path_may_be_relative_and_start_at_home(
    build: Build, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert use("libtiny.so").path == use("~/libtiny.so").path == path


def test_the_trial_knows_what_computes_something_else() -> None:
    callbacks = SGEMM(lambda *pointers: None), SGEMM(lambda *p: ctypes.memset(p[11], 0, 4))
    idle, zero = (ctypes.cast(c, ctypes.c_void_p).value for c in callbacks)
    assert "ILP64" in trial(idle)
    assert trial(zero).startswith("makes [0.0, ")
    assert trial(provider().sgemm) == RIGHT


def test_importing_gemmc_looks_at_no_blas() -> None:
    code = "; ".join(
        (
            "import gemmc",
            "from gemmc.runtime.library import _named, scipy_provider",
            "print(_named.cache_info().misses, scipy_provider.cache_info().misses)",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"GEMMC_BLAS": "/no/such/library"},
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "0"]
