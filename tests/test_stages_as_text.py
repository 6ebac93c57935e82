"""Stages go through files and pipes: what is read back is compiled as it would have been."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import MODELS, cnn, program, spiral

import gemmc
from gemmc.__main__ import main
from gemmc.frontend.experiments import EXPERIMENTS
from gemmc.ir import CompileError, Graph, parse
from gemmc.passes.changes import diffs
from gemmc.passes.pipeline import PIPELINE, STAGES, after_pass, run_pass, run_passes
from gemmc.passes.program_text import parse_program, print_program
from gemmc.passes.target import CPU
from gemmc.runtime.native.target import native_target

GRAPHS = [name for name, _ in PIPELINE]
TEXT = """graph little(%x: f32[N,3], %w: f32[3,3]) {
  %0: f32[N,3] = matmul %x, %w
  %1: f32[N,3] = relu %0
  %2: f32[] = sum %1 {axes=(0, 1)}
  return loss=%2
}
"""
CONTEXT = """// rows: 7
// wrt: ('w',)
// storage: {'w': ((3, 3), (1, 0)), 'w.momentum': None}
// target: {'generated': True, 'cache_bytes': 1000}
// update of w:
graph update(%p: f32[3,3], %g: f32[3,3]) {
  %0: f32[3,3] = sub %p, %g
  return p=%0
}"""


@pytest.mark.parametrize("name", ["step", "predict", "grads"])
@pytest.mark.parametrize("model", MODELS)
def test_a_program_reads_back_with_all_that_passes_need(model: str, name: str) -> None:
    given = program(name, MODELS[model](), 5, native_target())
    text = print_program(given)
    again = parse_program(text)
    assert print_program(again) == text
    assert (again.rows, again.wrt, again.target) == (given.rows, given.wrt, given.target)
    assert {k: v for k, v in again.storage.items() if v} == given.forms
    stages, expected = run_passes(again), run_passes(given)
    assert {k: str(g) for k, g in stages.items()} == {k: str(g) for k, g in expected.items()}


@pytest.mark.parametrize("program", ["step", "evaluate", "predict", "grads"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_stage_of_both_example_models_reads_back(name: str, program: str) -> None:
    experiment = EXPERIMENTS[name]
    exe = gemmc.compile(experiment.model(0), experiment.input_shape)
    for stage in GRAPHS:
        text = exe.ir(stage, program)
        assert str(parse(text)) == text


@pytest.mark.parametrize("runtime", ["native", "blas"])
def test_a_pass_goes_on_from_any_file_of_a_dump(runtime: str, tmp_path: Path) -> None:
    model, shape = cnn(12)
    exe = gemmc.compile(model, shape, runtime=runtime, dump=tmp_path)
    files = sorted((tmp_path / "step").iterdir())
    assert [f.name.split(".")[:2] for f in files] == [
        [f"{i:02}", stage] for i, stage in enumerate(exe.stages)
    ]
    for before, after, name in zip(files, files[1:], GRAPHS[1:], strict=False):
        given = parse_program(before.read_text())
        left = after_pass(name, given, run_pass(name, given, level=2))
        assert print_program(left) + "\n" == after.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_dump_onto_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    model, shape = spiral()
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "00.trace.ir").symlink_to("/dev/full")
    with pytest.raises(CompileError) as raised:
        gemmc.compile(model, shape, dump=tmp_path)
    assert str(raised.value).startswith(
        f"dump: {tmp_path / 'step'}: cannot be written to: No space"
    )


def test_a_dump_has_a_folder_for_each_program_with_plan_loops_and_code(tmp_path: Path) -> None:
    model, shape = spiral()
    exe = gemmc.compile(model, shape, runtime="native", dump=tmp_path / "a" / "b")
    exe.evaluate([[1.0, 2.0]], [3])
    exe([[1.0, 2.0]])
    for train in (False, True):
        exe.loss_and_grads([[1.0, 2.0]], [3], train=train)
    folders = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert folders == ["evaluate", "grads", "grads.train", "predict", "step"]
    step = tmp_path / "a" / "b" / "step"
    assert exe.plan.report() in (step / "10.plan.txt").read_text()
    assert "define" in (step / "12.llvm.ll").read_text()
    assert (step / "11.loops.txt").read_text().strip() == exe.ir("loops").strip()
    assert "run:" in (step / "13.assembly.s").read_text()


def test_a_text_alone_is_differentiated_by_its_parameters() -> None:
    given = parse_program(TEXT)
    assert (given.rows, given.wrt, given.updates, given.target) == (32, ("w",), {}, CPU)
    assert parse_program(TEXT, native_target()).target == native_target()
    assert "w.grad" in run_pass("autodiff", given, level=0).outputs


def test_what_stands_below_the_graph_is_read() -> None:
    given = parse_program(f"// a comment\n{TEXT}{CONTEXT}")
    assert (given.rows, given.wrt, given.target.cache_bytes) == (7, ("w",), 1000)
    assert given.forms["w"].perm == (1, 0) and "w.momentum" in given.storage
    assert "w" in run_pass("autodiff", given, level=0).outputs
    assert print_program(given) == TEXT + CONTEXT


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("rows: 7", "rows: seven", "line 7: rows: got seven, expected an integer >= 1"),
        ("rows: 7", "rows: 0", "line 7: rows: got 0, expected an integer >= 1"),
        ("('w',)", "('w', 'v')", r"wrt: got \['v'\], expected names of inputs: \['"),
        ("('w',)", "(['w'],)", r"wrt: got \[\['w'\]\], expected names of inputs"),
        ("('w',)", "'w'", "line 8: wrt: got 'w', expected a tuple"),
        ("{'w': (", "{'w': 3, 'v': (", "storage"),
        ("'generated'", "'generates'", "target: .*generates"),
        ("%0: f32[3,3] = sub", "%0: f32[3,3] = dub", "line 13: .*'dub' is none"),
        ("return p=%0\n}", "", "ends inside a block"),
    ],
)
def test_a_mistake_below_the_graph_is_a_compile_error(old: str, new: str, message: str) -> None:
    text = TEXT + CONTEXT
    assert text.count(old) == 1
    with pytest.raises(CompileError, match=message):
        parse_program(text.replace(old, new))


def test_a_pipe_of_two_commands_compiles_as_one_does() -> None:
    gemmc_ = f"{sys.executable} -m gemmc"
    passes = ",".join(STAGES[STAGES.index("autodiff") :])
    piped = f"{gemmc_} dump spiral --stage simplify --context | {gemmc_} dump --pass {passes} -"
    whole = f"{gemmc_} dump spiral --stage plan"
    one, other = (
        subprocess.run(["bash", "-c", f"set -o pipefail; {c}"], capture_output=True, check=True)
        for c in (piped, whole)
    )
    assert one.stdout == other.stdout and one.stderr == b""


def test_passes_run_on_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    passes = "autodiff,cleanup,layout,pack,lower,fuse,tile,order"
    assert main(["dump", "--pass", passes, "-"]) == 0
    assert "w.grad" in parse(capsys.readouterr().out).outputs


def test_options_say_what_a_text_does_not_or_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "little.ir"
    for text, options, expected in (
        (TEXT, ["--runtime", "blas"], CPU),
        (TEXT, ["--runtime", "native"], native_target()),
        (TEXT + CONTEXT, ["--runtime", "blas"], CPU),
    ):
        file.write_text(text)
        line = ["dump", "--pass", "simplify", "--context", "--batch-size", "9", *options, str(file)]
        assert main(line) == 0
        shown = parse_program(capsys.readouterr().out)
        assert (shown.rows, shown.target) == (9, expected)


def test_verify_tells_what_is_valid_and_names_the_line_that_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "little.ir"
    file.write_text(TEXT + CONTEXT)
    assert main(["verify", str(file)]) == 0
    assert capsys.readouterr().out == (
        "little: valid, 2 inputs, 3 nodes, 1 output\n"
        "update of w: valid, 2 inputs, 1 node, 1 output\n"
    )
    file.write_text(TEXT.replace("f32[N,3] = relu", "f32[N,4] = relu"))
    assert main(["verify", str(file)]) == 2
    assert "line 3: got '%1: f32[N,4] = relu %0'" in capsys.readouterr().err


def test_after_change_shows_the_passes_that_changed_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "little.ir"
    file.write_text(TEXT)
    assert main(["dump", "--pass", "simplify,lower,tile", "--after-change", str(file)]) == 0
    shown = capsys.readouterr().out
    assert re.findall("// stage (.*)", shown) == ["text", "lower"]
    assert TEXT in shown
    changed = [line for line in shown.split("\n") if re.match(r"[-+] ", line)]
    assert changed == [
        "-  %0: f32[N,3] = matmul %x, %w",
        "+  %0: f32[N,3] = matmul %x, %w {form='loops'}",
    ]


@pytest.mark.parametrize("model", MODELS)
def test_what_a_diff_adds_is_in_the_next_stage_but_for_names(model: str) -> None:
    stages = run_passes(program("step", MODELS[model](), 5, native_target()))
    changed = dict(diffs(stages))
    before: Graph | None = None
    for stage, graph in stages.items():
        assert (stage in changed) == (before is not None and str(before) != str(graph))
        before = graph
    for stage, diff in changed.items():
        added = re.findall(r"^\+ +(%\d+: .*)", diff, re.M)
        text = without_names(str(stages[stage]))
        assert all(without_names(line) in text for line in added)


def test_a_value_keeps_its_name_while_others_come_and_go() -> None:
    stages = run_passes(program("step", spiral(), 5))
    cleanup = dict(diffs(stages))["cleanup"]
    removed, added = (re.findall(rf"^\{sign}  %(\d+):", cleanup, re.M) for sign in "-+")
    assert removed and added
    assert len(added) < len(stages["cleanup"].nodes) / 2  # most lines are the same


def without_names(text: str) -> str:
    return re.sub(r"%\d+\b", "%", text)
