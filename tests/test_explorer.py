"""The explorer: its data are true, its page needs nothing else, and a browser shows both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from browser import visit

import gemmc
from gemmc import Adam, CrossEntropyLoss, Linear, ReLU, Sequential
from gemmc.__main__ import main
from gemmc.frontend.experiments import EXPERIMENTS
from gemmc.frontend.explorer.data import explorer_data
from gemmc.frontend.explorer.page import page
from gemmc.passes.provenance import Change

MODELS = tuple(EXPERIMENTS)
PRODUCTS = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad")
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The executable, data and page of both models."""
    made = {}
    for name, experiment in EXPERIMENTS.items():
        executable = gemmc.compile(experiment.model(0), experiment.input_shape)
        data = explorer_data(executable, name)
        made[name] = executable, data, page(data)
    return made


@each_model
def test_every_node_has_a_layer_and_a_part_of_the_step(name: str, found: dict) -> None:
    _, data, _ = found[name]
    layers = {layer["name"] for layer in data["layers"]}
    for stage in data["stages"]:
        for node in (n for n in stage["nodes"] if n["op"] != "input"):
            assert node["band"] in layers, (stage["name"], node)
            assert node["part"] in ("forward", "backward", "update")
            assert node["band"] in stage["bands"]


@each_model
def test_every_product_is_followed_from_autodiff_to_a_step_of_the_plan(
    name: str, found: dict
) -> None:
    executable, data, _ = found[name]
    times = {s.time for s in executable.plan.steps()}
    stages = {stage["name"]: stage["nodes"] for stage in data["stages"]}
    products = [n for n in stages["autodiff"] if n["op"] in PRODUCTS]
    assert len(products) == {"spiral": 8, "fashion-mnist": 11}[name]  # 3 a layer, 2 for the first
    for node in products:
        assert node["steps"] and set(node["steps"]) <= times, node
    last = data["stages"][-1]["nodes"]
    assert sorted(t for n in last for t in n["steps"]) == sorted(times), "a step a node"


@each_model
def test_nothing_comes_from_nowhere_but_what_autodiff_makes(name: str, found: dict) -> None:
    """What a pass makes, it makes from something; pack may turn outputs round."""
    _, data, _ = found[name]
    for before, stage in zip(data["stages"], data["stages"][1:], strict=False):
        lost = [n for n in stage["nodes"] if not n["from"] and not n["of"] and n["op"] != "input"]
        assert stage["name"] == "autodiff" or {n["op"] for n in lost} <= {"transpose", "reshape"}
        assert all(i < len(before["nodes"]) for n in stage["nodes"] for i in n["from"] + n["of"])


@each_model
def test_what_is_gone_is_followed_nowhere(name: str, found: dict) -> None:
    _, data, _ = found[name]
    for before, stage in zip(data["stages"], data["stages"][1:], strict=False):
        followed = {i for n in stage["nodes"] for i in n["from"]}
        assert sorted({*stage["gone"], *followed}) == [*range(len(before["nodes"]))]
        assert not followed.intersection(stage["gone"])


def test_a_step_that_a_region_takes_is_changed_by_that(found: dict) -> None:
    _, data, _ = found["fashion-mnist"]
    before, tiled = (s for s in data["stages"] if s["name"] in ("fuse", "tile"))
    moved = [n for n in tiled["nodes"] if n["tile"] and not n["of"]]
    assert moved and not any(n["tile"] for n in before["nodes"])
    assert {n["state"] for n in moved} == {"changed"}


@each_model
def test_gradients_know_what_they_are_the_gradient_of(name: str, found: dict) -> None:
    _, data, _ = found[name]
    trained = data["stages"][2]["nodes"]
    before = data["stages"][1]["nodes"]
    grads = [n for n in trained if n["part"] == "backward" and n["op"] in PRODUCTS]
    for node in grads:
        (source,) = node["of"]
        assert before[source]["op"] in ("conv2d", "matmul")
        assert before[source]["band"] == node["band"]


@each_model
def test_a_diff_leads_from_one_text_to_the_next(name: str, found: dict) -> None:
    """Applied to the lines before, it gives the lines after, but for numbers of kept nodes."""
    _, data, _ = found[name]
    for before, stage in zip(data["stages"], data["stages"][1:], strict=False):
        ends = [(0, 0), *((b, d) for _, _, b, _, d in stage["diff"]["codes"])]
        starts = [(a, c) for _, a, _, c, _ in stage["diff"]["codes"]]
        assert starts == ends[:-1], "without gaps"
        assert ends[-1] == (len(before["lines"]), len(stage["lines"]))
        for tag, a, b, c, d in stage["diff"]["codes"]:
            pairs = zip(before["lines"][a:b], stage["lines"][c:d], strict=False)
            if tag == "equal":
                assert all(_numberless(x) == _numberless(y) for x, y in pairs)


def _numberless(line: str) -> str:
    return re.sub(r"%[\w.]+", "%", line).strip()


@each_model
def test_nodes_carry_their_own_text(name: str, found: dict) -> None:
    executable, data, _ = found[name]
    for stage in data["stages"]:
        assert "\n".join(stage["lines"]) == executable.ir(stage["name"])
        for node in (n for n in stage["nodes"] if n["op"] != "input"):
            first, count = node["lines"]
            number = node["name"].rpartition("/")[2]
            assert stage["lines"][first].lstrip().startswith(f"%{number}: ")
            assert f" = {node['op']}" in stage["lines"][first]
            assert count == 1 or stage["lines"][first + count - 1].strip() == "}"


@each_model
def test_the_memory_map_is_that_of_the_plan(name: str, found: dict) -> None:
    executable, data, _ = found[name]
    memory, plan = data["memory"], executable.plan
    assert (memory["arena"], memory["bound"]) == (plan.arena_bytes, plan.bound_bytes)
    shared = [b for b in memory["buffers"] if b["kind"] != "own"]
    assert max(b["offset"] + b["room"] for b in shared) == plan.arena_bytes
    live = sum(b["room"] for b in shared if b["start"] <= memory["peak"] <= b["end"])
    assert live == plan.bound_bytes


def test_steps_have_their_times_and_loops(found: dict) -> None:
    executable, data, _ = found["fashion-mnist"]
    assert [s["time"] for s in data["steps"]] == [s.time for s in executable.plan.steps()]
    if executable.runtime == "native":
        for step in data["steps"]:
            assert re.match(rf"[st]{step['time']}_{step['op']}\(", step["loop"])
    assert all(s["ms"] >= 0 and s["bound"] for s in data["steps"])
    assert sum(s["share"] for s in data["steps"]) <= 1.001  # printed to six digits


@each_model
def test_the_page_needs_nothing_else_and_is_below_2_mb(name: str, found: dict) -> None:
    _, _, text = found[name]
    assert len(text.encode()) < 2e6
    assert "{{" not in text.partition("<script")[0]
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text.partition('id="data"')[0])
    assert "@import" not in text and "fetch(" not in text
    assert "Copyright (c) 2012-2014 Chris Pettitt" in text, "dagre's licence goes with it"


def test_text_in_the_data_cannot_end_the_script() -> None:
    data = {"title": "</script><b>", "odd": [float("nan"), float("inf"), 1 / 3]}
    inside = re.search(r'id="data">(.*?)</script>', page(data), re.DOTALL)
    assert inside
    assert json.loads(inside[1]) == {"title": "</script><b>", "odd": [None, None, 0.333333]}


def test_a_title_is_text_and_nothing_else() -> None:
    text = page({"title": "a</title><b>{{ style }}"})
    assert "<title>a&lt;/title&gt;&lt;b&gt;{{ style }} · gemmc explorer</title>" in text


@each_model
def test_a_pass_and_a_node_can_be_chosen_with_the_mouse(
    name: str, found: dict, tmp_path: Path
) -> None:
    executable, data, text = found[name]
    fuse = next(s for s in data["stages"] if s["name"] == "fuse")
    node = next(n for n in fuse["nodes"] if n["op"] == "fused" and "matmul" in n["label"])
    script = f"""
      seen.title = document.title;
      seen.stages = [...document.querySelectorAll("[data-stage]")].map((s) => s.dataset.stage);
      seen.layers = [...document.querySelectorAll("#graph .name")].map((t) => t.textContent);
      seen.model = text("#details");
      click('[data-stage="fuse"]');
      seen.pass = text("#pass");
      seen.changes = text("#view");
      click('#graph [data-name="{node["name"]}"]');
      seen.details = text("#details");
      seen.ir = text("#details pre.ir");
      seen.loop = text("#details pre.loop");
      seen.address = location.hash;
      click("#tab-memory");
      seen.memory = text("#view");
      seen.rectangles = document.querySelectorAll(".buffer rect").length;
      click("#tab-roofline");
      seen.roofline = text("#view");
      click("#tab-steps");
      seen.rows = document.querySelectorAll("#view tbody tr").length;
      click('[data-stage="trace"]');
      seen.followed = text("#details .title");
    """
    seen = visit(text, tmp_path, script)
    assert name in seen["title"]
    assert seen["stages"] == [s["name"] for s in data["stages"]]
    for band in data["stages"][0]["bands"]:
        assert any(layer.startswith(band) for layer in seen["layers"])
    assert f"{data['layers'][-1]['parameters']:,}" in seen["model"]
    assert seen["pass"] == "fuse" and "= fused %" in seen["changes"]
    first, count = node["lines"]
    assert seen["ir"] == dedent("\n".join(fuse["lines"][first : first + count]))
    loops = [s["loop"] for s in data["steps"] if s["time"] in node["steps"]]
    assert loops == [seen["loop"]]
    assert node["band"] in seen["details"] and node["type"] in seen["details"]
    assert f"Runs as step {node['steps'][0]}" in seen["details"]
    assert seen["address"] == f"#stage=fuse&node={node['name']}"
    assert "arena" in seen["memory"] and f"at step {data['memory']['peak']}" in seen["memory"]
    assert seen["rectangles"] >= len(data["memory"]["buffers"])
    assert "GFLOP/s" in seen["roofline"] and "memory" in seen["roofline"]
    assert seen["rows"] == len(list(executable.plan.steps()))
    first = data["stages"][0]["nodes"]
    came = [f"%{n['name']} {n['op']}" for n in first if {*n["steps"]} & {*node["steps"]}]
    assert seen["followed"] in came


def test_what_is_chosen_is_marked_with_what_it_touches_and_followed(
    found: dict, tmp_path: Path
) -> None:
    _, data, text = found["fashion-mnist"]
    nodes = next(s["nodes"] for s in data["stages"] if s["name"] == "fuse")
    forward = (n for n in nodes if (n["band"], n["part"]) == ("7.Linear", "forward"))
    node = next(n for n in forward if "matmul" in n["label"])
    reads = {nodes[i]["name"] for i in node["in"] if nodes[i]["op"] != "input"}
    script = f"""
      const names = (selector) =>
        [...document.querySelectorAll(selector)].map((n) => n.dataset.name);
      seen.linked = text("#details .title");
      click('#graph [data-name="{node["name"]}"]');
      seen.address = location.hash;
      seen.bands = document.querySelectorAll("#graph .band.chosen").length;
      seen.chosen = names("#graph .chosen");
      seen.near = names("#graph .near");
      [...document.querySelectorAll("#details .link")]
        .find((link) => link.textContent.startsWith("7.Linear(")).click();
      seen.layer = text("#details .title");
      find("#details table .link").click();
      seen.step = location.hash;
      click('[data-stage="trace"]');
      click('#graph [data-name="0"]');
      seen.conv = text("#details .title");
      click('[data-stage="layout"]');
      seen.followed = text("#details .title");
    """
    seen = visit(text, tmp_path, script, "#stage=fuse&layer=7.Linear")
    assert seen["linked"] == seen["layer"] == "7.Linear"
    assert seen["address"] == f"#stage=fuse&node={node['name']}" and seen["bands"] == 0
    assert "layer" not in seen["step"]
    assert seen["chosen"] == [node["name"]] and reads <= {*seen["near"]}
    assert seen["conv"].endswith(" conv2d") and seen["followed"].endswith(" conv2d")


def test_the_keyboard_does_it_too(found: dict, tmp_path: Path) -> None:
    _, _, text = found["fashion-mnist"]
    script = """
      press("]"); press("]");
      seen.stage = text("#pass");
      find('#stages [data-stage="autodiff"]').focus();
      press("ArrowDown");
      seen.next = document.activeElement.dataset.stage;
      find("#graph").focus();
      press("ArrowDown");
      seen.first = text("#details .title");
      press("ArrowDown");
      seen.second = text("#details .title");
      seen.active = find(`#${find("#graph").getAttribute("aria-activedescendant")}`) !== null;
      press("Escape");
      seen.none = text("#details .title");
      press("/");
      seen.search = document.activeElement.id;
      find("#query").value = "conv2d 3.Conv2d forward";
      find("#query").dispatchEvent(new Event("input"));
      press("Enter");
      seen.found = text("#details");
      press("3");
      seen.view = text('#tabs [aria-selected="true"]');
      press("u");
      seen.unfolded = document.querySelectorAll("#graph .node.fold").length;
    """
    seen = visit(text, tmp_path, script)
    assert (seen["stage"], seen["next"]) == ("autodiff", "cleanup")
    assert seen["first"] != seen["second"] and seen["active"]
    assert seen["none"] == "The model"
    assert seen["search"] == "query" and "conv2d" in seen["found"] and "3.Conv2d" in seen["found"]
    assert seen["view"] == "memory" and seen["unfolded"] == 0


def test_an_address_leads_to_a_node(found: dict, tmp_path: Path) -> None:
    _, data, text = found["fashion-mnist"]
    nodes = data["stages"][-1]["nodes"]
    inner = next(n for n in nodes if "/" in n["name"] and n["steps"])
    address = f"#stage=order&node={inner['name'].replace('/', '%2F')}&view=text"
    script = """
      seen.details = text("#details"); seen.line = text("#view .line.chosen");
      seen.view = text('#tabs [aria-selected="true"]');
    """
    seen = visit(text, tmp_path, script, address)
    assert f"%{inner['name']} {inner['op']}" in seen["details"] and seen["view"] == "text"
    assert f" = {inner['op']}" in seen["line"]


@pytest.mark.parametrize(("runtime", "trained"), [("reference", True), ("blas", False)])
def test_what_nobody_can_time_has_a_page(runtime: str, trained: bool, tmp_path: Path) -> None:
    parts = (CrossEntropyLoss(), Adam()) if trained else (None, None)
    model = Sequential([Linear(3, 5), ReLU(), Linear(5, 2)], *parts)
    data = explorer_data(gemmc.compile(model, (3,), 4, runtime), "small")
    assert data["program"] == ("step" if trained else "predict")
    assert data["roof"] is None and data["step_ms"] == 0.0
    if not trained:  # one of them is enough for the browser
        script = """
          seen.pass = text("#pass"); seen.title = text("#details .title");
          seen.work = text("#details").includes("50 FLOP a row, forward");
          for (const key of "12345") press(key);
        """
        seen = visit(page(data), tmp_path, script, "#stage=none&node=999&view=x")
        assert seen == {"pass": "trace", "title": "The model", "work": True}


def test_the_blas_runtime_has_times_but_no_loops() -> None:
    model = Sequential([Linear(3, 5), ReLU(), Linear(5, 2)], CrossEntropyLoss(), Adam())
    data = explorer_data(gemmc.compile(model, (3,), 4, "blas"), "small")
    assert data["roof"] and all(s["ms"] >= 0 and not s["loop"] for s in data["steps"])


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "spiral.html"
    assert main(["explain", "spiral", "--html", str(file)]) == 0
    assert f"wrote {file}" in capsys.readouterr().out
    assert file.read_text().startswith("<!doctype html>")
    assert main(["explain", "spiral", "--html", str(tmp_path / "none" / "a.html")]) == 2
    assert "--html" in capsys.readouterr().err


def test_a_profiled_model_is_as_it_was() -> None:
    experiment = EXPERIMENTS["spiral"]
    model = experiment.model(0)
    before = model.state_dict()
    explorer_data(gemmc.compile(model, experiment.input_shape), "spiral")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert model.state.step == 0


@each_model
def test_a_graph_changes_nothing_into_itself(name: str, found: dict) -> None:
    executable, _, _ = found[name]
    for graph in executable.compiled().stages.values():
        change = Change(graph, graph)
        assert all(change.kept(n) is n and change.sources(n) == (n,) for n in graph.nodes)
        assert not any(change.gradient(n) for n in graph.nodes)
