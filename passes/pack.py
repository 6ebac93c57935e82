"""pack: parameters and their state enter and leave in the physical order in which they are stored.

The model stores a convolution's weights as [kh,kw,C,O], a Linear's as [in,out], and lets the
features of a Linear behind a Flatten follow the channels. `p -> reshape(transpose(packed p))` for
every stored input, its inverse for every stored output; the transposes that `layout` put there then
cancel. Why it is correct: packing is a permutation of elements, undone where the value is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..ir import Builder, Graph, Node
from ..ir.ops.shape import inverse
from .layout import Layout
from .rewrite import Rules, rewrite
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
    return rewrite(packed, RULES)


def reshape_first(b: Builder, node: Node) -> Node | None:
    """`reshape(transpose(x)) -> transpose(reshape(x))`, so that transposes meet and cancel.

    Possible if axes that the reshape joins stand side by side, in that order, in x too. Axes of 1
    may stand anywhere.
    """
    (y,) = node.inputs
    if y.op != "transpose":
        return None
    x = y.inputs[0]
    perm = [p for p in y.attrs["perm"] if x.shape[p] != 1]
    groups = common_factors(tuple(x.shape[p] for p in perm), node.shape)
    rank = {p: i for i, p in enumerate(sorted(perm))}
    sources = [[rank[p] for p in perm[start:stop]] for start, stop, _ in groups or ()]
    if groups is None or any(s != list(range(s[0], s[0] + len(s))) for s in sources):
        return None
    in_x = sorted(range(len(groups)), key=lambda i: sources[i])
    shape = tuple(d for i in in_x for d in groups[i][2])
    starts, at = {}, 0
    for i in in_x:
        starts[i] = at
        at += len(groups[i][2])
    order = [starts[i] + k for i in range(len(groups)) for k in range(len(groups[i][2]))]
    return b.transpose(b.reshape(x, shape=shape), perm=tuple(order))


def transpose_first(b: Builder, node: Node) -> Node | None:
    """`transpose(reshape(transpose(x))) -> reshape(transpose(x))`, so that x is moved once.

    Possible if axes that the reshape made of one stay side by side, in that order.
    """
    (r,), perm = node.inputs, node.attrs["perm"]
    if r.op != "reshape" or r.inputs[0].op != "transpose":
        return None
    (y,), at, runs = r.inputs, 0, []
    for start, stop, dims in common_factors(y.shape, r.shape) or ():
        runs.append((range(at, at + len(dims)), range(start, stop)))
        at += len(dims)
    runs.sort(key=lambda run: perm.index(run[0][0]))
    if [p for made, _ in runs for p in made] != list(perm):
        return None
    order = tuple(y.attrs["perm"][p] for _, had in runs for p in had)
    return b.reshape(b.transpose(y.inputs[0], perm=order), shape=node.shape)


def common_factors(old: tuple, new: tuple) -> list[tuple[int, int, tuple]] | None:
    """Runs of `old`, as (start, stop), each with the run of `new` that has the same product.

    A 1 in `new` goes with its neighbours; None where a run of `new` would be empty.
    """
    groups: list[tuple[int, int, tuple]] = []
    i = j = 0
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
    if groups and all(d == 1 for d in new[j:]):
        start, stop, dims = groups.pop()
        groups.append((start, stop, (*dims, *new[j:])))
        j = len(new)
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


RULES: Rules = {
    "reshape": (reshapes, reshape_first),
    "transpose": (transposes, transpose_first),
}
