"""All ops, one declaration each; importing this package fills the registry `OPS`."""

from . import block, conv, linalg, pointwise, pool, pooled, random, reduce, shape

__all__ = ["block", "conv", "linalg", "pointwise", "pool", "pooled", "random", "reduce", "shape"]
