"""The program as the page shows it: its steps with times and loops, its memory, the roofline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from ...passes.memory import Buffer, lower_bound
from ...passes.plan import Loop, Plan, Step
from ...runtime.profile import OTHER, Profile, Row
from ...runtime.work import flops
from ..figures_memory import kinds_of

LOOP = re.compile(r"[st](\d+)_")  # the function of a step: s12_fused, or t12_fused in a region


def steps_data(plan: Plan, profile: Profile | None, listing: str) -> list[dict[str, Any]]:
    """A row a step: what it is, what it took, the generated loops it became."""
    loops = {int(m[1]): text for text in listing.split("\n\n") if (m := LOOP.match(text))}
    rows = [r for r in profile.rows if r.layer != OTHER] if profile else []
    steps = [*plan.steps()]
    assert not rows or len(rows) == len(steps), "a profile of another program"
    return [
        {**_step(plan, step, row), "loop": loops.get(step.time, "")}
        for step, row in zip_longest(steps, rows)
    ]


def _step(plan: Plan, step: Step, row: Row | None) -> dict[str, Any]:
    nbytes = sum(v.type.nbytes(plan.rows) for v in (*step.operands, *step.results))
    told = {"layer": step.node.loc, "op": step.node.op, "flops": flops(step.node, plan.rows)}
    return {"time": step.time, **told, "nbytes": nbytes, **(asdict(row) if row else {})}


def memory_data(plan: Plan) -> dict[str, Any]:
    """The arena's buffers, and those that each worker has for itself, with what is kept there."""
    shared = [b for b in plan.buffers if b.outer is None]
    own = [b for b in dict.fromkeys(_touched(plan)) if b.private]
    bound, peak = lower_bound(shared)
    tensors, writers = _tensors(plan), _writers(plan)
    buffers = [*zip(shared, kinds_of(plan, shared), strict=True), *((b, "own") for b in own)]
    return {
        "arena": plan.arena_bytes,
        "private": plan.private_bytes,
        "bound": bound,
        "peak": peak,
        "last": max((b.end for b, _ in buffers), default=1),
        "without": sum(b.room for b in shared),
        "loops": [
            {"tile": p.tile, "first": p.steps[0].time, "last": p.steps[-1].time}
            for p in plan.parts
            if isinstance(p, Loop)
        ],
        "buffers": [
            {**_buffer(b, kind), "tensors": tensors.get(b, []), "writers": writers.get(b, [])}
            for b, kind in buffers
        ],
    }


def roof_data(profile: Profile) -> dict[str, Any]:
    """What the machine does at most: GFLOP/s, and GB/s of each level of its memory."""
    peaks = profile.peaks
    levels = [{"name": level.name, "gbps": level.read / 1e9} for level in peaks.levels]
    return {"gflops": peaks.flops / 1e9, "levels": levels, "workers": peaks.workers}


def _buffer(buffer: Buffer, kind: str) -> dict[str, Any]:
    return {
        "label": buffer.label,
        "loc": buffer.loc,
        "kind": kind,
        "start": buffer.start,
        "end": buffer.end,
        "offset": buffer.offset,
        "room": buffer.room,
    }


def _touched(plan: Plan) -> Iterator[Buffer]:
    for step in plan.steps():
        yield from (v.buffer for v in (*step.operands, *step.results))
        if step.scratch:
            yield step.scratch


def _writers(plan: Plan) -> Mapping[Buffer, list[int]]:
    """The steps that write to each buffer."""
    found: dict[Buffer, list[int]] = {}
    for step in plan.steps():
        for buffer in (*(v.buffer for v in step.results), step.scratch):
            if buffer is not None:
                found.setdefault(buffer, []).append(step.time)
    return found


def _tensors(plan: Plan) -> Mapping[Buffer, list[str]]:
    """What each buffer holds, one after another: "12 fused f32[N,128]", with the step's number."""
    found: dict[Buffer, list[str]] = {}
    for name, value in plan.inputs.items():
        found.setdefault(value.buffer, []).append(f"%{name} {value.type}")
    for step in plan.steps():
        for value in step.results:
            text = f"step {step.time}: {step.node.op} {value.type}"
            found.setdefault(value.buffer, []).append(text)
    return found
