"""pack: parameters and their state enter and leave in the physical order in which they are stored.

The model stores a convolution's weights as [kh,kw,C,O] and lets the features of a Linear behind a
Flatten follow the channels. `p -> reshape(transpose(packed p))` for every stored input, its inverse
for every stored output; the transposes that `layout` put there then cancel. Why it is correct:
packing is a permutation of elements, undone where the value is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..ir import Builder, Graph, Node
from ..ir.ops.shape import inverse
from .layout import Layout
from .rewrite import rewrite
from .simplify import reshapes, transposes


def pack(graph: Graph, storage: Mapping[str, Layout]) -> Graph:
    """The graph with the inputs and outputs named in `storage` in their stored form."""
    b = Builder()
    inputs, env = [], {}
    for n in graph.inputs:
        form = storage.get(n.name)
        made = b.input(n.name, n.tensor.like(*form.shape) if form else n.tensor)
        inputs.append(made)
        env[n] = _unpacked(b, made, form, n.shape) if form else made
    for node in graph.nodes:
        env[node] = b.clone(node, [env[x] for x in node.inputs])
    outputs = {}
    for name, node in graph.outputs.items():
        form = storage.get(name)
        outputs[name] = _packed(b, env[node], form) if form else env[node]
    packed = b.graph(graph.name, inputs, outputs)
    return rewrite(packed, {"reshape": (reshapes, reshape_first), "transpose": (transposes,)})


def reshape_first(b: Builder, node: Node) -> Node | None:
    """`reshape(transpose(x)) -> transpose(reshape(x))`, so that transposes meet and cancel.

    Possible if axes that the reshape joins stand side by side, in that order, in x too.
    """
    (y,) = node.inputs
    if y.op != "transpose":
        return None
    groups = common_factors(y.shape, node.shape)
    perm = y.attrs["perm"]
    sources = [perm[start:stop] for start, stop, _ in groups or ()]
    if groups is None or any(list(s) != list(range(s[0], s[0] + len(s))) for s in sources):
        return None
    in_x = sorted(range(len(groups)), key=lambda i: sources[i])
    shape = tuple(d for i in in_x for d in groups[i][2])
    starts, at = {}, 0
    for i in in_x:
        starts[i] = at
        at += len(groups[i][2])
    order = [starts[i] + k for i in range(len(groups)) for k in range(len(groups[i][2]))]
    return b.transpose(b.reshape(y.inputs[0], shape=shape), perm=tuple(order))


def common_factors(old: tuple, new: tuple) -> list[tuple[int, int, tuple]] | None:
    """Runs of `old`, as (start, stop), each with the run of `new` that has the same product.

    None where a run would be empty on one side, as with dimensions of 1.
    """
    groups, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        start, first = i, j
        a, b = old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                return None
            if a < b and i < len(old):
                a, i = a * old[i], i + 1
            elif b < a and j < len(new):
                b, j = b * new[j], j + 1
            else:
                return None
        groups.append((start, i, new[first:j]))
    return groups if i == len(old) and j == len(new) else None


def pack_array(array: np.ndarray, form: Layout) -> np.ndarray:
    """A logical array in its stored form: a view where that is possible."""
    return array.reshape(form.factored).transpose(form.perm)


def unpack_array(array: np.ndarray, form: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """A stored array in its logical form `shape`: a view where that is possible."""
    return array.transpose(inverse(form.perm)).reshape(shape)


def _unpacked(b: Builder, x: Node, form: Layout, shape: tuple) -> Node:
    return b.reshape(b.transpose(x, perm=inverse(form.perm)), shape=shape)


def _packed(b: Builder, x: Node, form: Layout) -> Node:
    return b.transpose(b.reshape(x, shape=form.factored), perm=form.perm)
