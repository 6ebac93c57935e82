"""The kernel of `fused`: its instructions as NumPy calls, chunk by chunk, all in cache.

A chunk of a few thousand elements goes through all instructions before the next one starts. Values
between instructions live in scratch slots of a chunk's size; results are written straight into
their arrays, which may be those of operands that die here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ..ir import Node
from ..ir.graph import result_types
from ..passes.memory import aligned
from .binding import Binding, Call
from .recorder import Instruction, Recording, Var, record

CHUNK = 16384  # elements: large enough to hide NumPy's 0.4 us a call, small enough for L2
WIDE = 256  # elements: an inner loop shorter than this is dominated by its start


def scratch(node: Node, rows: int) -> int:
    """Bytes of scratch that a fused node needs for `rows` rows."""
    return _Sweep(node, result_types(node)[0].concrete(rows)).scratch_bytes


def in_place(node: Node, operand: int, result: int) -> bool:
    """Whether the result may be written over the operand: no instruction after it reads that."""
    recording = record(node.attrs["body"])
    target = recording.results[result]
    instructions = recording.instructions
    made = next((i for i, one in enumerate(instructions) if one.out is target), -1)
    reads = [i for i, one in enumerate(instructions) if any(v.operand == operand for v in one.args)]
    small = any(v.operand == operand and v.axes is not None for i in instructions for v in i.args)
    return made >= 0 and not small and max(reads, default=-1) <= made


def bind(k: Binding) -> Iterator[Call]:
    """The calls of a fused node, chunk after chunk."""
    yield from _Sweep(k.node, k.results[0].shape).bind(k.operands, k.results, k.room)


class _Sweep:
    """How a body runs over a shape: how that is seen, its chunks, and who lives in which slot.

    Without operands smaller than the sweep, or with only scalars, everything is one row of
    elements. With operands along the last axes (a bias) it is a matrix, those operands repeated
    until an inner loop is WIDE. Otherwise it keeps its axes. Chunks are cut from the first axis.
    """

    def __init__(self, node: Node, shape: tuple[int, ...]) -> None:
        self.recording = record(node.attrs["body"])
        self.small = _small_operands(self.recording)
        self.shape = shape
        self.flat = self._flat()
        inner = math.prod(self.flat[1:])
        self.step = min(self.flat[0], max(1, CHUNK // inner))
        self.slots = _slots(self.recording)
        itemsize = max((v.dtype.itemsize for v in self.slots), default=0)
        self.slot_bytes = aligned(self.step * inner * itemsize)
        self.slot_count = len(set(self.slots.values()))
        self.widened = {v: self._wide_bytes(v) for v in self.small}
        self.scratch_bytes = self.slot_count * self.slot_bytes + sum(self.widened.values())

    def bind(
        self, operands: Sequence[np.ndarray], results: Sequence[np.ndarray], room: np.ndarray
    ) -> Iterator[Call]:
        views: dict[Var, np.ndarray] = {}
        used = self.slot_count * self.slot_bytes
        for v, nbytes in self.widened.items():
            views[v] = self._placed(v, _operand(v, operands))
            if nbytes:
                wide = room[used : used + self.flat[1] * v.dtype.itemsize].view(v.dtype)
                used += nbytes
                yield partial(np.copyto, wide.reshape(-1, views[v].size), views[v])
                views[v] = wide
        for v in _operands(self.recording) - self.widened.keys():
            views[v] = _operand(v, operands).reshape(self.flat)
        targets = dict(zip(self.recording.results, results, strict=True))
        for begin in range(0, self.flat[0], self.step):
            env = {v: self._cut(v, a, begin) for v, a in views.items()}
            outs = {v: a.reshape(self.flat)[begin : begin + self.step] for v, a in targets.items()}
            extent = next(iter(outs.values())).shape
            for instruction in self.recording.instructions:
                out = instruction.out
                env[out] = outs[out] if out in outs else self._slot(room, out, extent)
                yield _call(instruction, [_array(v, env) for v in instruction.args], env[out])
            for v in outs.keys() - {i.out for i in self.recording.instructions}:
                yield partial(np.copyto, outs[v], _array(v, env))

    def _flat(self) -> tuple[int, ...]:
        rank = len(self.shape)
        lengths = [len(v.axes or ()) for v in self.small]
        if any(
            v.axes != tuple(range(rank - n, rank)) for v, n in zip(self.small, lengths, strict=True)
        ):
            return self.shape
        longest = max(lengths, default=0)
        if not longest:
            return (math.prod(self.shape),)
        if any(n not in (0, longest) for n in lengths):
            return self.shape
        split = rank - longest
        while split > 1 and math.prod(self.shape[split:]) < WIDE:
            split -= 1
        return math.prod(self.shape[:split]), math.prod(self.shape[split:])

    def _wide_bytes(self, v: Var) -> int:
        """Bytes of a small operand repeated along the matrix's rows; 0 where it need not be."""
        size = math.prod(self.shape[a] for a in v.axes or ())
        if self.flat == self.shape or not v.axes or size == self.flat[-1]:
            return 0
        return aligned(self.flat[-1] * v.dtype.itemsize)

    def _placed(self, v: Var, operand: np.ndarray) -> np.ndarray:
        """A small operand in a shape that broadcasts against the flat one."""
        axes = v.axes or ()
        if self.flat != self.shape or not axes:
            return operand.reshape(-1) if axes else operand.reshape(())
        return operand.reshape([n if i in axes else 1 for i, n in enumerate(self.shape)])

    def _cut(self, v: Var, view: np.ndarray, begin: int) -> np.ndarray:
        """The part of an operand that a chunk needs."""
        whole = view.ndim < len(self.flat) or view.shape[0] != self.flat[0]
        return view if whole else view[begin : begin + self.step]

    def _slot(self, room: np.ndarray, v: Var, extent: tuple[int, ...]) -> np.ndarray:
        start = self.slots[v] * self.slot_bytes
        nbytes = math.prod(extent) * v.dtype.itemsize
        return room[start : start + nbytes].view(v.dtype).reshape(extent)


def _call(instruction: Instruction, args: list[np.ndarray], out: np.ndarray) -> Call:
    match instruction.action:
        case "cast":
            return partial(np.copyto, out, args[0], casting="unsafe")
        case "select":
            condition, x = args
            return partial(np.multiply, _bits(x), condition, out=_bits(out))
        case "merge":
            return partial(np.bitwise_or, *map(_bits, args), out=_bits(out))
        case ufunc:
            assert isinstance(ufunc, np.ufunc)
            return partial(ufunc, *args, out=out)


def _operand(v: Var, operands: Sequence[np.ndarray]) -> np.ndarray:
    assert v.operand is not None
    return operands[v.operand]


def _bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.dtype(f"u{x.dtype.itemsize}"))


def _array(v: Var, env: dict[Var, np.ndarray]) -> np.ndarray:
    return env[v] if v.value is None else np.asarray(v.value, v.dtype)


def _operands(recording: Recording) -> set[Var]:
    used = {v for i in recording.instructions for v in i.args} | set(recording.results)
    return {v for v in used if v.operand is not None}


def _small_operands(recording: Recording) -> list[Var]:
    """Operands smaller than the sweep, in a fixed order."""
    found = [v for i in recording.instructions for v in i.args if v.axes is not None]
    return list(dict.fromkeys(found))


def _slots(recording: Recording) -> dict[Var, int]:
    """A scratch slot for each value between instructions; slots are used again."""
    instructions, results = recording.instructions, set(recording.results)
    last = {v: i for i, one in enumerate(instructions) for v in one.args}
    slots: dict[Var, int] = {}
    free: list[int] = []
    for i, one in enumerate(instructions):
        if one.out not in results:
            slots[one.out] = free.pop() if free else len(set(slots.values()))
        for v in dict.fromkeys(one.args):
            if v in slots and last[v] == i:
                free.append(slots[v])
    return slots
