"""The kernels of `fused`: whatever shapes meet in a sweep, they compute what its body means.

Each graph below becomes one sweep. The rows are chosen so that for the blas runtime there are less
than a chunk of elements, exactly one, and several with a ragged last one.
"""

from __future__ import annotations

import numpy as np
import pytest
from one_op import draw
from running import POISONS, compile_program

from gemmc.ir import OPS, Graph, interpret, parse
from gemmc.ir.xp import BINARY, COMPARE, UNARY, NumpyNamespace
from gemmc.passes.pipeline import Program
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target
from gemmc.runtime.recorder import RecordingNamespace, Var
from gemmc.runtime.sweep import CHUNK

SWEEPS = {
    "a bias a channel": """
        (%x: f32[N,8,8,3], %b: f32[3]) {
          %0: f32[N,8,8,3] = broadcast %b {shape=(N, 8, 8, 3), axes=(3,)}
          %1: f32[N,8,8,3] = add %x, %0
          %2: f32[N,8,8,3] = relu %1
          return z=%2""",
    "a bias as wide as a row": """
        (%x: f32[N,4096], %b: f32[4096]) {
          %0: f32[N,4096] = broadcast %b {shape=(N, 4096), axes=(1,)}
          %1: f32[N,4096] = sub %0, %x
          return z=%1""",
    "rows wider than a chunk": """
        (%x: f32[N,20000], %b: f32[20000]) {
          %0: f32[N,20000] = broadcast %b {shape=(N, 20000), axes=(1,)}
          %1: f32[N,20000] = mul %0, %x
          return z=%1""",
    "a number a row": """
        (%x: f32[N,64], %r: f32[N]) {
          %0: f32[N,64] = broadcast %r {shape=(N, 64), axes=(0,)}
          %1: f32[N,64] = mul %x, %0
          return z=%1""",
    "a number a row and a bias": """
        (%x: f32[N,64], %r: f32[N], %b: f32[64]) {
          %0: f32[N,64] = broadcast %r {shape=(N, 64), axes=(0,)}
          %1: f32[N,64] = mul %x, %0
          %2: f32[N,64] = broadcast %b {shape=(N, 64), axes=(1,)}
          %3: f32[N,64] = add %1, %2
          return z=%3""",
    "a number for each entry in the middle": """
        (%x: f32[N,8,8], %b: f32[8]) {
          %0: f32[N,8,8] = broadcast %b {shape=(N, 8, 8), axes=(1,)}
          %1: f32[N,8,8] = add %x, %0
          return z=%1""",
    "the first and the last axis": """
        (%x: f32[N,8,8], %b: f32[N,8]) {
          %0: f32[N,8,8] = broadcast %b {shape=(N, 8, 8), axes=(0, 2)}
          %1: f32[N,8,8] = add %x, %0
          return z=%1""",
    "biases of different length": """
        (%x: f32[N,8,8], %a: f32[8], %b: f32[8,8], %s: f32[]) {
          %0: f32[N,8,8] = broadcast %a {shape=(N, 8, 8), axes=(2,)}
          %1: f32[N,8,8] = broadcast %b {shape=(N, 8, 8), axes=(1, 2)}
          %2: f32[N,8,8] = broadcast %s {shape=(N, 8, 8)}
          %3: f32[N,8,8] = mul %x, %0
          %4: f32[N,8,8] = add %3, %1
          %5: f32[N,8,8] = mul %4, %2
          return z=%5""",
    "a bias and a number for all": """
        (%x: f32[N,16], %b: f32[16], %s: f32[]) {
          %0: f32[N,16] = broadcast %b {shape=(N, 16), axes=(1,)}
          %1: f32[N,16] = broadcast %s {shape=(N, 16)}
          %2: f32[N,16] = sub %x, %0
          %3: f32[N,16] = div %2, %1
          return z=%3""",
    "one operand twice, small and in two places": """
        (%x: f32[N,16,16], %b: f32[16]) {
          %0: f32[N,16,16] = broadcast %b {shape=(N, 16, 16), axes=(1,)}
          %1: f32[N,16,16] = broadcast %b {shape=(N, 16, 16), axes=(2,)}
          %2: f32[N,16,16] = mul %x, %0
          %3: f32[N,16,16] = add %2, %1
          return z=%3""",
    "numbers without a batch": """
        (%x: f64[], %y: f64[]) {
          %0: f64[] = mul %x, %y
          %1: f64[] = exp %0
          return z=%1""",
    "a parameter": """
        (%x: f32[130,256], %y: f32[130,256], %s: f64[]) {
          %0: f32[] = cast %s {dtype='f32'}
          %1: f32[130,256] = broadcast %0 {shape=(130, 256)}
          %2: f32[130,256] = mul %y, %1
          %3: f32[130,256] = sub %x, %2
          return z=%3""",
    "a choice, both branches computed": """
        (%x: f32[N,64], %y: f32[N,64]) {
          %0: bool[N,64] = less %x, %y
          %1: f32[N,64] = sqrt %x
          %2: f32[N,64] = neg %y
          %3: f32[N,64] = where %0, %1, %2
          return z=%3""",
    "choices of a constant": """
        (%x: f32[N,64], %y: f32[N,64]) {
          %0: bool[N,64] = less_equal %x, %y
          %1: f32[N,64] = full {shape=(N, 64), value=0.0}
          %2: f32[N,64] = full {shape=(N, 64), value=-0.0}
          %3: f32[N,64] = where %0, %x, %1
          %4: f32[N,64] = where %0, %1, %y
          %5: f32[N,64] = where %0, %2, %3
          %6: f32[N,64] = where %0, %1, %2
          %7: f32[N,64] = div %4, %6
          %8: f32[N,64] = div %5, %6
          return z=%7, w=%8""",
    "several results, one of which goes on": """
        (%x: f32[N,64], %y: f32[N,64]) {
          %0: f32[N,64] = mul %x, %y
          %1: f32[N,64] = tanh %0
          %2: bool[N,64] = equal %0, %1
          %3: f32[N,64] = cast %2 {dtype='f32'}
          %4: f32[N,64] = sub %x, %1
          return a=%0, b=%1, c=%2, d=%3, e=%4""",
    "two dtypes": """
        (%x: f32[N,64], %y: f64[N,64]) {
          %0: f64[N,64] = cast %x {dtype='f64'}
          %1: f64[N,64] = mul %0, %y
          %2: f32[N,64] = cast %1 {dtype='f32'}
          %3: f32[N,64] = add %2, %x
          return z=%3, w=%1""",
    "many values at once": """
        (%x: f32[N,64], %y: f32[N,64]) {
          %0: f32[N,64] = exp %x
          %1: f32[N,64] = exp %y
          %2: f32[N,64] = tanh %x
          %3: f32[N,64] = tanh %y
          %4: f32[N,64] = mul %0, %3
          %5: f32[N,64] = mul %1, %2
          %6: f32[N,64] = sub %4, %5
          %7: f32[N,64] = mul %6, %0
          %8: f32[N,64] = add %7, %1
          return z=%8""",
}
ROWS = (1, 3, CHUNK // 64, 2 * CHUNK // 64 + 7)


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("as_written", [False, True], ids=["simplified", "as written"])
@pytest.mark.parametrize("target", [native_target(), CPU], ids=["native", "blas"])
def test_a_sweep_computes_its_body(name: str, as_written: bool, target: Target) -> None:
    graph = graph_of(name)
    if as_written:
        graph = parse(as_fused(str(graph)))
    compiled = compile_program(Program(graph, ROWS[-1], target=target))
    assert not as_written or [s.node.op for s in compiled.plan.steps()] == ["fused"]
    for rows in ROWS[:2] if "20000" in SWEEPS[name] else ROWS:
        rng = np.random.default_rng(rows)
        arrays = {n.name: draw(n.tensor, rng, rows, (0.5, 2.0)) for n in graph.inputs}
        expected = interpret(graph, arrays, rows)
        for poison in POISONS:
            got = compiled.run(arrays, rows, poison)
            for key, y in expected.items():
                # blas: the same ufuncs, but hoisted ones may see the operands in another order;
                # native: functions within 3 ulp, which numbers up to 60 in a difference magnify
                atol = 3e-5 if target.generated else 0.0
                np.testing.assert_allclose(got[key], y, 1e-6, atol, err_msg=f"{key} of {rows}")


def test_a_recording_offers_exactly_what_numpy_offers() -> None:
    methods = [
        {n for n in vars(c) if not n.startswith("_")} for c in (NumpyNamespace, RecordingNamespace)
    ]
    assert methods[0] == methods[1] == {"where", "cast", "constant"}
    numpy, recording = NumpyNamespace(), RecordingNamespace()
    for name in (*UNARY, *BINARY, *COMPARE):
        assert callable(getattr(numpy, name)) and callable(getattr(recording, name))
    for xp in (numpy, recording):
        with pytest.raises(AttributeError, match="xp has no 'arctan'"):
            _ = xp.arctan


@pytest.mark.parametrize("name", [*UNARY, *BINARY, *COMPARE])
def test_a_recorded_call_has_the_dtype_that_numpy_gives(name: str) -> None:
    count = 1 if name in UNARY else 2
    xp = RecordingNamespace()
    for dtype in (np.float32, np.float64):
        made = getattr(NumpyNamespace(), name)(*[np.ones(2, dtype)] * count)
        noted = getattr(xp, name)(*[Var(np.dtype(dtype), operand=0)] * count)
        assert noted.dtype == made.dtype


def test_every_pointwise_op_can_be_recorded() -> None:
    for op in OPS.values():
        if op.pointwise:
            args = [
                Var(np.dtype(bool if k == "b" else np.float32), operand=0) for k in op.kinds or ""
            ]
            attrs = dict.fromkeys(op.attrs, "f64")
            made = op.evaluate(RecordingNamespace(), *args, **attrs)
            assert isinstance(made, Var), op.name


def graph_of(name: str) -> Graph:
    return parse(f"graph sweep{SWEEPS[name].strip()}\n}}")


def as_fused(text: str) -> str:
    """The same graph with its whole body in one `fused`."""
    header, *body, results, _ = text.split("\n")
    graph = parse(text)
    inside = header.removeprefix("graph sweep")
    operands = ", ".join(f"%{n.name}" for n in graph.inputs)
    types = [str(n.type) for n in graph.outputs.values()]
    t = types[0] if len(types) == 1 else f"({', '.join(types)})"
    lines = [header, f"%0: {t} = fused {operands} {inside}", *body, results, "}"]
    if len(types) == 1:
        lines.append(f"return {next(iter(graph.outputs))}=%0")
    else:
        lines += [f"%{i + 1}: {u} = item %0 {{index={i}}}" for i, u in enumerate(types)]
        lines.append("return " + ", ".join(f"{k}=%{i + 1}" for i, k in enumerate(graph.outputs)))
    return "\n".join([*lines, "}"])
