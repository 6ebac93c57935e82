"""The text of graphs reads back, what is wrong is refused by name, and equal nodes are one node."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import networkx
import pytest
from golden_texts import GOLDEN, Golden
from programs import MODELS, program
from random_graphs import random_graph

from gemmc.ir import Builder, CompileError, Graph, Node, TensorType, VerifyError, parse, verify
from gemmc.ir.types import N, TupleType, Type, parse_type
from gemmc.passes.pipeline import run_passes
from gemmc.passes.target import Target

F = TensorType((N, 3), "f32")


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_a_golden_text_reads_back(golden: Golden) -> None:
    for text in (golden.before, golden.after):
        check_round_trip(parse(text))


@pytest.mark.parametrize("name", ["step", "predict"])
@pytest.mark.parametrize("model", MODELS)
def test_every_stage_of_a_program_reads_back(model: str, name: str) -> None:
    tiled = Target(cache_bytes=1000)
    for graph in run_passes(program(name, MODELS[model](), 5, tiled)).values():
        check_round_trip(graph)


@pytest.mark.parametrize("seed", range(40))
def test_a_random_graph_reads_back(seed: int) -> None:
    check_round_trip(random_graph(seed))


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1e-42, 0.1, 1e300, float("inf"), float("-inf"), float("nan"), 1, True]
)
def test_an_attribute_reads_back_as_it_was(value: object) -> None:
    b = Builder()
    graph = b.graph("g", [], {"y": b.full(shape=(3,), value=value)})
    again = parse(str(graph)).nodes[0].attrs["value"]
    assert repr(again) == repr(value) and type(again) is type(value)


@pytest.mark.parametrize(
    "text", ["f32[]", "f64[N]", "i64[3]", "u8[N,16,28,28]", "bool[1,2]", "(f32[N,2], u8[N,2])"]
)
def test_a_type_reads_back(text: str) -> None:
    assert str(parse_type(text)) == text


@pytest.mark.parametrize(
    "text", ["", "f32", "f16[3]", "f32[0]", "f32[-1]", "f32[3,N]", "f32[M]", "f32[3", "f32[1.5]"]
)
def test_what_is_no_type_is_a_compile_error(text: str) -> None:
    with pytest.raises(CompileError):
        parse_type(text)


GOOD = """graph good(%x: f32[N,3], %w: f32[2,3]) {
  %0: f32[N,2] = matmul %x, %w {transpose_b=True}  # 0.Linear
  %1: f32[N,2] = fused %0 (%a: f32[N,2]) {  # 1.ReLU
    %0: f32[N,2] = relu %a
    return y=%0
  }
  return y=%1
}"""
BROKEN = {  # what is replaced, by what, the line that is wrong then, and a word of the message
    "no graph": ("graph good", "graf good", 1, "graph name"),
    "an op that is none": ("= matmul", "= matmull", 2, "'matmull' is none"),
    "an operand that is none": ("%x, %w {", "%x, %v {", 2, "%v is none"),
    "an operand made later": ("fused %0", "fused %2", 3, "%2 is none"),
    "operands that do not fit": (" {transpose_b=True}", "", 2, "do not fit"),
    "too few operands": ("matmul %x, %w", "matmul %x", 2, "got 1 operands, expected 2"),
    "another type than the op gives": ("%0: f32[N,2] = matmul", "%0: f32[N,3] = matmul", 2, "type"),
    "a type that is none": ("%0: f32[N,2] = matmul", "%0: f99[N,2] = matmul", 2, "'f99'"),
    "an input's type that is none": ("%w: f32[2,3]", "%w: f99[2,3]", 1, "'f99'"),
    "an input that is a tuple": ("%w: f32[2,3]", "%w: (f32[2,3], u8[2])", 1, "tensors"),
    "two inputs of one name": ("%w: f32[2,3]", "%x: f32[2,3]", 1, "a name of its own"),
    "an input without a type": (", %w: f32[2,3]", ", %w", 1, "%name: type"),
    "an attribute that is unknown": ("transpose_b=", "transposed=", 2, "unknown attribute"),
    "an attribute that is no literal": ("=True}", "=open('f')}", 2, "literal"),
    "an attribute that is no name": ("{transpose_b=True}", "{True}", 2, "literal"),
    "an attribute of another type": ("relu %a", "sum %a {axes=1}", 4, "a valid sum"),
    "an attribute behind another call": ("=True}", "=1) + f(a=2}", 2, "literal"),
    "a name made twice": ("%1: f32[N,2] = fused", "%0: f32[N,2] = fused", 6, "%0 is made already"),
    "an attribute left open": ("{transpose_b=True}", "{transpose_b=}", 2, "literal"),
    "no statement": ("  %0: f32[N,2] = matmul", "  what is this", 2, "%name"),
    "a return of what is not made": ("return y=%1", "return y=%7", 7, "%7 is none"),
    "a return without a name": ("return y=%1", "return %1", 7, "name=%value"),
    "a block that takes something else": ("(%a: f32[N,2])", "(%a: f32[N,4])", 4, ""),
    "no end of a block": ("  }\n  return y=%1", "  return y=%1", 6, "'}'"),
    "no end": ("return y=%1\n}", "return y=%1", None, "ends inside a block"),
    "more behind the end": ("return y=%1\n}", "return y=%1\n}\nmore", 9, "end of the text"),
    "nothing": (GOOD, "", None, ""),
}


@pytest.mark.parametrize("old, new, line, message", BROKEN.values(), ids=BROKEN)
def test_a_text_with_a_mistake_is_a_compile_error_that_names_the_line(
    old: str, new: str, line: int | None, message: str
) -> None:
    assert str(parse(GOOD)) == GOOD and GOOD.count(old) == 1
    with pytest.raises(CompileError) as caught:
        parse(GOOD.replace(old, new))
    assert message in str(caught.value)
    assert line is None or f"line {line}:" in str(caught.value)


def test_any_line_cut_anywhere_is_read_or_is_a_compile_error() -> None:
    for at in range(len(GOOD)):
        for text in (GOOD[:at], GOOD[:at] + GOOD[at + 1 :]):
            try:
                graph = parse(text)
            except CompileError:
                continue
            verify(graph)


def test_equal_nodes_are_made_once() -> None:
    b = Builder()
    x = b.input("x", F)
    assert b.input("x", F) is x
    assert b.relu(x) is b.relu(x)
    assert b.sum(x, axes=(1,)) is b.sum(x, axes=(1,))
    assert b.softmax(x) is b.softmax(x, axis=1)
    assert b.add(b.relu(x), x) is b.add(b.relu(x), x)
    assert b.add(b.relu(x), x) is not b.add(x, b.relu(x))
    with b.at("3.ReLU"):
        assert b.relu(x).loc == ""  # the layer takes no part


@pytest.mark.parametrize("one, other", [(0.0, -0.0), (1, True), (1.0, 1), (0.0, False)])
def test_attributes_that_print_differently_make_different_nodes(one: object, other: object) -> None:
    assert one == other
    b = Builder()
    first, second = (b.full(shape=(3,), value=value) for value in (one, other))
    assert first is not second
    assert (repr(first.attrs["value"]), repr(second.attrs["value"])) == (repr(one), repr(other))


def test_an_attribute_that_only_equals_its_default_is_printed() -> None:
    b = Builder()
    x = b.input("x", F)
    graph = b.graph("zeros", [x], {"y": b.pad(x, low=(0, 1), high=(0, 0), value=-0.0)})
    assert "value=-0.0" in str(graph) and str(parse(str(graph))) == str(graph)


def test_dtypes_and_shapes_make_different_nodes() -> None:
    b = Builder()
    made = {
        b.full(shape=shape, value=0.0, dtype=dtype)
        for shape in ((3,), (N, 3), (1, 3))
        for dtype in ("f32", "f64")
    }
    assert len(made) == 6


def test_a_graph_has_what_its_outputs_need_and_nothing_else() -> None:
    b = Builder()
    x, unused = b.input("x", F), b.input("unused", F)
    y = b.relu(x)
    b.exp(b.neg(x))
    graph = b.graph("g", [x, unused], {"y": y, "again": y})
    assert graph.nodes == (y,) and graph.inputs == (x, unused)


def test_a_graph_cannot_read_an_input_it_does_not_list() -> None:
    b = Builder()
    x, y = b.input("x", F), b.input("y", F)
    with pytest.raises(AssertionError, match="reads inputs it does not have"):
        b.graph("g", [x], {"z": b.add(x, y)})


def test_a_node_cannot_be_changed() -> None:
    b = Builder()
    y = b.softmax(b.input("x", F))
    with pytest.raises(AttributeError):
        y.op = "relu"  # type: ignore[misc]
    with pytest.raises(TypeError):
        y.attrs["axis"] = 0  # type: ignore[index]


def test_an_op_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no op is called 'matmull'"):
        Builder().matmull()


def made(op: str, *inputs: Node, type: Type = F, loc: str = "", **attrs: Any) -> Node:
    """A node that no shape rule has looked at."""
    return Node(op, inputs, MappingProxyType(attrs), type, loc)


def graph_of(*nodes: Node, inputs: tuple[Node, ...] | None = None, **outputs: Node) -> Graph:
    """A graph that no builder has looked at; its input is X."""
    return Graph("bad", inputs or (X,), nodes, MappingProxyType(outputs))


X = made("input", name="x")
RELU = made("relu", X, loc="1.ReLU")
WIDE = made("relu", X, type=TensorType((N, 4), "f32"))
POOL = made("softmax", RELU, axis=1, type=TupleType((F, F)))
BODY = graph_of(WIDE, y=WIDE)
ILLEGAL = {
    "a wrong type": (graph_of(WIDE, y=WIDE), r"has type f32\[N,4\], inferred f32\[N,3\]"),
    "a use before it is made": (
        graph_of(last := made("exp", RELU), RELU, y=last),
        r"<exp: .*> uses <relu: f32\[N,3\]  # 1.ReLU> before it is made",
    ),
    "a use of what is never made": (graph_of(last, y=last), "before it is made"),
    "a node twice": (graph_of(RELU, RELU, y=RELU), "is executed twice"),
    "two inputs of one name": (
        graph_of(RELU, inputs=(X, made("input", name="x")), y=RELU),
        r"two inputs share a name: \['x', 'x'\]",
    ),
    "an input that is none": (graph_of(inputs=(X, RELU), y=X), "among the inputs but is none"),
    "an input among the nodes": (
        graph_of(other := made("input", name="w"), y=other),
        "is an input, but not among the inputs",
    ),
    "an op that is none": (graph_of(n := made("matmull", X), y=n), "is no op"),
    "an output that is never made": (graph_of(y=RELU), "is output 'y' but is never made"),
    "a next value of another type": (
        graph_of(n := made("sum", X, axes=(1,), type=TensorType((N,), "f32")), x=n),
        r"replaces 'x' of type f32\[N,3\]",
    ),
    "operands too many": (graph_of(n := made("relu", X, X), y=n), "got 2 operands, expected 1"),
    "several results for an operand": (
        graph_of(RELU, POOL, n := made("exp", POOL), y=n),
        "has type|several results",
    ),
    "an attribute that is missing": (graph_of(n := made("softmax", X), y=n), "'axis'"),
    "an attribute that is unknown": (graph_of(n := made("relu", X, axis=1), y=n), "'axis'"),
    "a body that is broken": (
        graph_of(n := made("fused", X, body=BODY, rows=N, type=WIDE.type), y=n),
        r"inferred f32\[N,3\]",
    ),
    "a body that takes something else": (
        graph_of(WIDE, n := made("fused", WIDE, body=graph_of(RELU, y=RELU), rows=N), y=n),
        "has type|do not fit",
    ),
}


@pytest.mark.parametrize("graph, message", ILLEGAL.values(), ids=ILLEGAL)
def test_the_verifier_refuses(graph: Graph, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify(graph)


def test_a_graph_as_networkx_sees_it_has_its_nodes_and_what_flows_between_them() -> None:
    graph = run_passes(program("step", MODELS["spiral"](), 5))["cleanup"]
    seen = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(seen)
    assert set(seen) == {*graph.inputs, *graph.nodes}
    assert set(seen.edges) == {(x, n) for n in graph.nodes for x in n.inputs}
    node = graph.nodes[0]
    assert seen.nodes[node] == {"op": node.op, "type": str(node.type), "loc": node.loc}


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_users_are_the_readers_in_execution_order(seed: int) -> None:
    graph = random_graph(seed)
    for x, users in graph.users.items():
        assert users == tuple(n for n in graph.nodes if x in n.inputs)


def check_round_trip(graph: Graph) -> None:
    text = str(graph)
    again = parse(text)
    assert str(again) == text
    verify(again)
    assert [n.type for n in again.nodes] == [n.type for n in graph.nodes]
    assert [n.loc for n in again.nodes] == [n.loc for n in graph.nodes]
