"""LLVM at run time: text in, addresses of machine code out. Nothing is kept on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Host:
    """What this CPU offers: `lanes` float32 in a vector, `registers` of them, cores' caches."""

    cpu: str
    features: str
    triple: str
    lanes: int
    registers: int


@cache
def host() -> Host:
    """The CPU this runs on, as LLVM sees it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    lanes, registers = 4, 32  # NEON, and whatever else has vectors of 128 bits
    if features.get("avx512f"):
        lanes, registers = 16, 32
    elif features.get("avx2") and features.get("fma"):
        lanes, registers = 8, 16
    elif llvm.get_process_triple().startswith("x86_64"):
        lanes, registers = 4, 16
    return Host(
        llvm.get_host_cpu_name(),
        features.flatten(),
        llvm.get_process_triple(),
        lanes,
        registers,
    )


class Machine:
    """A module of LLVM text compiled for this host; `address(name)` is where a function is.

    None of LLVM's passes runs on the text: vectors are explicit and values are in SSA form, so
    that they change the time of no network by more than what two measurements differ by.
    """

    def __init__(self, text: str, symbols: Iterable[tuple[str, int]] = ()) -> None:
        for name, address in symbols:
            llvm.add_symbol(name, address)
        self.target = llvm.Target.from_default_triple().create_target_machine(
            cpu=host().cpu, features=host().features, opt=1, jit=True
        )
        self.module = llvm.parse_assembly(text)
        self.module.triple = host().triple
        self.engine = llvm.create_mcjit_compiler(self.module, self.target)
        self.engine.finalize_object()

    def address(self, name: str) -> int:
        """The address of a function."""
        return self.engine.get_function_address(name)

    @property
    def llvm(self) -> str:
        """The module as LLVM has it."""
        return str(self.module)

    @property
    def assembly(self) -> str:
        """The module as this machine's assembly."""
        return self.target.emit_assembly(self.module)
