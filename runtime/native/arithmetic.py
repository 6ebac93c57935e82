"""Arithmetic of the loop language: what computes on values without touching memory.

Integers keep their constant part apart, which makes addresses short; equal integer computations in
scope are made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from .values import BITS, INFIX, Value, literal, show, suffix

if TYPE_CHECKING:
    from .dsl import Function


class Arithmetic:
    """The half of a `Function` that emits instructions; the other half has memory and loops."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.entries: list[tuple[int, str]] = []  # (depth, readable line)
        self.declared: set[str] = set()  # what stands before the functions of a module
        self.uses: Counter[str] = Counter()  # of elementary functions
        self._count = 0
        self._scopes: list[dict[str, Value]] = [{}]

    def constant(self, value: float, scalar: str, lanes: int = 0) -> Value:
        """A number, or a vector full of it."""
        text = literal(value, scalar)
        return Value(self._function, f"splat ({scalar} {text})" if lanes else text, scalar, lanes)

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
            return Value(self._function, x.ref, "i64", 0, x.plus + y)
        assert isinstance(y, Value)
        if "0" in (x.ref, y.ref):
            return Value(
                self._function, y.ref if x.ref == "0" else x.ref, "i64", 0, x.plus + y.plus
            )
        text = f"add nsw i64 {x.ref}, {y.ref}"
        whole = self._once(text, "i64", f"{show(x, 0)} + {show(y, 0)}")
        return Value(self._function, whole.ref, "i64", 0, x.plus + y.plus)

    def integer_product(self, x: Value, factor: int) -> Value:
        """x * factor for i64, the constant part apart."""
        if factor == 0:
            return self.constant(0, "i64")
        if factor == 1:
            return x
        whole = self._once(f"mul nsw i64 {x.ref}, {factor}", "i64", f"{show(x, 0)} * {factor}")
        return Value(self._function, whole.ref, "i64", 0, x.plus * factor)

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
        op = (
            f"fcmp {'' if unordered else 'o'}{relation}"
            if x.floating
            else f"icmp {relation if exact else 's' + relation}"
        )
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
        return self._emit(text, x.scalar, x.lanes, f"{show(condition)} ? {show(x)} : {show(y)}")

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
        return self._emit(
            f"{op} {x.type} {x.ref} to {target}", scalar, x.lanes, f"{scalar}({show(x)})"
        )

    def bits(self, x: Value) -> Value:
        """A vector as one integer; of i1 lane 0 is the lowest bit, else as memory has them."""
        width = x.lanes * BITS[x.scalar]
        text = f"bitcast {x.type} {x.ref} to i{width}"
        return self._emit(text, f"i{width}", 0, f"bits({show(x)})")

    def lowest_bit(self, x: Value) -> Value:
        """The number of the lowest bit that is set in an i64, which is not 0."""
        self.declared.add("declare i64 @llvm.cttz.i64(i64, i1)")
        text = f"call i64 @llvm.cttz.i64(i64 {x.ref}, i1 true)"
        return self._emit(text, "i64", 0, f"lowest bit of {show(x)}")

    def pinned(self, x: Value) -> Value:
        """x, an integer, in a register from here on: LLVM would compute it where it is used."""
        text = f'call {x.type} asm sideeffect "", "=r,0"({x.type} {x.ref})'
        return self._emit(text, x.scalar, 0, f"{show(x)} from here on")

    def lane_numbers(self, lanes: int, scalar: str = "i32", factor: int = 1) -> Value:
        """The vector 0, 1, 2, ... times `factor`."""
        inside = ", ".join(
            f"{scalar} {i * factor & ((1 << BITS[scalar]) - 1)}" for i in range(lanes)
        )
        return Value(self._function, f"<{inside}>", scalar, lanes)

    def shuffle(self, x: Value, y: Value, picks: Sequence[int]) -> Value:
        """A vector of lanes of x, then y, by number."""
        mask = ", ".join(f"i32 {p}" for p in picks)
        text = f"shufflevector {x.type} {x.ref}, {y.type} {y.ref}, <{len(picks)} x i32> <{mask}>"
        return self._emit(text, x.scalar, len(picks), f"shuffle({show(x)}, {show(y)})")

    def extract(self, x: Value, lane: int) -> Value:
        """One lane of a vector."""
        return self._emit(
            f"extractelement {x.type} {x.ref}, i64 {lane}", x.scalar, 0, f"{show(x)}[{lane}]"
        )

    @property
    def _function(self) -> Function:
        return cast("Function", self)

    def say(self, text: str) -> None:
        """Adds a line to the listing."""
        self.entries.append((len(self._scopes) - 1, text))

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
            if text in scope:
                return scope[text]
        made = self._emit(text, scalar, 0, shown)
        self._scopes[-1][text] = made
        return made

    def _fresh(self, scalar: str, lanes: int = 0) -> Value:
        self._count += 1
        return Value(self._function, f"%v{self._count}", scalar, lanes)

    def _emit(self, text: str, scalar: str, lanes: int = 0, shown: str | None = None) -> Value:
        value = self._fresh(scalar, lanes)
        self.lines.append(f"  {value.ref} = {text}")
        if shown is not None:
            self.say(f"{show(value)} = {shown}")
        return value
