"""`gemmc.ops`: what the `forward` of a layer or a loss is written with, besides operators.

All take and return traced values. Shapes are PyTorch's: images [N, C, H, W], features [N, F].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir import CompileError
from ..ir.types import N, TensorType
from .arguments import pair
from .value import Number, Value, broadcast_shape, cast, expand, lift

__all__ = [
    "abs", "cast", "conv2d", "correct", "dropout", "exp", "flatten", "log", "log_softmax",
    "matmul", "max", "max_pool2d", "mean", "one_hot", "pad", "relu", "reshape", "sigmoid",
    "softmax", "sqrt", "sum", "tanh", "transpose", "where",
]  # fmt: skip

Pair = tuple[int, int]
_SCALAR = TensorType((), "i64")


def relu(x: Value) -> Value:
    """max(x, 0); NaN stays NaN."""
    return x.make("relu")


def exp(x: Value) -> Value:
    """e to the x."""
    return x.make("exp")


def log(x: Value) -> Value:
    """The natural logarithm."""
    return x.make("log")


def sqrt(x: Value) -> Value:
    """The square root."""
    return x.make("sqrt")


def tanh(x: Value) -> Value:
    """The hyperbolic tangent."""
    return x.make("tanh")


def abs(x: Value) -> Value:
    """x without its sign; its gradient at 0 is that of x."""
    return where(x < 0.0, -x, x)


def sigmoid(x: Value) -> Value:
    """1/(1 + exp(-x)), as (1 + tanh(x/2))/2, which never overflows."""
    return tanh(x * 0.5) * 0.5 + 0.5


def where(condition: Value, x: Value | Number, y: Value | Number) -> Value:
    """x where the condition, a comparison, holds, else y; numbers and scalars are repeated."""
    a, b = (
        lift(v, x if isinstance(x, Value) else y if isinstance(y, Value) else condition)
        for v in (x, y)
    )
    shape = broadcast_shape(condition.shape, broadcast_shape(a.shape, b.shape))
    return expand(condition, shape).make("where", expand(a, shape), expand(b, shape))


def matmul(x: Value, w: Value) -> Value:
    """x [..., K] by w [K, M]: [..., M]. The leading axes of x are rows."""
    return x.make("matmul", w)


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """Each row of x in the shape `shape`, which leaves out the batch."""
    return x.make("reshape", shape=(*x.shape[:1], *shape))


def flatten(x: Value) -> Value:
    """[N, ...] to [N, F]."""
    return reshape(x, (math.prod(x.shape[1:]),))


def transpose(x: Value, perm: Sequence[int]) -> Value:
    """Axes in the order `perm`; the first stays the batch."""
    return x.make("transpose", perm=tuple(perm))


def pad(x: Value, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Value:
    """x with `low[i]` and `high[i]` entries of `value` around each axis; none around the batch."""
    return x.make("pad", low=tuple(low), high=tuple(high), value=float(value))


def sum(x: Value, axes: int | Sequence[int] | None = None) -> Value:
    """The sum over `axes` (all by default), which are dropped."""
    return x.make("sum", axes=_axes(x, axes))


def mean(x: Value, axes: int | Sequence[int] | None = None) -> Value:
    """The mean over `axes` (all by default), which are dropped; axis 0 is this batch's rows."""
    over = _axes(x, axes)
    total = sum(x, over) * (1.0 / math.prod(x.shape[a] for a in over if x.shape[a] is not N))
    if x.shape[:1] == (N,) and 0 in over:
        total = total * Value(x.trace, x.trace.builder.rows_reciprocal(dtype=x.dtype))
    return total


def max(x: Value, axes: int | Sequence[int]) -> Value:
    """The largest entry over `axes`, which are dropped and do not include the batch."""
    return x.make("max", axes=_axes(x, axes))


def softmax(x: Value, dim: int = 1) -> Value:
    """exp(x) over its sum along `dim`."""
    return x.make("softmax", axis=_axes(x, (dim,))[0])


def log_softmax(x: Value, dim: int = 1) -> Value:
    """The logarithm of softmax, stable."""
    return x.make("log_softmax", axis=_axes(x, (dim,))[0])


def one_hot(labels: Value, classes: int) -> Value:
    """true at each row's label: [N] integers to [N, classes] booleans, for `where`."""
    return labels.make("one_hot", classes=classes)


def correct(scores: Value, labels: Value) -> Value:
    """Whether the largest of each row's scores is at its label."""
    return scores.make("correct", labels)


def conv2d(x: Value, weight: Value, stride: int | Pair = 1, padding: int | Pair = 0) -> Value:
    """Cross-correlation of x [N, C, H, W] with weight [O, C, kh, kw]: [N, O, Ho, Wo]."""
    strides, pads = pair("conv2d", "stride", stride), pair("conv2d", "padding", padding, least=0)
    return x.make("conv2d", weight, stride=strides, padding=pads)


def max_pool2d(
    x: Value,
    kernel: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
) -> Value:
    """The maximum of each window of x [N, C, H, W]; the stride defaults to the kernel."""
    attrs = {
        "kernel": pair("max_pool2d", "kernel", kernel),
        "stride": pair("max_pool2d", "stride", kernel if stride is None else stride),
        "padding": pair("max_pool2d", "padding", padding, least=0),
    }
    pooled = x.trace.builder.max_pool2d(x.node, **attrs)
    return Value(x.trace, x.trace.builder.item(pooled, index=0))


def dropout(x: Value, p: float = 0.5) -> Value:
    """While training, x with each element zeroed with probability p and the rest scaled by 1/(1-p).

    Drawn from (the model's seed, step, where in the model), the same on every runtime; see
    `gemmc.ir.ops.random`. In evaluation, x.
    """
    if not x.trace.training or p == 0.0:
        return x
    seed, step = (x.trace.input(name, _SCALAR) for name in ("seed", "step"))
    attrs = {"shape": x.shape, "p": float(p), "key": x.trace.next_key(), "dtype": x.dtype}
    return x * seed.make("dropout_mask", step, **attrs)


def _axes(x: Value, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    rank = len(x.shape)
    if axes is None:
        return tuple(range(rank))
    given = tuple(axes) if isinstance(axes, Sequence) else (int(axes),)
    if any(not -rank <= a < rank for a in given):
        raise CompileError(f"axes: got {given}, expected axes of {x.shape}")
    return tuple(sorted({a % rank for a in given}))
