"""What depends on parameters alone is made once, and again after each change of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest

import gemmc
from gemmc import (
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Executable,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from gemmc.ir import Builder, Graph, Node, TensorType
from gemmc.ir.types import N
from gemmc.passes.forms import forms
from gemmc.passes.memory import Buffer
from gemmc.passes.once import Once
from gemmc.passes.plan import Plan, Step, plan
from gemmc.runtime.native.target import native_target

SHAPE, ROWS = (2, 8, 8), 20


def model(seed: int = 3) -> Sequential:
    """Its predictions need weights that are transformed, and weights that are transposed."""
    layers = [
        *(Conv2d(2, 16, 3, padding=1), ReLU(), Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(512, 24), ReLU(), Dropout(0.5), Linear(24, 5)),
    ]
    return Sequential(layers, CrossEntropyLoss(), Adam(lr=1e-2), seed=seed)


def compiled(of: Sequential, runtime: str = "native", **options: object) -> Executable:
    return gemmc.compile(of, SHAPE, ROWS, runtime=runtime, **options)  # type: ignore[arg-type]


def batch(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, *SHAPE), np.float32), rng.integers(0, 5, rows)


def once_steps(plan: Plan) -> list[Step]:
    return [step for step in plan.steps() if step.once]


def test_programs_that_leave_the_parameters_alone_have_such_steps_and_a_training_step_none() -> (
    None
):
    exe = compiled(model())
    assert {s.node.op for s in once_steps(exe.compiled("predict").plan)} == {
        "winograd_weights",
        "transpose",
    }
    assert once_steps(exe.compiled("evaluate").plan)
    assert once_steps(exe.compiled("grads").plan)
    assert not once_steps(exe.compiled("step").plan)
    text = exe.ir("plan", "predict")
    assert sum("  once" in line for line in text.splitlines()) == len(
        once_steps(exe.compiled("predict").plan)
    )
    assert "made once at" in exe.compiled("predict").plan.report()


def trained(exe: Executable) -> None:
    exe.train_step(*batch())


def fitted(exe: Executable) -> None:
    exe.fit(*batch(50), epochs=2)


def stepped(exe: Executable) -> None:
    x, y = exe.checked("x", batch(50)[0], "y", batch(50)[1])
    exe.steps(x, y, np.arange(50))


def loaded(exe: Executable) -> None:
    exe.model.load_state_dict(model(seed=8).state_dict())


def trained_elsewhere(exe: Executable) -> None:
    compiled(exe.model).train_step(*batch())


def trained_in_numpy(exe: Executable) -> None:
    compiled(exe.model, "blas").fit(*batch(), epochs=1)


def profiled_and_trained(exe: Executable) -> None:
    exe.profile(*batch(), repeat=1)
    exe.train_step(*batch())


def taken_back(exe: Executable) -> None:
    with exe.model.state.kept():
        exe.train_step(*batch())
        exe(batch()[0])


CHANGES = (
    *(trained, fitted, stepped, loaded, trained_elsewhere, trained_in_numpy),
    *(profiled_and_trained, taken_back),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_the_parameters_predictions_follow(
    change: Callable[[Executable], None],
) -> None:
    one = model()
    exe, reference = compiled(one), compiled(one, "reference")
    x, y = batch()
    for _ in range(2):
        before = exe(x)
        np.testing.assert_allclose(before, reference(x), rtol=1e-4, atol=1e-5)
        change(exe)
        after = exe(x)
        np.testing.assert_allclose(after, reference(x), rtol=1e-4, atol=1e-5)
        assert (before.tobytes() == after.tobytes()) == (change is taken_back)
        np.testing.assert_allclose(exe.evaluate(x, y), reference.evaluate(x, y), rtol=1e-4)
        got, expected = exe.loss_and_grads(x, y)[1], reference.loss_and_grads(x, y)[1]
        for name, gradient in expected.items():
            np.testing.assert_allclose(got[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
        if change is loaded:
            break  # the second time it is no change


@pytest.mark.parametrize("threads", [1, 2])
def test_a_copy_and_batches_of_all_sizes_have_their_own(threads: int) -> None:
    one = model()
    exe, reference = compiled(one, threads=threads), compiled(one, "reference")
    for rows in (1, ROWS, 3, 2 * ROWS + 1, 7):
        x, _ = batch(rows, seed=rows)
        np.testing.assert_allclose(exe(x), reference(x), rtol=1e-4, atol=1e-5)
    other = copy.deepcopy(one)
    again = compiled(other, threads=threads)
    again.train_step(*batch())
    x, _ = batch()
    np.testing.assert_allclose(again(x), compiled(other, "reference")(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exe(x), reference(x), rtol=1e-4, atol=1e-5)


def test_it_is_made_once_and_not_for_each_batch() -> None:
    """Seen by writing over weights behind the model's back."""
    one = model()
    exe, (x, _) = compiled(one), batch()
    before = exe(x)
    stored = one.state.stored["2.weight"]
    kept = stored.copy()
    stored[...] = 0.0
    assert exe(x).tobytes() == before.tobytes()
    one.state.version += 1
    assert exe(x).tobytes() != before.tobytes()
    stored[...] = kept
    one.state.version += 1
    assert exe(x).tobytes() == before.tobytes()


def test_it_is_made_anew_after_a_step_that_was_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    one = model()
    exe, (x, y) = compiled(one), batch()
    exe(x)
    runner = exe.compiled("step").runner
    run = runner.run

    def interrupted(rows: int) -> None:
        run(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exe.train_step(x, y)
    np.testing.assert_allclose(exe(x), compiled(one, "reference")(x), rtol=1e-4, atol=1e-5)


def test_what_stays_shares_memory_with_nothing_of_a_batch() -> None:
    made = compiled(model()).compiled("predict").plan
    kept = [v.buffer for step in once_steps(made) for v in step.results]
    inner = [b for b in made.buffers if b.outer is None]
    assert kept and len(inner) > len(kept)
    assert not any(a is not b and overlap(a, b) for a, b in itertools.product(kept, inner))


@pytest.mark.parametrize("room", [4096, 0])
def test_nor_with_inputs_that_are_dead_by_the_time_of_such_a_step(room: int) -> None:
    """It runs between two batches, when the inputs may be there already."""

    class Rooms:
        shards = 1

        def scratch(self, node: Node, rows: int) -> int:
            return room if node.op == "transpose" else 0

        def in_place(self, node: Node, operand: int, result: int) -> bool:
            return False

    b = Builder()
    x, w = b.input("x", TensorType((N, 64), "f32")), b.input("w", TensorType((16, 64), "f32"))
    h = b.relu(x)
    y = b.matmul(h, b.transpose(w, perm=(1, 0)))
    graph = b.graph("g", [x, w], {"y": y})
    assert [n.op for n in graph.nodes] == ["relu", "transpose", "matmul"]
    for stored in ((), ("w",)):
        made = plan(graph, 16, frozenset(stored), Rooms())
        step = next(s for s in made.steps() if s.node.op == "transpose")
        own = [step.scratch or step.results[0].buffer, step.results[0].buffer]
        assert any(overlap(a, made.inputs["x"].buffer) for a in own) == (not stored)


def overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.offset + b.room and b.offset < a.offset + a.room


def test_a_guarded_program_predicts_the_same_bits() -> None:
    one, (x, y) = model(), batch()
    plain, guarded = (compiled(one, sanitize=on) for on in (False, True))
    for _ in range(2):
        assert plain(x).tobytes() == guarded(x).tobytes()
        plain.train_step(x, y)


def graph_of_weights(updates: bool = False) -> Graph:
    b = Builder()
    x, w, seed = (
        b.input(name, TensorType(shape, dtype))
        for name, shape, dtype in (("x", (N, 4), "f32"), ("w", (4, 4), "f32"), ("s", (), "i64"))
    )
    outputs = {
        "transposed": b.transpose(w, perm=(1, 0)),
        "again": b.relu(b.transpose(w, perm=(1, 0))),
        "spread": b.broadcast(w, shape=(N, 4, 4), axes=(1, 2)),
        "constant": b.full(shape=(4,), value=1.0),
        "product": b.matmul(x, b.transpose(w, perm=(1, 0))),
        "drawn": b.dropout_mask(seed, seed, shape=(4,), p=0.5, key=0),
    }
    return b.graph("g", [x, w, seed], {**outputs, **({"w": outputs["again"]} if updates else {})})


def test_once_are_values_made_of_parameters_alone_that_have_no_rows() -> None:
    graph = graph_of_weights()
    once = Once(graph, {"w", "elsewhere"})
    found = {name for name, node in graph.outputs.items() if once(node)}
    assert found == {"transposed", "again"}
    updating = graph_of_weights(updates=True)
    assert not any(map(Once(updating, {"w"}), updating.outputs.values()))
    assert not any(map(Once(graph, ()), graph.outputs.values()))


def test_what_is_made_once_costs_nothing_when_forms_are_chosen() -> None:
    b, target = Builder(), native_target()
    x, w = b.input("x", TensorType((N, 96), "f32")), b.input("w", TensorType((64, 96), "f32"))
    product = b.matmul(x, w, transpose_b=True)
    assert [forms(target, product, rows, once=True)[0] for rows in (1, 32)] == ["loops", "loops"]
    assert [forms(target, product, rows)[0] for rows in (1, 32)] == ["dots", "turned"]
    image, kernel = TensorType((N, 10, 10, 64), "f32"), TensorType((3, 3, 64, 64), "f32")
    conv = b.conv2d(b.input("i", image), b.input("k", kernel), layout="NHWC", padding=(1, 1))
    assert forms(target, conv, 1, once=True)[0] == "winograd"
    assert forms(target, conv, 1)[0] == "direct"
