"""sanitize: a right plan computes the same bits, and each mistake of a planner is an error.

Mistakes are put into plans that were right: places moved, lifetimes cut, kernels that leave some of
their result unwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from programs import MODELS, Model, cnn, spiral

import gemmc
from gemmc import CompileError, Executable
from gemmc.frontend import runtimes
from gemmc.ir import SanitizeError
from gemmc.passes import plan as planner
from gemmc.passes.memory import Buffer, allocate
from gemmc.passes.plan import Plan
from gemmc.runtime.kernels import KERNELS
from gemmc.runtime.native.kernels import KERNELS as NATIVE_KERNELS
from gemmc.runtime.native.site import Work
from gemmc.runtime.sanitize import told

MISTAKES = {"blas": 8, "native": 2}  # that are tried on a model; each compiles it anew
each_runtime = pytest.mark.parametrize("runtime", ["blas", "native"])


BITS = [("blas", model) for model in MODELS] + [("native", "cnn"), ("native", "tied")]


@pytest.mark.parametrize("runtime, model", BITS)
def test_a_right_plan_computes_the_same_bits(runtime: str, model: str) -> None:
    plain, guarded = (results(MODELS[model](), runtime, sanitize=on) for on in (False, True))
    for one, other in zip(plain, guarded, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_so_does_that_of_every_model_in_machine_code(model: str) -> None:
    test_a_right_plan_computes_the_same_bits("native", model)


@each_runtime
@pytest.mark.parametrize("model", [lambda: cnn(12), spiral], ids=["cnn", "spiral"])
def test_a_buffer_moved_onto_another_that_is_needed_is_an_error_with_both_names(
    model: Callable[[], Model], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = compiled(model(), runtime).plan.buffers
    pairs = [(i, j) for i, a in enumerate(right) for j, b in enumerate(right) if i != j]
    pairs = [(i, j) for i, j in pairs if right[i].overlaps(right[j])]
    pairs = [(i, j) for i, j in pairs if right[i].room <= right[j].room]  # fits into the arena
    for i, j in pairs[:: len(pairs) // MISTAKES[runtime]]:

        def move(plan: Plan, i: int = i, j: int = j) -> None:
            plan.buffers[i].offset = plan.buffers[j].offset

        with monkeypatch.context() as patched:
            places(patched, move)
            exe = compiled(model(), runtime, sanitize=True)
            with pytest.raises(SanitizeError) as caught:
                train(exe, 6)
        named = [b for b in exe.plan.buffers if told(b) in str(caught.value)]
        assert exe.plan.buffers[i] in named
        assert len(named) == 2 and named[0].overlaps(named[1])


def test_so_is_one_in_the_memory_of_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def move_private(plan: Plan) -> None:
        for buffer in plan.private_buffers:
            buffer.offset = 0

    places(monkeypatch, move_private)
    exe = compiled(cnn(), "native", sanitize=True)
    with pytest.raises(
        SanitizeError, match=r"\(private bytes 0 to .* overlaps .*\(private bytes 0 "
    ):
        train(exe, 6)


@each_runtime
def test_a_lifetime_that_ends_too_early_is_an_error_with_both_names(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[Buffer] = []

    def allocated(buffers: Iterator[Buffer]) -> int:
        inner = [b for b in buffers if b.outer is None]
        long = [b for b in inner if not b.private and b.end - b.start > 10 and b.start > 0]
        for b in long:
            b.end = b.start + 1
        cut.extend(long)
        return allocate(inner)

    monkeypatch.setattr(planner, "allocate", allocated)
    exe = compiled(spiral(), runtime, sanitize=True)
    with pytest.raises(SanitizeError, match="reads .* which is gone: .* came after") as caught:
        train(exe, 6)
    named = {b for b in exe.plan.buffers if told(b) in str(caught.value)}
    assert len(named) > 1 and named & set(cut)


@each_runtime
def test_a_buffer_beyond_the_arena_is_an_error(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrink(plan: Plan) -> None:
        largest = max((b for b in plan.buffers if b.outer is None), key=lambda b: b.offset + b.room)
        largest.offset += 64

    places(monkeypatch, shrink)
    with pytest.raises(SanitizeError, match="the arena has"):
        compiled(spiral(), runtime, sanitize=True)


def test_a_result_that_is_left_unwritten_is_an_error_with_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lazy = replace(KERNELS["matmul"], bind=lambda binding: iter(()))
    monkeypatch.setitem(KERNELS, "matmul", lazy)
    exe = compiled(spiral(), "blas", sanitize=True)
    with pytest.raises(SanitizeError, match="matmul of 0.Linear: has the NaN of memory"):
        exe(np.ones((6, 2), np.float32))


@pytest.mark.parametrize("model, layer", [(spiral, "0.Linear"), (cnn, "3.Conv2d")])
def test_so_is_one_in_machine_code_and_in_a_region_of_it(
    model: Callable[[], Model], layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = replace(NATIVE_KERNELS["fused"], emit=lambda site: Work(1, lambda begin, end: None))
    monkeypatch.setitem(NATIVE_KERNELS, "fused", lazy)
    exe = compiled(model(), "native", sanitize=True)
    with pytest.raises(SanitizeError, match=f"fused of {layer}: has the NaN of memory"):
        exe(np.ones((6, *exe.input_shape), np.float32))


@each_runtime
def test_an_output_that_is_gone_when_a_batch_is_done_is_an_error_with_its_name(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(plan: Plan) -> None:
        loss = plan.outputs["loss"].buffer
        loss.end = max(s.time for s in plan.steps() if loss in [v.buffer for v in s.results])

    places(monkeypatch, cut)
    exe = compiled(spiral(), runtime, sanitize=True)
    with pytest.raises(SanitizeError, match="output loss: reads .* which is gone"):
        train(exe, 6)


def test_a_nan_of_the_users_own_is_no_mistake() -> None:
    for runtime in ("blas", "native"):
        exe = compiled(spiral(), runtime, sanitize=True)
        assert np.isnan(exe(np.full((6, 2), np.nan, np.float32))).all()


def test_what_is_checked_has_no_profile() -> None:
    for runtime in ("blas", "native"):
        exe = compiled(spiral(), runtime, sanitize=True)
        with pytest.raises(CompileError, match="profile: compiled with sanitize=True"):
            exe.profile(*batch(exe, 6, seed=0))


@pytest.mark.parametrize("runtime, given", [("reference", True), ("blas", 1), ("auto", "yes")])
def test_sanitize_where_it_means_nothing_is_refused(runtime: str, given: object) -> None:
    model, shape = spiral()
    with pytest.raises(CompileError, match=f"sanitize: got {given!r}"):
        gemmc.compile(model, shape, runtime=runtime, sanitize=given)  # type: ignore[arg-type]


def compiled(given: Model, runtime: str, sanitize: bool = False) -> Executable:
    model, shape = given
    threads = 2 if runtime == "native" else 1
    return gemmc.compile(model, shape, 6, runtime, threads, sanitize=sanitize)


def batch(exe: Executable, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and targets."""
    rng, t = np.random.default_rng(seed), exe.plan.inputs["y"].type
    x = rng.normal(size=(rows, *exe.input_shape)).astype(np.float32)
    y = rng.normal(size=t.concrete(rows)) if t.dtype == "f32" else rng.integers(0, 2, rows)
    return x, y.astype(t.numpy)


def train(exe: Executable, rows: int, seed: int = 0) -> float:
    return exe.train_step(*batch(exe, rows, seed))


def results(given: Model, runtime: str, sanitize: bool) -> list[np.ndarray]:
    """What every program gives, for full batches and ragged ones, and the trained parameters."""
    exe = compiled(given, runtime, sanitize)
    losses = [train(exe, rows, seed=rows) for rows in (6, 4, 1)]
    x, y = batch(exe, 16, seed=0)
    losses += [*exe.fit(x, y, epochs=1).loss, *exe.evaluate(x, y)]
    _, grads = exe.loss_and_grads(x[:5], y[:5], train=True)
    state = exe.model.state
    parameters = [state.get(name) for name in state.shapes]
    return [np.array(losses), exe(x), *grads.values(), *parameters]


def places(monkeypatch: pytest.MonkeyPatch, change: Callable[[Plan], None]) -> None:
    """Has `change` done to every plan, once it is made."""
    original = runtimes.make_plan

    def changed(*arguments: Any) -> Plan:
        plan = original(*arguments)
        change(plan)
        return plan

    monkeypatch.setattr(runtimes, "make_plan", changed)
