"""A Sequential model as an ONNX file, for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ..frontend.sequential import Sequential

OPSET, IR_VERSION = 17, 8  # old enough for every ONNX Runtime of the last years
Node = tuple[str, dict[str, Any]]  # ONNX's name of an operator, and its attributes


def _windows(arguments: dict[str, Any]) -> dict[str, Any]:
    pads = [*arguments["padding"], *arguments["padding"]]
    return {"kernel_shape": arguments["kernel_size"], "strides": arguments["stride"], "pads": pads}


NODES: dict[str, Callable[[dict[str, Any]], Node]] = {
    "Conv2d": lambda a: ("Conv", _windows(a)),
    "MaxPool2d": lambda a: ("MaxPool", _windows(a)),
    "Linear": lambda a: ("Gemm", {"transB": 1}),
    "ReLU": lambda a: ("Relu", {}),
    "Softmax": lambda a: ("Softmax", {"axis": a["dim"]}),
    "Flatten": lambda a: ("Flatten", {}),
    "Dropout": lambda a: ("Identity", {}),
}


def onnx_model(model: Sequential, input_shape: tuple[int, ...]) -> bytes:
    """The model with its weights as they are now, from "x" [N, *input_shape] to its output."""
    weights = model.state_dict()
    nodes, last = [], "x"
    for i, layer in enumerate(model.layers):
        operator, attributes = NODES[type(layer).__name__](layer.arguments())
        own = [name for name in weights if name.startswith(f"{i}.")]
        nodes.append(helper.make_node(operator, [last, *own], [f"{i}"], **attributes))
        last = f"{i}"
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *input_shape])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return made.SerializeToString()
