"""What a graph means: types, nodes, ops, text, verifier, interpreter. Imports nothing of ours."""

from . import ops
from .errors import CompileError, DataError, GemmcError, SanitizeError, VerifyError
from .graph import Builder, Graph, Node
from .interpret import interpret
from .op import OPS, Op, Pointwise
from .text import parse, print_graph
from .types import N, TensorType, TupleType, parse_type
from .verify import verify

__all__ = [
    "OPS",
    "Builder",
    "CompileError",
    "DataError",
    "GemmcError",
    "Graph",
    "N",
    "Node",
    "Op",
    "Pointwise",
    "SanitizeError",
    "TensorType",
    "TupleType",
    "VerifyError",
    "interpret",
    "ops",
    "parse",
    "parse_type",
    "print_graph",
    "verify",
]
