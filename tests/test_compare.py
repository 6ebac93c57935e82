"""`gemmc bench MODEL`: what it prints and writes, and that it notices who is slow, or wrong."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_peers import NAPS

from gemmc.__main__ import main as gemmc
from gemmc.bench import compare, peers
from gemmc.bench.__main__ import main as bench
from gemmc.bench.results import Report, Result, load

MODEL = """
from gemmc import *
model = Sequential(
    [Linear(6, 8), ReLU(), Linear(8, 3), Softmax()], CrossEntropyLoss(), Adam(lr=1e-2), seed=3
)
class Double(Module):
    def forward(self, x):
        return x * 2.0
own = Sequential([Linear(6, 8), Double(), Linear(8, 3)], CrossEntropyLoss(), SGD(lr=1e-2))
regression = Sequential([Linear(6, 8), ReLU(), Linear(8, 3)], MSELoss(), SGD(lr=1e-2))
untrained = Sequential([Linear(6, 8)])
number = 3
"""
ODD = ("slow", "wrong", "shifted", "twin", "dies", "unable", "lonely")
QUICK = ["--repeat", "3", "--seconds", "0.01", "--threads", "1"]
Bench = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Runs `gemmc bench` on a small model of MODEL; peers of odd_peers.py may take part."""
    monkeypatch.setattr(compare, "SITTINGS", 1)  # a process takes a second to start
    odd = str(Path(__file__).with_name("odd_peers.py"))
    for name in ODD:
        monkeypatch.setitem(peers.PEERS, name, peers.Peer(odd, ("numpy",), "pip install numpy"))
    (tmp_path / "model.py").write_text(MODEL)

    def run(*words: str, model: str = "model") -> int:
        named = f"{tmp_path / 'model.py'}:{model}"
        return bench([named, "--input-shape", "6", "--batch", "8", *QUICK, *words])

    return run


def only_result(path: Path) -> Result:
    (result,) = load(path).results
    return result


def test_a_slowed_contender_is_seen_to_be_slower(run: Bench, tmp_path: Path) -> None:
    assert run("--against", "slow,twin", "--json", f"{tmp_path}/r.json") == 0
    result = only_result(tmp_path / "r.json")
    # an epoch is 256 steps: whoever naps takes longer than the nap, whatever the machine does
    assert min(result.contender("slow").seconds) > NAPS / 256
    assert result.ratio("slow").high < 0.5
    assert result.ratio("slow").high < result.ratio("twin").low


@pytest.mark.parametrize(
    "name, mode, what",
    [("wrong", "train", "loss of step 2"), ("shifted", "infer", "output 1")],
)
def test_who_computes_something_else_is_named_and_nothing_is_timed(
    name: str, mode: str, what: str, run: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("--against", name, "--mode", mode, "--json", f"{tmp_path}/r.json") == 2
    shown = capsys.readouterr()
    assert f"{name}: {what} is" in shown.err and "they do not" in shown.err
    assert "rounds" not in shown.out and not (tmp_path / "r.json").exists()


def test_a_contender_that_dies_is_named(run: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--against", "dies") == 2
    assert "dies: its process ended, exit code 3" in capsys.readouterr().err


def test_who_cannot_make_the_model_is_left_out_with_the_reason(
    run: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--against", "unable,lonely,onnxruntime", "--json", f"{tmp_path}/r.json") == 0
    result = only_result(tmp_path / "r.json")
    assert [c.name for c in result.contenders] == ["gemmc"]
    assert result.absent["unable"] == "no layer at all"
    assert result.absent["lonely"] == "gemmc is not loaded"  # in a peer's process
    assert "onnxruntime: " in capsys.readouterr().out


def test_pytorch_and_gemmc_train_and_predict_the_same(run: Bench, tmp_path: Path) -> None:
    words = ("--against", "torch-tuned,gemmc-steps", "--mode", "both")
    assert run(*words, "--json", f"{tmp_path}/r.json") == 0
    report = load(tmp_path / "r.json")
    assert [r.mode for r in report.results] == ["train", "infer"]
    train, infer = report.results
    names = ["gemmc", "torch-tuned", "gemmc-steps"]
    assert [c.name for c in train.contenders] == [c.name for c in infer.contenders] == names
    for contender in train.contenders:
        assert len(contender.seconds) == 3 and len(contender.first_losses) == 20
        # 20 steps of float32 from equal weights
        np.testing.assert_allclose(contender.first_losses, train.ours.first_losses, rtol=1e-4)
    assert len(set(train.ours.first_losses)) == 20  # it trains


@pytest.mark.parametrize("model", ["own", "regression"])
def test_models_of_any_kind_are_measured(model: str, run: Bench, tmp_path: Path) -> None:
    assert run("--against", "torch", "--json", f"{tmp_path}/r.json", model=model) == 0
    result = only_result(tmp_path / "r.json")
    assert result.ours.seconds
    assert ("torch" in result.absent) is (model == "own")  # it does not know the layer


def test_a_model_in_a_file_learns_from_data_in_a_file(run: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 6), np.float32)
    np.savez(tmp_path / "data.npz", X=X, y=(X[:, 0] > 0).astype(np.int64))
    words = ("--data", f"{tmp_path}/data.npz", "--epochs", "20", "--against", "twin")
    assert run(*words, "--json", f"{tmp_path}/r.json") == 0
    ours, twin = only_result(tmp_path / "r.json").contenders
    assert ours.test_accuracies == twin.test_accuracies and ours.history == twin.history
    assert ours.test_accuracies[0] > 0.9  # one feature tells


def test_an_experiment_is_trained_as_a_whole_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["spiral", *QUICK, "--epochs", "3", "--runs", "2", "--json", f"{tmp_path}/r.json"]
    assert gemmc(["bench", *words]) == 0
    shown = capsys.readouterr().out
    assert "not here: torch: pip install 'gemmc[torch]'" in shown
    report = load(tmp_path / "r.json")
    assert report.command == " ".join(["gemmc bench", *words[:-2]])  # without places
    (result,) = report.results
    ours = result.ours
    assert set(result.absent) == {"torch", "torch-tuned"} and len(result.contenders) == 1
    assert result.epochs == len(ours.history.loss) == len(ours.history.val_accuracy) == 3
    assert len(ours.whole_seconds) == len(ours.test_accuracies) == len(ours.peak_bytes) == 2
    assert ours.test_accuracies[0] != ours.test_accuracies[1]  # each run has a seed of its own
    assert ours.history.val_loss[0] > ours.history.val_loss[-1]
    assert np.array(ours.plane).shape == (80, 80) and len(result.extent) == 4
    assert "blas" in shown and report.machine.cores >= 1


@pytest.mark.slow
def test_all_contenders_that_are_here_train_the_example_cnn_alike(tmp_path: Path) -> None:
    others = "torch,torch-tuned,torch-compile,jax,keras,tinygrad,onnxruntime"
    words = ["lenet", *QUICK, "--mode", "both", "--epochs", "1", "--against", others]
    assert bench([*words, "--json", f"{tmp_path}/r.json"]) == 0
    train, _ = load(tmp_path / "r.json").results
    accuracies = [c.test_accuracies[0] for c in train.contenders]
    assert "torch-compile" in {c.name for c in train.contenders}
    assert np.ptp(accuracies) < 0.02  # of 1,050 rows: rounding parts them by a few


WRONG_LINES = [
    [],
    ["fly"],
    ["spiral", "--against", "theano"],
    ["spiral", "--against", "gemmc"],
    ["spiral", "--mode", "sleep"],
    ["spiral", "--batch", "0"],
    ["spiral", "--batch", "many"],
    ["spiral", "--threads", "0"],
    ["spiral", "--repeat", "0"],
    ["spiral", "--repeat", "1"],
    ["spiral", "--runs", "0"],
    ["spiral", "--epochs", "-1"],
    ["spiral", "--json", "no/such/folder/r.json"],
    ["spiral", "--plots", "{folder}/model.py/figures"],
    ["sweep", "--json", "no/such/folder/r.json"],
    ["sweep", "--plots", "{folder}/model.py"],
    ["scaling", "--json", "{folder}"],
    ["scaling", "--plots", "{folder}/model.py/figures"],
    ["kernels", "--json", "no/such/folder/r.json"],
    ["kernels", "--plots", "{folder}/model.py/figures"],
    ["report", "r.json", "--out", "{folder}/model.py"],
    ["nowhere.py:model"],
    ["{folder}/model.py:absent", "--input-shape", "6"],
    ["{folder}/model.py:number", "--input-shape", "6"],
    ["{folder}/model.py:untrained", "--input-shape", "6"],
    ["{folder}/model.py:model"],
    ["{folder}/model.py:model", "--input-shape", "six"],
    ["{folder}/model.py:model", "--input-shape", "6", "--epochs", "2"],
    ["{folder}/model.py:model", "--data", "{folder}/none.npz"],
    ["{folder}/model.py:model", "--data", "{folder}/model.py"],
    ["{folder}/model.py:model", "--input-shape", "7"],
]


@pytest.mark.parametrize("line", WRONG_LINES, ids=" ".join)
def test_a_wrong_command_is_one_line_before_anything_is_measured(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    try:
        code = bench([word.replace("{folder}", str(tmp_path)) for word in line])
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.count("\n") == 1 and shown.err.startswith("gemmc bench"), shown.err
    assert shown.out == ""


@pytest.mark.parametrize("what", ["spiral", "sweep", "scaling", "kernels"])
def test_figures_without_matplotlib_are_refused_before_anything_is_measured(
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert bench([what, "--plots", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "gemmc[plot]" in shown.err
    assert shown.out == ""


def test_help_names_models_and_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        gemmc(["bench", "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert all(word in shown for word in ("fashion-mnist", "lenet", "FILE.py:NAME", "sweep"))


def test_a_report_reads_back_as_it_was_written(tmp_path: Path, run: Bench) -> None:
    assert run("--against", "twin", "--json", f"{tmp_path}/r.json") == 0
    report = load(tmp_path / "r.json")
    report.save(tmp_path / "again.json")
    assert isinstance(report, Report) and load(tmp_path / "again.json") == report
