"""The command line: what commands print, and that what is refused is one line and exit code 2."""

import os
import subprocess
import sys

import pytest

import gemmc
from gemmc.__main__ import main
from gemmc.bench.__main__ import main as bench
from gemmc.frontend.command_line import check_file, check_folder, many
from gemmc.frontend.experiments import EXPERIMENTS, spiral_model
from gemmc.ir import parse

MODEL_FILE = """
from gemmc import *
model = Sequential([Linear(3, 2), ReLU()], MSELoss(), SGD())
number = 3
"""

WRONG_LINES = [
    [],
    ["fly"],
    ["train"],
    ["train", "mnist"],
    ["train", "spiral", "--epochs"],
    ["train", "spiral", "--epochs", "x"],
    ["train", "spiral", "--epochs", "1.5"],
    ["train", "spiral", "--epochs", "-1"],
    ["train", "spiral", "--batch-size", "0"],
    ["train", "spiral", "--batch-size", "-3"],
    ["train", "spiral", "--batch-size", "many"],
    ["train", "spiral", "--seed", "-1"],
    ["train", "spiral", "--seed", "x"],
    ["train", "spiral", "--runtime", "cuda"],
    ["train", "spiral", "--threads", "0"],
    ["train", "spiral", "--threads", "two"],
    ["train", "spiral", "extra"],
    ["train", "spiral", "--subset", "--epochs", "1", "--save", "no/such/folder/m.safetensors"],
    ["train", "spiral", "--plots", "{folder}/model.py"],
    ["train", "spiral", "--subset", "--epochs", "1", "--plots", "{folder}/model.py/figures"],
    ["train", "spiral", "--save", "{folder}"],
    ["train", "spiral", "--unknown"],
    ["evaluate"],
    ["evaluate", "no-such-file"],
    ["evaluate", "."],
    ["evaluate", "{folder}/text.safetensors"],
    ["evaluate", "{folder}/empty.safetensors"],
    ["evaluate", "{folder}/other.safetensors"],
    ["dump"],
    ["dump", "mnist"],
    ["dump", "model.txt:model"],
    ["dump", "nowhere.py:model"],
    ["dump", "{folder}/model.py"],
    ["dump", "{folder}/model.py:"],
    ["dump", "{folder}/model.py:absent"],
    ["dump", "{folder}/model.py:number"],
    ["dump", "{folder}/model.py:model"],
    ["dump", "{folder}/model.py:model", "--input-shape", "a,b"],
    ["dump", "{folder}/model.py:model", "--input-shape", "0"],
    ["dump", "{folder}/model.py:model", "--input-shape", "5"],
    ["dump", "spiral", "--stage", "magic"],
    ["dump", "spiral", "--program", "backwards"],
    ["dump", "spiral", "--batch-size", "0"],
    ["dump", "spiral", "--context"],
    ["dump", "spiral", "--context", "--stage", "plan"],
    ["dump", "spiral", "--after-change", "--stage", "fuse"],
    ["dump", "spiral", "--runtime", "blas", "--stage", "loops"],
    ["dump", "--pass", "fuse"],
    ["dump", "--pass", "", "{folder}/little.ir"],
    ["dump", "--pass", "magic", "{folder}/little.ir"],
    ["dump", "--pass", "trace", "{folder}/little.ir"],
    ["dump", "--pass", "plan,fuse", "{folder}/little.ir"],
    ["dump", "--pass", "plan,loops", "{folder}/little.ir"],
    ["dump", "--pass", "fuse", "--stage", "fuse", "{folder}/little.ir"],
    ["dump", "--pass", "fuse", "--program", "step", "{folder}/little.ir"],
    ["dump", "--pass", "fuse", "--batch-size", "0", "{folder}/little.ir"],
    ["dump", "--pass", "fuse", "{folder}/nowhere.ir"],
    ["dump", "--pass", "fuse", "{folder}/model.py"],
    ["dump", "--pass", "fuse", "spiral"],
    ["verify"],
    ["verify", "{folder}"],
    ["verify", "{folder}/nowhere.ir"],
    ["verify", "{folder}/text.safetensors"],
    ["verify", "{folder}/other.safetensors"],
    ["verify", "{folder}/empty.safetensors"],
    ["verify", "{folder}/image.png"],
    ["explain", "spiral", "--html", "{folder}"],
    ["explain", "spiral", "--html", "{folder}/no/page.html"],
    ["profile", "spiral", "--trace", "{folder}/no/trace.json"],
    ["profile", "spiral", "--json", "{folder}"],
    ["doctor", "now"],
    ["demo", "--fast"],
]


@pytest.fixture
def folder(tmp_path):
    """A folder with files that are not what they seem."""
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "model.py").write_text(MODEL_FILE)
    (tmp_path / "little.ir").write_text("graph g(%x: f32[3]) {\n  return y=%x\n}")
    (tmp_path / "image.png").write_bytes(bytes(range(256)) * 32)
    other = gemmc.Sequential([gemmc.Linear(7, 3)])
    other.save(tmp_path / "other.safetensors")
    return tmp_path


@pytest.mark.parametrize("line", WRONG_LINES, ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(line, folder, capsys):
    code = _code([part.replace("{folder}", str(folder)) for part in line])
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.startswith("gemmc")
    assert "Traceback" not in shown.err
    assert len(shown.err) < 600, "a whole file in a message"
    assert not {"epoch", "total"} & {*shown.out.split()}, "refused only after training or measuring"


UNWRITABLE = [
    *(["explain", "spiral", "--html"], ["profile", "spiral", "--repeat", "1", "--trace"]),
    ["profile", "spiral", "--repeat", "1", "--json"],
]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("line", UNWRITABLE, ids=" ".join)
def test_what_cannot_be_written_after_all_names_its_option(line, capsys):
    assert main([*line, "/dev/full"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"gemmc: {line[-1]}: /dev/full: cannot be written to: No space")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_folder_that_nobody_can_make_is_refused_before_training(capsys):
    assert main(["train", "spiral", "--subset", "--epochs", "1", "--plots", "/proc/figures"]) == 2
    shown = capsys.readouterr()
    assert "--plots: /proc/figures: cannot be written to" in shown.err
    assert shown.out == ""


def test_checking_where_figures_go_leaves_nothing_there(tmp_path):
    check_folder("--plots", tmp_path / "some" / "figures")
    check_file("--json", tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def _code(line):
    try:
        return main(line)
    except SystemExit as end:
        return end.code


def test_train_saves_a_model_that_evaluate_tests_alike(tmp_path, capsys):
    file = str(tmp_path / "m.safetensors")
    assert (
        main(["train", "spiral", "--subset", "--epochs", "2", "--seed", "3", "--save", file]) == 0
    )
    trained = capsys.readouterr().out
    assert main(["evaluate", file, "--subset"]) == 0
    tested = capsys.readouterr().out
    line = next(line for line in trained.splitlines() if line.startswith("test loss"))
    assert line.rsplit(",", 1)[0] in tested


def test_a_model_is_not_tested_on_rows_that_it_was_trained_on(tmp_path, capsys):
    file = tmp_path / "m.safetensors"
    words = ["train", "fashion-mnist", "--subset", "--epochs", "0", "--save", str(file)]
    assert main(words) == 0
    assert main(["evaluate", str(file)]) == 2
    shown = capsys.readouterr().err
    assert "m.safetensors: was trained on fashion-mnist, the subset" in shown
    assert "evaluate it with --subset" in shown


def test_evaluating_says_where_it_does_not_know_what_a_model_was_trained_on(tmp_path, capsys):
    spiral_model().save(tmp_path / "m.safetensors")
    assert main(["evaluate", str(tmp_path / "m.safetensors"), "--subset"]) == 0
    assert "does not say what it was trained on" in capsys.readouterr().out


def test_fashion_mnist_trains_on_the_shipped_images(capsys):
    assert main(["train", "fashion-mnist", "--subset", "--epochs", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "4,900 rows to train on, 1,050 to validate, 1,050 to test" in shown
    assert "test accuracy" in shown


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_dump_prints_text_that_reads_back(name, capsys):
    assert main(["dump", name, "--stage", "lower", "--program", "grads"]) == 0
    text = capsys.readouterr().out.strip()
    assert str(parse(text)) == text


def test_dump_of_a_file_shows_every_stage_by_default(folder, capsys):
    path = f"{folder / 'model.py'}:model"
    assert main(["dump", path, "--input-shape", "3"]) == 0
    shown = capsys.readouterr().out
    model = gemmc.Sequential([gemmc.Linear(3, 2)])
    for stage in gemmc.compile(model, (3,)).stages:
        assert f"// stage {stage}\n" in shown


def test_a_folder_may_have_a_colon_in_its_name(folder, capsys):
    place = folder / "a:b"
    place.mkdir()
    (folder / "model.py").rename(place / "model.py")
    assert main(["dump", f"{place / 'model.py'}:model", "--input-shape", "3"]) == 0
    assert "// stage trace\n" in capsys.readouterr().out


@pytest.mark.parametrize(("loss", "instead"), [("", "predict"), (", MSELoss()", "evaluate")])
def test_dump_of_a_model_without_a_step_says_what_it_has(loss, instead, tmp_path, capsys):
    file = tmp_path / "m.py"
    file.write_text(f"from gemmc import *\nmodel = Sequential([Linear(3, 2)]{loss})\n")
    words = ["dump", f"{file}:model", "--input-shape", "3"]
    assert main(words) == 2
    assert f"use --program {instead}" in capsys.readouterr().err
    assert main([*words, "--program", instead]) == 0


def test_numbers_go_with_what_they_count():
    assert [many(n, "thread") for n in (0, 1, 2000)] == ["0 threads", "1 thread", "2,000 threads"]


def test_doctor_names_the_blas_library_and_versions(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "blas" in shown and "numpy" in shown and "cores" in shown


def test_output_that_nobody_reads_on_ends_quietly():
    command = f"{sys.executable} -m gemmc dump spiral | head -n 1"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout.count("\n") == 1


def test_plots_without_matplotlib_are_refused_before_training(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code = main(["train", "spiral", "--subset", "--epochs", "1", "--plots", str(tmp_path)])
    shown = capsys.readouterr()
    assert code == 2
    assert "gemmc[plot]" in shown.err
    assert "epoch" not in shown.out
    assert os.listdir(tmp_path) == []


def test_a_saved_model_finds_its_own_experiment():
    from gemmc.frontend.experiments import fitting

    assert fitting(spiral_model()).name == "spiral"


def test_a_benchmark_without_pytorch_says_so_before_it_works(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert bench(["sweep"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "pip install 'gemmc[torch]'" in shown.err
