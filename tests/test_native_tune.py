"""Tuning: forms are measured, kept by product, and may be given back."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import gemmc
from gemmc import Adam, Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential
from gemmc.passes.forms import FORMS, PRODUCTS, chosen_form, forms, product_key
from gemmc.runtime.native.module import Call, meetings
from gemmc.runtime.native.target import native_target

SHAPE = (2, 8, 8)


def small_model() -> Sequential:
    layers = [
        *(Conv2d(2, 16, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(256, 24), ReLU(), Linear(24, 5)),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-2), seed=3)


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, *SHAPE), np.float32), rng.integers(0, 5, 6)


def test_tuning_chooses_a_possible_form_for_each_product_and_changes_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gemmc.runtime.native.tune.BUDGET", 600.0)  # however busy the machine is
    tuned = gemmc.compile(small_model(), SHAPE, 6, runtime="native", tune=True)
    plain = gemmc.compile(small_model(), SHAPE, 6, runtime="native")
    target, possible = native_target(), {}
    for node in plain.graph("pack").nodes:
        if node.op in PRODUCTS:
            possible[product_key(node)] = forms(target, node, 6)
    assert tuned.choices.keys() == possible.keys()
    assert all(form in possible[key] for key, form in tuned.choices.items())
    one, two = (e.loss_and_grads(*batch()) for e in (tuned, plain))
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    for name, gradient in one[1].items():
        np.testing.assert_allclose(gradient, two[1][name], rtol=1e-4, atol=1e-5)


def test_choices_given_back_give_the_same_program() -> None:
    tuned = gemmc.compile(small_model(), SHAPE, 6, runtime="native", tune=True)
    again = gemmc.compile(small_model(), SHAPE, 6, runtime="native", tune=tuned.choices)
    assert again.choices == tuned.choices
    assert again.ir("order") == tuned.ir("order")


def test_weights_that_stay_are_measured_apart() -> None:
    """Of a training step, where they change, not all forms are possible."""
    layers = [Linear(300, 256), ReLU(), Linear(256, 3)]
    model = Sequential(layers, CrossEntropyLoss(), Adam())
    tuned = gemmc.compile(model, (300,), 16, runtime="native", tune=True)
    before = tuned.choices
    x = np.random.default_rng(1).standard_normal((16, 300), np.float32)
    predicted = tuned(x)
    assert {*tuned.choices} - {*before} == {"0.Linear matmul once", "2.Linear matmul once"}
    assert {k: tuned.choices[k] for k in before} == before
    form = tuned.choices["0.Linear matmul once"]
    assert form in tuned.ir("lower", "predict")
    other = gemmc.compile(model, (300,), 16, runtime="reference")
    np.testing.assert_allclose(predicted, other(x), rtol=1e-4, atol=1e-5)


def test_a_given_choice_is_in_the_dump() -> None:
    choices = {"3.Linear matmul": "blas", "0.Conv2d conv2d": "im2col"}
    model = Sequential([Conv2d(2, 4, 3), ReLU(), Flatten(), Linear(144, 5)], CrossEntropyLoss())
    text = gemmc.compile(model, SHAPE, 6, runtime="native", tune=choices).ir("lower", "predict")
    assert "im2col" in text and "form='blas'" in text


@pytest.mark.parametrize("tune", ["yes", 1.5, {"0.Linear matmul": "fast"}, {1: "blas"}])
def test_what_is_no_choice_is_refused(tune: Any) -> None:
    with pytest.raises(gemmc.CompileError, match="tune: got"):
        gemmc.compile(small_model(), SHAPE, 6, runtime="native", tune=tune)


def test_on_apples_processors_every_product_is_left_to_blas_until_tuned() -> None:
    target = native_target.__wrapped__("darwin", "arm64")
    for node in gemmc.compile(small_model(), SHAPE, 6, runtime="native").graph("pack").nodes:
        if node.op in PRODUCTS:
            assert chosen_form(target, node, 6) in ("blas", "im2col")
            measured = replace(target, choices={product_key(node): forms(target, node, 6)[0]})
            assert chosen_form(measured, node, 6) == forms(target, node, 6)[0]


def test_workers_meet_between_any_two_steps_of_which_one_needs_the_other() -> None:
    executable = gemmc.compile(small_model(), SHAPE, 6, runtime="native", threads=2)
    calls: list[Call] = executable._program("step").runner.module.calls
    meet = meetings(calls)
    assert any(meet) and not all(meet)
    for (i, one), (j, other) in combinations(enumerate(calls), 2):
        if other.waits_for(one):
            assert any(meet[i + 1 : j + 1]), (one.name, other.name)


def test_every_form_has_a_name_that_is_known() -> None:
    for node in gemmc.compile(small_model(), SHAPE, 6, runtime="native").graph("pack").nodes:
        if node.op in PRODUCTS:
            assert set(forms(native_target(), node, 6)) <= set(FORMS)
