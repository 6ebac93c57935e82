"""Each generated kernel, and BLAS's products, against what one core can do at most.

    gemmc bench kernels [--only conv2d] [--json FILE] [--plots DIR]

Kernels run in programs of their own, 32 rows, on one core; the peaks of multiply-adds and of
reading each cache and memory are measured in the same process. A row is what one step took, the
worst first: `of limit` is how much of its roofline it reaches. The Winograd form, and gradients
that walk the winners of a max-pool, do less than is counted, and may go beyond 100%.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..frontend.arguments import integer
from ..ir import CompileError, Node
from ..passes.pipeline import Program, make_plan, run_passes
from ..passes.plan import Plan
from ..runtime.arena import aligned_arena
from ..runtime.native.kernels import NativeKernels
from ..runtime.native.peaks import peaks
from ..runtime.native.runtime import NativeProgram
from ..runtime.native.target import native_target
from ..runtime.profile import OTHER
from . import publish
from .kernel_cases import Case, cases
from .machine import machine
from .results import Kernel

ROWS = 32
WHOLE = 1 << 40  # bytes of a cache that any batch fits: no tiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--only", default="", metavar="TEXT", help="kernels with this in a line")
    parser.add_argument("--repeat", type=int, default=5, help="turns of measuring, default 5")
    publish.add_arguments(parser)


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    repeat = integer("kernels", "repeat", chosen.repeat)
    publish.check_places(chosen)
    wanted = [c for c in cases() if chosen.only in f"{c.kernel} {c.form} {c.shape}"]
    if not wanted:
        raise CompileError(f"--only: got {chosen.only!r}, expected part of a kernel's line")
    facts, limits = machine(), peaks(1)
    print(f"{facts}\n\n{limits}\n", flush=True)
    measured = [m for case in wanted if (m := measure(case, repeat))]
    measured.sort(key=lambda m: m.row.fraction)
    print(table(measured))
    publish.publish((), facts, chosen, measured, limits)


def measure(case: Case, repeat: int) -> Kernel | None:
    """The step of a case that does its op, the longest if several do, on one core.

    None where this CPU does not do it so: with too few registers for the form, for example.
    """
    plan, rng = _plan(case), np.random.default_rng(0)
    native = NativeProgram(plan, _state(plan), threads=1)

    def feed() -> None:
        for slot in native.bind(ROWS).inputs.values():
            slot[...] = rng.standard_normal(slot.shape) if slot.dtype.kind == "f" else 1

    profile = native.profile(ROWS, feed, repeat)
    rows = [row for row in profile.rows if row.layer != OTHER]
    steps = zip(plan.steps(), rows, strict=True)
    found = [row for step, row in steps if case.op in _ops(step.node)]
    return Kernel(case.kernel, case.shape, max(found, key=lambda r: r.ms)) if found else None


def table(measured: Sequence[Kernel]) -> str:
    """A line a kernel."""
    head = f"{'kernel':<19} {'form':<9} {'shape':<41} {'us':>9} {'GFLOP/s':>8} {'GB/s':>7}"
    lines = [f"{head} {'of limit':>8} bound by"]
    for m in measured:
        r, gflops = m.row, f"{m.row.gflops:.1f}" if m.row.flops else ""
        rates = f"{r.ms * 1e3:>9.2f} {gflops:>8} {r.gbps:>7.1f} {r.fraction:>8.0%} {r.bound}"
        lines.append(f"{m.kernel:<19} {r.form:<9} {m.shape:<41} {rates}")
    return "\n".join(lines)


def _plan(case: Case) -> Plan:
    product, convolution = (case.form, None) if case.op == "matmul" else (None, case.form)
    host = replace(native_target(), cache_bytes=WHOLE)
    target = replace(host, products=product, conv_form=convolution)
    updated = {n.name: None for n in case.graph.inputs if n.name in case.graph.outputs}
    program = Program(case.graph, ROWS, storage=updated, target=target)
    return make_plan(program, run_passes(program)["order"], NativeKernels(target.shards))


def _state(plan: Plan) -> dict[str, np.ndarray]:
    """Room for what is updated in place."""
    types = {k: v.type for k, v in plan.inputs.items() if v.buffer.outer is not None}
    raw = {name: aligned_arena(t.nbytes(1)) for name, t in types.items()}
    arrays = {name: raw[name].view(t.numpy).reshape(t.concrete(1)) for name, t in types.items()}
    for array in arrays.values():
        array.fill(1)
    return arrays


def _ops(node: Node) -> set[str]:
    """The op of a step, or those in its body."""
    if "body" not in node.attrs:
        return {node.op}
    return {n.op for n in node.attrs["body"].nodes}
