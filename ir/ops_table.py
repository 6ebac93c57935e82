"""The table of ops as Markdown: `python -m gemmc.ir.ops_table > docs/ops.md`."""

from __future__ import annotations

import inspect
import sys

from .op import OPS, REQUIRED, Op

INTRODUCTION = """\
# The ops

Generated from their declarations by `make docs`; a test keeps it true. Each op is one class in
`ir/ops/`, with its shape rule, its meaning over NumPy (or, for pointwise ops, over the strict
namespace of `ir/xp.py`), its gradient and the examples that the law tests draw inputs for. `N` is
the rows of the batch. Attributes without a value are required.
"""


def ops_table() -> str:
    """docs/ops.md: a section a file, an entry an op."""
    parts = [INTRODUCTION]
    files: dict[str, list[Op]] = {}
    for op in OPS.values():
        files.setdefault(type(op).__module__.rsplit(".", 1)[1], []).append(op)
    for name, ops in files.items():
        module = sys.modules[type(ops[0]).__module__]
        parts.append(f"## {name}\n\n{inspect.getdoc(module)}\n")
        parts += [_entry(op) for op in ops]
    return "\n".join(parts)


def _entry(op: Op) -> str:
    attrs = ", ".join(k if v is REQUIRED else f"{k}={v!r}" for k, v in op.attrs.items())
    lines = [f"### {op.name}", "", inspect.getdoc(op) or "", ""]
    lines += [f"Attributes: `{attrs}`.", ""] if attrs else []
    if not op.differentiable:
        lines += ["No gradient rule: made after autodiff, or by it.", ""]
    if op.examples:
        lines += ["```", *op.examples, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    from . import ops as _declared  # importing it fills the registry

    assert _declared
    sys.stdout.write(ops_table())
