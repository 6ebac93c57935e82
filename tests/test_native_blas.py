"""The native runtime around a BLAS library: every product by sgemm, whichever library it is of."""

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
from native_running import data
from programs import MODELS, Model, cnn
from twins import assert_close

import gemmc
from gemmc import Adam, CrossEntropyLoss, Executable, Linear, ReLU, Sequential
from gemmc.frontend import executable
from gemmc.frontend.runtimes import NativeRuntime
from gemmc.runtime.library import provider, scipy_provider
from gemmc.runtime.native.runtime import NativeProgram

BRANDS = ("openblas*/libopenblas*.so.*", "blis*/libblis*.so.*", "blas/libblas.so.*")
FILES = {p.resolve() for brand in BRANDS for p in Path("/usr/lib").glob(f"*/{brand}")}
INSTALLED = sorted(p for p in FILES if "64" not in p.name)
COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
# A library of one loop nest that counts its products, and notes how many threads it may run then,
# and whether it was ever called while another call was under way.
SOURCE = """
#include <stdint.h>
#include <unistd.h>
int products, seen, inside, together;
#ifdef THREADS
static int threads = 4;
const char *openblas_get_config(void) { return "OpenBLAS 9.8.7"; }
const char *openblas_get_corename(void) { return "Core"; }
int openblas_get_parallel(void) { return 1; }
int openblas_get_num_threads(void) { return threads; }
void openblas_set_num_threads(int count) { threads = count; }
#else
static int threads = 0;
#endif
void sgemm_(char *ta, char *tb, int32_t *m, int32_t *n, int32_t *k, float *alpha, float *a,
            int32_t *lda, float *b, int32_t *ldb, float *beta, float *c, int32_t *ldc) {
    __sync_fetch_and_add(&products, 1);
    if (__sync_fetch_and_add(&inside, 1)) together = 1;
    usleep(10);
    if (threads > seen) seen = threads;
    for (int j = 0; j < *n; j++)
        for (int i = 0; i < *m; i++) {
            float sum = 0, *at = c + i + (int64_t)j * *ldc;
            for (int l = 0; l < *k; l++)
                sum += (*ta == 'T' ? a[l + (int64_t)i * *lda] : a[i + (int64_t)l * *lda]) *
                       (*tb == 'T' ? b[j + (int64_t)l * *ldb] : b[l + (int64_t)j * *ldb]);
            *at = *alpha * sum + (*beta == 0 ? 0 : *beta * *at);
        }
    __sync_fetch_and_sub(&inside, 1);
}
"""
Compile = Callable[..., Executable]


each_form = pytest.mark.parametrize("by_blas", ["im2col", "shift"], indirect=True)


@pytest.fixture
def by_blas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """compile for a native runtime that gives BLAS every product, convolutions in one of its forms.

    Such a target is chosen where that is faster, which this machine may not be.
    """
    runtime, form = NativeRuntime(), getattr(request, "param", "im2col")
    runtime.target = replace(runtime.target, products="blas", conv_form=form)

    def compile(given: Model, batch_size: int = 7, threads: int | None = None) -> Executable:
        model, shape = given
        with monkeypatch.context() as patched:
            patched.setattr(executable, "choose", lambda *asked: runtime)
            return gemmc.compile(model, shape, batch_size, threads=threads)

    return compile


def forms(exe: Executable) -> set[str]:
    """How the products of the training step run."""
    nodes = [n for s in exe.plan.steps() for n in (s.node, *inner(s.node))]
    named = {str(n.attrs["form"]) for n in nodes if n.attrs.get("form")}
    return named | {n.op for n in nodes if n.op.startswith("shift_matmul")}


def inner(node) -> tuple:
    return node.attrs["body"].nodes if "body" in node.attrs else ()


def assert_agree(exe: Executable, expected: Executable, seed: int = 0) -> None:
    """Gradients, losses over some steps, evaluation and outputs, of ragged batches too."""
    x, y = data(exe, 3 * exe.batch_size - 2, seed)
    for rows in (exe.batch_size, 1):
        loss, grads = exe.loss_and_grads(x[:rows], y[:rows], train=True)
        right, wanted = expected.loss_and_grads(x[:rows], y[:rows], train=True)
        assert loss == pytest.approx(right, rel=1e-5)
        for name, grad in wanted.items():
            # sums of a few thousand float32 products; a mistake is seen in the first digit
            assert_close(grads[name], grad, 1e-4, name)
    for step in range(4):
        rows = slice(step, step + exe.batch_size - step % 3)
        # steps of Adam turn the rounding of small gradients into that of the next loss
        assert exe.train_step(x[rows], y[rows]) == pytest.approx(
            expected.train_step(x[rows], y[rows]), rel=1e-3
        )
    (loss, accuracy), (right, share) = exe.evaluate(x, y), expected.evaluate(x, y)
    assert loss == pytest.approx(right, rel=1e-3)
    assert np.isnan(share) or abs(accuracy - share) <= 1 / len(x)
    assert_close(exe(x), expected(x), 1e-2, "outputs")


@each_form
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_with_blas_for_every_product(name: str, by_blas: Compile) -> None:
    exe = by_blas(MODELS[name](), threads=1 + len(name) % 2)
    model, shape = MODELS[name]()
    assert forms(exe) <= {"blas", "shift_matmul", "shift_matmul_weight_grad"}
    assert "@gemmc_sgemm" in exe.ir("llvm")
    assert_agree(exe, gemmc.compile(model, shape, 7, runtime="reference"))


def wide() -> Model:
    """Products of which more than one worker makes a part."""
    layers = [Linear(83, 300), ReLU(), Linear(300, 77), ReLU(), Linear(77, 10)]
    return Sequential(layers, CrossEntropyLoss(), Adam()), (83,)


@pytest.mark.parametrize(("make", "size"), [(cnn, 6), (wide, 200)])
def test_products_by_blas_are_the_same_with_any_number_of_threads(
    make: Callable[[], Model], size: int, by_blas: Compile
) -> None:
    """A library rounds otherwise where a product is of another size, so parts are the plan's."""
    runs = []
    for threads in (1, 2, 3):
        exe = by_blas(make(), size, threads)
        x, y = data(exe, 3 * size - 5, seed=1)
        exe.fit(x, y, epochs=2)
        runs.append([a.tobytes() for a in exe.model.state.stored.values()])
    assert runs[0] == runs[1] == runs[2]


SCRIPT = """
from dataclasses import replace
from native_running import data
from programs import cnn
import gemmc
from gemmc.frontend import executable
from gemmc.frontend.runtimes import NativeRuntime

runtime = NativeRuntime()
runtime.target = replace(runtime.target, products="blas", conv_form="im2col")
executable.choose = lambda *asked: runtime
model, shape = cnn(12)
exe = gemmc.compile(model, shape, 7, threads=2)
x, y = data(exe, 7, seed=4)
losses = [exe.train_step(x, y) for _ in range(3)]
print(exe._program("step").runner.blas.path, *losses)
"""


@pytest.mark.parametrize("path", INSTALLED or [None], ids=str)
def test_another_installed_library_gives_the_same_results(path: Path | None) -> None:
    """Each in its own process: in one they would take one another's functions for their own."""
    if path is None:
        pytest.skip("no other BLAS is installed")
    model, shape = cnn(12)
    expected = gemmc.compile(model, shape, 7, runtime="reference")
    x, y = data(expected, 7, seed=4)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"GEMMC_BLAS": str(path)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used, *losses = done.stdout.split()
    assert used == str(path)
    wanted = [expected.train_step(x, y) for _ in losses]
    np.testing.assert_allclose([float(loss) for loss in losses], wanted, rtol=1e-4)


def runner(exe: Executable) -> NativeProgram:
    found = exe._program("step").runner
    assert isinstance(found, NativeProgram)
    return found


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ctypes.CDLL]:
    """A library of our own, to which GEMMC_BLAS points from then on."""
    if COMPILER is None:
        pytest.skip("no C compiler")

    def made(*options: str) -> ctypes.CDLL:
        (tmp_path / "own.c").write_text(SOURCE)
        command = [COMPILER, "-O1", "-shared", "-fPIC", *options, "-o", "libown.so", "own.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        monkeypatch.setenv("GEMMC_BLAS", str(tmp_path / "libown.so"))
        return ctypes.CDLL(str(tmp_path / "libown.so"))

    return made


def count(library: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(library, name).value


@pytest.mark.parametrize("threads", [1, 3])
def test_a_library_of_any_origin_multiplies_in_one_thread_for_each_worker(
    threads: int, build: Callable[..., ctypes.CDLL], by_blas: Compile
) -> None:
    library = build("-DTHREADS")
    exe = by_blas(cnn(12), threads=threads)
    before = count(library, "products")
    ctypes.c_int.in_dll(library, "seen").value = 0  # it has been tried
    model, shape = cnn(12)
    assert_agree(exe, gemmc.compile(model, shape, 7, runtime="reference"))
    assert count(library, "products") > before + 20
    assert count(library, "seen") == 1
    assert threads == 1 or count(library, "together")
    assert library.openblas_get_num_threads() == 4, "as it was before"


def test_a_library_that_cannot_be_told_its_threads_is_called_by_one_worker_at_a_time(
    build: Callable[..., ctypes.CDLL], by_blas: Compile
) -> None:
    """Accelerate is one, which runs threads itself; OpenBLAS with OpenMP another."""
    library = build()
    assert provider().threads is None
    exe = by_blas(cnn(12), threads=3)
    before = count(library, "products")
    model, shape = cnn(12)
    assert_agree(exe, gemmc.compile(model, shape, 7, runtime="reference"))
    assert count(library, "products") > before + 20
    assert not count(library, "together")


def test_a_program_stays_with_the_library_it_was_compiled_for(
    build: Callable[..., ctypes.CDLL], by_blas: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMMC_BLAS", raising=False)
    first = by_blas(cnn(12))
    library = build("-DTHREADS")
    second = by_blas(cnn(12))
    x, y = data(first, 7, seed=3)
    before = count(library, "products")
    loss = first.train_step(x, y)
    assert count(library, "products") == before
    monkeypatch.setenv("GEMMC_BLAS", "/no/such/library")
    assert second.train_step(x, y) == pytest.approx(loss, rel=1e-5)
    assert count(library, "products") > before
    first.train_step(x, y)
    assert runner(first).blas is scipy_provider()
