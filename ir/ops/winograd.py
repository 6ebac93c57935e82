"""Convolution with kernels of 3 x 3 by Winograd's minimal filtering, F(4x4, 3x3).

A tile of 4 x 4 results comes from 6 x 6 elements of the image with 36 products a channel, where the
sum over taps takes 144: Y = A^T [(G w G^T) * (B^T d B)] A, the products summed over channels. Where
4 does not divide a side of the plane, the last tiles have 2 results on that side, from 4 elements.
Each side is a product of polynomials by interpolation, F(2) at the points 0, 1, -1 and infinity,
F(4) at 2 and -1/2 as well: so the first 4 of the 6 transformed weights a side serve F(2).
These points lose the least: in float32 an error is some 1e-6 of the size of the results, the
largest 1e-5.
Sources: S. Winograd, "Arithmetic Complexity of Computations" (1980); A. Lavin and S. Gray, "Fast
Algorithms for Convolutional Neural Networks" (2015); B. Barabasz et al., "Error Analysis and
Improving the Accuracy of Winograd Convolution" (2020), of the points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CompileError
from ..op import Op, register
from ..types import TensorType
from .conv import _image

SEEN = 6  # elements a side that a tile of 4 x 4 results sees

G = np.array(
    [
        [1, 0, 0],
        [1 / 3, 1 / 3, 1 / 3],
        [-1 / 3, 1 / 3, -1 / 3],
        [0, 0, -1],
        [1 / 15, 2 / 15, 4 / 15],
        [-16 / 15, 8 / 15, -4 / 15],
    ]
)

_TWO = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])

# B^T of tiles of 2 and 4 results a side, as sparse matrices to be applied from the last one on.
# At the points that F(2) has too, F(4) is F(2) of w, w_i = d_i + 3/2 d_i+1 - d_i+2.
B_T = {
    2: [_TWO],
    4: [
        np.block([[_TWO, np.zeros((4, 2))], [np.zeros((2, 4)), np.array([[1, 0.5], [1, -2]])]]),
        np.array(
            [
                [1, 1.5, -1, 0, 0, 0],
                [0, 1, 1.5, -1, 0, 0],
                [0, 0, 1, 1.5, -1, 0],
                [0, 0, 0, 1, 1.5, -1],
                [0, 0, -1, 0, 1, 0],
                [0, -1, 0, 1, 0, 0],
            ]
        ),
    ],
}

_SUM = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, -1, 0], [0, 0, 0, 1]])  # at 1 and -1: +, -

# A^T, likewise.
A_T = {
    2: [np.array([[1, 0, 1.5, 0], [0, 1.5, 0, -1]]), _SUM],
    4: [
        np.array(
            [
                [1, 1, 0, 0, 1, 1],
                [0, 0, 1, 0, 2, -0.5],
                [0, 1, 0, 0, 4, 0.25],
                [0, 0, 1, 1, 8, -0.125],
            ]
        ),
        np.block([[_SUM, np.zeros((4, 2))], [np.zeros((2, 4)), np.eye(2)]]),
    ],
}


@dataclass(frozen=True)
class Part:
    """Tiles of `tall` x `wide` results: `down` lines of `across`, from (top, left) on."""

    tall: int
    wide: int
    top: int
    left: int
    down: int
    across: int


def parts(h: int, w: int) -> Iterator[Part]:
    """The tiles of a plane: 4 a side as far as they go, then 2."""
    for (tall, top, down), (wide, left, across) in itertools.product(_spans(h), _spans(w)):
        yield Part(tall, wide, top, left, down, across)


def _spans(length: int) -> list[tuple[int, int, int]]:
    """(size, begin, count) of what covers an even length."""
    spans = [(4, 0, length // 4), (2, length // 4 * 4, length % 4 // 2)]
    return [span for span in spans if span[2]]


@register
class WinogradWeights(Op):
    """Weights `w [3,3,C,O]` as winograd_conv2d needs them: G w G^T, [6,6,C,O]."""

    kinds = "f"
    differentiable = False
    examples = ("winograd_weights f32[3,3,2,5]",)

    def infer(self, w: TensorType) -> TensorType:
        if w.rank != 4 or w.shape[:2] != (3, 3):
            raise CompileError(f"winograd_weights: got {w}, expected weights [3,3,C,O]")
        return TensorType((SEEN, SEEN, *w.shape[2:]), w.dtype)

    def evaluate(self, xp: Any, w: Any) -> Any:
        g = G.astype(w.dtype)
        return np.einsum("ai,bj,ijco->abco", g, g, w)


@register
class WinogradConv2d(Op):
    """conv2d of a bordered image x at stride 1 with transformed weights `u [6,6,C,O]`.

    Height and width of the result, two less than x's, are even.
    """

    kinds = "ff"
    attrs = {"form": None}
    differentiable = False
    examples = (
        "winograd_conv2d f32[N,4,6,3], f32[6,6,3,5]",
        "winograd_conv2d f32[N,8,4,17], f32[6,6,17,2]",
        "winograd_conv2d f32[N,8,12,3], f32[6,6,3,2]",
    )

    def infer(self, x: TensorType, u: TensorType, *, form: str | None) -> TensorType:
        n, h, w, c = _image(x, "NHWC")
        if u.rank != 4 or u.shape[:3] != (SEEN, SEEN, c) or h % 2 or w % 2 or min(h, w) < 4:
            raise CompileError(f"winograd_conv2d: {x} and {u} do not fit")
        return TensorType((n, h - 2, w - 2, u.shape[3]), x.dtype)

    def evaluate(self, xp: Any, x: Any, u: Any, *, form: str | None) -> Any:
        n, h, w, _ = x.shape
        y = np.empty((n, h - 2, w - 2, u.shape[3]), x.dtype)
        for part in parts(h - 2, w - 2):
            bottom, right = part.top + part.down * part.tall, part.left + part.across * part.wide
            seen = x[:, part.top : bottom + 2, part.left : right + 2]
            y[:, part.top : bottom, part.left : right] = _tiled(seen, u, part.tall, part.wide)
        return y


def _tiled(x: Any, u: Any, tall: int, wide: int) -> Any:
    """The results for a part of an image that tiles of one size cover."""
    (a, b), (c, d) = ([_product(m[n]).astype(x.dtype) for m in (A_T, B_T)] for n in (tall, wide))
    seen = tall + 2, wide + 2
    tiles = np.lib.stride_tricks.sliding_window_view(x, seen, (1, 2))[:, ::tall, ::wide]
    v = np.einsum("ai,bj,nyxcij->nyxcab", b, d, tiles)
    m = np.einsum("nyxcab,abco->nyxoab", v, u[: seen[0], : seen[1]])
    y = np.einsum("ia,jb,nyxoab->nyixjo", a, c, m)
    n, lines, _, columns, *_ = y.shape
    return y.reshape(n, lines * tall, columns * wide, u.shape[3])


def _product(matrices: list[Any]) -> Any:
    return matrices[0] if len(matrices) == 1 else np.linalg.multi_dot(matrices)
