"""Profiles: rows for all that takes time, their limits, traces, and programs left alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from native_running import data
from programs import MODELS

import gemmc
from gemmc import Executable
from gemmc.__main__ import main
from gemmc.frontend.profiling import example_batch
from gemmc.runtime.native import timing
from gemmc.runtime.native.peaks import Level, Peaks
from gemmc.runtime.native.runtime import NativeProgram, form
from gemmc.runtime.native.stamps import (
    BEGIN,
    GATHER,
    MOVES,
    NOTHING,
    WAIT,
    Log,
    capacity,
    log_words,
    read_log,
)
from gemmc.runtime.profile import OTHER, Profile, Spent, profile_of

RUNTIMES = (("native", 1), ("native", 3), ("blas", None))


def compiled(name: str, runtime: str = "native", threads: int | None = 1) -> Executable:
    model, shape = MODELS[name]()
    return gemmc.compile(model, shape, 8, runtime, threads)


def steps_of(profile: Profile) -> list[tuple[str, str]]:
    return [(r.layer, r.op) for r in profile.rows if r.layer != OTHER]


@pytest.mark.parametrize(("name", "rows"), [("spiral", 8), ("batch norm", 5)])
@pytest.mark.parametrize(("runtime", "threads"), RUNTIMES)
def test_every_step_has_a_row_in_order_and_rows_add_up(
    name: str, runtime: str, threads: int | None, rows: int
) -> None:
    exe = compiled(name, runtime, threads)
    profile = exe.profile(*data(exe, rows, seed=0), repeat=2)
    assert steps_of(profile) == [(s.node.loc or "(shared)", s.node.op) for s in exe.plan.steps()]
    assert sum(r.ms for r in profile.rows) == pytest.approx(profile.ms)
    assert sum(r.share for r in profile.rows) == pytest.approx(1.0)
    assert all(r.ms >= 0 and r.gflops >= 0 and r.gbps >= 0 for r in profile.rows)
    assert profile.step_ms > 0
    waits = any(r.op == "wait for others" for r in profile.rows)
    assert waits == (runtime == "native" and threads == 3)
    shown = str(profile)
    assert all(f"{layer:<18} {op}" in shown for layer, op in steps_of(profile))
    assert f"{'(batch)':<20}" in profile.by_layer()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["spiral", "cnn", "strided"])
def test_stamps_change_no_result_and_a_log_has_room_for_them(name: str, threads: int) -> None:
    """The timed twin trains as the program itself does, every bit, and notes all it does."""
    exe = compiled(name, "native", threads)
    plain: NativeProgram = exe._program("step").runner
    twin = copy.copy(plain)
    twin._slots = {}
    twin._build(threads, timed=True)
    x, y = data(exe, 8, seed=1)
    y = y.astype(exe.plan.inputs["y"].type.numpy)
    start = {k: a.copy() for k, a in plain.outer.items()}
    after = []
    batches = min(3, capacity(plain.plan))
    order = np.tile(np.arange(8), batches)
    logs = [log_words(plain.plan, own) for own in twin.own_arenas()]
    for program in (plain, twin):
        for key, array in start.items():
            np.copyto(program.outer[key], array)
        for words in logs:
            words[0] = 1
        sums = program.epoch(x, y, order, lr=0.01, step=1, seed=0)
        after.append((sums, {k: a.tobytes() for k, a in program.outer.items()}))
    assert str(after[0]) == str(after[1])
    for words in logs:
        assert 1 < words[0] <= len(words) * batches / capacity(plain.plan)
        log = read_log(words)
        assert (log.slots == BEGIN).sum() == batches
        assert (np.diff(log.moments) >= 0).all()
    noted = set().union(*(read_log(words).slots for words in logs))
    assert noted >= {s.time for s in exe.plan.steps()}


def test_a_program_that_is_not_profiled_has_no_stamps() -> None:
    exe = compiled("cnn")
    before = exe.ir("llvm")
    assert "@tick" not in before
    exe.profile(*data(exe, 8, seed=0), repeat=1)
    assert exe.ir("llvm") == before


def test_a_log_is_cut_into_batches_and_slots() -> None:
    slots = np.array([BEGIN, NOTHING, GATHER, 1, 1, 2, BEGIN, NOTHING, GATHER, 1, 2, WAIT])
    moments = np.array([100, 101, 103, 108, 109, 120, 121, 122, 124, 130, 150, 157])
    ticks, counts = Log(slots, moments).by_batch(last=2)
    expected = [{NOTHING: 1, GATHER: 2, 1: 6, 2: 11}, {NOTHING: 1, GATHER: 2, 1: 6, 2: 20, WAIT: 7}]
    expected[1][BEGIN] = 1
    for row, wanted in zip(ticks, expected, strict=True):
        assert {int(i) + MOVES: row[i] for i in np.flatnonzero(row)} == wanted
    assert counts[0, 1 - MOVES] == 2 and counts.sum() == len(slots) - 1


def limits_of(exe: Executable, flops: float) -> Profile:
    """The profile of steps that all took a second, on a machine with one level of memory."""
    level = Level("memory", nbytes=1, read=1e4, copy=0.5e4, update=4e4)
    spent = {step: Spent(1.0, 1.0) for step in exe.plan.steps()}
    return profile_of(exe.plan, 8, spent, form, 1.0, Peaks(1, flops, (level,)))


@pytest.mark.parametrize("name", ["spiral", "cnn"])
def test_a_step_is_bound_by_what_takes_longer_at_best(name: str) -> None:
    exe = compiled(name)
    for step, row in zip(exe.plan.steps(), limits_of(exe, flops=1e15).rows, strict=True):
        written = {id(v.buffer): v for v in step.results}
        updated = 2 * sum(
            written[id(v.buffer)].type.nbytes(8) for v in step.operands if id(v.buffer) in written
        )  # read, and written over
        assert row.fraction == pytest.approx((row.nbytes - updated) / 1e4 + updated / 4e4)
        assert row.bound == ("memory" if row.fraction >= 0.1 else "overhead")
    for row in limits_of(exe, flops=10.0).rows:
        assert (row.bound == "compute") == (row.flops > 0)
        assert row.gflops == pytest.approx(row.flops / 1e9)
        if row.flops:
            assert row.fraction == pytest.approx(row.flops / 10.0)


@pytest.mark.parametrize(("runtime", "threads"), RUNTIMES)
def test_a_trace_has_a_lane_for_each_worker(
    runtime: str, threads: int | None, tmp_path: Path
) -> None:
    exe = compiled("spiral", runtime, threads)
    path = tmp_path / "trace.json"
    profile = exe.profile(*data(exe, 8, seed=0), repeat=2)
    profile.trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert lanes == {i: f"worker {i}" for i in range(threads or 1)}
    done = [e for e in events if e["ph"] == "X"]
    assert {e["tid"] for e in done} == set(lanes)
    assert {(e["args"]["layer"], e["name"]) for e in done} >= set(steps_of(profile))
    for worker in lanes:
        own = [e for e in done if e["tid"] == worker]
        ends = [e["ts"] + e["dur"] for e in own]
        assert own[0]["ts"] >= 0 and all(e["dur"] >= 0 for e in own)
        assert all(e["ts"] >= end - 1e-3 for e, end in zip(own[1:], ends[:-1], strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_that_fits_is_made_for_any_model(name: str) -> None:
    exe = compiled(name, "reference")
    x, y = example_batch(exe)
    assert x.shape == (8, *exe.input_shape) and len(y) == 8
    assert np.isfinite(exe.train_step(x, y))


def test_a_batch_that_is_held_up_alone_leaves_a_time_above_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = timing._Batches.run

    def held_up(self: timing._Batches, program: NativeProgram, count: int) -> float:
        run(self, program, count)
        return 4.0 if count == 1 else 2.0

    monkeypatch.setattr(timing._Batches, "a_turn", lambda self, plain: 4)
    monkeypatch.setattr(timing._Batches, "run", held_up)
    exe = compiled("spiral", "native")
    assert exe.profile(*example_batch(exe), repeat=1).step_ms == 500.0


def test_gemmc_profile_prints_rows_and_reasons_and_writes_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, rows = tmp_path / "trace.json", tmp_path / "rows.json"
    files = ["--trace", str(trace), "--json", str(rows)]
    options = ["--batch-size", "16", "--threads", "2", "--repeat", "1", "--why"]
    assert main(["profile", "spiral", *options, *files]) == 0
    shown = capsys.readouterr().out
    assert "3.ReLU relu -> 4.Linear matmul: matmul is not pointwise" in shown
    assert f"wrote {trace}" in shown and json.loads(trace.read_text())
    kept = json.loads(rows.read_text())
    assert kept["peaks"]["workers"] <= 2 and kept["step_ms"] > 0
    lines = shown.splitlines()
    for row in kept["rows"]:
        assert any(line.startswith(f"{row['layer']:<18} {row['op']} ") for line in lines), row


WRONG: Sequence[tuple[list[str], str]] = (
    (["mnist"], "expected spiral, fashion-mnist"),
    (["spiral", "--repeat", "0"], "repeat: got 0"),
    (["spiral", "--runtime", "reference"], "has no steps to time"),
    (["spiral", "--trace", "no/such/folder/t.json", "--repeat", "1"], "no/such/folder"),
)


@pytest.mark.parametrize(("line", "said"), WRONG, ids=lambda v: str(v))
def test_a_profile_that_cannot_be_is_refused_in_one_line(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", *line]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
