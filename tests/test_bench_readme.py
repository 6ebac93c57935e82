"""The README's table of results: made of the reports that are kept, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmc import DataError
from gemmc.bench.readme import BEGIN, END, main, markdown, refresh
from gemmc.bench.results import Contender, Machine, Report, Result, load

ROOT = Path(__file__).parents[1]
MEASURED = sorted((ROOT / "bench" / "measured").glob("*.json"))
MACHINE = Machine("CPU", 2, "Linux", "3.11", "OpenBLAS", {"torch": "2.13.0"}, {})


def contender(name: str, ms: float, whole: float) -> Contender:
    tested = {"whole_seconds": (whole,), "test_losses": (0.5,), "test_accuracies": (0.875,)}
    return Contender(name, seconds=(1e-3 * ms,) * 6, **tested)


def report(*warnings: str) -> Report:
    contenders = contender("gemmc", 0.5, 2), contender("torch", 4, 10), contender("tuned", 2, 20)
    settings = {"batch": 32, "threads": 2, "runtime": "auto", "epochs": 3, "warnings": warnings}
    result = Result("cnn", "example CNN", "train", **settings, contenders=contenders)
    return Report("gemmc bench cnn", "2026-11-23", MACHINE, (result,))


def test_the_table_has_the_fastest_other_of_each_row() -> None:
    assert (
        markdown([report()])
        == """\
| CPU, 2 cores, PyTorch 2.13.0, 2026-11-23 | gemmc | fastest other | gemmc / it |
|---|---|---|---|
| example CNN: training step, batch 32, 2 threads | 500 us | 2 ms, tuned | 0.250 (0.250 to 0.250) |
| the same, 3 epochs from process start; test accuracy | 2 s; 87.5% | 10 s; 87.5%, torch | 0.20 |

Measured by `gemmc bench cnn`."""
    )


def test_doubts_are_marked() -> None:
    shown = markdown([report("noisy")])
    assert "0.250 (0.250 to 0.250) \\* |" in shown and "The machine was not quiet" in shown


def test_only_what_lies_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "r.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report().save(kept)
    main(str(page), str(kept))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n|") and text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text and refresh(text, [report()]) == text


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(DataError, match="has no <!-- results"):
        refresh("a page", [report()])


def test_the_readmes_table_is_made_of_the_reports_that_are_kept() -> None:
    text = (ROOT / "README.md").read_text()
    assert MEASURED and refresh(text, [load(file) for file in MEASURED]) == text, "run make results"
