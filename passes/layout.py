"""layout: images become NHWC, weights [kh,kw,C,O] and [in,out]; features follow the channels.

Every value may have, besides its logical form, one physical form: factor its axes, then permute
them (`Layout`). Convolutions and pools fix the forms of what they touch; the forms spread through
pointwise ops, reshapes and the features of matrix products until nothing changes. What the model
stores with its rows last, as a Linear's weights, is worked on so, with what hangs on it element by
element: its gradient and its update. Then the graph is rebuilt: an op whose operands have physical
forms works on those, and a transpose stands wherever a logical form is needed after all. Why it is
correct: every op is rebuilt so that its physical result is the transpose of its logical one. The
transposes of parameters go away in `pack`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..ir import OPS, Builder, Graph, Node
from ..ir.ops.conv import TO_HWIO, TO_NHWC
from ..ir.ops.shape import inverse


@dataclass(frozen=True)
class Layout:
    """A physical form: the value reshaped to `factored`, its axes then ordered by `perm`."""

    factored: tuple
    perm: tuple[int, ...]

    @property
    def shape(self) -> tuple:
        """The shape of the physical form."""
        return tuple(self.factored[p] for p in self.perm)

    def axes(self, logical: tuple[int, ...]) -> tuple[int, ...]:
        """Where the factored axes `logical` are in the physical form."""
        return tuple(self.perm.index(a) for a in logical)

    @property
    def rows_last(self) -> bool:
        """Whether the first axis stands behind all others, as in [in,out] for [out,in]."""
        return self.perm[0] != 0 and self.perm[-1] == 0

    def with_rows(self, dim: object) -> Layout | None:
        """The same features under another leading axis; None if the first axis is not leading."""
        if self.perm[0] != 0:
            return None
        return Layout((dim, *self.factored[1:]), self.perm)

    def with_rows_first(self) -> Layout:
        """The same with the first axis moved to the front."""
        return Layout(self.factored, (0, *(p for p in self.perm if p != 0)))

    def with_rows_last(self) -> Layout:
        """The same with the first axis moved to the end."""
        return Layout(self.factored, (*(p for p in self.perm if p != 0), 0))


_IMAGE_OPS = {  # the operands and results that are images; the weights are operand or result "w"
    "conv2d": ("x", "w", "y"),
    "conv2d_input_grad": ("x", "w", "y"),
    "conv2d_weight_grad": ("x", "x", "w"),
    "max_pool2d": ("x", ""),
    "max_unpool2d": ("x", "x", "y"),
}


def layout(graph: Graph, stored: Mapping[str, Layout] | None = None) -> Graph:
    """The graph with convolutions and pools, and what hangs on them, in NHWC.

    `stored` has the forms in which the model keeps inputs: those with rows last are used so.
    """
    layouts = assign(graph, stored or {})
    return _Rebuild(graph, layouts).graph() if layouts else graph


def assign(graph: Graph, stored: Mapping[str, Layout]) -> dict[Node, Layout]:
    """The physical form of each value that has one."""
    found = _follow_images(graph)
    for value in _stored_rows_last(graph, stored):
        form = found.get(value) or Layout(value.shape, tuple(range(len(value.shape))))
        if len(form.perm) > 1 and form.factored[0] == value.shape[0]:
            found[value] = form.with_rows_last()
    return found


def _follow_images(graph: Graph) -> dict[Node, Layout]:
    """The forms that convolutions and pools fix, and those that follow from them."""
    found: dict[Node, Layout] = {}
    for node in graph.nodes:
        for value, role in zip((*node.inputs, node), _roles(node), strict=False):
            if role:
                perm = TO_HWIO if role == "w" else TO_NHWC
                found.setdefault(value, Layout(value.shape, perm))
        if node.op == "item" and _roles(node.inputs[0]):
            found.setdefault(node, Layout(node.shape, TO_NHWC))
    while found and _spread_all(found, graph):
        pass
    return found


def _spread_all(found: dict[Node, Layout], graph: Graph) -> bool:
    changed = [_spread(found, n) for n in (*graph.nodes, *reversed(graph.nodes))]
    return any(changed)


def _stored_rows_last(graph: Graph, stored: Mapping[str, Layout]) -> set[Node]:
    """The inputs stored with rows last, and what pointwise ops and reshapes tie to them."""
    found = {n for n in graph.inputs if n.name in stored and stored[n.name].rows_last}
    size = 0
    while size < len(found):
        size = len(found)
        for node in (*graph.nodes, *reversed(graph.nodes)):
            if OPS[node.op].pointwise or node.op == "reshape":
                tied = {node, *(x for x in node.inputs if x.shape[:1] == node.shape[:1])}
                found |= tied if tied & found else set()
    return found


def _roles(node: Node) -> tuple[str, ...]:
    """What operands and result of an image op are; nothing for others, or in NHWC already."""
    return _IMAGE_OPS.get(node.op, ()) if node.attrs.get("layout") == "NCHW" else ()


def _spread(found: dict[Node, Layout], node: Node) -> bool:
    """Hands forms across `node` in both directions; whether anything was new."""
    changed = False
    for x, y, convert in _ties(node):
        for a, b in ((x, y), (y, x)):
            if a in found and b not in found and (form := convert(found[a], b)):
                found[b] = form
                changed = True
    return changed


_Convert = Callable[[Layout, Node], Layout | None]


def _ties(node: Node) -> Iterator[tuple[Node, Node, _Convert]]:
    """Pairs of values around `node` whose forms should agree, and how one form gives the other."""
    if OPS[node.op].pointwise:
        for x in node.inputs:
            yield x, node, _if_refined
    elif node.op == "reshape":
        yield node.inputs[0], node, _if_refined
    elif node.op == "matmul" and (pair := _feature_pair(node)):
        yield *pair, _with_own_rows


def _feature_pair(node: Node) -> tuple[Node, Node] | None:
    """The two of operands and result whose last axes are the same features, if all are matrices.

    First the activations, then the weights or their gradient.
    """
    a, b = node.inputs
    if any(len(v.shape) != 2 for v in (a, b, node)):
        return None
    if node.attrs["transpose_a"]:
        return b, node
    return (a, b) if node.attrs["transpose_b"] else (node, b)


def _if_refined(form: Layout, value: Node) -> Layout | None:
    return form if refines(form.factored, value.shape) else None


def _with_own_rows(form: Layout, value: Node) -> Layout | None:
    moved = form.with_rows(value.shape[0])
    return moved if moved and refines(moved.factored, value.shape) else None


def refines(factored: tuple, shape: tuple) -> bool:
    """Whether each dimension of `shape` is the product of a run of `factored`."""
    rest = list(factored)
    for dim in shape:
        if not rest:
            return False
        run = rest.pop(0)
        while run != dim and isinstance(run, int) and rest and isinstance(rest[0], int):
            run *= rest.pop(0)
        if run != dim:
            return False
    return all(d == 1 for d in rest)


class _Rebuild:
    """Rebuilds a graph, holding for each value the logical form, the physical form, or both."""

    def __init__(self, graph: Graph, layouts: dict[Node, Layout]) -> None:
        self.source, self.layouts, self.b = graph, layouts, Builder()
        self.logical_of: dict[Node, Node] = {n: self.b.clone(n, ()) for n in graph.inputs}
        self.physical_of: dict[Node, Node] = {}

    def graph(self) -> Graph:
        for node in self.source.nodes:
            with self.b.at(node.loc, node):
                self._rebuild(node)
        inputs = [self.logical_of[n] for n in self.source.inputs]
        outputs = {name: self.logical(n) for name, n in self.source.outputs.items()}
        return self.b.graph(self.source.name, inputs, outputs)

    def logical(self, node: Node) -> Node:
        """The value as the source graph has it."""
        if node not in self.logical_of:
            form = self.layouts[node]
            with self.b.at(self.b.loc, node):
                back = self._transpose(self.physical_of[node], inverse(form.perm))
                self.logical_of[node] = self._reshape(back, node.shape)
        return self.logical_of[node]

    def physical(self, node: Node, form: Layout) -> Node:
        """The value in physical form `form`."""
        if node in self.physical_of and self.layouts[node] == form:
            return self.physical_of[node]
        made = self._transpose(self._reshape(self.logical(node), form.factored), form.perm)
        if self.layouts.get(node) == form:
            self.physical_of[node] = made
        return made

    def _rebuild(self, node: Node) -> None:
        form = self.layouts.get(node)
        made = self._in_form(node, form) if form else None
        if made is not None:
            self.physical_of[node] = made
        else:
            made = self._over_forms(node)
            made = made or self.b.clone(node, [self.logical(x) for x in node.inputs])
            self.logical_of[node] = made

    def _in_form(self, node: Node, form: Layout) -> Node | None:
        """The physical form of `node`, or None where only the logical one can be made."""
        b, attrs = self.b, node.attrs
        if _roles(node):
            return b.make(node.op, self._images(node), {**attrs, "layout": "NHWC"})
        if OPS[node.op].pointwise:
            return b.make(node.op, [self.physical(x, form) for x in node.inputs], attrs)
        match node.op:
            case "item":
                return b.item(self.logical_of[node.inputs[0]], index=attrs["index"])
            case "reshape":
                return self.physical(node.inputs[0], form)
            case "full":
                return b.full(**{**attrs, "shape": form.shape})
            case "dropout_mask" if attrs["perm"] is None:
                operands = [self.logical(x) for x in node.inputs]
                return b.dropout_mask(
                    *operands, **{**attrs, "shape": form.shape, "perm": form.perm}
                )
            case "broadcast" if not attrs["axes"] or form.factored == node.shape:
                axes = form.axes(attrs["axes"])
                if list(axes) == sorted(axes):
                    return b.broadcast(self.logical(node.inputs[0]), shape=form.shape, axes=axes)
            case "matmul" if (
                node in self._shared_features(node) or self._weight_turned(node) is node
            ):
                made = self._product(node)
                return self._reshape(made, form.shape) if made else None
        return None

    def _over_forms(self, node: Node) -> Node | None:
        """The logical form of `node` made from physical operands, where that is a gain."""
        b, x = self.b, node.inputs[0] if node.inputs else None
        form = self.layouts.get(x) if x else None
        if _roles(node):
            return b.make(node.op, self._images(node), {**node.attrs, "layout": "NHWC"})
        if node.op == "matmul":
            return self._product(node)
        if node.op == "sum" and x is not None and form and form.factored == x.shape:
            axes = node.attrs["axes"]
            kept = form.axes(tuple(a for a in range(len(x.shape)) if a not in axes))
            if list(kept) == sorted(kept):
                return b.sum(self.physical(x, form), axes=tuple(sorted(form.axes(axes))))
        return None

    def _images(self, node: Node) -> list[Node]:
        """The operands of a convolution or pool in the forms that "NHWC" asks for."""
        roles = zip(node.inputs, _roles(node), strict=False)
        perms = [(x, TO_HWIO if role == "w" else TO_NHWC) for x, role in roles]
        return [self.physical(x, Layout(x.shape, perm)) for x, perm in perms]

    def _shared_features(self, node: Node) -> tuple[Node, ...]:
        """The two of operands and result of a product that share features in one physical order."""
        pair = _feature_pair(node)
        if not pair or not all(v in self.layouts for v in pair):
            return ()
        x, w = (self.layouts[v] for v in pair)
        one, other = x.with_rows(0), w.with_rows_first().with_rows(0)
        return pair if one and one == other else ()

    def _weight_turned(self, node: Node) -> Node | None:
        """The weights of a product, operand or result, if they can be taken with rows last."""
        w = node if node.attrs["transpose_a"] else node.inputs[1]
        form = self.layouts.get(w)
        if not form or not form.rows_last or form.factored[0] != w.shape[0]:
            return None
        in_order = list(form.perm[:-1]) == sorted(form.perm[:-1])
        return w if in_order or self._shared_features(node) else None

    def _product(self, node: Node) -> Node | None:
        """A product over, or resulting in, physical forms; None where that is no gain.

        With w' for weights w that have their rows last:
        `matmul(x, w) {transpose_b=True} -> matmul(x, w')`,
        `matmul(dy, w) -> matmul(dy, w') {transpose_b=True}`, and, for such a gradient,
        `matmul(dy, x) {transpose_a=True} -> matmul(x, dy) {transpose_a=True}`.
        """
        a_turned, b_turned = node.attrs["transpose_a"], node.attrs["transpose_b"]
        shared, turned = self._shared_features(node), self._weight_turned(node)
        if not shared and not turned:
            return None
        x, w = node.inputs  # by place: both may be one value
        a = self._matrix(x, False) if shared and b_turned else self.logical(x)
        b = self._matrix(w, w is turned) if shared or not a_turned else self.logical(w)
        if not turned:
            return self.b.make("matmul", [a, b], node.attrs)
        if a_turned:
            return self.b.matmul(b, a, transpose_a=True)
        return self.b.matmul(a, b, transpose_b=not b_turned)

    def _matrix(self, x: Node, turned: bool) -> Node:
        """The physical form of a matrix as [rows, features], or turned, as [features, rows]."""
        shape = x.shape[::-1] if turned else x.shape
        return self._reshape(self.physical(x, self.layouts[x]), shape)

    def _transpose(self, x: Node, perm: tuple[int, ...]) -> Node:
        return x if perm == tuple(range(len(perm))) else self.b.transpose(x, perm=perm)

    def _reshape(self, x: Node, shape: tuple) -> Node:
        return x if x.shape == shape else self.b.reshape(x, shape=shape)
