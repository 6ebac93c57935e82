"""What holds for every plan: nothing is written over too early, and next to no room is lost.

Many programs, each for several numbers of rows, cache sizes and forms of convolution, so that there
are loops with one tile, with ragged last ones, and none.
"""

from __future__ import annotations

import gc
import re
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from programs import MODELS, Model, cnn, draw_inputs, program, spiral, widened
from random_graphs import random_graph
from random_models import random_case
from running import POISONS, Compiled, compile_program, kernels_for, poison_bytes
from shadow import Shadow

import gemmc
from gemmc import (
    Adam,
    Conv2d,
    CrossEntropyLoss,
    Linear,
    MaxPool2d,
    Optimizer,
    ReLU,
    Sequential,
    ops,
)
from gemmc.frontend.optimizers import State
from gemmc.frontend.value import Value
from gemmc.ir import interpret
from gemmc.passes.memory import Buffer, aligned, allocate, lower_bound
from gemmc.passes.pipeline import Program, in_float64
from gemmc.passes.plan import Loop, Plan
from gemmc.passes.report import plan_text
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

HOST = native_target()
TARGETS = {
    "whole": Target(cache_bytes=1 << 40),
    "native": HOST,
    "tiles": Target(conv_form="im2col", cache_bytes=6000),
    "native in tiles of a row": replace(HOST, cache_bytes=1, shards=2),
    "shift in tiles of a row": Target(conv_form="shift", cache_bytes=1),
    "native with BLAS": replace(HOST, products="blas", conv_form="shift", cache_bytes=6000),
}
each_runtime = pytest.mark.parametrize("target", [HOST, CPU], ids=["native", "blas"])
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
each_model = pytest.mark.parametrize("model", MODELS)


@each_target
@each_model
def test_no_value_is_written_over_before_its_last_reader(model: str, target: Target) -> None:
    check_plan(compile_program(program("step", MODELS[model](), 7, target)))


@pytest.mark.parametrize("target", ["tiles", "native in tiles of a row"])
@pytest.mark.parametrize("name", ["evaluate", "predict", "grads"])
@each_model
def test_nor_in_another_program_than_the_training_step(model: str, name: str, target: str) -> None:
    check_plan(compile_program(program(name, MODELS[model](), 7, TARGETS[target])))


@pytest.mark.parametrize("seed", range(24))
def test_nor_in_the_training_step_of_a_random_model(seed: int) -> None:
    case = random_case(100 + seed, Adam())
    target = [*TARGETS.values()][seed % len(TARGETS)]
    given = program("step", (case.model, case.input_shape), case.batch_size, target)
    check_plan(compile_program(given))


@pytest.mark.parametrize("seed", range(24))
def test_nor_in_a_random_graph(seed: int) -> None:
    graph = random_graph(200 + seed)
    wrt = tuple(n.name for n in graph.inputs if n.dtype == "f32")
    target = [*TARGETS.values()][seed % len(TARGETS)]
    check_plan(compile_program(Program(graph, 6, wrt, target=target)))


@each_runtime
@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("model", [cnn, spiral])
def test_nor_in_the_seed_models_training_step(
    model: Callable[[], Model], batch_size: int, target: Target
) -> None:
    check_plan(compile_program(program("step", model(), batch_size, target)))


@each_runtime
def test_the_shadow_sees_a_buffer_that_is_used_again_too_early(target: Target) -> None:
    plan = compile_program(program("step", MODELS["cnn"](), 7, target)).plan
    known = kernels_for(target)
    inner = [b for b in plan.buffers if b.outer is None and b.nbytes > 4]
    unseen = 0
    inner = inner[::4]
    for buffer in inner:
        kept, buffer.offset = buffer.offset, 0 if buffer.offset else 64
        try:
            Shadow(plan, 7, known).run()
            unseen += 1
        except AssertionError:
            pass
        buffer.offset = kept
    assert unseen <= len(inner) // 2  # moved to where nothing happened to be alive
    Shadow(plan, 7, known).run()


@each_target
@each_model
def test_every_number_of_rows_computes_what_the_graph_means(model: str, target: Target) -> None:
    rows = 5
    compiled = compile_program(program("step", MODELS[model](), rows, target))
    graph = in_float64(compiled.differentiated)
    for ragged in (1, rows - 1, rows):
        arrays = draw_inputs(compiled.differentiated, ragged, seed=ragged)
        expected = interpret(graph, widened(arrays), ragged)
        one, other = (compiled.run(arrays, ragged, poison) for poison in POISONS)
        for key, y in expected.items():
            assert one[key].tobytes() == other[key].tobytes(), f"{key} depends on rubbish"
            # float32 against float64; an entry behind a corner of ReLU or max-pool is rare
            np.testing.assert_allclose(one[key], y, rtol=1e-3, atol=1e-4, err_msg=key)


@each_runtime
@pytest.mark.parametrize("batch_size", [1, 32, 256])
@pytest.mark.parametrize("model", [cnn, spiral])
def test_the_arena_is_within_a_tenth_of_the_lower_bound(
    model: Callable[[], Model], batch_size: int, target: Target
) -> None:
    plan = compile_program(program("step", model(), batch_size, target)).plan
    assert plan.bound_bytes <= plan.arena_bytes <= 1.1 * plan.bound_bytes


@each_runtime
@each_model
def test_parameters_and_their_state_are_updated_in_place(model: str, target: Target) -> None:
    plan = compile_program(program("step", MODELS[model](), 7, target)).plan
    assert plan.moves == ()
    stored = {name: v for name, v in plan.inputs.items() if v.buffer.outer is not None}
    assert stored
    for name, value in stored.items():
        steps = [*plan.steps()]
        writers = [s for s in steps if any(v.buffer is value.buffer for v in s.results)]
        readers = [s for s in steps if any(v.buffer is value.buffer for v in s.operands)]
        assert [w.node.op for w in writers] == ["fused"], name
        assert max(r.time for r in readers) <= writers[0].time, name


@pytest.mark.parametrize("seed", range(30))
def test_buffers_get_places_apart_and_not_above_their_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = []
    for _ in range(40):
        start, end = sorted(int(t) for t in rng.integers(0, 30, 2))
        buffers.append(Buffer(int(rng.integers(0, 5000)), start, end, "b", ""))
    arena = allocate(buffers)
    for i, a in enumerate(buffers):
        assert a.offset % 64 == 0 and a.offset + a.nbytes <= arena
        for b in buffers[:i]:
            together = any(a.start <= t <= a.end and b.start <= t <= b.end for t in range(31))
            assert not together or apart(a, b)
    live = [sum(b.room for b in buffers if b.start <= t <= b.end) for t in range(31)]
    assert lower_bound(buffers) == (max(live), int(np.argmax(live)))
    assert max(live) <= arena <= sum(b.room for b in buffers)


def test_every_worker_has_scratch_of_its_own() -> None:
    model = Sequential([Linear(300, 600)])  # wide enough for copies of columns
    target = replace(HOST, products="loops")
    plan = compile_program(program("predict", (model, (300,)), 64, target)).plan
    rooms = [step.scratch for step in plan.steps() if step.scratch]
    assert rooms and all(room.private for room in rooms)


def test_long_lives_go_before_large_buffers_where_that_takes_less_room() -> None:
    given = (320, 1, 1), (192, 4, 7), (256, 1, 4), (256, 4, 5)  # 768 bytes with the largest first
    buffers = [Buffer(*sizes, "b", "") for sizes in given]
    assert allocate(buffers) == lower_bound(buffers)[0] == 704


@pytest.mark.parametrize("runtime", ["native", "blas"])
@each_model
def test_what_was_in_the_arena_before_a_step_changes_no_bit_of_it(model: str, runtime: str) -> None:
    states = []
    built, shape = MODELS[model]()
    exe = gemmc.compile(built, shape, batch_size=6, runtime=runtime)
    for poison in POISONS:
        losses = []
        with built.state.kept():
            for step, rows in enumerate((6, 4, 1, 6)):
                arrays = batch(exe, rows, seed=step)
                poison_bytes(exe._program("step").runner.arena, poison)
                losses.append(exe.train_step(*arrays))
            states.append((losses, {n: built.state.get(n) for n in built.state.shapes}))
    (losses, state), (others, other) = states
    assert losses == others and np.isfinite(losses).all()
    for name in state:
        assert state[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("runtime", ["native", "blas"])
@pytest.mark.parametrize("batch_size", [32, 256])
def test_a_training_step_allocates_nothing_that_stays_and_little_that_goes(
    batch_size: int, runtime: str
) -> None:
    model, shape = cnn(12)
    exe = gemmc.compile(model, shape, batch_size=batch_size, runtime=runtime)
    x, y = batch(exe, batch_size, seed=0)
    given, wanted = exe.checked("x", x, "y", y)
    order = np.arange(batch_size)
    exe.step(given, wanted, order)
    sizes = np.zeros((150, 2), np.int64)  # what is kept is kept here
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(len(sizes)):
            tracemalloc.reset_peak()
            exe.step(given, wanted, order)
            sizes[i] = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    after, peak = sizes[-100:].T  # the first 40 steps still fill NumPy's own caches
    least = 16 * len(after)  # bytes, if each step left the smallest object there is behind
    assert after[-1] - after[0] < least, after
    assert max(peak) - after[0] <= 128 * 1024


class Swap(Optimizer):
    """Two states that trade places, and one that keeps the parameter as it was."""

    state_names = ("one", "other", "previous")

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        one, other, previous = (state[name] for name in self.state_names)
        new = p - (g + one) * self.lr + (p - previous) * 0.1
        return new, {"one": other, "other": one + g, "previous": p}


class Trade(Swap):
    """Three states in a ring, and the parameter's next value in one of them as well."""

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        one, other, previous = (state[name] for name in self.state_names)
        new = p - g * self.lr + one * 0.01 - other * 0.02 + previous * 0.03 + 0.01
        return new, {"one": other, "other": previous, "previous": one}


class Copied(Swap):
    """A state that becomes the parameter's next value, and one that never changes."""

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        new = p - (g + state["one"]) * self.lr
        return new, {"one": new, "other": state["other"], "previous": state["one"]}


class Whole(Swap):
    """An update that reads all of a matrix for each of its entries."""

    def update(self, p: Value, g: Value, state: State, step: Value) -> tuple[Value, State]:
        axes = tuple(range(len(p.shape)))
        turned = ops.transpose(p, (1, 0)) if len(p.shape) == 2 else p
        mixed = turned * 0.9 - g * self.lr - ops.sum(p, axes) * 0.01
        return mixed, {"one": p @ turned if len(axes) == 2 else p, "other": g, "previous": turned}


@pytest.mark.parametrize("optimizer", [Swap, Trade, Copied, Whole])
def test_next_values_that_cannot_be_written_in_place_are_right(optimizer: type[Swap]) -> None:
    states, moves = [], []
    for runtime in ("reference", "blas", "native"):
        layers = [Linear(4, 4), ReLU(), Linear(4, 4)]
        model = Sequential(layers, CrossEntropyLoss(), optimizer())
        exe = gemmc.compile(model, (4,), batch_size=8, runtime=runtime)
        for step in range(4):
            exe.train_step(*batch(exe, 8 - step, seed=step))
        states.append({n: model.state.get(n) for n in model.state.shapes})
        moves.append(exe.plan.moves)
    assert moves[1] and moves[2]
    for name, expected in states[0].items():
        for state in states[1:]:
            np.testing.assert_allclose(state[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_report_names_what_is_alive_at_the_peak() -> None:
    plan = compile_program(program("step", cnn(), 32)).plan
    _, peak = lower_bound(plan.buffers)
    live = [b for b in plan.buffers if b.outer is None and b.start <= peak <= b.end]
    report = plan.report()
    assert f"{plan.arena_bytes:,} bytes" in report and f"{plan.bound_bytes:,} bytes" in report
    for buffer in live:
        assert any(
            buffer.label in line and f"{buffer.room:,}" in line for line in report.split("\n")
        )
    assert sum(b.room for b in live) == plan.bound_bytes


@each_runtime
@each_model
def test_the_report_compares_each_arena_with_one_that_reuses_nothing(
    model: str, target: Target
) -> None:
    plan = compile_program(program("step", MODELS[model](), 32, target)).plan
    alone = {False: 0, True: 0}  # shared and private, by hand
    values = [(v, plan.rows) for v in plan.inputs.values()]
    for part in plan.parts:
        tile, steps = (part.tile, part.steps) if isinstance(part, Loop) else (plan.rows, [part])
        values += [(v, tile if v.tiled else plan.rows) for s in steps for v in s.results]
        for scratch in (s.scratch for s in steps if s.scratch):
            alone[scratch.private] += scratch.room
        alone[False] += sum(b.room for _, b in part.partials) if isinstance(part, Loop) else 0
    for v, rows in values:
        if v.buffer.outer is None:
            alone[v.buffer.private] += aligned(v.type.nbytes(rows))
    report = plan.report()
    sizes = [int(n.replace(",", "")) for n in re.findall(r"without reuse +([\d,]+)", report)]
    assert sizes == [n for private, n in alone.items() if n or not private]
    assert alone[False] >= plan.arena_bytes and alone[True] >= plan.private_bytes
    assert (plan.private_bytes > 0) == ("private arena, of each worker" in report)


def test_the_text_of_a_plan_tells_private_places_from_shared_ones() -> None:
    plan = compile_program(program("step", cnn(), 32, HOST)).plan
    text, private = plan_text(plan), plan.private_buffers
    header = text.split("\n")[0]
    assert (
        f"arena {plan.arena_bytes:,} bytes in {len(plan.buffers) - stored(plan)} buffers" in header
    )
    assert f"private {plan.private_bytes:,} bytes in {len(private)} for each worker" in header
    for step in plan.steps():
        line = next(n for n in text.split("\n") if n.strip().startswith(f"{step.time}  "))
        places = re.findall(r"(private)?@(\d+)", line)
        values = [v.buffer for v in (*step.results, *step.operands) if v.buffer.outer is None]
        assert places == [("private" if b.private else "", str(b.offset)) for b in values]


def stored(plan: Plan) -> int:
    """How many of a plan's buffers are the model's."""
    return sum(b.outer is not None for b in plan.buffers)


def check_plan(compiled: Compiled) -> None:
    """The plan runs in a shadow memory, and no two buffers alive at one time share a byte."""
    plan, kernels = compiled.plan, kernels_for(compiled.program.target)
    for rows in {1, plan.rows - 1, plan.rows} - {0}:
        Shadow(plan, rows, kernels).run()
    alive = lifetimes(plan)
    for private, nbytes in ((False, plan.arena_bytes), (True, plan.private_bytes)):
        buffers = [b for b in alive if b.outer is None and b.private == private]
        for i, a in enumerate(buffers):
            assert a.offset + a.nbytes <= nbytes
            for b in buffers[:i]:
                assert not alive[a] & alive[b] or apart(a, b), f"{a} and {b}"
    for step in plan.steps():
        room = step.scratch.nbytes if step.scratch else 0
        largest = max((p.tile for p in loops(plan) if step in p.steps), default=plan.rows)
        assert room >= kernels.scratch(step.node, largest)


def lifetimes(plan: Plan) -> Mapping[Buffer, set[int]]:
    """The times at which each buffer is needed, from who reads and writes what.

    Between its first and its last use, and during all of a loop unless it is only used inside and
    holds one tile.
    """
    uses: dict[Buffer, set[int]] = {}
    last = max((s.time for s in plan.steps()), default=0) + 1
    for value in plan.inputs.values():
        uses.setdefault(value.buffer, set()).add(0)
    for value in plan.outputs.values():
        uses.setdefault(value.buffer, set()).add(last)
    within = {s.time: loop for loop in loops(plan) for s in loop.steps}
    for loop in loops(plan):
        for _, partial in loop.partials:
            uses[partial] = {s.time for s in loop.steps}
    for step in plan.steps():
        spanned = {s.time for s in within[step.time].steps} if step.time in within else {step.time}
        for value in (*step.operands, *step.results):
            times = {step.time} if value.tiled else spanned
            uses.setdefault(value.buffer, set()).update(times)
        if step.scratch:
            uses.setdefault(step.scratch, set()).add(step.time)
    return {b: set(range(min(times), max(times) + 1)) for b, times in uses.items()}


def loops(plan: Plan) -> list[Loop]:
    return [part for part in plan.parts if isinstance(part, Loop)]


def apart(a: Buffer, b: Buffer) -> bool:
    return a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


def batch(exe: gemmc.Executable, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, and targets that the model's loss takes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, *exe.input_shape)).astype(np.float32)
    if isinstance(exe.model.loss_func, CrossEntropyLoss):
        return x, rng.integers(0, exe.output_type.concrete(rows)[-1], rows)
    return x, rng.normal(size=exe.output_type.concrete(rows)).astype(np.float32)


def test_a_region_hands_out_only_what_is_read_outside_it() -> None:
    layers = [Conv2d(3, 8, 3, padding=1), ReLU(), Conv2d(8, 8, 3, padding=1), ReLU()]
    model = Sequential([*layers, Conv2d(8, 8, 3, padding=1), MaxPool2d(4)])
    graph = gemmc.compile(model, (3, 32, 32), batch_size=64).graph("order", "predict")
    (region,) = (n for n in graph.nodes if n.op == "region")
    assert len(region.attrs["body"].outputs) == 1, "only the last pool's maxima are needed"
