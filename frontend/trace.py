"""trace: runs a model on symbols, and what comes out is its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..ir import CompileError, Graph, Node, TensorType
from ..ir.types import FLOATS, N
from ..passes.autodiff import OWN, SHARED
from ..passes.pipeline import Program
from ..passes.target import Target
from . import ops
from .losses import TARGET_DTYPES
from .value import Trace, Value

if TYPE_CHECKING:
    from .optimizers import Optimizer
    from .sequential import Sequential

PROGRAMS = ("step", "evaluate", "predict", "grads")
POSSIBLE = (
    "a traced value has the operators + - * / ** @ == < <= > >=, and else what gemmc.ops has; its "
    "rows N are no number; arrays that it meets are a Parameter each"
)
Result = TypeVar("Result")


def trace(
    model: Sequential, input_shape: tuple[int, ...], program: str, dtype: str, training: bool
) -> Graph:
    """The forward graph of `program` (one of PROGRAMS), float dtype "f32" or "f64".

    Inputs: x [N, *input_shape], y, the parameters by name, and seed and step if masks are drawn.
    Outputs: `output` for "predict", else `loss` and, where the loss has one, `correct`, the number
    of rows that are right. CompileError names the layer.
    """
    t = Trace(dtype=dtype, training=training)
    x = t.input("x", TensorType((N, *input_shape), dtype))
    target = _declare_target(t, model, input_shape, program)
    parameters = {
        name: t.input(name, TensorType(p.shape, dtype)) for name, p in model.parameters.items()
    }
    output = _forward(t, model, x, parameters)
    if target is None:
        return t.builder.graph(program, tuple(t.inputs.values()), {"output": output.node})
    outputs = _loss(t, model, output, program)
    return t.builder.graph(program, tuple(t.inputs.values()), outputs)


def trace_program(
    model: Sequential,
    input_shape: tuple[int, ...],
    name: str,
    dtype: str,
    training: bool,
    rows: int,
    target: Target,
) -> Program:
    """The program `name`, traced, and what the passes are to make of it for batches of `rows`."""
    graph = trace(model, input_shape, name, dtype, training)
    wrt: tuple[str, ...] = ()
    updates = {}
    if name == "step":
        assert model.optimizer is not None
        wrt = tuple(model.parameters)
        shapes = {n: p.shape for n, p in model.parameters.items()}
        updates = {n: trace_update(model.optimizer, s, dtype) for n, s in shapes.items()}
    elif name == "grads":
        wrt = ("x", *model.parameters)
    storage = {n: model.state.forms.get(n) for n in model.state.shapes}
    return Program(graph, rows, wrt, updates, storage, target)


def trace_update(optimizer: Optimizer, shape: tuple[int, ...], dtype: str) -> Graph:
    """The update of one parameter as a graph: p, g, lr, step and state in, p and state out."""
    t, who = Trace(dtype=dtype, training=True), type(optimizer).__name__
    names = optimizer.state_names
    if len({*names, *OWN, *SHARED}) != len(names) + len(OWN) + len(SHARED):
        taken = ", ".join((*OWN, *SHARED))
        raise CompileError(f"{who}: state_names: got {names}, expected other names than {taken}")
    own = TensorType(shape, dtype)
    p, g = t.input("p", own), t.input("g", own)
    lr, step = t.input("lr", TensorType((), "f64")), t.input("step", TensorType((), "i64"))
    state = {name: t.input(name, own) for name in optimizer.state_names}
    with t.builder.at(who):
        result = _named(who, lambda: optimizer.traced(lr).update(p, g, dict(state), step))
        if not isinstance(result, tuple) or len(result) != 2 or set(result[1] or ()) != set(state):
            raise CompileError(
                f"{who}: update: got {result!r}, expected (next p, next state) with the state "
                f"{list(state)}"
            )
        new = {"p": result[0], **result[1]}
        nodes = {key: _next_value(t, who, key, value, own) for key, value in new.items()}
    return t.builder.graph("update", tuple(t.inputs.values()), nodes)


def _next_value(t: Trace, who: str, key: str, value: object, own: TensorType) -> Node:
    if not isinstance(value, Value) or value.shape != own.shape:
        raise CompileError(f"{who}: update: {key}: got {value!r}, expected a value like p, {own}")
    return ops.cast(value, own.dtype).node


def _forward(t: Trace, model: Sequential, x: Value, parameters: Mapping[str, Value]) -> Value:
    value = x
    for i, layer in enumerate(model.layers):
        loc = model.loc(i)
        prefix = f"{i}."
        own = {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}
        with t.builder.at(loc):
            twin = layer.traced(own, t.training)
            value = _named(loc, partial(twin.forward, value))
        if not isinstance(value, Value) or value.shape[:1] != (N,) or value.dtype not in FLOATS:
            raise CompileError(
                f"{loc}: forward: got {value!r}, expected floats with the rows first"
            )
    return value


def _declare_target(
    t: Trace, model: Sequential, input_shape: tuple[int, ...], program: str
) -> Value | None:
    """The input y, placed behind x; its shape follows from the model's output."""
    if program == "predict":
        return None
    output = output_type(model, input_shape, t.dtype)
    loss = model.loss_func
    assert loss is not None
    if loss.target_dtype not in TARGET_DTYPES:
        wanted = " or ".join(TARGET_DTYPES)
        who = type(loss).__name__
        raise CompileError(f"{who}: target_dtype: got {loss.target_dtype!r}, expected {wanted}")
    dtype = "i64" if loss.target_dtype == "i64" else t.dtype
    return t.input("y", TensorType(loss.target_shape(output.shape), dtype))


def output_type(model: Sequential, input_shape: tuple[int, ...], dtype: str = "f32") -> TensorType:
    """The type of the model's output for inputs of that shape."""
    return trace(model, input_shape, "predict", dtype, False).outputs["output"].tensor


def _loss(t: Trace, model: Sequential, output: Value, program: str) -> dict[str, Node]:
    loss, who = model.loss_func, type(model.loss_func).__name__
    assert loss is not None
    target = Value(t, t.inputs["y"])
    with t.builder.at(who):
        value = _named(who, lambda: loss.forward(output, target))
        if not isinstance(value, Value) or value.shape != () or value.dtype not in FLOATS:
            raise CompileError(f"{who}: forward: got {value!r}, expected one number: use ops.mean")
        outputs = {"loss": value.node}
        correct = _named(who, lambda: loss.correct(output, target))
        if correct is not None and (correct.shape != (N,) or correct.dtype != "bool"):
            raise CompileError(f"{who}: correct: got {correct!r}, expected booleans [N]")
        if correct is not None and program != "grads":
            outputs["correct"] = ops.sum(ops.cast(correct, t.dtype)).node
    return outputs


def _named(who: str, run: Callable[[], Result]) -> Result:
    """What `run` returns; its CompileError is told who raised it, as is what Python cannot do."""
    try:
        return run()
    except CompileError as error:
        raise CompileError(f"{who}: {error}") from error
    except (TypeError, AttributeError) as error:
        raise CompileError(f"{who}: {type(error).__name__}: {error}: {POSSIBLE}") from error
