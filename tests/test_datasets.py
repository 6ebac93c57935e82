"""The data sets and the split: shapes, laws and bad arguments."""

from __future__ import annotations

import importlib.resources
import importlib.util
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import gemmc
from gemmc import train_val_test_split
from gemmc.frontend import datasets
from gemmc.frontend.datasets import fashion_mnist, spiral

TOOL = Path(__file__).parents[1] / "tools" / "make_fashion_subset.py"

whole_set = pytest.mark.skipif(
    not datasets.DEBIAN_FOLDER.is_dir(), reason="Fashion-MNIST is not installed"
)


def same(left: Iterable[NDArray[Any]], right: Iterable[NDArray[Any]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_spiral_has_points_rows_for_each_class_in_float32_with_int64_labels() -> None:
    X, y = spiral()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((8000, 2), np.float32, (8000,), np.int64)
    assert np.array_equal(y, np.repeat(np.arange(8), 1000))


def test_a_spiral_is_the_formula_of_cs231n() -> None:
    """The loop of the course's page, with its noise drawn from our generator."""
    X, y = spiral(points=50, classes=3, seed=4)
    rng = np.random.default_rng(4)
    for j in range(3):
        r = np.linspace(0.0, 1, 50)
        t = np.linspace(j * 4, (j + 1) * 4, 50) + rng.standard_normal(50) * 0.2
        arm = np.c_[r * np.sin(t), r * np.cos(t)]
        assert np.allclose(X[y == j], arm, rtol=0, atol=1e-7)  # half a float32 ulp at 1


def test_a_spiral_depends_on_its_seed_and_on_nothing_else() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    first = spiral(20, 3, seed=7)
    np.random.seed(1)  # noqa: NPY002
    assert same(first, spiral(20, 3, seed=7))
    assert not np.array_equal(first[0], spiral(20, 3, seed=8)[0])


def test_more_classes_only_add_arms_to_a_spiral() -> None:
    assert np.array_equal(spiral(20, 8)[0][:60], spiral(20, 3)[0])


def test_a_spiral_may_have_a_single_point() -> None:
    X, y = spiral(points=1, classes=1)
    assert X.tolist() == [[0.0, 0.0]]
    assert y.tolist() == [0]


@pytest.mark.parametrize("name", ["points", "classes", "seed"])
@pytest.mark.parametrize("value", [-1, 2.0, math.nan, "3", None, True])
def test_a_bad_argument_of_spiral_is_named(name: str, value: Any) -> None:
    with pytest.raises(gemmc.DataError, match=f"spiral: {name} is"):
        spiral(**{name: value})


@given(
    n=st.integers(0, 60),
    cuts=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted),
    seed=st.integers(0, 99),
)
def test_a_split_uses_every_row_exactly_once(n: int, cuts: list[int], seed: int) -> None:
    first, second = cuts
    shares = [first / 20, (second - first) / 20, (20 - second) / 20]
    rows = np.arange(n)
    parts = train_val_test_split(rows, 2 * rows, shares[0], shares[1], shares[2], seed)
    assert sorted(np.concatenate(parts[:3])) == list(range(n))
    assert same((2 * X for X in parts[:3]), parts[3:])
    for part, share in zip(parts, shares, strict=False):
        assert abs(len(part) - n * share) <= 1  # two rounded ends, half a row each
        assert share > 0 or len(part) == 0


def test_a_split_by_default_is_70_15_15() -> None:
    parts = train_val_test_split(*spiral())
    assert [len(part) for part in parts] == [5600, 1200, 1200] * 2


def test_a_split_ends_at_rounded_multiples_of_the_row_count() -> None:
    parts = train_val_test_split(range(7), range(7))  # 4.9 and 5.95
    assert [len(part) for part in parts[:3]] == [5, 1, 1]


def test_a_share_of_0_is_empty_where_the_others_sum_to_a_little_less_than_1() -> None:
    rows = np.zeros(2_000_000, np.uint8)
    parts = train_val_test_split(rows, rows, 0.7, 0.3 - 5e-7, 0.0)
    assert len(parts[2]) == 0


def test_a_split_is_shuffled_by_its_seed() -> None:
    rows = np.arange(100)
    first = train_val_test_split(rows, rows, seed=3)
    assert same(first, train_val_test_split(rows, rows, seed=3))
    assert not np.array_equal(first[0], train_val_test_split(rows, rows, seed=4)[0])
    assert not np.array_equal(first[0], np.sort(first[0]))


def test_a_split_keeps_dtypes_and_shapes_and_leaves_its_inputs_alone() -> None:
    X, y = np.arange(120, dtype=np.uint8).reshape(20, 1, 2, 3), np.arange(20, dtype=np.int16)
    X.flags.writeable = y.flags.writeable = False
    parts = train_val_test_split(X, y, 0.5, 0.25, 0.25)
    assert [p.shape for p in parts[:3]] == [(10, 1, 2, 3), (5, 1, 2, 3), (5, 1, 2, 3)]
    assert {p.dtype for p in parts[:3]} == {X.dtype}
    assert {p.dtype for p in parts[3:]} == {y.dtype}
    assert not any(np.shares_memory(p, X) or np.shares_memory(p, y) for p in parts)
    assert all(p.flags.writeable for p in parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_split_takes_the_shares_that_rounding_leaves_near_1(dtype: type) -> None:
    parts = train_val_test_split(range(10), range(10), dtype(0.1), dtype(0.2), dtype(0.7))
    assert [len(p) for p in parts[:3]] == [1, 2, 7]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"train_pct": math.nan}, "train_pct is nan"),
        ({"val_pct": math.inf}, "val_pct is inf"),
        ({"test_pct": -0.15}, "test_pct is -0.15"),
        ({"train_pct": 70}, "train_pct is 70, expected a fraction from 0 to 1"),
        ({"train_pct": "0.7"}, "train_pct is '0.7'"),
        ({"val_pct": None}, "val_pct is None"),
        ({"train_pct": 0.8}, r"train_pct \+ val_pct \+ test_pct is 1.1, expected 1"),
        ({"test_pct": 0.14}, "is 0.99, expected 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"y": np.zeros(9)}, "X has 10 rows and y has 9"),
        ({"X": 3.0}, "X is a scalar"),
        ({"y": [[1], [1, 2]]}, "y is not an array"),
        ({"y": np.ma.masked_less(np.arange(10), 3)}, "y: got 3 masked entries"),
    ],
)
def test_a_bad_argument_of_a_split_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(gemmc.DataError, match=message):
        train_val_test_split(**{"X": np.zeros((10, 2)), "y": np.zeros(10), **arguments})


def test_the_subset_is_images_and_labels_of_which_every_class_has_as_many() -> None:
    X_train, y_train, X_test, y_test = fashion_mnist(subset=True)
    for X, y, per_class in [(X_train, y_train, 600), (X_test, y_test, 100)]:
        assert (X.shape, X.dtype) == ((10 * per_class, 1, 28, 28), np.uint8)
        assert (y.shape, y.dtype) == ((10 * per_class,), np.int64)
        assert np.bincount(y).tolist() == [per_class] * 10


def test_the_subset_is_shuffled() -> None:
    y = fashion_mnist(subset=True)[1]
    assert len(np.unique(y[:100])) == 10


def test_whoever_loads_the_subset_may_write_it() -> None:
    first = fashion_mnist(subset=True)
    for array in first:
        array[:] = 0
    assert all(array.any() for array in fashion_mnist(subset=True))


def test_a_damaged_subset_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    file = tmp_path / datasets.SUBSET_FILE
    file.parent.mkdir()
    for content in [b"", b"PK\x03\x04 and no more", b"not a zip file"]:
        file.write_bytes(content)
        with pytest.raises(gemmc.DataError, match="fashion_mnist_subset.npz.*install gemmc again"):
            fashion_mnist(subset=True)


@whole_set
def test_the_whole_set_has_6000_and_1000_images_of_each_class() -> None:
    X_train, y_train, X_test, y_test = fashion_mnist(datasets.DEBIAN_FOLDER)
    for X, y, per_class in [(X_train, y_train, 6000), (X_test, y_test, 1000)]:
        assert (X.shape, X.dtype) == ((10 * per_class, 1, 28, 28), np.uint8)
        assert y.dtype == np.int64
        assert np.bincount(y).tolist() == [per_class] * 10
        assert X.flags.writeable
        assert (X.min(), X.max()) == (0, 255)


@whole_set
def test_the_subset_comes_from_the_whole_set_and_repeats_nothing_that_it_does_not() -> None:
    whole, part = fashion_mnist(datasets.DEBIAN_FOLDER), fashion_mnist(subset=True)
    for i in (0, 2):
        counts = [
            Counter((X.tobytes(), int(label)) for X, label in zip(*pair, strict=True))
            for pair in (part[i : i + 2], whole[i : i + 2])
        ]
        assert counts[0] <= counts[1]


@whole_set
def test_the_subset_is_what_the_tool_makes() -> None:
    made = _tool().subset(str(datasets.DEBIAN_FOLDER))
    assert list(made) == ["X_train", "y_train", "X_test", "y_test"]
    assert same(made.values(), fashion_mnist(subset=True))


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_fashion_subset", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
