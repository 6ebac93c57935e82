"""The layers. Names of arguments, defaults, initialisation and semantics are PyTorch's.

A parameter is a `Parameter` in the layer, and a traced `Value` in the copy on which `forward` runs.
Each `forward` checks what reaches it before it computes, so that a shape error names the layer,
what it saw, what it needs and the argument that would fix it.
"""

from __future__ import annotations

import math
from typing import Any

from ..ir import CompileError
from ..ir.ops.conv import TO_HWIO, window_count
from . import ops
from .arguments import integer, number, pair
from .module import Module, Parameter, uniform
from .value import Value

Size = int | tuple[int, int]


class Linear(Module):
    """y = x W^T + b: features [N, in_features] to [N, out_features].

    weight [out_features, in_features] and bias start uniform in +-1/sqrt(in_features).
    Source: PyTorch's Linear.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features = integer("Linear", "in_features", in_features)
        self.out_features = integer("Linear", "out_features", out_features)
        init = uniform(1.0 / math.sqrt(self.in_features))
        self.weight: Any = Parameter((self.out_features, self.in_features), init, perm=(1, 0))
        self.bias: Any = Parameter((self.out_features,), init) if bias else None

    def forward(self, x: Value) -> Value:
        if len(x.shape) != 2:
            raise CompileError(
                f"got {_seen(x)}, expected features [N, {self.in_features}]: "
                "put Flatten() before it"
            )
        if x.shape[1] != self.in_features:
            raise CompileError(
                f"got {x.shape[1]} features from {_source(x)}, expected {self.in_features}: "
                f"use Linear({x.shape[1]}, {self.out_features})"
            )
        y = x.make("matmul", self.weight, transpose_b=True)
        return y if self.bias is None else y + self.bias

    def arguments(self) -> dict:
        return {**super().arguments(), "bias": self.bias is not None}


class Conv2d(Module):
    """Cross-correlation of images [N, in_channels, H, W] with a kernel, plus a bias a channel.

    The result is [N, out_channels, Ho, Wo] with Ho = (H + 2*padding - kernel) // stride + 1. Sizes
    are an integer or (height, width); padding may be "same" (at stride 1) or "valid". weight
    [out_channels, in_channels, kh, kw] and bias start uniform in +-1/sqrt(in_channels*kh*kw).
    Source: PyTorch's Conv2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        bias: bool = True,
    ) -> None:
        self.in_channels = integer("Conv2d", "in_channels", in_channels)
        self.out_channels = integer("Conv2d", "out_channels", out_channels)
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.padding = self._padding(padding)
        init = uniform(1.0 / math.sqrt(self.in_channels * math.prod(self.kernel_size)))
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        self.weight: Any = Parameter(shape, init, perm=TO_HWIO)
        self.bias: Any = Parameter((self.out_channels,), init) if bias else None

    def forward(self, x: Value) -> Value:
        _check_images(x)
        if x.shape[1] != self.in_channels:
            hint = f"use Conv2d({x.shape[1]}, {self.out_channels}, {self.kernel_size})"
            if x.shape[3] == self.in_channels:
                hint = "if its channels are last, use X.transpose(0, 3, 1, 2)"
            raise CompileError(
                f"got {x.shape[1]} channels from {_source(x)}, expected {self.in_channels}: {hint}"
            )
        x, padding = self._padded(x)
        _check_windows(x, self.kernel_size, self.stride, padding)
        y = ops.conv2d(x, self.weight, self.stride, padding)
        if self.bias is None:
            return y
        return y + self.bias.make("broadcast", shape=y.shape, axes=(1,))

    def arguments(self) -> dict:
        return {**super().arguments(), "bias": self.bias is not None}

    def _padding(self, padding: object) -> tuple[int, int] | str:
        if not isinstance(padding, str):
            return pair("Conv2d", "padding", padding, least=0)
        if padding not in ("same", "valid"):
            raise CompileError(
                f'Conv2d: padding: got {padding!r}, expected a size, "same" or "valid"'
            )
        if padding == "same" and self.stride != (1, 1):
            raise CompileError(f'Conv2d: padding: "same" needs stride 1, got stride {self.stride}')
        return padding

    def _padded(self, x: Value) -> tuple[Value, tuple[int, int]]:
        """(x, the padding left to do): "same" pads an even kernel one more at the end."""
        if self.padding == "valid":
            return x, (0, 0)
        if self.padding != "same":
            assert isinstance(self.padding, tuple)
            return x, self.padding
        low = tuple((k - 1) // 2 for k in self.kernel_size)
        high = tuple(k - 1 - lo for k, lo in zip(self.kernel_size, low, strict=True))
        if low == high:
            return x, (low[0], low[1])
        return ops.pad(x, (0, 0, *low), (0, 0, *high)), (0, 0)


class MaxPool2d(Module):
    """The maximum of each window of images [N, C, H, W]; padding counts as minus infinity.

    Sizes are an integer or (height, width); the stride defaults to the kernel. Source: PyTorch's
    MaxPool2d.
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size)
        given = self.kernel_size if stride is None else stride
        self.stride = pair("MaxPool2d", "stride", given)
        self.padding = pair("MaxPool2d", "padding", padding, least=0)
        if math.prod(self.kernel_size) > 256:
            raise CompileError(
                f"MaxPool2d: kernel_size: got {self.kernel_size}, expected at most 256 entries"
            )
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise CompileError(
                f"MaxPool2d: padding: got {self.padding}, expected at most half the kernel "
                f"{self.kernel_size}"
            )

    def forward(self, x: Value) -> Value:
        _check_images(x)
        _check_windows(x, self.kernel_size, self.stride, self.padding)
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class ReLU(Module):
    """max(x, 0), element by element; NaN stays NaN."""

    def forward(self, x: Value) -> Value:
        return ops.relu(x)


class Softmax(Module):
    """exp(x) over its sum along `dim`: probabilities."""

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim if dim == -1 else integer("Softmax", "dim", dim)

    def forward(self, x: Value) -> Value:
        if not self.dim < len(x.shape):
            raise CompileError(f"got {_seen(x)}, expected a dimension {self.dim} to normalise over")
        return ops.softmax(x, self.dim)


class Flatten(Module):
    """Each row in one dimension: [N, C, H, W] to [N, C*H*W]."""

    def forward(self, x: Value) -> Value:
        return ops.flatten(x)


class Dropout(Module):
    """While training, zeroes each element with probability p and scales the rest by 1/(1-p)."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout", "p", p, 0.0, 1.0)

    def forward(self, x: Value) -> Value:
        return ops.dropout(x, self.p)


def _source(x: Value) -> str:
    return x.node.loc or "the input"


def _seen(x: Value) -> str:
    return f"{list(x.shape)} from {_source(x)}"


def _check_images(x: Value) -> None:
    if len(x.shape) != 4:
        hint = ": images of one channel are X[:, None]" if len(x.shape) == 3 else ""
        raise CompileError(f"got {_seen(x)}, expected images [N, C, H, W]{hint}")


def _check_windows(
    x: Value, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    h, w = x.shape[2:]
    sizes = zip((h, w), kernel, stride, padding, strict=True)
    if min(window_count(*size) for size in sizes) < 1:
        most = (h + 2 * padding[0], w + 2 * padding[1])
        raise CompileError(
            f"got {h} x {w} images from {_source(x)}, smaller than the kernel {kernel} with "
            f"padding {padding}: use a kernel_size of at most {most}"
        )
