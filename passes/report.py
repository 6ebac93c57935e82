"""The plan as text: what runs, the arena beside its lower bound, and what is live at the peak."""

from __future__ import annotations

from ..ir.graph import result_types
from .memory import Buffer, lower_bound
from .plan import Loop, Plan, Step, Value


def plan_report(plan: Plan) -> str:
    """The arena, its lower bound, the saving, and each buffer live at the peak with its cause."""
    bound, peak = lower_bound(plan.buffers)
    inner = [b for b in plan.buffers if b.outer is None]
    total = sum(b.room for b in inner)
    over = 100.0 * plan.arena_bytes / bound - 100.0 if bound else 0.0
    saved = 100.0 - 100.0 * plan.arena_bytes / total if total else 0.0
    lines = [
        f"plan of {plan.graph.name}: {len(list(plan.steps()))} steps, batches up to {plan.rows}",
        f"arena        {plan.arena_bytes:>12,} bytes",
        f"lower bound  {bound:>12,} bytes  (arena is {over:.1f}% above)",
        f"without reuse{total:>12,} bytes  (arena saves {saved:.0f}%)",
        f"live at the peak, step {peak}:",
    ]
    live = [b for b in inner if b.start <= peak <= b.end]
    for b in sorted(live, key=lambda b: -b.room):
        lines.append(f"  {b.room:>12,}  {b.label:<16} {b.loc:<16} {_why(plan, b)}")
    return "\n".join(lines)


def plan_text(plan: Plan) -> str:
    """The program step by step, with the place of every operand and result."""
    lines = [f"plan {plan.graph.name}: rows {plan.rows}, arena {plan.arena_bytes:,} bytes"]
    for part in plan.parts:
        if isinstance(part, Loop):
            lines.append(f"loop over tiles of {part.tile} rows:")
            lines += [f"  {_step_text(step)}" for step in part.steps]
        else:
            lines.append(_step_text(part))
    for name in plan.moves:
        lines.append(f"copy {_place(plan.outputs[name])} to {name}")
    outputs = (f"{k}={_place(v)}" for k, v in plan.outputs.items() if v.buffer.outer is None)
    return "\n".join([*lines, f"return {', '.join(outputs)}"])


def _step_text(step: Step) -> str:
    results = ", ".join(_place(v) for v in step.results)
    operands = ", ".join(_place(v) for v in step.operands)
    scratch = f"  scratch {step.scratch.nbytes:,}" if step.scratch else ""
    loc = f"  # {step.node.loc}" if step.node.loc else ""
    types = ", ".join(map(str, result_types(step.node)))
    return f"{step.time:>3}  {results} = {step.node.op} {operands}: {types}{scratch}{loc}"


def _place(value: Value) -> str:
    return value.buffer.outer or f"@{value.buffer.offset}"


def _why(plan: Plan, buffer: Buffer) -> str:
    """Which later step keeps a buffer alive."""
    for step in plan.steps():
        if step.time == buffer.end:
            loc = f" of {step.node.loc}" if step.node.loc else ""
            return f"made at {buffer.start}, until {step.node.op}{loc} at {buffer.end}"
    return f"made at {buffer.start}, an output"
