"""Gradients of a convolution behind which a max-pool follows, from that of the pool's result.

Of the gradient that reaches the convolution at most one entry in each window is not zero: the one
that won. `g [N,Hp,Wp,O]` and `winner` say all of it, so it is never spread out: a kernel can walk
the entries that live. For convolutions of stride 1 and windows that lie apart, in NHWC.
"""

from __future__ import annotations

from typing import Any

from ..errors import CompileError
from ..op import REQUIRED, Op, register
from ..types import TensorType
from .conv import Pair, _image, _weight, _windows, correlate_input_grad, correlate_weight_grad
from .pool import MaxUnpool2d


class _Pooled(Op):
    attrs = {"pool": REQUIRED, "pool_stride": REQUIRED, "size": REQUIRED, "form": None}
    differentiable = False
    domain = (-2.0, 4.0)

    def spread(self, g: Any, winner: Any, pool: Pair, pool_stride: Pair, size: Pair) -> Any:
        """The gradient of the convolution's result, of height and width `size`."""
        return MaxUnpool2d().evaluate(
            None,
            g,
            winner,
            kernel=pool,
            stride=pool_stride,
            padding=(0, 0),
            layout="NHWC",
            size=size,
        )

    def check(
        self, g: TensorType, winner: TensorType, pool: Pair, stride: Pair, size: Pair
    ) -> None:
        """CompileError if the windows of `size` are not those of g and winner, or overlap."""
        _, h, w, _ = _image(g, "NHWC")
        if len(pool) != 2 or len(stride) != 2 or len(size) != 2:
            raise CompileError(f"{self.name}: pool {pool}, {stride} and size {size} are not pairs")
        apart = pool[0] <= stride[0] and pool[1] <= stride[1]
        if g.shape != winner.shape or (h, w) != _windows(size, pool, stride) or not apart:
            raise CompileError(f"{self.name}: {g}, {winner} and size {size} do not fit {pool}")


@register
class PooledInputGrad(_Pooled):
    """conv2d_input_grad of max_unpool2d(g, winner) with weights w: [N,H,W,C].

    `w` is [O,kh,kw,C]; `padding` is the convolution's.
    """

    kinds = "fuf"
    attrs = {**_Pooled.attrs, "padding": (0, 0)}
    examples = (
        "pooled_input_grad f32[N,2,3,3], u8[N,2,3,3], f32[3,3,3,2]"
        " {pool=(2, 2), pool_stride=(2, 2), size=(4, 6), padding=(1, 1)}",
        "pooled_input_grad f32[N,2,2,5], u8[N,2,2,5], f32[5,2,3,4]"
        " {pool=(2, 1), pool_stride=(2, 2), size=(5, 4)}",
    )

    def infer(
        self,
        g: TensorType,
        winner: TensorType,
        w: TensorType,
        *,
        pool: Pair,
        pool_stride: Pair,
        size: Pair,
        padding: Pair,
        form: str | None,
    ) -> TensorType:
        self.check(g, winner, pool, pool_stride, size)
        if w.rank != 4 or w.shape[0] != g.shape[3]:
            raise CompileError(f"pooled_input_grad: {g} and weights {w} do not fit")
        _, kh, kw, c = _weight(w, "NHWC")
        if len(padding) != 2 or min(padding) < 0:
            raise CompileError(f"pooled_input_grad: got padding {padding}, expected two numbers")
        h, width = (s + k - 1 - 2 * p for s, k, p in zip(size, (kh, kw), padding, strict=True))
        return TensorType((g.shape[0], h, width, c), g.dtype)

    def evaluate(
        self,
        xp: Any,
        g: Any,
        winner: Any,
        w: Any,
        *,
        pool: Pair,
        pool_stride: Pair,
        size: Pair,
        padding: Pair,
        form: str | None,
    ) -> Any:
        dy, (_, kh, kw, _) = self.spread(g, winner, pool, pool_stride, size), w.shape
        image = (size[0] + kh - 1 - 2 * padding[0], size[1] + kw - 1 - 2 * padding[1])
        return correlate_input_grad(dy, w.transpose(1, 2, 3, 0), (1, 1), padding, image)


@register
class PooledWeightGrad(_Pooled):
    """conv2d_weight_grad of a bordered image x with max_unpool2d(g, winner): [kh,kw,C,O].

    `turned`: the result is [O,kh,kw,C], for kernels with the image's channels side by side.
    """

    kinds = "ffu"
    attrs = {**_Pooled.attrs, "turned": False}
    examples = (
        "pooled_weight_grad f32[N,6,8,2], f32[N,2,3,3], u8[N,2,3,3]"
        " {pool=(2, 2), pool_stride=(2, 2), size=(4, 6), turned=True}",
        "pooled_weight_grad f32[N,6,6,1], f32[N,2,2,5], u8[N,2,2,5]"
        " {pool=(2, 1), pool_stride=(2, 2), size=(5, 4)}",
    )

    def infer(
        self,
        x: TensorType,
        g: TensorType,
        winner: TensorType,
        *,
        pool: Pair,
        pool_stride: Pair,
        size: Pair,
        turned: bool,
        form: str | None,
    ) -> TensorType:
        self.check(g, winner, pool, pool_stride, size)
        n, h, w, c = _image(x, "NHWC")
        kernel = h - size[0] + 1, w - size[1] + 1
        if min(kernel) < 1 or n != g.shape[0]:
            raise CompileError(f"pooled_weight_grad: {x}, {g} and size {size} do not fit")
        o = g.shape[3]
        return TensorType((o, *kernel, c) if turned else (*kernel, c, o), x.dtype)

    def evaluate(
        self,
        xp: Any,
        x: Any,
        g: Any,
        winner: Any,
        *,
        pool: Pair,
        pool_stride: Pair,
        size: Pair,
        turned: bool,
        form: str | None,
    ) -> Any:
        dy = self.spread(g, winner, pool, pool_stride, size)
        kernel = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
        dw = correlate_weight_grad(x, dy, (1, 1), (0, 0), kernel)
        return dw.transpose(3, 0, 1, 2) if turned else dw
