"""The pipeline: from a traced graph to a plan, one literal tuple of passes.

Every pass is a pure function of a graph. With GEMMC_CHECK=1 each result is verified; with 2 it must
also mean what its input meant: both are interpreted in float64 on random arrays, and a pass that
changed an output is named.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

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


class PassError(VerifyError):
    """The pass `name` failed on `program`, which has the graph that it was given.

    `level` is the GEMMC_CHECK that shows it, and `again` runs the pass on another program; the
    cause is what was raised.
    """

    def __init__(
        self,
        message: str,
        name: str,
        program: Program,
        level: int,
        again: Callable[[Program], object],
    ) -> None:
        super().__init__(message)
        self.name, self.program, self.level, self.again = name, program, level, again


Pass = Callable[[Graph, Program], Graph]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("trace", lambda g, p: g),
    ("simplify", lambda g, p: simplify(g)),
    ("autodiff", lambda g, p: autodiff(g, p.wrt, p.updates)),
    ("cleanup", lambda g, p: simplify(g)),
    ("layout", lambda g, p: layout(g, p.forms)),
    ("pack", lambda g, p: pack(g, p.forms)),
    ("lower", lambda g, p: lower(g, p.target, p.rows, p.storage)),
    ("fuse", lambda g, p: fuse(g, p.target)),
    ("tile", lambda g, p: tile(g, p.rows, p.target)),
    ("order", lambda g, p: order(g, p.rows)),
)
STAGES = (*(name for name, _ in PIPELINE), "plan")


def run_passes(program: Program, seconds: dict[str, float] | None = None) -> dict[str, Graph]:
    """The graph after each stage of the pipeline, by name; notes the seconds of each pass."""
    level, stages = check_level(), {}
    for name, _ in PIPELINE:
        stages[name] = run_pass(name, program, level, seconds)
        program = after_pass(name, program, stages[name])
    return stages


def after_pass(name: str, program: Program, graph: Graph) -> Program:
    """What is left to do of a program that a pass has made `graph` of."""
    left = replace(program, graph=graph)
    return replace(left, wrt=(), updates={}) if name == "autodiff" else left


def run_pass(
    name: str, program: Program, level: int, seconds: dict[str, float] | None = None
) -> Graph:
    """The program's graph after one pass, checked as GEMMC_CHECK=level says.

    PassError if the pass raises anything, or its result does not stand the check.
    """
    run, before, shown = dict(PIPELINE)[name], program.graph, 0
    try:
        with timed(name, seconds):
            after = run(before, program)
        if level >= 1:
            shown = 1
            _check_rules(name, after)
        if level >= 2 and name != "trace":
            shown = 2
            check_meaning(name, before, after, program.forms if name == "pack" else {})
    except VerifyError as error:
        again = partial(run_pass, name, level=shown)
        raise PassError(str(error), name, program, shown, again) from error
    except Exception as error:
        told, again = f"pass {name}: {_told(error)}", partial(run_pass, name, level=shown)
        raise PassError(told, name, program, shown, again) from error
    return after


@contextmanager
def timed(name: str, seconds: dict[str, float] | None) -> Iterator[None]:
    """Notes under `name` how many seconds what is inside took."""
    begin = time.perf_counter()
    yield
    if seconds is not None:
        seconds[name] = time.perf_counter() - begin


def make_plan(program: Program, ordered: Graph, kernels: Kernels) -> Plan:
    """The plan of the last stage's graph; PassError if the planner raises anything."""
    try:
        return plan(ordered, program.rows, frozenset(program.storage), kernels)
    except Exception as error:
        told, given = f"pass plan: {_told(error)}", replace(program, graph=ordered)
        again = lambda p: make_plan(p, p.graph, kernels)  # noqa: E731
        raise PassError(told, "plan", given, 0, again) from error


def _told(error: Exception) -> str:
    """What was raised, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


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
