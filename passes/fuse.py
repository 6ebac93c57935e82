"""fuse: pointwise work on the same elements becomes one sweep, a `fused` node.

Bias and ReLU, ReLU's backward, an optimiser's whole update each become one loop over their
elements; broadcasts and constants are repeated inside. Why it is correct: each element of each
result depends on that element alone, and only convex groups are formed, so the sweep can run as one
step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..ir import OPS, Graph, Node
from .clusters import Clusters
from .order import VIEWS
from .outline import outline
from .target import Target

# Forms of products that take pointwise work as their epilogue, and the ops that have them.
GENERATED = ("loops", "nonzero", "dots", "turned", "panels", "direct", "winners", "winograd")
ANCHORS = ("matmul", "panel_matmul", "conv2d", "winograd_conv2d", "pooled_input_grad")

IMAGES = ("conv2d", "winograd_conv2d")  # anchors that may also pool, and put a border around

ROW = 8  # vectors of a row that is worked on as one: a quarter of AVX-512's registers
SCORES = 64  # of a row whose winner is found: their comparisons are the bits of one i64
BY_ROWS = ("sum", "max", "one_hot", "correct")  # besides pointwise work
POOLED = 9  # entries of a window, 3 x 3, whose sums a convolution holds in registers at once


def fuse(graph: Graph, target: Target) -> Graph:
    """The graph with every pointwise op inside a `fused` node, as few of them as is legal.

    Groups grow from the consumer: what only the backward pass needs of a forward value is computed
    there, so that nothing more than the value itself has to live until then. A product in a
    generated form takes the pointwise work on its elements as its epilogue, a convolution a pool
    and a border as well.
    """
    again = _made_again(graph, target)
    return outline(graph, _grown(graph, target, again).groups(), _fused, again)


@dataclass(frozen=True)
class Apart:
    """Two nodes of the graph before fuse, one of which reads the other, and why they are apart."""

    producer: Node
    consumer: Node
    reason: str

    def __str__(self) -> str:
        ends = (f"{n.loc or '(shared)'} {n.op}" for n in (self.producer, self.consumer))
        return f"{' -> '.join(ends)}: {self.reason}"


def left_apart(graph: Graph, target: Target) -> tuple[Apart, ...]:
    """The neighbours that `fuse` leaves in different steps, in order, with what decided that.

    One pair for two steps, the first that keeps them apart; views are looked through.
    """
    again = _made_again(graph, target)
    clusters = _grown(graph, target, again)
    found: dict[tuple[int, int], Apart] = {}
    for node in graph.nodes:
        for x in () if again(node) or node.op in VIEWS else dict.fromkeys(clusters.sources(node)):
            maker = _maker(x)
            if maker.op == "input":
                continue
            steps = id(clusters.group(maker)), id(clusters.group(node))
            if steps[0] != steps[1] and steps not in found:
                why = _reason(graph, target, clusters, x, node)
                found[steps] = Apart(maker, node, why)
    return tuple(found.values())


def _maker(node: Node) -> Node:
    """The node that computes a value, which may carry another name."""
    return _maker(node.inputs[0]) if node.op in VIEWS else node


def _made_again(graph: Graph, target: Target) -> Callable[[Node], bool]:
    """Whether each sweep that reads a node makes it anew."""
    stored = {x for n in graph.nodes for x in n.inputs if _reads_array(n, x)}
    return lambda node: repeated(target, node) and node not in stored


def _grown(graph: Graph, target: Target, again: Callable[[Node], bool]) -> Clusters:
    """The groups, and why neighbours that might have been joined were not."""
    clusters = Clusters(graph, again)
    _join_pointwise(graph, clusters)
    for node in filter(is_anchor, graph.nodes):
        _take_epilogue(graph, clusters, node)
    if target.generated:
        _join_rows(target, graph, clusters)
    for node in graph.nodes:
        if node.op == "max_pool2d" and not _keeps_pool(graph, clusters, node):
            _take_pool(graph, clusters, node)
    for node in graph.nodes:
        if node.op == "pad" and not _keeps_border(graph, clusters, node):
            clusters.merge(node.inputs[0], node, _nothing)
    return clusters


def _reason(graph: Graph, target: Target, clusters: Clusters, x: Node, node: Node) -> str:
    """Why x and a node that reads it are apart: what refused to join them, or never tried."""
    if (x, node) in clusters.refused:
        return clusters.refused[x, node]
    if node.op == "max_pool2d":
        return _keeps_pool(graph, clusters, node)
    if node.op == "pad":
        return _keeps_border(graph, clusters, node)
    if not is_pointwise(node) and node.op not in BY_ROWS:
        return f"{node.op} is not pointwise: an element of it takes many of {_maker(x).op}'s"
    if is_pointwise(node) and x.op not in BY_ROWS:
        between = f"a {x.op} lies between them" if x.op in VIEWS else ""
        return _begins_nothing(_maker(x)) or between or _other_elements(x, node)
    if not target.generated:
        return "this runtime works on rows in NumPy, one op after the other"
    first, second = (node, x) if node.op in BY_ROWS else (x, node)
    return _not_by_rows(target, first) or _not_by_rows(target, second)


def _begins_nothing(x: Node) -> str:
    """Why no pointwise work can follow a node in its step; "" if it can."""
    if is_pointwise(x) or is_anchor(x):
        return ""
    if x.op in ANCHORS and (form := x.attrs.get("form")):
        return f"{x.op} in the form {form} takes no epilogue: only generated loops do"
    return f"{x.op} takes no epilogue"


def _other_elements(x: Node, node: Node) -> str:
    """Why two nodes are not work on the same elements; "" if they are."""
    if x.shape == node.shape:
        return ""
    return f"they go over different elements: {x.op} makes {x.type}, {node.op} {node.type}"


def is_pointwise(node: Node) -> bool:
    """Whether a node is a pointwise op."""
    return OPS[node.op].pointwise


def is_anchor(node: Node) -> bool:
    """Whether a node is a product that can begin a fused group."""
    return node.attrs.get("form") in GENERATED and node.op in ANCHORS


def repeated(target: Target, node: Node) -> bool:
    """Whether a node is cheaper to make anew in each sweep than to store."""
    return node.op in ("broadcast", "full") or (target.generated and node.op == "dropout_mask")


def _reads_array(node: Node, operand: Node) -> bool:
    """Whether a node needs an operand as a whole: a product, and what spreads a mask's elements."""
    return is_anchor(node) or (node.op == "broadcast" and operand.op == "dropout_mask")


def _join_pointwise(graph: Graph, clusters: Clusters) -> None:
    """Pointwise ops join those that they feed, from the last to the first."""
    for node in filter(is_pointwise, reversed(graph.nodes)):
        for x in filter(is_pointwise, node.inputs):
            if not _other_elements(x, node):
                clusters.merge(x, node, _nothing)


def _take_epilogue(graph: Graph, clusters: Clusters, node: Node) -> None:
    """`relu(product)` and other pointwise work on a node's elements join its group."""
    for user in graph.users[node]:
        if is_pointwise(user) and not _other_elements(node, user):
            clusters.merge(node, user, _no_epilogue)


def _join_rows(target: Target, graph: Graph, clusters: Clusters) -> None:
    """Reductions of rows join what makes the rows, and what spreads their numbers again."""
    for node in graph.nodes:
        for x in clusters.sources(node):
            if not (_not_by_rows(target, x) or _not_by_rows(target, node)):
                clusters.merge(x, node, _on_several_rows)


def _nothing(group: list[Node]) -> str:
    """What may always be a group is refused for no reason."""
    return ""


def _no_epilogue(group: list[Node]) -> str:
    """Why a group is not one product and pointwise work on its elements.

    None of that work feeds the product, which would then lie between it: groups are convex.
    Operands smaller than the result must lie along its last axis, or its rows if it is a matrix.
    """
    (anchor, *others) = [n for n in group if is_anchor(n)]
    if others:
        return f"the group would have two products, {anchor.op} and {others[0].op}"
    beside = {n.shape for n in group if is_pointwise(n)} - {anchor.shape}
    if len(beside) > 1:
        shapes = " and ".join(sorted(map(str, beside)))
        return f"the group goes over elements of {shapes} besides those of {anchor.op}"
    small = [x for n in group for x in n.inputs if x.op in ("broadcast", "dropout_mask")]
    if across := next((x for x in small if not _along_columns(x)), None):
        return f"{across.op} spreads over other axes than the last one or the rows"
    return ""


def _not_by_rows(target: Target, node: Node) -> str:
    """Why a node does not make rows, of a few vectors, or numbers of rows, from such."""
    if node.op in ("sum", "max") and node.attrs["axes"] != (1,):
        axes = node.attrs["axes"]
        return f"{node.op} over axes {axes} is a step of its own: only those along rows join others"
    if not is_pointwise(node) and node.op not in BY_ROWS:
        return f"{node.op} does not work row by row"
    shapes = [x.shape for x in (*node.inputs, node) if x.shape]
    if not all(len(s) <= 2 and not isinstance(s[0], int) for s in shapes):
        return f"{node.op} works on other shapes than rows of a batch"
    widest = max((s[1] for s in shapes if len(s) == 2), default=0)
    most = SCORES if node.op == "correct" else ROW * target.lanes
    if widest > most:
        return f"rows of {widest} are longer than the {most} that {node.op} works on as one"
    return ""


def _on_several_rows(group: list[Node]) -> str:
    """Why a group does not reduce rows of one width, spreading only numbers over them."""
    if not any(n.op in BY_ROWS for n in group):
        return "nothing in the group reduces rows"
    if anchor := next(filter(is_anchor, group), None):
        return f"{anchor.op} does not work row by row"
    operands = [x for n in group for x in n.inputs]
    shapes = {x.shape for x in (*group, *operands) if len(x.shape) == 2}
    if len(shapes) != 1:
        return f"the group has rows of different shapes: {sorted(map(str, shapes))}"
    spread = [x.attrs["axes"] for x in operands if x.op == "broadcast"]
    if any(axes not in ((), (0,), (1,)) for axes in spread):
        return "a broadcast in the group spreads more than numbers over rows"
    if any(x.op == "dropout_mask" for x in operands):
        return "a dropout mask is drawn by elements, not by rows"
    return ""


def _keeps_pool(graph: Graph, clusters: Clusters, pool: Node) -> str:
    """Why a pool is a step of its own; "" where its windows lie side by side and it is all that
    reads a generated convolution."""
    (x,), attrs = pool.inputs, pool.attrs
    if x.op == "input":
        return "there is nothing in front of the pool"
    if attrs["kernel"] != attrs["stride"] or attrs["padding"] != (0, 0):
        return "its windows overlap, leave gaps, or reach over the border"
    if math.prod(attrs["kernel"]) > POOLED:
        return f"a window has more than the {POOLED} entries that a convolution holds at once"
    group = clusters.group(x)
    shapes = {"conv2d": attrs["kernel"], "winograd_conv2d": (2, 2)}  # of windows that each can pool
    if not any(is_anchor(n) and shapes.get(n.op) == attrs["kernel"] for n in group):
        return f"no generated convolution in front of it pools windows of {attrs['kernel']}"
    outside = {u for n in group for u in graph.users[n]} - {*group, pool}
    if reader := min(outside, key=graph.nodes.index, default=None):
        where = f" of {reader.loc}" if reader.loc else ""
        return f"{reader.op}{where} reads what is pooled as well"
    if set(graph.outputs.values()).intersection(group):
        return "what is pooled is an output of the program"
    return ""


def _take_pool(graph: Graph, clusters: Clusters, pool: Node) -> None:
    """`max_pool2d(fused { conv2d ... })`, and pointwise work on its result, become one group."""
    clusters.merge(pool.inputs[0], pool, _nothing)
    for item in graph.users[pool]:
        clusters.merge(pool, item, _nothing)
    for item in graph.users[pool]:
        _take_epilogue(graph, clusters, item)


def _keeps_border(graph: Graph, clusters: Clusters, pad: Node) -> str:
    """Why a pad is a step of its own; "" where it puts zeros around the images that a generated
    convolution makes, and is all that reads them."""
    (x,), attrs = pad.inputs, pad.attrs
    around = {
        i for i, widths in enumerate(zip(attrs["low"], attrs["high"], strict=True)) if any(widths)
    }
    if len(pad.shape) != 4 or not around <= {1, 2} or attrs["value"]:
        return "it is no border of zeros around images"
    if not any(is_anchor(n) and n.op in IMAGES for n in clusters.group(x)):
        return "no generated convolution makes what it borders"
    if reader := next((u for u in graph.users[x] if u is not pad), None):
        where = f" of {reader.loc}" if reader.loc else ""
        return f"{reader.op}{where} reads what is bordered as well"
    return "what is bordered is an output" if x in graph.outputs.values() else ""


def _along_columns(x: Node) -> bool:
    """Whether a spread operand lies along the last axis or the rows, or a mask in its own order."""
    rank = len(x.shape)
    if x.op == "dropout_mask":
        return x.attrs["perm"] is None or list(x.attrs["perm"]) == sorted(x.attrs["perm"])
    axes = x.attrs["axes"]
    return axes in ((), (rank - 1,), tuple(range(rank - 1)))


def _fused(group: list[Node]) -> tuple[str, Mapping[str, Any]] | None:
    alone = len(group) == 1 and not is_pointwise(group[0])
    return None if alone or group[0].op == "item" else ("fused", {})
