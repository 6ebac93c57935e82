"""A grid of small convolutional networks: channels, image size, kernel, stride and batch.

Each is `conv c k, ReLU, conv c k s, ReLU, pool, linear 10` on square images of three channels; the
second convolution, from c to c channels, has the stride and most of the work. The pool is left out
where less than four pixels would be left. As in the sample, a network is kept if a step of training
is at most 20 GFLOP and 2 GB.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from ..ir import DataError
from .sample import Layers, Sample, output_shape

# The ends are what is small and what is large on a CPU. 108 places, 105 networks.
GRID = {
    "channels": (4, 16, 64),
    "image": (8, 28),
    "kernel": (1, 3, 5),
    "stride": (1, 2),
    "batch": (1, 32, 256),
}
CLASSES = 10


def grid_models(sides: Mapping[str, Sequence[int]]) -> tuple[Sample, ...]:
    """The networks of a grid with GRID's sides, each with its place; too large ones are left out.

    Numbers count the places, also of those left out. DataError names a side with a number below 1.
    """
    for side, values in sides.items():
        if not values or min(values) < 1:
            raise DataError(f"--{side}: got {list(values)}, expected numbers of at least 1")
    places = itertools.product(*(sides[side] for side in GRID))
    made = (_network(n, dict(zip(GRID, place, strict=True))) for n, place in enumerate(places))
    return tuple(sample for sample in made if sample.is_within_limits())


def _network(number: int, place: dict[str, int]) -> Sample:
    c, side, kernel, stride, batch = (place[name] for name in GRID)
    sizes = {"kernel_size": kernel, "padding": kernel // 2}
    layers: Layers = (
        ("Conv2d", {"in_channels": 3, "out_channels": c, "stride": 1, **sizes}),
        ("ReLU", {}),
        ("Conv2d", {"in_channels": c, "out_channels": c, "stride": stride, **sizes}),
        ("ReLU", {}),
    )
    input_shape = (3, side, side)
    if output_shape(layers, input_shape)[1] >= 4:
        layers += (("MaxPool2d", {"kernel_size": 2}),)
    features = math.prod(output_shape(layers, input_shape))
    linear = ("Linear", {"in_features": features, "out_features": CLASSES})
    return Sample(number, batch, input_shape, (*layers, ("Flatten", {}), linear), place)
