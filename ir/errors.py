"""The family of errors: a message says what was seen, what was expected, what would fix it."""

from __future__ import annotations


class GemmcError(Exception):
    """Base of everything gemmc raises on purpose."""


class CompileError(GemmcError, ValueError):
    """A model, an argument or a graph that cannot be compiled; names the layer or the argument."""


class DataError(GemmcError, ValueError):
    """An array or a file that does not fit; names the argument, or the file and the field."""


class VerifyError(GemmcError):
    """A graph that breaks the rules of the IR: a fault of a pass, never of the user's model."""


class SanitizeError(GemmcError):
    """A step that reads or writes memory that is not its own: a fault of the plan or a kernel."""
