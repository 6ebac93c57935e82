"""How much work a step is, as profiles and cost models count it, and a call may be."""

from __future__ import annotations

import math

from ..ir import Node

CALL_SECONDS = 0.1  # of batches in one call: Ctrl-C and progress wait no longer than that
PRODUCTS = (
    *("matmul", "panel_matmul", "shift_matmul", "shift_matmul_weight_grad"),
    *("conv2d", "conv2d_input_grad", "conv2d_weight_grad"),
    *("pooled_input_grad", "pooled_weight_grad", "winograd_conv2d"),
)


def flops(node: Node, rows: int) -> float:
    """Floating-point operations of a product for `rows` rows, two per multiply-add; else 0.

    Of a fused node or a region, those of the products in it; of a gradient behind a max-pool, those
    of the whole convolution, whichever of them it does.
    """
    if "body" in node.attrs:
        return sum(flops(n, rows) for n in node.attrs["body"].nodes)
    if node.op not in PRODUCTS:
        return 0.0
    if node.op.startswith("pooled"):
        return _pooled(node, rows)
    a, b = (x.tensor for x in node.inputs)
    if node.op == "winograd_conv2d":
        return 2.0 * node.tensor.size(rows) * 9 * b.concrete(rows)[2]
    if node.op in ("shift_matmul", "conv2d"):
        return 2.0 * node.tensor.size(rows) * _taps(b.concrete(rows), node)
    if node.op == "conv2d_input_grad":
        return 2.0 * a.size(rows) * _taps(b.concrete(rows), node)
    if node.op in ("shift_matmul_weight_grad", "conv2d_weight_grad"):
        channels = b.concrete(rows)[1 if node.attrs.get("layout") == "NCHW" else 3]
        return 2.0 * b.size(rows) // channels * node.tensor.size(rows)
    if node.op == "panel_matmul":
        return 2.0 * node.tensor.size(rows) * b.concrete(rows)[1]
    deep = a.size(rows) // a.concrete(rows)[-1]
    inner = deep if node.attrs["transpose_a"] else a.concrete(rows)[-1]
    return 2.0 * node.tensor.size(rows) * inner


def _taps(weights: tuple[int, ...], node: Node) -> int:
    """Multiply-adds for each element of the image on the side of the output channels."""
    if node.attrs.get("layout") == "NCHW":
        return math.prod(weights[1:])
    return math.prod(weights[:3])


def _pooled(node: Node, rows: int) -> float:
    """Of a gradient behind a max-pool: as if every position had a gradient."""
    positions = rows * math.prod(node.attrs["size"])
    weights = node.inputs[2] if node.op == "pooled_input_grad" else node
    return 2.0 * positions * weights.tensor.size(rows)
