"""Arrays in and out: whatever form they come in, they give the same results, and are left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

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
    Softmax,
)
from gemmc.runtime.blas import BOUND_KEPT

SHAPE = (2, 6, 5)
RUNTIMES = pytest.mark.parametrize("runtime", ["native", "blas", "reference"])


def classifier(runtime: str = "native", batch_size: int = 8) -> Executable:
    layers = [
        *(Conv2d(2, 4, 3, padding=1), ReLU(), MaxPool2d(2), Dropout(0.2)),
        *(Flatten(), Linear(24, 3), Softmax()),
    ]
    model = Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-2), seed=4)
    return gemmc.compile(model, SHAPE, batch_size, runtime=runtime)


def batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that float16 has as well, and labels."""
    rng = np.random.default_rng(5)
    x = rng.integers(-64, 65, (rows, *SHAPE)).astype(np.float32) / 32
    return x, rng.integers(0, 3, rows)


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def strided(array: np.ndarray) -> np.ndarray:
    """Every other row of a larger array, backwards."""
    wide = np.repeat(array[::-1], 2, axis=0)
    return wide[::-2]


def offset_by_a_byte(array: np.ndarray) -> np.ndarray:
    """The same contents at an address that no float should have."""
    raw = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


FORMS: dict[str, Callable[[np.ndarray], object]] = {
    "read-only": read_only,
    "strided": strided,
    "in Fortran order": np.asfortranarray,
    "channels last": lambda a: (
        np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim > 1 else a
    ),
    "unaligned": offset_by_a_byte,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "wider": lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a.astype(np.uint64),
    "narrower": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a.astype(np.int8),
    "a list": lambda a: a.tolist(),
    "a view": lambda a: np.concatenate([a, a])[: len(a)],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_array_in_any_form_gives_what_a_plain_one_gives(form: str) -> None:
    x, y = batch(8)
    given, labels = FORMS[form](x), FORMS[form](y)
    expected, seen = classifier(), classifier()
    np.testing.assert_array_equal(seen(given), expected(x))
    assert seen.evaluate(given, labels) == expected.evaluate(x, y)
    assert seen.train_step(given, labels) == expected.train_step(x, y)
    one, two = seen.loss_and_grads(given, labels), expected.loss_and_grads(x, y)
    assert one[0] == two[0]
    for name, grad in two[1].items():
        np.testing.assert_array_equal(one[1][name], grad)
    plain, other = (
        expected.fit(x, y, x, y, epochs=2),
        seen.fit(given, labels, given, labels, epochs=2),
    )
    assert (plain.loss, plain.val_loss) == (other.loss, other.val_loss)
    for name, p in expected.model.state_dict().items():
        np.testing.assert_array_equal(seen.model.state_dict()[name], p)
    np.testing.assert_array_equal(np.asarray(given, np.float32), x)  # and it is as it was
    np.testing.assert_array_equal(np.asarray(labels, np.int64), y)


@RUNTIMES
def test_uint8_images_are_scaled_by_1_255_and_nothing_else_is(runtime: str) -> None:
    images = np.random.default_rng(6).integers(0, 256, (8, *SHAPE)).astype(np.uint8)
    floats = images.astype(np.float32) / np.float32(255)
    y = batch(8)[1]
    one, two = classifier(runtime), classifier(runtime)
    for given in (images, images[::-1].copy()[::-1], read_only(images), offset_by_a_byte(images)):
        np.testing.assert_array_equal(one(given), two(floats))
    assert one.train_step(images, y) == two.train_step(floats, y)
    assert one.fit(images, y, epochs=2).loss == two.fit(floats, y, epochs=2).loss
    assert np.abs(one(images.astype(np.float32)) - one(images)).max() > 1e-3


def test_targets_in_any_form_give_what_plain_ones_give() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    y = rng.integers(-64, 65, (8, 2)).astype(np.float32) / 32
    for form in FORMS.values():
        losses = []
        for target in (y, form(y)):
            model = Sequential([Linear(3, 2)], MSELoss(), SGD(lr=0.1))
            exe = gemmc.compile(model, (3,), 8)
            losses.append([exe.train_step(x, target), exe.evaluate(x, target)[0]])
        assert losses[0] == losses[1]


@RUNTIMES
def test_results_are_the_callers_own(runtime: str) -> None:
    exe = classifier(runtime)
    x, y = batch(8)
    output, (_, grads) = exe(x), exe.loss_and_grads(x, y)
    kept = output.copy(), {name: g.copy() for name, g in grads.items()}
    state = exe.model.state_dict()
    exe(-x)
    exe.loss_and_grads(-x, y)
    exe.evaluate(-x, y)
    np.testing.assert_array_equal(output, kept[0])
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, kept[1][name])
        grad[...] = np.nan  # writable, and nobody else reads it
    output[...] = np.nan
    for array in state.values():
        array[...] = np.nan
    assert np.isfinite(exe(x)).all() and np.isfinite(exe.loss_and_grads(x, y)[0])


@RUNTIMES
@pytest.mark.parametrize("rows", [0, 1, 8, 21])
def test_inference_takes_any_number_of_rows(rows: int, runtime: str) -> None:
    exe = classifier(runtime)
    x, y = batch(rows)
    seen = exe(x)
    assert seen.shape == (rows, 3) and seen.dtype == np.float32
    one_by_one = classifier("reference", batch_size=1)
    for i in range(rows):
        # other products have other shapes, and so another order of summing float32
        np.testing.assert_allclose(seen[i : i + 1], one_by_one(x[i : i + 1]), rtol=1e-5)
    if rows:
        loss, accuracy = exe.evaluate(x, y)
        assert loss == pytest.approx(-np.log(seen[np.arange(rows), y]).mean(), rel=1e-5)
        assert accuracy == np.mean(seen.argmax(1) == y)


def test_what_rows_were_there_before_does_not_matter() -> None:
    """A short batch after a long one sees nothing of it, not in any program."""
    x, y = batch(8)
    fresh, used = classifier(), classifier()
    poison = np.full_like(x, np.nan)
    used(poison), used.evaluate(poison, y), used.loss_and_grads(poison, y)
    used.loss_and_grads(poison, y, train=True)
    for rows in (3, 8, 1, 5):
        some, labels = x[:rows], y[:rows]
        np.testing.assert_array_equal(used(some), fresh(some))
        assert used.evaluate(some, labels) == fresh.evaluate(some, labels)
        one, two = used.loss_and_grads(some, labels), fresh.loss_and_grads(some, labels)
        assert one[0] == two[0]
        assert all(np.array_equal(one[1][name], grad) for name, grad in two[1].items())
        assert used.train_step(some, labels) == fresh.train_step(some, labels)


def test_numbers_that_overflow_come_out_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    model = Sequential([Linear(3, 2)], MSELoss(), SGD())
    exe = gemmc.compile(model, (3,), 4, "blas")
    x, y = np.full((4, 3), 1e25, np.float32), np.zeros((4, 2), np.float32)
    assert exe.loss_and_grads(x, y)[0] == exe.train_step(x, y) == np.inf
    assert not recwarn.list


def test_more_numbers_of_rows_than_a_program_stays_bound_to() -> None:
    exe = gemmc.compile(Sequential([Linear(3, 2)]), (3,), 16, "blas")
    x = np.random.default_rng(7).integers(-9, 10, (BOUND_KEPT + 3, 3)).astype(np.float32)
    exe.model.load_state_dict({"0.weight": np.arange(6.0).reshape(2, 3), "0.bias": np.zeros(2)})
    for rows in (*range(1, len(x) + 1), 1, 2):
        np.testing.assert_array_equal(exe(x[:rows]), x[:rows] @ np.arange(6).reshape(2, 3).T)


def test_a_profile_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that Ctrl-C ends."""
    exe = classifier()
    x, y = batch(8)
    exe.train_step(x, y)
    before = {n: a.copy() for n, a in exe.model.state.stored.items()}
    counters = exe.model.state.counters.copy()
    assert exe.profile(x, y, repeat=2).rows
    runner = exe.compiled().runner

    def stopped(rows: int, feed: Callable[[], None], repeat: int) -> None:
        feed()
        runner.run(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "profile", stopped)
    with pytest.raises(KeyboardInterrupt):
        exe.profile(x, y, repeat=1)
    np.testing.assert_array_equal(exe.model.state.counters, counters)
    for name, array in exe.model.state.stored.items():
        np.testing.assert_array_equal(array, before[name])
