"""Max-pooling and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Op, register
from ..types import TensorType, TupleType
from .conv import (
    Pair,
    _as_nhwc,
    _from_nhwc,
    _image,
    _image_type,
    _windows,
    padded,
    taps,
)


@register
class MaxPool2d(Op):
    """(the largest entry of each window, which entry it was: i*kw + j, row by row).

    Padding counts as minus infinity. Of entries that tie the first one wins; NaN counts as largest,
    and the first NaN wins. Gradient: g to the winner.
    """

    kinds = "f"
    attrs = {"kernel": REQUIRED, "stride": REQUIRED, "padding": (0, 0), "layout": "NCHW"}
    examples = (
        "max_pool2d f32[N,2,4,6] {kernel=(2, 2), stride=(2, 2)}",
        "max_pool2d f32[N,2,5,7] {kernel=(3, 2), stride=(1, 2), padding=(1, 1)}",
        "max_pool2d f32[N,5,7,2] {kernel=(3, 3), stride=(2, 2), padding=(1, 0), layout='NHWC'}",
    )

    def infer(
        self, x: TensorType, *, kernel: Pair, stride: Pair, padding: Pair, layout: str
    ) -> TupleType:
        n, h, w, c = _image(x, layout)
        shape = (n, *_windows((h, w), kernel, stride, padding), c)
        if kernel[0] * kernel[1] > 256:
            raise CompileError(f"max_pool2d: window {kernel} has more than 256 entries")
        if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
            raise CompileError(f"max_pool2d: padding {padding} is more than half of {kernel}")
        return TupleType(
            (_image_type(shape, layout, x.dtype), _image_type(shape, layout, "u8")),
        )

    def evaluate(
        self, xp: Any, x: Any, *, kernel: Pair, stride: Pair, padding: Pair, layout: str
    ) -> Any:
        x = padded(_as_nhwc(x, layout), padding, -np.inf)
        entries = np.stack([view for _, _, view in taps(x, kernel, stride)])
        winner = np.argmax(entries, axis=0)  # the first of a tie, and the first NaN
        y = np.take_along_axis(entries, winner[None], axis=0)[0]
        return _from_nhwc(y, layout), _from_nhwc(winner.astype(np.uint8), layout)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        _, h, w, _ = _image(node.inputs[0].tensor, node.attrs["layout"])
        winner = b.item(node, index=1)
        return (b.max_unpool2d(g, winner, **node.attrs, size=(h, w)),)


@register
class MaxUnpool2d(Op):
    """g added to the entry of each window that won: the gradient of max_pool2d.

    What falls on padding (a window of nothing but minus infinity) is dropped.
    """

    kinds = "fu"
    attrs = {**MaxPool2d.attrs, "size": REQUIRED}
    differentiable = False
    examples = (
        "max_unpool2d f32[N,2,2,3], u8[N,2,2,3] {kernel=(2, 2), stride=(2, 2), size=(4, 6)}",
        "max_unpool2d f32[N,2,2,3], u8[N,2,2,3] {kernel=(2, 2), stride=(2, 2), size=(5, 7)}",
        "max_unpool2d f32[N,2,5,4], u8[N,2,5,4]"
        " {kernel=(3, 2), stride=(1, 2), padding=(1, 1), size=(5, 7)}",
        "max_unpool2d f32[N,3,3,2], u8[N,3,3,2]"
        " {kernel=(3, 3), stride=(2, 2), padding=(1, 0), layout='NHWC', size=(5, 7)}",
    )
    domain = (-2.0, 4.0)

    def infer(
        self,
        g: TensorType,
        winner: TensorType,
        *,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        layout: str,
        size: Pair,
    ) -> TensorType:
        n, ho, wo, c = _image(g, layout)
        if g.shape != winner.shape or (ho, wo) != _windows(size, kernel, stride, padding):
            raise CompileError(f"max_unpool2d: {g}, {winner} and size {size} do not fit")
        return _image_type((n, *size, c), layout, g.dtype)

    def evaluate(
        self,
        xp: Any,
        g: Any,
        winner: Any,
        *,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        layout: str,
        size: Pair,
    ) -> Any:
        g, winner = _as_nhwc(g, layout), _as_nhwc(winner, layout)
        (h, w), (p, q) = size, padding
        dx = np.zeros((len(g), h + 2 * p, w + 2 * q, g.shape[3]), g.dtype)
        for i, j, view in taps(dx, kernel, stride):
            view += np.where(winner == i * kernel[1] + j, g, np.zeros((), g.dtype))
        return _from_nhwc(dx[:, p : p + h, q : q + w], layout)
