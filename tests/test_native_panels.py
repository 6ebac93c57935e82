"""Products by a right operand in panels of columns: panel_matmul, and where it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import HOST, Cases, check
from native_running import a_cpu_without

import gemmc
from gemmc import CrossEntropyLoss, Executable, Linear, ReLU, Sequential
from gemmc.ir import Builder, Node, TensorType
from gemmc.ir.types import N
from gemmc.passes.forms import FORMS, LARGE, MANY_ROWS, PANEL, forms, panel_width
from gemmc.runtime.native.target import native_target

LANES = HOST.lanes
SIZES = (
    *((1, 1, 1, LANES), (1, 37, 2, 4 * LANES), (1, 64, 3, LANES), (2, 5, 5, 3 * LANES)),
    *((6, 9, 2, 2 * LANES), (1, 131, 7, 2 * LANES), (1, 16, 2, 5)),
)


def panel_cases(s: Cases, sizes: Sequence[tuple[int, int, int, int]]) -> None:
    """For each (leading, terms, panels, width): alone, and with what follows."""
    b = s.b
    for inner, terms, panels, width in sizes:
        middle = (inner,) if inner > 1 else ()
        a, text = s.input(N, *middle, terms), f"[N, {middle}, {terms}], {panels} of {width}"
        y = b.panel_matmul(a, s.input(panels, terms, width), form="panels")
        s.output(text, y)
        z = b.panel_matmul(a, s.input(panels, terms, width), form="panels")
        bias = b.broadcast(s.input(panels * width), shape=z.shape, axes=(len(z.shape) - 1,))
        s.output(f"{text} and bias", b.relu(b.add(z, bias)))
        fixed = s.input(inner + 1, terms)
        y = b.panel_matmul(fixed, s.input(panels, terms, width), form="panels")
        s.output(f"[{inner + 1}, {terms}]", y)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("most", "rows"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 4, 5)), (13, (12, 13)), (29, (28, 29)), (65, (64, 65))],
)
def test_products_in_panels(most: int, rows: Sequence[int], threads: int) -> None:
    s = Cases(most)
    panel_cases(s, SIZES)
    check(s.graph(), most, rows, HOST, threads)


@pytest.mark.parametrize("feature", ["+avx512f", "+avx2"])
def test_products_in_panels_on_cpus_with_less(
    feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_cpu_without(monkeypatch, feature):
        s = Cases()
        panel_cases(s, SIZES)
        check(s.graph(), 9, (1, 9), native_target(), threads=2)


def product(width: int, terms: int, transposed: bool) -> Node:
    b = Builder()
    x = b.input("x", TensorType((N, terms), "f32"))
    w = b.input("w", TensorType((width, terms) if transposed else (terms, width), "f32"))
    return b.matmul(x, w, transpose_b=transposed)


def test_panels_are_for_weights_that_are_large_and_stay() -> None:
    enough = LARGE // 4 // (8 * LANES)
    for transposed in (False, True):
        wide = product(8 * LANES, enough, transposed)
        assert forms(HOST, wide, 1, once=True)[0] == "panels"
        assert "panels" not in forms(HOST, wide, 1, once=False)
        few = product(8 * LANES, enough - 1, transposed)
        assert "panels" not in forms(HOST, few, 1, once=True)
        odd = product(8 * LANES + 1, 2 * enough, transposed)
        assert "panels" not in forms(HOST, odd, 1, once=True)
        for rows in (MANY_ROWS - 1, MANY_ROWS):
            chosen = forms(HOST, wide, rows, once=True)[0] == "panels"
            assert chosen == (transposed or rows < MANY_ROWS)
        for blas in (None, "blas"):
            target = replace(HOST, generated=False, products=blas)
            assert "panels" not in forms(target, wide, 1, once=True)
    assert "panels" in FORMS


@pytest.mark.parametrize(
    ("vectors", "panel"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (10, 2), (12, 4)]
)
def test_a_panel_has_as_many_whole_vectors_as_divide_the_columns(vectors: int, panel: int) -> None:
    assert panel <= PANEL
    assert panel_width(HOST, product(vectors * LANES, 8, True)) == panel * LANES
    assert panel_width(HOST, product(vectors * LANES + LANES // 2, 8, True)) == 0


def compiled(model: Sequential, rows: int, runtime: str, threads: int = 1) -> Executable:
    return gemmc.compile(model, (520,), rows, runtime=runtime, threads=threads)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("features", [16, 80, 96, 100, 512])
def test_models_predict_as_the_reference_does(features: int, rows: int) -> None:
    layers = [Linear(520, features), ReLU(), Linear(features, 256), ReLU(), Linear(256, 3)]
    model = Sequential(layers, CrossEntropyLoss(), gemmc.SGD(0.1))
    native = [compiled(model, rows, "native", threads) for threads in (1, 2)]
    text = native[0].ir("order", "predict")
    assert ("panel_matmul" in text) == (features > 16)
    reference = compiled(model, rows, "reference")
    rng = np.random.default_rng(features)
    for count in (rows, 1, 2 * rows + 1):
        x = rng.standard_normal((count, 520), np.float32)
        expected = reference(x)
        for exe in native:
            np.testing.assert_allclose(exe(x), expected, rtol=1e-4, atol=1e-5)
        assert native[0](x).tobytes() == native[1](x).tobytes()
        native[0].train_step(x[:rows], np.zeros(min(count, rows), int))
