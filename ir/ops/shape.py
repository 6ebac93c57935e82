"""Ops that make, move and cut values without computing on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Op, register
from ..types import DTYPES, N, TensorType, TupleType, axes_product


@register
class Input(Op):
    """A value given from outside under `name`."""

    attrs = {"name": REQUIRED}
    differentiable = False


@register
class Full(Op):
    """A tensor in which every element is `value`."""

    kinds = ""
    attrs = {"shape": REQUIRED, "value": REQUIRED, "dtype": "f32"}
    examples = ("full {shape=(N, 3), value=0.5}", "full {shape=(), value=2.0, dtype='f64'}")

    def infer(self, *, shape: tuple, value: float, dtype: str) -> TensorType:
        return TensorType(shape, dtype)

    def evaluate(self, xp: Any, *, shape: tuple, value: float, dtype: str) -> Any:
        return np.full(shape, value, DTYPES[dtype])

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return ()


@register
class RowsReciprocal(Op):
    """1/N: what a sum over the batch is multiplied by to become its mean."""

    kinds = ""
    attrs = {"dtype": "f32", "rows": N}
    examples = ("rows_reciprocal",)

    def infer(self, *, dtype: str, rows: Any) -> TensorType:
        return TensorType((), dtype)

    def evaluate(self, xp: Any, *, dtype: str, rows: int) -> Any:
        return np.asarray(1.0 / rows, DTYPES[dtype])

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return ()


@register
class Broadcast(Op):
    """x repeated: its axis i becomes axis `axes[i]` of `shape`. Gradient: the sum over the rest."""

    kinds = "a"
    attrs = {"shape": REQUIRED, "axes": ()}
    examples = (
        "broadcast f32[4] {shape=(N, 4, 3), axes=(1,)}",
        "broadcast f32[] {shape=(N, 3)}",
        "broadcast f32[N] {shape=(N, 3), axes=(0,)}",
    )

    def infer(self, x: TensorType, *, shape: tuple, axes: tuple) -> TensorType:
        if len(axes) != x.rank or not increasing(axes, len(shape)):
            raise CompileError(f"broadcast: axes {axes} do not place {x} in increasing order")
        if any(shape[a] != d for a, d in zip(axes, x.shape, strict=True)):
            raise CompileError(f"broadcast: {x} does not fit {shape} at axes {axes}")
        return TensorType(shape, x.dtype)

    def evaluate(self, xp: Any, x: Any, *, shape: tuple, axes: tuple) -> Any:
        placed = [shape[i] if i in axes else 1 for i in range(len(shape))]
        return np.broadcast_to(np.reshape(x, placed), shape)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        axes = tuple(i for i in range(len(node.shape)) if i not in node.attrs["axes"])
        return (b.sum(g, axes=axes) if axes else g,)


@register
class Reshape(Op):
    """The same elements, in the same order, in another shape. Gradient: g reshaped back."""

    kinds = "a"
    attrs = {"shape": REQUIRED}
    examples = ("reshape f32[N,4,3] {shape=(N, 12)}", "reshape f32[6] {shape=(2, 3)}")

    def infer(self, x: TensorType, *, shape: tuple) -> TensorType:
        if axes_product(x.shape) != axes_product(shape):
            raise CompileError(f"reshape: {x} has not the elements of {shape}")
        return TensorType(shape, x.dtype)

    def evaluate(self, xp: Any, x: Any, *, shape: tuple) -> Any:
        return np.reshape(x, shape)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.reshape(g, shape=node.inputs[0].shape),)


@register
class Transpose(Op):
    """Axes in another order: axis i of the result is axis `perm[i]` of x. Gradient: the inverse."""

    kinds = "a"
    attrs = {"perm": REQUIRED}
    examples = ("transpose f32[N,4,3,2] {perm=(0, 2, 3, 1)}", "transpose f32[4,3] {perm=(1, 0)}")

    def infer(self, x: TensorType, *, perm: tuple) -> TensorType:
        if sorted(perm) != list(range(x.rank)):
            raise CompileError(f"transpose: {perm} is no order of the axes of {x}")
        return TensorType(tuple(x.shape[p] for p in perm), x.dtype)

    def evaluate(self, xp: Any, x: Any, *, perm: tuple) -> Any:
        return np.transpose(x, perm)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.transpose(g, perm=inverse(node.attrs["perm"])),)


@register
class Reverse(Op):
    """x backwards along `axes`. Gradient: g backwards."""

    kinds = "a"
    attrs = {"axes": REQUIRED}
    examples = ("reverse f32[3,4,2] {axes=(0, 1)}",)

    def infer(self, x: TensorType, *, axes: tuple) -> TensorType:
        if not increasing(axes, x.rank) or (x.per_row and 0 in axes):
            raise CompileError(f"reverse: {x} has no axes {axes}, or they are rows")
        return x

    def evaluate(self, xp: Any, x: Any, *, axes: tuple) -> Any:
        return np.flip(x, axes)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.reverse(g, axes=node.attrs["axes"]),)


@register
class Pad(Op):
    """x with `low[i]` and `high[i]` entries of `value` around axis i. Gradient: g without them."""

    kinds = "f"
    attrs = {"low": REQUIRED, "high": REQUIRED, "value": 0.0}
    examples = (
        "pad f32[N,4,3,2] {low=(0, 1, 2, 0), high=(0, 1, 0, 0)}",
        "pad f32[N,4] {low=(0, 1), high=(0, 1), value=-1.5}",
    )

    def infer(self, x: TensorType, *, low: tuple, high: tuple, value: float) -> TensorType:
        if not len(low) == len(high) == x.rank or min(*low, *high) < 0:
            raise CompileError(f"pad: {low} and {high} do not fit {x}")
        if x.per_row and (low[0] or high[0]):
            raise CompileError("pad: rows cannot be padded")
        wide = [d + lo + hi if lo + hi else d for d, lo, hi in zip(x.shape, low, high, strict=True)]
        return TensorType(tuple(wide), x.dtype)

    def evaluate(self, xp: Any, x: Any, *, low: tuple, high: tuple, value: float) -> Any:
        width = tuple(zip(low, high, strict=True))
        return np.pad(x, width, constant_values=np.asarray(value, x.dtype))

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        size = node.inputs[0].shape
        return (b.slice(g, start=node.attrs["low"], size=size),)


@register
class Slice(Op):
    """`size[i]` entries of x from `start[i]` along axis i. Gradient: g with zeros around it."""

    kinds = "a"
    attrs = {"start": REQUIRED, "size": REQUIRED}
    examples = ("slice f32[N,5,4,2] {start=(0, 1, 2, 0), size=(N, 3, 2, 2)}",)

    def infer(self, x: TensorType, *, start: tuple, size: tuple) -> TensorType:
        if not len(start) == len(size) == x.rank:
            raise CompileError(f"slice: {start} and {size} do not fit {x}")
        for have, lo, want in zip(x.shape, start, size, strict=True):
            whole = lo == 0 and have == want
            known = isinstance(have, int) and isinstance(want, int)
            if not whole and (not known or lo < 0 or lo + want > have):
                raise CompileError(f"slice: {start} and {size} reach outside {x}")
        return TensorType(size, x.dtype)

    def evaluate(self, xp: Any, x: Any, *, start: tuple, size: tuple) -> Any:
        return x[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        have, start, size = node.inputs[0].shape, node.attrs["start"], node.attrs["size"]
        zipped = zip(have, start, size, strict=True)
        high = tuple(0 if h == n else h - s - n for h, s, n in zipped)
        return (b.pad(g, low=start, high=high),)


@register
class OneHot(Op):
    """true at the label of each row, false elsewhere; labels must lie in [0, classes)."""

    kinds = "i"
    attrs = {"classes": REQUIRED}
    examples = ("one_hot i64[N] {classes=4}",)
    domain = (0, 4)

    def infer(self, labels: TensorType, *, classes: int) -> TensorType:
        if labels.rank != 1:
            raise CompileError(f"one_hot: got labels {labels}, expected i64[N]")
        return TensorType((*labels.shape, classes), "bool")

    def evaluate(self, xp: Any, labels: Any, *, classes: int) -> Any:
        return labels[:, None] == np.arange(classes)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (None,)


@register
class Item(Op):
    """One result of an op that has several."""

    attrs = {"index": REQUIRED}
    differentiable = False  # autodiff hands the gradient of item 0 to the op itself

    def infer(self, x: TupleType, *, index: int) -> TensorType:
        if not isinstance(x, TupleType) or not 0 <= index < len(x.items):
            raise CompileError(f"item: {x} has no item {index}")
        return x.items[index]

    def evaluate(self, xp: Any, x: tuple, *, index: int) -> Any:
        return x[index]


def increasing(axes: tuple[int, ...], rank: int) -> bool:
    """Whether `axes` are axes of a tensor of that rank, in increasing order."""
    return list(axes) == sorted(set(axes)) and all(0 <= a < rank for a in axes)


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(perm.index(i) for i in range(len(perm)))
