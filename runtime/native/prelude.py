"""What every module has in LLVM text: the workers' barrier, the clock, and the mode of the CPU."""

from __future__ import annotations

from .jit import host
from .parking import LOT, parking
from .stamps import tick

# The block where a program's workers meet, in bytes: at first how many have come, then how often
# they have met, and where those sleep who wait long.
TURN, BENCH = 64, 128
MEET = BENCH + LOT

BARRIER = """
define void @meet(ptr %%meet) #0 {
entry:
  %%turn = getelementptr i8, ptr %%meet, i64 %(turn)d
  %%bench = getelementptr i8, ptr %%meet, i64 %(bench)d
  %%now = load atomic i32, ptr %%turn acquire, align 4
  %%before = atomicrmw add ptr %%meet, i32 1 acq_rel
  %%others = add i32 %%before, 1
  %%last = icmp eq i32 %%others, %(workers)d
  br i1 %%last, label %%release, label %%wait
release:
  store atomic i32 0, ptr %%meet monotonic, align 4
  %%next = add i32 %%now, 1
  store atomic i32 %%next, ptr %%turn seq_cst, align 4
  call void @unpark(ptr %%bench)
  ret void
wait:
  call void @park(ptr %%turn, i32 %%now, ptr %%bench)
  ret void
}"""


def prelude(workers: int, timed: bool) -> str:
    """What a program's functions call: meet, flush, restore, and in a timed one now and tick."""
    barrier = BARRIER % {"workers": workers, "turn": TURN, "bench": BENCH}
    parts = [parking(workers), barrier, flush_mode()]
    return "\n".join([*parts, tick()] if timed else parts)


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
