"""What an op is, and the registry of all ops.

An op is declared once, as a class: its name, attributes with their defaults, shape rule (`infer`),
meaning (`evaluate`), gradient, and `examples`. Declaring it enrols it in the law tests, the text
format, the interpreter and the table in docs/ops.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .errors import CompileError
from .types import DTYPES, FLOATS, N, TensorType, Type

if TYPE_CHECKING:
    from .graph import Builder, Node

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "required"})()
Gradients = tuple["Node | None", ...]
KINDS = {"f": FLOATS, "b": ("bool",), "i": ("i64",), "u": ("u8",), "a": tuple(DTYPES)}


class Op:
    """One operation. Subclasses set the class attributes and define the three rules.

    `kinds` has a letter for each operand: `f` for a float (of one dtype, if there are several), `b`
    boolean, `i` i64, `u` u8, `a` anything; None leaves it to `infer`.
    `infer(*types, **attrs)` returns the result's type or raises CompileError saying what does not
    fit. `evaluate(xp, *arrays, **attrs)` returns the result, with `N` in attrs replaced by the
    number of rows. `gradient(b, node, g)` returns, for each input, the node of its gradient given
    `g`, that of the result, or None where the result does not depend smoothly on it.
    """

    name: ClassVar[str]
    kinds: ClassVar[str | None] = None
    attrs: ClassVar[Mapping[str, Any]] = {}
    examples: ClassVar[tuple[str, ...]] = ()  # "matmul f32[N,4], f32[4,3]"; N is drawn by the tests
    domain: ClassVar[tuple[float, float]] = (-2.0, 2.0)  # where examples draw their numbers
    differentiable: ClassVar[bool] = True  # False: only passes after autodiff make it
    pointwise: ClassVar[bool] = False

    def infer(self, *types: Any, **attrs: Any) -> Type:
        raise NotImplementedError(self.name)

    def evaluate(self, xp: Any, *arrays: Any, **attrs: Any) -> Any:
        raise NotImplementedError(self.name)

    def gradient(self, b: Builder, node: Node, g: Any) -> Gradients:
        raise NotImplementedError(self.name)

    def result(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Type:
        """The type of the op on operands of `types`; CompileError where they do not fit."""
        if self.kinds is not None:
            self._check_operands(types, self.kinds)
        return self.infer(*types, **attrs)

    def _check_operands(self, types: Sequence[Type], kinds: str) -> None:
        if len(types) != len(kinds):
            raise CompileError(f"{self.name}: got {len(types)} operands, expected {len(kinds)}")
        floats = set()
        for t, kind in zip(types, kinds, strict=True):
            if not isinstance(t, TensorType):
                raise CompileError(f"{self.name}: {t} is several results: take one with item")
            if t.dtype not in KINDS[kind]:
                raise CompileError(f"{self.name}: dtypes do not fit: {', '.join(map(str, types))}")
            if kind == "f":
                floats.add(t.dtype)
        if len(floats) > 1:
            raise CompileError(f"{self.name}: dtypes differ: {', '.join(map(str, types))}")

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """attrs with the defaults filled in; CompileError for one that is unknown or missing."""
        for key in attrs:
            if key not in self.attrs:
                raise CompileError(f"{self.name}: unknown attribute {key!r}")
        full = {**self.attrs, **attrs}
        for key, value in full.items():
            if value is REQUIRED:
                raise CompileError(f"{self.name}: attribute {key!r} is missing")
        return full


OPS: dict[str, Op] = {}
OpClass = TypeVar("OpClass", bound=Op)


def register(cls: type[OpClass]) -> type[OpClass]:
    """Class decorator: names the op after its class (`MaxPool2d` -> `max_pool2d`) and lists it."""
    if "name" not in cls.__dict__:
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    assert cls.name not in OPS, cls.name
    OPS[cls.name] = cls()
    return cls


class Pointwise(Op):
    """Each element of the result depends on that element of each operand, and on nothing else.

    `gives` is the letter of the result, `f` or `b`.
    """

    pointwise = True
    kinds = "ff"
    gives: ClassVar[str] = "f"

    def __init_subclass__(cls) -> None:
        if "examples" not in cls.__dict__ and cls.kinds:
            words = ["bool[N,5]" if k == "b" else "f32[N,5]" for k in cls.kinds]
            name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
            scalar = [w.replace("N,5", "").replace("f32", "f64") for w in words]
            cls.examples = (f"{name} {', '.join(words)}", f"{name} {', '.join(scalar)}")

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        if any(t.shape != types[0].shape for t in types):
            raise CompileError(f"{self.name}: shapes differ: {', '.join(map(str, types))}")
        return TensorType(types[0].shape, "bool" if self.gives == "b" else types[-1].dtype)


def is_float(t: Type) -> bool:
    """Whether gradients flow through values of this type."""
    return isinstance(t, TensorType) and t.dtype in FLOATS


def resolve(value: Any, rows: int) -> Any:
    """An attribute with the symbol `N` replaced by the number of rows."""
    if value is N:
        return rows
    if isinstance(value, tuple):
        return tuple(resolve(v, rows) for v in value)
    return value
