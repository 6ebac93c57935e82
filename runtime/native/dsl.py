"""A small language for loops. Python is its metalanguage: what Python computes is a constant.

A `Function` is written by calling it: values overload the operators, `with k.range(0, n) as i` is a
loop, `k.fold` a loop that carries values, an ordinary Python `for` unrolls. Each call appends one
LLVM instruction in SSA form, so nothing has to be promoted to registers afterwards, and one entry
of a listing that people can read (`listing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .arithmetic import Arithmetic
from .values import BITS, DTYPE_SCALARS, SHORT, Array, Value, literal, show


class Function(Arithmetic):
    """One function under construction: `parameters` are (name, LLVM type); returns nothing."""

    def __init__(self, name: str, parameters: Sequence[tuple[str, str]], title: str = "") -> None:
        super().__init__()
        self.name, self.title = name, title
        self.signature = ", ".join(f"{t} %{n}" for n, t in parameters)
        self.parameters = {n: Value(self, f"%{n}", t) for n, t in parameters}
        self._block = "entry"
        self._procedures: set[str] = set()
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
        shown = f"{array.base.ref[1:]}[{show(offset)}{f'..+{lanes}' if lanes else ''}]"
        return self._emit(
            f"load {what}, ptr {pointer.ref}, align {width}", array.scalar, lanes, shown
        )

    def store(self, array: Array, offset: Value | int, value: Value) -> None:
        """See Array.store."""
        value = self._whole(value)
        assert value.scalar == array.scalar, (value.scalar, array.scalar)
        pointer = self.address(array.base, array.scalar, offset)
        width = BITS[array.scalar] // 8
        self.lines.append(f"  store {value.type} {value.ref}, ptr {pointer.ref}, align {width}")
        self.say(f"{array.base.ref[1:]}[{show(offset)}] = {show(value)}")

    def gather(self, array: Array, offsets: Value) -> Value:
        """The elements at a vector of i64 offsets."""
        n, scalar = offsets.lanes, array.scalar
        pointers, kind = self._pointers(array, offsets), f"v{n}{SHORT.get(scalar, scalar)}"
        name = f"@llvm.masked.gather.{kind}.v{n}p0"
        vector = f"<{n} x {scalar}>"
        self.declared.add(f"declare {vector} {name}(<{n} x ptr>, <{n} x i1>, {vector})")
        every = f"<{n} x i1> splat (i1 true)"
        text = f"call {vector} {name}(<{n} x ptr> {pointers}, {every}, {vector} poison)"
        shown = f"{array.base.ref[1:]}[{show(array.offset)} + {show(offsets)}]"
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
        self.say(f"{array.base.ref[1:]}[{show(array.offset)} + {show(offsets)}] = {show(value)}")

    def _pointers(self, array: Array, offsets: Value) -> str:
        base = self.address(array.base, array.scalar, array.offset)
        numbers = f"<{offsets.lanes} x i64> {offsets.ref}"
        text = f"getelementptr inbounds {array.scalar}, ptr {base.ref}, {numbers}"
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

    def outlined(self, name: str, body: Callable[[Value], Value], x: Value) -> Value:
        """body(x), of x's own type, as a call: the function is made once for its name and lanes."""
        whole = f"{name}.{x.lanes}"  # never the plain name, which LLVM may take for libm's
        callee = Function(whole, (("x", x.type),))
        result = body(Value(callee, "%x", x.scalar, x.lanes))
        code = "\n".join([*callee._entry, *callee.lines, f"  ret {x.type} {result.ref}"])
        head = f"define internal {x.type} @{whole}({callee.signature}) #0"
        self.declared |= {*callee.declared, f"{head} {{\nentry:\n{code}\n}}"}
        text = f"call {x.type} @{whole}({x.type} {x.ref})"
        return self._emit(text, x.scalar, x.lanes, f"{name}({show(x)})")

    def procedure(
        self, name: str, parameters: Sequence[tuple[str, str]], body: Callable[[Function], None]
    ) -> None:
        """Declares a function of nothing returned, to be called: made once for its name."""
        if name in self._procedures:
            return
        self._procedures.add(name)
        callee = Function(name, parameters)
        body(callee)
        self.declared |= {*callee.declared, callee.llvm.replace("define", "define internal", 1)}

    def raw(self, text: str, scalar: str | None = None, shown: str = "") -> Value | None:
        """Any other instruction; its result is a scalar of type `scalar`."""
        if scalar is None:
            self.lines.append(f"  {text}")
            self.say(shown or text)
            return None
        return self._emit(text, scalar, 0, shown or text)

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
            following = self._emit(f"add nsw i64 {i.ref}, {step}", "i64")
            more = self._emit(f"icmp slt i64 {following.ref}, {last.ref}", "i1")
            phis = [
                f"  {i.ref} = phi i64 [{first.ref}, %{before}], [{following.ref}, %{self._block}]"
            ]
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


__all__ = ["BITS", "DTYPE_SCALARS", "Array", "Function", "Value", "literal"]
