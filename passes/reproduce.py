"""reproduce: a pass that failed, written as the smallest program on which it fails the same way.

Nodes are taken away for as long as the pass goes on failing with the same symptom: all outputs but
one, what stands behind the fault, what stands before it, then runs of nodes and single ones. A node
that is taken away becomes an input of its type, or gives way to one of its operands.
Source: delta debugging, A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input" (2002), IEEE Transactions on Software Engineering 28(2).
"""

from __future__ import annotations

import re
import shlex
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..ir import CompileError, Graph, Node, VerifyError, verify
from ..ir.op import is_float
from .parts import FREED, beginning, blocks, part, size, summed, with_body
from .pipeline import PassError, Program
from .program_text import print_program

BUDGET = 20.0  # seconds after which the search ends with what it has
Symptom = tuple[type | None, str, tuple[str, ...]]


def reproduced(error: PassError, folder: Path | None) -> PassError:
    """The error with a reproducer: its message names the file and the command that replays it.

    The file is written into `folder`, or one made for it among the temporary ones; none is ever
    written over.
    """
    small = shrunk(error)
    folder = folder or Path(tempfile.mkdtemp(prefix="gemmc-"))
    path = _free_place(folder, f"reproducer.{error.name}")
    command = f"gemmc dump --pass {error.name} {shlex.quote(str(path))}"
    if error.level:
        command = f"GEMMC_CHECK={error.level} {command}"
    failed, shown = _first_line(small), str(small)
    text = f"// {failed}\n// replay: {command}\n{print_program(small.program)}\n"
    path.write_text(text)
    if "\n" not in shown:  # raised, and not found by a check, which shows the graphs
        shown += f"\n{small.program.graph}"
    found = f"reproducer, {size(small.program.graph)} nodes: {path}\nreplay: {command}"
    message = f"{_first_line(error)}\n{found}\n{shown}"
    return PassError(message, error.name, small.program, error.level, error.again)


def _first_line(error: PassError) -> str:
    return str(error).split("\n")[0]


def shrunk(error: PassError) -> PassError:
    """The same failure on as few nodes as are found in BUDGET seconds."""
    search = _Search(error)
    if error.program.wrt:
        search.drop_derivatives()
        search.move_loss()
    search.shrink()
    return search.error


def symptom(error: PassError) -> Symptom:
    """What is raised, where, and in which words, less what is particular to one graph."""
    cause = error.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause else []
    particular = r"<[^>]*>|'[^']*'|%[\w.]+|\w+\[[^\]]*\]"
    words = re.findall(r"\b[a-z_]{2,}\b", re.sub(particular, "", str(cause).split("\n")[0]))
    return type(cause), frames[-1].name if frames else "", tuple(words)


class _Search:
    """The smallest failure so far; each method tries to make it smaller."""

    def __init__(self, error: PassError) -> None:
        self.error, self._wanted = error, symptom(error)
        self._end = time.monotonic() + BUDGET

    @property
    def graph(self) -> Graph:
        """The graph on which the pass fails."""
        return self.error.program.graph

    def fails(self, program: Program) -> bool:
        """Whether the pass fails on a program as well, in the same way; that one is then kept."""
        if time.monotonic() > self._end:
            return False
        try:
            verify(program.graph)
            self.error.again(program)
        except PassError as error:
            if symptom(error) == self._wanted:
                self.error = error
                return True
        except VerifyError:  # the smaller graph is none
            pass
        return False

    def _fails_on(self, graph: Graph) -> bool:
        return self.fails(_on(self.error.program, graph))

    def drop_derivatives(self) -> None:
        """Fewer inputs to differentiate by, and no updates of them."""
        program = self.error.program
        self.fails(replace(program, updates={}))
        for name in program.wrt:
            if self.fails(replace(self.error.program, wrt=(name,))):
                return

    def shrink(self) -> None:
        """Takes nodes away for as long as there are some to take."""
        nodes = -1
        while nodes != size(self.graph):
            nodes = size(self.graph)
            self.drop_outputs()
            self.drop_behind()
            self.drop_before()
            self.drop_runs()
            self.replace_by_operands()
            index = 0
            while index < len(blocks(self.graph)):
                _BodySearch(self, index).shrink()
                index += 1

    def drop_outputs(self) -> None:
        """One output, or as few as possible."""
        outputs = self.graph.outputs
        if any(self._fails_on(part(self.graph, {k: n})) for k, n in outputs.items()):
            return
        for name in outputs:
            left = {k: n for k, n in self.graph.outputs.items() if k != name}
            if left:
                self._fails_on(part(self.graph, left))

    def drop_behind(self) -> None:
        """The shortest beginning of the graph: what nothing in it reads are its outputs."""
        whole = self.graph
        self._bisect(lambda size: beginning(whole, size), len(whole.nodes))

    def drop_before(self) -> None:
        """The shortest end of the graph: what it reads of the rest are its inputs."""
        whole = self.graph
        nodes = whole.nodes
        self._bisect(lambda size: part(whole, freed=nodes[: len(nodes) - size]), len(nodes))

    def _bisect(self, made: Callable[[int], Graph], most: int) -> None:
        """The smallest size at which what is made fails, if larger ones do as well."""
        least = 0
        while most - least > 1:
            size = (least + most) // 2
            if self._fails_on(made(size)):
                most = size
            else:
                least = size

    def move_loss(self) -> None:
        """The loss is a sum of the first value for which that fails too."""
        whole = self.graph
        for node in whole.nodes:
            if is_float(node.type) and self._fails_on(summed(whole, node)):
                return

    def drop_runs(self) -> None:
        """Runs of nodes, long ones first, become inputs."""
        size = len(self.graph.nodes) // 2
        while size:
            for at in range(len(self.graph.nodes) - size, -1, -size):
                self._fails_on(part(self.graph, freed=self.graph.nodes[at : at + size]))
            size //= 2

    def replace_by_operands(self) -> None:
        """Nodes give way to operands of the same type."""
        for node in reversed(self.graph.nodes):
            for x in node.inputs:
                whole = self.graph
                if node in whole.nodes and x.type == node.type:
                    self._fails_on(part(whole, instead={node: x}))


class _BodySearch(_Search):
    """The search in the body of a block, the one before the `index` last, which stays there."""

    def __init__(self, outside: _Search, index: int) -> None:
        self._outside, self._index = outside, index

    @property
    def _block(self) -> Node:
        return blocks(self._outside.graph)[-1 - self._index]

    @property
    def graph(self) -> Graph:
        return self._block.attrs["body"]

    def _fails_on(self, graph: Graph) -> bool:
        try:
            whole = with_body(self._outside.graph, self._block, graph)
        except CompileError:  # the smaller body is none that such a block can have
            return False
        found = blocks(whole)[-1 - self._index :]
        still = len(found) > self._index and found[0].attrs["body"] is graph
        return still and self._outside._fails_on(whole)


def _on(program: Program, graph: Graph) -> Program:
    """The program with another graph, of inputs that were its own or stand for freed nodes."""
    names = [n.name for n in graph.inputs]
    wrt = [name for name in names if name in program.wrt]
    if program.wrt:
        free = (n for n in graph.inputs if n.name.startswith(FREED) and is_float(n.type))
        wrt = list(dict.fromkeys([*wrt, *(n.name for n in free)]))
    updates = {name: graph for name, graph in program.updates.items() if name in wrt}
    stored = {*names, *graph.outputs}
    storage = {name: form for name, form in program.storage.items() if name in stored}
    return replace(program, graph=graph, wrt=tuple(wrt), updates=updates, storage=storage)


def _free_place(folder: Path, stem: str) -> Path:
    """A file in the folder that is not there yet."""
    names = (f"{stem}{suffix}.ir" for suffix in ("", *(f".{i}" for i in range(2, 1000))))
    return next(path for name in names if not (path := folder / name).exists())
