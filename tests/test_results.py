"""Results of benchmarks: what they keep, what they refuse, and when they say that it was noisy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemmc import DataError
from gemmc.bench import noise, same, tables
from gemmc.bench.machine import Watch, machine
from gemmc.bench.publish import measuring
from gemmc.bench.results import Contender, History, Report, Result, load

ROUNDS = 8


def contender(name: str, ms: float, spread: float = 0.02, **more: Any) -> Contender:
    """One whose rounds take `ms`, and a part of it, the spread, more in every other round."""
    seconds = tuple(1e-3 * ms * (1 + spread * (i % 2)) for i in range(ROUNDS))
    begun = {"compile_seconds": (0.2,), "first_seconds": (0.5,), "peak_bytes": (200_000_000,)}
    return Contender(name, "1.0", seconds, **{**begun, **more})


def result(*contenders: Contender, **more: Any) -> Result:
    settings = {"batch": 32, "threads": 2, "runtime": "auto", "epochs": 0}
    return Result("spiral", "spiral, MLP", "train", **settings, contenders=contenders, **more)


def report(*results: Result) -> Report:
    return Report("gemmc bench spiral", "2026-11-23", machine(), results)


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    history = History((2.0, 1.0), (2.1, 1.1), (0.1, 0.6))
    tested = {"history": history, "test_losses": (1.0,), "test_accuracies": (0.5,)}
    ours = contender("gemmc", 1, whole_seconds=(3.0,), plane=((0, 1), (2, 0)), **tested)
    made = report(result(ours, contender("torch", 2), absent={"jax": "pip install jax"}))
    made.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == made


WRONG_FILES: dict[str, tuple[Callable[[dict], object], str]] = {
    "another format": (lambda r: r.update(format="csv"), "format: got 'csv', expected"),
    "a field that is missing": (lambda r: r.pop("date"), "missing ['date']"),
    "a field that nobody knows": (lambda r: r.update(mood="good"), "not known ['mood']"),
    "text for a number": (
        lambda r: r["results"][0]["contenders"][1]["seconds"].__setitem__(3, "fast"),
        "results[0].contenders[1].seconds[3]: got 'fast', expected float",
    ),
    "a number for a list": (
        lambda r: r["results"][0].update(contenders=3),
        "results[0].contenders: got 3, expected tuple",
    ),
    "a time below 0": (
        lambda r: r["results"][0]["contenders"][1]["seconds"].__setitem__(0, -1.0),
        "torch: seconds: got",
    ),
    "a round too few": (
        lambda r: r["results"][0]["contenders"][1]["seconds"].pop(),
        "expected as many of each",
    ),
    "no gemmc": (lambda r: r["results"][0]["contenders"].pop(0), "contenders: got ['torch']"),
    "another mode": (lambda r: r["results"][0].update(mode="sleep"), "mode: got 'sleep'"),
}


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_file_that_is_no_report_is_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    report(result(contender("gemmc", 1), contender("torch", 2))).save(path)
    read = json.loads(path.read_text())
    change, message = WRONG_FILES[wrong]
    change(read)
    path.write_text(json.dumps(read))
    with pytest.raises(DataError) as error:
        load(path)
    assert message in str(error.value)


def test_files_that_are_not_there_or_no_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(DataError, match=r"text\.json: is no JSON"):
        load(tmp_path / "text.json")
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        load(tmp_path / "none.json")


def test_ratios_are_taken_round_by_round() -> None:
    slow_rounds = np.where(np.arange(ROUNDS) % 3 == 0, 4.0, 1.0)  # of the whole machine
    ours = Contender("gemmc", seconds=tuple(0.001 * slow_rounds))
    torch = Contender("torch", seconds=tuple(0.005 * slow_rounds))
    assert result(ours, torch).ratio("torch") == pytest.approx((0.2, 0.2, 0.2))


def test_quiet_rounds_give_no_warning() -> None:
    assert noise.warnings([contender("gemmc", 1), contender("torch", 2)], others=0.01) == ()


@pytest.mark.parametrize(
    "torch, others, said",
    [
        (contender("torch", 2), 0.4, "other processes took 40% of the cores"),
        (contender("torch", 2, spread=0.6), 0.0, "torch: the machine was too noisy to tell"),
        (contender("torch", 1, spread=-0.02), 0.0, "torch: no telling who is faster"),
    ],
)
def test_noise_is_told(torch: Contender, others: float, said: str) -> None:
    (warning,) = noise.warnings([contender("gemmc", 1), torch], others)
    assert said in warning


def test_a_few_rounds_are_too_few() -> None:
    few = Contender("gemmc", seconds=(1.0,) * 5)
    assert "5 rounds" in noise.warnings([few], others=float("nan"))[0]


def test_work_of_other_processes_is_seen_and_ones_own_is_not() -> None:
    with Watch([]) as watch:
        sum(range(3_000_000))
    assert np.isnan(watch.others) or 0 <= watch.others <= 1


GROWING = [0, 1e-7, 2e-5, 1e-4, 2e-3, 5e-2]  # relative: rounding, in a deep network


def test_losses_may_part_as_rounding_does() -> None:
    torch = [2.0, 1.5, 1.2, 1.1, 1.0, 0.9]
    ours = [loss * (1 + apart) for loss, apart in zip(torch, GROWING, strict=True)]
    assert same.check_losses({"gemmc": ours, "torch": torch}) == pytest.approx(0.05)


@pytest.mark.parametrize("step, loss", [(1, 2.00001), (2, 1.50003), (4, 1.101), (6, float("nan"))])
def test_losses_that_part_otherwise_are_noticed(step: int, loss: float) -> None:
    torch = [2.0, 1.5, 1.2, 1.1, 1.0, 0.9]
    wrong = [*torch[: step - 1], loss, *torch[step:]]
    with pytest.raises(
        same.Parted, match=f"gemmc: loss of step {step} is .*, torch's {torch[step - 1]:g},"
    ):
        same.check_losses({"gemmc": wrong, "torch": torch})


def test_the_table_has_every_contender_every_column_and_every_doubt() -> None:
    tested = {"whole_seconds": (3.0, 5.0), "test_losses": (0.3, 0.5), "test_accuracies": (0.8, 0.9)}
    made = [contender(n, ms, **tested) for n, ms in (("gemmc", 1), ("torch", 2))]
    both = result(*made, absent={"jax": "pip install jax"}, warnings=("too noisy",))
    shown = tables.table(Result(**{**vars(both), "epochs": 7}))
    assert "torch                2.02   2 to 2.04            0.500 (0.500 to 0.500)" in shown
    assert "torch                0.20     0.50      200     4.00    85.00%   0.400" in shown
    assert "not here: jax: pip install jax" in shown and "! too noisy" in shown
    assert "7 epochs" in shown and "2 seeds" in shown


def test_the_best_of_several_torches_is_the_fastest_in_each_round() -> None:
    taken = {"gemmc": (1.0, 1.0, 1.0), "torch": (4.0, 2.0, 4.0), "torch-tuned": (2.0, 8.0, 2.0)}
    made = [replace(contender(name, 1), seconds=seconds) for name, seconds in taken.items()]
    (best,) = (s for s in tables.table(result(*made)).split("\n") if s.startswith("best torch"))
    assert best.split()[2:6] == ["2", "2", "to", "2"] and "0.500 (0.500 to 0.500)" in best


def test_a_command_is_kept_without_the_places_of_its_results() -> None:
    words = ["spiral", "--json=a.json", "--plots", "b", "--repeat=6", "--json", "c.json"]
    assert measuring(words) == ["spiral", "--repeat=6"]


def test_the_machine_names_what_holds_a_contender_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shown = str(machine())
    assert "OMP_NUM_THREADS=1" in shown and "BLAS" in shown and "numpy" in shown
