"""The other kernels of the native runtime, each alone, over odd sizes; see `kernel_cases`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from kernel_cases import TARGETS, Cases, check, pooled, subsets
from native_running import whole_numbers

from gemmc.ir import Builder, Graph
from gemmc.ir.types import N


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


@pytest.mark.parametrize("classes", [2, 20, 64, 70])
def test_the_first_nan_of_a_row_is_its_largest_score(classes: int) -> None:
    """In a row that lies in a lane or in vectors, and in one too long for either."""
    s = Cases()
    scores, labels = s.input(N, classes), s.input(N, dtype="i64")
    s.output(f"{classes} classes", s.b.correct(s.b.relu(scores), labels))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        x, y = np.zeros((rows, classes), np.float32), np.arange(rows) % classes
        x[np.arange(rows), y] = x[:, -1] = np.nan
        return {scores.name: x, labels.name: y}

    check(s.graph(), 70, (69, 70), TARGETS["loops"], draw=draw)


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
