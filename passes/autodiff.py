"""autodiff: the backward graph and the optimiser's update, generated into the same graph.

Reverse accumulation, one gradient rule per op: walking backwards from `loss`, every node hands the
gradient of its value to its inputs, where what arrives is added up. It runs before anything is
fused or lowered, so the rules it uses are the ones the law tests check against finite differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir import OPS, Builder, CompileError, Graph, Node
from ..ir.op import is_float

OWN = ("p", "g")  # what an update graph calls the parameter and its gradient
SHARED = ("lr", "step")  # what it shares with all others; anything else is state of this parameter


def autodiff(graph: Graph, wrt: Sequence[str], updates: Mapping[str, Graph]) -> Graph:
    """`graph`, which has an output `loss`, with the gradients of the inputs named in `wrt`.

    For an input `w` with an update graph (inputs `p`, `g`, `lr`, `step` and any state), the outputs
    become w's next value under its own name and each state's under `w.state`. For one without, the
    gradient itself becomes the output `w.grad`. With an empty `wrt` the graph is returned as it is.
    """
    if not wrt:
        return graph
    b = Builder()
    inputs = {n.name: b.clone(n, ()) for n in graph.inputs}
    outputs = b.inline(graph, list(inputs.values()))
    order = b.graph(graph.name, list(inputs.values()), outputs).nodes
    grads = _backward(b, order, outputs["loss"], [inputs[name] for name in wrt])
    for name in wrt:
        gradient = grads.get(inputs[name])
        if gradient is None:
            gradient = b.full(shape=inputs[name].shape, value=0.0, dtype=inputs[name].dtype)
        if name not in updates:
            outputs[f"{name}.grad"] = gradient
            continue
        outputs |= _update(b, name, updates[name], gradient, inputs)
    return b.graph(graph.name, list(inputs.values()), outputs)


def _backward(
    b: Builder, order: Sequence[Node], loss: Node, wrt: Sequence[Node]
) -> dict[Node, Node]:
    """The gradient of `loss` in every node that it depends on `wrt` through."""
    if loss.shape != () or not is_float(loss.type):
        raise CompileError(f"loss: got {loss.type}, expected one number: use ops.mean")
    active = set(wrt)
    for node in order:
        if any(x in active for x in node.inputs):
            active.add(node)
    grads: dict[Node, Node] = {loss: b.full(shape=(), value=1.0, dtype=loss.dtype)}
    for node in reversed(order):
        g = grads.get(node)
        if g is None or node not in active:
            continue
        with b.at(_backward_loc(node), node):
            for x, gx in zip(node.inputs, _gradients(b, node, g), strict=True):
                if gx is not None and x in active:
                    grads[x] = b.add(grads[x], gx) if x in grads else gx
    return grads


def _gradients(b: Builder, node: Node, g: Node) -> tuple[Node | None, ...]:
    if node.op == "item":  # of several results only the first is smooth
        return (g if node.attrs["index"] == 0 else None,)
    return OPS[node.op].gradient(b, node, g)


def _backward_loc(node: Node) -> str:
    return f"{node.loc}'" if node.loc else ""


def _update(
    b: Builder, name: str, update: Graph, gradient: Node, inputs: dict[str, Node]
) -> dict[str, Node]:
    """The outputs of one parameter's update; adds the inputs it needs to `inputs`."""
    arguments = []
    for n in update.inputs:
        if n.name == OWN[1]:
            arguments.append(gradient)
            continue
        outer = name if n.name == OWN[0] else n.name if n.name in SHARED else f"{name}.{n.name}"
        inputs.setdefault(outer, b.input(outer, n.tensor))
        arguments.append(inputs[outer])
    results = b.inline(update, arguments)
    return {name if key == OWN[0] else f"{name}.{key}": node for key, node in results.items()}
