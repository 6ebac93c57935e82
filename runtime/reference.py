"""The reference runtime: the interpreter on the graph as autodiff left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir import Graph, interpret
from ..passes.layout import Layout
from ..passes.pack import pack_array, unpack_array


@dataclass(frozen=True)
class Slots:
    """Where the inputs of one number of rows are put."""

    inputs: Mapping[str, np.ndarray]


class ReferenceProgram:
    """A graph, interpreted, with the same interface as a compiled program.

    `outer` has the model's arrays as they are stored, in the forms `storage`; they are read in the
    graph's dtype, and next values are rounded back into them.
    """

    def __init__(
        self, graph: Graph, outer: Mapping[str, np.ndarray], storage: Mapping[str, Layout | None]
    ) -> None:
        self.graph, self.outer, self.storage = graph, outer, storage
        self._slots: dict[int, Slots] = {}

    def bind(self, rows: int) -> Slots:
        """The arrays to put a batch of `rows` rows into."""
        if rows not in self._slots:
            inputs = {
                n.name: np.zeros(n.tensor.concrete(rows), n.tensor.numpy)
                for n in self.graph.inputs
                if n.name not in self.storage
            }
            self._slots = {rows: Slots(inputs)}
        return self._slots[rows]

    def run(self, rows: int) -> Mapping[str, np.ndarray]:
        """Runs on what is in `bind(rows).inputs`; the outputs, and the model's arrays updated."""
        arrays = dict(self.bind(rows).inputs)
        for n in self.graph.inputs:
            if n.name in self.storage:
                form = self.storage[n.name]
                outer = self.outer[n.name]
                logical = unpack_array(outer, form, n.tensor.concrete(rows)) if form else outer
                arrays[n.name] = logical.astype(n.tensor.numpy)
        outputs = interpret(self.graph, arrays, rows)
        for name in outputs.keys() & self.storage.keys():
            form = self.storage[name]
            new = pack_array(outputs[name], form) if form else outputs[name]
            np.copyto(self.outer[name], new, casting="same_kind")
        return outputs
