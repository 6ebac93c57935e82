"""Random well-typed graphs over the registered ops, a pure function of their seed.

A sketch starts from an image, a row of features, labels and a few parameters, and grows by makers:
each takes values that are there and adds one. What nothing reads in the end goes into the loss. The
functions are continuous, so that finite differences mean something; magnitudes stay near 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gemmc.ir import Builder, Graph, Node, TensorType
from gemmc.ir.ops.conv import window_count
from gemmc.ir.types import N

LARGEST = 400  # elements a row: what is larger is not grown further
MAKERS_A_GRAPH = (5, 16)


def random_graph(seed: int) -> Graph:
    """Inputs x, f, y and parameters p0, p1, ...; outputs loss and two values on the way."""
    rng = np.random.default_rng(seed)
    sketch = Sketch(rng)
    for _ in range(rng.integers(*MAKERS_A_GRAPH)):
        sketch.grow()
    return sketch.graph(f"random{seed}")


def random_parameters(graph: Graph) -> tuple[str, ...]:
    """The floats among the inputs: what a random graph is differentiated by."""
    return tuple(n.name for n in graph.inputs if n.dtype == "f32")


class Sketch:
    """A graph being grown: the builder, the inputs, and the float values so far."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.b = rng, Builder()
        c, h, w, f = (int(n) for n in rng.integers((1, 3, 3, 2), (4, 8, 8, 8)))
        self.inputs: list[Node] = []
        self.values = [self.input("x", N, c, h, w), self.input("f", N, f)]
        self.labels = self.input("y", N, dtype="i64")
        self.scalars = [self.input(name, dtype="i64") for name in ("seed", "step")]

    def input(self, name: str, *shape: object, dtype: str = "f32") -> Node:
        """One more input."""
        t = TensorType(shape, dtype)  # type: ignore[arg-type]
        self.inputs.append(self.b.input(name, t))
        return self.inputs[-1]

    def parameter(self, *shape: int) -> Node:
        """One more parameter, now and then computed from another value."""
        p = self.input(f"p{len(self.inputs)}", *shape)
        return self.pick(self.b.tanh, self.b.neg, lambda x: x)(p)

    def pick(self, *choices: Callable) -> Callable:
        """One of `choices`."""
        return choices[self.rng.integers(len(choices))]

    def grow(self) -> None:
        """Adds one value, by the first maker drawn that applies to a value drawn."""
        for _ in range(20):
            x = self.values[
                int(len(self.values) * self.rng.random() ** 0.5)
            ]  # later ones more often
            with self.b.at(f"{len(self.values)}.Random"):
                made = self.pick(*MAKERS)(self, x)
            if made is not None and math.prod(d for d in made.shape if d is not N) <= LARGEST:
                self.values.append(made)
                return

    def graph(self, name: str) -> Graph:
        """The graph, with a loss in which every value counts."""
        b = self.b
        used = {
            x for n in b.graph(name, self.inputs, outputs_of(self.values)).nodes for x in n.inputs
        }
        loss = b.full(shape=(), value=0.25)
        for x in self.values:
            if x not in used:
                loss = b.add(loss, self.mean(b.mul(x, x)))
        middle = [self.values[i] for i in self.rng.integers(0, len(self.values), 2)]
        return b.graph(name, self.inputs, {"loss": loss, **outputs_of(middle)})

    def constant(self, like: Node) -> Node:
        """A number between 1/2 and 1 in every element."""
        value = float(np.float32(self.rng.uniform(0.5, 1.0)))
        return self.b.full(shape=like.shape, value=value)

    def mean(self, x: Node) -> Node:
        """The mean of all elements."""
        if not x.shape:
            return x
        total = self.b.sum(x, axes=tuple(range(len(x.shape))))
        count = math.prod(d for d in x.shape if d is not N)
        total = self.b.mul(total, self.b.full(shape=(), value=1.0 / count))
        return self.b.mul(total, self.b.rows_reciprocal()) if x.tensor.per_row else total

    def free_axes(self, x: Node) -> list[int]:
        """The axes that are not rows of the batch."""
        return list(range(1 if x.tensor.per_row else 0, len(x.shape)))


def outputs_of(values: list[Node]) -> dict[str, Node]:
    """The values under the names v0, v1, ..."""
    return {f"v{i}": x for i, x in enumerate(values)}


def unary(s: Sketch, x: Node) -> Node:
    b = s.b
    positive = b.add(b.mul(x, x), s.constant(x))
    return s.pick(
        lambda: b.relu(x),
        lambda: b.neg(x),
        lambda: b.tanh(x),
        lambda: b.exp(b.tanh(x)),
        lambda: b.log(positive),
        lambda: b.sqrt(positive),
        lambda: b.mul(x, s.constant(x)),
        lambda: b.cast(b.cast(x, dtype="f64"), dtype="f32"),
    )()


def binary(s: Sketch, x: Node) -> Node | None:
    partners = [v for v in s.values if v.shape == x.shape and v is not x]
    if not partners:
        return None
    b, y = s.b, partners[s.rng.integers(len(partners))]
    return s.pick(
        lambda: b.add(x, y),
        lambda: b.sub(x, y),
        lambda: b.sub(b.neg(x), y),
        lambda: b.mul(x, b.tanh(y)),
        lambda: b.div(x, b.add(b.mul(y, y), s.constant(y))),
        lambda: b.where(b.less(x, y), x, y),
        lambda: b.where(b.less_equal(x, y), y, x),
        lambda: b.pow(b.exp(b.tanh(x)), b.tanh(y)),
    )()


def bias(s: Sketch, x: Node) -> Node | None:
    axes = s.free_axes(x)
    if not axes:
        return None
    first = int(s.rng.choice(axes))
    chosen = tuple(range(first, int(s.rng.integers(first, axes[-1] + 1)) + 1))
    p = s.parameter(*(x.shape[a] for a in chosen))
    return s.pick(s.b.add, s.b.mul)(x, s.b.broadcast(p, shape=x.shape, axes=chosen))


def reduced(s: Sketch, x: Node) -> Node | None:
    axes = s.free_axes(x)
    if len(axes) < 1 or len(x.shape) < 2:
        return None
    chosen = tuple(sorted(s.rng.choice(axes, s.rng.integers(1, len(axes) + 1), replace=False)))
    over = tuple(int(a) for a in chosen)
    if s.rng.random() < 0.5:
        return s.b.max(x, axes=over)
    y = s.b.sum(x, axes=over)
    count = math.prod(x.shape[a] for a in over)
    return s.b.mul(y, s.b.full(shape=y.shape, value=1.0 / count))


def centred(s: Sketch, x: Node) -> Node | None:
    """x minus its mean over the batch: something that no tile of rows can know."""
    if not x.tensor.per_row or len(x.shape) < 2:
        return None
    total = s.b.sum(x, axes=(0,))
    share = s.b.broadcast(s.b.rows_reciprocal(), shape=total.shape)
    axes = tuple(range(1, len(x.shape)))
    return s.b.sub(x, s.b.broadcast(s.b.mul(total, share), shape=x.shape, axes=axes))


def repeated(s: Sketch, x: Node) -> Node | None:
    if len(x.shape) not in (1, 2, 3):
        return None
    shape = (*x.shape, int(s.rng.integers(2, 4)))
    return s.b.broadcast(x, shape=shape, axes=tuple(range(len(x.shape))))


def product(s: Sketch, x: Node) -> Node | None:
    if len(x.shape) < 2:
        return None
    k, m = x.shape[-1], int(s.rng.integers(1, 9))
    if s.rng.random() < 0.5:
        return s.b.matmul(x, s.parameter(m, k), transpose_b=True)
    return s.b.matmul(x, s.parameter(k, m))


def gram(s: Sketch, x: Node) -> Node | None:
    """A product summed over the batch, then applied to each row again."""
    if not x.tensor.per_row or len(x.shape) < 2:
        return None
    square = s.b.matmul(x, x, transpose_a=True)
    share = s.b.broadcast(s.b.rows_reciprocal(), shape=square.shape)
    return s.b.matmul(x, s.b.tanh(s.b.mul(square, share)))


def convolution(s: Sketch, x: Node) -> Node | None:
    if len(x.shape) != 4 or not x.tensor.per_row:
        return None
    _, c, h, w = x.shape
    kh, kw, p, q, sh, sw, o = (
        int(n) for n in s.rng.integers((1, 1, 0, 0, 1, 1, 1), (4, 4, 3, 3, 3, 3, 5))
    )
    if window_count(h, kh, sh, p) < 1 or window_count(w, kw, sw, q) < 1:
        return None
    return s.b.conv2d(x, s.parameter(o, c, kh, kw), stride=(sh, sw), padding=(p, q))


def pooled(s: Sketch, x: Node) -> Node | None:
    if len(x.shape) != 4 or not x.tensor.per_row:
        return None
    kernel, stride = ((int(a), int(b)) for a, b in s.rng.integers(1, 4, (2, 2)))
    padding = tuple(int(s.rng.integers(0, k // 2 + 1)) for k in kernel)
    if any(
        window_count(*each) < 1 for each in zip(x.shape[2:], kernel, stride, padding, strict=True)
    ):
        return None
    y = s.b.relu(x) if s.rng.random() < 0.5 else x
    return s.b.item(s.b.max_pool2d(y, kernel=kernel, stride=stride, padding=padding), index=0)


def reshaped(s: Sketch, x: Node) -> Node | None:
    if not x.tensor.per_row or len(x.shape) < 2:
        return None
    size = math.prod(x.shape[1:])
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    first = int(s.rng.choice(divisors))
    rest = [d for d in divisors if (size // first) % d == 0]
    second = int(s.rng.choice(rest))
    return s.b.reshape(
        x,
        shape=s.pick(
            lambda: (N, size),
            lambda: (N, first, size // first),
            lambda: (N, first, second, size // first // second),
        )(),
    )


def transposed(s: Sketch, x: Node) -> Node | None:
    axes = s.free_axes(x)
    if len(axes) < 2:
        return None
    moved = tuple(int(a) for a in s.rng.permutation(axes))
    return s.b.transpose(x, perm=moved if len(moved) == len(x.shape) else (0, *moved))


def cut(s: Sketch, x: Node) -> Node | None:
    axes = s.free_axes(x)
    if not axes:
        return None
    rank, a = len(x.shape), int(s.rng.choice(axes))
    low, high = (int(n) for n in s.rng.integers(0, 3, 2))
    one = tuple(low if i == a else 0 for i in range(rank))
    other = tuple(high if i == a else 0 for i in range(rank))
    start = int(s.rng.integers(x.shape[a]))
    length = int(s.rng.integers(1, x.shape[a] - start + 1))
    return s.pick(
        lambda: s.b.pad(x, low=one, high=other, value=0.5),
        lambda: s.b.reverse(x, axes=(a,)),
        lambda: s.b.slice(
            x,
            start=tuple(start if i == a else 0 for i in range(rank)),
            size=tuple(length if i == a else d for i, d in enumerate(x.shape)),
        ),
    )()


def normalised(s: Sketch, x: Node) -> Node | None:
    if not x.tensor.per_row or len(x.shape) < 2:
        return None
    op = s.pick(s.b.softmax, s.b.log_softmax, lambda x, axis: s.b.log(s.b.softmax(x, axis=axis)))
    return op(x, axis=int(s.rng.integers(1, len(x.shape))))


def dropped(s: Sketch, x: Node) -> Node:
    key = len(s.values)
    return s.b.mul(x, s.b.dropout_mask(*s.scalars, shape=x.shape, p=0.4, key=key))


def labelled(s: Sketch, x: Node) -> Node | None:
    if not x.tensor.per_row or len(x.shape) != 2 or x.shape[1] < 2:
        return None
    zero = s.b.full(shape=x.shape, value=0.0)
    return s.b.where(s.b.one_hot(s.labels, classes=x.shape[1]), x, zero)


MAKERS = (
    *(unary, unary, unary, binary, binary, binary, bias, bias, reduced, centred, repeated),
    *(product, product, gram, convolution, convolution, convolution, pooled, pooled),
    *(reshaped, transposed, cut, normalised, dropped, labelled),
)
