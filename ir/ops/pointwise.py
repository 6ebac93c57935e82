"""Pointwise ops. Each is one line over `xp`, which is what every runtime executes."""

from __future__ import annotations

from typing import Any

from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Pointwise, register
from ..types import DTYPES, FLOATS, TensorType


def full_like(b: Builder, x: Node, value: float) -> Node:
    """A tensor of x's type in which every element is `value`."""
    return b.full(shape=x.shape, value=value, dtype=x.dtype)


@register
class Add(Pointwise):
    """x + y. Gradient: g and g."""

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.add(x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return g, g


@register
class Sub(Pointwise):
    """x - y. Gradient: g and -g."""

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.subtract(x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return g, b.neg(g)


@register
class Mul(Pointwise):
    """x * y. Gradient: g*y and g*x."""

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.multiply(x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        x, y = node.inputs
        return b.mul(g, y), b.mul(g, x)


@register
class Div(Pointwise):
    """x / y, infinite or NaN at y = 0 as IEEE 754 has it. Gradient: g/y and -g*(x/y)/y."""

    domain = (0.5, 2.0)

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.divide(x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        gx = b.div(g, node.inputs[1])
        return gx, b.neg(b.mul(gx, node))


@register
class Neg(Pointwise):
    """-x. Gradient: -g."""

    kinds = "f"

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.negative(x)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.neg(g),)


@register
class Exp(Pointwise):
    """e to the x. Gradient: g*exp(x)."""

    kinds = "f"

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.exp(x)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.mul(g, node),)


@register
class Log(Pointwise):
    """The natural logarithm; -inf at 0, NaN below. Gradient: g/x."""

    kinds = "f"
    domain = (0.5, 2.0)

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.log(x)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.div(g, node.inputs[0]),)


@register
class Sqrt(Pointwise):
    """The square root; NaN below 0. Gradient: g/2/sqrt(x), infinite at 0."""

    kinds = "f"
    domain = (0.5, 2.0)

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.sqrt(x)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.div(b.mul(g, full_like(b, g, 0.5)), node),)


@register
class Tanh(Pointwise):
    """The hyperbolic tangent. Gradient: g*(1 - tanh(x)^2)."""

    kinds = "f"

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.tanh(x)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return (b.mul(g, b.sub(full_like(b, g, 1.0), b.mul(node, node))),)


@register
class Pow(Pointwise):
    """x to the y, for x > 0. Gradient: g*y*x^(y-1) and g*x^y*log(x)."""

    domain = (0.5, 2.0)

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.pow(x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        x, y = node.inputs
        lower = b.pow(x, b.sub(y, full_like(b, y, 1.0)))
        return b.mul(g, b.mul(y, lower)), b.mul(g, b.mul(node, b.log(x)))


@register
class Relu(Pointwise):
    """max(x, 0), NaN where x is NaN. Gradient: g where x > 0, 0 at 0 and below, g at NaN."""

    kinds = "f"

    def evaluate(self, xp: Any, x: Any) -> Any:
        return xp.maximum(x, xp.constant(0.0, x))

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        zero = full_like(b, g, 0.0)
        return (b.where(b.less_equal(node, zero), zero, g),)


@register
class Equal(Pointwise):
    """Whether x == y; false where either is NaN."""

    gives = "b"

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.equal(x, y)


@register
class Less(Pointwise):
    """Whether x < y; false where either is NaN."""

    gives = "b"

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.less(x, y)


@register
class LessEqual(Pointwise):
    """Whether x <= y; false where either is NaN."""

    gives = "b"

    def evaluate(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.less_equal(x, y)


@register
class Where(Pointwise):
    """x where the condition holds, else y, whatever the other one is. Gradient: g or 0."""

    kinds = "bff"

    def evaluate(self, xp: Any, condition: Any, x: Any, y: Any) -> Any:
        return xp.where(condition, x, y)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        condition, zero = node.inputs[0], full_like(b, g, 0.0)
        return None, b.where(condition, g, zero), b.where(condition, zero, g)


@register
class Cast(Pointwise):
    """x in another dtype; a boolean becomes 0 or 1. Gradient: g cast back, none to an integer."""

    kinds = "a"
    attrs = {"dtype": REQUIRED}
    examples = (
        "cast f32[N,5] {dtype='f64'}",
        "cast f64[] {dtype='f32'}",
        "cast i64[] {dtype='f64'}",
        "cast bool[N,5] {dtype='f32'}",
    )

    def infer(self, x: TensorType, *, dtype: str) -> TensorType:
        return TensorType(x.shape, dtype)

    def evaluate(self, xp: Any, x: Any, *, dtype: str) -> Any:
        assert dtype in DTYPES
        return xp.cast(x, dtype)

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        (x,) = node.inputs
        return (b.cast(g, dtype=x.dtype) if x.dtype in FLOATS else None,)
