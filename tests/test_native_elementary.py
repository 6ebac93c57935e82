"""exp, log and tanh of float32 lanes against float64, over all kinds of float32."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from native_running import Code

from gemmc.runtime.native import elementary
from gemmc.runtime.native.dsl import Array, Function, Value
from gemmc.runtime.native.jit import host
from gemmc.runtime.native.lanes import INLINED, LANES

FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "exp": elementary.exp,
    "log": elementary.log,
    "tanh": elementary.tanh,
}
MEANINGS: dict[str, np.ufunc] = {"exp": np.exp, "log": np.log, "tanh": np.tanh}
WIDTHS = sorted({0, 4, 8, host().lanes})  # lanes; 0 is a scalar
SMALLEST = float(np.finfo(np.float32).tiny)
SPECIALS = np.array(
    [
        *(0.0, 1.0, np.inf, 1e-45, 1.1754942e-38, 1.17549435e-38, 3.4028235e38, 0.5, 2.0),
        *(0.625, 0.62499994, 0.70710677, 0.7071068, 88.0, 88.72283, 88.72284, 89.0, 89.00001),
        *(87.33654, 87.33655, 103.27893, 103.97208, 103.97209, 104.0, 150.0, 9.01, 0.34657359),
    ],
    np.float32,
)
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def applied(name: str, width: int) -> Callable[[Function, Array, Array, Value], None]:
    def write(k: Function, x: Array, y: Array, count: Value) -> None:
        with k.range(0, count, max(1, width)) as i:
            y.store(FUNCTIONS[name](x.load(i, width)), i)

    return write


@pytest.fixture(scope="module")
def code() -> Code:
    """All functions in all widths; and what the CPU does in a program, where it flushes to zero."""
    made, x = Code(), np.zeros(16, np.float32)
    for name in FUNCTIONS:
        for width in WIDTHS:
            made.add(f"{name}_{width}", applied(name, width), x, x, 0)

            def flushed(k: Function, x: Array, y: Array, n: Value, of: str = "") -> None:
                mode = k.stack("i32")
                k.call("@flush", mode.pointer())
                k.call(f"@{of}", x.pointer(), y.pointer(), n)
                k.call("@restore", mode.pointer())

            def write(*given, of: str = f"{name}_{width}", flushed=flushed) -> None:
                flushed(*given, of=of)

            made.add(f"{name}_{width}_flushed", write, x, x, 0)
    return made


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Every thousandth of all float32 by their bits, NaN and both signs included, and SPECIALS."""
    bits = np.arange(0, 1 << 32, 1000, dtype=np.uint64).astype(np.uint32)
    everything = np.concatenate([bits.view(np.float32), SPECIALS, -SPECIALS])
    return everything[: len(everything) // 16 * 16].copy()


def run(code: Code, name: str, x: np.ndarray) -> np.ndarray:
    y = np.full_like(x, 1234.5)
    code.call(name, x, y, len(x))
    return y


def meant(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What it is in float64, and that rounded to float32."""
    with np.errstate(all="ignore"):
        exact = MEANINGS[name](x.astype(np.float64))
        return exact, exact.astype(np.float32)


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distances in units in the last place of the exact result as a float32."""
    return np.abs(got - exact) / np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)


def stated(name: str) -> float:
    """The error in ulp that the module's docstring claims."""
    match = re.search(rf"{name} (\d\.\d+) ulp", elementary.__doc__ or "")
    assert match, elementary.__doc__
    return float(match[1])


@each_function
def test_the_error_is_at_most_what_the_docstring_says(
    name: str, code: Code, sample: np.ndarray
) -> None:
    got, (exact, rounded) = run(code, f"{name}_{host().lanes}", sample), meant(name, sample)
    assert stated(name) <= 2.5
    for low, high, allowed in ((SMALLEST, np.inf, stated(name)), (0.0, SMALLEST, 1.0)):
        some = np.isfinite(rounded) & (np.abs(rounded) >= low) & (np.abs(rounded) < high)
        errors = ulps(got[some], exact[some])
        worst = int(np.argmax(errors))
        assert errors[worst] <= allowed, f"at {sample[some][worst]!r}, {low} to {high}"


@pytest.mark.slow
@each_function
def test_the_error_is_that_for_every_float32(name: str, code: Code) -> None:
    worst = 0.0
    for start in range(0, 1 << 32, 1 << 22):
        bits = np.arange(start, start + (1 << 22), dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        got, (exact, rounded) = run(code, f"{name}_{host().lanes}", x), meant(name, x)
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(rounded))
        some = np.isfinite(rounded) & (np.abs(rounded) >= SMALLEST)
        worst = max(worst, np.max(ulps(got[some], exact[some]), initial=0.0))
    assert stated(name) - 0.02 <= worst <= stated(name)


@each_function
def test_nan_infinities_and_signs_are_numpys(name: str, code: Code, sample: np.ndarray) -> None:
    got, (_, rounded) = run(code, f"{name}_{host().lanes}", sample), meant(name, sample)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(rounded))
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(rounded))
    numbers = ~np.isnan(rounded)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(rounded[numbers]))


@each_function
def test_values_at_particular_points_are_exact(name: str, code: Code) -> None:
    points = {
        "exp": [(0, 1), (-0.0, 1), (np.inf, np.inf), (-np.inf, 0), (89, np.inf), (-104, 0)],
        "log": [(1, 0), (0, -np.inf), (-0.0, -np.inf), (np.inf, np.inf), (-1e-45, np.nan)],
        "tanh": [(0, 0), (-0.0, -0.0), (np.inf, 1), (-np.inf, -1), (1e-45, 1e-45), (20, 1)],
    }[name]
    x, expected = np.resize(np.array(points, np.float32), (16, 2)).T.copy()
    for width in WIDTHS:
        got = run(code, f"{name}_{width}", x)
        np.testing.assert_array_equal(got, expected)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


@each_function
def test_scalars_and_vectors_of_any_width_agree_in_every_bit(
    name: str, code: Code, sample: np.ndarray
) -> None:
    some = sample[: len(sample) // 160 * 16 * 10].reshape(-1, 10)[:, 3].copy()
    some = some[: len(some) // 16 * 16]
    scalar, *vectors = (run(code, f"{name}_{width}", some) for width in WIDTHS)
    for vector in vectors:
        np.testing.assert_array_equal(vector, scalar)  # which NaN it is may differ


@each_function
def test_flushing_to_zero_changes_results_below_the_normal_numbers_only(
    name: str, code: Code, sample: np.ndarray
) -> None:
    if not host().triple.startswith("x86_64"):
        pytest.skip("other CPUs flush operands as well")
    got = run(code, f"{name}_{host().lanes}_flushed", sample)
    usual = run(code, f"{name}_{host().lanes}", sample)
    tiny = np.abs(usual) < SMALLEST
    np.testing.assert_array_equal(got[~tiny], usual[~tiny])
    assert np.all((got[tiny] == 0.0) | (got[tiny] == usual[tiny]))


def test_exp_and_log_undo_each_other(code: Code) -> None:
    x = np.linspace(0.01, 80.0, 1600, dtype=np.float32)
    width = host().lanes
    back = run(code, f"log_{width}", run(code, f"exp_{width}", x))
    # an ulp of exp(x) is at most 1.2e-7 of it, and moves its logarithm by that much
    np.testing.assert_allclose(back, x, rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("width", WIDTHS)
def test_functions_that_are_called_are_those_that_are_written_out(width: int) -> None:
    """From the third use on, in every bit; and those of doubles beside them are still libm's."""
    x = np.linspace(0.01, 3.0, 64, dtype=np.float32)
    doubles, uses = x.astype(np.float64), 4
    names = [name for name in FUNCTIONS for _ in range(uses)]

    def write(k: Function, x: Array, y: Array, twice: Array, z: Array) -> None:
        with k.range(0, 64, max(1, width)) as i:
            for number, name in enumerate(names):
                y.store(getattr(LANES, name)(x.load(i, width)), i + number * 64)
                z.store(getattr(LANES, name)(twice.load(i, width)), i + number * 64)

    y, z = np.empty((len(names), 64), np.float32), np.empty((len(names), 64))
    code = Code()
    code.add("all", write, x, y, doubles, z)
    for name in FUNCTIONS:
        code.add(f"{name}_alone", applied(name, width), x, y, 0)
        assert code.text().count(f"define internal float @{name}.0(") == (width == 0)
        assert code.text().count(f"call float @{name}.0(") == (uses - INLINED) * (width == 0)
    code.call("all", x, y, doubles, z)
    for name, got, exact in zip(names, y, z, strict=True):
        np.testing.assert_array_equal(got, run(code, f"{name}_alone", x))
        np.testing.assert_allclose(exact, MEANINGS[name](doubles), rtol=1e-15)
