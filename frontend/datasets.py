"""The two data sets of the examples, and the split that goes with them.

`spiral` is computed, `fashion_mnist` is read: from the four IDX files of the whole set, found or
downloaded, or from the subset that ships with the package. Files are checked field by field before
their contents are believed, and whatever does not fit is a `DataError` with the file and the field
in it.
"""

from __future__ import annotations

import importlib.resources
import operator
import os
import zipfile
import zlib
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ir import environment
from ..ir.errors import DataError
from . import idx
from .batches import refuse_masked

__all__ = ["fashion_mnist", "spiral", "train_val_test_split"]

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

CLASSES = 10
SIDE = 28  # pixels
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
SUBSET_FILE = "data/fashion_mnist_subset.npz"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def spiral(
    points: int = 1000, classes: int = 8, seed: int = 0
) -> tuple[NDArray[np.float32], Labels]:
    """`X [points * classes, 2]` and labels `y [points * classes]`: one spiral arm for each class.

    Point i of the arm of class j is `(r sin t, r cos t)`, where r goes evenly from 0 to 1, t goes
    evenly from 4 j to 4 (j + 1) radians, and t carries normal noise of deviation 0.2. Rows come
    class by class; `train_val_test_split` shuffles them. The same seed gives the same arms, and
    more classes only add arms. With 8 classes neighbours overlap: about 86% can be learned by
    Linear(2, 32), ReLU, Linear(32, 16), ReLU, Linear(16, 8) in 100 epochs.

    Source: CS231n, "Putting it together: minimal neural network case study", with K classes.
    """
    points = _whole("spiral: points", points, least=1)
    classes = _whole("spiral: classes", classes, least=1)
    rng = np.random.default_rng(_whole("spiral: seed", seed, least=0))
    arm = np.arange(classes)
    r = np.linspace(0.0, 1.0, points)
    t = np.linspace(4.0 * arm, 4.0 * (arm + 1), points, axis=1)
    t += 0.2 * rng.standard_normal((classes, points))
    X = np.stack([r * np.sin(t), r * np.cos(t)], axis=-1).astype(np.float32)
    return X.reshape(-1, 2), np.repeat(arm.astype(np.int64), points)


def fashion_mnist(
    root: str | os.PathLike[str] | None = None, subset: bool = False
) -> tuple[Pixels, Labels, Pixels, Labels]:
    """`X_train [60000, 1, 28, 28], y_train [60000], X_test [10000, 1, 28, 28], y_test [10000]`.

    Pixels are uint8, 0 for the background; labels are int64, 0 to 9, equally many of each. The four
    IDX files (`train-images-idx3-ubyte` and so on, plain or `.gz`) are read from the folder `root`;
    without it from the folder GEMMC_DATA; without either from the first that has all four of
    `gemmc/fashion-mnist` in the user's cache folder and where Debian's package
    dataset-fashion-mnist puts them; else they are downloaded to the cache folder, 30 MB, once.

    `subset=True` reads 600 training and 100 test images of each class, chosen by a seed, from a
    file that ships with gemmc; it needs neither the files nor a folder. The arrays belong to the
    caller.

    Raises DataError if a file is missing or damaged, or cannot be downloaded; then nothing was
    loaded.
    Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST", arXiv 1708.07747.
    """
    if not isinstance(subset, bool | np.bool):
        raise DataError(f"fashion_mnist: subset is {subset!r}, expected True or False")
    if subset and root is not None:
        raise DataError(
            f"fashion_mnist: got root={root!r} and subset=True, but the subset ships with gemmc: "
            "leave one of them out"
        )
    if subset:
        return _load_subset()
    folder = _fashion_mnist_folder(root)
    y_train = _read_labels(folder, "train-labels-idx1-ubyte", TRAIN_IMAGES)
    y_test = _read_labels(folder, "t10k-labels-idx1-ubyte", TEST_IMAGES)
    X_train = _read_images(folder, "train-images-idx3-ubyte", TRAIN_IMAGES)
    X_test = _read_images(folder, "t10k-images-idx3-ubyte", TEST_IMAGES)
    return X_train, y_train, X_test, y_test


def train_val_test_split(
    X: ArrayLike,
    y: ArrayLike,
    train_pct: float = 0.7,
    val_pct: float = 0.15,
    test_pct: float = 0.15,
    seed: int = 0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """`X_train, X_val, X_test, y_train, y_val, y_test`: the rows, shuffled by `seed` and dealt out.

    Every row of X, with its row of y, lands in exactly one part. The parts end at the rounded
    multiples of the row count, so each is within one row of its share; a share of 0 is empty. The
    shares are fractions that sum to 1. The results are copies and keep their dtypes.

    Raises DataError for shares outside [0, 1] or with another sum, and for X and y of two lengths.
    """
    shares = [
        _share("train_pct", train_pct),
        _share("val_pct", val_pct),
        _share("test_pct", test_pct),
    ]
    total = sum(shares)
    if abs(total - 1.0) > 1e-6:
        raise DataError(
            f"train_val_test_split: train_pct + val_pct + test_pct is {total:g}, expected 1"
        )
    X, y = _rows("X", X), _rows("y", y)
    if len(X) != len(y):
        raise DataError(
            f"train_val_test_split: X has {len(X)} rows and y has {len(y)}, expected as many"
        )
    seed = _whole("train_val_test_split: seed", seed, least=0)
    order = np.random.default_rng(seed).permutation(len(X))
    # Divided by the total, so that a test share of 0 leaves no row behind to rounding.
    ends = [round(len(X) * share / total) for share in (shares[0], shares[0] + shares[1])]
    train, val, test = np.split(order, ends)
    return X[train], X[val], X[test], y[train], y[val], y[test]


def _whole(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise DataError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return number


def _share(name: str, value: float) -> float:
    if not isinstance(value, Real) or not 0.0 <= value <= 1.0:  # NaN compares false
        raise DataError(
            f"train_val_test_split: {name} is {value!r}, expected a fraction from 0 to 1"
        )
    return float(value)


def _rows(name: str, value: ArrayLike) -> NDArray[Any]:
    refuse_masked(f"train_val_test_split: {name}", value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"train_val_test_split: {name} is not an array: {error}") from error
    if array.ndim == 0:
        raise DataError(f"train_val_test_split: {name} is a scalar, expected an array of rows")
    return array


def _fashion_mnist_folder(root: str | os.PathLike[str] | None) -> Path:
    if root is not None:
        if not isinstance(root, str | os.PathLike):
            raise DataError(f"fashion_mnist: root is {root!r}, expected the path of a folder")
        return _given_folder("root", Path(root))
    named, caches = environment.data_folder(), environment.cache_folder()
    if named is not None:
        return _given_folder("GEMMC_DATA", named)
    cache = None if caches is None else caches / "fashion-mnist"
    for folder in (cache, DEBIAN_FOLDER):
        if folder is not None and all(idx.find(folder, name) for name in FILES):
            return folder
    from . import download  # 20 ms, and most often the files are there

    return download.complete(cache)


def _given_folder(source: str, folder: Path) -> Path:
    """`folder`, which must have all four files: what is named is never replaced by a download."""
    if not os.path.isdir(folder):  # Path.is_dir raises where we may not look
        raise DataError(f"fashion_mnist: {source} is {str(folder)!r}, which is not a folder")
    for name in FILES:
        if idx.find(folder, name) is None:
            raise DataError(
                f"fashion_mnist: {source}: no file {name} or {name}.gz in {folder}: put all four "
                f"IDX files of Fashion-MNIST there, or leave {source} out to look elsewhere"
            )
    return folder


def _read_images(folder: Path, name: str, count: int) -> Pixels:
    dims = {"number of images": count, "rows": SIDE, "columns": SIDE}
    pixels = idx.read(_path(folder, name), idx.IMAGES_MAGIC, dims)
    return pixels.reshape(count, 1, SIDE, SIDE)


def _read_labels(folder: Path, name: str, count: int) -> Labels:
    path = _path(folder, name)
    labels = idx.read(path, idx.LABELS_MAGIC, {"number of labels": count})
    if labels.max() >= CLASSES:
        first = int(np.argmax(labels >= CLASSES))
        raise DataError(f"fashion_mnist: {path}: label {first} is {labels[first]}, expected 0 to 9")
    return labels.astype(np.int64)


def _path(folder: Path, name: str) -> Path:
    return idx.find(folder, name) or folder / name  # which was there, and idx.read looks again


def _load_subset() -> tuple[Pixels, Labels, Pixels, Labels]:
    resource = importlib.resources.files(__package__).joinpath(SUBSET_FILE)
    try:
        with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            X_train, y_train = arrays["X_train"], arrays["y_train"]
            X_test, y_test = arrays["X_test"], arrays["y_test"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"fashion_mnist: {resource}: {error}: install gemmc again") from error
    return X_train, y_train.astype(np.int64), X_test, y_test.astype(np.int64)
