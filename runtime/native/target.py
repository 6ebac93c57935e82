"""What programs for the native runtime are compiled for."""

from __future__ import annotations

import platform
import sys
from functools import cache

from ...passes.plan import Plan, Step
from ...passes.target import Target
from ..cores import cores
from ..work import flops
from .jit import host

SHARDS = 4  # sums over rows have the same bits at 1, 2, 3 and 4 threads


@cache
def native_target(system: str = sys.platform, machine: str = platform.machine()) -> Target:
    """This machine as the cost model sees it.

    On Apple's own processors every product is left to BLAS until tuned: Accelerate reaches matrix
    units that generated loops do not.
    """
    apple = system == "darwin" and machine == "arm64"
    return Target(
        generated=True,
        products="blas" if apple else None,
        conv_form="im2col" if apple else None,
        lanes=host().lanes,
        registers=host().registers,
        shards=max(SHARDS, cores()),
        cache_bytes=1 << 18,
    )


FLOPS, BYTES = 200e9, 60e9  # what a core does in a second, FLOP and bytes moved
CALLING = 2e-6  # seconds until workers that look for work have begun a call, and are done with it
MEETING = 1e-6  # seconds that workers lose at each step: a barrier, and work that does not divide


SMALL = 1.5e-6  # seconds of a step that one worker does alone sooner than workers can meet


def step_seconds(step: Step, rows: int) -> float:
    """About how long a step takes one worker."""
    moved = sum(v.type.nbytes(rows) for v in (*step.operands, *step.results))
    return flops(step.node, rows) / FLOPS + moved / BYTES


def suited_workers(plan: Plan) -> int:
    """All cores for a program that they make faster, 1 for one that is over before they meet."""
    times = [step_seconds(step, plan.rows) for step in plan.steps()]
    shared = [t for t in times if t >= SMALL]  # the others one worker does alone
    once = 0.0 if "loss" in plan.outputs else CALLING  # of training, many steps share a call
    saved = sum(shared) * (1 - 1 / cores())
    return cores() if len(shared) * MEETING + once < saved else 1
