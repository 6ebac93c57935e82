"""The native program: a plan as LLVM functions, compiled together and called once for many steps.

Every step of the plan becomes a function `s<time>_<op>`; a region becomes one that runs its steps tile
by tile. `run` calls them in order for one batch, `epoch` gathers batch after batch and runs each. All
workers call the same function; each takes its part of every step's work, and they meet at a barrier
between steps. Shapes, strides and places in the arena are constants; rows come in the context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...passes.memory import Buffer, aligned
from ...passes.plan import Loop, Plan, Step, Value as Place
from .dsl import BITS, DTYPE_SCALARS, Array, Function, Value
from .jit import host
from .kernels import KERNELS
from .site import Int, Site, Work

# The context that every call gets: words of 64 bits, of which these are addresses and the others not
ADDRESSES = ("arena", "state", "meet", "x", "y", "order", "sums")
SCALARS = {"lr": "double", "step": "i64", "seed": "i64"}  # inputs that are not a row's
WORDS = (*ADDRESSES, "rows", "count", "bytes", *SCALARS)
PARAMETERS = (("arena", "ptr"), ("state", "ptr"), ("own", "ptr"), ("rows", "i64"), ("worker", "i64"))
CLOCKS = 1  # moments that are kept besides the seconds of steps: the last one
SPINS = 2000  # turns of waiting at a barrier before the core is offered to others


@dataclass
class Module:
    """The functions of a program, in order, and which of them a batch runs."""

    plan: Plan
    offsets: Mapping[str, int]  # of the model's arrays, bytes from the first one
    workers: int
    timed: bool = False  # whether each worker notes how long its steps take, in its own arena
    functions: list[Function] = field(default_factory=list)
    calls: list[tuple[str, bool]] = field(default_factory=list)  # (function, one worker only)
    clocks: list[Step | None] = field(default_factory=list)  # whose time each call takes

    @property
    def own_bytes(self) -> int:
        """Bytes of each worker's own arena; behind the plan's are the seconds of timed steps."""
        clock = 8 * (len(list(self.plan.steps())) + CLOCKS) if self.timed else 0
        return aligned(self.plan.private_bytes) + aligned(clock)

    @property
    def arena_bytes(self) -> int:
        """Bytes of the shared arena and every worker's own."""
        return aligned(self.plan.arena_bytes) + self.workers * self.own_bytes

    def text(self) -> str:
        """The module as LLVM text."""
        declared = sorted(set().union(*(f.declared for f in self.functions)))
        parts = [*declared, *(f.llvm for f in self.functions), BARRIER % (self.workers, SPINS)]
        parts += [flush_mode(), NOW % time.CLOCK_MONOTONIC if self.timed else ""]
        parts.append("attributes #0 = { nounwind }")
        return "\n\n".join(parts)

    def listing(self) -> str:
        """The module as loops people can read."""
        return "\n\n".join(f.listing for f in self.functions)


def build(plan: Plan, offsets: Mapping[str, int], workers: int, timed: bool = False) -> Module:
    """The functions of a plan for so many workers; `timed` ones measure themselves."""
    m = Module(plan, offsets, workers, timed)
    for part in plan.parts:
        if isinstance(part, Loop):
            _add_loop(m, part)
        else:
            _add_step(m, part)
    _add_moves(m)
    _add_run(m)
    _add_epoch(m)
    return m


def _add_step(m: Module, step: Step) -> None:
    k = Function(f"s{step.time}_{step.node.op}", PARAMETERS, f"{step.node.loc} {step.node.type}")
    rows = k.parameters["rows"]
    site = _site(m, k, step, 0, rows, m.plan.rows, rows, _place, False)
    serial = _share(k, KERNELS[step.node.op].emit(site), m.workers)
    m.functions.append(k)
    m.calls.append((k.name, serial))
    m.clocks.append(step)


Find = Callable[[Module, Function, Place, Int], Array]


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
) -> Site:
    operands = [find(m, k, v, row) for v in step.operands]
    results = [find(m, k, v, row) for v in step.results]
    base = k.parameters["own" if step.scratch and step.scratch.private else "arena"]
    room = Array(k, base, "i8", step.scratch.offset if step.scratch else 0)
    return Site(k, step.node, operands, results, room, row, rows, most, batch, accumulate)


def _place(m: Module, k: Function, value: Place, row: Int) -> Array:
    """Where a value's rows from `row` on are."""
    scalar, t = DTYPE_SCALARS[value.type.dtype], value.type
    array = _buffer(m, k, value.buffer, scalar)
    return array.at(row * t.size(1)) if t.per_row and not value.tiled else array


def _buffer(m: Module, k: Function, buffer: Buffer, scalar: str) -> Array:
    nbytes = BITS[scalar] // 8
    if buffer.outer is not None:
        return Array(k, k.parameters["state"], scalar, m.offsets[buffer.outer] // nbytes)
    base = k.parameters["own" if buffer.private else "arena"]
    return Array(k, base, scalar, buffer.offset // nbytes)


def _share(k: Function, work: Work, workers: int) -> bool:
    """Emits each worker's part of some work; whether only the first has any."""
    if workers == 1:
        work.run(0, work.extent)
        return True
    worker = k.parameters["worker"]
    if isinstance(work.extent, int) and work.extent <= work.grain:
        with k.when(worker.equals(0)):
            work.run(0, work.extent)
        return True
    units = (work.extent + (work.grain - 1)) // work.grain
    begin = units * worker // workers * work.grain
    end = units * (worker + 1) // workers * work.grain
    work.run(begin, k.minimum(end, work.extent))
    return False


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
            shared = [k.parameters[n] for n in ("arena", "state", "own")]
            for name, step in zip(names, loop.steps, strict=True):
                k.call(f"@{name}", *shared, k.integer(row), k.integer(count), rows, k.integer(shard))
                _clock(m, k, shared[2], step)

    def run_shards(begin: Int, end: Int) -> None:
        with k.range(begin, end) as shard:
            for value, buffer in loop.partials:
                size = value.type.size(1)
                array = _partial(m, k, value, buffer, shard)
                _fill(k, array, size)
            first_row = shard * rows // shards if isinstance(shard, Value) else rows * shard // shards
            stop = (shard + 1) * rows // shards if isinstance(shard, Value) else rows * (shard + 1) // shards
            tiles(first_row, stop, shard)

    if loop.partials:
        _share(k, Work(shards, run_shards), m.workers)
    else:
        _share(k, Work(rows, lambda a, b: tiles(a, b, 0), loop.tile), m.workers)
    m.functions.append(k)
    m.calls.append((k.name, m.workers == 1))
    m.clocks.append(None)
    if loop.partials:
        _add_totals(m, loop)


def _clock(m: Module, k: Function, own: Value, step: Step | None) -> None:
    """In a timed module: adds the time since the last clock to a step's seconds."""
    if not m.timed:
        return
    words = Array(k, own, "double", aligned(m.plan.private_bytes) // 8)
    now = k.raw("call double @now()", "double")
    assert now is not None
    if step is not None:
        words.store(words.load(step.time) + (now - words.load(0)), step.time)
    words.store(now)


def _add_tile_step(m: Module, loop: Loop, step: Step) -> str:
    """One step of a region on `rows` rows of a tile that begins at `row`."""
    parameters = [("arena", "ptr"), ("state", "ptr"), ("own", "ptr")]
    parameters += [("row", "i64"), ("rows", "i64"), ("batch", "i64"), ("shard", "i64")]
    k = Function(f"t{step.time}_{step.node.op}", parameters, f"{step.node.loc} {step.node.type}")
    partials = {id(v.buffer): b for v, b in loop.partials}

    def find(m: Module, k: Function, value: Place, row: Int) -> Array:
        if id(value.buffer) in partials:
            return _partial(m, k, value, partials[id(value.buffer)], k.parameters["shard"])
        return _place(m, k, value, row)

    names = ("row", "rows", "batch")
    row, rows, batch = (k.parameters[n] for n in names)
    site = _site(m, k, step, row, rows, loop.tile, batch, find, bool(loop.partials))
    work = KERNELS[step.node.op].emit(site)
    work.run(0, work.extent)
    m.functions.append(k)
    return k.name


def _partial(m: Module, k: Function, value: Place, buffer: Buffer, shard: Int) -> Array:
    scalar = DTYPE_SCALARS[value.type.dtype]
    size = aligned(value.type.nbytes(1)) // (BITS[scalar] // 8)
    return _buffer(m, k, buffer, scalar).at(shard * size)


def _fill(k: Function, array: Array, size: int) -> None:
    from .movers import fill

    fill(k, array, size, 0.0)


def _add_totals(m: Module, loop: Loop) -> None:
    """The sums of a region: the shards' partial sums, added up in order."""
    k = Function(f"r{loop.steps[0].time}_totals", PARAMETERS, "sums of the shards' partial sums")
    for value, buffer in loop.partials:
        size, lanes = value.type.size(1), host().lanes
        total = _buffer(m, k, value.buffer, DTYPE_SCALARS[value.type.dtype])
        parts = [_partial(m, k, value, buffer, s) for s in range(m.plan.shards)]

        def add(at: Int, n: int, parts: Sequence[Array] = parts, total: Array = total) -> None:
            value = parts[0].load(at, n)
            for part in parts[1:]:
                value = value + part.load(at, n)
            total.store(value, at)

        def run(begin: Int, end: Int, add=add) -> None:  # type: ignore[no-untyped-def]
            whole = begin + (end - begin) // lanes * lanes
            with k.range(begin, whole, lanes) as i:
                add(i, lanes)
            with k.range(whole, end) as i:
                add(i, 0)

        _share(k, Work(size, run, 1024), m.workers)
    m.functions.append(k)
    m.calls.append((k.name, m.workers == 1))
    m.clocks.append(None)


def _add_moves(m: Module) -> None:
    """What replaces an input of the model and was not written over it: copied, in the end.

    What is another input as it was before the step is put aside first, or two that trade places
    would both become one of them.
    """
    if not m.plan.moves:
        return
    from .movers import strided

    k = Function("moves", PARAMETERS, "new values of the model's arrays")
    todo: list[tuple[Array, str, int]] = []
    with k.when(k.parameters["worker"].equals(0)):
        for name in m.plan.moves:
            value = m.plan.outputs[name]
            source, size = _place(m, k, value, 0), value.type.size(m.plan.rows)
            if value.buffer.outer is not None:
                aside = k.stack(source.scalar, size)
                strided(k, source, aside, [size], [1], [1])
                source = aside
            todo.append((source, name, size))
        for source, name, size in todo:
            nbytes = BITS[source.scalar] // 8
            target = Array(k, k.parameters["state"], source.scalar, m.offsets[name] // nbytes)
            strided(k, source, target, [size], [1], [1])
    m.functions.append(k)
    m.calls.append((k.name, True))
    m.clocks.append(None)


def _context(k: Function) -> dict[str, Value]:
    """The words of the context, pointers as ptr."""
    words = Array(k, k.parameters["context"], "i64")
    found = {}
    for i, name in enumerate(WORDS):
        word = words.load(i)
        if name in ADDRESSES:
            found[name] = k.convert("inttoptr", word, "ptr")
        else:
            found[name] = k.convert("bitcast", word, SCALARS.get(name, "i64"))
    return found


def _own(m: Module, k: Function, context: Mapping[str, Value]) -> Value:
    """This worker's private arena, behind the shared one."""
    base = Array(k, context["arena"], "i8")
    return base.pointer(k.parameters["worker"] * m.own_bytes + aligned(m.plan.arena_bytes))


def _run_batch(m: Module, k: Function, context: Mapping[str, Value], own: Value, rows: Value) -> None:
    """Every step in order; workers meet after each that others have to wait for."""
    _clock(m, k, own, None)
    for i, (name, serial) in enumerate(m.calls):
        shared = (context["arena"], context["state"], own, rows, k.parameters["worker"])
        k.call(f"@{name}", *shared)
        last = i == len(m.calls) - 1
        if last or m.timed or not (serial and m.calls[i + 1][1]):
            _meet(m, k, context)
        _clock(m, k, own, m.clocks[i])
    if m.timed:
        _meet(m, k, context)  # whoever reads the clocks has to wait for all of them


def _meet(m: Module, k: Function, context: Mapping[str, Value]) -> None:
    if m.workers > 1:
        k.call("@meet", context["meet"])


def _entry(m: Module, name: str, title: str) -> tuple[Function, dict[str, Value], Value]:
    k = Function(name, (("context", "ptr"), ("worker", "i64")), title)
    context = _context(k)
    return k, context, _own(m, k, context)


def _add_run(m: Module) -> None:
    """run(context, worker): one batch of context's rows, from what is in the arena."""
    k, context, own = _entry(m, "run", "one batch")
    mode = k.stack("i32")
    k.call("@flush", mode.pointer())
    _run_batch(m, k, context, own, context["rows"])
    k.call("@restore", mode.pointer())
    m.functions.append(k)


def _add_epoch(m: Module) -> None:
    """epoch(context, worker): batch after batch of the rows in `order`.

    Loss times rows and the number correct are added to `sums`; the step goes on by 1 each.
    """
    if "loss" not in m.plan.outputs:
        return
    k, context, own = _entry(m, "epoch", "batch after batch of the rows in order")
    mode = k.stack("i32")
    k.call("@flush", mode.pointer())
    with k.range(0, context["count"], m.plan.rows) as start:
        rows = k.integer(k.minimum(context["count"] - start, m.plan.rows))
        _share(k, Work(rows, lambda a, b: _gather(m, k, context, start, a, b)), m.workers)
        with k.when(k.parameters["worker"].equals(0)):
            _put_scalars(m, k, context, start)
        _meet(m, k, context)
        _run_batch(m, k, context, own, rows)
        with k.when(k.parameters["worker"].equals(0)):
            _tally(m, k, context, rows)
        _meet(m, k, context)
    k.call("@restore", mode.pointer())
    m.functions.append(k)


def _tally(m: Module, k: Function, context: Mapping[str, Value], rows: Value) -> None:
    arena = Array(k, context["arena"], "float")
    sums = Array(k, context["sums"], "double")
    for i, name in enumerate(("loss", "correct")):
        if name in m.plan.outputs:
            value = arena.load(m.plan.outputs[name].buffer.offset // 4)
            wide = k.convert("fpext", value, "double")
            if name == "loss":
                wide = wide * k.convert("sitofp", rows, "double")
            sums.store(sums.load(i) + wide, i)


def _put_scalars(m: Module, k: Function, context: Mapping[str, Value], start: Value) -> None:
    """Learning rate, step and seed of the batch from `start` on; their places are used again."""
    for name, scalar in SCALARS.items():
        if name in m.plan.inputs:
            value = context[name]
            if name == "step":
                value = value + start // m.plan.rows
            slot = Array(k, context["arena"], scalar, m.plan.inputs[name].buffer.offset // 8)
            slot.store(value)


def _gather(
    m: Module, k: Function, context: Mapping[str, Value], start: Int, begin: Int, end: Int
) -> None:
    """Rows begin to end of the batch from `start` on: x and y as the order has them.

    x may be bytes (images), which are divided by 255.
    """
    order = Array(k, context["order"], "i64")
    places = {n: m.plan.inputs[n] for n in ("x", "y") if n in m.plan.inputs}
    with k.range(begin, end) as i:
        row = order.load(start + i)
        for name, place in places.items():
            scalar, size = DTYPE_SCALARS[place.type.dtype], place.type.size(1)
            slot = Array(k, context["arena"], scalar, place.buffer.offset * 8 // BITS[scalar])
            target = slot.at(i * size)
            if name == "y":
                _copy_row(k, Array(k, context[name], scalar).at(row * size), target, size, False)
                continue
            with k.when(context["bytes"].equals(0)):
                _copy_row(k, Array(k, context[name], scalar).at(row * size), target, size, False)
            with k.when(context["bytes"].equals(1)):
                _copy_row(k, Array(k, context[name], "i8").at(row * size), target, size, True)


def _copy_row(k: Function, source: Array, target: Array, size: int, scaled: bool) -> None:
    from .sweep import lanes_of

    def move(at: Int, lanes: int) -> None:
        value = source.load(at, lanes)
        if scaled:
            value = k.convert("uitofp", value, target.scalar) / 255.0
        target.store(value, at)

    lanes = host().lanes
    whole = size // lanes * lanes
    if whole:
        with k.range(0, whole, lanes) as at:
            move(at, lanes)
    for at, n in lanes_of(size - whole, lanes):
        move(whole + at, n)


BARRIER = """
declare i32 @sched_yield()

define void @meet(ptr %%meet) #0 {
entry:
  %%turn = getelementptr i8, ptr %%meet, i64 64
  %%now = load atomic i32, ptr %%turn acquire, align 4
  %%before = atomicrmw add ptr %%meet, i32 1 acq_rel
  %%others = add i32 %%before, 1
  %%last = icmp eq i32 %%others, %d
  br i1 %%last, label %%release, label %%wait
release:
  store atomic i32 0, ptr %%meet monotonic, align 4
  %%next = add i32 %%now, 1
  store atomic i32 %%next, ptr %%turn release, align 4
  ret void
wait:
  %%spins = phi i32 [0, %%entry], [%%more, %%patience], [0, %%yield]
  %%seen = load atomic i32, ptr %%turn acquire, align 4
  %%open = icmp ne i32 %%seen, %%now
  br i1 %%open, label %%done, label %%patience
patience:
  %%more = add i32 %%spins, 1
  %%tired = icmp sgt i32 %%more, %d
  br i1 %%tired, label %%yield, label %%wait
yield:
  %%ignored = call i32 @sched_yield()
  br label %%wait
done:
  ret void
}"""


NOW = """
declare i32 @clock_gettime(i32, ptr)
define double @now() #0 {
  %%slot = alloca [2 x i64]
  %%failed = call i32 @clock_gettime(i32 %d, ptr %%slot)
  %%seconds = load i64, ptr %%slot
  %%second = getelementptr i64, ptr %%slot, i64 1
  %%nanos = load i64, ptr %%second
  %%whole = sitofp i64 %%seconds to double
  %%part = sitofp i64 %%nanos to double
  %%scaled = fmul double %%part, 1.0e-9
  %%now = fadd double %%whole, %%scaled
  ret double %%now
}"""


def flush_mode() -> str:
    """flush(ptr) keeps the CPU's mode and sets flush-to-zero; restore(ptr) puts it back."""
    if host().triple.startswith("x86_64"):
        return X86_FLUSH
    if host().triple.startswith(("aarch64", "arm64")):
        return ARM_FLUSH
    return NO_FLUSH


X86_FLUSH = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @flush(ptr %mode) #0 {
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %was = load i32, ptr %mode
  %set = or i32 %was, 32768
  %slot = alloca i32
  store i32 %set, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
define void @restore(ptr %mode) #0 {
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  ret void
}"""
ARM_FLUSH = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define void @flush(ptr %mode) #0 {
  %was = call i64 @llvm.aarch64.get.fpcr()
  %short = trunc i64 %was to i32
  store i32 %short, ptr %mode
  %set = or i64 %was, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %set)
  ret void
}
define void @restore(ptr %mode) #0 {
  %short = load i32, ptr %mode
  %was = zext i32 %short to i64
  call void @llvm.aarch64.set.fpcr(i64 %was)
  ret void
}"""
NO_FLUSH = """
define void @flush(ptr %mode) #0 {
  ret void
}
define void @restore(ptr %mode) #0 {
  ret void
}"""


def as_arrays(plan: Plan, arena: np.ndarray) -> Callable[[Place, int], np.ndarray]:
    """A function from a value of the plan and a number of rows to its array in the arena."""

    def array(value: Place, rows: int) -> np.ndarray:
        begin, t = value.buffer.offset, value.type
        return arena[begin : begin + t.nbytes(rows)].view(t.numpy).reshape(t.concrete(rows))

    return array
