"""A pass that fails is named, and leaves a file of few nodes on which it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_passes import Change, rebuilt
from programs import MODELS, cnn, program, spiral

import gemmc
from gemmc.__main__ import main
from gemmc.ir import Builder, Graph, Node, VerifyError, verify
from gemmc.passes import pipeline, reproduce
from gemmc.passes.parts import size
from gemmc.passes.pipeline import PassError, Program, run_passes
from gemmc.passes.program_text import parse_program
from gemmc.passes.reproduce import reproduced, shrunk, symptom
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

MOST_NODES = 10


def raises(b: Builder, node: Node) -> Node | None:
    """A rule that does not know what to do with the sum of a selection."""
    if node.op == "sum" and node.inputs[0].op in ("where", "sub"):
        raise KeyError(node)
    return None


def breaks_a_shape_rule(b: Builder, node: Node) -> Node | None:
    """A rule that multiplies what does not fit."""
    if node.op == "matmul":
        return b.make("matmul", [node.inputs[0], node.inputs[0]], {})
    return None


def changes_a_value(b: Builder, node: Node) -> Node | None:
    """A rule that has a sign wrong behind a product."""
    if node.op == "add" and any(x.op == "matmul" for x in node.inputs):
        return b.sub(*node.inputs)
    return None


FAULTS: dict[str, tuple[Change, str]] = {  # by what they do: the rule, and the check that shows it
    "raises": (raises, "0"),
    "breaks a shape rule": (breaks_a_shape_rule, "0"),
    "changes a value": (changes_a_value, "2"),
}


@pytest.mark.parametrize("name", ["simplify", "autodiff", "layout", "lower"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_pass_is_named_and_replayed_on_few_nodes(
    fault: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rule, level = FAULTS[fault]
    break_pass(monkeypatch, name, lambda graph: rebuilt(graph, rule))
    monkeypatch.setenv("GEMMC_CHECK", level)
    model, shape = cnn(12)
    with pytest.raises(PassError, match=f"pass {name}") as caught:
        gemmc.compile(model, shape, dump=tmp_path)
    file = tmp_path / f"reproducer.{name}.ir"
    small = parse_program(file.read_text())
    assert str(file) in str(caught.value)
    assert 0 < size(small.graph) <= MOST_NODES
    verify(small.graph)
    with pytest.raises(PassError) as again:
        caught.value.again(small)
    assert symptom(again.value) == symptom(caught.value)


@pytest.mark.parametrize("level", ["0", "2"])
def test_the_command_of_a_reproducer_fails_with_the_same_words(
    level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = raises if level == "0" else changes_a_value
    break_pass(monkeypatch, "cleanup", lambda graph: rebuilt(graph, rule))
    monkeypatch.setenv("GEMMC_CHECK", level)
    model, shape = spiral()
    with pytest.raises(VerifyError) as caught:
        gemmc.compile(model, shape, runtime="blas", dump=tmp_path)
    command = re.search(r"replay: (?:GEMMC_CHECK=(\d) )?gemmc (.*)", str(caught.value))
    assert command and command[1] == (level if level != "0" else None)
    assert main(command[2].split()) == 2
    failed = str(caught.value).split("\n")[3]
    assert capsys.readouterr().err.startswith(f"gemmc: {failed}")


def test_a_gradient_that_is_wrong_in_the_middle_of_a_model_is_found_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unpools_nothing(b: Builder, node: Node) -> Node | None:
        assert node.op != "max_unpool2d", "no gradient"
        return None

    break_pass(monkeypatch, "autodiff", lambda graph: rebuilt(graph, unpools_nothing))
    small = shrunk(failure(program("step", cnn(12), 5)))
    assert [n.op for n in small.program.graph.nodes] == ["max_pool2d", "item", "sum"]
    assert len(small.program.wrt) == 1 and not small.program.updates


def test_a_plan_that_cannot_be_made_is_reproduced_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def plan(graph: Graph, *rest: object) -> None:
        assert all(n.op != "transpose" for n in graph.nodes), "no place for a transpose"

    monkeypatch.setattr(pipeline, "plan", plan)
    model, shape = spiral()
    with pytest.raises(PassError, match="pass plan: AssertionError: no place for a transpose"):
        gemmc.compile(model, shape, runtime="native", dump=tmp_path)
    small = parse_program((tmp_path / "reproducer.plan.ir").read_text())
    assert [n.op for n in small.graph.nodes] == ["transpose"]
    assert small.target == native_target()


def test_nothing_is_written_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    break_pass(monkeypatch, "cleanup", lambda graph: rebuilt(graph, raises))
    model, shape = spiral()
    for _ in range(3):
        with pytest.raises(PassError):
            gemmc.compile(model, shape, dump=tmp_path)
    names = {f"reproducer.cleanup{i}.ir" for i in ("", ".2", ".3")}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_without_a_dump_folder_it_is_among_the_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    break_pass(monkeypatch, "cleanup", lambda graph: rebuilt(graph, raises))
    error = reproduced(failure(program("step", spiral(), 5)), None)
    assert [*tmp_path.glob("gemmc-*/reproducer.cleanup.ir")] and str(tmp_path) in str(error)


def test_an_invalid_result_is_shown_by_check_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def twice(graph: Graph) -> Graph:
        """Executes the nodes that are products twice."""
        nodes = [n for n in graph.nodes for _ in range(2 if n.op == "matmul" else 1)]
        return Graph(graph.name, graph.inputs, tuple(nodes), graph.outputs)

    break_pass(monkeypatch, "order", twice)
    monkeypatch.setenv("GEMMC_CHECK", "1")
    small = shrunk(failure(program("step", MODELS["tied"](), 5)))
    assert small.level == 1 and "is executed twice" in str(small)
    assert [n.op for n in small.program.graph.nodes] == ["matmul"]


@pytest.mark.parametrize("target", [CPU, native_target()], ids=["blas", "native"])
def test_what_is_wrong_inside_a_region_is_found_there(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes_no_pool(b: Builder, node: Node) -> Node | None:
        bodies = [node.attrs["body"]] if node.op == "region" else []
        bodies += [n.attrs["body"] for body in bodies for n in body.nodes if n.op == "fused"]
        assert not any(n.op == "max_pool2d" for body in bodies for n in body.nodes), "a pool"
        return None

    break_pass(monkeypatch, "order", lambda graph: rebuilt(graph, takes_no_pool))
    graph = shrunk(failure(program("step", cnn(), 32, target))).program.graph
    assert "max_pool2d" in str(graph) and size(graph) <= 5


def test_another_failure_on_fewer_nodes_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(graph: Graph) -> Graph:
        raise AssertionError("few nodes" if len(graph.nodes) < 4 else "many nodes")

    break_pass(monkeypatch, "cleanup", refuses)
    small = shrunk(failure(program("step", spiral(), 5)))
    assert "many nodes" in str(small) and len(small.program.graph.nodes) == 4


def test_a_search_that_has_no_time_gives_back_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reproduce, "BUDGET", 0.0)
    break_pass(monkeypatch, "cleanup", lambda graph: rebuilt(graph, raises))
    whole = failure(program("step", spiral(), 5))
    assert shrunk(whole) is whole


def break_pass(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[Graph], Graph]) -> None:
    """Puts a fault behind a pass of the pipeline."""

    def broken(run: pipeline.Pass) -> pipeline.Pass:
        return lambda graph, program: fault(run(graph, program))

    passes = [(n, broken(run) if n == name else run) for n, run in pipeline.PIPELINE]
    monkeypatch.setattr(pipeline, "PIPELINE", tuple(passes))


def failure(given: Program) -> PassError:
    """How the passes fail on a program."""
    with pytest.raises(PassError) as caught:
        run_passes(given)
    return caught.value
