"""Products and convolutions of the native runtime in every form, over odd sizes: `kernel_cases`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import HOST, TARGETS, Cases, check, conv_case, conv_cases, subsets
from native_running import a_cpu_without, whole_numbers
from running import compile_program

from gemmc.ir import Builder, Graph, Node, interpret
from gemmc.ir.ops.conv import window_count
from gemmc.ir.types import N
from gemmc.passes.forms import FORMS, WIDE
from gemmc.passes.pipeline import Program, run_passes
from gemmc.passes.target import Target
from gemmc.runtime.native import products
from gemmc.runtime.native.jit import host
from gemmc.runtime.native.target import native_target

PRODUCTS = [replace(HOST, products=how) for how in ("loops", "blas", "turned")]
each_product = pytest.mark.parametrize("target", PRODUCTS, ids=["loops", "blas", "turned"])
EXACT = {name: target for name, target in TARGETS.items() if target.conv_form != "winograd"}
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


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
    check(s.graph(), most, rows, target)


@pytest.mark.parametrize(
    ("most", "rows", "threads"), [(1, (1,), 2), (5, (1, 4, 5), 3), (33, (32, 33), 1)]
)
@pytest.mark.parametrize("tiles", ["", " in tiles"])
def test_winograds_convolutions_of_all_even_sizes(
    tiles: str, most: int, rows: Sequence[int], threads: int
) -> None:
    """Tiles of 4 x 4 and of 2 x 2, one or none or many of each, in blocks that are not full."""
    s = Cases(most)
    for size in ((2, 2), (2, 8), (6, 2), (4, 4), (8, 6), (10, 12), (14, 14), (18, 4)):
        channels = s.pick(1, 40), s.pick(1, 40)
        conv_cases(s, channels, (3, 3), (1, 1), (1, 1), size)
    conv_cases(s, (130, 70), (3, 3), (1, 1), (1, 1), (6, 6))
    y = s.b.relu(s.b.conv2d(s.input(N, 16, 8, 6), s.input(17, 16, 3, 3), padding=(1, 1)))
    s.output("two in a row", s.b.conv2d(y, s.input(3, 17, 3, 3), padding=(1, 1)))
    target = TARGETS["winograd in tiles"] if tiles else replace(HOST, conv_form="winograd")
    assert "winograd_conv2d" in forms_in(
        run_passes(Program(s.graph(), most, target=target))["order"]
    )
    check(s.graph(), most, rows, target, threads, off=2e-5)


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


POOLED = (  # channels in and out, kernel, pool and its stride
    *((1, 8, (3, 3), (2, 2), (2, 2)), (16, 9, (3, 3), (2, 2), (2, 2))),
    *((17, 20, (2, 4), (3, 2), (3, 2)), (8, 33, (1, 1), (2, 2), (3, 3))),
    *((9, 3, (3, 3), (3, 3), (2, 2)), (33, 16, (5, 5), (2, 3), (2, 3))),
    (2, 17, (3, 3), (2, 2), (2, 2)),
)
WINOGRADS = ((16, 32, (3, 3), (2, 2), (2, 2)), (20, 17, (3, 3), (2, 2), (2, 2)))


def conv_relu_pool(seed: int, cases: tuple = POOLED) -> tuple[Cases, tuple[str, ...]]:
    """Convolutions with a ReLU and a pool behind them, and what to differentiate by."""
    s, wrt, losses = Cases(seed), [], []
    b = s.b
    for c, o, kernel, pool, stride in cases:
        h, w = (2 * s.pick(3, 5), 14) if cases is WINOGRADS else s.pair(6, 11)
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


@pytest.mark.parametrize("target", EXACT.values(), ids=EXACT)
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


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", EXACT.values(), ids=EXACT)
def test_borders_around_what_convolutions_make(target: Target, threads: int) -> None:
    """With a pool and without; written with the images, if nothing else reads those."""
    s = Cases(7)
    b = s.b
    for c, o, pool, padding in ((2, 5, 1, (1, 1)), (3, 16, 2, (2, 0)), (1, 33, 2, (1, 2))):
        x = s.input(N, c, *s.pair(6, 9))
        y = b.relu(b.conv2d(x, s.input(o, c, 3, 2), padding=(1, 1)))
        if pool > 1:
            y = b.item(b.max_pool2d(y, kernel=(pool, pool), stride=(pool, pool)), index=0)
        z = b.conv2d(y, s.input(4, o, 3, 3), padding=padding)
        s.output(f"{c} to {o} channels, pool {pool}, border {padding}", z)
        s.output("the same and what is bordered", z, *([y] if o == 5 else []))
    y = b.conv2d(s.input(N, 3, 6, 7), s.input(9, 3, 2, 2))
    for of_it in (b.relu(y), b.mul(y, y)):  # two borders of one step
        s.output("two of one", b.conv2d(of_it, s.input(2, 9, 2, 2), padding=(1, 1)))
    fused = [n for n in steps(Program(s.graph(), 5, target=target)) if n.op == "fused"]
    inside = sum(n.op == "pad" for f in fused for n in f.attrs["body"].nodes)
    assert inside == (4 if target.conv_form in (None, "direct") else 0)
    check(s.graph(), 5, (1, 4, 5), target, threads)


def steps(given: Program) -> list[Node]:
    """What is left after all passes, regions opened."""
    nodes = run_passes(given)["order"].nodes
    return [m for n in nodes for m in (n.attrs["body"].nodes if n.op == "region" else (n,))]


@pytest.mark.parametrize("target", [TARGETS["loops"], TARGETS["winograd in tiles"]])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_with_winograds_convolution(target: Target, threads: int) -> None:
    """Of numbers that do not tie: it rounds, so that of those that tie any may win."""
    s, wrt = conv_relu_pool(5, WINOGRADS)
    given = Program(s.graph(), 6, wrt, target=target)
    assert "winograd_conv2d" in forms_in(run_passes(given)["order"])
    rng = np.random.default_rng(5)

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        shapes = {n.name: n.tensor.concrete(rows) for n in graph.inputs}
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    compiled = compile_program(given, threads)
    for rows in (1, 5, 6):
        arrays = draw(compiled.differentiated, rows)
        expected, got = interpret(compiled.differentiated, arrays, rows), compiled.run(arrays, rows)
        for name, y in expected.items():
            atol = 2e-5 * float(np.abs(y).max())
            np.testing.assert_allclose(got[name], y, 0.0, atol, err_msg=f"{name} of {rows} rows")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("wide", [1, 2, 3, 4])
def test_gradients_that_walk_the_winners_of_windows_of_any_shape(wide: int, threads: int) -> None:
    """Two channels of the result at a time, where they are even and taps few, and one."""
    s, entries = Cases(wide), dict[str, int]()
    b = s.b
    for c, o, kernel, tall, apart in (
        *((1, 6, (3, 3), 2, (0, 0)), (17, 5, (3, 3), 1, (1, 0)), (3, 2, (2, 5), 3, (0, 1))),
        *((16, 8, (4, 3), 2, (0, 0)), (35, 1, (1, 1), 4, (2, 3)), (5, 66, (1, 2), 3, (1, 1))),
        (16, 2, (1, 2), 6, (0, 0)),  # more entries than 4 bits can number
    ):
        lines, across = s.pair(1, 4)
        pool, stride = (tall, wide), (tall + apart[0], wide + apart[1])
        size = lines * stride[0] + s.pick(0, apart[0]), across * stride[1]
        attrs = {"pool": pool, "pool_stride": stride, "size": size}
        lines, across = (window_count(n, p, t) for n, p, t in zip(size, pool, stride, strict=True))
        g, winner = s.input(N, lines, across, o), s.input(N, lines, across, o, dtype="u8")
        entries[winner.name] = tall * wide
        x = s.input(N, size[0] + kernel[0] - 1, size[1] + kernel[1] - 1, c)
        text = f"{c} to {o} channels, kernel {kernel}, {attrs}"
        s.output(text, *(b.pooled_weight_grad(x, g, winner, **attrs, turned=t) for t in (0, 1)))
        padding = kernel[0] // 2, kernel[1] // 3
        weight = s.input(o, *kernel, c)
        s.output(text, b.pooled_input_grad(g, winner, weight, **attrs, padding=padding))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays, rng = whole_numbers(graph, rows, rows), np.random.default_rng(rows)
        won = {k: rng.integers(0, n, arrays[k].shape).astype(np.uint8) for k, n in entries.items()}
        return arrays | won

    check(s.graph(), 5, (1, 4, 5), threads=threads, draw=draw)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_epilogue_is_the_same_in_a_loop_as_written_out(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every bit; of blocks of whole vectors it is a loop, at the other columns it is not."""
    s, b = Cases(19), Builder()
    s.b = b
    for k, m in ((5, 128), (33, 70), (16, 1), (7, 96)):
        y = b.matmul(s.input(N, k), s.input(k, m))
        y = b.add(y, b.broadcast(s.input(m), shape=(N, m), axes=(1,)))
        y = b.mul(b.tanh(b.mul(y, b.full(shape=(N, m), value=0.01))), s.input(N, m))
        s.output(f"{k} to {m}", b.exp(y), b.relu(y))
    given, sizes, results = Program(s.graph(), 21, target=TARGETS["loops"]), [], []
    for written in (products.WRITTEN, 1 << 30):
        monkeypatch.setattr(products, "WRITTEN", written)
        compiled = compile_program(given, threads)
        runs = [compiled.run(whole_numbers(s.graph(), n, n), n) for n in (1, 20, 21)]
        results.append([{name: y.tobytes() for name, y in outputs.items()} for outputs in runs])
        sizes.append(len(compiled._runner.text("loops")))
    assert results[0] == results[1] and sizes[0] < sizes[1]
    check(s.graph(), 21, (1, 20, 21), TARGETS["loops"], threads, rtol=1e-5)


def test_the_targets_above_reach_every_form_of_a_product() -> None:
    s, wrt = conv_relu_pool(17, POOLED + WINOGRADS)
    s.output("products", s.b.matmul(s.input(N, 5), s.input(4, 5), transpose_b=True))
    half = s.b.relu(s.input(N, 5))
    s.output("of zeros", s.b.matmul(half, s.input(5, WIDE * HOST.lanes)))
    seen: set[str] = set()
    for target in (*TARGETS.values(), *PRODUCTS, replace(HOST, products="nonzero")):
        seen |= forms_in(run_passes(Program(s.graph(), 6, wrt, target=target))["order"])
    expected = {*FORMS, "shift_matmul", "shift_matmul_weight_grad"} - {"shift"}
    expected -= {"panels"}  # of weights that stay: test_native_panels.py
    assert expected <= seen, f"only {sorted(seen)}"


def forms_in(graph: Graph) -> set[str]:
    """The forms of a graph's products, and its ops."""
    found = {n.op for n in graph.nodes} | {str(n.attrs.get("form")) for n in graph.nodes}
    return found.union(*(forms_in(n.attrs["body"]) for n in graph.nodes if "body" in n.attrs))
