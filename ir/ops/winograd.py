"""Convolution with kernels of 3 x 3 by Winograd's minimal filtering F(2x2, 3x3).

A tile of 2 x 2 results comes from 4 x 4 elements of the image with 16 products a channel, where the
sum over taps takes 36: Y = A^T [(G w G^T) * (B^T d B)] A, the products summed over channels. In
float32 the largest error is some 1e-6 of the result's size. Source: S. Winograd, "Arithmetic
Complexity of Computations" (1980); A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
Networks" (2015).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CompileError
from ..op import Op, register
from ..types import TensorType
from .conv import _image

# F(2x2, 3x3) as Lavin and Gray have it, from the points 0, 1, -1 and infinity: `*_T` is transposed.
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


@register
class WinogradWeights(Op):
    """Weights `w [3,3,C,O]` as winograd_conv2d needs them: G w G^T, [4,4,C,O]."""

    kinds = "f"
    differentiable = False
    examples = ("winograd_weights f32[3,3,2,5]",)

    def infer(self, w: TensorType) -> TensorType:
        if w.rank != 4 or w.shape[:2] != (3, 3):
            raise CompileError(f"winograd_weights: got {w}, expected weights [3,3,C,O]")
        return TensorType((4, 4, *w.shape[2:]), w.dtype)

    def evaluate(self, xp: Any, w: Any) -> Any:
        g = G.astype(w.dtype)
        return np.einsum("ai,bj,ijco->abco", g, g, w)


@register
class WinogradConv2d(Op):
    """conv2d of a bordered image x at stride 1 with transformed weights `u [4,4,C,O]`.

    Height and width of the result, two less than x's, are even.
    """

    kinds = "ff"
    attrs = {"form": None}
    differentiable = False
    examples = (
        "winograd_conv2d f32[N,4,6,3], f32[4,4,3,5]",
        "winograd_conv2d f32[N,8,4,17], f32[4,4,17,2]",
    )

    def infer(self, x: TensorType, u: TensorType, *, form: str | None) -> TensorType:
        n, h, w, c = _image(x, "NHWC")
        if u.rank != 4 or u.shape[:3] != (4, 4, c) or h % 2 or w % 2 or min(h, w) < 4:
            raise CompileError(f"winograd_conv2d: {x} and {u} do not fit")
        return TensorType((n, h - 2, w - 2, u.shape[3]), x.dtype)

    def evaluate(self, xp: Any, x: Any, u: Any, *, form: str | None) -> Any:
        a, b = A_T.astype(x.dtype), B_T.astype(x.dtype)
        n, h, w, _ = x.shape
        tiles = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (1, 2))[:, ::2, ::2]
        v = np.einsum("ai,bj,nyxcij->nyxcab", b, b, tiles)
        m = np.einsum("nyxcab,abco->nyxoab", v, u)
        y = np.einsum("ia,jb,nyxoab->nyixjo", a, a, m)
        return np.ascontiguousarray(y.reshape(n, h - 2, w - 2, u.shape[3]))
