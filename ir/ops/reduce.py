"""Reductions, and the two that are one op for the sake of stability: softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Op, register
from ..types import TensorType
from .pointwise import full_like
from .shape import increasing


def _kept(rank: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i for i in range(rank) if i not in axes)


def spread(b: Builder, x: Node, like: Node, axes: tuple[int, ...]) -> Node:
    """x, the result of a reduction of `like` over `axes`, repeated over them again."""
    return b.broadcast(x, shape=like.shape, axes=_kept(len(like.shape), axes))


class _Reduction(Op):
    kinds = "f"
    attrs = {"axes": REQUIRED}

    def infer(self, x: TensorType, *, axes: tuple) -> TensorType:
        if not axes or not increasing(axes, x.rank):
            raise CompileError(f"{self.name}: axes {axes} are not axes of {x} in increasing order")
        return TensorType(tuple(x.shape[i] for i in _kept(x.rank, axes)), x.dtype)


@register
class Sum(_Reduction):
    """The sum over `axes`. Gradient: g, repeated."""

    examples = (
        "sum f32[N,4,3] {axes=(0, 1)}",
        "sum f32[N,4] {axes=(1,)}",
        "sum f32[N] {axes=(0,)}",
        "sum f32[N,3,2,4] {axes=(0, 2, 3)}",
    )

    def evaluate(self, xp: Any, x: Any, *, axes: tuple) -> Any:
        return np.sum(x, axes)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (spread(b, g, node.inputs[0], node.attrs["axes"]),)


@register
class Max(_Reduction):
    """The largest entry over `axes`, NaN if there is one. Gradient: g shared by those that tie."""

    examples = ("max f32[N,4] {axes=(1,)}", "max f32[N,4,3] {axes=(1, 2)}")

    def infer(self, x: TensorType, *, axes: tuple) -> TensorType:
        if x.per_row and 0 in axes:
            raise CompileError("max: the rows of a batch are only ever summed")
        return super().infer(x, axes=axes)

    def evaluate(self, xp: Any, x: Any, *, axes: tuple) -> Any:
        return np.max(x, axes)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        (x,), axes = node.inputs, node.attrs["axes"]
        tie = b.equal(x, spread(b, node, x, axes))
        share = b.div(g, b.sum(b.cast(tie, dtype=x.dtype), axes=axes))
        return (b.where(tie, spread(b, share, x, axes), full_like(b, x, 0.0)),)


@register
class Correct(Op):
    """Whether the largest score of each row is at its label: the first of those that tie."""

    kinds = "fi"
    examples = ("correct f32[N,4], i64[N]",)
    domain = (0, 4)

    def infer(self, scores: TensorType, labels: TensorType) -> TensorType:
        if scores.rank != 2 or labels.shape != scores.shape[:1]:
            raise CompileError(f"correct: got {scores} and {labels}, expected f32[N,C] and i64[N]")
        return TensorType(labels.shape, "bool")

    def evaluate(self, xp: Any, scores: Any, labels: Any) -> Any:
        return np.argmax(scores, 1) == labels

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return None, None


class _Softmax(Op):
    kinds = "f"
    attrs = {"axis": 1}

    def infer(self, x: TensorType, *, axis: int) -> TensorType:
        if not 0 < axis < x.rank:
            raise CompileError(f"{self.name}: axis {axis} is not one of {x} behind the rows")
        return x


@register
class Softmax(_Softmax):
    """exp(x) over its sum along `axis`, computed from x - max(x). Gradient: y*(g - sum(g*y))."""

    examples = ("softmax f32[N,5]", "softmax f32[N,3,4] {axis=2}")

    def evaluate(self, xp: Any, x: Any, *, axis: int) -> Any:
        e = np.exp(x - np.max(x, axis, keepdims=True))
        return e / np.sum(e, axis, keepdims=True)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        axes = (node.attrs["axis"],)
        inner = b.sum(b.mul(g, node), axes=axes)
        return (b.mul(node, b.sub(g, spread(b, inner, g, axes))),)


@register
class LogSoftmax(_Softmax):
    """x - max(x) - log(sum(exp(x - max(x)))) along `axis`. Gradient: g - softmax(x)*sum(g)."""

    examples = ("log_softmax f32[N,5]", "log_softmax f32[N,3,4] {axis=2}")

    def evaluate(self, xp: Any, x: Any, *, axis: int) -> Any:
        shifted = x - np.max(x, axis, keepdims=True)
        return shifted - np.log(np.sum(np.exp(shifted), axis, keepdims=True))

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        (x,), axis = node.inputs, node.attrs["axis"]
        total = spread(b, b.sum(g, axes=(axis,)), g, (axis,))
        return (b.sub(g, b.mul(b.softmax(x, axis=axis), total)),)
