"""The pages tell the truth: their programs run, and what they show is what the code prints."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

import gemmc
from gemmc.__main__ import main
from gemmc.ir.ops_table import ops_table

ROOT = Path(gemmc.__file__).parent
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="installed without its docs")


def _python(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S))


def test_the_readmes_program_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = _python("README.md")
    said = re.search(r"# \((0\.\d+), (0\.\d+)\): loss and accuracy", code)
    assert said
    exec(code, {})
    last = capsys.readouterr().out.strip().splitlines()[-1]
    loss, accuracy = (float(x) for x in re.findall(r"0\.\d+", last))
    # another BLAS rounds otherwise, and 17,500 steps amplify that
    assert loss == pytest.approx(float(said[1]), abs=0.02)
    assert accuracy == pytest.approx(float(said[2]), abs=0.02)


def test_the_readmes_ir_is_the_beginning_of_what_is_printed() -> None:
    layers = [gemmc.Linear(2, 32), gemmc.ReLU(), gemmc.Linear(32, 16), gemmc.ReLU()]
    layers += [gemmc.Linear(16, 8), gemmc.Softmax()]
    model = gemmc.Sequential(layers, gemmc.CrossEntropyLoss(), gemmc.Adam())
    shown = re.search(r"```\n(graph .*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown
    assert gemmc.compile(model, (2,)).ir("simplify").startswith(shown[1].rstrip())


def test_the_tours_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    exec(_python("docs/tour.md"), scope)
    assert "lower bound" in capsys.readouterr().out


def test_the_guides_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(_python("docs/guide.md"), {"__name__": "guide"})
    losses = capsys.readouterr().out.strip().splitlines()[-1]
    first, *_, last = (float(x) for x in re.findall(r"\d+\.\d+", losses))
    assert last < first


def test_the_guides_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.S)
    lines = [re.sub(r"\s+#.*", "", line) for line in "".join(blocks).splitlines()]
    assert any("|" in line for line in lines)
    for line in lines:  # as a shell would run it
        commands, _, file = line.partition(" > ")
        shown = ""
        for command in commands.split(" | "):
            monkeypatch.setattr("sys.stdin", io.StringIO(shown))
            program, *words = command.split()
            assert program == "gemmc" and main(words) == 0, line
            shown = capsys.readouterr().out
        assert shown
        if file:
            Path(file).write_text(shown)


def test_the_programs_of_the_native_runtimes_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    exec(_python("docs/native.md"), {})
    assert "for " in capsys.readouterr().out  # a listing of loops


def test_the_guide_lists_all_ops() -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    listed = re.search(r"`gemmc.ops` has `([\w\s]+)`", text)
    assert listed and set(listed[1].split()) == set(gemmc.ops.__all__)


@pytest.mark.parametrize("page", ["README.md", "docs/tour.md", "docs/design.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    folders = "ir|passes|runtime|frontend|bench|tests|tools|docs"
    named = set(re.findall(rf"(?:{folders})/[\w./]*[\w]", text))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert named and not missing


def test_the_table_of_ops_is_the_one_in_the_docs() -> None:
    assert (ROOT / "docs" / "ops.md").read_text() == ops_table(), "run make docs"
