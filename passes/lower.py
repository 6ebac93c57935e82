"""lower: convolutions become matrix products, softmax its parts; afterwards every op has a kernel.

A convolution is written as `im2col` (one product over patches) or `shift` (one accumulating product
per kernel tap over shifted views of a bordered plane). With x padded, w [kh,kw,C,O] and flip(w) the
weights turned by half a turn with C and O exchanged:

    forward          y  = im2col(x) @ w                    y  = shift(x, w)
    weight gradient  dw = im2col(x)^T @ dy                 dw = shift_weight_grad(x, dy)
    input gradient   dx = im2col(pad(dy)) @ flip(w)        dx = shift(pad(dy), flip(w))
                     dx = col2im(dy @ w^T), stride > 1

All are the same sums in another order. Where loops can be generated, a convolution may stay one
(`direct`), become Winograd's, or, for gradients behind a max-pool, walk the entries that won
(`winners`). `forms` decides, for each product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

from ..ir import OPS, Builder, Graph, Node
from ..ir.ops.reduce import spread
from .forms import FEW_CHANNELS, chosen_form, panel_width
from .once import Once
from .rewrite import Rule, rewrite
from .simplify import reshapes
from .target import Target

Pair = tuple[int, int]
FormOf = Callable[[Node], str]


def lower(graph: Graph, target: Target, rows: int = 32, stored: Collection[str] = ()) -> Graph:
    """The graph in terms of ops that the runtimes have kernels for, for batches of `rows` rows.

    `stored` names the inputs that live in the model's buffer.
    """
    once = Once(graph, stored)

    def form_of(node: Node) -> str:
        return chosen_form(target, node, rows, once(node.inputs[1]))

    rules: dict[str, Sequence[Rule]] = {
        "conv2d": (partial(lower_conv2d, form_of),),
        "conv2d_input_grad": (partial(lower_input_grad, form_of),),
        "conv2d_weight_grad": (partial(lower_weight_grad, form_of),),
        "max_pool2d": (pad_pool,),
        "max_unpool2d": (crop_unpool,),
        "softmax": (expand_softmax,),
        "log_softmax": (expand_log_softmax,),
        "im2col": (no_patches,),
        "pad": (no_padding,),
        "slice": (whole_slice,),
    }
    if target.generated:
        rules |= {name: (sink_reshape,) for name, op in OPS.items() if op.pointwise}
        rules |= {"matmul": (partial(lower_matmul, form_of, target),), "reshape": (reshapes,)}
        rules |= {"sum": (sum_before_unpool,)}
    return rewrite(graph, rules)


def lower_matmul(form_of: FormOf, target: Target, b: Builder, node: Node) -> Node | None:
    """`matmul(a, b) -> matmul(a, b) {form}` where loops can be generated.

    Loops want b's rows side by side in lanes: `matmul(a, b) {transpose_b} -> matmul(a,
    transpose(b))`. Panels: `matmul(a, b) -> panel_matmul(a, panels of b)`.
    """
    if node.attrs["form"]:
        return None
    form, (x, y) = form_of(node), node.inputs
    if form == "panels":
        panels = _panels(b, y, panel_width(target, node), node.attrs["transpose_b"])
        return b.panel_matmul(x, panels, form=form)
    if form == "loops" and node.attrs["transpose_b"]:
        return b.matmul(x, b.transpose(y, perm=(1, 0)), form=form)
    return b.matmul(x, y, **{**node.attrs, "form": form})


def _panels(b: Builder, y: Node, width: int, transposed: bool) -> Node:
    """The right operand [K, M] of a product, or [M, K], as panels [M / width, K, width]."""
    if transposed:
        split = b.reshape(y, shape=(y.shape[0] // width, width, y.shape[1]))
        return b.transpose(split, perm=(0, 2, 1))
    split = b.reshape(y, shape=(y.shape[0], y.shape[1] // width, width))
    return b.transpose(split, perm=(1, 0, 2))


def lower_conv2d(form_of: FormOf, b: Builder, node: Node) -> Node | None:
    """`conv2d(x, w) -> im2col(pad(x)) @ w`, `shift_matmul(pad(x), w)` or a generated form of it."""
    if node.attrs["form"]:
        return None
    x, w = node.inputs
    padding = node.attrs["padding"]
    return _convolution(b, form_of(node), _border(b, x, *padding), w, node.attrs["stride"], padding)


def _convolution(b: Builder, form: str, x: Node, w: Node, stride: Pair, zeros: Pair) -> Node:
    """A convolution of a bordered image, of which the outermost `zeros` are known to be zero."""
    kh, kw, c, o = w.shape
    match form:
        case "direct":
            return b.conv2d(x, w, stride=stride, layout="NHWC", form=form, zeros=zeros)
        case "winograd":
            return b.winograd_conv2d(x, b.winograd_weights(w), form=form)
        case "shift":
            return b.shift_matmul(x, w)
    patches = b.im2col(x, kernel=(kh, kw), stride=stride)
    return b.matmul(patches, b.reshape(w, shape=(kh * kw * c, o)))


def lower_weight_grad(form_of: FormOf, b: Builder, node: Node) -> Node | None:
    """`conv2d_weight_grad(x, dy) -> im2col(pad(x))^T @ dy`, the shifted products, or generated.

    For `shift`, dy is put into planes as wide as x's, so that both shift along one another.
    """
    if node.attrs["form"]:
        return None
    x, dy = node.inputs
    form, kernel, padding = form_of(node), node.attrs["kernel"], node.attrs["padding"]
    bordered = _border(b, x, *padding)
    match form:
        case "winners":
            return _pooled_weight_grad(b, bordered, dy)
        case "direct":
            attrs = {**node.attrs, "padding": (0, 0), "form": form, "zeros": padding}
            return b.conv2d_weight_grad(bordered, dy, **attrs)
        case "shift":
            wide = b.pad(dy, low=(0, 0, 0, 0), high=(0, kernel[0] - 1, kernel[1] - 1, 0))
            return b.shift_matmul_weight_grad(bordered, wide, kernel=kernel)
    patches = b.im2col(bordered, kernel=kernel, stride=node.attrs["stride"])
    return b.reshape(b.matmul(patches, dy, transpose_a=True), shape=node.shape)


def lower_input_grad(form_of: FormOf, b: Builder, node: Node) -> Node:
    """`conv2d_input_grad(dy, w) -> conv2d(border(dy), flip(w))` in any of its forms, at stride 1.

    The border is kernel-1-padding wide. Where it would be negative, or the stride is more than 1,
    `-> crop(col2im(dy @ w^T))`: patches of gradients, added back where im2col would take them.
    """
    dy, w = node.inputs
    (kh, kw, *_), (p, q) = w.shape, node.attrs["padding"]
    form = form_of(node)
    if form == "winners":
        return _pooled_input_grad(b, dy, w, (p, q))
    if node.attrs["stride"] != (1, 1) or p >= kh or q >= kw:
        return _scatter_input_grad(b, node)
    border = kh - 1 - p, kw - 1 - q
    turned = b.transpose(b.reverse(w, axes=(0, 1)), perm=(0, 1, 3, 2))
    return _convolution(b, form, _border(b, dy, *border), turned, (1, 1), border)


def _scatter_input_grad(b: Builder, node: Node) -> Node:
    dy, w = node.inputs
    (kh, kw, c, o), (p, q), (h, width) = w.shape, node.attrs["padding"], node.attrs["size"]
    patches = b.matmul(dy, b.reshape(w, shape=(kh * kw * c, o)), transpose_b=True)
    size = (h + 2 * p, width + 2 * q)
    bordered = b.col2im(patches, kernel=(kh, kw), stride=node.attrs["stride"], size=size)
    return b.slice(bordered, start=(0, p, q, 0), size=node.shape)


def sink_reshape(b: Builder, node: Node) -> Node | None:
    """`f(x, reshape(m)) -> reshape(f(reshape(x), m))`, m a matrix made by a product or by f's like.

    An update in the shape of the product that makes its gradient can be that one's epilogue.
    """
    matrices = [x.inputs[0] for x in node.inputs if x.op == "reshape"]
    found = [m for m in matrices if _is_matrix(m)]
    if not found or _is_matrix(node):
        return None
    shape = found[0].shape
    moved = b.make(node.op, [_in_shape(b, x, shape) for x in node.inputs], node.attrs)
    return b.reshape(moved, shape=node.shape)


def _is_matrix(x: Node) -> bool:
    """Whether x is a weight gradient by a product, or pointwise work on one."""
    summed = x.op == "matmul" and x.attrs["transpose_a"]
    return len(x.shape) == 2 and not x.tensor.per_row and (summed or OPS[x.op].pointwise)


def _in_shape(b: Builder, x: Node, shape: tuple) -> Node:
    match x.op:
        case "full":
            return b.full(**{**x.attrs, "shape": shape})
        case "broadcast" if not x.attrs["axes"]:
            return b.broadcast(x.inputs[0], shape=shape)
        case "reshape" if x.inputs[0].shape == shape:
            return x.inputs[0]
        case op if OPS[op].pointwise:
            return b.make(op, [_in_shape(b, y, shape) for y in x.inputs], x.attrs)
    return b.reshape(x, shape=shape)


def _pool_attrs(dy: Node) -> dict:
    kernel, stride, size = (dy.attrs[key] for key in ("kernel", "stride", "size"))
    return {"pool": kernel, "pool_stride": stride, "size": size, "form": "winners"}


def _pooled_weight_grad(b: Builder, bordered: Node, dy: Node) -> Node:
    """`conv2d_weight_grad(x, max_unpool2d(g, winner)) -> pooled_weight_grad(pad(x), g, winner)`."""
    turned = bordered.shape[3] > FEW_CHANNELS
    dw = b.pooled_weight_grad(bordered, *dy.inputs, **_pool_attrs(dy), turned=turned)
    return b.transpose(dw, perm=(1, 2, 3, 0)) if turned else dw


def _pooled_input_grad(b: Builder, dy: Node, w: Node, padding: Pair) -> Node:
    """`conv2d_input_grad(max_unpool2d(g, winner), w) -> pooled_input_grad(g, winner, w)`."""
    turned = b.transpose(w, perm=(3, 0, 1, 2))
    return b.pooled_input_grad(*dy.inputs, turned, **_pool_attrs(dy), padding=padding)


def sum_before_unpool(b: Builder, node: Node) -> Node | None:
    """`sum(max_unpool2d(g, winner)) -> sum(g)` over rows and positions: each g lands once.

    On padding it would be dropped.
    """
    (x,) = node.inputs
    if x.op != "max_unpool2d" or x.attrs["padding"] != (0, 0):
        return None
    return b.sum(x.inputs[0], axes=(0, 1, 2)) if node.attrs["axes"] == (0, 1, 2) else None


def pad_pool(b: Builder, node: Node) -> Node | None:
    """`max_pool2d(x) {padding} -> max_pool2d(pad(x, -inf))`."""
    (x,), (p, q) = node.inputs, node.attrs["padding"]
    if (p, q) == (0, 0):
        return None
    bordered = b.pad(x, low=(0, p, q, 0), high=(0, p, q, 0), value=-math.inf)
    return b.max_pool2d(bordered, **{**node.attrs, "padding": (0, 0)})


def crop_unpool(b: Builder, node: Node) -> Node | None:
    """`max_unpool2d(g, winner) {padding} -> slice(max_unpool2d(g, winner))`."""
    (p, q), (h, w) = node.attrs["padding"], node.attrs["size"]
    if (p, q) == (0, 0):
        return None
    attrs = {**node.attrs, "padding": (0, 0), "size": (h + 2 * p, w + 2 * q)}
    return b.slice(b.max_unpool2d(*node.inputs, **attrs), start=(0, p, q, 0), size=node.shape)


def expand_softmax(b: Builder, node: Node) -> Node:
    """`softmax(x) -> exp(x - max) / sum(exp(x - max))`."""
    (x,), axes = node.inputs, (node.attrs["axis"],)
    e = b.exp(_shifted(b, x, axes))
    return b.div(e, spread(b, b.sum(e, axes=axes), x, axes))


def expand_log_softmax(b: Builder, node: Node) -> Node:
    """`log_softmax(x) -> (x - max) - log(sum(exp(x - max)))`."""
    (x,), axes = node.inputs, (node.attrs["axis"],)
    shifted = _shifted(b, x, axes)
    total = b.log(b.sum(b.exp(shifted), axes=axes))
    return b.sub(shifted, spread(b, total, x, axes))


def no_patches(b: Builder, node: Node) -> Node | None:
    """`im2col(x) -> x` for a kernel of 1 x 1 at stride 1."""
    one = node.attrs["kernel"] == node.attrs["stride"] == (1, 1)
    return node.inputs[0] if one else None


def no_padding(b: Builder, node: Node) -> Node | None:
    """`pad(x) -> x` where it adds nothing."""
    return None if any((*node.attrs["low"], *node.attrs["high"])) else node.inputs[0]


def whole_slice(b: Builder, node: Node) -> Node | None:
    """`slice(x) -> x` where it takes all of it."""
    return node.inputs[0] if node.shape == node.inputs[0].shape else None


def _shifted(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    return b.sub(x, spread(b, b.max(x, axes=axes), x, axes))


def _border(b: Builder, x: Node, p: int, q: int) -> Node:
    return b.pad(x, low=(0, p, q, 0), high=(0, p, q, 0)) if p or q else x
