"""Saved models: training goes on where it was, and a file that is damaged says so."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import gemmc
from gemmc import (
    SGD,
    Adam,
    CompileError,
    Conv2d,
    CrossEntropyLoss,
    DataError,
    Dropout,
    Flatten,
    Linear,
    Loss,
    MaxPool2d,
    Module,
    Optimizer,
    Parameter,
    ReLU,
    Sequential,
    Softmax,
    ops,
)
from gemmc.frontend.value import Value

X = np.random.default_rng(0).normal(size=(30, 1, 6, 6)).astype(np.float32)
Y = np.arange(30) % 3


def cnn(optimizer: Optimizer | None = None) -> Sequential:
    layers = [
        *(Conv2d(1, 4, (3, 2), padding=(1, 0), bias=False), ReLU(), MaxPool2d(2, 1, (1, 0))),
        *(Dropout(0.3), Flatten(), Linear(112, 5), ReLU(), Linear(5, 3), Softmax()),
    ]
    return Sequential(layers, CrossEntropyLoss(), optimizer or Adam(betas=(0.8, 0.95)), seed=11)


def trained(model: Sequential, epochs: int) -> list[float]:
    return gemmc.compile(model, X.shape[1:], 8).fit(X, Y, epochs=epochs).loss


def same(one: Sequential, two: Sequential) -> bool:
    """Whether all arrays and counters of two models have the same bits."""
    arrays = [(m.state.counters, *(m.state.get(n) for n in m.state.shapes)) for m in (one, two)]
    return all(a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True))


@pytest.mark.parametrize(
    "optimizer", [Adam(), SGD(momentum=0.9, weight_decay=0.01), SGD()], ids=repr
)
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(
    tmp_path: Path, optimizer: Optimizer
) -> None:
    whole, first = cnn(copy.deepcopy(optimizer)), cnn(optimizer)
    losses = trained(whole, 5)
    before = trained(first, 2)
    first.save(tmp_path / "m.safetensors")
    second = gemmc.load(tmp_path / "m.safetensors")
    assert same(first, second) and repr(first) == repr(second)
    assert before + trained(second, 3) == losses
    assert same(second, whole)
    np.testing.assert_array_equal(second(X), whole(X))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_a_copy_is_a_model_of_its_own(copied: Callable[[Sequential], Sequential]) -> None:
    model = cnn()
    trained(model, 1)
    outputs = model(X)
    other = copied(model)
    assert same(model, other) and repr(model) == repr(other)
    losses = trained(other, 2)
    np.testing.assert_array_equal(model(X), outputs)
    assert np.abs(other(X) - outputs).max() > 1e-4
    assert model.optimizer is not None and other.optimizer is not None
    other.optimizer.lr = 0.5
    assert model.optimizer.lr == 1e-3
    assert trained(model, 2) == losses
    before = other.state_dict()
    gemmc.compile(other, X.shape[1:], 8).profile(X[:8], Y[:8], repeat=1)
    assert all(np.array_equal(a, before[name]) for name, a in other.state_dict().items())


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_an_executable_says_that_its_model_is_what_to_copy(way: Callable[[object], object]) -> None:
    with pytest.raises(CompileError, match=r"pickle exe\.model, and compile again"):
        way(gemmc.compile(cnn(), X.shape[1:], 8))


def test_a_saved_file_has_the_state_dict_in_it_for_others_to_read(tmp_path: Path) -> None:
    model = cnn()
    trained(model, 1)
    model.save(tmp_path / "m.safetensors")
    arrays = load_file(tmp_path / "m.safetensors")
    for name, array in model.state_dict().items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], array)


def test_loading_parameters_starts_training_anew() -> None:
    fresh, used = cnn(), cnn()
    start = fresh.state_dict()
    trained(used, 2)
    used.load_state_dict(start)
    assert same(fresh, used)
    used.load_state_dict({name: a.astype(np.float64) for name, a in start.items()})
    assert same(fresh, used)
    assert trained(fresh, 1) == trained(used, 1)


class Scaled(Module):
    """A layer of the user's, with a constructor argument and a parameter."""

    def __init__(self, power: int, features: int) -> None:
        self.power, self.features = power, features
        self.scale: Any = Parameter((features,), gemmc.ones)

    def forward(self, x: Value) -> Value:
        return x**self.power * self.scale


class Weighted(Loss):
    """A loss of the user's, with a constructor argument."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def forward(self, output: Value, target: Value) -> Value:
        return ops.mean((output - target) ** 2) * self.weight


class Plain(Optimizer):
    """An optimiser of the user's, with a constructor argument."""

    def __init__(self, lr: float, damp: float) -> None:
        super().__init__(lr)
        self.damp = damp

    def update(self, p: Value, g: Value, state: dict, step: Value) -> tuple[Value, dict]:
        return p - g * self.lr * self.damp, {}


def test_parts_of_the_users_come_back_with_their_arguments(tmp_path: Path) -> None:
    model = Sequential([Scaled(2, 4), Linear(4, 2)], Weighted(3.0), Plain(0.25, damp=0.5))
    x, y = X[:, 0, 0, :4], X[:, 0, 1, :2]
    gemmc.compile(model, (4,), 30).train_step(x, y)
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = gemmc.load(path, classes=[Scaled, Weighted, Plain])
    assert repr(again) == repr(model) and same(again, model)
    steps = [gemmc.compile(m, (4,), 30).train_step(x, y) for m in (model, again)]
    assert steps[0] == steps[1] and same(again, model)
    with pytest.raises(
        DataError, match=r"m\.safetensors: .*use load\(path, classes=\[Weighted\]\)"
    ):
        gemmc.load(path, classes=[Scaled, Plain])


def test_a_class_of_the_users_goes_before_ours_of_the_same_name(tmp_path: Path) -> None:
    own = type("ReLU", (ReLU,), {})
    Sequential([own()]).save(tmp_path / "m.safetensors")
    assert type(gemmc.load(tmp_path / "m.safetensors", classes=[own]).layers[0]) is own


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "good.safetensors"
    model = Sequential([Linear(3, 2)], CrossEntropyLoss(), Adam())
    model.save(path)
    return path


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "half of it is missing": (lambda b: b[: len(b) // 2], "cannot be read as safetensors"),
    "the last byte is missing": (lambda b: b[:-1], "cannot be read as safetensors"),
    "it is empty": (lambda b: b"", "cannot be read as safetensors"),
    "it is text": (lambda b: b"weights: 1, 2, 3\n" * 20, "cannot be read as safetensors"),
    "its header is damaged": (lambda b: b[:9] + b"\xff" + b[10:], "cannot be read as safetensors"),
}


@pytest.mark.parametrize("damage", BYTES)
def test_a_file_with_damaged_bytes_is_refused_by_name(
    saved: Path, tmp_path: Path, damage: str
) -> None:
    change, words = BYTES[damage]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(change(saved.read_bytes()))
    with pytest.raises(DataError, match=rf"bad\.safetensors: {words}"):
        gemmc.load(path)


Header = dict[str, Any]
HEADERS: dict[str, tuple[Callable[[Header], object], str]] = {
    "no header": (lambda h: h.clear(), "format: got None, expected 'gemmc 1'"),
    "another program's": (lambda h: h.update(format="pt"), "format: got 'pt'"),
    "a later format": (lambda h: h.update(format="gemmc 2"), "format: got 'gemmc 2'"),
    "no model": (lambda h: h.pop("model"), "cannot be made anew: KeyError: 'model'"),
    "no JSON": (lambda h: h.update(model="{"), "cannot be made anew: JSONDecodeError"),
    "a list": (lambda h: h.update(model=[]), "cannot be made anew: TypeError"),
    "no layers": (lambda h: h["model"].pop("layers"), "cannot be made anew: KeyError: 'layers'"),
    "an unknown class": (
        lambda h: h["model"]["layers"][0].update({"class": "Mine"}),
        "was saved with a class Mine: use load(path, classes=[Mine])",
    ),
    "a class of another kind": (
        lambda h: h["model"]["layers"][0].update({"class": "Value"}),
        "was saved with a class Value",
    ),
    "a bad argument": (
        lambda h: h["model"]["layers"][0]["arguments"].update(in_features=0),
        "CompileError: Linear: in_features: got 0",
    ),
    "an unknown argument": (
        lambda h: h["model"]["layers"][0]["arguments"].update(depth=3),
        "unexpected keyword argument 'depth'",
    ),
    "a loss for a layer": (
        lambda h: h["model"]["layers"][0].update({"class": "MSELoss", "arguments": {}}),
        "layers: entry 0: got MSELoss(), expected a Module",
    ),
    "a negative step": (lambda h: h["model"].update(step=-3), "step: got -3"),
    "a seed that is text": (lambda h: h["model"].update(seed="x"), "seed: got 'x'"),
}
ARRAYS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "a missing array": (lambda a: a.pop("0.bias.exp_avg"), "missing ['0.bias.exp_avg']"),
    "an array too many": (lambda a: a.update(x=np.ones(1)), "unexpected ['x']"),
    "a wrong shape": (
        lambda a: a.update({"0.bias": np.ones(3, np.float32)}),
        "0.bias: got float32 [3], expected floats [2]",
    ),
    "a wrong dtype": (
        lambda a: a.update({"0.bias": np.ones(2, np.int32)}),
        "0.bias: got int32 [2], expected floats [2]",
    ),
}


@pytest.mark.parametrize("fault", [*HEADERS, *ARRAYS])
def test_a_file_whose_contents_do_not_fit_is_refused_by_name(
    saved: Path, tmp_path: Path, fault: str
) -> None:
    with safe_open(saved, "numpy") as file:
        header: Header = dict(file.metadata())
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["model"] = json.loads(header["model"])
    change, words = HEADERS[fault] if fault in HEADERS else ARRAYS[fault]
    change(header if fault in HEADERS else arrays)
    if not isinstance(header.get("model", ""), str):
        header["model"] = json.dumps(header["model"])
    save_file(arrays, tmp_path / "bad.safetensors", header)
    with pytest.raises(DataError) as raised:
        gemmc.load(tmp_path / "bad.safetensors")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'bad.safetensors'}: ") and words in message


@pytest.mark.parametrize("path", ["nowhere.safetensors", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="cannot be read as safetensors|there is no such file"):
        gemmc.load(tmp_path / path)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no/m\.safetensors: cannot be written"):
        cnn().save(tmp_path / "no" / "m.safetensors")


@pytest.mark.parametrize("path", [None, 3])
def test_what_is_no_path_is_named(path: Any) -> None:
    for call in (cnn().save, gemmc.load):
        with pytest.raises(CompileError, match=f"path: got {path}, expected the path of a file"):
            call(path)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    path, usual = tmp_path / "m.safetensors", tmp_path / "usual"
    usual.touch()
    cnn().save(path)
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    cnn().save(path)
    assert S_IMODE(path.stat().st_mode) == 0o640


def test_notes_are_kept_with_a_model(tmp_path: Path) -> None:
    model = cnn()
    model.notes["trained on"] = "noise"
    model.save(tmp_path / "m.safetensors")
    assert gemmc.load(tmp_path / "m.safetensors").notes == {"trained on": "noise"}


def test_an_argument_that_json_does_not_know_is_refused(tmp_path: Path) -> None:
    model = Sequential([Scaled(np.ones(1), 4)])  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"m\.safetensors: an argument of a layer.* cannot be saved"
    ):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
