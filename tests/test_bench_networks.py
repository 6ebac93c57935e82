"""Benchmarks of many networks: the grid, the sweep's tables, and scaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import POINTS, grid, of_network, scaling, sweep
from torch.utils.flop_counter import FlopCounterMode

from gemmc import DataError
from gemmc.bench import parity
from gemmc.bench.__main__ import main as bench
from gemmc.bench.grid import GRID, grid_models
from gemmc.bench.models import task_of
from gemmc.bench.peers.pytorch import network
from gemmc.bench.results import load
from gemmc.bench.sample import Sample, sample_models
from gemmc.bench.scaling import along, point_of, scaled_model
from gemmc.bench.steps import TUNED, doubts
from gemmc.bench.sweep import spaced
from gemmc.bench.sweep_table import by_side, summary, table, worst_first
from gemmc.frontend.experiments import fashion_model
from gemmc.frontend.trace import output_type

WHOLE_GRID = grid_models(GRID)
SMALL = [s for s in WHOLE_GRID if s.flops < 5e6]  # FLOP: compared in a fraction of a second


def test_the_grid_has_every_place_that_is_within_the_limits() -> None:
    places = {tuple(s.place[side] for side in GRID) for s in WHOLE_GRID}
    assert len(places) == len(WHOLE_GRID) == 105
    assert max(s.flops for s in WHOLE_GRID) <= 20e9
    for side, values in GRID.items():
        assert {s.place[side] for s in WHOLE_GRID} == set(values)


@pytest.mark.parametrize("sample", WHOLE_GRID[::13], ids=lambda s: f"no{s.number}")
def test_a_network_of_the_grid_is_what_its_place_says(sample: Sample) -> None:
    place, convolutions = sample.place, [a for name, a in sample.layers if name == "Conv2d"]
    assert sample.batch == place["batch"]
    assert sample.input_shape == (3, place["image"], place["image"])
    assert [c["out_channels"] for c in convolutions] == [place["channels"]] * 2
    assert [c["stride"] for c in convolutions] == [1, place["stride"]]
    assert {c["kernel_size"] for c in convolutions} == {place["kernel"]}
    assert output_type(sample.model(), sample.input_shape).shape[1:] == (10,)


@pytest.mark.parametrize("sample", SMALL[::6], ids=lambda s: f"no{s.number}")
def test_gemmc_and_pytorch_compute_alike_on_the_grid(sample: Sample) -> None:
    assert parity.check(sample, "auto", threads=1) == []


def test_the_flops_of_the_grid_are_those_that_pytorch_counts() -> None:
    sample = SMALL[-1]
    x, y = sample.data()
    rows = {"batch": sample.batch, "threads": 1, "rows": len(x), "runtime": "auto"}
    task = task_of(sample.model(), {"x": x, "y": y}, **rows)
    with FlopCounterMode(display=False) as counter:
        logits = network(task)(torch.from_numpy(x[: sample.batch]))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[: sample.batch])).backward()
    assert sample.flops == counter.get_total_flops()


def test_a_grid_needs_numbers_of_at_least_1() -> None:
    with pytest.raises(DataError, match=r"--kernel: got \[3, 0\], expected numbers of at least 1"):
        grid_models({**GRID, "kernel": (3, 0)})


@pytest.mark.parametrize(("count", "wanted"), [(60, 6), (105, 6), (3, 6), (1, 1), (5, 0)])
def test_those_that_are_compiled_are_spread_evenly(count: int, wanted: int) -> None:
    chosen = sorted(spaced(count, wanted))
    assert len(chosen) == min(count, wanted) and set(chosen) <= set(range(count))
    apart = np.diff([*chosen, count])
    assert max(apart, default=0) - min(apart, default=0) <= 1


def test_the_table_of_a_sweep_is_sorted_worst_first() -> None:
    lines = table(sweep()).split("\n")[1:61]
    ratios = [float(line.split()[0]) for line in lines]
    assert ratios == sorted(ratios, reverse=True) and len(ratios) == 60
    assert lines[0].endswith(str(sample_models()[59]))
    assert [r.facts["number"] for r in worst_first(sweep())] == list(range(59, -1, -1))


def test_the_summary_of_a_sweep_hides_nothing() -> None:
    said = summary(sweep())
    assert said[0] == "median of all 60: 0.395"
    small = [0.1 + s.number / 100 for s in sample_models() if s.flops < 50e6]
    assert said[1] == f"median of {len(small)} below 50 MFLOP: {np.median(small):.3f}"
    assert said[2] == "worst: 0.690, slower than PyTorch: 0"
    assert said[3] == "beside torch-compile, 3 networks: median 0.300, worst 0.500"
    slow = of_network("sweep", sample_models()[0], 1.5)
    assert "worst: 1.500, slower than PyTorch: 1" in summary([*sweep(), slow])


def test_a_grid_is_summed_up_along_its_sides() -> None:
    assert [value for value, _ in by_side("channels", grid())] == [4, 16]
    said = "\n".join(summary(grid()))
    assert "median by kernel    1: 0.100   3: 0.300   5: 0.500" in said
    assert "median by stride    1: 0.300   2: 0.300" in said
    assert "by image" not in said  # of one value only


def test_doubtful_results_are_named() -> None:
    quiet, *others = sweep()[:3]
    noisy = [type(r)(**{**vars(r), "warnings": ("noisy",)}) for r in others]
    assert doubts([quiet], str) == []
    (line,) = doubts([quiet, *noisy], lambda r: str(r.facts["number"]))
    assert line.startswith("! 2 of 3 doubtful (") and line.endswith("): 1, 2")
    assert line in summary([quiet, *noisy])


@pytest.mark.parametrize(
    ("side", "values"),
    [("batch", [1, 8, 128]), ("channels", [4, 16, 64]), ("threads", [1, 2])],
)
def test_scaling_is_read_along_one_side_while_the_others_stay(side: str, values: list[int]) -> None:
    found = along(side, scaling(POINTS))
    assert [getattr(point_of(r), side) for r in found] == values


def test_the_scaled_model_of_16_channels_is_the_example_cnn() -> None:
    assert str(scaled_model(16)) == str(fashion_model(0))


WRONG = {
    "a number that no network has": (["sweep", "--only", "99"], "--only: no such network"),
    "a number in words": (["sweep", "--only", "three"], "--only"),
    "a grid with a stride of 0": (["sweep", "--grid", "--stride", "0"], "--stride: got"),
    "no rounds": (["sweep", "--repeat", "0"], "--repeat: got 0"),
    "no threads": (["scaling", "--threads", "0"], "--threads: got 0"),
    "batches of nothing": (["scaling", "--batches", "8", "0"], "--batches: got 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_measured_is_refused_in_a_line(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = WRONG[wrong]
    try:
        code = bench(words)
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_and_scaling_measure_and_keep_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--repeat", "2", "--seconds", "0.001", "--threads", "1"]
    file = tmp_path / "made.json"
    assert bench(["sweep", "--only", "8,47", "--compiled", "0", "--json", str(file), *quick]) == 0
    results = load(file).results
    assert [r.facts["number"] for r in results] == [8, 47]
    assert all(len(c.seconds) == 2 for r in results for c in r.contenders)
    assert all(r.ratio(TUNED).median > 0 for r in results)
    few = [*quick, "--batches", "8", "--channels", "4", "--batch", "16", "--threads", "2"]
    assert bench(["scaling", "--json", str(file), *few]) == 0
    points = {point_of(r) for r in load(file).results}
    assert points == {(8, 16, 2), (16, 4, 2), (16, 16, 2), (16, 16, 1)}
    assert "in turns, on 2 threads and on one: " in capsys.readouterr().out


def test_a_network_that_is_computed_otherwise_stops_the_sweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gemmc.bench.sweep.check", lambda *given: ["loss of step 0: 0.1"])
    assert bench(["sweep", "--only", "8", "--parity"]) == 2
    assert "network 8, 7 linear 86, linear 12:\n  loss of step 0: 0.1" in capsys.readouterr().err
