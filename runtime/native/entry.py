"""The entry points of a program: `run` and `predict` for one batch, `epoch` and `apply` for more.

All get a context, a few words of 64 bits, and the number of the worker that calls them. A call is
over when all workers have returned, so that they need not meet at its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ...passes.memory import aligned
from ...passes.plan import Plan
from .dsl import BITS, DTYPE_SCALARS, Array, Function, Value
from .jit import host
from .lanes import LANES
from .module import Call, Module, clock, meetings, share
from .site import Int, Work
from .stamps import BEGIN, GATHER, NOTHING, TALLY, WAIT
from .sweep import lanes_of
from .target import BYTES, SMALL

# The context that every call gets is words of 64 bits, of which these are addresses.
ADDRESSES = ("arena", "state", "meet", "x", "y", "order", "sums", "out")
SCALARS = {"lr": "double", "step": "i64", "seed": "i64"}  # inputs that are not a row's
WORDS = (*ADDRESSES, "rows", "count", "bytes", *SCALARS)


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


def _run_batch(
    m: Module,
    k: Function,
    context: Mapping[str, Value],
    own: Value,
    rows: Value,
    x: Value | None = None,
    since: Sequence[Call] = (),
) -> None:
    """Every step in order, but for those that `prepare` runs.

    x is where the inputs are, in the arena if it is not given; `since` as for `meetings`.
    """
    _run_calls(m, k, context, own, rows, x, [call for call in m.calls if not call.once], since)


def _run_calls(
    m: Module,
    k: Function,
    context: Mapping[str, Value],
    own: Value,
    rows: Value,
    x: Value | None,
    calls: Sequence[Call],
    since: Sequence[Call] = (),
) -> None:
    """Calls in order; workers meet before one that needs what another has to finish.

    `since` are calls that came before these, since the workers last met.
    """
    x = x or _slot(m, k, context)
    for call, meet in zip(calls, meetings(calls, since), strict=True):
        if meet:
            _meet(m, k, context, own)
        shared = (context["arena"], context["state"], own, x, rows, k.parameters["worker"])
        k.call(f"@{call.name}", *shared)
        if call.slot is not None:
            clock(m, k, own, call.slot)


def _slot(m: Module, k: Function, context: Mapping[str, Value]) -> Value:
    """Where the arena has room for the inputs."""
    place = m.plan.inputs.get("x")
    return Array(k, context["arena"], "i8", place.buffer.offset if place else 0).pointer()


def _meet(m: Module, k: Function, context: Mapping[str, Value], own: Value) -> None:
    if m.workers > 1:
        k.call("@meet", context["meet"])
        clock(m, k, own, WAIT)


def _entry(m: Module, name: str, title: str) -> tuple[Function, dict[str, Value], Value]:
    k = Function(name, (("context", "ptr"), ("worker", "i64")), title)
    context = _context(k)
    return k, context, _own(m, k, context)


@contextmanager
def _flushing(k: Function) -> Iterator[None]:
    """Numbers that would be denormal are 0 in what is inside; then all is as it was."""
    mode = k.stack("i32")
    k.call("@flush", mode.pointer())
    yield
    k.call("@restore", mode.pointer())


def add_prepare(m: Module) -> None:
    """prepare(context, worker): what depends on the model's arrays alone, and is not timed."""
    calls = [call for call in m.calls if call.once]
    if not calls:
        return
    k, context, own = _entry(m, "prepare", "what stays until the model's arrays change")
    quiet = replace(m, timed=False)
    with _flushing(k):
        _run_calls(quiet, k, context, own, k.integer(m.plan.rows), None, calls)
    m.functions.append(k)


def add_run(m: Module, name: str = "run") -> None:
    """run(context, worker): one batch of context's rows, from what is in the arena."""
    k, context, own = _entry(m, name, "one batch")
    with _flushing(k):
        clock(m, k, own, BEGIN)
        clock(m, k, own, NOTHING)
        _run_batch(m, k, context, own, context["rows"])
    m.functions.append(k)


def has_epoch(plan: Plan) -> bool:
    """Whether a plan's batches can be run one after the other in one call.

    They have a loss, and else only what the next batch goes on with: no gradients.
    """
    return "loss" in plan.outputs and {*plan.outputs} <= {"loss", "correct", *plan.inputs}


def add_epoch(m: Module) -> None:
    """epoch(context, worker): batch after batch of the rows in `order`.

    Loss times rows and the number correct are added to `sums`; the step goes on by 1 each.
    """
    if not has_epoch(m.plan):
        return
    k, context, own = _entry(m, "epoch", "batch after batch of the rows in order")
    with _flushing(k), k.range(0, context["count"], m.plan.rows) as start:
        clock(m, k, own, BEGIN)
        clock(m, k, own, NOTHING)
        rows = k.integer(k.minimum(context["count"] - start, m.plan.rows))
        share(k, Work(rows, lambda a, b: _gather(m, k, context, start, a, b)), m.workers)
        with k.when(k.parameters["worker"].equals(0)):
            _put_scalars(m, k, context, start)
        clock(m, k, own, GATHER)
        _meet(m, k, context, own)
        _run_batch(m, k, context, own, rows)
        with k.when(k.parameters["worker"].equals(0)):
            _tally(m, k, context, rows)
        clock(m, k, own, TALLY)
        _meet(m, k, context, own)
    m.functions.append(k)


def add_apply(m: Module) -> None:
    """The entry points of programs whose one output is the model's: `predict` and `apply`.

    predict(context, worker): one batch of x's rows as they lie; the output stays in the arena.
    apply(context, worker): batch after batch of them, the output's rows to `out`.
    """
    if set(m.plan.outputs) != {"output"}:
        return
    k, context, own = _entry(m, "predict", "one batch of the rows of x")
    with _flushing(k):
        _apply_batch(m, k, context, own, 0, context["count"])
    m.functions.append(k)
    k, context, own = _entry(m, "apply", "batch after batch of the rows of x")
    with _flushing(k), k.range(0, context["count"], m.plan.rows) as start:
        rows = k.integer(k.minimum(context["count"] - start, m.plan.rows))
        _apply_batch(m, k, context, own, start, rows)
        _meet(m, k, context, own)
        share(k, Work(rows, lambda a, b: _hand_out(m, k, context, start, a, b)), m.workers)
        _meet(m, k, context, own)
    m.functions.append(k)


def _apply_batch(
    m: Module, k: Function, context: Mapping[str, Value], own: Value, start: Int, rows: Value
) -> None:
    """The batch of x's rows from `start` on.

    Floats are read where they are, if they are only read and the batch is whole: of one that is
    not, a product reads rows that nobody has (`Matmul.beyond`), for which the arena has room.
    """
    copied = k.constant(1, "i1")
    if m.keeps_x:
        copied = context["bytes"].equals(1) | (rows < m.plan.rows)
    take = _taking(m)
    with k.when(copied):
        work = Work(rows, lambda a, b: _gather(m, k, context, start, a, b, False))
        share(k, work, m.workers, take.alone)
        clock(m, k, own, GATHER)
        if not take.alone:
            _meet(m, k, context, own)
    x = Array(k, context["x"], "i8").pointer(start * _row_bytes(m))
    x = k.select(copied, _slot(m, k, context), x)
    _run_batch(m, k, context, own, rows, x, [take] if take.alone else [])


def _taking(m: Module) -> Call:
    """The copy of a batch's inputs to where the arena has room for them, as `meetings` sees it."""
    place = m.plan.inputs.get("x")
    seconds = _row_bytes(m) * m.plan.rows / BYTES
    return Call("take", seconds < SMALL, touches=([], [place.buffer] if place else []))


def _row_bytes(m: Module) -> int:
    """Bytes of a row of x."""
    return m.plan.inputs["x"].type.nbytes(1) if "x" in m.plan.inputs else 0


def _hand_out(
    m: Module, k: Function, context: Mapping[str, Value], start: Int, begin: Int, end: Int
) -> None:
    """Rows begin to end of a batch's output, to `out` from row `start` on."""
    value = m.plan.outputs["output"]
    scalar, size = DTYPE_SCALARS[value.type.dtype], value.type.size(1)
    source = Array(k, context["arena"], scalar, value.buffer.offset * 8 // BITS[scalar])
    target = Array(k, context["out"], scalar)
    with k.range(begin, end) as i:
        _copy_row(k, source.at(i * size), target.at((start + i) * size), size, False)


def _tally(m: Module, k: Function, context: Mapping[str, Value], rows: Value) -> None:
    sums = Array(k, context["sums"], "double")
    for i, name in enumerate(("loss", "correct")):
        if name in m.plan.outputs:
            place = m.plan.outputs[name]
            scalar = DTYPE_SCALARS[place.type.dtype]
            array = Array(k, context["arena"], scalar, place.buffer.offset * 8 // BITS[scalar])
            wide = LANES.cast(array.load(), "f64")
            if name == "loss":
                wide = wide * k.convert("sitofp", rows, "double")
            sums.store(sums.load(i) + wide, i)


def _put_scalars(m: Module, k: Function, context: Mapping[str, Value], start: Int) -> None:
    """Learning rate, step and seed of the batch from `start` on; their places are used again."""
    for name, scalar in SCALARS.items():
        if name in m.plan.inputs:
            value = context[name]
            if name == "step":
                value = value + k.integer(start) // m.plan.rows
            slot = Array(k, context["arena"], scalar, m.plan.inputs[name].buffer.offset // 8)
            slot.store(value)


def _gather(
    m: Module,
    k: Function,
    context: Mapping[str, Value],
    start: Int,
    begin: Int,
    end: Int,
    ordered: bool = True,
) -> None:
    """Rows begin to end of the batch from `start` on: x and y as the order has them, if it does.

    x may be bytes (images), which are divided by 255.
    """
    order = Array(k, context["order"], "i64")
    places = {n: m.plan.inputs[n] for n in ("x", "y") if n in m.plan.inputs}
    with k.range(begin, end) as i:
        row = order.load(start + i) if ordered else start + i
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
