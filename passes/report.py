"""The plan as text: what runs, the arena beside its lower bound, and what is live at the peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import result_types
from .memory import Buffer, aligned, lower_bound
from .plan import Loop, Plan, Step, Value


def plan_report(plan: Plan) -> str:
    """What the plan takes beside the least possible and no reuse, and what is live at the peaks."""
    steps, private = len(list(plan.steps())), plan.private_buffers
    stored = [v for v in plan.inputs.values() if v.buffer.outer is not None]
    lines = [
        f"plan of {plan.graph.name}: {steps} steps, batches up to {plan.rows}",
        *_arena("shared arena", plan, plan.buffers, plan.arena_bytes),
    ]
    if private:
        lines += _arena("private arena, of each worker", plan, private, plan.private_bytes)
    nbytes = sum(v.type.nbytes(plan.rows) for v in stored)
    lines += [f"parameters and their state: {len(stored)} arrays of the model, {nbytes:,} bytes"]
    lines += _peak("live at the peak", plan, plan.buffers)
    if private:
        lines += _peak("live at the peak of a private arena", plan, private)
    return "\n".join(lines)


def _arena(title: str, plan: Plan, buffers: Sequence[Buffer], nbytes: int) -> Iterator[str]:
    """An arena beside its lower bound, and beside one in which every value has its own place."""
    inner = [b for b in buffers if b.outer is None]
    bound, alone = lower_bound(inner)[0], _without_reuse(plan, private=inner[0].private)
    over = 100.0 * nbytes / bound - 100.0 if bound else 0.0
    saved = 100.0 - 100.0 * nbytes / alone if alone else 0.0
    yield f"{title}: {len(inner)} buffers"
    yield f"  bytes         {nbytes:>12,}"
    yield f"  lower bound   {bound:>12,}  (the arena is {over:.1f}% above)"
    yield f"  without reuse {alone:>12,}  (the arena saves {saved:.0f}%)"


def _without_reuse(plan: Plan, private: bool) -> int:
    """Bytes if each value, each scratch and each partial sum had a place of its own."""
    total = 0
    values = [(v, plan.rows) for v in plan.inputs.values()]
    for part in plan.parts:
        steps, rows = (part.steps, part.tile) if isinstance(part, Loop) else ((part,), plan.rows)
        values += [(v, rows if v.tiled else plan.rows) for s in steps for v in s.results]
        rooms = [s.scratch for s in steps if s.scratch]
        rooms += [b for _, b in part.partials] if isinstance(part, Loop) else []
        total += sum(b.room for b in rooms if b.private == private)
    placed = [(v, rows) for v, rows in values if v.buffer.outer is None]
    return total + sum(aligned(v.type.nbytes(r)) for v, r in placed if v.buffer.private == private)


def _peak(title: str, plan: Plan, buffers: Sequence[Buffer]) -> Iterator[str]:
    """Each buffer that is live when most is, the largest first: who made it, who still reads it."""
    bytes_live, peak = lower_bound(buffers)
    yield f"{title}, step {peak}: {bytes_live:,} bytes"
    live = [b for b in buffers if b.outer is None and b.start <= peak <= b.end]
    for b in sorted(live, key=lambda b: -b.room):
        yield f"  {b.room:>12,}  {b.label:<16} {b.loc:<16} {_why(plan, b)}"


def plan_text(plan: Plan) -> str:
    """The program step by step, with the place of every operand and result.

    `@64` is in the shared arena, `private@64` in each worker's own; names are the model's arrays.
    """
    inner = [b for b in plan.buffers if b.outer is None]
    size = f"arena {plan.arena_bytes:,} bytes in {len(inner)} buffers"
    if private := plan.private_buffers:
        size += f", private {plan.private_bytes:,} bytes in {len(private)} for each worker"
    lines = [f"plan {plan.graph.name}: rows {plan.rows}, {size}"]
    for part in plan.parts:
        if isinstance(part, Loop):
            lines.append(f"loop over tiles of {part.tile} rows:")
            lines += [f"  {_step_text(step)}" for step in part.steps]
            lines += [_total_text(plan, value, buffer) for value, buffer in part.partials]
        else:
            lines.append(_step_text(part))
    for name in plan.moves:
        lines.append(f"copy {_place(plan.outputs[name])} to {name}")
    outputs = (f"{k}={_place(v)}" for k, v in plan.outputs.items() if v.buffer.outer is None)
    return "\n".join([*lines, f"return {', '.join(outputs)}"])


def _total_text(plan: Plan, value: Value, partial: Buffer) -> str:
    return f"  {_place(value)} = total of {plan.shards} partial sums @{partial.offset}"


def _step_text(step: Step) -> str:
    results = ", ".join(_place(v) for v in step.results)
    operands = ", ".join(_place(v) for v in step.operands)
    scratch = f"  scratch {step.scratch.nbytes:,}" if step.scratch else ""
    scratch += "  once" if step.once else ""
    loc = f"  # {step.node.loc}" if step.node.loc else ""
    types = ", ".join(map(str, result_types(step.node)))
    return f"{step.time:>3}  {results} = {step.node.op} {operands}: {types}{scratch}{loc}"


def _place(value: Value) -> str:
    place = f"{'private' if value.buffer.private else ''}@{value.buffer.offset}"
    return value.buffer.outer or place


def _why(plan: Plan, buffer: Buffer) -> str:
    """Where a buffer was made, and the last step that reads it."""
    makers = [s for s in plan.steps() if any(v.buffer is buffer for v in s.results)]
    made = "fed in" if buffer.start == 0 else f"made at {buffer.start}"
    if makers and makers[0].once:
        return f"made once at {makers[0].time}, to stay"
    last = [s for s in plan.steps() if s.time <= buffer.end][-1]
    if any(v.buffer is buffer for v in plan.outputs.values()):
        return f"{made}, an output"
    reads = [s for s in plan.steps() if any(v.buffer is buffer for v in s.operands)]
    if not reads:
        return f"{made}, until {_named(last)}"
    looped = "" if reads[-1].time == buffer.end else f", in a loop to {buffer.end}"
    return f"{made}, read until {_named(reads[-1])}{looped}"


def _named(step: Step) -> str:
    of = f" of {step.node.loc}" if step.node.loc else ""
    return f"{step.node.op}{of} at {step.time}"
