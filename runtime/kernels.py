"""The table of kernels: how the blas runtime runs each op that is left after `lower`.

Linear algebra goes to scipy.linalg.blas, pointwise work and data movement to NumPy's ufuncs.
"""

from __future__ import annotations

from ..ir import Node
from . import movers, products, sweep
from .binding import Kernel

KERNELS: dict[str, Kernel] = {
    "matmul": Kernel(products.bind_matmul),
    "shift_matmul": Kernel(products.bind_shift_matmul, products.shift_scratch),
    "shift_matmul_weight_grad": Kernel(products.bind_shift_weight_grad),
    "sum": Kernel(products.bind_sum, products.sum_scratch),
    "fused": Kernel(sweep.bind, sweep.scratch, sweep.in_place),
    "im2col": Kernel(movers.bind_im2col),
    "col2im": Kernel(movers.bind_col2im),
    "max_pool2d": Kernel(movers.bind_max_pool2d, movers.pool_scratch),
    "max_unpool2d": Kernel(movers.bind_max_unpool2d, movers.unpool_scratch),
    "dropout_mask": Kernel(movers.bind_dropout_mask, movers.mask_scratch),
    "max": Kernel(movers.bind_max),
    "correct": Kernel(movers.bind_correct, movers.correct_scratch),
    "one_hot": Kernel(movers.bind_one_hot),
    "pad": Kernel(movers.bind_pad),
    "slice": Kernel(movers.bind_slice),
    "transpose": Kernel(movers.bind_transpose),
    "reverse": Kernel(movers.bind_reverse),
    "broadcast": Kernel(movers.bind_broadcast),
    "full": Kernel(movers.bind_full),
    "rows_reciprocal": Kernel(movers.bind_rows_reciprocal),
}

shards = 1  # a region runs as one


def scratch(node: Node, rows: int) -> int:
    """Bytes of scratch that a node's kernel needs for `rows` rows."""
    return KERNELS[node.op].scratch(node, rows)


def in_place(node: Node, operand: int, result: int) -> bool:
    """Whether a node's kernel may write that result over that operand."""
    return KERNELS[node.op].in_place(node, operand, result)
