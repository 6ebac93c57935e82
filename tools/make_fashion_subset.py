"""Makes the subset of Fashion-MNIST that ships with gemmc: `make data`.

Takes the folder of the IDX files as argument, if they are not where Debian puts them.
600 training and 100 test images of every class, without repeats, chosen and shuffled by one seeded
generator. The same IDX files give the same arrays; with the same zlib, the same bytes as well
(NumPy dates the entries of an .npz 1980-01-01).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmc.frontend import datasets

SEED = 2017  # the year of Fashion-MNIST
TRAIN_PER_CLASS, TEST_PER_CLASS = 600, 100


def choose(labels: NDArray[np.int64], per_class: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Shuffled rows in which each class of `labels [N]` has exactly `per_class` entries."""
    classes = range(datasets.CLASSES)
    rows = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in classes]
    return rng.permutation(np.concatenate(rows))


def subset(root: str | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of the subset under their names in the file; labels are uint8 there."""
    X_train, y_train, X_test, y_test = datasets.fashion_mnist(root)
    rng = np.random.default_rng(SEED)
    train = choose(y_train, TRAIN_PER_CLASS, rng)
    test = choose(y_test, TEST_PER_CLASS, rng)
    return {
        "X_train": X_train[train],
        "y_train": y_train[train].astype(np.uint8),
        "X_test": X_test[test],
        "y_test": y_test[test].astype(np.uint8),
    }


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "frontend" / datasets.SUBSET_FILE
    np.savez_compressed(target, allow_pickle=False, **subset(*sys.argv[1:2]))
    print(f"{target}: {target.stat().st_size} bytes")
