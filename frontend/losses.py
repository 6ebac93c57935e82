"""The losses. A loss is one number for a batch, the mean over its rows; its gradient is derived."""

from __future__ import annotations

from typing import Any

from ..ir import CompileError, Node
from . import ops
from .arguments import of_constructor
from .value import Value

TARGET_DTYPES = ("i64", "float")


class Loss:
    """A loss: `forward(self, output, target)` on traced values, one number.

    `target_dtype` is "i64" for labels and "float" for arrays like the output. `correct`, if it
    returns a boolean a row, gives the accuracy; without it accuracy is NaN.
    """

    target_dtype = "float"

    def forward(self, output: Value, target: Value) -> Value:
        """The loss of a batch, for the model's output and what it should have been."""
        raise CompileError(f"{type(self).__name__}: has no forward(self, output, target)")

    def correct(self, output: Value, target: Value) -> Value | None:
        """Whether each row is right, [N] booleans; None where there is no such thing."""
        return None

    def target_shape(self, output: tuple) -> tuple:
        """The shape of the target for an output of that shape."""
        return output

    def classes(self, output: tuple) -> int | None:
        """How many labels there are for an output of that shape; None leaves labels unchecked."""
        return None

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, from the attributes of the same names."""
        return of_constructor(self)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.arguments().items())
        return f"{type(self).__name__}({inside})"


class CrossEntropyLoss(Loss):
    """The mean of -log(probability of the label), for integer labels [N] in [0, classes).

    The output is probabilities where a Softmax makes it (through reshapes), else logits; both
    become the same stable log-softmax. Source: PyTorch's CrossEntropyLoss.
    """

    target_dtype = "i64"

    def forward(self, output: Value, target: Value) -> Value:
        _check_classes(output)
        softmax = _softmax_behind(output.node)
        scores = ops.log(output) if softmax else ops.log_softmax(output)
        label = ops.one_hot(target, output.shape[1])
        return ops.mean(-ops.sum(ops.where(label, scores, 0.0), axes=(1,)))

    def correct(self, output: Value, target: Value) -> Value:
        """Whether the largest logit is the label's; a softmax over a row is looked through."""
        softmax = _softmax_behind(output.node)
        if softmax and softmax.shape[softmax.attrs["axis"]] == output.shape[1]:
            logits = Value(output.trace, softmax.inputs[0])
            output = logits.make("reshape", shape=output.shape)
        return ops.correct(output, target)

    def target_shape(self, output: tuple) -> tuple:
        """[N]: one label a row."""
        return output[:1]

    def classes(self, output: tuple) -> int:
        """One for each of a row's scores."""
        return int(output[-1])


class MSELoss(Loss):
    """The mean of (output - target)^2 over all entries; the target has exactly the output's shape.

    Source: PyTorch's MSELoss.
    """

    def forward(self, output: Value, target: Value) -> Value:
        return ops.mean((output - target) ** 2)


def _softmax_behind(node: Node) -> Node | None:
    while node.op == "reshape":
        node = node.inputs[0]
    return node if node.op == "softmax" else None


def _check_classes(output: Value) -> None:
    if len(output.shape) != 2:
        raise CompileError(
            f"got an output {list(output.shape)} from {output.node.loc}, expected [N, classes]: "
            "put Flatten() before the last Linear"
        )
