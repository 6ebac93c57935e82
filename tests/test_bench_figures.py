"""Figures and the page of benchmarks: what they show is what was measured, and all of it is there.

Results are made up, so that what must be seen is known.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import visit
from made_results import PEAKS, POINTS, alone, comparison, grid, kernels, reports, scaling, sweep

from gemmc import CompileError, DataError, History
from gemmc.bench import figures, figures_sweep, figures_time
from gemmc.bench.__main__ import main as bench
from gemmc.bench.figures_looks import KNOWN, look_of
from gemmc.bench.figures_roofline import plot_roofline
from gemmc.bench.report_html import write
from gemmc.bench.report_parts import short
from gemmc.bench.report_sections import sections
from gemmc.bench.results import Report, Result
from gemmc.bench.sweep_table import worst_first
from gemmc.frontend import figures_style

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.image import imread  # noqa: E402

NAMES = [d.name for r in reports() for s in sections(r) for d in s.drawings]


def drawn(ax: Any) -> str:
    """All words on an Axes."""
    ticks = [t.get_text() for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels()]
    legend = ax.get_legend()
    labels = [t.get_text() for t in legend.get_texts()] if legend else []
    titles = [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
    return "\n".join([*titles, *labels, *ticks, *(t.get_text() for t in ax.texts)])


# Looks


def test_contenders_can_be_told_apart_by_colour_marker_or_hatch_alone() -> None:
    looks = [look_of(name) for name in (*KNOWN, "another")]
    for kind in ("color", "marker", "hatch"):
        assert len({getattr(look, kind) for look in looks}) == len(looks)


def test_a_contender_looks_the_same_everywhere() -> None:
    assert look_of("PyTorch") == look_of("torch") != look_of("torch-tuned")
    bars = figures_time.plot_times(comparison())[0].patches
    curves = figures.plot_curves({c.name: c.history for c in comparison().contenders})[0].lines
    for bar, curve in zip(bars, curves, strict=True):
        assert bar.get_facecolor() == matplotlib.colors.to_rgba(curve.get_color())


# What figures show


def test_bars_are_as_long_as_the_medians_and_error_bars_as_the_quartiles() -> None:
    result = comparison()
    step, first, whole, memory = figures_time.plot_times(result)
    assert [bar.get_width() for bar in step.patches] == pytest.approx([1, 8, 2])  # ms
    assert [bar.get_width() for bar in memory.patches] == pytest.approx([200, 200, 200])  # MB
    for ax, field, scale in ((step, "seconds", 1e3), (whole, "whole_seconds", 1.0)):
        (errors,) = (c.get_segments() for c in ax.collections[:1])
        values = scale * np.array(getattr(result.ours, field))
        assert errors[0][:, 0] == pytest.approx(np.percentile(values, (25, 75)))
    assert "Training step, batch 32, ms" in drawn(step)
    assert "Process start to first step, s" in drawn(first)


def test_what_a_contender_lacks_is_said() -> None:
    ours, torch, jax = comparison().contenders
    lacking = type(jax)(**{**vars(jax), "peak_bytes": ()})
    result = Result(**{**vars(comparison()), "contenders": (ours, torch, lacking)})
    memory = figures_time.plot_times(result)[-1]
    assert "not measured" in drawn(memory) and len(memory.patches) == 2


def test_ratios_stand_where_they_belong_with_their_intervals() -> None:
    ax = figures_time.plot_ratios([comparison()])
    spans = [line for line in ax.lines if len(line.get_xdata()) == 2][:2]
    for span, name in zip(spans, ("torch", "jax"), strict=True):
        assert list(span.get_xdata()) == list(comparison().ratio(name)[1:])
    assert "spiral, train, batch 32: torch" in drawn(ax)


def test_curves_of_all_lie_over_each_other_and_the_lower_ones_are_broader() -> None:
    histories = {c.name: c.history for c in comparison().contenders}
    axes = figures.plot_curves(histories)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "Loss, training",
        "Loss, validation",
        "Accuracy, validation, %",
    ]
    for line in axes[2].lines:
        assert list(line.get_ydata()) == pytest.approx([20, 50, 80])
    widths = [line.get_linewidth() for line in axes[0].lines]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3


def test_gemmcs_own_histories_can_be_drawn_too() -> None:
    own = History([2.0, 1.0], [0.1, 0.5])
    axes = figures.plot_curves({"gemmc": own, "PyTorch": own})
    assert [ax.get_title(loc="left") for ax in axes] == ["Loss, training", "Accuracy, training, %"]
    assert list(axes[1].lines[1].get_ydata()) == pytest.approx([10, 50])


def test_planes_show_the_classes_where_they_are() -> None:
    axes = figures.plot_planes(comparison())
    assert len(axes) == 3 and "torch: test accuracy 90.00%" in drawn(axes[1])
    (image,) = axes[0].images
    left, right, bottom, top = image.get_extent()
    assert left < -1 < 1 < right and bottom < -1 < 1 < top  # by half a pixel
    said = np.array(comparison().ours.plane)
    colors = [tuple(image.get_array()[i, j]) for i, j in ((0, 0), (0, 6), (6, 6))]
    assert image.origin == "lower" and len(set(colors)) == len({said[0, 0], said[0, 6], said[6, 6]})


def test_boundaries_of_two_models_stand_side_by_side() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    right = lambda x: np.stack([-x[:, 0], x[:, 0]], 1)  # noqa: E731
    axes = figures.plot_boundaries({"gemmc": right, "PyTorch": lambda x: -right(x)}, X, y)
    assert "gemmc: 100.0% of 30 points right" in drawn(axes[0])
    assert "PyTorch: 0.0% of 30 points right" in drawn(axes[1])


def test_the_worst_network_of_a_sweep_is_on_top() -> None:
    ax = figures_sweep.plot_sweep(sweep())
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert [int(t.split(":")[0]) for t in labels] == list(range(59, -1, -1))
    assert ax.yaxis_inverted() and "beside torch-compile" in drawn(ax)
    medians = [li.get_xdata()[0] for li in ax.lines if len(li.get_xdata()) == 1]
    assert sorted(medians[-60:], reverse=True) == pytest.approx(
        [r.ratio("torch-tuned").median for r in worst_first(sweep())]
    )


def test_a_grid_has_an_axes_a_side_and_all_its_networks_on_each() -> None:
    axes = figures_sweep.plot_grid(grid())
    assert [ax.get_title(loc="left") for ax in axes] == ["channels", "kernel", "stride", "batch"]
    for ax in axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert sum(len(line.get_ydata()) for line in dots) == len(grid())


def test_work_has_a_mark_a_network() -> None:
    lines = figures_sweep.plot_work(sweep()).lines
    marks = [line for line in lines if line.get_marker() in ("o", "s")]
    assert sum(len(line.get_xdata()) for line in marks) == 60


def test_scaling_shows_microseconds_a_sample() -> None:
    batch, channels, threads = figures_sweep.plot_scaling(scaling(POINTS))
    ours, torch = (c.lines[0] for c in channels.containers)
    assert list(ours.get_xdata()) == [4, 16, 64]
    assert list(ours.get_ydata()) == pytest.approx([2, 8, 32])
    assert list(torch.get_ydata()) == pytest.approx([8, 32, 128])
    assert "Channels; batch 128, 2 threads" in drawn(channels)
    assert list(threads.containers[0].lines[0].get_ydata()) == pytest.approx([16, 8])
    assert list(batch.containers[0].lines[0].get_xdata()) == [1, 8, 128]


def test_the_roofline_has_kernels_where_they_ran_and_roofs_where_the_peaks_are() -> None:
    ax = plot_roofline(kernels(), PEAKS)
    marks = {li.get_label(): li for li in ax.lines if li.get_label() in ("blas", "winograd")}
    assert marks["blas"].get_xdata() == pytest.approx([10]) and marks["blas"].get_ydata() == [100]
    assert marks["winograd"].get_xdata() == pytest.approx([40])
    assert "loops" not in drawn(ax)  # a kernel without products
    roofs = [li for li in ax.lines if len(li.get_xdata()) == 2]
    knees = [li.get_xdata()[1] for li in roofs[:2]]
    assert knees == pytest.approx([0.5, 5])  # FLOP a byte: 200 GFLOP/s over 400 and 40 GB/s
    assert all(li.get_ydata()[1] == pytest.approx(200) for li in roofs)


WRONG = {
    "nobody to draw": (lambda: figures.plot_curves({}), "histories: have no epochs"),
    "no model": (lambda: figures.plot_boundaries({}, np.zeros((1, 2)), [0]), "models: is empty"),
    "no points": (lambda: figures.plot_planes(alone()), "mlp: has no planes"),
    "nobody beside": (lambda: figures_time.plot_ratios([alone()]), "gemmc was measured alone"),
    "no products": (lambda: plot_roofline(kernels()[2:], PEAKS), "kernels: none has a product"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_drawn_is_refused(wrong: str) -> None:
    draw, said = WRONG[wrong]
    with pytest.raises(DataError, match=re.escape(said)):
        draw()


# The page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_style, "DPI", 40)  # writing a PNG takes longer than drawing it
        write(reports(), made)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_every_figure_is_in_the_page_and_beside_it(folder: Path, page: str) -> None:
    assert len(set(NAMES)) == len(NAMES) == 12
    for name in NAMES:
        assert f'id="figure-{name}"' in page
        assert imread(folder / f"{name}.png").std() > 0.01
    assert {path.stem for path in folder.glob("*.png")} == set(NAMES)


def test_the_page_needs_nothing_else(page: str) -> None:
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "<script" not in page and "@import" not in page
    assert all(use.startswith("#") for use in re.findall(r"url\((.*?)\)", page))


def test_the_page_has_every_id_once_and_refers_to_those_there_are(page: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert used and set(itertools.chain(*used)) - {""} <= set(ids)


def test_every_picture_of_the_page_is_well_formed(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) == len(NAMES)
    for picture in pictures:
        ElementTree.fromstring(picture.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def test_the_page_says_what_was_measured(page: str) -> None:
    assert "points &amp; &lt;arms&gt;: training" in page  # escaped
    assert "A is slow" in page and "Did not take part: keras: pip" in page
    ratio = comparison().ratio("torch")
    for text in (short(ratio.median), f"{short(ratio.low)} to {short(ratio.high)}", "90.00%"):
        assert f"<td>{text}</td>" in page
    worst = page.index(f"<td>{worst_first(sweep())[0].title}</td>")
    assert worst < page.index(f"<td>{worst_first(sweep())[-1].title}</td>")
    assert "<td>winograd</td>" in page and "200 GFLOP/s" in page


def test_a_doubt_stands_above_the_times_that_it_is_about(tmp_path: Path) -> None:
    doubted = replace(alone(), warnings=("a <noisy> machine",))
    page = write([replace(reports()[0], results=(doubted,))], tmp_path)[0].read_text()
    at = page.index('<p class="warning">a &lt;noisy&gt; machine</p>')
    assert page.index("an MLP: inference") < at < page.rindex("<table")


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (4.5678, "4.57"), (999.4, "999"), (7890.1, "7,890")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


MEASURE = """
seen.figures = [...document.querySelectorAll("figure svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll("path, use, image")].filter(
    (one) => one.getBoundingClientRect().width > 0);
  return [svg.id, box.width, box.height, marks.length];
});
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.ink = getComputedStyle(document.querySelector("svg text")).fill;
seen.page = getComputedStyle(document.body).color;
"""


def test_a_browser_shows_every_figure_without_a_message(page: str, tmp_path: Path) -> None:
    seen = visit(page, tmp_path, MEASURE)
    assert [name for name, *_ in seen["figures"]] == [f"figure-{name}" for name in NAMES]
    for _, width, height, marks in seen["figures"]:
        assert width > 200 and height > 60 and marks > 5
    assert seen["wide"] == 0  # nothing sticks out on the right
    assert seen["ink"] == seen["page"]  # text in figures is the page's, dark or light


def test_a_saved_report_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.json"
    reports()[4].save(file)
    words = ["report", str(file), str(file), "--out", str(tmp_path / "new" / "folder")]
    assert bench(words) == 0
    made = tmp_path / "new" / "folder"
    assert {path.name for path in made.iterdir()} == {
        "report.html",
        "roofline.png",
        "roofline_2.png",  # of the second file
    }
    assert capsys.readouterr().out.count("wrote ") == 3


def test_a_page_that_cannot_be_made_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(["report", str(tmp_path / "none.json"), "--out", str(tmp_path)]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().err
    file = tmp_path / "made.json"
    Report("gemmc bench", "today", reports()[0].machine).save(file)
    assert bench(["report", str(file), "--out", str(file)]) == 2
    assert f"--out: {file}: " in capsys.readouterr().err


def test_without_matplotlib_the_line_that_brings_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(CompileError, match=re.escape("pip install 'gemmc[plot]'")):
        write(reports(), tmp_path)
