"""Programs of many cases of kernels, checked against the interpreter.

Operands are small whole numbers: sums of their products are exact in float32 in any order, so
every result must be the interpreter's in every bit, but for Winograd's. The arena is full of
rubbish before each run, several cases share a program, and bytes that belong to no value must stay
as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from native_running import alone, beyond, whole_numbers
from running import POISONS, compile_program

from gemmc.ir import Builder, Graph, Node, TensorType, interpret
from gemmc.ir.ops.conv import window_count
from gemmc.ir.types import N
from gemmc.passes.pipeline import Program
from gemmc.passes.target import Target
from gemmc.runtime.native.target import native_target

HOST = native_target()
TARGETS = {
    "loops": replace(HOST, cache_bytes=1 << 40),
    "loops in tiles": replace(HOST, cache_bytes=9000, shards=3),
    "direct and dots": replace(HOST, conv_form="direct", products="dots"),
    "winograd in tiles": replace(HOST, conv_form="winograd", cache_bytes=9000, shards=3),
    "blas over patches": replace(HOST, products="blas", conv_form="im2col"),
    "blas over shifted views in tiles": replace(
        HOST, products="blas", conv_form="shift", cache_bytes=9000, shards=3
    ),
}


class Cases:
    """A graph under construction: inputs by the dozen, and every result an output."""

    def __init__(self, seed: int = 0) -> None:
        self.b, self.rng = Builder(), np.random.default_rng(seed)
        self.inputs: list[Node] = []
        self.outputs: dict[str, Node] = {}

    def input(self, *shape: object, dtype: str = "f32") -> Node:
        """One more input."""
        t = TensorType(shape, dtype)  # type: ignore[arg-type]
        self.inputs.append(self.b.input(f"x{len(self.inputs)}", t))
        return self.inputs[-1]

    def output(self, text: str, *nodes: Node) -> None:
        """One more case, described by `text`."""
        for node in nodes:
            self.outputs[f"{len(self.outputs)}: {text}: {node.op}"] = node

    def pick(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return self.pick(least, most), self.pick(least, most)

    def graph(self) -> Graph:
        return self.b.graph("cases", self.inputs, self.outputs)


def check(
    graph: Graph,
    most: int,
    rows: Sequence[int],
    target: Target | None = None,
    threads: int = 1,
    draw: Callable[[Graph, int], dict[str, np.ndarray]] | None = None,
    rtol: float = 0.0,
    off: float = 0.0,
) -> None:
    """Compiles for `most` rows and compares batches of `rows`; a target means all passes.

    A number may be off by `rtol` of itself, or `off` of the largest of its result.
    """
    given = Program(graph, most, target=target or TARGETS["loops"])
    compiled = alone(given, threads) if target is None else compile_program(given, threads)
    for count in rows:
        arrays = draw(graph, count) if draw else whole_numbers(graph, count, seed=count)
        expected = interpret(graph, arrays, count)
        for poison in POISONS if count == most else POISONS[:1]:
            got = compiled.run(arrays, count, poison)
            for name, y in expected.items():
                message = f"{name}, {count} of {most} rows, {threads} threads"
                assert (got[name].shape, got[name].dtype) == (y.shape, y.dtype), message
                atol = off * float(np.abs(y).max(initial=0.0)) if off else rtol / 10
                np.testing.assert_allclose(got[name], y, rtol, atol, err_msg=message)
            if poison == "nan":
                spared = beyond(compiled, count)
                assert (spared == 0xFF).all(), f"written outside of values at {count} rows"


def conv_case(s: Cases, channels: tuple[int, int], kernel: int, size: int) -> None:
    """A convolution of random sizes, and both its gradients."""
    (kh, kw), stride = s.pair(1, kernel), s.pair(1, 3)
    p, q = s.pick(0, kh + 1), s.pick(0, kw)
    h, w = (max(s.pick(2, size), k - 2 * r) for k, r in ((kh, p), (kw, q)))
    stride = (1, 1) if s.rng.random() < 0.5 else stride
    conv_cases(s, channels, (kh, kw), stride, (p, q), (h, w))


Pair = tuple[int, int]


def conv_cases(
    s: Cases, channels: Pair, kernel: Pair, stride: Pair, padding: Pair, size: Pair
) -> None:
    (c, o), (kh, kw), (sh, sw), (p, q), (h, w) = channels, kernel, stride, padding, size
    ho, wo = window_count(h, kh, sh, p), window_count(w, kw, sw, q)
    x, weight, dy = s.input(N, c, h, w), s.input(o, c, kh, kw), s.input(N, o, ho, wo)
    attrs = {"stride": (sh, sw), "padding": (p, q)}
    text = f"{c} to {o} channels, kernel {kh, kw}, {attrs}, image {h, w}"
    s.output(text, s.b.conv2d(x, weight, **attrs))
    s.output(text, s.b.conv2d_input_grad(dy, weight, **attrs, size=(h, w)))
    s.output(text, s.b.conv2d_weight_grad(x, dy, **attrs, kernel=(kh, kw)))


def pooled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers with NaN, infinities and -0 among them."""
    odd = rng.choice([np.nan, np.inf, -np.inf, -0.0], x.shape).astype(np.float32)
    return np.where(rng.random(x.shape) < 0.1, odd, x)


def subsets(rank: int) -> list[tuple[int, ...]]:
    return [a for n in range(1, rank + 1) for a in itertools.combinations(range(rank), n)]
