"""Why neighbours are not fused: one reason for each pair of steps, from what decides it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from programs import MODELS, program
from random_graphs import random_graph, random_parameters

from gemmc.ir import Graph, Node, parse
from gemmc.passes.fuse import fuse, left_apart
from gemmc.passes.order import VIEWS
from gemmc.passes.pipeline import Program, run_passes
from gemmc.passes.target import CPU
from gemmc.runtime.native.target import native_target

APART = "{kernel=(3, 3), stride=(3, 3), layout='NHWC'}"
OVERLAPPING = "{kernel=(2, 2), stride=(1, 1), layout='NHWC'}"
NATIVE = replace(native_target(), lanes=16, registers=32)
CASES = {
    "a library's product takes no epilogue": (
        """%0: f32[N,4] = matmul %x, %w {form='blas'}
           %1: f32[N,4] = relu %0""",
        "matmul in the form blas takes no epilogue",
    ),
    "a product reads its operand as a whole": (
        """%0: f32[N,8] = relu %x
           %1: f32[N,4] = matmul %0, %w {form='loops'}""",
        "matmul is not pointwise: an element of it takes many of relu's",
    ),
    "a sum over the batch is a step": (
        """%0: f32[N,8] = relu %x
           %1: f32[8] = sum %0 {axes=(0,)}""",
        "sum over axes (0,) is a step of its own",
    ),
    "rows that are too long": (
        """%0: f32[N,2000] = exp %long
           %1: f32[N] = sum %0 {axes=(1,)}""",
        "rows of 2000 are longer than the 128 that sum works on as one",
    ),
    "a bias across the columns": (
        """%0: f32[N,4,4,4] = conv2d %image, %taps {form='direct', layout='NHWC'}
           %1: f32[N,4,4,4] = broadcast %b {shape=(N, 4, 4, 4), axes=(1,)}
           %2: f32[N,4,4,4] = add %0, %1""",
        "broadcast spreads over other axes than the last one or the rows",
    ),
    "a pool whose windows overlap": (
        """%0: f32[N,4,4,4] = conv2d %image, %taps {form='direct', layout='NHWC'}
           %1: (f32[N,3,3,4], u8[N,3,3,4]) = max_pool2d %0 OVERLAPPING
           %2: f32[N,3,3,4] = item %1 {index=0}""",
        "its windows overlap, leave gaps, or reach over the border",
    ),
    "a pool of what something else reads": (
        """%0: f32[N,4,4,4] = conv2d %image, %taps {form='direct', layout='NHWC'}
           %1: (f32[N,1,1,4], u8[N,1,1,4]) = max_pool2d %0 APART
           %2: f32[N,1,1,4] = item %1 {index=0}
           %3: f32[4] = sum %0 {axes=(0, 1, 2)}""",
        "sum reads what is pooled as well",
    ),
    "what lies between": (
        """%0: f32[N,4] = matmul %x, %w {form='loops'}
           %1: f32[N,2,2] = reshape %0 {shape=(N, 2, 2)}
           %2: f32[N,2,2] = relu %1""",
        "a reshape lies between them",
    ),
    "a way around": (
        """%0: f32[N,8] = relu %x
           %1: f32[N,4] = matmul %0, %w {form='blas'}
           %2: f32[N,8] = matmul %1, %w {transpose_b=True, form='blas'}
           %3: f32[N,8] = add %0, %2""",
        "matmul has to run in between",
    ),
}  # fmt: skip
INPUTS = (
    "%x: f32[N,8], %w: f32[8,4], %long: f32[N,2000], %b: f32[4], %image: f32[N,6,6,3], "
    "%taps: f32[3,3,3,4]"
)


def graph_of(lines: str) -> Graph:
    lines = lines.replace("OVERLAPPING", OVERLAPPING).replace("APART", APART)
    made = [line.strip() for line in lines.splitlines()]
    read = {word.strip(",") for line in made for word in line.split("=", 1)[1].split()}
    names = [line.split(":")[0] for line in made]
    results = [name for name in names if name not in read]
    outputs = ", ".join(f"y{i}={name}" for i, name in enumerate(results))
    return parse("\n".join([f"graph g({INPUTS}) {{", *made, f"return {outputs}", "}"]))


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_what_refused_to_fuse(name: str) -> None:
    lines, reason = CASES[name]
    found = [str(apart) for apart in left_apart(graph_of(lines), NATIVE)]
    assert any(reason in text for text in found), found


def test_a_pool_of_an_output_is_a_step_of_its_own() -> None:
    lines = f"""graph g({INPUTS}) {{
      %0: f32[N,4,4,4] = conv2d %image, %taps {{form='direct', layout='NHWC'}}
      %1: (f32[N,1,1,4], u8[N,1,1,4]) = max_pool2d %0 {APART}
      %2: f32[N,1,1,4] = item %1 {{index=0}}
      return y=%0, z=%2
    }}"""
    (apart,) = left_apart(parse(lines), NATIVE)
    assert "what is pooled is an output of the program" in str(apart)


def test_what_is_fused_is_not_apart() -> None:
    chain = """%0: f32[N,4] = matmul %x, %w {form='loops'}
               %1: f32[N,4] = broadcast %b {shape=(N, 4), axes=(1,)}
               %2: f32[N,4] = add %0, %1
               %3: f32[N,4] = relu %2"""
    assert left_apart(graph_of(chain), NATIVE) == ()


def lowered(given: Program) -> Graph:
    return run_passes(given)["lower"]


ANEW = ("broadcast", "full", "dropout_mask")  # each sweep makes its own
GIVEN = {
    **{f"{name}, {t}": (name, t) for name in MODELS for t in ("native", "blas")},
    **{f"graph {seed}, {t}": (seed, t) for seed in range(12) for t in ("native", "blas")},
}


@pytest.mark.parametrize("name", GIVEN)
def test_every_pair_of_steps_that_touch_has_one_reason(name: str) -> None:
    given, runtime = GIVEN[name]
    target = NATIVE if runtime == "native" else CPU
    if isinstance(given, str):
        graph = lowered(program("step", MODELS[given](), 8, target))
    else:
        drawn = random_graph(given)
        graph = lowered(Program(drawn, 8, random_parameters(drawn), target=target))
    found = left_apart(graph, target)
    assert all(apart.reason for apart in found), [str(a) for a in found if not a.reason]
    assert all(a.producer in _behind(a.consumer) for a in found)
    steps = [n for n in fuse(graph, target).nodes if n.op not in VIEWS]
    if not any(n.op in ANEW for n in steps):  # none is needed as an array: all are in sweeps
        read = [(_maker(x), n) for n in steps for x in n.inputs]
        assert len(found) == len({(x, n) for x, n in read if x.op != "input"})


def _behind(node: Node) -> set[Node]:
    """What a node reads, through views and what is made anew."""
    seen = set(node.inputs)
    for x in node.inputs:
        seen |= _behind(x) if x.op in (*VIEWS, *ANEW) else set()
    return seen


def _maker(node: Node) -> Node:
    return _maker(node.inputs[0]) if node.op in VIEWS else node
