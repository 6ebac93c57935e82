"""What holds for every pass on every graph: the meaning stays, and the input is left alone.

The graphs are those of the golden texts, of the programs of many models, and random ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from broken_passes import Change, rebuilt
from golden_texts import GOLDEN, Golden
from programs import MODELS, draw_inputs, program, widened
from random_graphs import random_graph
from random_models import random_case
from running import POISONS, compile_program

from gemmc import Adam
from gemmc.frontend.trace import trace_update
from gemmc.ir import CompileError, Graph, VerifyError, interpret, parse, verify
from gemmc.ir.types import N
from gemmc.passes import pipeline
from gemmc.passes.autodiff import autodiff
from gemmc.passes.fuse import fuse
from gemmc.passes.layout import Layout, layout
from gemmc.passes.lower import lower
from gemmc.passes.pipeline import PIPELINE, Program, check_meaning, in_float64, run_passes
from gemmc.passes.simplify import simplify
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

ROWS = 5
HOST = native_target()
TARGETS = {
    "chosen forms": CPU,
    "native": HOST,
    "im2col in tiles": Target(conv_form="im2col", cache_bytes=4000),
    "native in tiles of a row": replace(HOST, cache_bytes=1),
    "shift in tiles of a row": Target(conv_form="shift", cache_bytes=1),
    "native with BLAS": replace(HOST, products="blas", conv_form="im2col", cache_bytes=4000),
}
RANDOM_GRAPHS = range(60)
RANDOM_MODELS = range(12)
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=str)


@each_target
@pytest.mark.parametrize("model", MODELS)
def test_no_pass_changes_what_a_training_step_means(model: str, target: Target) -> None:
    check_passes(program("step", MODELS[model](), ROWS, target))


@pytest.mark.parametrize("target", [CPU, HOST], ids=["blas", "native"])
@pytest.mark.parametrize("name", ["evaluate", "predict", "grads"])
@pytest.mark.parametrize("model", MODELS)
def test_no_pass_changes_what_another_program_means(model: str, name: str, target: Target) -> None:
    check_passes(program(name, MODELS[model](), ROWS, target))


@pytest.mark.parametrize("seed", RANDOM_MODELS)
def test_no_pass_changes_what_a_random_model_means(seed: int) -> None:
    case = random_case(seed, Adam())
    check_passes(program("step", (case.model, case.input_shape), ROWS, target_for(seed)))


@pytest.mark.parametrize("seed", RANDOM_GRAPHS)
def test_no_pass_changes_what_a_random_graph_means(seed: int) -> None:
    check_passes(random_program(seed, target_for(seed)))


@pytest.mark.parametrize("model", [name for name in MODELS if name != "tied"])
def test_a_training_step_uses_weights_as_they_are_stored(model: str) -> None:
    check_weights(program("step", MODELS[model](), ROWS))


@pytest.mark.parametrize("seed", RANDOM_MODELS)
def test_so_does_that_of_a_random_model(seed: int) -> None:
    case = random_case(seed, Adam())
    check_weights(program("step", (case.model, case.input_shape), ROWS))


@each_golden
def test_no_pass_changes_what_a_golden_text_means(golden: Golden) -> None:
    before, after = parse(golden.before), parse(golden.after)
    packed = (
        {k: Layout(*form) for k, form in golden.options.items()} if golden.run == "pack" else {}
    )
    check_meaning(golden.run, before, after, packed)


@pytest.mark.parametrize("seed", RANDOM_GRAPHS)
def test_the_gradient_of_a_random_graph_agrees_with_finite_differences(seed: int) -> None:
    graph = in_float64(random_graph(seed))
    wrt = tuple(n.name for n in graph.inputs if n.dtype == "f64")
    backward = autodiff(graph, wrt, {})
    rng, arrays = np.random.default_rng(seed), draw_inputs(graph, 3, seed)
    gradients = interpret(backward, arrays)
    for name in wrt:
        direction = rng.normal(size=arrays[name].shape)
        ahead, behind = (
            interpret(graph, {**arrays, name: arrays[name] + h * direction})["loss"]
            for h in (1e-6, -1e-6)
        )
        slope = np.vdot(gradients[f"{name}.grad"], direction)
        atol = 1e-7 + 1e-9 * abs(ahead)  # rounding: 1e-16 of the loss over 2e-6
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, 1e-5, atol, err_msg=name)


@pytest.mark.parametrize("seed", RANDOM_GRAPHS)
def test_a_random_graph_runs_as_it_is_interpreted(seed: int) -> None:
    compiled = compile_program(random_program(seed, target_for(seed)))
    graph = compiled.differentiated
    for rows in (1, ROWS):
        arrays = draw_inputs(graph, rows, seed)
        expected = interpret(in_float64(graph), widened(arrays), rows)
        one, other = (compiled.run(arrays, rows, poison) for poison in POISONS)
        for key, y in expected.items():
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
            # float32 against float64, through up to 15 layers
            np.testing.assert_allclose(one[key], y, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("seed", RANDOM_GRAPHS[::3])
def test_a_pass_has_nothing_left_to_do_on_what_it_made(seed: int) -> None:
    check_idempotence(random_program(seed, target_for(seed)))


@pytest.mark.parametrize("target", [CPU, HOST], ids=["blas", "native"])
@pytest.mark.parametrize("model", MODELS)
def test_nor_on_the_training_step_of_a_model(model: str, target: Target) -> None:
    check_idempotence(program("step", MODELS[model](), ROWS, target))


@pytest.mark.parametrize("target", [CPU, HOST], ids=["blas", "native"])
def test_the_pipeline_passes_its_own_check(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMC_CHECK", "2")
    run_passes(program("step", MODELS["cnn"](), ROWS, target))


SABOTAGE: dict[str, Change] = {
    "another op": lambda b, n: b.sub(*n.inputs) if n.op == "add" else None,
    "an op left out": lambda b, n: n.inputs[0] if n.op == "relu" else None,
    "a constant a little off": lambda b, n: (
        b.full(shape=n.shape, value=n.attrs["value"] + 1e-6) if n.op == "full" else None
    ),
    "another order": lambda b, n: b.reverse(n, axes=(1,)) if n.op == "softmax" else None,
}


@pytest.mark.parametrize("position", [1, 2, 4, 6])
@pytest.mark.parametrize("change", SABOTAGE.values(), ids=SABOTAGE)
def test_check_2_names_the_pass_that_changes_a_value(
    change: Change, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parse(VICTIM)
    insert(monkeypatch, position, lambda graph: rebuilt(graph, change))
    monkeypatch.setenv("GEMMC_CHECK", "2")
    with pytest.raises(VerifyError, match="pass sabotage changed output '(y|z)'"):
        run_passes(Program(given, ROWS))
    monkeypatch.setenv("GEMMC_CHECK", "1")
    run_passes(Program(given, ROWS))


def test_check_2_names_the_pass_that_loses_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    insert(monkeypatch, 3, lambda graph: replace(graph, outputs={"y": graph.outputs["y"]}))
    monkeypatch.setenv("GEMMC_CHECK", "2")
    with pytest.raises(VerifyError, match="pass sabotage lost output 'z'"):
        run_passes(Program(parse(VICTIM), ROWS))


@pytest.mark.parametrize("position", [1, 2, 4, 7, 10])
def test_check_1_names_the_pass_that_breaks_a_type(
    position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(monkeypatch, position, with_a_wrong_type)
    monkeypatch.setenv("GEMMC_CHECK", "1")
    with pytest.raises(
        VerifyError, match=r"pass sabotage: .*has type f32\[N,3\], inferred f32\[N\]"
    ):
        run_passes(Program(parse(VICTIM), ROWS))


def test_check_0_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    insert(monkeypatch, len(PIPELINE), with_a_wrong_type)
    monkeypatch.setenv("GEMMC_CHECK", "0")
    assert "sabotage" in run_passes(Program(parse(VICTIM), ROWS))


@pytest.mark.parametrize("value", ["", "3", "yes"])
def test_another_check_level_is_a_compile_error(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMC_CHECK", value)
    with pytest.raises(CompileError, match="GEMMC_CHECK: got .*, expected 0, 1 or 2"):
        run_passes(Program(parse(VICTIM), ROWS))


VICTIM = """
graph victim(%x: f32[N,3], %w: f32[3,3]) {
  %0: f32[N,3] = matmul %x, %w
  %1: f32[N,3] = relu %0
  %2: f32[N,3] = full {shape=(N, 3), value=0.25}
  %3: f32[N,3] = mul %1, %2
  %4: f32[N,3] = add %0, %3
  %5: f32[N,3] = softmax %4
  %6: f32[N] = max %5 {axes=(1,)}
  return y=%5, z=%6
}
"""


def insert(
    monkeypatch: pytest.MonkeyPatch, position: int, sabotage: Callable[[Graph], Graph]
) -> None:
    """Puts a pass called "sabotage" into the pipeline."""
    passes = [*PIPELINE]
    passes.insert(position, ("sabotage", lambda graph, program: sabotage(graph)))
    monkeypatch.setattr(pipeline, "PIPELINE", tuple(passes))


def with_a_wrong_type(graph: Graph) -> Graph:
    """The graph, whose output z claims to be wider than it is."""
    right = graph.outputs["z"]
    wrong = replace(right, type=right.tensor.like(N, 3))
    nodes = tuple(wrong if n is right else n for n in graph.nodes)
    return replace(graph, nodes=nodes, outputs={**graph.outputs, "z": wrong})


def target_for(seed: int) -> Target:
    """One of the targets; with seeds of both parities, which differ in what is asked of a graph."""
    return [*TARGETS.values()][seed // 2 % len(TARGETS)]


def random_program(seed: int, target: Target) -> Program:
    """A random graph with its gradients or, every other time, with a step of Adam."""
    graph = random_graph(seed)
    floats = tuple(n.name for n in graph.inputs if n.dtype == "f32")
    if seed % 2:
        return Program(graph, ROWS, floats, target=target)
    trained = [n for n in graph.inputs if n.name.startswith("p")]
    updates = {n.name: trace_update(Adam(), n.shape, "f32") for n in trained}
    state = [f"{name}.{key}" for name in updates for key in Adam.state_names]
    storage = dict.fromkeys([*updates, *state])
    return Program(graph, ROWS, tuple(updates), updates, storage, target)


def check_passes(program: Program) -> None:
    """Each pass of the pipeline: valid in, valid out, the same meaning, and the input untouched."""
    graph = program.graph
    verify(graph)
    for name, run in PIPELINE:
        text = str(graph)
        after = run(graph, program)
        assert str(graph) == text, f"{name} changed its input"
        verify(after)
        assert graph.outputs.keys() == after.outputs.keys() or name == "autodiff"
        check_meaning(name, graph, after, program.forms if name == "pack" else {})
        graph = after


def check_weights(program: Program) -> None:
    """No weights, and nothing of their update, are transposed; Linear layers are plain products.

    Forward those of weights with their rows last, backward those of weights with their rows first.
    """
    packed = run_passes(program)["pack"]
    assert [n for n in packed.nodes if n.op == "transpose" and not n.tensor.per_row] == []
    for n in packed.nodes:
        if n.op == "matmul":
            form, backward = program.storage[f"{int(n.loc.split('.')[0])}.weight"], n.loc[-1] == "'"
            rows_last = form is not None and form.rows_last
            assert n.attrs["transpose_a"] or n.attrs["transpose_b"] == (rows_last == backward), n


def check_idempotence(program: Program) -> None:
    """What makes nothing new for itself to do."""
    stages = run_passes(program)
    for name, again in {
        "simplify": simplify,
        "cleanup": simplify,
        "layout": layout,
        "lower": lambda g: lower(g, program.target),
        "fuse": lambda g: fuse(g, program.target),
    }.items():
        assert str(again(stages[name])) == str(stages[name]), name
