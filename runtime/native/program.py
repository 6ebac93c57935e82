"""The native program: a plan as LLVM functions, compiled together and called once for many steps.

Every step of the plan becomes a function `s<time>_<op>`; a region becomes one that runs its steps
tile by tile. `run` calls them in order for one batch, `epoch` gathers batch after batch and runs
each (entry.py). All workers call the same function; each takes its part of every step's work, and
they meet at a barrier between steps. Shapes, strides and places in the arena are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...passes.memory import Buffer, aligned
from ...passes.plan import Loop, Plan, Step
from ...passes.plan import Value as Place
from .dsl import BITS, DTYPE_SCALARS, Array, Function
from .entry import add_apply, add_epoch, add_prepare, add_run
from .jit import host
from .kernels import KERNELS
from .module import PARAMETERS, POINTERS, Call, Module, clock, in_buffer, partial_sum, place, share
from .movers import fill, strided
from .site import Int, Site, Work
from .stamps import MOVES, TOTALS
from .sweep import GRAIN
from .target import SMALL, step_seconds

Find = Callable[[Module, Function, Place, Int], Array]


def build(plan: Plan, offsets: Mapping[str, int], workers: int, timed: bool = False) -> Module:
    """The functions of a plan for so many workers; `timed` ones measure themselves."""
    m = Module(plan, offsets, workers, timed)
    for part in plan.parts:
        if isinstance(part, Loop):
            _add_loop(m, part)
        else:
            _add_step(m, part)
    _add_moves(m)
    add_prepare(m)
    add_run(m)
    add_epoch(m)
    add_apply(m)
    return m


def _add_step(m: Module, step: Step) -> None:
    k = Function(f"s{step.time}_{step.node.op}", PARAMETERS, f"{step.node.loc} {step.node.type}")
    rows = k.parameters["rows"]
    small = step_seconds(step, m.plan.rows) < SMALL
    workers = 1 if small else m.workers
    site = _site(m, k, step, 0, rows, m.plan.rows, rows, place, False, workers)
    serial = share(k, KERNELS[step.node.op].emit(site), m.workers, alone=small)
    m.functions.append(k)
    m.calls.append(Call(k.name, serial, step.time, _touched([step]), step.once))


def _touched(steps: Sequence[Step]) -> tuple[list[Buffer], list[Buffer]]:
    """The buffers that steps read and write."""
    reads = [v.buffer for step in steps for v in step.operands]
    return reads, [v.buffer for step in steps for v in step.results]


def _site(
    m: Module,
    k: Function,
    step: Step,
    row: Int,
    rows: Int,
    most: int,
    batch: Int,
    find: Find,
    accumulate: bool,
    workers: int,
) -> Site:
    operands = [find(m, k, v, row) for v in step.operands]
    results = [find(m, k, v, row) for v in step.results]
    base = k.parameters["own" if step.scratch and step.scratch.private else "arena"]
    room = Array(k, base, "i8", step.scratch.offset if step.scratch else 0)
    return Site(k, step.node, operands, results, room, row, rows, most, batch, accumulate, workers)


def _add_loop(m: Module, loop: Loop) -> None:
    """A region: each worker takes whole shards where there are sums, else whole tiles."""
    first = loop.steps[0]
    names = [_add_tile_step(m, loop, step) for step in loop.steps]
    k = Function(f"r{first.time}_region", PARAMETERS, f"tiles of {loop.tile} rows")
    rows = k.parameters["rows"]
    shards = m.plan.shards if loop.partials else 1

    def tiles(begin: Int, end: Int, shard: Int) -> None:
        with k.range(begin, end, loop.tile) as row:
            count = k.minimum(end - row, loop.tile)
            shared = [k.parameters[n] for n, _ in POINTERS]
            for name, step in zip(names, loop.steps, strict=True):
                k.call(
                    f"@{name}", *shared, k.integer(row), k.integer(count), rows, k.integer(shard)
                )
                clock(m, k, k.parameters["own"], step.time)

    def run_shards(begin: Int, end: Int) -> None:
        with k.range(begin, end) as shard:
            for value, buffer in loop.partials:
                size = value.type.size(1)
                array = partial_sum(m, k, value, buffer, shard)
                fill(k, array, size, 0.0)
            number = k.integer(shard)
            tiles(number * rows // shards, (number + 1) * rows // shards, shard)

    if loop.partials:
        share(k, Work(shards, run_shards), m.workers)
    else:
        share(k, Work(rows, lambda a, b: tiles(a, b, 0), loop.tile), m.workers)
    m.functions.append(k)
    reads, writes = _touched(loop.steps)
    partials = [buffer for _, buffer in loop.partials]
    m.calls.append(Call(k.name, m.workers == 1, None, (reads, [*writes, *partials])))
    if loop.partials:
        _add_totals(m, loop)


def _add_tile_step(m: Module, loop: Loop, step: Step) -> str:
    """One step of a region on `rows` rows of a tile that begins at `row`."""
    numbers = [("row", "i64"), ("rows", "i64"), ("batch", "i64"), ("shard", "i64")]
    k = Function(
        f"t{step.time}_{step.node.op}", [*POINTERS, *numbers], f"{step.node.loc} {step.node.type}"
    )
    partials = {id(v.buffer): b for v, b in loop.partials}

    def find(m: Module, k: Function, value: Place, row: Int) -> Array:
        if id(value.buffer) in partials:
            return partial_sum(m, k, value, partials[id(value.buffer)], k.parameters["shard"])
        return place(m, k, value, row)

    names = ("row", "rows", "batch")
    row, rows, batch = (k.parameters[n] for n in names)
    site = _site(m, k, step, row, rows, loop.tile, batch, find, bool(loop.partials), 1)
    share(k, KERNELS[step.node.op].emit(site), 1)
    m.functions.append(k)
    return k.name


def _add_totals(m: Module, loop: Loop) -> None:
    """The sums of a region: the shards' partial sums, added up in order."""
    k = Function(f"r{loop.steps[0].time}_totals", PARAMETERS, "sums of the shards' partial sums")
    for value, buffer in loop.partials:
        total = in_buffer(m, k, value.buffer, DTYPE_SCALARS[value.type.dtype])
        parts = [partial_sum(m, k, value, buffer, s) for s in range(m.plan.shards)]
        share(k, _total(k, total, parts, value.type.size(1)), m.workers)
    m.functions.append(k)
    totals, partials = [v.buffer for v, _ in loop.partials], [b for _, b in loop.partials]
    m.calls.append(Call(k.name, m.workers == 1, TOTALS, (partials, totals)))


def _total(k: Function, total: Array, parts: Sequence[Array], size: int) -> Work:
    lanes = host().lanes

    def add(at: Int, n: int) -> None:
        value = parts[0].load(at, n)
        for part in parts[1:]:
            value = value + part.load(at, n)
        total.store(value, at)

    def run(begin: Int, end: Int) -> None:
        whole = begin + (end - begin) // lanes * lanes
        with k.range(begin, whole, lanes) as i:
            add(i, lanes)
        if size % lanes:
            with k.range(whole, end) as i:
                add(i, 0)

    return Work(size, run, GRAIN)


def _add_moves(m: Module) -> None:
    """What replaces an input of the model and was not written over it: copied, in the end.

    What is another input as it was before the step is put aside first, or two that trade places
    would both become one of them.
    """
    if not m.plan.moves:
        return
    k = Function("moves", PARAMETERS, "new values of the model's arrays")
    todo: list[tuple[Array, str, int]] = []
    room = m.arena_bytes - m.aside_bytes
    with k.when(k.parameters["worker"].equals(0)):
        for name in m.plan.moves:
            value = m.plan.outputs[name]
            source, size = place(m, k, value, 0), value.type.size(m.plan.rows)
            if value.buffer.outer is not None:
                begin = room // (BITS[source.scalar] // 8)
                aside = Array(k, k.parameters["arena"], source.scalar, begin)
                room += aligned(value.type.nbytes(1))
                strided(k, source, aside, [size], [1], [1])
                source = aside
            todo.append((source, name, size))
        for source, name, size in todo:
            nbytes = BITS[source.scalar] // 8
            target = Array(k, k.parameters["state"], source.scalar, m.offsets[name] // nbytes)
            strided(k, source, target, [size], [1], [1])
    m.functions.append(k)
    m.calls.append(Call(k.name, alone=True, slot=MOVES))
