"""The forms in which a product can run, and which one it gets.

    matmul               loops      generated, b's rows side by side in lanes
                         nonzero    generated, terms in which a is 0 left out: b not transposed,
                                    and wide
                         dots       generated, dot products of rows: b transposed, and few rows of a
                         turned     generated, a's rows in lanes, results turned as they are
                                    stored: b transposed, and no more rows of a than terms
                         panels     generated, b copied once in panels of columns, so that what a
                                    block reads lies together: b large, the same for all batches
                         blas       one sgemm
    conv2d and its       direct     generated, register-blocked over positions and channels
    gradients            winograd   generated: 3 x 3 at stride 1, results of even height and width
                         winners    generated: gradients behind a max-pool, entries that won only
                         im2col     one product over patches
                         shift      one accumulating product a tap over shifted planes, at stride 1

`forms` lists those that a node can have, the cost model's favourite first: a pure function of the
node, the batch and the target. What was measured to be faster overrides it by `Target.choices`.
"""

from __future__ import annotations

import math

from ..ir import Node
from .target import Target

Pair = tuple[int, int]
FEW_CHANNELS = 2  # of an image, beside each of which the result's channels can stand in the lanes
SPARE = 4  # registers that a kernel over winners needs besides its sums
FEW_ROWS = 16  # below it, copying a transposed matrix takes longer than dot products with it
MANY_ROWS = 48  # from which lines of b that lie far apart matter little: not worth another b
FEW_TILES = 16  # of a batch, below which Winograd's weights are transformed for too little
MATMULS = ("loops", "nonzero", "dots", "turned", "panels", "blas")
CONVOLUTIONS = ("direct", "winograd", "winners", "im2col", "shift")
FORMS = MATMULS + CONVOLUTIONS
TURNED = 1 << 16  # elements of the left operand that each worker may turn for itself: 256 KB
SPARSE = 0.3  # of a left operand's elements not 0, up to which the others are left out
WIDE = 4  # vectors of a line of results, from which leaving out terms can be a gain
LARGE = 1 << 16  # bytes of a right operand from which it stays in no first-level cache
PANEL = 4  # vectors of a panel's columns at most
PRODUCTS = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad")


def chosen_form(target: Target, node: Node, rows: int, once: bool = False) -> str:
    """The form of a product: as measured before, as the target says for all, or the favourite."""
    possible = forms(target, node, rows, once)
    override = target.products if node.op == "matmul" else target.conv_form
    measured = (target.choices.get(key) for key in (product_key(node, once), product_key(node)))
    for form in (*measured, override):
        if form in possible:
            return form
    if override and node.op != "matmul":
        return "im2col"
    return possible[0]


def product_key(node: Node, once: bool = False) -> str:
    """What a choice is kept under: the layer, the op, how its operands lie, and if one stays."""
    turned = [name for name in ("transpose_a", "transpose_b") if node.attrs.get(name)]
    return " ".join([node.loc, node.op, *turned, *(["once"] if once else [])])


def forms(target: Target, node: Node, rows: int, once: bool = False) -> tuple[str, ...]:
    """The forms that a product can have, the one estimated to be fastest first.

    `once`: whether its right operand, and what is made of that, is the same for all batches.
    """
    generated = target.generated
    if generated and node.dtype != "f32":  # beside generated loops only sgemm is called
        return ("loops",) if node.op == "matmul" else ("direct" if _flippable(node) else "im2col",)
    match node.op:
        case "matmul":
            return _matmul_forms(target, node, rows, once) if generated else ("blas",)
        case "conv2d_weight_grad":
            return _weight_grad_forms(target, node)
        case "conv2d_input_grad" if not _flippable(node):
            return ("winners", "im2col") if _walks_winners(target, node) else ("im2col",)
    found = ["winners"] if node.op == "conv2d_input_grad" and _walks_winners(target, node) else []
    stride, kernel, plane, c, o = _as_convolution(node)
    if generated:
        found += ["winograd"] if _fits_winograd(stride, kernel, plane) else []
        tiles = rows * ((plane[0] - 2) // 4) * ((plane[1] - 2) // 4)
        few = tiles < FEW_TILES and not once
        costly = min(c, o) < target.lanes or few  # to transform, for what is saved
        found.insert(0 if found == ["winograd"] and costly else len(found), "direct")
    by_blas = choose_form(target, stride, kernel, plane, c, o)
    found += [by_blas, *(f for f in ("im2col", "shift") if f != by_blas)]
    if stride != (1, 1) or kernel == (1, 1):
        found.remove("shift")
    return tuple(found)


def choose_form(target: Target, stride: Pair, kernel: Pair, plane: Pair, c: int, o: int) -> str:
    """ "im2col" or "shift", whichever is estimated to be faster per image.

    im2col: one product with inner dimension kh*kw*c, and its patches written and read once.
    shift: kh*kw products with inner dimension c over the bordered plane, each of which reads and
    writes the result. Only at stride 1, where a shifted view is contiguous.
    """
    if stride != (1, 1) or kernel == (1, 1):
        return "im2col"
    taps, (h, w) = math.prod(kernel), plane
    ho, wo = h - kernel[0] + 1, w - kernel[1] + 1
    flops = 2.0 * taps * c * o
    im2col = ho * wo * (flops / _rate(target, taps * c) + 8.0 * taps * c / target.copy_bytes)
    shift = h * w * (flops / _rate(target, c) + 8.0 * taps * o / (4 * target.copy_bytes))
    return "im2col" if im2col <= shift else "shift"


def _rate(target: Target, inner: int) -> float:
    return target.gemm_flops * inner / (inner + target.narrow)


def _matmul_forms(target: Target, node: Node, rows: int, once: bool) -> tuple[str, ...]:
    a, b = node.inputs
    lines = a.tensor.size(rows) // a.shape[-1]
    panels = ("panels",) if once and _has_panels(target, node) else ()
    if not node.attrs["transpose_b"]:
        if panels and lines < MANY_ROWS:
            return (*panels, "loops", "blas")
        if node.shape[-1] < WIDE * target.lanes:
            return ("loops", "blas")
        sparse = density(a) <= SPARSE
        return ("nonzero", "loops", "blas") if sparse else ("loops", "blas", "nonzero")
    if once:
        return (*panels, "loops", "dots", "turned", "blas")
    if lines < FEW_ROWS:
        return ("dots", "loops", "turned", "blas")
    terms = b.shape[1]
    fits = lines % target.lanes == 0 and lines <= terms and lines * terms <= TURNED
    return ("turned", "loops", "dots", "blas") if fits else ("loops", "turned", "dots", "blas")


def _has_panels(target: Target, node: Node) -> bool:
    """Whether a product's right operand is worth panels, and can be divided into them."""
    large = node.inputs[1].tensor.nbytes(1) >= LARGE
    return large and panel_width(target, node) > 0


def panel_width(target: Target, node: Node) -> int:
    """Columns of the panels of a product's right operand; 0 if no whole vectors divide them."""
    sizes = (vectors * target.lanes for vectors in range(PANEL, 0, -1))
    return next((size for size in sizes if int(node.shape[-1]) % size == 0), 0)


def density(x: Node, depth: int = 6) -> float:
    """About which share of a value's elements is not 0, by the last `depth` ops that made it.

    A ReLU, and its gradient, let half of them through, and a dropout those that it does not drop.
    """
    if not depth:
        return 1.0
    match x.op, x.inputs:
        case "relu", (y,):
            return density(y, depth - 1) / 2
        case "where", (_, y, z) if _is_zero(y) or _is_zero(z):
            return density(z if _is_zero(y) else y, depth - 1) / 2
        case "mul", (y, z):
            return density(y, depth - 1) * density(z, depth - 1)
        case "reshape" | "transpose", (y,):
            return density(y, depth - 1)
        case "dropout_mask", _:
            return 1.0 - float(x.attrs["p"])
    return 1.0


def _is_zero(x: Node) -> bool:
    return x.op == "full" and x.attrs["value"] == 0.0


def _weight_grad_forms(target: Target, node: Node) -> tuple[str, ...]:
    """`shift` was slower than `im2col` at every shape of `python -m gemmc.bench forms`."""
    found = ["winners"] if _walks_winners(target, node) else []
    found += ["direct"] if target.generated else []
    found += ["im2col"]
    return (*found, "shift") if node.attrs["stride"] == (1, 1) else tuple(found)


def _flippable(node: Node) -> bool:
    """Whether an input gradient is a convolution of the bordered dy with the weights turned."""
    if node.op != "conv2d_input_grad":
        return True
    (kh, kw, *_), (p, q) = node.inputs[1].shape, node.attrs["padding"]
    return node.attrs["stride"] == (1, 1) and p < kh and q < kw


def _as_convolution(node: Node) -> tuple[Pair, Pair, Pair, int, int]:
    """(stride, kernel, bordered plane, channels in, out) of the convolution that a node becomes."""
    x, (kh, kw, c, o), (p, q) = node.inputs[0], node.inputs[1].shape, node.attrs["padding"]
    if node.op == "conv2d_input_grad":
        p, q, c, o = kh - 1 - p, kw - 1 - q, o, c
    plane = x.shape[1] + 2 * p, x.shape[2] + 2 * q
    return node.attrs["stride"], (kh, kw), plane, c, o


def _fits_winograd(stride: Pair, kernel: Pair, plane: Pair) -> bool:
    even = plane[0] % 2 == plane[1] % 2 == 0
    return even and kernel == (3, 3) and stride == (1, 1)


def _walks_winners(target: Target, node: Node) -> bool:
    """Whether a gradient can walk the entries that won in a max-pool behind its convolution.

    Worth it where channels fill the lanes, and the taps, or all positions that a window reaches,
    fit into registers; with a channel or two, the result's channels are in the lanes.
    """
    summed = node.op == "conv2d_weight_grad"
    dy = node.inputs[1 if summed else 0]
    if not target.generated or dy.op != "max_unpool2d" or node.attrs["stride"] != (1, 1):
        return False
    pool, stride = dy.attrs["kernel"], dy.attrs["stride"]
    if pool[0] > stride[0] or pool[1] > stride[1] or dy.attrs["padding"] != (0, 0):
        return False
    kh, kw, channels, _ = node.shape if summed else node.inputs[1].shape
    needed = kh * kw if summed else (pool[0] + kh - 1) * (pool[1] + kw - 1)
    filled = 2 * channels >= target.lanes
    if summed and channels <= FEW_CHANNELS:
        needed, filled = needed * channels + math.prod(pool), True
    return filled and needed <= target.registers - SPARE
