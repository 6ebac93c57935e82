"""The notebooks of `examples`: what is saved in them is whole, and they run."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import gemmc

ROOT = Path(gemmc.__file__).parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="installed without its examples")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
LARGEST = 400_000  # bytes: a clone brings them


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def words(notebook: Any) -> str:
    """All that its cells printed."""
    outputs = [output for cell in code(notebook) for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs)


def pictures(notebook: Any) -> list[bytes]:
    outputs = [output for cell in code(notebook) for output in cell["outputs"]]
    found = (output.get("data", {}).get("image/png") for output in outputs)
    return [base64.b64decode("".join(png)) for png in found if png]


def test_there_are_both_experiments() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["fashion_mnist", "spiral"]


@each
def test_outputs_are_saved_from_one_run_from_top_to_bottom(path: Path) -> None:
    notebook = json.loads(path.read_text())
    counts = [cell["execution_count"] for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code(notebook) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert len(pictures(notebook)) >= 6
    assert "lower bound" in words(notebook) and "PyTorch" in words(notebook)


@each
def test_what_is_saved_is_small_and_of_no_one_machine(path: Path) -> None:
    text = path.read_text()
    assert len(text) < LARGEST
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|Users)/", text)
    notebook = json.loads(text)
    assert list(notebook["metadata"]) == ["kernelspec"]
    assert not any(cell["metadata"] for cell in notebook["cells"])


@each
def test_the_losses_that_are_saved_are_pytorchs(path: Path) -> None:
    said = words(json.loads(path.read_text()))
    rows = re.findall(r"^ +\d+ +(\d\.\d{6}) +(\d\.\d{6}) ", said, re.M)
    assert len(rows) == 20
    for ours, theirs in rows:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


@each
def test_pictures_are_pictures(path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    for png in pictures(json.loads(path.read_text())):
        assert image.imread(io.BytesIO(png)).std() > 0.02


@pytest.mark.slow
@each
def test_a_notebook_runs_and_says_what_it_said(path: Path) -> None:
    pytest.importorskip("nbclient")
    spec = spec_from_file_location("run_notebooks", ROOT / "tools" / "run_notebooks.py")
    assert spec and spec.loader
    runner = module_from_spec(spec)
    spec.loader.exec_module(runner)
    made, saved = runner.executed(path), json.loads(path.read_text())
    assert len(pictures(made)) == len(pictures(saved))
    tested = r"test loss (\d\.\d+), test accuracy (\d+\.\d+)%"
    ours, before = (re.search(tested, words(notebook)) for notebook in (made, saved))
    assert ours and before
    # another BLAS rounds otherwise, and some thousand steps amplify that
    assert float(ours[1]) == pytest.approx(float(before[1]), abs=0.05)
    assert float(ours[2]) == pytest.approx(float(before[2]), abs=2)
