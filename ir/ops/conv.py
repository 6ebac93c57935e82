"""Convolution, its two gradients, and the forms it is lowered to.

`conv2d`, `conv2d_input_grad` and `conv2d_weight_grad` are each other's gradients. With layout
"NCHW" images are [N,C,H,W] and weights [O,C,kh,kw], as the user has them; with "NHWC" images are
[N,H,W,C] and weights [kh,kw,C,O], as the compiler keeps them. All meanings are sums over the
kernel's taps. `form` is how an op runs, chosen by `lower`, and `zeros` how wide a border of
x's is known to be zero: neither means anything here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Op, register
from ..types import TensorType

Pair = tuple[int, int]
TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
TO_HWIO, TO_OIHW = (2, 3, 1, 0), (3, 2, 0, 1)


def window_count(size: int, kernel: int, stride: int, padding: int = 0) -> int:
    """How many windows of `kernel` fit along an axis; 0 or less if none does."""
    return (size + 2 * padding - kernel) // stride + 1


def taps(x: Any, kernel: Pair, stride: Pair) -> Iterator[tuple[int, int, Any]]:
    """(i, j, what tap (i, j) of every window sees) for `x [N,H,W,C]`: views of [N,Ho,Wo,C]."""
    ho, wo = (window_count(x.shape[1 + d], kernel[d], stride[d]) for d in (0, 1))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + (ho - 1) * stride[0] + 1, stride[0])
            yield i, j, x[:, rows, j : j + (wo - 1) * stride[1] + 1 : stride[1]]


def padded(x: Any, padding: Pair, value: float = 0.0) -> Any:
    """`x [N,H,W,C]` with a border of `value`."""
    (p, q) = padding
    return np.pad(x, ((0, 0), (p, p), (q, q), (0, 0)), constant_values=np.asarray(value, x.dtype))


def correlate(x: Any, w: Any, stride: Pair, padding: Pair) -> Any:
    """Cross-correlation of `x [N,H,W,C]` with `w [kh,kw,C,O]`: [N,Ho,Wo,O]."""
    seen = taps(padded(x, padding), w.shape[:2], stride)
    return sum(view @ w[i, j] for i, j, view in seen)


def correlate_input_grad(dy: Any, w: Any, stride: Pair, padding: Pair, size: Pair) -> Any:
    """Its gradient in x: each tap hands `dy [N,Ho,Wo,O]` back to where it looked."""
    (h, q_w), (p, q) = size, padding
    dx = np.zeros((len(dy), h + 2 * p, q_w + 2 * q, w.shape[2]), dy.dtype)
    for i, j, view in taps(dx, w.shape[:2], stride):
        view += dy @ w[i, j].T
    return dx[:, p : p + h, q : q + q_w]


def correlate_weight_grad(x: Any, dy: Any, stride: Pair, padding: Pair, kernel: Pair) -> Any:
    """Its gradient in w: for each tap, what it saw times dy, summed over positions and images."""
    dw = np.zeros((*kernel, x.shape[3], dy.shape[3]), dy.dtype)
    for i, j, view in taps(padded(x, padding), kernel, stride):
        dw[i, j] = np.tensordot(view, dy, ((0, 1, 2), (0, 1, 2)))
    return dw


class _Conv(Op):
    kinds = "ff"
    attrs = {
        "stride": (1, 1),
        "padding": (0, 0),
        "layout": "NCHW",
        "form": None,
        "zeros": (0, 0),
    }


def _image(t: TensorType, layout: str) -> tuple[Any, int, int, int]:
    """(N, H, W, C) of an image type in either layout."""
    if t.rank != 4:
        raise CompileError(f"convolution: got {t}, expected images of four dimensions")
    n, a, b, c = t.shape
    return (n, b, c, a) if layout == "NCHW" else (n, a, b, c)  # type: ignore[return-value]


def _image_type(dims: tuple, layout: str, dtype: str) -> TensorType:
    n, h, w, c = dims
    return TensorType((n, c, h, w) if layout == "NCHW" else (n, h, w, c), dtype)


def _weight(t: TensorType, layout: str) -> tuple[int, int, int, int]:
    """(kh, kw, C, O) of a weight type in either layout."""
    if t.rank != 4 or t.per_row:
        raise CompileError(f"convolution: got weights {t}, expected four numbers as dimensions")
    a, b, c, d = t.shape
    return (c, d, b, a) if layout == "NCHW" else (a, b, c, d)  # type: ignore[return-value]


def _windows(size: Pair, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> Pair:
    pairs = all(len(p) == 2 for p in (size, kernel, stride, padding))
    if pairs and min(*kernel, *stride) > 0 and min(padding) >= 0:
        ho, wo = map(window_count, size, kernel, stride, padding)
        if ho > 0 and wo > 0:
            return ho, wo
    what = f"kernel {kernel}, stride {stride}, padding {padding}"
    raise CompileError(f"windows: {what} do not fit an image of {size}")


def _as_nhwc(x: Any, layout: str) -> Any:
    return np.transpose(x, TO_NHWC) if layout == "NCHW" else x


def _from_nhwc(y: Any, layout: str) -> Any:
    return np.transpose(y, TO_NCHW) if layout == "NCHW" else y


def _as_hwio(w: Any, layout: str) -> Any:
    return np.transpose(w, TO_HWIO) if layout == "NCHW" else w


@register
class Conv2d(_Conv):
    """Cross-correlation of images with weights, zeros around them. Source: PyTorch's Conv2d."""

    examples = (
        "conv2d f32[N,2,5,6], f32[3,2,3,2]",
        "conv2d f32[N,2,5,6], f32[3,2,3,2] {stride=(2, 1), padding=(1, 2)}",
        "conv2d f32[N,5,6,2], f32[3,2,2,3] {padding=(1, 0), layout='NHWC'}",
        "conv2d f32[N,7,5,3], f32[2,3,3,4] {stride=(2, 2), padding=(1, 1), layout='NHWC'}",
    )

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None = None,
        zeros: Pair = (0, 0),
    ) -> TensorType:
        (n, h, width, c), (kh, kw, cin, cout) = _image(x, layout), _weight(w, layout)
        if c != cin:
            raise CompileError(f"conv2d: images {x} and weights {w} do not fit")
        ho, wo = _windows((h, width), (kh, kw), stride, padding)
        return _image_type((n, ho, wo, cout), layout, x.dtype)

    def evaluate(
        self,
        xp: Any,
        x: Any,
        w: Any,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None,
        zeros: Pair,
    ) -> Any:
        y = correlate(_as_nhwc(x, layout), _as_hwio(w, layout), stride, padding)
        return _from_nhwc(y, layout)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        x, w = node.inputs
        _, h, width, _ = _image(x.tensor, node.attrs["layout"])
        kernel = _weight(w.tensor, node.attrs["layout"])[:2]
        return (
            b.conv2d_input_grad(g, w, **node.attrs, size=(h, width)),
            b.conv2d_weight_grad(x, g, **node.attrs, kernel=kernel),
        )


@register
class Conv2dInputGrad(_Conv):
    """The gradient of conv2d in its images, of height and width `size`, from that of its result."""

    attrs = {**_Conv.attrs, "size": REQUIRED}
    examples = (
        "conv2d_input_grad f32[N,3,3,5], f32[3,2,3,2] {size=(5, 6)}",
        "conv2d_input_grad f32[N,3,3,9], f32[3,2,3,2] {size=(5, 6), stride=(2, 1), padding=(1, 2)}",
        "conv2d_input_grad f32[N,4,3,4], f32[2,3,3,4]"
        " {size=(7, 5), stride=(2, 2), padding=(1, 1), layout='NHWC'}",
    )

    def infer(
        self,
        dy: TensorType,
        w: TensorType,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None,
        zeros: Pair,
        size: Pair,
    ) -> TensorType:
        (n, ho, wo, c), (kh, kw, cin, cout) = _image(dy, layout), _weight(w, layout)
        if c != cout or (ho, wo) != _windows(size, (kh, kw), stride, padding):
            raise CompileError(f"conv2d_input_grad: {dy}, {w} and size {size} do not fit")
        return _image_type((n, *size, cin), layout, dy.dtype)

    def evaluate(
        self,
        xp: Any,
        dy: Any,
        w: Any,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None,
        zeros: Pair,
        size: Pair,
    ) -> Any:
        dy, w = _as_nhwc(dy, layout), _as_hwio(w, layout)
        return _from_nhwc(correlate_input_grad(dy, w, stride, padding, size), layout)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        dy, w = node.inputs
        shared = {k: node.attrs[k] for k in _Conv.attrs}
        kernel = _weight(w.tensor, node.attrs["layout"])[:2]
        return (
            b.conv2d(g, w, **shared),
            b.conv2d_weight_grad(g, dy, **shared, kernel=kernel),
        )


@register
class Conv2dWeightGrad(_Conv):
    """The gradient of conv2d in its weights, of size `kernel`, summed over the batch."""

    attrs = {**_Conv.attrs, "kernel": REQUIRED}
    examples = (
        "conv2d_weight_grad f32[N,2,5,6], f32[N,3,3,5] {kernel=(3, 2)}",
        "conv2d_weight_grad f32[N,2,5,6], f32[N,3,3,9]"
        " {kernel=(3, 2), stride=(2, 1), padding=(1, 2)}",
        "conv2d_weight_grad f32[N,7,5,3], f32[N,4,3,4]"
        " {kernel=(2, 3), stride=(2, 2), padding=(1, 1), layout='NHWC'}",
    )

    def infer(
        self,
        x: TensorType,
        dy: TensorType,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None,
        zeros: Pair,
        kernel: Pair,
    ) -> TensorType:
        (n, h, w, cin), (m, ho, wo, cout) = _image(x, layout), _image(dy, layout)
        if n != m or (ho, wo) != _windows((h, w), kernel, stride, padding):
            raise CompileError(f"conv2d_weight_grad: {x}, {dy} and kernel {kernel} do not fit")
        if layout == "NCHW":
            return TensorType((cout, cin, *kernel), x.dtype)
        return TensorType((*kernel, cin, cout), x.dtype)

    def evaluate(
        self,
        xp: Any,
        x: Any,
        dy: Any,
        *,
        stride: Pair,
        padding: Pair,
        layout: str,
        form: str | None,
        zeros: Pair,
        kernel: Pair,
    ) -> Any:
        x, dy = _as_nhwc(x, layout), _as_nhwc(dy, layout)
        dw = correlate_weight_grad(x, dy, stride, padding, kernel)
        return np.transpose(dw, TO_OIHW) if layout == "NCHW" else dw

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        x, dy = node.inputs
        shared = {k: node.attrs[k] for k in _Conv.attrs}
        _, h, width, _ = _image(x.tensor, node.attrs["layout"])
        return (
            b.conv2d_input_grad(dy, g, **shared, size=(h, width)),
            b.conv2d(x, g, **shared),
        )


@register
class Im2col(Op):
    """The patches a kernel sees, one a row: `x [N,H,W,C]` to [N,Ho,Wo,kh*kw*C].

    Gradient: col2im.
    """

    kinds = "a"
    attrs = {"kernel": REQUIRED, "stride": (1, 1)}
    examples = (
        "im2col f32[N,5,6,2] {kernel=(3, 2)}",
        "im2col f32[N,7,5,20] {kernel=(2, 3), stride=(2, 2)}",
    )

    def infer(self, x: TensorType, *, kernel: Pair, stride: Pair) -> TensorType:
        n, h, w, c = _image(x, "NHWC")
        ho, wo = _windows((h, w), kernel, stride)
        return TensorType((n, ho, wo, kernel[0] * kernel[1] * c), x.dtype)

    def evaluate(self, xp: Any, x: Any, *, kernel: Pair, stride: Pair) -> Any:
        return np.concatenate([view for _, _, view in taps(x, kernel, stride)], axis=3)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        size = node.inputs[0].shape[1:3]
        return (b.col2im(g, **node.attrs, size=size),)


@register
class Col2im(Op):
    """Patches added back where im2col took them: [N,Ho,Wo,kh*kw*C] to [N,H,W,C].

    Gradient: im2col.
    """

    kinds = "f"
    attrs = {"kernel": REQUIRED, "stride": (1, 1), "size": REQUIRED}
    examples = (
        "col2im f32[N,3,5,12] {kernel=(3, 2), size=(5, 6)}",
        "col2im f32[N,3,2,12] {kernel=(2, 3), stride=(2, 2), size=(7, 5)}",
    )

    def infer(self, p: TensorType, *, kernel: Pair, stride: Pair, size: Pair) -> TensorType:
        n, ho, wo, k = _image(p, "NHWC")
        fits = (ho, wo) == _windows(size, kernel, stride)
        channels, rest = divmod(k, kernel[0] * kernel[1])
        if rest or not fits:
            raise CompileError(f"col2im: {p}, kernel {kernel} and size {size} do not fit")
        return TensorType((n, *size, channels), p.dtype)

    def evaluate(self, xp: Any, p: Any, *, kernel: Pair, stride: Pair, size: Pair) -> Any:
        channels = p.shape[3] // (kernel[0] * kernel[1])
        x = np.zeros((len(p), *size, channels), p.dtype)
        for i, j, view in taps(x, kernel, stride):
            tap = (i * kernel[1] + j) * channels
            view += p[..., tap : tap + channels]
        return x

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.im2col(g, kernel=node.attrs["kernel"], stride=node.attrs["stride"]),)


@register
class ShiftMatmul(Op):
    """A convolution as one product per tap over shifted views: `x [N,H,W,C]` by `w [kh,kw,C,O]`.

    The result, [N,Ho,Wo,O], is that of conv2d at stride 1 without padding. A runtime keeps it in
    planes as wide as x, so that every shifted view is one contiguous matrix and none is copied.
    """

    kinds = "ff"
    differentiable = False
    examples = (
        "shift_matmul f32[N,5,6,2], f32[3,2,2,4]",
        "shift_matmul f32[N,4,4,3], f32[1,1,3,2]",
    )

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        return Conv2d().infer(x, w, stride=(1, 1), padding=(0, 0), layout="NHWC")

    def evaluate(self, xp: Any, x: Any, w: Any) -> Any:
        return correlate(x, w, (1, 1), (0, 0))


@register
class ShiftMatmulWeightGrad(Op):
    """The gradient of shift_matmul in its weights, from `x [N,H,W,C]` and `dy [N,H,W,O]`.

    dy is in planes as wide as x: zero in the last kh-1 rows and kw-1 columns, where no window
    starts.
    """

    kinds = "ff"
    attrs = {"kernel": REQUIRED}
    differentiable = False
    examples = ()  # dy's zeros cannot be drawn at random: the lowering laws cover it

    def infer(self, x: TensorType, dy: TensorType, *, kernel: Pair) -> TensorType:
        (n, h, w, cin), (m, ho, wo, cout) = _image(x, "NHWC"), _image(dy, "NHWC")
        if (n, h, w) != (m, ho, wo):
            raise CompileError(f"shift_matmul_weight_grad: {x} and {dy} differ in their planes")
        return TensorType((*kernel, cin, cout), x.dtype)

    def evaluate(self, xp: Any, x: Any, dy: Any, *, kernel: Pair) -> Any:
        dw = np.zeros((*kernel, x.shape[3], dy.shape[3]), x.dtype)
        rows, width = dy.shape[1] - kernel[0] + 1, dy.shape[2] - kernel[1] + 1
        return correlate_weight_grad(x, dy[:, :rows, :width], (1, 1), (0, 0), kernel) + dw
