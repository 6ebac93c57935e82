"""Products as calls of the BLAS library's sgemm, and the convolution forms made of them.

BLAS is column-major: a C-ordered matrix is the transpose of what it calls one, so `Y = A B` is
asked for as `Y.T = B.T A.T`. The work is split by rows or columns of the result, in parts that do
not depend on the threads, and the library itself runs single-threaded where it can be told to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ...ir import Node
from ..library import Provider
from .dsl import Array, Function, Value
from .jit import Machine
from .movers import concrete, strided, strides
from .products import times_rows
from .site import Int, Site, Work

SPLIT = 128  # rows or columns of a result that one call makes: enough for BLAS to be at its best


def sgemm_address(library: Provider) -> int:
    """What programs call: the library's sgemm, one worker at a time if it runs its own threads.

    Accelerate's cannot be told their number; OpenBLAS with OpenMP waits for ever if two call it.
    """
    return library.sgemm if library.threads else _guarded(library.sgemm).address("guarded")


@cache
def _guarded(sgemm: int) -> Machine:
    """A lock around a library's sgemm: one for all programs, and kept as long as the process."""
    names = [f"ptr %a{i}" for i in range(13)]
    return Machine(GUARDED % {"parameters": ", ".join(names), "sgemm": sgemm})


GUARDED = """
@held = internal global i32 0, align 64

declare i32 @sched_yield()

define void @guarded(%(parameters)s) {
  br label %%try
try:
  %%was = atomicrmw xchg ptr @held, i32 1 acquire
  %%free = icmp eq i32 %%was, 0
  br i1 %%free, label %%enter, label %%wait
wait:
  %%ignored = call i32 @sched_yield()
  br label %%try
enter:
  call void inttoptr (i64 %(sgemm)d to ptr)(%(parameters)s)
  store atomic i32 0, ptr @held release, align 4
  ret void
}"""


def sgemm(
    k: Function,
    a: Array,
    b: Array,
    y: Array,
    sizes: tuple[Int, Int, Int],
    widths: tuple[int, int, int],
    transposed: tuple[bool, bool] = (False, False),
    beta: Int | float | Value = 0.0,
) -> None:
    """y [m, n] = op(a) op(b) + beta y for sizes (m, n, depth), each in rows `widths` wide."""
    (m, n, depth), (a_width, b_width, y_width) = sizes, widths
    letters = k.stack("i8", 2)
    for i, flag in enumerate((transposed[1], transposed[0])):
        letters.store(k.constant(ord("T" if flag else "N"), "i8"), i)
    numbers = k.stack("i32", 6)
    for i, number in enumerate((n, m, depth, b_width, a_width, y_width)):
        whole = k.integer(number)
        numbers.store(k.convert("trunc", whole, "i32"), i)
    factors = k.stack("float", 2)
    factors.store(k.constant(1.0, "float"), 0)
    factors.store(beta if isinstance(beta, Value) else k.constant(beta, "float"), 1)
    k.declared.add("declare void @gemmc_sgemm(" + ", ".join(["ptr"] * 13) + ")")
    k.call(
        "@gemmc_sgemm",
        *(letters.pointer(0), letters.pointer(1)),
        *(numbers.pointer(i) for i in range(3)),
        factors.pointer(0),
        *(b.pointer(), numbers.pointer(3), a.pointer(), numbers.pointer(4)),
        *(factors.pointer(1), y.pointer(), numbers.pointer(5)),
    )


def emit_matmul(site: Site) -> Work:
    """matmul: one call for each part of the result."""
    k, node = site.k, site.node
    (a, b), (y,) = site.operands, site.results
    if node.attrs["transpose_a"]:
        return _over_rows(site, a, b, y)
    rows, inner = times_rows(node.shape[:-1], site.rows)
    count: Int = rows * inner
    width, depth = node.shape[-1], node.inputs[0].shape[-1]
    flip = bool(node.attrs["transpose_b"])
    b_width = depth if flip else width

    def by_rows(row: Int, several: Int) -> None:
        sizes = (several, width, depth)
        target, source = y.at(row * width), a.at(row * depth)
        sgemm(k, source, b, target, sizes, (depth, b_width, width), (False, flip))

    def by_columns(column: Int, several: Int) -> None:
        part = b.at(column * (depth if flip else 1))
        sizes = (count, several, depth)
        sgemm(k, a, part, y.at(column), sizes, (depth, b_width, width), (False, flip))

    if width > site.most * inner:
        return _calls(site, width, width, by_columns)
    return _calls(site, count, site.most * inner, by_rows)


def _calls(site: Site, extent: Int, most: int, call: Callable[[Int, Int], None]) -> Work:
    """call(first, how many) for each part of an extent of at most `most` rows or columns.

    Parts do not depend on the workers: a library rounds otherwise in a product of another size.
    A tile of a region is one worker's, and one part.
    """
    k = site.k
    size = max(16, min(SPLIT, -(-most // 64) * 16))  # rows or columns, in multiples of a vector

    def run(begin: Int, end: Int) -> None:
        if not isinstance(site.row, int):
            call(begin, end - begin)
            return
        with k.range(begin, end, size) as at:
            call(at, k.minimum(end - at, size))

    return Work(extent, run, size)


def _over_rows(site: Site, a: Array, b: Array, y: Array) -> Work:
    """A product that sums over rows: split by columns of its left operand."""
    k, node = site.k, site.node
    rows, inner = times_rows(node.inputs[0].shape[:-1], site.rows)
    left, width = node.shape
    beta = 1.0 if site.accumulate else 0.0

    def by_columns(column: Int, several: Int) -> None:
        sizes, widths = (several, width, rows * inner), (left, width, width)
        sgemm(k, a.at(column), b, y.at(column * width), sizes, widths, (True, False), beta)

    return _calls(site, left, left, by_columns)


def shift_scratch(node: Node, rows: int) -> int:
    """Bytes of a plane as wide as x, in which shift_matmul makes its result."""
    n, h, width, _ = node.inputs[0].tensor.concrete(rows)
    return n * h * width * node.shape[-1] * 4


def emit_shift_matmul(site: Site) -> Work:
    """shift_matmul: one accumulating call a tap, then the valid part of the plane."""
    k, node = site.k, site.node
    (x, w), (y,) = site.operands, site.results
    _, h, wide, c = node.inputs[0].shape
    kh, kw, _, o = node.inputs[1].shape
    _, ho, wo, _ = node.shape
    plane = Array(k, site.room.base, "float", site.room.offset // 4)

    def run(begin: Int, end: Int) -> None:
        count = (end - begin) * (h * wide) - ((kh - 1) * wide + kw - 1)
        for i in range(kh * kw):
            shift = begin * (h * wide) + (i // kw * wide + i % kw)
            sizes, widths = (count, o, c), (c, o, o)
            sgemm(k, x.at(shift * c), w.at(i * c * o), plane, sizes, widths, beta=float(i > 0))
        shape, steps = [end - begin, ho, wo, o], [h * wide * o, wide * o, o, 1]
        strided(k, plane, y.at(begin * (ho * wo * o)), shape, steps, strides((0, ho, wo, o)))

    images = concrete(node.shape, site.rows)[0]
    return Work(images, run, images if isinstance(images, int) else site.most)


def emit_shift_weight_grad(site: Site) -> Work:
    """shift_matmul_weight_grad: for each tap, one call of shifted x with dy."""
    k, node = site.k, site.node
    (x, dy), (dw,) = site.operands, site.results
    _, h, wide, c = node.inputs[0].shape
    kh, kw, _, o = node.shape
    beta = 1.0 if site.accumulate else 0.0

    def run(begin: Int, end: Int) -> None:
        images = concrete(node.inputs[0].shape, site.rows)[0]
        count = images * (h * wide) - ((kh - 1) * wide + kw - 1)
        for i in range(kh * kw):
            shift = i // kw * wide + i % kw
            sizes, widths = (c, o, count), (c, o, o)
            sgemm(k, x.at(shift * c), dy, dw.at(i * c * o), sizes, widths, (True, False), beta)

    return Work(1, run)
