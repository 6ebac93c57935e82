"""The forms of a convolution, timed on one thread, and what the cost model chooses for each.

    python -m gemmc.bench forms

For each shape and direction: microseconds as `im2col` and as `shift`, with a star where the choice
of `passes.forms.choose_form` is not the faster one, and by how much the better one is ahead.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ..ir import Builder, N, TensorType
from ..passes.forms import choose_form
from ..passes.pipeline import Program, make_plan, run_passes
from ..passes.target import CPU, FORMS, Target
from ..runtime import kernels
from ..runtime.arena import aligned_arena
from ..runtime.blas import BlasProgram
from .machine import machine

Shape = tuple[int, int, int, int]  # channels in and out, height and width, kernel
SHAPES: tuple[Shape, ...] = (
    *((1, 16, 28, 3), (4, 8, 28, 3), (16, 32, 14, 3), (32, 32, 28, 3), (64, 64, 14, 3)),
    *((128, 128, 7, 3), (16, 32, 14, 5), (3, 16, 32, 5), (64, 16, 14, 3), (16, 64, 14, 3)),
)
DIRECTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
IMAGES, REPEATS = 8, 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This benchmark has no options."""


def run(chosen: argparse.Namespace) -> None:
    """Runs the benchmark and prints its table."""
    print(machine(), flush=True)
    print("\nchannels  image kernel  direction            im2col us  shift us")
    for shape in SHAPES:
        for direction in DIRECTIONS:
            print(_row(shape, direction), flush=True)


def _row(shape: Shape, direction: str) -> str:
    c, o, size, kernel = shape
    times = _times({form: _program(shape, direction, form) for form in FORMS})
    best = min(times, key=lambda form: times[form])
    inner = (o, c) if direction == "conv2d_input_grad" else (c, o)
    plane = (size + kernel - 1, size + kernel - 1)
    made = "im2col"  # a weight gradient always is
    if direction != "conv2d_weight_grad":
        made = choose_form(CPU, (1, 1), (kernel, kernel), plane, *inner)
    ahead = max(times.values()) / times[best] - 1
    star = "" if made == best else f"  * {best} is {ahead:.0%} ahead"
    sizes = f"{c:>3} {o:>4}  {size:>2} x {size:<2} {kernel} x {kernel}   {direction:<20}"
    return f"{sizes} {times['im2col']:>9.0f} {times['shift']:>9.0f}{star}"


def _program(shape: Shape, direction: str, form: str) -> BlasProgram:
    c, o, size, kernel = shape
    b = Builder()
    x = b.input("x", TensorType((N, size, size, c), "f32"))
    dy = b.input("dy", TensorType((N, size, size, o), "f32"))
    w = b.input("w", TensorType((kernel, kernel, c, o), "f32"))
    attrs = {"padding": (kernel // 2, kernel // 2), "layout": "NHWC"}
    operands, extra = {
        "conv2d": ((x, w), {}),
        "conv2d_input_grad": ((dy, w), {"size": (size, size)}),
        "conv2d_weight_grad": ((x, dy), {"kernel": (kernel, kernel)}),
    }[direction]
    y = b.make(direction, operands, {**attrs, **extra})
    program = Program(b.graph("g", operands, {"y": y}), IMAGES, target=Target(conv_form=form))
    plan = make_plan(program, run_passes(program)["order"], kernels)
    runner = BlasProgram(plan, {}, aligned_arena(plan.arena_bytes), threads=1)
    for slot in runner.bind(IMAGES).inputs.values():
        slot[...] = np.random.default_rng(0).standard_normal(slot.shape)
    return runner


def _times(programs: dict[str, BlasProgram]) -> dict[str, float]:
    """The median microseconds of a run of each, taken in turns."""
    times: dict[str, list[float]] = {form: [] for form in programs}
    for turn in range(REPEATS + 3):  # the first three warm up
        for form, program in programs.items():
            begin = time.perf_counter()
            program.run(IMAGES)
            if turn >= 3:
                times[form].append(1e6 * (time.perf_counter() - begin))
    return {form: float(np.median(us)) for form, us in times.items()}
