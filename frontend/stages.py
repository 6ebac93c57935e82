"""stages: those of a program as text: in a folder, printed, and read back to run passes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir import CompileError, DataError, Graph, verify
from ..ir.environment import check_level
from ..passes.changes import diffs
from ..passes.pipeline import STAGES, after_pass, make_plan, run_pass
from ..passes.program_text import parse_program, print_program
from ..passes.report import plan_text
from .arguments import integer
from .command_line import many, writing
from .runtimes import ALL_STAGES, GENERATED, RUNTIMES, Compiled, choose, kernels_of
from .trace import PROGRAMS

if TYPE_CHECKING:
    from .executable import Executable

SUFFIXES = {"plan": "txt", "loops": "txt", "llvm": "ll", "assembly": "s"}  # of stages but graphs
BATCH_SIZE = 32


def dump_folder(dump: object) -> Path:
    """The folder `dump`, made if it is not there; CompileError where that cannot be."""
    if not isinstance(dump, (str, PathLike)):
        raise CompileError(f"dump: got {dump!r}, expected the path of a folder")
    folder = Path(dump)
    with writing("dump", folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_stages(folder: Path, stages: Sequence[str], compiled: Compiled) -> None:
    """Writes each stage into a file of its own in `folder`, numbered in order.

    Graphs come with what later passes need, for `gemmc dump --pass`; the plan with its report.
    CompileError where they cannot be written.
    """
    with writing("dump", folder):
        folder.mkdir(exist_ok=True)
        for i, stage in enumerate(stages):
            text = stage_text(compiled, stage, context=stage in compiled.stages)
            report = f"\n\n{compiled.plan.report()}" if stage == "plan" else ""
            path = folder / f"{i:02}.{stage}.{SUFFIXES.get(stage, 'ir')}"
            path.write_text(f"{text}{report}\n")


def stage_text(compiled: Compiled, stage: str, context: bool = False) -> str:
    """A program after one stage; with `context` also what later passes need besides the graph."""
    if not context:
        return compiled.text(stage)
    if stage not in compiled.stages:
        raise CompileError(f"--context: stage {stage} is no graph that a pass could go on from")
    program = compiled.program
    for name in takewhile(lambda name: name != stage, compiled.stages):
        program = after_pass(name, program, compiled.stages[name])
    return print_program(after_pass(stage, program, compiled.stages[stage]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gemmc dump` takes besides the model or file."""
    parser.add_argument("--stage", choices=ALL_STAGES, help="default: all of them")
    parser.add_argument(
        "--after-change", action="store_true", help="what each stage changed, as diffs"
    )
    parser.add_argument(
        "--pass", dest="passes", metavar="fuse,plan", help="run these on a graph as text"
    )
    parser.add_argument(
        "--context", action="store_true", help="print also what --pass needs besides the graph"
    )
    parser.add_argument("--program", choices=PROGRAMS, help="default: step")
    parser.add_argument("--runtime", choices=RUNTIMES, help="default: as the text says, or auto")
    parser.add_argument("--batch-size", type=int, help="default: as the text says, or 32")
    parser.add_argument("--input-shape", metavar="1,28,28", help="of one sample, for FILE.py:NAME")


def dumped(
    chosen: argparse.Namespace, find: Callable[[argparse.Namespace], Executable]
) -> Iterator[str]:
    """What `gemmc dump` prints; `find` compiles the model that is named."""
    if chosen.passes is not None:
        return _after_passes(chosen)
    if chosen.after_change and chosen.stage:
        raise CompileError("--after-change: shows all stages, expected no --stage beside it")
    if chosen.context and not chosen.stage:
        raise CompileError("--context: expected the --stage to go on from")
    defaults = {"batch_size": BATCH_SIZE, "runtime": "auto"}
    given = {k: v for k, v in vars(chosen).items() if v is not None}
    executable = find(argparse.Namespace(**{**vars(chosen), **defaults, **given}))
    compiled = executable.compiled(chosen.program or _step_of(executable))
    if chosen.after_change:
        return _changes(compiled.stages)
    if chosen.stage is None:
        return (f"// stage {s}\n{stage_text(compiled, s)}\n" for s in executable.stages)
    if chosen.stage not in executable.stages:
        return iter([executable.ir(chosen.stage)])  # which says what there is instead
    return iter([stage_text(compiled, chosen.stage, chosen.context)])


def _step_of(executable: Executable) -> str:
    """The program shown by default; CompileError where a model lacks what it takes."""
    model = executable.model
    if model.loss_func is None:
        raise CompileError("loss_func: the model has none, and no step: use --program predict")
    if model.optimizer is None:
        raise CompileError("optimizer: the model has none, and no step: use --program evaluate")
    return "step"


def verified(file: str) -> str:
    """A line for each graph in a file; CompileError or VerifyError where one is not valid."""
    program = parse_program(_read(file))
    updates = {f"update of {name}": graph for name, graph in program.updates.items()}
    lines = []
    for name, graph in {program.graph.name: program.graph, **updates}.items():
        verify(graph)
        parts = {"input": graph.inputs, "node": graph.nodes, "output": graph.outputs}
        counts = ", ".join(many(len(part), what) for what, part in parts.items())
        lines.append(f"{name}: valid, {counts}")
    return "\n".join(lines)


def _after_passes(chosen: argparse.Namespace) -> Iterator[str]:
    """What passes make of the program in a file."""
    for option in ("stage", "program", "input_shape"):
        if getattr(chosen, option) is not None:
            raise CompileError(f"--{option.replace('_', '-')}: does not go with --pass")
    names = _pass_names(chosen.passes)
    program = parse_program(_read(chosen.model), choose(chosen.runtime or "auto").target)
    if chosen.runtime:
        program = replace(program, target=choose(chosen.runtime).target)
    if chosen.batch_size is not None:
        rows = integer("dump", "--batch-size", chosen.batch_size)
        program = replace(program, rows=rows)
    stages = {"text": program.graph}
    for name in names:
        if name == "plan":
            plan = make_plan(program, program.graph, kernels_of(program.target))
            return iter([plan_text(plan)])
        stages[name] = run_pass(name, program, check_level())
        program = after_pass(name, program, stages[name])
    if chosen.after_change:
        return _changes(stages)
    return iter([print_program(program) if chosen.context else str(program.graph)])


def _pass_names(text: str) -> list[str]:
    """The passes that "fuse,plan" names; CompileError for one that cannot run on a text."""
    names = text.split(",")
    for name in names:
        if name == "trace":
            raise CompileError("--pass: trace starts from a model: gemmc dump MODEL --stage trace")
        if name in GENERATED:
            raise CompileError(
                f"--pass: {name} is made by the native runtime from a whole model: "
                f"gemmc dump MODEL --stage {name}"
            )
        if name not in STAGES:
            raise CompileError(f"--pass: got {name!r}, expected some of {', '.join(STAGES[1:])}")
    if "plan" in names[:-1]:
        raise CompileError("--pass: plan gives no graph, expected it to be the last")
    return names


def _changes(stages: Mapping[str, Graph]) -> Iterator[str]:
    """The first stage, then what each did that changed something."""
    first, graph = next(iter(stages.items()))
    yield f"// stage {first}\n{graph}\n"
    for stage, diff in diffs(stages):
        yield f"// stage {stage}\n{diff}\n"


def _read(file: str) -> str:
    """The text of a file, or of standard input for "-"; DataError where there is none."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise DataError(f"{_named(file)}: is empty, expected a graph as `gemmc dump` prints it")
    return text


def _named(file: str) -> str:
    return "standard input" if file == "-" else file
