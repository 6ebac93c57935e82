"""Tuning: each product of a program, timed alone in every form that it can have."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...ir import Builder, Graph, Node
from ...passes.forms import PRODUCTS, density, forms, product_key
from ...passes.once import Once
from ...passes.pipeline import Program, make_plan, run_passes
from .kernels import NativeKernels
from .runtime import NativeProgram

BUDGET = 2.0  # seconds after which what is left keeps the form that the cost model chose
RUN_SECONDS = 0.005  # that a form is run for at least, after it has warmed up
AHEAD = 0.95  # of the favourite's time: another form must be faster than by noise alone


def measure_forms(
    program: Program, known: Mapping[str, str], threads: int | None
) -> dict[str, str]:
    """The fastest form of each product that is not `known` yet, by its key."""
    found: dict[str, str] = {}
    end = time.perf_counter() + BUDGET
    graph = run_passes(program)["pack"]
    once = Once(graph, program.storage)
    for node in graph.nodes:
        if node.op not in PRODUCTS:
            continue
        kept = [x for x in node.inputs if once(x)]
        stays = node.inputs[1] in kept
        key = product_key(node, stays)
        if key in known or key in found:
            continue
        possible = forms(program.target, node, program.rows, stays)
        if len(possible) > 1 and time.perf_counter() < end:
            found[key] = _fastest(program, node, kept, possible, threads)
    return found


def _fastest(
    program: Program, node: Node, kept: list[Node], possible: tuple[str, ...], threads: int | None
) -> str:
    seconds = {form: _seconds(program, node, kept, form, threads) for form in possible}
    best = min(possible, key=seconds.__getitem__)
    return best if seconds[best] < AHEAD * seconds[possible[0]] else possible[0]


def _seconds(
    program: Program, node: Node, kept: list[Node], form: str, threads: int | None
) -> float:
    """The least time that the product takes in one form, on random operands.

    They have zeros where the program's have some. What `kept` has is the same for all batches.
    """
    choices = {product_key(node, node.inputs[1] in kept): form}
    target = replace(program.target, choices=choices, products=None, conv_form=None)
    graph, operands = _alone(node)
    stored = {k: x.tensor.concrete(program.rows) for k, x in operands.items() if x in kept}
    alone = Program(graph, program.rows, target=target, storage=dict.fromkeys(stored))
    plan = make_plan(alone, run_passes(alone)["order"], NativeKernels(target.shards))
    outer = {name: np.empty(shape, np.float32) for name, shape in stored.items()}
    native = NativeProgram(plan, outer, threads, lambda: 0)
    rng = np.random.default_rng(0)
    for name, array in {**native.bind(program.rows).inputs, **outer}.items():
        array[...] = 0
        if array.dtype == np.float32:
            alive = rng.random(array.shape) < density(operands[name])
            array[alive] = rng.standard_normal(np.count_nonzero(alive), np.float32)
    best, end, runs = float("inf"), time.perf_counter() + RUN_SECONDS, 0
    while time.perf_counter() < end or runs < 3:
        begin = time.perf_counter()
        native.run(program.rows)
        best, runs = min(best, time.perf_counter() - begin), runs + 1
    return best


def _alone(node: Node) -> tuple[Graph, dict[str, Node]]:
    """A graph of the product alone, and what its inputs are in the program.

    A gradient behind a max-pool keeps what spreads it.
    """
    b = Builder()
    inputs: list[Node] = []
    operands: dict[str, Node] = {}

    def operand(x: Node) -> Node:
        if x.op == "max_unpool2d":
            return b.clone(x, [operand(y) for y in x.inputs])
        inputs.append(b.input(f"x{len(inputs)}", x.tensor))
        operands[inputs[-1].name] = x
        return inputs[-1]

    y = b.clone(node, [operand(x) for x in node.inputs])
    return b.graph("tune", inputs, {"y": y}), operands
