"""The loop language: what a function written in it does is what the same Python would do."""

from __future__ import annotations

import itertools
import math
import operator
import struct
from collections.abc import Callable

import numpy as np
import pytest
from native_running import Code, run

from gemmc.runtime.native.dsl import Array, Function, Value, literal
from gemmc.runtime.native.turning import turned

BOUNDS = (-3, 0, 1, 2, 5, 16, 17)
STEPS = (1, 2, 4, 7)
NAN, INF = float("nan"), float("inf")
Int = Value | int


def test_range_takes_the_turns_of_pythons_with_constant_and_with_dynamic_bounds() -> None:
    """Each turn writes its number behind those before it; the bounds are constants in four ways."""
    code, cases = Code(), []
    seen, count = np.zeros(64, np.int64), np.zeros(1, np.int64)
    for start, stop, step in itertools.product(BOUNDS, BOUNDS, STEPS):
        for fixed_start, fixed_stop in itertools.product((True, False), repeat=2):

            def write(
                k: Function,
                seen: Array,
                count: Array,
                first: Value,
                last: Value,
                begin: int | None = start if fixed_start else None,
                end: int | None = stop if fixed_stop else None,
                step: int = step,
            ) -> None:
                count.store(k.constant(0, "i64"))
                bounds = (first if begin is None else begin, last if end is None else end)
                with k.range(*bounds, step) as i:
                    seen.store(k.integer(i), count.load())
                    count.store(count.load() + 1)

            name = f"f{len(cases)}"
            code.add(name, write, seen, count, 0, 0)
            cases.append((name, start, stop, step))
    for name, start, stop, step in cases:
        code.call(name, seen, count, start, stop)
        assert seen[: count[0]].tolist() == list(range(start, stop, step)), (start, stop, step)


def test_fold_carries_scalars_vectors_and_integers_through_the_same_turns() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(-9, 10, 160).astype(np.float32)
    code, cases, y, whole = Code(), [], np.zeros(9, np.float32), np.zeros(1, np.int64)
    for start, stop, step in itertools.product((0, 2), (0, 1, 2, 3, 5, 17), (1, 2, 5)):
        for fixed_start, fixed_stop in itertools.product((True, False), repeat=2):

            def write(
                k: Function,
                x: Array,
                y: Array,
                whole: Array,
                first: Value,
                last: Value,
                begin: int | None = start if fixed_start else None,
                end: int | None = stop if fixed_stop else None,
                step: int = step,
            ) -> None:
                def body(i: Int, values: list[Value]) -> list[Value]:
                    total, lanes, turns = values
                    return [total + x.load(i), lanes + x.load(i * 8, 8), turns * 2 + i]

                bounds = (first if begin is None else begin, last if end is None else end)
                at_first = [
                    k.constant(0.5, "float"),
                    k.constant(1.0, "float", 8),
                    k.integer(first + 3),
                ]
                total, lanes, turns = k.fold(*bounds, at_first, body, step)
                y.store(total)
                y.store(lanes, 1)
                whole.store(turns)

            name = f"f{len(cases)}"
            code.add(name, write, data, y, whole, 0, 0)
            cases.append((name, start, stop, step))
    for name, start, stop, step in cases:
        code.call(name, data, y, whole, start, stop)
        turns, lanes = start + 3, np.ones(8, np.float32)
        for i in range(start, stop, step):
            turns, lanes = turns * 2 + i, lanes + data[i * 8 : i * 8 + 8]
        assert whole[0] == turns, (start, stop, step)
        assert y[0] == 0.5 + sum(data[i] for i in range(start, stop, step)), (start, stop, step)
        np.testing.assert_array_equal(y[1:], lanes)


def test_a_carried_integer_may_begin_with_a_constant_part_apart() -> None:
    def write(k: Function, y: Array, n: Value) -> None:
        for at, stop in enumerate((n, 3, 1)):
            (last,) = k.fold(0, stop, [n + 5], lambda i, v: [v[0] + 7])
            y.store(last, at)

    y = np.zeros(3, np.int64)
    run(write, y, 4)
    assert y.tolist() == [4 + 5 + 4 * 7, 4 + 5 + 3 * 7, 4 + 5 + 7]


def test_loops_and_conditions_nest() -> None:
    """Of all i < n, j < i: those with an even sum, counted, and the sum of i * j over them."""

    def write(k: Function, y: Array, n: Value) -> None:
        y.store(k.constant(0, "i64"))

        def outer(i: Int, totals: list[Value]) -> list[Value]:
            def inner(j: Int, values: list[Value]) -> list[Value]:
                even = k.compare("eq", (i + j) % 2, 0)
                with k.when(even):
                    y.store(y.load() + 1)
                return [k.select(even, values[0] + i * j, values[0])]

            return k.fold(0, i, totals, inner)

        (total,) = k.fold(0, n, [k.constant(0, "i64")], outer)
        y.store(total, 1)

    for n in (0, 1, 2, 3, 10):
        y = np.full(2, -1, np.int64)
        run(write, y, n)
        pairs = [(i, j) for i in range(n) for j in range(i) if (i + j) % 2 == 0]
        assert y.tolist() == [len(pairs), sum(i * j for i, j in pairs)]


def test_when_runs_what_is_inside_only_if_the_condition_holds() -> None:
    def write(k: Function, y: Array, n: Value) -> None:
        for at, condition in enumerate((n < 3, n <= 3, n > 3, n.equals(3))):
            y.store(k.constant(0, "i64"), at)
            with k.when(condition), k.when(n > -5):
                y.store(n * 2 + 1, at)
            y.store(y.load(at) + n * 2, at)  # made anew: what was made inside is not known here

    for n in (2, 3, 4, -6):
        y = np.zeros(4, np.int64)
        run(write, y, n)
        holds = [c and n > -5 for c in (n < 3, n <= 3, n > 3, n == 3)]
        assert y.tolist() == [(2 * n + 1) * h + 2 * n for h in holds]


def test_fold_while_turns_as_long_as_its_test_holds() -> None:
    """The steps that Collatz' sequence takes from n to 1, and the largest number on the way."""

    def write(k: Function, y: Array, n: Value) -> None:
        def body(values: list[Value]) -> list[Value]:
            at, steps, most = values
            at = k.select(k.compare("eq", at % 2, 0), at // 2, at * 3 + 1)
            return [at, steps + 1, k.select(at > most, at, most)]

        at_first = [n + 0, n * 0 + k.constant(10, "i64"), n + 1]
        steps = k.fold_while(at_first, lambda v: v[0] > 1, body)[1:]
        for at, value in enumerate(steps):
            y.store(value, at)

    for n in (1, 2, 3, 27):
        at, steps, most = n, 10, n + 1
        while at > 1:
            at = at // 2 if at % 2 == 0 else at * 3 + 1
            steps, most = steps + 1, max(at, most)
        y = np.zeros(2, np.int64)
        run(write, y, n)
        assert y.tolist() == [steps, most]


ALGEBRA: dict[str, Callable[[Int, Int], Int]] = {
    "(a + 3) * 4 - 5": lambda a, b: (a + 3) * 4 - 5,
    "a * 0 + b": lambda a, b: a * 0 + b,
    "b * 1 + (a + 0)": lambda a, b: b * 1 + (a + 0),
    "(a + 2) + (b - 7)": lambda a, b: (a + 2) + (b - 7),
    "(a + 2) - (b - 7)": lambda a, b: (a + 2) - (b - 7),
    "9 - (a + 4)": lambda a, b: 9 - (a + 4),
    "3 * (2 + a) + 2 * (a + 6)": lambda a, b: 3 * (2 + a) + 2 * (a + 6),
    "(a + 1) * (b + 2)": lambda a, b: (a + 1) * (b + 2),
    "-(a + 5)": lambda a, b: -(a + 5),
    "(a + 1) ^ b": lambda a, b: (a + 1) ^ b,
    "(a & b + 3) | 8": lambda a, b: (a & b + 3) | 8,
    "a + 1 << 3": lambda a, b: a + 1 << 3,
    "-7 * a": lambda a, b: -7 * a,
}


def test_integers_with_constant_parts_compute_as_integers_do() -> None:
    def write(k: Function, y: Array, a: Value, b: Value) -> None:
        for at, rule in enumerate(ALGEBRA.values()):
            y.store(k.integer(rule(a, b)), at)

    for a, b in itertools.product((-6, 0, 1, 12), (-5, 0, 3)):
        y = np.zeros(len(ALGEBRA), np.int64)
        run(write, y, a, b)
        assert y.tolist() == [rule(a, b) for rule in ALGEBRA.values()], (a, b)


def test_division_of_integers_truncates_and_shifts_to_the_right_are_unsigned() -> None:
    def write(k: Function, y: Array, a: Value, b: Value) -> None:
        for at, value in enumerate((a // b, a % b, a >> 60, k.minimum(a, b), k.minimum(a, 2))):
            y.store(k.integer(value), at)

    for a, b in ((7, 2), (-7, 2), (7, -2), (0, 3)):
        y = np.zeros(5, np.int64)
        run(write, y, a, b)
        quotient = int(a / b)
        shifted = (a % 2**64) >> 60
        assert y.tolist() == [quotient, a - b * quotient, shifted, min(a, b), min(a, 2)]


def test_equal_integer_computations_in_scope_are_made_once() -> None:
    k = Function("f", [("n", "i64")])
    n = k.parameters["n"]
    first = k.integer(n * 6 + 2)
    before = len(k.lines)
    assert k.integer(n * 6 + 2) == first and k.integer((n * 6) + 1 + 1) == first
    assert len(k.lines) == before
    with k.when(n > 0):
        inside = k.integer(n * 5)
        assert k.integer(n * 6 + 2) == first
    assert k.integer(n * 5) != inside


COMPARED = (-INF, -1.5, -0.0, 0.0, 1.5, INF, NAN)
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ord": lambda x, y: not (math.isnan(x) or math.isnan(y)),
    "uno": lambda x, y: math.isnan(x) or math.isnan(y),
    "ugt": lambda x, y: not x <= y,
}


@pytest.mark.parametrize("lanes", [0, 2, 8])
def test_comparisons_and_select_treat_nan_as_python_does(lanes: int) -> None:
    pairs = np.array([*itertools.product(COMPARED, COMPARED)] * 8, np.float32)
    x, y = pairs.T.copy()
    made = np.zeros((2, len(RELATIONS), len(x)), np.float32)

    def write(k: Function, x: Array, y: Array, made: Array, count: Value) -> None:
        with k.range(0, count, max(1, lanes)) as i:
            for at, relation in enumerate(RELATIONS):
                a, b = x.load(i, lanes), y.load(i, lanes)
                holds = k.compare(relation, a, b)
                made.store(k.select(holds, 1.0, k.like(0.0, a)), i + at * len(pairs))
                chosen = k.select(holds, a, b)
                made.store(chosen, i + (at + len(RELATIONS)) * len(pairs))

    run(write, x, y, made, len(x))
    for at, (relation, meaning) in enumerate(RELATIONS.items()):
        holds = np.array([meaning(*pair) for pair in pairs.tolist()])
        np.testing.assert_array_equal(made[0, at], holds, err_msg=relation)
        assert made[1, at].tobytes() == np.where(holds, x, y).tobytes(), relation


def test_unsigned_and_signed_integers_compare_as_they_should() -> None:
    x = np.array([-1, 0, 1, 2**31 - 1, -(2**31), 5, 5, 5], np.int32)
    y = np.array([1, 0, -1, -(2**31), 2**31 - 1, 5, 6, 4], np.int32)
    signed = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    either = {"eq": np.equal, "ne": np.not_equal}
    made = np.zeros((10, 8), np.int32)

    def write(k: Function, x: Array, y: Array, made: Array) -> None:
        for at, relation in enumerate((*signed, *either, *(f"u{r}" for r in signed))):
            holds = k.compare(relation, x.load(0, 8), y.load(0, 8))
            made.store(k.convert("zext", holds, "i32"), at * 8)

    run(write, x, y, made)
    a, b = x.view(np.uint32), y.view(np.uint32)
    expected = [f(x, y) for f in (*signed.values(), *either.values())]
    expected += [f(a, b) for f in signed.values()]
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("lanes", [0, 1, 2, 3, 5, 8, 16, 31])
def test_reductions_combine_all_lanes(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    width = max(1, lanes)
    x = rng.integers(-50, 50, (2, width)).astype(np.float32)
    x[1, rng.integers(width)] = NAN
    y = np.zeros((2, 2), np.float32)

    def write(k: Function, x: Array, y: Array) -> None:
        for line in range(2):
            value = x.load(line * width, lanes)
            y.store(k.reduce("fadd", value, -0.0), line * 2)
            y.store(k.reduce("fmaximum", value), line * 2 + 1)

    run(write, x, y)
    np.testing.assert_array_equal(y, np.stack([x.sum(1), x.max(1)], axis=1))


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_turned_transposes_a_square_of_vectors(size: int) -> None:
    x = np.arange(size * size, dtype=np.float32).reshape(size, size)
    y = np.zeros_like(x)

    def write(k: Function, x: Array, y: Array) -> None:
        lines = [x.load(i * size, size) for i in range(size)]
        for i, line in enumerate(turned(k, lines)):
            y.store(line, i * size)

    run(write, x, y)
    np.testing.assert_array_equal(y, x.T)


def test_shuffle_extract_bits_and_lane_numbers() -> None:
    x = np.array([3, -1, 4, -1, 5, -9, 2, 6], np.float32)
    y, whole = np.zeros(14, np.float32), np.zeros(8, np.int32)
    mask = np.zeros(1, np.int8)

    def write(k: Function, x: Array, y: Array, whole: Array, mask: Array) -> None:
        low, high = x.load(0, 4), x.load(4, 4)
        y.store(k.shuffle(low, high, [7, 0, 0, 4, 3, 5]))
        y.store(k.extract(high, 2), 6)
        y.store(k.splat(x.load(2), 7), 7)
        whole.store(k.lane_numbers(8, "i32", -3) + 5)
        mask.store(k.bits(x.load(0, 8) > 0.0))

    run(write, x, y, whole, mask)
    assert y.tolist() == [6, 3, 3, 5, -1, -9, 2, *[4] * 7]
    assert whole.tolist() == [5 - 3 * i for i in range(8)]
    assert mask.view(np.uint8)[0] == sum(1 << i for i in range(8) if x[i] > 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_arrive_as_they_are_written(dtype: type) -> None:
    info = np.finfo(dtype)
    values = [0.0, -0.0, 0.1, 1 / 3, -2.5, INF, -INF, NAN, float(info.max), float(info.tiny)]
    values += [float(info.smallest_subnormal), 1e38, 3.5e38, -1e300, 2.0**-130]
    y = np.zeros((2, len(values)), dtype)
    scalar = "float" if dtype is np.float32 else "double"

    def write(k: Function, y: Array) -> None:
        for at, value in enumerate(values):
            y.store(k.constant(value, scalar), at)
            y.store(k.extract(k.constant(value, scalar, 4), 3), at + len(values))

    run(write, y)
    with np.errstate(over="ignore"):
        expected = np.array(values).astype(dtype)
    for line in y:
        np.testing.assert_array_equal(line, expected)
        np.testing.assert_array_equal(np.signbit(line), np.signbit(expected))


@pytest.mark.parametrize(("scalar", "letter"), [("i64", "q"), ("i32", "i"), ("i8", "b")])
def test_whole_numbers_wrap_around_as_those_of_the_machine(scalar: str, letter: str) -> None:
    size = struct.calcsize(letter) * 8
    for value in (0, 1, -1, 2 ** (size - 1) - 1, 2 ** (size - 1), 2**size - 1, 0x9E3779B97F4A7C15):
        (wrapped,) = struct.unpack(letter, (value % 2**size).to_bytes(size // 8, "little"))
        assert literal(value, scalar) == str(wrapped)


def test_products_and_sums_round_once_in_fma() -> None:
    x = np.array([1 + 2**-12, -(1 + 2**-11), 1 + 2**-23], np.float32)
    y = np.zeros(1, np.float32)

    def write(k: Function, x: Array, y: Array) -> None:
        y.store(k.fma(x.load(0), x.load(0), x.load(1)))

    run(write, x, y)
    assert y[0] == np.float32(2.0**-24)  # of a square rounded before the sum nothing would be left


def test_vectors_are_loaded_and_stored_at_any_element() -> None:
    x = np.arange(40, dtype=np.float32)
    for lanes in (1, 3, 8, 16, 17):
        y = np.zeros(40, np.float32)

        def write(k: Function, x: Array, y: Array, n: Value, lanes: int = lanes) -> None:
            y.at(n).store(x.at(n + 1).load(2, lanes), 1)

        run(write, x, y, 5)
        expected = np.zeros(40, np.float32)
        expected[6 : 6 + lanes] = x[8 : 8 + lanes]
        np.testing.assert_array_equal(y, expected)


def test_the_stack_keeps_what_is_stored_there_through_a_loop() -> None:
    def write(k: Function, y: Array, n: Value) -> None:
        kept = k.stack("i64", 3)
        for i in range(3):
            kept.store(k.constant(i, "i64"), i)
        with k.range(0, n) as i:
            kept.store(kept.load(i % 3) + 10, i % 3)
        for i in range(3):
            y.store(kept.load(i), i)

    y = np.zeros(3, np.int64)
    run(write, y, 7)
    assert y.tolist() == [30, 21, 22]


def test_a_function_may_call_another() -> None:
    x, y = np.array([2.5], np.float32), np.zeros(1, np.float32)

    def inner(k: Function, x: Array, y: Array, n: Value) -> None:
        y.store(x.load() * k.convert("sitofp", n, "float"))

    def outer(k: Function, x: Array, y: Array, n: Value) -> None:
        k.call("@inner", x.pointer(), y.pointer(), n + 2)

    code = Code()
    code.add("inner", inner, x, y, 0)
    code.add("outer", outer, x, y, 0)
    code.call("outer", x, y, 4)
    assert y[0] == 15.0


def test_the_listing_has_a_line_for_each_loop_condition_and_store_indented_by_depth() -> None:
    k = Function("scale", [("x", "ptr"), ("n", "i64")], "every other row")
    x, n = Array(k, k.parameters["x"], "float"), k.parameters["n"]
    with k.range(0, n, 2) as i:
        with k.range(0, 8) as j, k.when(n > 3):
            x.store(x.load(i * 8 + j) * 2.0, i * 8 + j)
        k.fold(0, 4, [k.constant(0.0, "float")], lambda t, v: [v[0] + x.load(t)])
    lines = k.listing.splitlines()
    assert lines[0] == "scale(ptr x, i64 n):  # every other row"
    loops = [line for line in lines if " for " in f" {line.strip()}"]
    assert [len(line) - len(line.lstrip()) for line in loops] == [2, 4, 4]
    assert loops[0].split(" in ")[1] == "0 .. n step 2:" and loops[1].split(" in ")[1] == "0 .. 8:"
    assert k.llvm.count("\nloop") == len(loops)
    (condition,) = [line for line in lines if line.strip().startswith("if ")]
    (store,) = [line for line in lines if line.strip().startswith("x[") and " = " in line]
    depths = [len(line) - len(line.lstrip()) for line in (loops[1], condition, store)]
    assert depths == [4, 6, 8]
    assert any("at first" in line for line in lines) and any(" next" in line for line in lines)
    assert "%" not in k.listing, "names are shown without LLVM's sigil"
