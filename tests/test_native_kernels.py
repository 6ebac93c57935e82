"""Each kernel of the native runtime alone, over odd sizes, against the interpreter.

Operands are small whole numbers: sums of their products are exact in float32 in any order, so
every result must be the interpreter's in every bit. The arena is full of rubbish before each run,
several cases share a program, and bytes that belong to no value must stay as they were.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from native_running import a_cpu_without, alone, beyond, whole_numbers
from running import POISONS, compile_program

from gemmc.ir import Builder, Graph, Node, TensorType, interpret
from gemmc.ir.ops.conv import window_count
from gemmc.ir.types import N
from gemmc.passes.forms import FORMS
from gemmc.passes.pipeline import Program, run_passes
from gemmc.passes.target import Target
from gemmc.runtime.native.jit import host
from gemmc.runtime.native.target import native_target

HOST = native_target()
TARGETS = {
    "loops": replace(HOST, cache_bytes=1 << 40),
    "loops in tiles": replace(HOST, cache_bytes=9000, shards=3),
    "direct and dots": replace(HOST, conv_form="direct", products="dots"),
    "winograd in tiles": replace(HOST, conv_form="winograd", cache_bytes=9000, shards=3),
    "blas over patches": replace(HOST, products="blas", conv_form="im2col"),
    "blas over shifted views in tiles": replace(
        HOST, products="blas", conv_form="shift", cache_bytes=9000, shards=3
    ),
}
PRODUCTS = [replace(HOST, products=how) for how in ("loops", "blas")]
each_product = pytest.mark.parametrize("target", PRODUCTS, ids=["loops", "blas"])
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
Make = Callable[["Cases"], None]


class Cases:
    """A graph under construction: inputs by the dozen, and every result an output."""

    def __init__(self, seed: int = 0) -> None:
        self.b, self.rng = Builder(), np.random.default_rng(seed)
        self.inputs: list[Node] = []
        self.outputs: dict[str, Node] = {}

    def input(self, *shape: object, dtype: str = "f32") -> Node:
        """One more input."""
        t = TensorType(shape, dtype)  # type: ignore[arg-type]
        self.inputs.append(self.b.input(f"x{len(self.inputs)}", t))
        return self.inputs[-1]

    def output(self, text: str, *nodes: Node) -> None:
        """One more case, described by `text`."""
        for node in nodes:
            self.outputs[f"{len(self.outputs)}: {text}: {node.op}"] = node

    def pick(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return self.pick(least, most), self.pick(least, most)

    def graph(self) -> Graph:
        return self.b.graph("cases", self.inputs, self.outputs)


def check(
    graph: Graph,
    most: int,
    rows: Sequence[int],
    target: Target | None = None,
    threads: int = 1,
    draw: Callable[[Graph, int], dict[str, np.ndarray]] | None = None,
    rtol: float = 0.0,
) -> None:
    """Compiles for `most` rows and compares batches of `rows`; a target means all passes."""
    given = Program(graph, most, target=target or TARGETS["loops"])
    compiled = alone(given, threads) if target is None else compile_program(given, threads)
    for count in rows:
        arrays = draw(graph, count) if draw else whole_numbers(graph, count, seed=count)
        expected = interpret(graph, arrays, count)
        for poison in POISONS if count == most else POISONS[:1]:
            got = compiled.run(arrays, count, poison)
            for name, y in expected.items():
                message = f"{name}, {count} of {most} rows, {threads} threads"
                assert (got[name].shape, got[name].dtype) == (y.shape, y.dtype), message
                np.testing.assert_allclose(got[name], y, rtol, rtol / 10, err_msg=message)
            if poison == "nan":
                spared = beyond(compiled, count)
                assert (spared == 0xFF).all(), f"written outside of values at {count} rows"


def conv_case(s: Cases, channels: tuple[int, int], kernel: int, size: int) -> None:
    """A convolution of random sizes, and both its gradients."""
    (kh, kw), stride = s.pair(1, kernel), s.pair(1, 3)
    p, q = s.pick(0, kh + 1), s.pick(0, kw)
    h, w = (max(s.pick(2, size), k - 2 * r) for k, r in ((kh, p), (kw, q)))
    stride = (1, 1) if s.rng.random() < 0.5 else stride
    conv_cases(s, channels, (kh, kw), stride, (p, q), (h, w))


Pair = tuple[int, int]


def conv_cases(
    s: Cases, channels: Pair, kernel: Pair, stride: Pair, padding: Pair, size: Pair
) -> None:
    (c, o), (kh, kw), (sh, sw), (p, q), (h, w) = channels, kernel, stride, padding, size
    ho, wo = window_count(h, kh, sh, p), window_count(w, kw, sw, q)
    x, weight, dy = s.input(N, c, h, w), s.input(o, c, kh, kw), s.input(N, o, ho, wo)
    attrs = {"stride": (sh, sw), "padding": (p, q)}
    text = f"{c} to {o} channels, kernel {kh, kw}, {attrs}, image {h, w}"
    s.output(text, s.b.conv2d(x, weight, **attrs))
    s.output(text, s.b.conv2d_input_grad(dy, weight, **attrs, size=(h, w)))
    s.output(text, s.b.conv2d_weight_grad(x, dy, **attrs, kernel=(kh, kw)))


@each_target
@pytest.mark.parametrize(
    ("most", "rows", "size"), [(1, (1,), 17), (5, (1, 4, 5), 15), (65, (64, 65), 7)]
)
def test_convolutions_and_their_gradients(
    target: Target, most: int, rows: Sequence[int], size: int
) -> None:
    seed = most
    print(f"seed {seed}")
    s = Cases(seed)
    channels = [(1, 1), (1, 70), (3, 16), (s.pick(2, 40), 1), (s.pick(2, 70), s.pick(2, 70))]
    for some in channels:
        conv_case(s, some, 7, size)
    same = (3, 3), (1, 1), (1, 1)  # what Winograd's form is for, where the size is even
    conv_cases(s, (s.pick(1, 40), s.pick(1, 40)), *same, (2 * s.pick(1, 4), 2 * s.pick(1, 4)))
    conv_cases(s, (17, s.pick(16, 35)), *same, (8, s.pick(2, 7)))
    check(s.graph(), most, rows, target)


AVX512, AVX = ("avx512", "avx10", "amx"), ("avx", "amx", "fma", "xop", "f16c", "vaes", "vpclmul")


@pytest.mark.parametrize(("lacking", "lanes"), [(AVX512, 8), (AVX, 4)], ids=["AVX2", "SSE2"])
def test_kernels_for_cpus_with_shorter_vectors(
    lacking: tuple[str, ...], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host().triple.startswith("x86_64") or host().lanes < lanes:
        pytest.skip("vectors are no longer than those")
    with a_cpu_without(monkeypatch, *lacking):
        assert native_target().lanes == host().lanes == lanes
        s = Cases(lanes)
        for channels in ((1, 9), (20, 5), (8, 33)):
            conv_case(s, channels, 4, 9)
        matmul_cases(s, [(1, 9, 35), (3, 33, 7)])
        for shape in ((N, 19), (N, 5, 33)):
            x, y = s.input(*shape), s.input(shape[-1])
            for axes in subsets(len(shape)):
                s.output(f"{shape} over {axes}", s.b.sum(x, axes=axes))
            wide = s.b.broadcast(y, shape=shape, axes=(len(shape) - 1,))
            s.output(
                f"{shape}", s.b.relu(s.b.add(x, wide)), s.b.cast(s.b.less(x, wide), dtype="f32")
            )
        pool = {"kernel": (2, 2), "stride": (2, 2)}
        both = s.b.max_pool2d(s.input(N, 9, 6, 7), **pool)
        s.output("pool", *(s.b.item(both, index=i) for i in (0, 1)))
        check(s.graph(), 6, (1, 5, 6), replace(native_target(), cache_bytes=9000), threads=2)


@pytest.mark.parametrize("threads", [2, 3])
def test_convolutions_shared_out_over_threads(threads: int) -> None:
    s = Cases(threads)
    for channels in ((1, 5), (20, 33)):
        conv_case(s, channels, 4, 9)
    for target in list(TARGETS.values())[:3]:
        check(s.graph(), 7, (1, 2, 7), target, threads)


def matmul_cases(s: Cases, sizes: Sequence[tuple[int, int, int]]) -> None:
    """For each (leading, depth, width): by b, by b transposed, and summed over all rows."""
    for inner, k, m in sizes:
        middle = [(), (inner,), (inner, 2)][s.pick(0, 2)] if inner > 1 else ()
        x, dy = s.input(N, *middle, k), s.input(N, *middle, m)
        text = f"[N, {middle}, {k}] by [{k}, {m}]"
        s.output(text, s.b.matmul(x, s.input(k, m)))
        s.output(text, s.b.matmul(x, s.input(m, k), transpose_b=True))
        s.output(text, s.b.matmul(x, dy, transpose_a=True))
        fixed, other = s.input(inner + 1, k), s.input(inner + 1, m)
        s.output(f"[{inner + 1}, {k}]", s.b.matmul(fixed, s.input(k, m)))
        s.output(f"[{inner + 1}, {k}]", s.b.matmul(fixed, s.input(m, k), transpose_b=True))
        s.output(f"[{inner + 1}, {k}]", s.b.matmul(fixed, other, transpose_a=True))


@each_product
@pytest.mark.parametrize(("most", "rows"), [(1, (1,)), (7, (1, 6, 7)), (33, (32, 33)), (70, (70,))])
def test_products_of_matrices(target: Target, most: int, rows: Sequence[int]) -> None:
    seed = most
    print(f"seed {seed}")
    s = Cases(seed)
    few = [(s.pick(1, 5), s.pick(1, 70), s.pick(1, 70)) for _ in range(3)]
    matmul_cases(s, [(1, 1, 1), (2, 16, 1), (3, 1, 17), (1, 64, 48), *few])
    check(s.graph(), most, rows, target)


@each_product
@pytest.mark.parametrize("threads", [1, 3])
def test_products_of_larger_matrices_shared_out(target: Target, threads: int) -> None:
    s = Cases(9)
    matmul_cases(s, [(1, 300, 130), (1, 97, 515), (5, 33, 200)])
    check(s.graph(), 67, (1, 3, 67), target, threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_products_with_all_that_may_follow_them(threads: int) -> None:
    """Biases, a ReLU, a residual, a column for each row, dropout: what `fuse` makes an epilogue."""
    s, b = Cases(3), Builder()
    s.b = b
    seed, step = s.input(dtype="i64"), s.input(dtype="i64")
    for k, m in ((5, 3), (17, 40), (64, 16)):
        x, w, bias = s.input(N, k), s.input(k, m), s.input(m)
        y = b.add(b.matmul(x, w), b.broadcast(bias, shape=(N, m), axes=(1,)))
        column = b.broadcast(s.input(N), shape=(N, m), axes=(0,))
        mask = b.dropout_mask(seed, step, shape=(N, m), p=0.5, key=m)  # scales by 2
        s.output(f"{k} to {m}", b.relu(y))
        s.output(f"{k} to {m}", b.mul(b.relu(b.add(y, s.input(N, m))), mask))
        s.output(f"{k} to {m}", b.sub(b.matmul(s.input(N, k), w), column))
        image, weight = s.input(N, 5, 6, 3), s.input(2, 3, 3, m)
        z = b.conv2d(image, weight, layout="NHWC")
        s.output(f"conv to {m}", b.relu(b.add(z, b.broadcast(bias, shape=z.shape, axes=(3,)))))
        squared = b.matmul(x, x, transpose_a=True)
        s.output(f"square of {k}", b.add(squared, s.input(k, k)))
    check(s.graph(), 13, (1, 12, 13), TARGETS["loops"], threads)


def pooled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers with NaN, infinities and -0 among them."""
    odd = rng.choice([np.nan, np.inf, -np.inf, -0.0], x.shape).astype(np.float32)
    return np.where(rng.random(x.shape) < 0.1, odd, x)


@pytest.mark.parametrize("threads", [1, 3])
def test_max_pools_and_the_way_back(threads: int) -> None:
    """Windows that lie apart, overlap, leave entries out; with ties, NaN and infinities."""
    s = Cases(4)
    for c, kernel, stride in (
        *((1, (2, 2), (2, 2)), (16, (2, 2), (2, 2)), (17, (3, 2), (1, 2)), (5, (3, 3), (2, 2))),
        *((3, (1, 1), (2, 3)), (40, (2, 3), (3, 4)), (2, (1, 4), (1, 4)), (7, (5, 3), (1, 1))),
    ):
        h, w = s.pick(kernel[0], 9), s.pick(kernel[1], 12)
        x = s.input(N, h, w, c)
        attrs = {"kernel": kernel, "stride": stride, "layout": "NHWC"}
        both = s.b.max_pool2d(x, **attrs)
        y, winner = (s.b.item(both, index=i) for i in (0, 1))
        dy = s.input(N, *y.shape[1:])
        back = s.b.max_unpool2d(dy, winner, **attrs, size=(h, w))
        s.output(f"{c} channels, image {h, w}, {attrs}", y, winner, back)

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays, rng = whole_numbers(graph, rows, rows), np.random.default_rng(rows)
        images = {n.inputs[0].name for n in graph.nodes if n.op == "max_pool2d"}
        return {k: pooled(a, rng) if k in images else a for k, a in arrays.items()}

    check(s.graph(), 9, (1, 8, 9), threads=threads, draw=draw)
    padded = Cases(5)
    for c, kernel, stride, padding in (
        (3, (3, 3), (2, 2), (1, 1)),
        (18, (2, 3), (2, 1), (1, 1)),
        (1, (4, 2), (1, 2), (2, 0)),
    ):
        x, b = padded.input(N, c, 6, 7), padded.b
        attrs = {"kernel": kernel, "stride": stride, "padding": padding}
        both = b.max_pool2d(x, **attrs)
        y, winner = (b.item(both, index=i) for i in (0, 1))
        back = b.max_unpool2d(padded.input(N, *y.shape[1:]), winner, **attrs, size=(6, 7))
        padded.output(f"{c} channels, {attrs}", y, winner, back)
    for target in list(TARGETS.values())[:2]:
        check(padded.graph(), 9, (1, 9), target, threads, draw)


def subsets(rank: int) -> list[tuple[int, ...]]:
    return [a for n in range(1, rank + 1) for a in itertools.combinations(range(rank), n)]


@pytest.mark.parametrize("threads", [1, 3])
def test_sums_and_maxima_over_every_set_of_axes(threads: int) -> None:
    s = Cases(6)
    for shape in ((N,), (N, 1), (N, 19), (N, 5, 33), (N, 3, 4, 17), (21,), (6, 16), (3, 2, 35)):
        x = s.input(*shape)
        for axes in subsets(len(shape)):
            s.output(f"{shape} over {axes}", s.b.sum(x, axes=axes))
            if shape[0] is not N or 0 not in axes:
                s.output(f"{shape} over {axes}", s.b.max(x, axes=axes))
    check(s.graph(), 37, (1, 2, 16, 37), threads=threads)


def test_maxima_hand_nan_on_and_minus_infinity_is_the_least() -> None:
    s = Cases(7)
    for shape, axes in (((N, 19), (1,)), ((N, 3, 20), (1,)), ((N, 4, 5), (1, 2)), ((3, 33), (0,))):
        s.output(f"{shape} over {axes}", s.b.max(s.input(*shape), axes=axes))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(rows)
        drawn = whole_numbers(graph, rows, rows)
        drawn = {
            k: np.where(rng.random(a.shape) < 0.8, np.float32(-np.inf), a) for k, a in drawn.items()
        }
        return {
            k: np.where(rng.random(a.shape) < 0.05, np.float32(np.nan), a) for k, a in drawn.items()
        }

    check(s.graph(), 11, (1, 10, 11), draw=draw)


def test_sums_in_float64() -> None:
    s = Cases(8)
    for shape, axes in (((N, 19), (0,)), ((N, 3, 20), (0, 2)), ((4, 35), (1,))):
        s.output(f"{shape} over {axes}", s.b.sum(s.input(*shape, dtype="f64"), axes=axes))
    check(s.graph(), 21, (1, 21))


@pytest.mark.parametrize("threads", [1, 3])
def test_transposes_in_every_order(threads: int) -> None:
    s = Cases(10)
    shapes = [(N, 1), (N, 19), (33, 18), (N, 5, 34), (3, 17, 16), (N, 3, 18, 20), (2, 17, 1, 16)]
    for shape in shapes:
        for perm in itertools.permutations(range(len(shape))):
            if shape[0] is N and perm[0] != 0:
                continue
            s.output(f"{shape} in {perm}", s.b.transpose(s.input(*shape), perm=perm))
    for dtype in ("u8", "i64", "f64", "bool"):
        s.output(dtype, s.b.transpose(s.input(19, 35, dtype=dtype), perm=(1, 0)))
        s.output(dtype, s.b.transpose(s.input(N, 3, 18, dtype=dtype), perm=(0, 2, 1)))
    check(s.graph(), 19, (1, 18, 19), threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_pads_slices_reversals_and_broadcasts(threads: int) -> None:
    s, b = Cases(11), Builder()
    s.b = b
    for shape in ((N, 19), (N, 3, 20), (N, 5, 4, 17), (N, 4, 16, 1), (7, 35), (3, 4, 5)):
        x, rowed = s.input(*shape), shape[0] is N
        for _ in range(3):
            low, high = (
                [0 if rowed and i == 0 else s.pick(0, 2) for i in range(len(shape))] for _ in "ab"
            )
            value = [0.0, -2.5, -math.inf][s.pick(0, 2)]
            attrs = {"low": tuple(low), "high": tuple(high)}
            s.output(f"{shape} {attrs}", b.pad(x, **attrs, value=value))
            whole = [d if d is N else s.pick(1, d) for d in shape]
            start = [0 if n is N else s.pick(0, d - n) for d, n in zip(shape, whole, strict=True)]
            cut = {"start": tuple(start), "size": tuple(whole)}
            s.output(f"{shape} {cut}", b.slice(x, **cut))
        for axes in subsets(len(shape)):
            if not (rowed and 0 in axes):
                s.output(f"{shape} over {axes}", b.reverse(x, axes=axes))
            kept = tuple(shape[a] for a in axes)
            s.output(f"{shape} from {axes}", b.broadcast(s.input(*kept), shape=shape, axes=axes))
        s.output(f"{shape} from one", b.broadcast(s.input(), shape=shape))
    check(s.graph(), 17, (1, 16, 17), threads=threads)


def test_patches_and_the_way_back() -> None:
    s = Cases(12)
    for c, kernel, stride in (
        (1, (3, 3), (1, 1)),
        (3, (2, 5), (2, 1)),
        (17, (1, 2), (3, 2)),
        (16, (3, 1), (1, 4)),
    ):
        h, w = s.pick(kernel[0], 9), s.pick(kernel[1], 9)
        attrs = {"kernel": kernel, "stride": stride}
        patches = s.b.im2col(s.input(N, h, w, c), **attrs)
        back = s.b.col2im(s.input(N, *patches.shape[1:]), **attrs, size=(h, w))
        s.output(f"{c} channels, image {h, w}, {attrs}", patches, back)
    check(s.graph(), 5, (1, 4, 5))


@pytest.mark.parametrize("threads", [1, 3])
def test_labels_scores_constants_and_shares_of_a_row(threads: int) -> None:
    s, b = Cases(13), Builder()
    s.b = b
    labels = s.input(N, dtype="i64")
    for classes in (4, 16, 35):
        s.output(f"{classes} classes", b.one_hot(labels, classes=classes))
        s.output(f"{classes} classes", b.correct(s.input(N, classes), labels))
    for shape in ((), (N,), (N, 35), (3, 17)):
        for dtype, value in (
            ("f32", 0.1),
            ("f64", -math.inf),
            ("i64", -3),
            ("u8", 200),
            ("bool", 1),
        ):
            s.output(f"{dtype} {shape}", b.full(shape=shape, value=value, dtype=dtype))
    s.output("1/N", b.rows_reciprocal(), b.rows_reciprocal(dtype="f64"))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays, rng = whole_numbers(graph, rows, rows), np.random.default_rng(rows)
        return {k: pooled(a, rng) if a.dtype == np.float32 else a for k, a in arrays.items()}

    check(s.graph(), 21, (1, 20, 21), threads=threads, draw=draw)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_scores(threads: int) -> None:
    """What a loss makes of the rows of a matrix, of few and of many classes, alone and fused."""
    s, b = Cases(18), Builder()
    s.b = b
    labels, share = s.input(N, dtype="i64"), b.rows_reciprocal()
    for classes in (1, 2, 3, 8, 9, 16, 17, 33, 40, 70, 300):
        x, shape = s.input(N, classes), (N, classes)
        most, total = b.max(x, axes=(1,)), b.sum(x, axes=(1,))
        hit, correct = b.one_hot(labels, classes=classes), b.correct(x, labels)
        wide = b.sub(x, b.broadcast(most, shape=shape, axes=(0,)))
        s.output(f"{classes} classes", most, total, correct, wide, b.where(hit, x, wide))
        s.output(f"{classes} classes", b.sum(b.cast(correct, dtype="f32"), axes=(0,)))
        log = b.log_softmax(x)
        picked = b.sum(b.where(hit, log, b.full(shape=shape, value=0.0)), axes=(1,))
        s.output(f"{classes} classes", b.softmax(x), log)
        s.output(f"{classes} classes", b.mul(b.sum(picked, axes=(0,)), share))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays, rng = whole_numbers(graph, rows, rows), np.random.default_rng(rows)
        odd = rows % 2 == 0
        return {k: pooled(a, rng) if a.ndim == 2 and odd else a for k, a in arrays.items()}

    # exp and log are off by an ulp or two, and a sum by as many as it has terms
    check(s.graph(), 23, (1, 5, 22, 23), TARGETS["loops"], threads, draw, rtol=1e-5)


ORDERS = [None, *itertools.permutations(range(4))]


@pytest.mark.parametrize("threads", [1, 3])
def test_dropout_masks_of_any_layout(threads: int) -> None:
    s, b = Cases(14), Builder()
    s.b = b
    seed, step = s.input(dtype="i64"), s.input(dtype="i64")
    for key, perm in enumerate(ORDERS):
        if perm is not None and perm[0] != 0:
            continue
        attrs = {"p": 0.3, "key": key, "perm": perm}
        s.output(f"{attrs}", b.dropout_mask(seed, step, shape=(N, 3, 5, 18), **attrs))
    for p in (0.0, 1e-9, 0.999999999, 1.0):
        s.output(f"p {p}", b.dropout_mask(seed, step, shape=(N, 35), p=p, key=5))
    s.output("transposed", b.dropout_mask(seed, step, shape=(19, 3), p=0.5, key=6, perm=(1, 0)))
    s.output("float64", b.dropout_mask(seed, step, shape=(N, 3), p=0.5, key=7, dtype="f64"))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        given = [2**40 + 1, 0][rows % 2], rows - 1
        return {n.name: np.array(v) for n, v in zip(graph.inputs, given, strict=True)}

    check(s.graph(), 33, (1, 2, 33), threads=threads, draw=draw)


@pytest.mark.parametrize("threads", [1, 3])
def test_dropout_masks_in_tiles_and_behind_products(threads: int) -> None:
    """Through all passes: the mask of an image is the same in whichever tile it is, and fused."""
    s, b = Cases(15), Builder()
    s.b = b
    seed, step = s.input(dtype="i64"), s.input(dtype="i64")
    x = s.input(N, 2, 6, 7)
    for o, key in ((5, 1), (17, 2)):
        y = b.conv2d(x, s.input(o, 2, 2, 2), padding=(1, 0))
        mask = b.dropout_mask(seed, step, shape=y.shape, p=0.5, key=key)
        dropped = b.relu(b.mul(y, mask))
        flat = b.reshape(dropped, shape=(N, math.prod(y.shape[1:])))
        again = b.dropout_mask(seed, step, shape=flat.shape, p=0.75, key=key + 7)
        s.output(f"{o} channels", dropped, b.mul(flat, again))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        numbers = {"x0": np.array(2**63 - 1), "x1": np.array(rows)}
        return whole_numbers(graph, rows, rows) | numbers

    for target in TARGETS.values():
        check(s.graph(), 22, (1, 21, 22), target, threads, draw)


@pytest.mark.parametrize("threads", [1, 3])
def test_sweeps_with_operands_along_any_axes(threads: int) -> None:
    s, b = Cases(16), Builder()
    s.b = b
    for shape in ((N,), (N, 1), (N, 17), (N, 3, 35), (N, 2, 3, 16), (5, 19), (2050,), ()):
        x, y = s.input(*shape), s.input(*shape)
        s.output(f"{shape}", b.relu(b.sub(b.mul(x, y), x)), b.where(b.less(x, y), x, y))
        s.output(f"{shape}", b.cast(b.equal(x, y), dtype="f32"), b.less_equal(x, y))
        s.output(f"{shape}", b.cast(b.cast(x, dtype="f64"), dtype="f32"))
        for axes in subsets(len(shape)):
            other = b.broadcast(s.input(*(shape[a] for a in axes)), shape=shape, axes=axes)
            s.output(f"{shape} with {axes}", b.sub(x, b.mul(other, y)))
    check(s.graph(), 9, (1, 8, 9), TARGETS["loops"], threads)


def conv_relu_pool(seed: int) -> tuple[Cases, tuple[str, ...]]:
    """Convolutions with a ReLU and a pool behind them, and what to differentiate by."""
    s, wrt, losses = Cases(seed), [], []
    b = s.b
    for c, o, kernel, pool, stride in (
        *((1, 8, (3, 3), (2, 2), (2, 2)), (16, 9, (3, 3), (2, 2), (2, 2))),
        *((17, 20, (2, 4), (3, 2), (3, 2)), (8, 33, (1, 1), (2, 2), (3, 3))),
        *((9, 3, (3, 3), (3, 3), (2, 2)), (33, 16, (5, 5), (2, 3), (2, 3))),
        *((2, 17, (3, 3), (2, 2), (2, 2)), (16, 32, (3, 3), (2, 2), (2, 2))),
    ):
        h, w = (8, 10) if o == 32 else s.pair(6, 11)
        x, weight, bias = s.input(N, c, h, w), s.input(o, c, *kernel), s.input(o)
        y = b.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2))
        y = b.add(y, b.broadcast(bias, shape=y.shape, axes=(1,)))
        y = b.item(b.max_pool2d(b.relu(y), kernel=pool, stride=stride), index=0)
        s.output(f"{c} to {o} channels, kernel {kernel}, pool {pool, stride}", y)
        losses.append(b.sum(b.mul(y, s.input(*y.shape)), axes=(0, 1, 2, 3)))
        wrt += [n.name for n in (x, weight, bias)]
    loss = losses[0]
    for one in losses[1:]:
        loss = b.add(loss, one)
    s.outputs["loss"] = loss
    return s, tuple(wrt)


@each_target
@pytest.mark.parametrize("threads", [1, 2])
def test_a_convolution_with_a_relu_and_a_pool_behind_it_there_and_back(
    target: Target, threads: int
) -> None:
    """All forms that lower has for gradients through a pool; ties are frequent."""
    seed = 17
    print(f"seed {seed}")
    s, wrt = conv_relu_pool(seed)
    compiled = compile_program(Program(s.graph(), 6, wrt, target=target), threads)
    differentiated = compiled.differentiated
    for rows in (1, 5, 6):
        arrays = whole_numbers(differentiated, rows, seed + rows, largest=2)
        expected = interpret(differentiated, arrays, rows)
        got = compiled.run(arrays, rows)
        assert expected.keys() == got.keys()
        for name, y in expected.items():
            np.testing.assert_array_equal(got[name], y, err_msg=f"{name} of {rows} rows")


def test_the_targets_above_reach_every_form_of_a_product() -> None:
    s, wrt = conv_relu_pool(17)
    s.output("products", s.b.matmul(s.input(N, 5), s.input(4, 5), transpose_b=True))
    seen: set[str] = set()
    for target in (*TARGETS.values(), *PRODUCTS):
        seen |= forms_in(run_passes(Program(s.graph(), 6, wrt, target=target))["order"])
    expected = {*FORMS, "shift_matmul", "shift_matmul_weight_grad"} - {"shift"}
    assert expected <= seen, f"only {sorted(seen)}"


def forms_in(graph: Graph) -> set[str]:
    """The forms of a graph's products, and its ops."""
    found = {n.op for n in graph.nodes} | {str(n.attrs.get("form")) for n in graph.nodes}
    return found.union(*(forms_in(n.attrs["body"]) for n in graph.nodes if "body" in n.attrs))
