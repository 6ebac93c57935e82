"""Whether contenders train the same: losses and outputs from equal weights, before any timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..ir import GemmcError
from .peers import TORCH

STEPS = 20
# Relative distances of losses. From equal weights, and after one update, 2e-7 is rounding. Now and
# then that puts an activation on the other side of a ReLU's kink, or lets another entry win a
# pool's window: jumps of up to 1e-4 were met, which deep networks let grow tenfold a step. PyTorch,
# eager and tuned, was 12% apart after 20 steps of the small VGG. A bias whose gradient is missing,
# or a gradient of the wrong sign, showed after one update in nearly all of 55 models.
FIRST, SECOND = 2e-6, 1e-5  # before any update, and after one
JUMP, GROWTH = 3e-4, 60  # later: from nothing, or times what it was before
OUTPUT_TOLERANCE = 1e-4  # of the largest: orders of summation in float32, and some room


class Parted(GemmcError):
    """A contender does not compute what the others do."""


def reference(names: Sequence[str]) -> str:
    """Whom the others are compared with: PyTorch where it takes part, else the first."""
    return next((name for name in TORCH if name in names), names[0])


def check_losses(losses: Mapping[str, Sequence[float]]) -> float:
    """The largest relative distance from the reference's losses; Parted if it is no rounding."""
    first = reference(list(losses))
    expected = np.array(losses[first])
    furthest = 0.0
    for name, values in losses.items():
        apart = np.abs(values - expected) / np.abs(expected)
        allowed = np.maximum(JUMP, GROWTH * np.maximum.accumulate(apart))
        allowed = np.array([FIRST, SECOND, *allowed[1:-1]])[: len(apart)]
        _refuse(name, values, first, expected, apart <= allowed, "loss of step")
        furthest = max(furthest, float(apart.max()))
    return furthest


def check_outputs(outputs: Mapping[str, Sequence[float]]) -> None:
    """Parted if a contender's outputs for a batch are not the reference's."""
    first = reference(list(outputs))
    expected = np.array(outputs[first])
    for name, values in outputs.items():
        near = np.abs(values - expected) <= OUTPUT_TOLERANCE * np.abs(expected).max()
        _refuse(name, values, first, expected, near, "output")


def _refuse(
    name: str,
    values: Sequence[float],
    first: str,
    expected: np.ndarray,
    near: np.ndarray,
    what: str,
) -> None:
    """Parted, with the first value that is not near what was expected; NaN is near nothing."""
    if not near.all():
        i = int(np.argmin(near))
        raise Parted(
            f"{name}: {what} {i + 1} is {values[i]:.7g}, {first}'s {expected[i]:.7g}, from equal "
            "weights without dropout: they do not compute the same"
        )
