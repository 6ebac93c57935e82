"""Kernels that move data: copies with strides, borders, patches, and the small rest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from ...ir import Builder, Node, TensorType
from . import sweep
from .dsl import Array, Function
from .jit import host
from .lanes import LANES
from .site import Int, Site, Work, alone
from .turning import turned, widened

BLOCKED = 1 << 13  # elements from which a transpose in blocks is worth its code


def fill(k: Function, array: Array, count: Int, value: float) -> None:
    """Writes `value` into `count` elements."""
    width = host().lanes
    whole = count // width * width
    if not isinstance(whole, int) or whole:
        with k.range(0, whole, width) as i:
            array.store(k.constant(value, array.scalar, width), i)
    if isinstance(count, int) and isinstance(whole, int):
        if count > whole:
            array.store(k.constant(value, array.scalar, count - whole), whole)
        return
    with k.range(whole, count) as i:
        array.store(k.constant(value, array.scalar), i)


def strided(
    k: Function,
    x: Array,
    y: Array,
    shape: Sequence[Int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    add: bool = False,
) -> None:
    """y[i, j, ...] = x[i, j, ...] (or +=) over `shape`, both with strides in elements."""
    shape, x_strides, y_strides = _joined(list(shape), list(x_strides), list(y_strides))
    width, last = host().lanes, shape[-1]

    def move(x_at: Int, y_at: Int, lanes: int) -> None:
        value = x.load(x_at, lanes if x_strides[-1] else 0)
        if add:
            value = y.load(y_at, lanes) + value
        elif lanes and not value.lanes:
            value = k.splat(value, lanes)
        y.store(value, y_at)

    def line(x_at: Int, y_at: Int) -> None:
        if y_strides[-1] != 1 or x_strides[-1] not in (0, 1) or not isinstance(last, int):
            with k.range(0, last) as i:
                move(x_at + i * x_strides[-1], y_at + i * y_strides[-1], 0)
            return
        whole = last // width * width
        if whole:
            with k.range(0, whole, width) as i:
                move(x_at + i * x_strides[-1], y_at + i, width)
        if last > whole:
            move(x_at + whole * x_strides[-1], y_at + whole, last - whole)

    def loops(axis: int, x_at: Int, y_at: Int) -> None:
        if axis == len(shape) - 1:
            line(x_at, y_at)
            return
        with k.range(0, shape[axis]) as i:
            loops(axis + 1, x_at + i * x_strides[axis], y_at + i * y_strides[axis])

    loops(0, 0, 0)


def _joined(shape: list[Int], x: list[int], y: list[int]) -> tuple[list[Int], list[int], list[int]]:
    """The same elements over fewer axes: those that lie behind one another in both are one."""
    sizes, xs, ys = [shape[-1]], [x[-1]], [y[-1]]
    for size, a, b in reversed(list(zip(shape[:-1], x[:-1], y[:-1], strict=True))):
        inner = sizes[0]
        whole = isinstance(inner, int) and isinstance(size, int)
        if whole and a == xs[0] * inner and b == ys[0] * inner:
            sizes[0] = inner * size
        elif isinstance(inner, int) and inner == 1:
            sizes[0], xs[0], ys[0] = size, a, b
        elif not (isinstance(size, int) and size == 1):
            sizes.insert(0, size)
            xs.insert(0, a)
            ys.insert(0, b)
    return sizes, xs, ys


def strides(shape: Sequence) -> list[int]:
    """The strides of a contiguous array of that shape, in elements."""
    result = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        result[i] = result[i + 1] * shape[i + 1]
    return result


def concrete(shape: Sequence, rows: Int) -> list[Int]:
    """A shape with the rows at hand for N."""
    return [d if isinstance(d, int) else rows for d in shape]


def _by_rows(site: Site, shape: Sequence, run: Callable[[Int, Int], None]) -> Work:
    """run(first, how many) along the first axis of `shape`, which is shared out."""
    return Work(concrete(shape, site.rows)[0], lambda begin, end: run(begin, end - begin))


def _copy(site: Site, x_strides: Sequence[int], offset: int = 0) -> Work:
    """The result, contiguous, from the operand seen with strides; its first axis is shared out."""
    (x,), (y,), shape = site.operands, site.results, site.node.shape
    y_strides = strides(shape)

    def run(begin: Int, end: Int) -> None:
        source = x.at(begin * x_strides[0] + offset)
        target = y.at(begin * y_strides[0])
        sizes = [end - begin, *concrete(shape[1:], site.rows)]
        strided(site.k, source, target, sizes, x_strides, y_strides)

    return Work(concrete(shape, site.rows)[0], run)


def emit_transpose(site: Site) -> Work:
    """transpose: a copy; where two axes trade the last place, in square blocks of vectors."""
    from_shape, perm = site.node.inputs[0].shape, site.node.attrs["perm"]
    x_strides = [strides(from_shape)[p] for p in perm]
    moved = perm.index(len(perm) - 1)
    trade = perm[-1] == len(perm) - 2 and moved == len(perm) - 2
    if trade and site.node.tensor.size(site.most) >= BLOCKED:
        return _blocked(site, x_strides)
    return _copy(site, x_strides)


def _blocked(site: Site, x_strides: Sequence[int]) -> Work:
    """[..., A, B] to [..., B, A], in blocks that are turned in registers."""
    k, (x,), (y,) = site.k, site.operands, site.results
    shape = concrete(site.node.shape, site.rows)
    outer, b, a = shape[:-2], shape[-2], shape[-1]
    width = host().lanes
    assert isinstance(a, int)

    def turn(x_at: Int, y_at: Int, rows: int, columns: int) -> None:
        """`rows` rows of x by `columns` columns of it; a square is filled up with anything."""
        lines = [x.load(x_at + r * x_strides[-1], columns) for r in range(rows)]
        wide = [widened(k, line, width) for line in lines]
        filled = wide + wide[:1] * (width - rows)
        for c, line in enumerate(turned(k, filled)[:columns]):
            y.store(line if rows == width else k.shuffle(line, line, range(rows)), y_at + c * a)

    def panel(x_at: Int, y_at: Int, column: Int, columns: int) -> None:
        whole = a // width * width
        if whole:
            with k.range(0, whole, width) as r:
                turn(x_at + r * x_strides[-1] + column, y_at + r + column * a, width, columns)
        if a > whole:
            turn(
                x_at + whole * x_strides[-1] + column, y_at + whole + column * a, a - whole, columns
            )

    def run(begin: Int, end: Int) -> None:
        def loops(axis: int, x_at: Int, y_at: Int) -> None:
            if axis < len(outer):
                with k.range(0, outer[axis]) as i:
                    step = strides(site.node.shape)[axis]
                    loops(axis + 1, x_at + i * x_strides[axis], y_at + i * step)
                return
            columns(x_at, y_at)

        def columns(x_at: Int, y_at: Int) -> None:
            assert isinstance(b, int)
            whole = b // width * width
            if whole:
                with k.range(begin, k.minimum(end, whole), width) as c:
                    panel(x_at, y_at, c, width)
            if b == whole:
                return
            if isinstance(end, int):
                panel(x_at, y_at, whole, b - whole)
                return
            with k.when(end.equals(b)):
                panel(x_at, y_at, whole, b - whole)

        loops(0, 0, 0)

    if not isinstance(b, int):
        return _copy(site, x_strides)
    return Work(b, run, width)


def emit_reverse(site: Site) -> Work:
    """reverse: a copy with strides that run backwards."""
    shape, steps, offset = site.node.shape, strides(site.node.shape), 0
    for axis in site.node.attrs["axes"]:
        offset += (shape[axis] - 1) * steps[axis]
        steps[axis] = -steps[axis]
    return _copy(site, steps, offset)


def emit_slice(site: Site) -> Work:
    """slice: a copy from an offset."""
    steps = strides(site.node.inputs[0].shape)
    return _copy(
        site, steps, sum(s * n for s, n in zip(site.node.attrs["start"], steps, strict=True))
    )


def emit_broadcast(site: Site) -> Work:
    """broadcast, where no sweep reads it: a copy with strides of 0."""
    own = iter(strides(site.node.inputs[0].shape))
    axes = site.node.attrs["axes"]
    return _copy(site, [next(own) if i in axes else 0 for i in range(len(site.node.shape))])


def emit_im2col(site: Site) -> Work:
    """im2col: a strided copy in runs of kw*C."""
    (x,), (p,), node = site.operands, site.results, site.node
    _, h, w, c = node.inputs[0].shape
    (kh, kw), (sh, sw) = node.attrs["kernel"], node.attrs["stride"]
    _, ho, wo, depth = node.shape
    x_strides, p_strides = (
        [h * w * c, sh * w * c, sw * c, w * c, 1],
        strides((0, ho, wo, kh, kw * c)),
    )

    def run(row: Int, rows: Int) -> None:
        source, target = x.at(row * (h * w * c)), p.at(row * (ho * wo * depth))
        strided(site.k, source, target, [rows, ho, wo, kh, kw * c], x_strides, p_strides)

    return _by_rows(site, node.shape, run)


def emit_col2im(site: Site) -> Work:
    """col2im: zeros, then every patch added where it came from."""
    (p,), (x,), node, k = site.operands, site.results, site.node, site.k
    _, h, w, c = node.shape
    (kh, kw), (sh, sw) = node.attrs["kernel"], node.attrs["stride"]
    _, ho, wo, depth = node.inputs[0].shape
    x_strides, p_strides = (
        [h * w * c, sh * w * c, sw * c, w * c, 1],
        strides((0, ho, wo, kh, kw * c)),
    )

    def run(row: Int, rows: Int) -> None:
        with k.range(row, row + rows) as n:
            target = x.at(n * (h * w * c))
            fill(k, target, h * w * c, 0.0)
            source = p.at(n * (ho * wo * depth))
            shape = [ho, wo, kh, kw * c]
            strided(k, source, target, shape, p_strides[1:], x_strides[1:], add=True)

    return _by_rows(site, node.shape, run)


def emit_pad(site: Site) -> Work:
    """pad: the borders are written, axis by axis, and x copied into the middle."""
    (x,), (y,), node, k = site.operands, site.results, site.node, site.k
    x_strides, y_strides = strides(node.inputs[0].shape), strides(node.shape)
    start = sum(n * s for n, s in zip(node.attrs["low"], y_strides, strict=True))
    what = [node.inputs[0].type, node.type, node.attrs["low"], node.attrs["value"]]
    name = "pad." + re.sub(r"[^\w.-]+", "_", "_".join(map(str, what)))

    def body(callee: Function) -> None:
        source, target = (Array(callee, callee.parameters[n], x.scalar) for n in "xy")
        rows = callee.parameters["rows"]
        borders(callee, node, target, rows)
        inner = concrete(node.inputs[0].shape, rows)
        strided(callee, source, target.at(start), inner, x_strides, y_strides)

    def run(row: Int, rows: Int) -> None:
        k.procedure(name, (("x", "ptr"), ("y", "ptr"), ("rows", "i64")), body)
        pointers = x.at(row * x_strides[0]).pointer(), y.at(row * y_strides[0]).pointer()
        k.call(f"@{name}", *pointers, k.integer(rows))

    if isinstance(node.shape[0], int):
        return alone(lambda: run(0, 1))
    return _by_rows(site, node.shape, run)


def borders(k: Function, pad: Node, y: Array, rows: Int) -> None:
    """What a pad puts around its operand, for so many rows from y on."""
    low, high, y_strides = pad.attrs["low"], pad.attrs["high"], strides(pad.shape)
    inner, size = concrete(pad.inputs[0].shape, rows), concrete(pad.shape, rows)
    for axis in range(len(size)):
        middle = [inner[i] if i < axis else size[i] for i in range(len(size))]
        first = sum(low[i] * y_strides[i] for i in range(axis))
        for width, start in ((low[axis], 0), (high[axis], size[axis] - high[axis])):
            if width:
                shape = [*middle[:axis], width, *middle[axis + 1 :]]
                at = y.at(first + start * y_strides[axis])
                constant(k, at, shape, y_strides, pad.attrs["value"])


def constant(
    k: Function, y: Array, shape: Sequence[Int], y_strides: Sequence[int], value: float
) -> None:
    """Writes `value` over a shape with strides."""
    slot = k.stack(y.scalar)
    slot.store(k.constant(value, y.scalar))
    strided(k, slot, y, shape, [0] * len(shape), y_strides)


def emit_full(site: Site) -> Work:
    """full, where no sweep reads it."""
    (y,), node = site.results, site.node
    inner = math.prod(node.shape[1:])
    size = concrete(node.shape, site.rows)[0] if node.shape else 1

    def run(begin: Int, end: Int) -> None:
        fill(site.k, y.at(begin * inner), (end - begin) * inner, node.attrs["value"])

    return Work(size, run)


def emit_one_hot(site: Site) -> Work:
    """one_hot: every class compared with the label."""
    (labels,), (y,), k = site.operands, site.results, site.k
    classes = site.node.attrs["classes"]

    def run(row: Int, rows: Int) -> None:
        with k.range(row, row + rows) as n:
            label = labels.load(n)
            for start, lanes in sweep.lanes_of(classes, host().lanes):
                numbers = k.lane_numbers(lanes, "i64") + k.constant(start, "i64", lanes)
                hit = k.compare("eq", numbers, k.splat(label, lanes))
                y.store(k.convert("zext", hit, "i8"), n * classes + start)

    return _by_rows(site, site.node.shape, run)


def emit_rows_reciprocal(site: Site) -> Work:
    """rows_reciprocal: 1/N of the batch."""
    (y,), k = site.results, site.k

    def run() -> None:
        n = k.convert("sitofp", k.integer(site.batch), "double")
        y.store(LANES.cast(k.constant(1.0, "double") / n, site.node.dtype))

    return alone(run)


def emit_dropout_mask(site: Site) -> Work:
    """dropout_mask, where no sweep reads it: a sweep of its own."""
    b = Builder()
    seed, step = (b.input(name, TensorType((), "i64")) for name in ("x0", "x1"))
    mask = b.dropout_mask(seed, step, **site.node.attrs)
    body = b.graph("body", (seed, step), {"y0": mask})
    fused = b.fused(seed, step, body=body)
    return sweep.emit(Site(**{**vars(site), "node": fused}))
