"""ONNX Runtime: the model as an ONNX graph in an inference session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from ..process import Task

OPSET, IR_VERSION = 17, 8  # old enough for every ONNX Runtime of the last years
Node = tuple[str, dict[str, Any]]  # ONNX's name of an operator, and its attributes


def make(name: str, task: Task) -> Session:
    """The contender: `onnxruntime`."""
    return Session(task)


class Session:
    """A session that predicts; it does not train."""

    def __init__(self, task: Task) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        self.session = onnxruntime.InferenceSession(
            onnx_model(task), options, providers=["CPUExecutionProvider"]
        )

    def epoch(self, order: np.ndarray) -> float:
        raise NotImplementedError("does not train")

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        raise NotImplementedError("knows no loss")

    def predict(self, x: np.ndarray) -> np.ndarray:
        scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
        return self.session.run(None, {"x": scaled})[0]


def _windows(arguments: Mapping[str, Any]) -> dict[str, Any]:
    pads = [*arguments["padding"], *arguments["padding"]]
    return {"kernel_shape": arguments["kernel_size"], "strides": arguments["stride"], "pads": pads}


NODES: dict[str, Callable[[Mapping[str, Any]], Node]] = {
    "Conv2d": lambda a: ("Conv", _windows(a)),
    "MaxPool2d": lambda a: ("MaxPool", _windows(a)),
    "Linear": lambda a: ("Gemm", {"transB": 1}),
    "ReLU": lambda a: ("Relu", {}),
    "Softmax": lambda a: ("Softmax", {"axis": a["dim"]}),
    "Flatten": lambda a: ("Flatten", {}),
    "Dropout": lambda a: ("Identity", {}),
}


def onnx_model(task: Task) -> bytes:
    """The model of a task, from "x" [N, ...] to its output."""
    nodes, last = [], "x"
    for i, (layer, arguments) in enumerate(task.with_sizes()):
        if layer not in NODES:
            raise NotImplementedError(f"no layer {layer}")
        operator, attributes = NODES[layer](arguments)
        own = [name for name in task.weights if name.startswith(f"{i}.")]
        nodes.append(helper.make_node(operator, [last, *own], [f"{i}"], **attributes))
        last = f"{i}"
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *task.data["x"].shape[1:]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in task.weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return made.SerializeToString()
