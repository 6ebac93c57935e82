"""All ops, one declaration each; importing this package fills the registry `OPS`."""

from . import block, conv, linalg, pointwise, pool, pooled, random, reduce, shape, winograd

__all__ = [
    "block",
    "conv",
    "linalg",
    "pointwise",
    "pool",
    "pooled",
    "random",
    "reduce",
    "shape",
    "winograd",
]
