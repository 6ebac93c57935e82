"""The table of kernels: how the native runtime runs each op that is left after `lower`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir import Node
from ...passes.fuse import ANCHORS
from . import (
    calls,
    convolutions,
    movers,
    nonzero,
    pools,
    products,
    reductions,
    rowwise,
    sweep,
    transposed,
    winners,
    winograd,
)
from .products import Product
from .site import Site, Work


@dataclass(frozen=True)
class Kernel:
    """`emit` writes an op's code at a site; `scratch` says how many bytes it needs besides."""

    emit: Callable[[Site], Work]
    scratch: Callable[[Node, int], int] = lambda node, rows: 0


def _matmul(product: Product) -> Work:
    if product.node.attrs["form"] == "nonzero":
        return nonzero.Nonzero(product).work()
    by_rows = product.node.attrs["transpose_b"]
    return transposed.emit(product) if by_rows else products.emit_matmul(product)


# Products by generated loops; all but the weight gradients may begin a fused node.
LOOPS: dict[str, Callable[[Product], Work]] = {
    "matmul": _matmul,
    "panel_matmul": products.emit_matmul,
    "conv2d": convolutions.emit_conv2d,
    "conv2d_weight_grad": convolutions.emit_weight_grad,
    "pooled_input_grad": winners.emit_input_grad,
    "pooled_weight_grad": winners.emit_weight_grad,
    "winograd_conv2d": winograd.emit_conv2d,
}


def _product(site: Site) -> Work:
    if site.node.attrs.get("form") == "blas":
        return calls.emit_matmul(site)
    product = Product(site)
    return LOOPS[product.node.op](product)


def _fused(site: Site) -> Work:
    ops = {n.op for n in site.node.attrs["body"].nodes}
    if ops.intersection(ANCHORS):
        return _product(site)
    return rowwise.emit(site) if ops.intersection(rowwise.REDUCING) else sweep.emit(site)


def _product_scratch(node: Node, rows: int) -> int:
    """Scratch of a product by loops, alone or at the beginning of a fused node."""
    if node.op == "fused":
        return sum(_product_scratch(n, rows) for n in node.attrs["body"].nodes)
    match node.op:
        case "pooled_input_grad":
            return winners.input_grad_scratch(node)
        case "pooled_weight_grad":
            return winners.weight_grad_scratch(node)
        case "winograd_conv2d":
            return winograd.scratch_bytes(node)
        case "matmul" if node.attrs["form"] == "nonzero":
            return nonzero.scratch_bytes(node, rows)
        case "matmul":
            which = transposed if node.attrs["transpose_b"] else products
            return which.panel_bytes(node, rows)
    return 0


KERNELS: dict[str, Kernel] = {
    **{op: Kernel(_product, _product_scratch) for op in LOOPS},
    "shift_matmul": Kernel(calls.emit_shift_matmul, calls.shift_scratch),
    "shift_matmul_weight_grad": Kernel(calls.emit_shift_weight_grad),
    "sum": Kernel(reductions.emit_sum),
    "max": Kernel(reductions.emit_max),
    "correct": Kernel(reductions.emit_correct),
    "fused": Kernel(_fused, _product_scratch),
    "winograd_weights": Kernel(winograd.emit_weights),
    "im2col": Kernel(movers.emit_im2col),
    "col2im": Kernel(movers.emit_col2im),
    "max_pool2d": Kernel(pools.emit_max_pool2d),
    "max_unpool2d": Kernel(pools.emit_max_unpool2d),
    "dropout_mask": Kernel(movers.emit_dropout_mask),
    "one_hot": Kernel(movers.emit_one_hot),
    "pad": Kernel(movers.emit_pad),
    "slice": Kernel(movers.emit_slice),
    "transpose": Kernel(movers.emit_transpose),
    "reverse": Kernel(movers.emit_reverse),
    "broadcast": Kernel(movers.emit_broadcast),
    "full": Kernel(movers.emit_full),
    "rows_reciprocal": Kernel(movers.emit_rows_reciprocal),
}


@dataclass(frozen=True)
class NativeKernels:
    """What the planner asks of the native runtime (passes.plan.Kernels)."""

    shards: int

    def scratch(self, node: Node, rows: int) -> int:
        """Bytes of scratch that a node's kernel needs for `rows` rows."""
        return KERNELS[node.op].scratch(node, rows)

    def in_place(self, node: Node, operand: int, result: int) -> bool:
        """Whether a result may be written over an operand: one read element by element."""
        if node.op != "fused":
            return False
        body = node.attrs["body"]
        if any(n.op == "pad" for n in body.nodes):
            return False
        users = body.users[body.inputs[operand]]
        return all(u.op != "broadcast" and u.op not in ANCHORS for u in users)
