"""`gemmc bench kernels`: every case is what it says, and rows come worst first."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmc.__main__ import main
from gemmc.bench.kernel_cases import Case, cases
from gemmc.bench.kernels import _ops, _plan
from gemmc.bench.results import load
from gemmc.ir import verify
from gemmc.runtime.native.target import native_target

CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kernel} {c.form} {c.shape}")
def test_a_case_is_a_program_with_the_op_that_it_measures(case: Case) -> None:
    verify(case.graph)
    if case.form == "winners" and native_target().registers < 32:
        pytest.skip("this CPU has too few registers for winners")
    steps = [step.node for step in _plan(case).steps() if case.op in _ops(step.node)]
    bodies = [n.attrs["body"].nodes if "body" in n.attrs else (n,) for n in steps]
    forms = {n.attrs.get("form") for body in bodies for n in body if n.op == case.op}
    assert steps
    assert case.form is None or case.form in forms


def test_cases_have_names_of_their_own() -> None:
    names = [(c.kernel, c.shape, c.form) for c in CASES]
    assert len(names) == len(set(names))


def test_the_table_is_sorted_worst_first_and_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kernels.json"
    assert main(["bench", "kernels", "--only", "max", "--repeat", "1", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    kept = load(file)
    names, reached = [k.kernel for k in kept.kernels], [k.row.fraction for k in kept.kernels]
    assert set(names) == {"max", "max_pool2d", "max_unpool2d", "softmax"}
    assert reached == sorted(reached)
    assert kept.peaks is not None and kept.peaks.workers == 1
    lines = shown[shown.index("kernel ") :].splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(names)]] == names


@pytest.mark.parametrize(
    ("option", "said"), [(["--only", "nothing"], "--only: got 'nothing'"), (["--repeat", "0"], "0")]
)
def test_what_cannot_be_measured_is_refused(
    option: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "kernels", *option]) == 2
    assert said in capsys.readouterr().err
