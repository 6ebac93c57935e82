"""Work that is left out where an operand is 0: products in the form "nonzero", and winners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import HOST, TARGETS, Cases, check
from native_running import a_cpu_without, whole_numbers
from running import compile_program

import gemmc
from gemmc.ir import Builder, Graph, Node, TensorType, interpret
from gemmc.ir.types import N
from gemmc.passes.forms import WIDE, density, forms
from gemmc.passes.pipeline import Program, run_passes
from gemmc.runtime.native.jit import host
from gemmc.runtime.native.target import native_target

NONZERO = replace(HOST, products="nonzero")
LINE = WIDE * HOST.lanes  # results side by side, from which terms are left out


def nonzero_cases(s: Cases, sizes: Sequence[tuple[int, int, int]]) -> None:
    """For each (leading, terms, width): by b, and summed over all rows, with what follows."""
    b = s.b
    for inner, terms, width in sizes:
        middle = (inner,) if inner > 1 else ()
        a = b.relu(s.input(N, *middle, terms))
        text = f"[N, {middle}, {terms}] by [{terms}, {width}]"
        y = b.matmul(a, s.input(terms, width))
        s.output(text, y)
        wide = b.broadcast(s.input(width), shape=y.shape, axes=(len(y.shape) - 1,))
        s.output(f"{text} and bias", b.relu(b.add(b.matmul(a, s.input(terms, width)), wide)))
        g = b.matmul(a, s.input(N, *middle, width), transpose_a=True)
        s.output(f"{text} summed over rows", g)
        p, m = s.input(terms, width), s.input(terms, width)
        other = b.matmul(a, s.input(N, *middle, width), transpose_a=True)
        s.output(f"{text} and an update", b.sub(p, b.add(m, other)), b.mul(m, other))
        fixed = b.relu(s.input(inner + 1, terms))
        s.output(f"[{inner + 1}, {terms}]", b.matmul(fixed, s.input(terms, width)))
        by = s.input(inner + 1, width)
        s.output(f"[{inner + 1}, {terms}]", b.matmul(fixed, by, transpose_a=True))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("most", "rows"), [(1, (1,)), (7, (1, 6, 7)), (65, (64, 65)), (130, (63, 130))]
)
def test_products_that_leave_out_zeros(most: int, rows: Sequence[int], threads: int) -> None:
    """Terms of one, two and three words of bits, and lines of whole vectors and not."""
    s = Cases(most)
    sizes = [(1, 1, LINE), (2, 65, LINE + 1), (1, 64, 98 * host().lanes), (1, 130, LINE + 37)]
    nonzero_cases(s, sizes)
    given = Program(s.graph(), most, target=NONZERO)
    inside = [m for n in run_passes(given)["order"].nodes for m in (n, *parts(n))]
    assert {n.attrs["form"] for n in inside if n.op == "matmul"} == {"nonzero"}
    check(s.graph(), most, rows, NONZERO, threads)


@pytest.mark.parametrize(("lacking", "lanes"), [(("avx512", "avx10", "amx"), 8)], ids=["AVX2"])
def test_the_same_with_shorter_vectors(
    lacking: tuple[str, ...], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host().triple.startswith("x86_64") or host().lanes < lanes:
        pytest.skip("vectors are no longer than those")
    with a_cpu_without(monkeypatch, *lacking):
        s = Cases(lanes)
        nonzero_cases(s, [(1, 20, 32), (2, 70, 45)])
        check(s.graph(), 9, (1, 9), replace(native_target(), products="nonzero"), threads=2)


def test_what_is_not_a_number_is_not_left_out() -> None:
    s = Cases(1)
    a, w = s.b.relu(s.input(N, 70)), s.input(70, LINE)
    s.output("NaN", s.b.matmul(a, w))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays = whole_numbers(graph, rows, rows)
        arrays["x0"][1::3, 66] = np.nan
        arrays["x0"][0, 3] = np.inf
        arrays["x0"][2, :] = -0.0
        return arrays

    compiled = compile_program(Program(s.graph(), 5, target=NONZERO))
    arrays = draw(compiled.differentiated, 5)
    expected, got = interpret(compiled.differentiated, arrays, 5), compiled.run(arrays, 5)
    for name, y in expected.items():
        assert np.isnan(y).any()
        np.testing.assert_array_equal(got[name], y)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", [TARGETS["loops"], TARGETS["loops in tiles"]])
def test_winners_of_more_windows_than_an_integer_has_bits(target, threads: int) -> None:  # type: ignore[no-untyped-def]
    s, b = Cases(3), Builder()
    s.b = b
    attrs = {"pool": (2, 2), "pool_stride": (2, 2), "size": (18, 30)}
    g, winner = s.input(N, 9, 15, 3), s.input(N, 9, 15, 3, dtype="u8")
    x = s.input(N, 20, 32, 17)
    s.output("135 windows", b.pooled_weight_grad(x, g, winner, **attrs, turned=True))
    weight = s.input(3, 3, 3, 17)
    s.output("135 windows", b.pooled_input_grad(g, winner, weight, **attrs, padding=(1, 1)))

    def draw(graph: Graph, rows: int) -> dict[str, np.ndarray]:
        arrays, rng = whole_numbers(graph, rows, rows), np.random.default_rng(rows)
        won = rng.integers(0, 4, arrays[winner.name].shape).astype(np.uint8)
        return arrays | {winner.name: won}

    check(s.graph(), 4, (1, 3, 4), target, threads, draw=draw)


def relu(b: Builder, x: Node) -> Node:
    return b.relu(x)


def relu_gradient(b: Builder, x: Node) -> Node:
    zero = b.full(shape=x.shape, value=0.0)
    return b.where(b.less_equal(x, zero), zero, x)


def other_gradient(b: Builder, x: Node) -> Node:
    zero = b.full(shape=x.shape, value=0.0)
    return b.where(b.less_equal(x, zero), x, zero)


def a_choice(b: Builder, x: Node) -> Node:
    one = b.full(shape=x.shape, value=1.0)
    return b.where(b.less_equal(x, one), one, x)


def dropout(p: float) -> Callable[[Builder, Node], Node]:
    def made(b: Builder, x: Node) -> Node:
        counters = (b.input(name, TensorType((), "i64")) for name in ("seed", "step"))
        return b.mul(x, b.dropout_mask(*counters, shape=x.shape, p=p, key=0))

    return made


def flat(b: Builder, x: Node) -> Node:
    return b.reshape(b.transpose(b.relu(x), perm=(0, 1)), shape=(N, 8))


def far(b: Builder, x: Node) -> Node:
    x = b.relu(x)
    for _ in range(9):
        x = b.reshape(b.reshape(x, shape=(N, 2, 4)), shape=(N, 8))
    return x


@pytest.mark.parametrize(
    ("made", "share"),
    [
        *((relu, 0.5), (relu_gradient, 0.5), (other_gradient, 0.5), (a_choice, 1.0)),
        *((dropout(0.5), 0.5), (dropout(0.9), 0.1), (flat, 0.5), (far, 1.0)),
        (lambda b, x: dropout(0.5)(b, b.relu(x)), 0.25),
        (lambda b, x: b.tanh(b.relu(x)), 1.0),
    ],
)
def test_how_much_of_a_value_is_expected_not_to_be_zero(
    made: Callable[[Builder, Node], Node], share: float
) -> None:
    b = Builder()
    assert density(made(b, b.input("x", TensorType((N, 8), "f32")))) == pytest.approx(share)


def test_zeros_are_left_out_where_they_are_most_and_lines_long() -> None:
    b = Builder()
    x, half = b.input("x", TensorType((N, 8), "f32")), b.relu
    favourites = {
        (x, LINE): ("loops", "blas", "nonzero"),
        (half(x), LINE): ("loops", "blas", "nonzero"),
        (dropout(0.5)(b, half(x)), LINE): ("nonzero", "loops", "blas"),
        (dropout(0.5)(b, half(x)), LINE - 1): ("loops", "blas"),
    }
    for (a, width), expected in favourites.items():
        w = b.input("w", TensorType((8, width), "f32"))
        assert forms(HOST, b.matmul(a, w), 32) == expected


@pytest.mark.parametrize(
    ("behind", "features", "rows_first"),
    [
        ([gemmc.ReLU(), gemmc.Dropout(0.5)], 256, True),
        ([gemmc.Dropout(0.8)], 256, True),
        ([gemmc.ReLU(), gemmc.ReLU(), gemmc.Linear(6, 6), gemmc.Dropout(0.9)], 256, True),
        ([gemmc.ReLU(), gemmc.Dropout(0.5)], 255, False),
        ([gemmc.ReLU(), gemmc.Dropout(0.2)], 256, False),
        ([gemmc.ReLU(), gemmc.Linear(6, 6), gemmc.Dropout(0.9)], 256, False),
        ([], 256, False),
    ],
)
def test_a_linear_that_is_mostly_shut_keeps_its_rows_first(
    behind: Sequence[gemmc.Module], features: int, rows_first: bool
) -> None:
    model = gemmc.Sequential([gemmc.Linear(features, 6), *behind])
    stored = model.state.stored["0.weight"]
    assert stored.shape == ((6, features) if rows_first else (features, 6))
    logical = model.state_dict()["0.weight"]
    np.testing.assert_array_equal(stored if rows_first else stored.T, logical)


def test_behind_a_flatten_its_features_are_channel_last_all_the_same() -> None:
    last = [gemmc.ReLU(), gemmc.Dropout(0.5)]
    first = [gemmc.Conv2d(1, 4, 3, padding=1), gemmc.Flatten(), gemmc.Linear(256, 6)]
    model = gemmc.Sequential([*first, *last])
    logical = model.state_dict()["2.weight"].reshape(6, 4, 64)
    np.testing.assert_array_equal(model.state.stored["2.weight"], logical.transpose(0, 2, 1))


def parts(node: Node) -> Sequence[Node]:
    return node.attrs["body"].nodes if "body" in node.attrs else ()
