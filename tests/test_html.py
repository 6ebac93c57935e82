"""What a notebook shows of a graph and of an executable."""

import html
import re

import pytest

import gemmc
from gemmc import Adam, CrossEntropyLoss, Flatten, Linear, ReLU, Sequential
from gemmc.ir import Builder, N, TensorType


@pytest.fixture(scope="module")
def executable() -> gemmc.Executable:
    layers = [Flatten(), Linear(12, 8), ReLU(), Linear(8, 3)]
    model = Sequential(layers, CrossEntropyLoss(), Adam(), seed=1)
    return gemmc.compile(model, (3, 4), 4, runtime="blas")


def shown(text: str) -> str:
    """The words of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def test_a_graph_is_its_text_with_a_title(executable: gemmc.Executable) -> None:
    for stage in executable.stages[:-1]:
        graph = executable.graph(stage)
        title, _, text = shown(graph._repr_html_()).partition("graph step(")
        assert f"graph step({text}" == str(graph)
        assert title == f"graph step: {len(graph.inputs)} inputs, {len(graph.nodes)} nodes"


def test_names_are_text_and_nothing_else() -> None:
    """In a statement, in a line that is none, and in the title."""
    b = Builder()
    x = b.input("<q>", TensorType((N, 2), "f32"))
    with b.at("<q>"):
        y = b.relu(x)
    graph = b.graph("<q>", [x], {"<q>": y})
    made = graph._repr_html_()
    assert "<q>" not in made
    assert str(graph) in shown(made) and shown(made).startswith("graph <q>: 1 inputs")


def test_only_a_short_graph_is_unfolded(executable: gemmc.Executable) -> None:
    b = Builder()
    x = b.input("x", TensorType((N, 2), "f32"))
    assert b.graph("tiny", [x], {"y": b.relu(x)})._repr_html_().startswith("<details open>")
    assert executable.graph("autodiff")._repr_html_().startswith("<details><summary>")


def test_an_executable_is_its_layers_stages_and_memory(executable: gemmc.Executable) -> None:
    text = shown(executable._repr_html_())
    for word in ("step on the blas runtime, up to 4 rows", "1.Linear", "12, 8", "[N,8]", "104"):
        assert word in text
    for stage in executable.stages[:-1]:
        assert str(executable.graph(stage)) in text
    assert executable.plan.report() in text


def test_a_model_without_a_loss_is_shown_too() -> None:
    executable = gemmc.compile(Sequential([Linear(2, 2)]), (2,), 1, runtime="reference")
    assert "predict on the reference runtime" in shown(executable._repr_html_())


def test_html_brings_nothing_and_is_well_formed(executable: gemmc.Executable) -> None:
    text = executable._repr_html_()
    assert not re.search(r"<(script|style|link|img)|https?:", text)
    open_tags: list[str] = []
    for closing, tag in re.findall(r"<(/?)(\w+)", text):
        if closing:
            assert open_tags.pop() == tag
        else:
            open_tags.append(tag)
    assert not open_tags
