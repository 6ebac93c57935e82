"""Many rows in one call of native code: `Executable.__call__` and `evaluate` on large arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_running import data
from programs import cnn

import gemmc
from gemmc import Dropout, Executable, Flatten, Linear, ReLU, Sequential, Softmax

SIZE = 6  # rows of a batch
CALL = 4 * SIZE  # rows of a call, in most of these tests
LONG = 3 * CALL + 2 * SIZE + 1  # several calls, and a batch that is not full


class Counted:
    """`predict` and `apply` of a program, and how many rows each of their calls had."""

    def __init__(self, exe: Executable, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        runner = exe.compiled("predict").runner
        self.rows: list[int] = []
        self._apply, self._predict = runner.apply, runner.predict
        runner.call_rows = rows
        monkeypatch.setattr(runner, "apply", self.apply)
        monkeypatch.setattr(runner, "predict", self.predict)

    def apply(self, x: np.ndarray, out: np.ndarray) -> None:
        self.rows.append(len(x))
        self._apply(x, out)

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.rows.append(len(x))
        return self._predict(x)


def compiled(threads: int = 1) -> Executable:
    model, shape = cnn(12)
    return gemmc.compile(model, shape, SIZE, runtime="native", threads=threads)


def batch_by_batch(exe: Executable, x: np.ndarray) -> np.ndarray:
    """The outputs of rows that Python puts into the program, one batch at a time: doubles."""
    given = (x / np.float32(255) if x.dtype == np.uint8 else x).astype(np.float64)
    return np.concatenate([exe(given[at : at + SIZE]) for at in range(0, len(x), SIZE)])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["float32", "uint8", "every other row", "Fortran", "reversed"])
def test_many_rows_at_once_are_the_same_batch_by_batch(
    kind: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every bit; what is given is only read, and what comes back is nobody else's."""
    exe = compiled(threads)
    x, _ = data(exe, 2 * LONG, seed=1)
    given = {
        "float32": x[:LONG],
        "uint8": np.clip(x[:LONG] * 40 + 128, 0, 255).astype(np.uint8),
        "every other row": x[::2],
        "Fortran": np.asfortranarray(x[:LONG]),
        "reversed": x[LONG - 1 :: -1, :, ::-1],
    }[kind]
    counted, before, expected = Counted(exe, CALL, monkeypatch), given.copy(), None
    expected = batch_by_batch(exe, given)
    assert counted.rows == []
    got = exe(given)
    assert counted.rows == [CALL] * 3 + [LONG - 3 * CALL]
    np.testing.assert_array_equal(got, expected)
    exe(given[::-1])
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "layers",
    [
        *([Linear(8, 5)], [ReLU()], [Softmax()], [ReLU(), Linear(8, 8), ReLU()]),
        *([Dropout(0.5)], [Flatten()], [Flatten(), Linear(8, 3)], [Dropout(0.5), Softmax()]),
    ],
    ids=str,
)
def test_inputs_that_programs_read_view_or_write_over(layers: list, threads: int) -> None:
    exe = gemmc.compile(Sequential(layers), (8,), SIZE, runtime="native", threads=threads)
    x = np.random.default_rng(3).standard_normal((LONG, 8)).astype(np.float32)
    before, expected = x.copy(), batch_by_batch(exe, x)
    np.testing.assert_array_equal(exe(x), expected)
    np.testing.assert_array_equal(x, before)
    images = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(exe(images), batch_by_batch(exe, images))


def test_any_number_of_rows_of_what_native_code_reads_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exe = compiled(2)
    counted = Counted(exe, CALL, monkeypatch)
    x, _ = data(exe, LONG, seed=2)
    expected = batch_by_batch(exe, x)
    for rows in (0, 1, SIZE - 1, SIZE, SIZE + 1, CALL, CALL + 1, LONG):
        counted.rows.clear()
        np.testing.assert_array_equal(exe(x[:rows]), expected[:rows])
        assert sum(counted.rows) == rows
    counted.rows.clear()
    np.testing.assert_array_equal(exe(x.astype(np.float64)), expected)
    np.testing.assert_array_equal(exe(x.astype(">f4")), expected)
    assert counted.rows == [], "doubles and numbers of another byte order are converted first"


def test_no_worker_fetches_the_next_rows_while_another_hands_out_the_last() -> None:
    """Which lie where inputs did that are copied."""
    model = Sequential([Linear(300, 400), ReLU(), Linear(400, 200)])
    exe = gemmc.compile(model, (300,), 64, runtime="native", threads=4)
    x, y = exe.plan.inputs["x"].buffer, exe.plan.outputs["output"].buffer
    assert x.offset < y.offset + y.room and y.offset < x.offset + x.room
    rows = np.random.default_rng(6).integers(0, 256, (64, 300)).astype(np.uint8)
    expected = np.tile(exe(rows), (300, 1))
    for _ in range(3):
        np.testing.assert_array_equal(exe(np.tile(rows, (300, 1))), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_one_call_whose_result_stays_the_callers(threads: int) -> None:
    exe = compiled(threads)
    x, _ = data(exe, SIZE, seed=3)
    images = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    for given in (x, images):
        before, expected = given.copy(), batch_by_batch(exe, given)
        for rows in (SIZE, 1, SIZE - 1):
            got = exe(given[:rows])
            np.testing.assert_array_equal(got, expected[:rows])
            exe(given[::-1])
            np.testing.assert_array_equal(got, expected[:rows])
        given.flags.writeable = False
        np.testing.assert_array_equal(exe(given), expected)
        np.testing.assert_array_equal(given, before)


def test_a_call_takes_whole_batches_and_fewer_where_they_take_longer() -> None:
    rows = []
    for width in (8, 2000):
        exe = gemmc.compile(Sequential([Linear(width, width)]), (width,), 64, runtime="native")
        rows.append(exe.compiled().runner.call_rows)
    assert all(r >= 64 and r % 64 == 0 for r in rows)
    assert rows[0] > 10 * rows[1]


def test_a_program_has_the_entries_that_are_called_and_no_other() -> None:
    exe = compiled()
    wanted = {
        "step": ["epoch"],
        "evaluate": ["epoch"],
        "predict": ["predict", "apply"],
        "grads": [],
    }
    for program, entries in wanted.items():
        loops = exe.ir("loops", program)
        assert [
            n for n in ("epoch", "predict", "apply") if f"\n{n}(ptr context" in loops
        ] == entries


@pytest.mark.parametrize("images", [False, True])
def test_an_evaluation_in_several_calls_is_that_of_its_batches(images: bool) -> None:
    exe = compiled(2)
    x, y = data(exe, LONG, seed=4)
    if images:
        x = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    whole = exe.evaluate(x, y)
    exe.compiled("evaluate").runner.call_rows = CALL
    loss, accuracy = exe.evaluate(x, y)
    parts = [(exe.evaluate(x[at : at + SIZE], y[at : at + SIZE])) for at in range(0, LONG, SIZE)]
    weights = [len(x[at : at + SIZE]) for at in range(0, LONG, SIZE)]
    means = np.average(parts, axis=0, weights=weights)
    np.testing.assert_allclose([whole, (loss, accuracy)], [means, means], rtol=1e-12)


def test_an_epoch_takes_an_order_as_it_lies_in_memory() -> None:
    """Every other row, backwards, or numbers of 32 bits: not what lies between them."""
    exe = compiled()
    images, labels = data(exe, LONG, seed=5)
    x, y = exe.checked("x", images, "y", labels)
    order = np.random.default_rng(5).permutation(LONG)
    for given in (order[::2], order[::-3], order.astype(np.int32)):
        with exe.model.state.kept():
            expected = exe.steps(x, y, given.astype(np.int64))
        with exe.model.state.kept():
            assert exe.steps(x, y, given) == expected


GUARDED = """
import ctypes, mmap, sys
import numpy as np
import gemmc
from gemmc import *

protect = ctypes.CDLL(None).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept = []

def guarded(x):
    # The same, ending where a page begins that must not be touched.
    pages = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    kept.append(mmap.mmap(-1, pages + mmap.PAGESIZE))
    address = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
    assert protect(address + pages, mmap.PAGESIZE, 0) == 0
    y = np.frombuffer(kept[-1], x.dtype, x.size, pages - x.nbytes).reshape(x.shape)
    y[...] = x
    return y

MODELS = {
    "linear": ([Linear(30, 64), ReLU(), Linear(64, 3)], (30,)),
    "wide": ([Flatten(), Linear(784, 128), ReLU(), Linear(128, 10)], (1, 28, 28)),
    "conv": ([Conv2d(1, 8, 3, padding=1), ReLU(), MaxPool2d(2)], (1, 14, 14)),
    "winograd": ([Conv2d(16, 16, 3), ReLU(), MaxPool2d(2)], (16, 10, 10)),
    "relu": ([ReLU(), Linear(9, 4)], (9,)),
    "softmax": ([Softmax()], (9,)),
}
layers, shape = MODELS[sys.argv[1]]
for size in (1, 7, 16, 32, 40):
    exe = gemmc.compile(Sequential(layers), shape, size, runtime="native", threads=2)
    for rows in (1, 2, size - 1, size, size + 1, 2 * size + 3):
        for dtype in (np.float32, np.uint8):
            x = np.random.default_rng(rows).integers(0, 9, (rows, *shape)).astype(dtype)
            assert np.array_equal(exe(guarded(x)), exe(x))
print("read no further")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no mprotect")
@pytest.mark.parametrize("name", ["linear", "wide", "conv", "winograd", "relu", "softmax"])
def test_nothing_behind_the_callers_array_is_read(name: str, tmp_path: Path) -> None:
    script = tmp_path / "guarded.py"
    script.write_text(GUARDED)
    done = subprocess.run(
        [sys.executable, str(script), name], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "read no further\n"), done.stderr
