"""A small language for loops. Python is its metalanguage: what Python computes is a constant.

A `Function` is written by calling it: values overload the operators, `with k.range(0, n) as i` is a
loop, `k.fold` a loop that carries values, an ordinary Python `for` unrolls. Each call appends one
LLVM instruction in SSA form, so nothing has to be promoted to registers afterwards, and one entry of
a listing that people can read (`listing`). Integers keep their constant part apart, which makes
addresses short; equal integer computations in scope are made once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

Int = "Value | int"
BITS = {"float": 32, "double": 64, "i64": 64, "i32": 32, "i16": 16, "i8": 8, "i1": 1}
DTYPE_SCALARS = {"f32": "float", "f64": "double", "i64": "i64", "u8": "i8", "bool": "i8"}
SHORT = {"float": "f32", "double": "f64"}  # in the names of intrinsics
INFIX = {
    **{"fadd": "+", "fsub": "-", "fmul": "*", "fdiv": "/", "add": "+", "sub": "-", "mul": "*"},
    **{"sdiv": "/", "srem": "%", "and": "&", "or": "|", "xor": "^", "shl": "<<", "lshr": ">>"},
    "ashr": ">>",
}


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar (`lanes` 0) or vector in SSA form; of an i64, `ref` plus the number `plus`."""

    k: Function
    ref: str
    scalar: str
    lanes: int = 0
    plus: int = 0

    @property
    def type(self) -> str:
        """The LLVM type."""
        return f"<{self.lanes} x {self.scalar}>" if self.lanes else self.scalar

    @property
    def floating(self) -> bool:
        return self.scalar in ("float", "double")

    def __add__(self, other: Value | float) -> Value:
        if self.scalar == "i64" and not self.lanes:
            return self.k.integer_sum(self, other)
        return self.k.binary("fadd" if self.floating else "add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        if isinstance(other, int) and self.scalar == "i64" and not self.lanes:
            return self + -other
        return self.k.binary("fsub" if self.floating else "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.k.binary("fsub" if self.floating else "sub", self.k.like(other, self), self)

    def __mul__(self, other: Value | float) -> Value:
        if self.scalar == "i64" and not self.lanes and isinstance(other, int):
            return self.k.integer_product(self, other)
        return self.k.binary("fmul" if self.floating else "mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self.k.binary("fdiv", self, other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self.k.binary("sdiv", self, other)

    def __mod__(self, other: Value | int) -> Value:
        return self.k.binary("srem", self, other)

    def __neg__(self) -> Value:
        return self.k.unary("fneg", self) if self.floating else self.k.like(0, self) - self

    def __and__(self, other: Value | int) -> Value:
        return self.k.binary("and", self, other)

    def __or__(self, other: Value | int) -> Value:
        return self.k.binary("or", self, other)

    def __xor__(self, other: Value | int) -> Value:
        return self.k.binary("xor", self, other)

    def __lshift__(self, other: Value | int) -> Value:
        return self.k.binary("shl", self, other)

    def __rshift__(self, other: Value | int) -> Value:
        return self.k.binary("lshr", self, other)

    def __lt__(self, other: Value | float) -> Value:
        return self.k.compare("lt", self, other)

    def __le__(self, other: Value | float) -> Value:
        return self.k.compare("le", self, other)

    def __gt__(self, other: Value | float) -> Value:
        return self.k.compare("gt", self, other)

    def equals(self, other: Value | float) -> Value:
        """Whether both are equal; false where one is NaN. (`==` is identity.)"""
        return self.k.compare("eq", self, other)


@dataclass(frozen=True, slots=True)
class Array:
    """Memory: elements of `scalar` from `base` (a ptr) plus `offset` elements on."""

    k: Function
    base: Value
    scalar: str
    offset: Value | int = 0

    def at(self, offset: Value | int) -> Array:
        """The same memory seen from `offset` elements further on."""
        return Array(self.k, self.base, self.scalar, self.offset + offset)

    def load(self, offset: Value | int = 0, lanes: int = 0) -> Value:
        """The element there, or the vector of `lanes` elements from there."""
        return self.k.load(self, self.offset + offset, lanes)

    def store(self, value: Value, offset: Value | int = 0) -> None:
        """Writes a scalar or a vector there."""
        self.k.store(self, self.offset + offset, value)

    def pointer(self, offset: Value | int = 0) -> Value:
        """The address as a ptr."""
        return self.k.address(self.base, self.scalar, self.offset + offset)


class Function:
    """One function under construction: `parameters` are (name, LLVM type); returns nothing."""

    def __init__(self, name: str, parameters: Sequence[tuple[str, str]], title: str = "") -> None:
        self.name, self.title = name, title
        self.signature = ", ".join(f"{t} %{n}" for n, t in parameters)
        self.parameters = {n: Value(self, f"%{n}", t) for n, t in parameters}
        self.lines: list[str] = []
        self.entries: list[tuple[int, str]] = []  # (depth, readable line)
        self.declared: set[str] = set()
        self._count = 0
        self._block = "entry"
        self._scopes: list[dict[tuple, Value]] = [{}]
        self._entry: list[str] = []  # stack slots, at the top of the function

    @property
    def llvm(self) -> str:
        """The function as LLVM text."""
        body = "\n".join([*self._entry, *self.lines])
        return f"define void @{self.name}({self.signature}) #0 {{\nentry:\n{body}\n  ret void\n}}"

    @property
    def listing(self) -> str:
        """The function as loops people can read."""
        head = f"{self.name}({self.signature.replace('%', '')}):"
        title = f"  # {self.title}" if self.title else ""
        return "\n".join([head + title, *("  " * (d + 1) + text for d, text in self.entries)])

    # numbers

    def constant(self, value: float, scalar: str, lanes: int = 0) -> Value:
        """A number, or a vector full of it."""
        text = literal(value, scalar)
        return Value(self, f"splat ({scalar} {text})" if lanes else text, scalar, lanes)

    def like(self, value: Value | float, other: Value) -> Value:
        """`value` in the type of `other`; a scalar is spread over its lanes."""
        if not isinstance(value, Value):
            return self.constant(value, other.scalar, other.lanes)
        return self.splat(value, other.lanes) if other.lanes and not value.lanes else value

    def splat(self, value: Value, lanes: int) -> Value:
        """A vector with the scalar in every lane."""
        value = self._whole(value)
        vector = f"<{lanes} x {value.scalar}>"
        one = self._emit(
            f"insertelement {vector} poison, {value.type} {value.ref}, i64 0", value.scalar, lanes
        )
        text = f"shufflevector {vector} {one.ref}, {vector} poison, <{lanes} x i32> zeroinitializer"
        return self._emit(text, value.scalar, lanes, f"splat({show(value)})")

    def integer(self, value: Value | int) -> Value:
        """An i64 as one value, its constant part added."""
        return self._whole(value) if isinstance(value, Value) else self.constant(value, "i64")

    def integer_sum(self, x: Value, y: Value | float) -> Value:
        """x + y for i64, the constant parts apart."""
        if isinstance(y, int):
            return Value(self, x.ref, "i64", 0, x.plus + y)
        assert isinstance(y, Value)
        text = f"add nsw i64 {x.ref}, {y.ref}"
        whole = self._once(text, "i64", f"{show(x, 0)} + {show(y, 0)}")
        return Value(self, whole.ref, "i64", 0, x.plus + y.plus)

    def integer_product(self, x: Value, factor: int) -> Value | int:  # type: ignore[return]
        """x * factor for i64, the constant part apart."""
        if factor == 0:
            return 0
        if factor == 1:
            return x
        whole = self._once(f"mul nsw i64 {x.ref}, {factor}", "i64", f"{show(x, 0)} * {factor}")
        return Value(self, whole.ref, "i64", 0, x.plus * factor)

    # arithmetic

    def binary(self, op: str, x: Value, y: Value | float) -> Value:
        """`x op y`, lane by lane; a product and a sum may become one fused multiply-add."""
        x, y = self._pair(x, y)
        flags = " contract" if op[0] == "f" else ""
        text = f"{op}{flags} {x.type} {x.ref}, {y.ref}"
        shown = f"{show(x)} {INFIX[op]} {show(y)}"
        if x.scalar == "i64" and not x.lanes:
            return self._once(text, "i64", shown)
        return self._emit(text, x.scalar, x.lanes, shown)

    def unary(self, op: str, x: Value) -> Value:
        """`op x`, such as fneg."""
        return self._emit(f"{op} {x.type} {x.ref}", x.scalar, x.lanes, f"{op}({show(x)})")

    def compare(self, relation: str, x: Value, y: Value | float) -> Value:
        """x lt, le, gt, ge, eq y, for integers also ne, ult, uge...: i1, false where one is NaN."""
        x, y = self._pair(x, y)
        exact = relation in ("eq", "ne") or relation[0] == "u"
        unordered = relation in ("ord", "uno", "ugt", "une")
        op = f"fcmp {'' if unordered else 'o'}{relation}" if x.floating else f"icmp {relation if exact else 's' + relation}"
        return self._emit(
            f"{op} {x.type} {x.ref}, {y.ref}", "i1", x.lanes, f"{show(x)} {relation} {show(y)}"
        )

    def ordered(self, x: Value) -> Value:
        """Whether x is not NaN."""
        return self.compare("ord", x, x)

    def unordered(self, x: Value) -> Value:
        """Whether x is NaN."""
        return self.compare("uno", x, x)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x * y + z with one rounding."""
        return self.intrinsic("fma", x, y, z)

    def select(self, condition: Value, x: Value | float, y: Value | float) -> Value:
        """x where the condition holds, else y."""
        model = x if isinstance(x, Value) else y
        assert isinstance(model, Value)
        x, y = self.like(x, model), self.like(y, model)
        if x.lanes != y.lanes or (condition.lanes and not x.lanes):
            wide = max(x.lanes, y.lanes, condition.lanes)
            x, y = (v if v.lanes else self.splat(v, wide) for v in (x, y))
        x, y = self._whole(x), self._whole(y)
        text = f"select {condition.type} {condition.ref}, {x.type} {x.ref}, {y.type} {y.ref}"
        return self._emit(
            text, x.scalar, x.lanes, f"{show(condition)} ? {show(x)} : {show(y)}"
        )

    def minimum(self, x: Value | int, y: Value | int) -> Value | int:
        """The smaller of two i64."""
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        return self.intrinsic("smin", self.integer(x), self.integer(y))

    def maximum(self, x: Value | int, y: Value | int) -> Value | int:
        """The larger of two i64."""
        if isinstance(x, int) and isinstance(y, int):
            return max(x, y)
        return self.intrinsic("smax", self.integer(x), self.integer(y))

    def intrinsic(self, name: str, *args: Value, extra: str = "") -> Value:
        """llvm.NAME on values of one type."""
        args = tuple(self._whole(a) for a in args)
        kind = suffix(args[0])
        inside = ", ".join(f"{a.type} {a.ref}" for a in args)
        self.declared.add(
            f"declare {args[0].type} @llvm.{name}.{kind}"
            f"({', '.join(a.type for a in args)}{', i1' if extra else ''})"
        )
        text = f"call {args[0].type} @llvm.{name}.{kind}({inside}{extra})"
        return self._emit(
            text, args[0].scalar, args[0].lanes, f"{name}({', '.join(map(show, args))})"
        )

    def reduce(self, name: str, x: Value, start: float | None = None) -> Value:
        """llvm.vector.reduce.NAME: the lanes of x combined, as a tree; for a scalar x itself."""
        if not x.lanes:
            return x
        kind = suffix(x)
        first = "" if start is None else f"{x.scalar} {literal(start, x.scalar)}, "
        self.declared.add(
            f"declare {x.scalar} @llvm.vector.reduce.{name}.{kind}"
            f"({x.scalar + ', ' if first else ''}{x.type})"
        )
        flags = "reassoc " if first else ""
        text = f"call {flags}{x.scalar} @llvm.vector.reduce.{name}.{kind}({first}{x.type} {x.ref})"
        return self._emit(text, x.scalar, 0, f"{name} over lanes of {show(x)}")

    def convert(self, op: str, x: Value, scalar: str) -> Value:
        """A conversion instruction, such as `sitofp`, `zext` or `bitcast`, lane by lane."""
        x = self._whole(x)
        target = f"<{x.lanes} x {scalar}>" if x.lanes else scalar
        return self._emit(f"{op} {x.type} {x.ref} to {target}", scalar, x.lanes, f"{scalar}({show(x)})")

    def bits(self, x: Value) -> Value:
        """A vector of i1 as one integer, lane 0 lowest."""
        text = f"bitcast {x.type} {x.ref} to i{x.lanes}"
        return self._emit(text, f"i{x.lanes}", 0, f"bits({show(x)})")

    def lowest_bit(self, x: Value) -> Value:
        """The number of the lowest bit that is set in an i64, which is not 0."""
        self.declared.add("declare i64 @llvm.cttz.i64(i64, i1)")
        text = f"call i64 @llvm.cttz.i64(i64 {x.ref}, i1 true)"
        return self._emit(text, "i64", 0, f"lowest bit of {show(x)}")

    def lane_numbers(self, lanes: int, scalar: str = "i32", factor: int = 1) -> Value:
        """The vector 0, 1, 2, ... times `factor`."""
        inside = ", ".join(f"{scalar} {i * factor & ((1 << BITS[scalar]) - 1)}" for i in range(lanes))
        return Value(self, f"<{inside}>", scalar, lanes)

    def shuffle(self, x: Value, y: Value, picks: Sequence[int]) -> Value:
        """A vector of lanes of x, then y, by number."""
        mask = ", ".join(f"i32 {p}" for p in picks)
        text = f"shufflevector {x.type} {x.ref}, {y.type} {y.ref}, <{len(picks)} x i32> <{mask}>"
        return self._emit(text, x.scalar, len(picks), f"shuffle({show(x)}, {show(y)})")

    def extract(self, x: Value, lane: int) -> Value:
        """One lane of a vector."""
        return self._emit(f"extractelement {x.type} {x.ref}, i64 {lane}", x.scalar, 0, f"{show(x)}[{lane}]")

    # memory

    def address(self, base: Value, scalar: str, offset: Value | int) -> Value:
        """The ptr `offset` elements of `scalar` behind base."""
        plus = offset
        if isinstance(offset, Value):
            text = f"getelementptr inbounds {scalar}, ptr {base.ref}, i64 {offset.ref}"
            base, plus = self._once(text, "ptr"), offset.plus
        if plus == 0:
            return base
        return self._once(f"getelementptr inbounds {scalar}, ptr {base.ref}, i64 {plus}", "ptr")

    def load(self, array: Array, offset: Value | int, lanes: int) -> Value:
        """See Array.load."""
        pointer = self.address(array.base, array.scalar, offset)
        what = f"<{lanes} x {array.scalar}>" if lanes else array.scalar
        width = BITS[array.scalar] // 8
        shown = f"{array.base.ref[1:]}[{show_int(offset)}{f'..+{lanes}' if lanes else ''}]"
        return self._emit(f"load {what}, ptr {pointer.ref}, align {width}", array.scalar, lanes, shown)

    def store(self, array: Array, offset: Value | int, value: Value) -> None:
        """See Array.store."""
        value = self._whole(value)
        assert value.scalar == array.scalar, (value.scalar, array.scalar)
        pointer = self.address(array.base, array.scalar, offset)
        width = BITS[array.scalar] // 8
        self.lines.append(f"  store {value.type} {value.ref}, ptr {pointer.ref}, align {width}")
        self.say(f"{array.base.ref[1:]}[{show_int(offset)}] = {show(value)}")

    def gather(self, array: Array, offsets: Value) -> Value:
        """The elements at a vector of i64 offsets."""
        n, scalar = offsets.lanes, array.scalar
        pointers, kind = self._pointers(array, offsets), f"v{n}{SHORT.get(scalar, scalar)}"
        name = f"@llvm.masked.gather.{kind}.v{n}p0"
        vector = f"<{n} x {scalar}>"
        self.declared.add(f"declare {vector} {name}(<{n} x ptr>, <{n} x i1>, {vector})")
        every = f"<{n} x i1> splat (i1 true)"
        text = f"call {vector} {name}(<{n} x ptr> {pointers}, {every}, {vector} poison)"
        shown = f"{array.base.ref[1:]}[{show_int(array.offset)} + {show(offsets)}]"
        return self._emit(text, scalar, n, shown)

    def scatter(self, array: Array, offsets: Value, value: Value) -> None:
        """Writes each lane at its offset."""
        n, scalar = offsets.lanes, array.scalar
        pointers, kind = self._pointers(array, offsets), f"v{n}{SHORT.get(scalar, scalar)}"
        name = f"@llvm.masked.scatter.{kind}.v{n}p0"
        vector = f"<{n} x {scalar}>"
        self.declared.add(f"declare void {name}({vector}, <{n} x ptr>, <{n} x i1>)")
        every = f"<{n} x i1> splat (i1 true)"
        self.lines.append(
            f"  call void {name}({vector} {value.ref}, <{n} x ptr> {pointers}, {every})"
        )
        self.say(f"{array.base.ref[1:]}[{show_int(array.offset)} + {show(offsets)}] = {show(value)}")

    def _pointers(self, array: Array, offsets: Value) -> str:
        base = self.address(array.base, array.scalar, array.offset)
        text = f"getelementptr inbounds {array.scalar}, ptr {base.ref}, <{offsets.lanes} x i64> {offsets.ref}"
        made = self._fresh("ptr", offsets.lanes)
        self.lines.append(f"  {made.ref} = {text}")
        return made.ref

    def stack(self, scalar: str, count: int = 1) -> Array:
        """`count` elements on the stack of this call."""
        self._count += 1
        self._entry.append(f"  %v{self._count} = alloca [{count} x {scalar}], align 64")
        return Array(self, Value(self, f"%v{self._count}", "ptr"), scalar)

    def call(self, target: str, *args: Value) -> None:
        """Calls a function of nothing returned, by name or address in `target`."""
        inside = ", ".join(f"{a.type} {self._whole(a).ref}" for a in args)
        self.lines.append(f"  call void {target}({inside})")
        self.say(f"{target.lstrip('@')}({', '.join(map(show, args))})")

    def raw(self, text: str, scalar: str | None = None, shown: str = "") -> Value | None:
        """Any other instruction; its result is a scalar of type `scalar`."""
        if scalar is None:
            self.lines.append(f"  {text}")
            self.say(shown or text)
            return None
        return self._emit(text, scalar, 0, shown or text)

    # control

    @contextmanager
    def range(self, start: Value | int, stop: Value | int, step: int = 1) -> Iterator[Value | int]:
        """`for i in start, start+step, ... below stop`; a single turn is no loop."""
        if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
            yield start
            return
        with self._loop(start, stop, step, ()) as (i, _, finish):
            yield i
            finish(())

    def fold(
        self,
        start: Value | int,
        stop: Value | int,
        values: Sequence[Value],
        body: Callable[[Value | int, list[Value]], Sequence[Value]],
        step: int = 1,
    ) -> list[Value]:
        """The values after a loop in which body(i, values) gives the next ones."""
        if isinstance(start, int) and isinstance(stop, int):
            if start >= stop:
                return list(values)
            if stop <= start + step:
                return list(body(start, list(values)))
        results: list[Value] = []
        with self._loop(start, stop, step, values) as (i, carried, finish):
            results = finish(body(i, carried))
        return results

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is inside happens only if the condition holds."""
        inside, after = self._label("then"), self._label("after")
        self.lines.append(f"  br i1 {condition.ref}, label %{inside}, label %{after}")
        self.say(f"if {show(condition)}:")
        self._open(inside)
        yield
        self._close()
        self.lines.append(f"  br label %{after}")
        self._start(after)

    def fold_while(
        self,
        values: Sequence[Value],
        test: Callable[[list[Value]], Value],
        body: Callable[[list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """The values after a loop in which body(values) gives the next ones while test(values)."""
        values = [self._whole(v) for v in values]
        first = test(list(values))
        before, head, after = self._block, self._label("loop"), self._label("done")
        self.lines.append(f"  br i1 {first.ref}, label %{head}, label %{after}")
        carried = [self._fresh(v.scalar, v.lanes) for v in values]
        self.say(f"while {show(first)}:")
        for c, v in zip(carried, values, strict=True):
            self.entries.append((len(self._scopes), f"{show(c)} = {show(v)} at first"))
        self._open(head)
        slot = len(self.lines)
        nexts = [self._whole(v) for v in body(list(carried))]
        more, latch = test(nexts), self._block
        phis, merged = [], []
        for c, v, n in zip(carried, values, nexts, strict=True):
            phis.append(f"  {c.ref} = phi {c.type} [{v.ref}, %{before}], [{n.ref}, %{latch}]")
            self.say(f"{show(c)} = {show(n)} next")
        self.lines[slot:slot] = phis
        self._close()
        self.lines.append(f"  br i1 {more.ref}, label %{head}, label %{after}")
        self._start(after)
        for v, n in zip(values, nexts, strict=True):
            m = self._fresh(v.scalar, v.lanes)
            self.lines.append(f"  {m.ref} = phi {v.type} [{v.ref}, %{before}], [{n.ref}, %{latch}]")
            merged.append(m)
        return merged

    def say(self, text: str) -> None:
        """Adds a line to the listing."""
        self.entries.append((len(self._scopes) - 1, text))

    @contextmanager
    def _loop(
        self, start: Value | int, stop: Value | int, step: int, values: Sequence[Value]
    ) -> Iterator[tuple[Value, list[Value], Callable[[Sequence[Value]], list[Value]]]]:
        first, last = self.integer(start), self.integer(stop)
        values = [self._whole(v) for v in values]
        guarded = not (isinstance(start, int) and isinstance(stop, int) and start < stop)
        before, head, after = self._block, self._label("loop"), self._label("done")
        if guarded:
            some = self._emit(f"icmp slt i64 {first.ref}, {last.ref}", "i1")
            before = self._block
            self.lines.append(f"  br i1 {some.ref}, label %{head}, label %{after}")
        else:
            self.lines.append(f"  br label %{head}")
        i, carried = self._fresh("i64"), [self._fresh(v.scalar, v.lanes) for v in values]
        jump = "" if step == 1 else f" step {step}"
        self.say(f"for {show(i)} in {show(first)} .. {show(last)}{jump}:")
        for c, v in zip(carried, values, strict=True):
            self.entries.append((len(self._scopes), f"{show(c)} = {show(v)} at first"))
        self._open(head)
        slot = len(self.lines)
        final: list[Value] = []

        def finish(nexts: Sequence[Value]) -> list[Value]:
            nexts = [self._whole(v) for v in nexts]
            following = self._emit(f"add nsw i64 {i.ref}, {step}", "i64", None)
            more = self._emit(f"icmp slt i64 {following.ref}, {last.ref}", "i1", None)
            phis = [f"  {i.ref} = phi i64 [{first.ref}, %{before}], [{following.ref}, %{self._block}]"]
            for c, v, n in zip(carried, values, nexts, strict=True):
                phis.append(
                    f"  {c.ref} = phi {c.type} [{v.ref}, %{before}], [{n.ref}, %{self._block}]"
                )
                self.say(f"{show(c)} = {show(n)} next")
            self.lines[slot:slot] = phis
            latch = self._block
            self._close()
            self.lines.append(f"  br i1 {more.ref}, label %{head}, label %{after}")
            self._start(after)
            for v, n in zip(values, nexts, strict=True):
                if not guarded:
                    final.append(n)
                    continue
                merged = self._fresh(v.scalar, v.lanes)
                self.lines.append(
                    f"  {merged.ref} = phi {v.type} [{v.ref}, %{before}], [{n.ref}, %{latch}]"
                )
                self.say(f"{show(merged)} = the last of them")
                final.append(merged)
            return final

        yield i, carried, finish

    def _label(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _start(self, block: str) -> None:
        self.lines.append(f"{block}:")
        self._block = block

    def _open(self, block: str) -> None:
        self._start(block)
        self._scopes.append({})

    def _close(self) -> None:
        self._scopes.pop()

    def _pair(self, x: Value, y: Value | float) -> tuple[Value, Value]:
        y = self.like(y, x)
        x = self.like(x, y)
        x, y = self._whole(x), self._whole(y)
        assert (x.scalar, x.lanes) == (y.scalar, y.lanes), (x.type, y.type)
        return x, y

    def _whole(self, x: Value) -> Value:
        if x.plus == 0:
            return x
        return self._once(f"add nsw i64 {x.ref}, {x.plus}", "i64", show(x))

    def _once(self, text: str, scalar: str, shown: str | None = None) -> Value:
        for scope in self._scopes:
            if (text,) in scope:
                return scope[text,]
        made = self._emit(text, scalar, 0, shown)
        self._scopes[-1][text,] = made
        return made

    def _fresh(self, scalar: str, lanes: int = 0) -> Value:
        self._count += 1
        return Value(self, f"%v{self._count}", scalar, lanes)

    def _emit(self, text: str, scalar: str, lanes: int = 0, shown: str | None = None) -> Value:
        value = self._fresh(scalar, lanes)
        self.lines.append(f"  {value.ref} = {text}")
        if shown is not None:
            self.say(f"{show(value)} = {shown}")
        return value


def show(x: Value | float, plus: int | None = None) -> str:
    """A value as the listing names it."""
    if not isinstance(x, Value):
        return str(x)
    name = x.ref[1:] if x.ref.startswith("%") else x.ref
    added = x.plus if plus is None else plus
    return f"{name} + {added}" if added else name


def show_int(x: Value | int) -> str:
    return show(x) if isinstance(x, Value) else str(x)


def suffix(x: Value) -> str:
    """How an overloaded intrinsic names the type of x."""
    short = SHORT.get(x.scalar, x.scalar)
    return f"v{x.lanes}{short}" if x.lanes else short


def literal(value: float, scalar: str) -> str:
    """A number as LLVM writes it; floats by their bits, so that none is rounded twice."""
    if scalar not in ("float", "double"):
        bits = BITS[scalar]
        return str((int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1))
    if scalar == "float":
        (value,) = struct.unpack("<f", struct.pack("<f", clipped(value)))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def clipped(value: float) -> float:
    """value as float32 has it: infinite where it is too large."""
    largest = 3.4028235677973366e38  # halfway between the largest float32 and the next power of two
    if value == value and abs(value) >= largest:
        return float("inf") if value > 0 else float("-inf")
    return value
