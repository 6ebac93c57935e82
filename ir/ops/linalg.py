"""The matrix product, which every layer becomes in the end, and the same by weights in panels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import Gradients, Op, register
from ..types import TensorType


@register
class Matmul(Op):
    """A matrix product in which leading axes are rows.

    `a [..., K]` by `b [K, M]`, or `[M, K]` with transpose_b, gives `[..., M]`. With transpose_a all
    leading axes are contracted: `a [..., I]` by `b [..., J]` gives `[I, J]`, which is how a weight
    gradient sums over the batch. `form` is how it runs, chosen by `lower`: it means nothing here.
    Gradient: two of the same.
    """

    kinds = "ff"
    attrs = {"transpose_a": False, "transpose_b": False, "form": None}
    examples = (
        "matmul f32[N,5], f32[5,3]",
        "matmul f32[N,5], f32[3,5] {transpose_b=True}",
        "matmul f32[N,4,2,5], f32[5,3]",
        "matmul f32[N,5], f32[N,3] {transpose_a=True}",
        "matmul f32[N,4,2,5], f32[N,4,2,3] {transpose_a=True}",
    )

    def infer(
        self,
        a: TensorType,
        b: TensorType,
        *,
        transpose_a: bool,
        transpose_b: bool,
        form: str | None,
    ) -> TensorType:
        if transpose_a and transpose_b:
            raise CompileError("matmul: transpose_a and transpose_b exclude each other")
        fits, shape = False, a.shape
        if transpose_a and b.rank >= 2:
            fits, shape = a.shape[:-1] == b.shape[:-1], (a.shape[-1], b.shape[-1])
        elif b.rank == 2:
            k, m = reversed(b.shape) if transpose_b else b.shape
            fits, shape = a.shape[-1:] == (k,), (*a.shape[:-1], m)
        if not fits or a.rank < 2:
            flags = f"transpose_a={transpose_a}, transpose_b={transpose_b}"
            raise CompileError(f"matmul: {a} and {b} do not fit with {flags}")
        return TensorType(shape, a.dtype)

    def evaluate(
        self,
        xp: Any,
        a: Any,
        b: Any,
        *,
        transpose_a: bool,
        transpose_b: bool,
        form: str | None,
    ) -> Any:
        if transpose_a:
            leading = math.prod(a.shape[:-1])
            return a.reshape(leading, a.shape[-1]).T @ b.reshape(leading, b.shape[-1])
        return np.matmul(a, b.T if transpose_b else b)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        x, y = node.inputs
        if node.attrs["transpose_a"]:
            return b.matmul(y, g, transpose_b=True), b.matmul(x, g)
        if node.attrs["transpose_b"]:
            return b.matmul(g, y), b.matmul(g, x, transpose_a=True)
        return b.matmul(g, y, transpose_b=True), b.matmul(x, g, transpose_a=True)


@register
class PanelMatmul(Op):
    """matmul by a right operand in panels of columns: `a [..., K]` by `b [P, K, W]`.

    The result is `[..., P * W]`; panel p makes its columns from p * W on. A panel lies together
    in memory, where columns of `[K, P * W]` lie far apart.
    """

    kinds = "ff"
    attrs = {"form": None}
    differentiable = False
    examples = ("panel_matmul f32[N,5], f32[3,5,2]", "panel_matmul f32[N,4,2,5], f32[1,5,7]")

    def infer(self, a: TensorType, b: TensorType, *, form: str | None) -> TensorType:
        if a.rank < 2 or b.rank != 3 or b.per_row or a.shape[-1] != b.shape[1]:
            raise CompileError(f"panel_matmul: {a} and {b} do not fit")
        panels, _, width = b.concrete(1)
        return TensorType((*a.shape[:-1], panels * width), a.dtype)

    def evaluate(self, xp: Any, a: Any, b: Any, *, form: str | None) -> Any:
        return np.matmul(a, b.transpose(1, 0, 2).reshape(b.shape[1], -1))
