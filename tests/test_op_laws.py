"""Every op passes these laws by being listed, with no code of its own.

Each example of each op is drawn from its domain: the shape rule against the meaning, the gradient
against finite differences in float64, the kernels of both runtimes against the meaning, in an arena
full of rubbish.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from one_op import EXAMPLES, GENERATED, Example, draw, joined, results_of
from running import POISONS, compile_program

from gemmc.ir import OPS, Builder, CompileError, Graph, Node, TensorType, interpret, verify
from gemmc.ir.types import DTYPES, FLOATS, N
from gemmc.passes.autodiff import autodiff
from gemmc.passes.pipeline import Program
from gemmc.passes.plan import Loop
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

ROWS = 7  # a prime: every tile of more than one row leaves a ragged last one
WITHOUT_EXAMPLES = {
    "input": "is a name, and computes nothing",
    "item": "takes a tuple, which no example can write: the ops with several results cover it",
    "fused": "carries a graph: test_sweeps.py and the laws of the passes cover it",
    "region": "carries a graph: the kernels in tiles below and the laws of the passes cover it",
    "shift_matmul_weight_grad": "needs zeros where no window starts: conv2d_weight_grad covers it",
}
TARGETS = {
    "im2col": Target(conv_form="im2col"),
    "shift": Target(conv_form="shift"),
    "tiles of a row": Target(cache_bytes=1),
    "tiles of a few small rows": Target(cache_bytes=150),
    "tiles of a few rows": Target(cache_bytes=1500),
    "shift in tiles": Target(conv_form="shift", cache_bytes=2500),
}
HOST = native_target()
NATIVE_TARGETS = {
    "chosen forms": HOST,
    "tiles of a row": replace(HOST, cache_bytes=1),
    "tiles of a few rows": replace(HOST, cache_bytes=1500, shards=2),
    "BLAS over patches": replace(HOST, products="blas", conv_form="im2col", shards=2),
    "BLAS over shifted planes": replace(HOST, products="blas", conv_form="shift", cache_bytes=2500),
}
SINGLE = ("shift_matmul", *GENERATED)  # sgemm, and what lower makes of float32 alone
# relative and absolute, by itemsize: sums of at most 100 products of numbers up to 4, reordered
TOLERANCES = {4: (1e-5, 5e-5), 8: (1e-13, 1e-12)}

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def test_every_op_has_an_example_or_a_reason_to_have_none() -> None:
    assert {op.name for op in OPS.values() if not op.examples} == set(WITHOUT_EXAMPLES)


@each_example
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_the_shape_rule_agrees_with_the_meaning(example: Example, wide: bool) -> None:
    graph = (example.in_float64() if wide else example).graph()
    verify(graph)
    for rows in (1, 2, 3, 4):
        arrays = draw_inputs(graph, example, seed=rows, rows=rows)
        for name, y in interpret(graph, arrays, rows).items():
            t = graph.outputs[name].tensor
            assert (y.shape, y.dtype) == (t.concrete(rows), t.numpy)


@each_example
def test_what_the_shape_rule_accepts_runs_and_the_rest_is_a_compile_error(example: Example) -> None:
    accepted: list[tuple[Example, Graph]] = []
    for mutant in mutants(example):
        try:
            accepted.append((mutant, mutant.graph()))
        except CompileError:
            continue
    if not accepted:
        return
    graph = joined([g for _, g in accepted])  # compiled together, which saves a minute
    arrays = draw_inputs(graph, example, seed=1, rows=3)
    expected = interpret(graph, arrays, 3)
    for target in (HOST,) if example.op.name in GENERATED else (HOST, CPU):
        got = compile_program(Program(graph, 3, target=target)).run(arrays, 3)
        for name, y in expected.items():
            mutant, _ = accepted[int(name.split(".")[0])]
            check_close(got[name], y, f"{mutant.types} {mutant.attrs} for {target}")


@each_example
def test_operands_too_many_or_too_few_are_a_compile_error(example: Example) -> None:
    with pytest.raises(CompileError, match="operand"):
        replace(example, types=(*example.types, TensorType((3, 4), "f32"))).graph()
    if example.types:
        with pytest.raises(CompileError, match="operand"):
            replace(example, types=example.types[:-1]).graph()


@pytest.mark.parametrize("name", sorted(OPS.keys() - {"input", "item", "fused", "region"}))
def test_an_op_does_not_take_several_results_for_one_operand(name: str) -> None:
    example = next((e for e in EXAMPLES if e.op.name == name and e.types), None)
    if example is None:
        return
    b = Builder()
    x = b.input("x", TensorType((N, 2, 4, 4), "f32"))
    pooled = b.max_pool2d(x, kernel=(2, 2), stride=(2, 2))
    with pytest.raises(CompileError, match="item"):
        b.make(name, [pooled] * len(example.types), example.attrs)


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.op.differentiable and e.float_operands], ids=str
)
def test_the_gradient_agrees_with_finite_differences(example: Example) -> None:
    wide, rows = example.in_float64(), 3
    forward = weighted_sum(wide)
    wrt = [f"x{i}" for i in wide.float_operands]
    backward = autodiff(forward, wrt, {})
    verify(backward)
    rng = np.random.default_rng(5)
    arrays = {n.name: draw(n.tensor, rng, rows, wide.op.domain) for n in forward.inputs}
    gradients = interpret(backward, arrays, rows)
    for name in wrt:
        for _ in range(4):  # a wrong gradient is orthogonal to no random direction
            direction = rng.normal(size=arrays[name].shape)
            ahead, behind = (
                interpret(forward, {**arrays, name: arrays[name] + h * direction}, rows)["loss"]
                for h in (1e-6, -1e-6)
            )
            # rounding: 1e-16 of the loss over 2e-6
            np.testing.assert_allclose(
                np.vdot(gradients[f"{name}.grad"], direction),
                (ahead - behind) / 2e-6,
                rtol=1e-6,
                atol=1e-6,
                err_msg=name,
            )


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.op.name not in GENERATED], ids=str)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_the_kernel_computes_the_meaning(example: Example, target: Target, wide: bool) -> None:
    graph = (example.in_float64() if wide else example).graph()
    compiled = compile_program(Program(graph, ROWS, target=target))
    for rows in (1, 2, ROWS - 2, ROWS):
        arrays = draw_inputs(graph, example, seed=rows, rows=rows)
        expected = interpret(graph, arrays, rows)
        one, other = (compiled.run(arrays, rows, poison) for poison in POISONS)
        for name, y in expected.items():
            check_close(one[name], y, f"{name} of {rows} rows")
            assert one[name].tobytes() == other[name].tobytes(), "depends on rubbish in the arena"


@pytest.mark.parametrize("target", NATIVE_TARGETS.values(), ids=NATIVE_TARGETS)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_so_does_the_native_kernel(target: Target, wide: bool) -> None:
    """All examples are compiled together: alone they would cost a tenth of a second each."""
    some = [e.in_float64() for e in EXAMPLES if e.op.name not in SINGLE] if wide else EXAMPLES
    compiled = compile_program(Program(joined([e.graph() for e in some]), ROWS, target=target))
    for rows in (1, 2, ROWS - 2, ROWS):
        arrays, expected = {}, {}
        for i, example in enumerate(some):
            graph = example.graph()
            given = draw_inputs(graph, example, seed=rows, rows=rows)
            arrays.update((f"{i}.{k}", a) for k, a in given.items())
            expected.update((f"{i}.{k}", y) for k, y in interpret(graph, given, rows).items())
        one, other = (compiled.run(arrays, rows, poison) for poison in POISONS)
        for name, y in expected.items():
            about = f"{some[int(name.split('.')[0])]}: {name} of {rows} rows"
            check_close(one[name], y, about)
            assert one[name].tobytes() == other[name].tobytes(), f"{about} depends on rubbish"


def test_the_targets_above_make_loops_of_whole_and_of_ragged_tiles() -> None:
    tiles = {
        (e.op.name, part.tile)
        for e in EXAMPLES
        if e.op.name not in GENERATED
        for target in TARGETS.values()
        for part in compile_program(Program(e.graph(), ROWS, target=target)).plan.parts
        if isinstance(part, Loop)
    }
    for name in ("conv2d", "conv2d_weight_grad", "conv2d_input_grad", "max_pool2d", "sum"):
        assert {1} < {tile for op, tile in tiles if op == name}, name


def mutants(example: Example) -> Iterator[Example]:
    """The same call with one operand of another shape or dtype, or one number in the attributes."""
    for i, t in enumerate(example.types):
        for other in _other_types(t):
            types = (*example.types[:i], other, *example.types[i + 1 :])
            yield replace(example, types=types)
    attrs = example.op.complete(example.attrs)
    for key, value in attrs.items():
        for changed in _other_numbers(value):
            yield replace(example, attrs={**attrs, key: changed})


def _other_types(t: TensorType) -> Iterator[TensorType]:
    for dtype in DTYPES:
        if dtype != t.dtype:
            yield TensorType(t.shape, dtype)
    yield t.like(*t.shape, 2)
    yield t.like(1, *t.shape[1:]) if t.shape else t.like(1)
    yield t.like(N, *t.shape[1:]) if t.shape else t.like(N)
    for i, d in enumerate(t.shape):
        yield t.like(*t.shape[:i], *t.shape[i + 1 :])
        if isinstance(d, int):
            yield t.like(*t.shape[:i], d + 1, *t.shape[i + 1 :])
            yield t.like(*t.shape[:i], 1, *t.shape[i + 1 :])


def _other_numbers(value: object) -> Iterator[object]:
    if isinstance(value, tuple):
        for i, entry in enumerate(value):
            for other in _other_numbers(entry):
                yield (*value[:i], other, *value[i + 1 :])
        yield value[:-1]
        yield (*value, 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from (-1, 0, value + 1, value + 40)


def weighted_sum(example: Example) -> Graph:
    """The op's first result times an input `weights`, summed: a loss that no entry drops out of."""
    b = Builder()
    inputs = [b.input(f"x{i}", t) for i, t in enumerate(example.types)]
    y = results_of(b, b.make(example.op.name, inputs, example.attrs))[0]
    y = y if y.dtype in FLOATS else b.cast(y, dtype="f64")
    weights = b.input("weights", y.tensor)
    return b.graph("loss", [*inputs, weights], {"loss": total(b, b.mul(y, weights))})


def total(b: Builder, x: Node) -> Node:
    """The sum of all entries."""
    return b.sum(x, axes=tuple(range(len(x.shape)))) if x.shape else x


def draw_inputs(graph: Graph, example: Example, seed: int, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n.name: draw(n.tensor, rng, rows, example.op.domain) for n in graph.inputs}


def check_close(got: np.ndarray, expected: np.ndarray, message: str) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), message
    if expected.dtype.kind == "f":
        rtol, atol = TOLERANCES[expected.itemsize]
        np.testing.assert_allclose(got, expected, rtol, atol, err_msg=message)
    else:
        np.testing.assert_array_equal(got, expected, err_msg=message)
