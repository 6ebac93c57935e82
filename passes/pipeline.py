"""The pipeline: from a traced graph to a plan, one literal tuple of passes.

Every pass is a pure function of a graph. With GEMMC_CHECK=1 each result is verified; with 2 it must
also mean what its input meant: both are interpreted in float64 on random arrays, and a pass that
changed an output is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..ir import Builder, Graph, TensorType, VerifyError, interpret, verify
from ..ir.environment import check_level
from .autodiff import autodiff
from .fuse import fuse
from .layout import Layout, layout
from .lower import lower
from .order import order
from .pack import pack, pack_array, unpack_array
from .plan import Kernels, Plan, plan
from .simplify import simplify
from .target import CPU, Target
from .tile import tile


@dataclass(frozen=True)
class Program:
    """What to compile: a traced graph and what should become of it.

    wrt: the inputs to differentiate `loss` by; updates: for those that are trained, the graph of
    their next value; storage: the physical form of each input that the model stores, None for a
    stored input kept as it is.
    """

    graph: Graph
    rows: int
    wrt: tuple[str, ...] = ()
    updates: Mapping[str, Graph] = field(default_factory=dict)
    storage: Mapping[str, Layout | None] = field(default_factory=dict)
    target: Target = CPU

    @property
    def forms(self) -> dict[str, Layout]:
        """The stored inputs whose physical form differs from the logical one."""
        return {name: form for name, form in self.storage.items() if form}


Pass = Callable[[Graph, Program], Graph]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("trace", lambda g, p: g),
    ("simplify", lambda g, p: simplify(g)),
    ("autodiff", lambda g, p: autodiff(g, p.wrt, p.updates)),
    ("cleanup", lambda g, p: simplify(g)),
    ("layout", lambda g, p: layout(g, p.forms)),
    ("pack", lambda g, p: pack(g, p.forms)),
    ("lower", lambda g, p: lower(g, p.target, p.rows)),
    ("fuse", lambda g, p: fuse(g, p.target)),
    ("tile", lambda g, p: tile(g, p.rows, p.target)),
    ("order", lambda g, p: order(g, p.rows)),
)
STAGES = (*(name for name, _ in PIPELINE), "plan")


def run_passes(program: Program) -> dict[str, Graph]:
    """The graph after each stage of the pipeline, by name."""
    level, graph = check_level(), program.graph
    stages = {}
    for name, run in PIPELINE:
        before, graph = graph, run(graph, program)
        if level >= 1:
            _check_rules(name, graph)
        if level >= 2 and name != "trace":
            check_meaning(name, before, graph, program.forms if name == "pack" else {})
        stages[name] = graph
    return stages


def make_plan(program: Program, ordered: Graph, kernels: Kernels) -> Plan:
    """The plan of the last stage's graph."""
    return plan(ordered, program.rows, frozenset(program.storage), kernels)


def _check_rules(name: str, graph: Graph) -> None:
    try:
        verify(graph)
    except VerifyError as error:
        raise VerifyError(f"pass {name}: {error}") from error


def check_meaning(
    name: str, before: Graph, after: Graph, packed: Mapping[str, Layout], rows: int = 3
) -> None:
    """VerifyError, naming the pass, if an output differs or is lost.

    Both run in float64 on the same random arrays, so that a difference is never mere rounding.
    `packed` says which inputs and outputs `after` has in a physical form.
    """
    one, two = (in_float64(g) for g in (before, after))
    given = {n.name: n.tensor for n in one.inputs}
    given |= {n.name: n.tensor for n in two.inputs if n.name not in given}
    state = {key for key in given if key.rpartition(".")[0] in given}
    classes = min((n.attrs["classes"] for n in one.nodes if n.op == "one_hot"), default=2)
    arrays = {
        key: _draw(t, rows, classes, seed, 0.1 if key in state else -1.0)
        for seed, (key, t) in enumerate(given.items())
    }
    inputs = {k: pack_array(a, packed[k]) if k in packed else a for k, a in arrays.items()}
    expected = interpret(one, {n.name: arrays[n.name] for n in one.inputs}, rows)
    got = interpret(two, {n.name: inputs[n.name] for n in two.inputs}, rows)
    for key, a in expected.items():
        if key not in got:
            raise VerifyError(f"pass {name} lost output {key!r}\nbefore: {before}\nafter: {after}")
        b = got[key]
        b = unpack_array(b, packed[key], a.shape) if key in packed else b
        if not np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True):
            worst = np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))
            raise VerifyError(
                f"pass {name} changed output {key!r} by up to {worst:.3g}\n"
                f"before: {before}\nafter: {after}"
            )


def in_float64(graph: Graph) -> Graph:
    """The same graph with float64 for float32 throughout."""
    b = Builder()
    env = {n: b.input(n.name, _wide(n.tensor)) for n in graph.inputs}
    for node in graph.nodes:
        attrs = dict(node.attrs)
        if attrs.get("dtype") == "f32":
            attrs["dtype"] = "f64"
        if "body" in attrs:
            attrs["body"] = in_float64(attrs["body"])
        with b.at(node.loc):
            env[node] = b.make(node.op, [env[x] for x in node.inputs], attrs)
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return b.graph(graph.name, [env[n] for n in graph.inputs], outputs)


def _wide(t: TensorType) -> TensorType:
    return TensorType(t.shape, "f64") if t.dtype == "f32" else t


def _draw(t: TensorType, rows: int, classes: int, seed: int, low: float) -> np.ndarray:
    """Random contents for an input; labels are below `classes`.

    Floats lie in [low, 1), those of matrices divided by what a product sums over, so that no
    network of them overflows a softmax. State (a running mean of squares) must not be negative.
    """
    rng = np.random.default_rng(seed)
    shape = t.concrete(rows)
    if t.dtype not in ("f32", "f64"):
        return rng.integers(0, classes, shape).astype(t.numpy)
    scale = 1.0 if t.per_row else 2.0 / max(1, math.prod(shape[1:])) ** 0.5
    return (rng.uniform(low, 1.0, shape) * scale).astype(t.numpy)
