"""simplify: constant folding, algebra, stable cross-entropy, and ReLU moved behind max-pooling.

Every rule keeps the value, and, since the pass also runs before autodiff, the gradient. Rules that
would lose a NaN or an infinity (`x * 0 -> 0`) are left out; the sign of a zero may change.
"""

from __future__ import annotations

import math

import numpy as np

from ..ir import OPS, Builder, Graph, Node
from ..ir.op import is_float
from ..ir.xp import NUMPY
from .rewrite import Rules, rewrite


def simplify(graph: Graph) -> Graph:
    """The graph after the rules below, applied until none fires."""
    return rewrite(graph, RULES)


def fold_constants(b: Builder, node: Node) -> Node | None:
    """`f(full, full) -> full`, for pointwise f, rounded once: numbers are folded in float64."""
    if not node.inputs or any(x.op != "full" for x in node.inputs):
        return None
    number = is_float(node.type) and all(is_float(x.type) for x in node.inputs)
    dtypes = [np.float64 if number else x.tensor.numpy for x in node.inputs]
    operands = [np.asarray(x.attrs["value"], t) for x, t in zip(node.inputs, dtypes, strict=True)]
    with np.errstate(all="ignore"):
        value = OPS[node.op].evaluate(NUMPY, *operands, **node.attrs)
    return b.full(shape=node.shape, value=value.item(), dtype=node.dtype)


def spread_constants(b: Builder, node: Node) -> Node | None:
    """`move(full) -> full`, for ops that only repeat, reorder or cut elements."""
    match node:
        case Node(_, (Node("full", _, {"value": value}),)):
            return b.full(shape=node.shape, value=value, dtype=node.dtype)
    return None


def neutral(b: Builder, node: Node) -> Node | None:
    """`x + 0`, `0 + x`, `x - 0`, `x * 1`, `1 * x`, `x / 1` -> `x`."""
    x, y = node.inputs
    unit = 0.0 if node.op in ("add", "sub") else 1.0
    if _is_full(y, unit):
        return x
    if node.op in ("add", "mul") and _is_full(x, unit):
        return y
    return None


def signs(b: Builder, node: Node) -> Node | None:
    """`x + -y -> x - y`, `-x + y -> y - x`, `x - -y -> x + y`, `0 - x -> -x`."""
    match node:
        case Node("add", (x, Node("neg", (y,)))) | Node("add", (Node("neg", (y,)), x)):
            return b.sub(x, y)
        case Node("sub", (x, Node("neg", (y,)))):
            return b.add(x, y)
        case Node("sub", (Node("full", _, {"value": 0.0}), x)):
            return b.neg(x)
    return None


def double_negation(b: Builder, node: Node) -> Node | None:
    """`--x -> x`."""
    match node:
        case Node("neg", (Node("neg", (x,)),)):
            return x
    return None


def same_branches(b: Builder, node: Node) -> Node | None:
    """`where(c, x, x) -> x`."""
    _, x, y = node.inputs
    return x if x is y else None


def hoist_broadcast(b: Builder, node: Node) -> Node | None:
    """`f(broadcast(x), broadcast(y)) -> broadcast(f(x, y))`, pointwise f, equal axes.

    Constants may stand among the operands. The work is done on the small value.
    """
    wide = [x for x in node.inputs if x.op != "full"]
    if not wide or any(x.op != "broadcast" for x in wide):
        return None
    small, axes = wide[0].inputs[0], wide[0].attrs["axes"]
    if any(x.attrs["axes"] != axes for x in wide):
        return None
    operands = [
        b.full(shape=small.shape, value=x.attrs["value"], dtype=x.dtype)
        if x.op == "full"
        else x.inputs[0]
        for x in node.inputs
    ]
    return b.broadcast(b.make(node.op, operands, node.attrs), shape=node.shape, axes=axes)


def same_cast(b: Builder, node: Node) -> Node | None:
    """`cast(x) -> x` where x has that dtype."""
    (x,) = node.inputs
    return x if x.dtype == node.dtype else None


def reshapes(b: Builder, node: Node) -> Node | None:
    """`reshape(x) -> x` to x's own shape, `reshape(reshape(x)) -> reshape(x)`."""
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    return b.reshape(x.inputs[0], shape=node.shape) if x.op == "reshape" else None


def transposes(b: Builder, node: Node) -> Node | None:
    """`transpose(transpose(x)) -> transpose(x)`; `-> reshape(x)` where only axes of 1 move."""
    (x,), perm = node.inputs, node.attrs["perm"]
    moved = [p for p in perm if x.shape[p] != 1]
    if moved == sorted(moved):
        return x if x.shape == node.shape else b.reshape(x, shape=node.shape)
    if x.op != "transpose":
        return None
    return b.transpose(x.inputs[0], perm=tuple(x.attrs["perm"][p] for p in perm))


def broadcasts(b: Builder, node: Node) -> Node | None:
    """`broadcast(x) -> x` to x's own shape, `broadcast(broadcast(x)) -> broadcast(x)`."""
    (x,), axes = node.inputs, node.attrs["axes"]
    if x.shape == node.shape:
        return x
    if x.op != "broadcast":
        return None
    inner = tuple(axes[a] for a in x.attrs["axes"])
    return b.broadcast(x.inputs[0], shape=node.shape, axes=inner)


def log_of_softmax(b: Builder, node: Node) -> Node | None:
    """`log(softmax(x)) -> log_softmax(x)`, and `log(reshape(y)) -> reshape(log(y))` to find it.

    The stable form: where a probability underflows to 0, its logarithm stays finite.
    """
    match node:
        case Node("log", (Node("softmax", (x,), {"axis": axis}),)):
            return b.log_softmax(x, axis=axis)
        case Node("log", (Node("reshape", (Node("softmax") as y,)),)):
            return b.reshape(b.log(y), shape=node.shape)
    return None


def relu_after_pool(b: Builder, node: Node) -> Node | None:
    """`max_pool2d(relu(x)) -> relu(max_pool2d(x))`: a quarter of the work for a 2x2 window.

    relu does not decrease and keeps NaN, so the maxima agree. Gradient: where the maximum is
    positive the same entry wins first on both sides; where it is not, relu's gradient is 0.
    """
    match node:
        case Node(
            "item", (Node("max_pool2d", (Node("relu", (x,)) as relu,), attrs),), {"index": 0}
        ):
            pooled = b.item(b.max_pool2d(x, **attrs), index=0)
            with b.at(relu.loc, relu):
                return b.relu(pooled)
    return None


def sum_of_one_hot(b: Builder, node: Node) -> Node | None:
    """`sum(where(one_hot(y), broadcast(g), 0), axis 1) -> g`, g one number a row.

    Exactly one entry of a row is not zero. A broadcast or `full` g, as cross-entropy makes it.
    """
    match node:
        case Node(
            "sum",
            (Node("where", (Node("one_hot"), g, Node("full", _, {"value": 0.0}))),),
            {"axes": (1,)},
        ):
            if g.op == "full":
                return b.full(shape=node.shape, value=g.attrs["value"], dtype=node.dtype)
            if g.op == "broadcast" and g.attrs["axes"] == (0,):
                return g.inputs[0]
            if g.op == "broadcast" and g.attrs["axes"] == ():
                return b.broadcast(g.inputs[0], shape=node.shape)
    return None


def sum_of_constant(b: Builder, node: Node) -> Node | None:
    """`sum(full) -> full` over axes whose lengths are known."""
    match node:
        case Node("sum", (Node("full", _, {"value": value}) as x,), {"axes": axes}):
            if not (x.tensor.per_row and 0 in axes):
                count = math.prod(x.shape[a] for a in axes)
                return b.full(shape=node.shape, value=value * count, dtype=node.dtype)
    return None


def _is_full(node: Node, value: float) -> bool:
    return node.op == "full" and node.attrs["value"] == value


_POINTWISE = {name: (fold_constants, hoist_broadcast) for name, op in OPS.items() if op.pointwise}
RULES: Rules = {
    **_POINTWISE,
    "add": (*_POINTWISE["add"], neutral, signs),
    "sub": (*_POINTWISE["sub"], neutral, signs),
    "mul": (*_POINTWISE["mul"], neutral),
    "div": (*_POINTWISE["div"], neutral),
    "neg": (*_POINTWISE["neg"], double_negation),
    "log": (*_POINTWISE["log"], log_of_softmax),
    "where": (*_POINTWISE["where"], same_branches),
    "cast": (*_POINTWISE["cast"], same_cast),
    "reshape": (spread_constants, reshapes),
    "transpose": (spread_constants, transposes),
    "broadcast": (spread_constants, broadcasts),
    "slice": (spread_constants,),
    "reverse": (spread_constants,),
    "item": (relu_after_pool,),
    "sum": (sum_of_one_hot, sum_of_constant),
}
